"""``eoray heal``: read again what could not be read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eoray.cli.execute import attempt_of, load, summarise_run, with_progress
from eoray.cli.options import (
    Address,
    AsJson,
    Debug,
    ExecutorOption,
    Items,
    Overrides,
    Reasons,
    RunFile,
    Since,
)
from eoray.cli.outcome import Result, run_verb

if TYPE_CHECKING:
    from eoray.cli.progress import ProgressPrinter
    from eoray.run import Run
    from eoray.run.heal import HoleFilter, Holes


def heal(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    list_only: Annotated[
        bool, typer.Option("--list", help="Name what could not be read, and why; read nothing.")
    ] = False,
    item: Items = None,
    reason: Reasons = None,
    since: Since = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read again; read nothing.")
    ] = False,
    address: Address = None,
    executor: ExecutorOption = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read again what could not be read in a run, and remake what was made of it."""

    def action() -> Result:
        from eoray.run.heal import HoleFilter

        wanted = HoleFilter(tuple(item or ()), tuple(reason or ()), since)
        if list_only or dry_run:
            return _describe(load(run_file, overrides or []), wanted)
        return with_progress(
            lambda progress: _heal(load(run_file, overrides or []), wanted, progress)
        )

    def _heal(run: Run, wanted: HoleFilter, progress: ProgressPrinter) -> Result:
        with attempt_of(run):
            report = run.heal(
                holes=wanted,
                address=address,
                executor=executor,
                attempt=os.environ.get("EORAY_ATTEMPT", ""),
                progress=progress,
            )
        return report.to_dict()

    def text(result: Result) -> str:
        if list_only or dry_run:
            return _table(result) + ("\n" + _cost(result) if dry_run else "")
        return summarise_run(result) if result["stages"] else "no such holes: nothing to heal"

    run_verb(action, text=text, as_json=as_json, debug=debug)


def _describe(run: Run, wanted: HoleFilter) -> dict[str, Any]:
    from eoray.run.estimate import estimate_reads
    from eoray.run.heal import group_letters

    holes: Holes = run.find_holes(wanted)
    requests, size, _ = estimate_reads(holes.rows, run.config.cube.bands, 1)
    return {
        "failed_reads": group_letters(holes.letters),
        "tiles": len(holes.again),
        "tasks": len(holes.rows),
        "requests": requests,
        "bytes": size,
    }


def _table(result: Result) -> str:
    rows = [
        (one["item"] or "?", one["band"], one["reason"], f"{one['attempts']} attempts",
         f"{len(one['tiles'])} tiles", one["detail"])
        for one in result["failed_reads"]
    ]  # fmt: skip
    from eoray.cli.attempts import table

    return table(rows) if rows else "no holes"


def _cost(result: Result) -> str:
    return (
        f"would read {result['tiles']} tiles of a date again in {result['tasks']} tasks: about "
        f"{result['requests']} requests, {result['bytes'] / 1e6:.1f} MB"
    )
