"""``eoray demo``: the whole path on a synthetic archive, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eoray.cli.execute import with_progress
from eoray.cli.options import AsJson, Debug
from eoray.cli.outcome import Result, run_verb

OUT = Path("eoray-demo")


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder of all outputs; a stopped demo goes on.")] = OUT,
    ray: Annotated[bool, typer.Option("--ray", help="The same through local Ray.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Catalogue to cube, model, map, change and report: offline, on synthetic scenes."""

    def action() -> Result:
        from eoray.run.demo import run_demo

        result: Result = with_progress(lambda progress: run_demo(out, ray=ray, progress=progress))
        return result

    run_verb(action, text=_summarise, as_json=as_json, debug=debug)


def _summarise(result: Result) -> str:
    return "\n".join(f"{name:<18} {value}" for name, value in result.items())
