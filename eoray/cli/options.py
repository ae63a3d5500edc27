"""Arguments and options that verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

RunFile = Annotated[
    str, typer.Argument(metavar="RUN_FILE", help="Run file; `eoray init` writes one.")
]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings that win over the run file, such as cube.bands=[B02,B03].",
    ),
]

Stages = Annotated[
    list[str] | None,
    typer.Option("--stage", metavar="STAGE", help="Only this stage; repeat it for several."),
]

Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster: 'auto' (the one this runs in) or ray://host:port."),
]

ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor", help="inline, threads or ray; chosen by the plan's size if not given."
    ),
]

AsJson = Annotated[
    bool, typer.Option("--json", help="End stdout with the result as one JSON object.")
]

Debug = Annotated[bool, typer.Option("--debug", help="Log more, and show tracebacks.")]
