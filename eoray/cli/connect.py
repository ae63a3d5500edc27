"""``eoray connect``: a command beside a Ray cluster that stays."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from eoray.cli.options import Context, Debug
from eoray.cli.outcome import Result, run_verb

if TYPE_CHECKING:
    from eoray.k8s.connect import Tunnel


def connect(
    place: Annotated[
        str, typer.Argument(metavar="NAMESPACE/NAME", help="A RayCluster, such as maps/eoray.")
    ],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="Run this with the cluster's address."),
    ] = None,
    *,
    context: Context = None,
    debug: Debug = False,
) -> None:
    """Reach a Ray cluster on Kubernetes from here: its client port and its dashboard.

    Behind -- stands a command that runs with RAY_ADDRESS and the token in its environment, such as
    `eoray connect maps/eoray -- eoray run run.yaml --address auto`. Without one the addresses are
    printed and kept until Ctrl-C. Ending the connection ends nothing on the cluster.
    """
    code: list[int] = []

    def action() -> Result:
        from eoray.k8s.connect import open_tunnel

        with open_tunnel(place, context=context) as tunnel:
            if command:
                code.append(_run(command, tunnel))
            else:
                _wait(place, tunnel)
        return {}

    run_verb(action, text=lambda _: None, as_json=False, debug=debug)
    raise typer.Exit(code[0] if code else 0)


def _run(command: list[str], tunnel: Tunnel) -> int:
    """Run a command to its end; an interrupt is the command's to answer."""
    dropped = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    own = {name: value for name, value in os.environ.items() if name not in dropped}
    addresses = {"RAY_ADDRESS": tunnel.address, "RAY_API_SERVER_ADDRESS": tunnel.dashboard}
    process = subprocess.Popen(  # noqa: S603 - the user's own command
        command, env={**own, **addresses, **tunnel.environment}
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _wait(place: str, tunnel: Tunnel) -> None:
    """Tell the addresses and keep them; the token stays where it is."""
    try:
        typer.echo(f"export RAY_ADDRESS={tunnel.address} RAY_API_SERVER_ADDRESS={tunnel.dashboard}")
        typer.echo(f"export RAY_AUTH_MODE={tunnel.environment['RAY_AUTH_MODE']}")
        if tunnel.token_command:
            typer.echo(tunnel.token_command)
        typer.echo(f"{place}: reached until Ctrl-C; dashboard at {tunnel.dashboard}", err=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo(f"{place}: left; what runs there goes on", err=True)
