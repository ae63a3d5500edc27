"""Arguments and options that verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from eoray.config import ClusterSection

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

Phases = Annotated[
    bool,
    typer.Option(
        "--phases", help="A job for each group of stages, one after another; waits between them."
    ),
]

Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster: 'auto' (the one this runs in, or of RAY_ADDRESS) or ray://host:port."
    ),
]

ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor", help="inline, threads or ray; chosen by the plan's size if not given."
    ),
]

Errors = Annotated[
    Literal["record", "raise"] | None,
    typer.Option(
        "--errors",
        help="Reads that fail: leave a recorded hole, or stop; as the run file says if not given.",
    ),
]

Items = Annotated[
    list[str] | None,
    typer.Option("--item", metavar="ID", help="Only this item; repeat it for several."),
]

Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="WORD", help="Only this reason, such as 503 or timeout."),
]

Since = Annotated[str, typer.Option("--since", metavar="DAY", help="Only scenes from this day on.")]

AsJson = Annotated[
    bool, typer.Option("--json", help="End stdout with the result as one JSON object.")
]

Debug = Annotated[bool, typer.Option("--debug", help="Log more, and show tracebacks.")]

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        envvar="EORAY_NAMESPACE",
        show_envvar=True,
        help="Namespace of the runs; the context's if not given.",
    ),
]

CronExpression = Annotated[
    str, typer.Option(help="When: minute, hour, day, month, weekday, such as '0 3 * * 1'.")
]

TimeZone = Annotated[str, typer.Option(help="Of the hours.")]

LookbackDays = Annotated[
    int | None,
    typer.Option(min=1, help="Days before the scheduled minute; if not given, all of the run."),
]

ScheduleName = Annotated[
    str | None, typer.Option("--name", help="Of the schedule; the run's if not given.")
]

Estimate = Annotated[
    bool | None,
    typer.Option(
        "--estimate/--no-estimate",
        help="Show what the catalogue says is to be read, and size the head for it; if not given, "
        "except in pods.",
    ),
]

Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]


def cluster_section(namespace: str | None, context: str | None) -> ClusterSection:
    """The cluster that options name."""
    from eoray.config import ClusterSection

    return ClusterSection(namespace=namespace, context=context)
