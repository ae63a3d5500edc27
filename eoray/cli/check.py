"""``eoray check``: read a cube back against its ledger."""

from __future__ import annotations

from typing import Annotated

import typer

from eoray.cli.options import AsJson, Debug
from eoray.cli.outcome import Result, run_verb


def check(
    cube: Annotated[str, typer.Argument(help="Store or cube.icechunk, a path or URL.")],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="From the ledger alone, without reading pixels.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read a cube back: coverage, counts, failed reads and the checksum of its content."""

    def action() -> Result:
        from eoray.cube.check import check_cube

        result: Result = check_cube(cube, quick=quick).to_dict()
        return result

    run_verb(
        action,
        text=_summarise,
        as_json=as_json,
        debug=debug,
        failed=lambda result: not result["ok"],
    )


def _summarise(result: Result) -> str:
    lines = [f"{'cube':<13} {'as its ledger says' if result['ok'] else 'FAULTY'}"]
    shown = ("tiles", "dates", "failed_reads", "checksum")
    lines += [f"{name.replace('_', ' '):<13} {result[name]}" for name in shown]
    return "\n".join([*lines, *(f"- {problem}" for problem in result.get("problems", ()))])
