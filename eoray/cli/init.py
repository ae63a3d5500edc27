"""``eoray init``: write a run file to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from eoray.cli.options import AsJson
from eoray.cli.outcome import Result, run_verb


def init(
    path: Annotated[str, typer.Argument(help="Where to write it.")] = "run.yaml",
    *,
    task: Annotated[
        str, typer.Option(help="cube, land-cover, change or land-cover-change.")
    ] = "change",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented run file in which three values matter: aoi, time, task."""

    def action() -> Result:
        from eoray.config import write_template

        return {"run_file": str(write_template(path, task=task, overwrite=force))}

    run_verb(action, text=_summarise, as_json=as_json)


def _summarise(result: Result) -> str:
    name = result["run_file"]
    return f"{name} is written; set aoi, time and task in it, then: eoray plan {name}"
