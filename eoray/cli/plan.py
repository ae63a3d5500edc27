"""``eoray plan``: what a run would cost, before a pixel is read."""

from __future__ import annotations

from typing import Annotated

import typer

from eoray.cli.options import AsJson, Debug, Overrides, RunFile, Stages
from eoray.cli.outcome import Result, run_verb


def plan(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    stage: Stages = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Ask the catalogue, without the run's filters, for missing passes."
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also", metavar="COLLECTION", help="A further collection to ask; repeat it."
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say scenes, tiles, dates, bytes, requests, tasks and minutes of a run."""
    told: list[str] = []

    def action() -> Result:
        from eoray.run import load_run

        report = load_run(run_file, overrides or []).plan(stage, audit=audit, also=also or [])
        told.append(report.text())
        return report.to_dict()

    run_verb(action, text=lambda _: told[0], as_json=as_json, debug=debug)
