"""``eoray render``: the objects of a submission, to keep in git or to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eoray.cli.options import (
    Debug,
    LookbackDays,
    Overrides,
    Phases,
    RunFile,
    ScheduleName,
    Stages,
)
from eoray.cli.outcome import Result, run_verb
from eoray.cli.submit import say

if TYPE_CHECKING:
    from eoray.k8s.schedule import Timetable


def render(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    stage: Stages = None,
    phases: Phases = False,
    cron: Annotated[
        str | None, typer.Option(help="Render a schedule: minute, hour, day, month, weekday.")
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Of the schedule's hours.")] = "Etc/UTC",
    lookback_days: LookbackDays = None,
    name: ScheduleName = None,
    rayjob: Annotated[
        bool, typer.Option("--rayjob", help="The RayJob that would be created, to read.")
    ] = False,
    images: Annotated[
        bool, typer.Option("--images", help="The images that the run needs, for mirrors.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Print the Job that submits a run, or with --cron the CronJob, and its run file.

    No cluster is asked, and the same input gives the same bytes: keep them in git.
    """

    def action() -> Result:
        from eoray.errors import ConfigError
        from eoray.k8s.render import render_images, render_job, render_rayjob, render_schedule

        given, stages = overrides or [], stage or ()
        if (rayjob + images + (cron is not None)) > 1:
            raise ConfigError("--cron, --rayjob and --images exclude each other; choose one")
        if cron is None and (name is not None or lookback_days is not None):
            raise ConfigError("--name and --lookback-days belong to a schedule; add --cron")
        if rayjob:
            return {"text": render_rayjob(run_file, given, stages, phases=phases)}
        if images:
            return {"text": render_images(run_file, given)}
        if cron is None:
            return {"text": render_job(run_file, given, stages, phases=phases)}
        when = _timetable(cron, time_zone)
        return {
            "text": render_schedule(
                run_file,
                given,
                stages,
                when=when,
                name=name,
                lookback_days=lookback_days,
                phases=phases,
            )
        }

    run_verb(action, text=lambda r: str(r["text"]).rstrip("\n"), as_json=False, debug=debug)


def _timetable(cron: str, time_zone: str) -> Timetable:
    from datetime import UTC, datetime

    from eoray.k8s.schedule import Timetable

    when = Timetable(cron, time_zone)
    for warning in when.warnings(datetime.now(UTC)):
        say(f"warning: {warning}")
    return when
