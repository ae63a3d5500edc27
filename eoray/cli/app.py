"""The ``eoray`` command and its verbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from eoray.cli import (
    attempts,
    check,
    connect,
    demo,
    doctor,
    export,
    heal,
    init,
    plan,
    render,
    report,
    run,
    schedule,
    schema,
    stages,
    submit,
    version,
)
from eoray.cli.leave import leave_whole

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage or run file, 3 timeout, 4 unreachable, 5 cancelled. "
    "Logs go to stderr; --json ends stdout with one JSON object."
)

app = typer.Typer(
    name="eoray",
    help="Sentinel-2 from a STAC catalogue to datacubes, models, maps and change.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
"""All verbs; plain text, since its output is read by machines too."""

_VERBS: tuple[Callable[..., None], ...] = (
    demo.demo,
    init.init,
    plan.plan,
    plan.explain,
    run.run,
    *stages.VERBS,
    submit.submit,
    *attempts.VERBS,
    connect.connect,
    render.render,
    doctor.doctor,
    check.check,
    heal.heal,
    report.report,
    export.export,
    schema.schema,
    version.version,
)

for _verb in _VERBS:
    app.command(_verb.__name__.partition("_")[0])(_verb)

app.add_typer(schedule.app, name="schedule")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        arguments: What stands behind ``eoray``; None takes the process's own.
    """
    if arguments is not None:
        app(args=list(arguments), prog_name="eoray")
    with leave_whole():
        app(prog_name="eoray")
