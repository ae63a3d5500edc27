"""Reach a Ray cluster that stays: ports to loopback, its token, versions compared.

``execute(address=...)`` then runs the driver on the cluster's head; losing the connection, or
leaving, ends nothing there.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s import client as k8s
from eoray.k8s.forward import forward_port
from eoray.k8s.head import Dashboard, dial_head, open_dashboard, secret_of

if TYPE_CHECKING:
    from eoray.k8s.client import Cluster

CLIENT_PORT = 10001
"""Of the head: Ray's client server."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A way to a Ray cluster."""

    address: str
    """``ray://127.0.0.1:port``."""
    dashboard: str
    """``http://127.0.0.1:port``."""
    environment: Mapping[str, str]
    """What Ray reads the cluster's token from."""
    token_command: str = ""
    """How a shell gets the token; "" where the cluster asks for none."""


@contextmanager
def connect(place: str, *, context: str | None = None) -> Iterator[str]:
    """Reach a Ray cluster on Kubernetes from this process, with its token.

    Args:
        place: ``namespace/cluster``, or the name of a RayCluster in the context's namespace.
        context: Of the kubeconfig; None takes the current one.

    Yields:
        The address for ``execute(address=...)`` or ``ray.init``. Within the block Ray uses the
        cluster's token; what it used before comes back at the end.

    Raises:
        ClusterError: There is no such cluster, no right to reach it, or its Ray or Python is
            another one than here.
    """
    with open_tunnel(place, context=context) as tunnel, _ray_environment(tunnel.environment):
        yield tunnel.address


@contextmanager
def open_tunnel(
    place: str, *, context: str | None = None, cluster: Cluster | None = None
) -> Iterator[Tunnel]:
    """As :func:`connect`, for other processes: nothing of this one is changed.

    Args:
        place: As for :func:`connect`.
        context: As for :func:`connect`.
        cluster: The namespace, where it is reached already.
    """
    namespace, _, name = place.rpartition("/")
    if not name or "/" in namespace:
        raise ClusterError(
            f"{place!r} names no cluster; write namespace/name, such as maps/eoray, or its name"
        )
    if cluster is None:
        from eoray.config import ClusterSection

        cluster = k8s.connect(ClusterSection(context=context, namespace=namespace or None))
    dial = partial(dial_head, cluster, name, CLIENT_PORT)
    with (
        open_dashboard(cluster, name) as dashboard,
        forward_port(dial, CLIENT_PORT) as client,
    ):
        _check_versions(place, dashboard)
        yield Tunnel(
            f"ray://127.0.0.1:{client.port}",
            dashboard.url,
            _environment(dashboard.token),
            _token_command(cluster.namespace, secret_of(cluster, name)),
        )


def _environment(token: str) -> dict[str, str]:
    if not token:
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def _token_command(namespace: str, secret: str) -> str:
    if not secret:
        return ""
    path = "{.data.auth_token}"
    read = f"kubectl get secret {secret} -n {namespace} -o jsonpath='{path}' | base64 -d"
    return f"export RAY_AUTH_TOKEN=$({read})"


def _check_versions(place: str, dashboard: Dashboard) -> None:
    """Refuse a cluster with another Ray or Python: Ray itself tells it late, or not at all."""
    status, answer = dashboard.ask("GET", "/api/v0/cluster_metadata")
    found = answer.get("data") or {}
    if status != 200:
        return  # no such question in this Ray: its client compares as well
    theirs = {"Ray": found.get("rayVersion"), "Python": _minor(found.get("pythonVersion"))}
    ours = {"Ray": _own_ray(), "Python": _minor(platform.python_version())}
    for what, there in theirs.items():
        here = ours[what]
        if here and there and here != there:
            raise ClusterError(
                f"{what} is {there} at {place!r} and {here} here, and Ray's client needs the same; "
                f"use an environment with {what} {there}, or submit the run file with "
                f"`eoray submit --cluster {place.rpartition('/')[2]}`"
            )


def _minor(text: str | None) -> str | None:
    return None if text is None else ".".join(text.split(".")[:2])


def _own_ray() -> str | None:
    try:
        return version("ray")
    except PackageNotFoundError:
        return None


@contextmanager
def _ray_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Give this process the cluster's token, and its own one back at the end."""
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(environment)
    _read_token_again()
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)
        _read_token_again()


def _read_token_again() -> None:
    """Ray keeps mode and token from its import on; where it is not imported, it reads them then."""
    raylet: Any = sys.modules.get("ray._raylet")
    if raylet is not None:
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
