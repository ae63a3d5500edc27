"""``eoray schedule``: run files that a cluster submits again and again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eoray.cli.attempts import table
from eoray.cli.options import (
    AsJson,
    Context,
    CronExpression,
    Debug,
    Estimate,
    LookbackDays,
    Namespace,
    Overrides,
    Phases,
    RunFile,
    ScheduleName,
    Stages,
    TimeZone,
    cluster_section,
)
from eoray.cli.outcome import Result, run_verb
from eoray.cli.submit import bounds, of_environment, say

if TYPE_CHECKING:
    from eoray.k8s.schedule import Schedule

app = typer.Typer(
    help="Let Kubernetes submit a run file again and again, each time for its own window.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the schedule.")]


@app.command()
def apply(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    cron: CronExpression,
    time_zone: TimeZone = "Etc/UTC",
    lookback_days: LookbackDays = None,
    name: ScheduleName = None,
    stage: Stages = None,
    phases: Phases = False,
    missed_seconds: Annotated[
        int, typer.Option(min=200, help="A tick that could not start for so long is given up.")
    ] = 3600,
    estimate: Estimate = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a schedule, or change the one of this name."""

    def action() -> Result:
        from datetime import UTC, datetime

        from eoray.config import load_config
        from eoray.k8s.schedule import Timetable, foresee_tick, plan_schedule
        from eoray.k8s.schedule import schedule as schedule_file

        given = [*of_environment(run_file, overrides or []), *(overrides or [])]
        config, folder = load_config(run_file, given), Path(run_file).resolve().parent
        when, now = Timetable(cron, time_zone, missed_seconds), datetime.now(UTC)
        days = lookback_days
        plan_schedule(config, folder, when, name, stage or (), days, phases=phases)
        given += foresee_tick(
            run_file, given, stages=stage or (), lookback_days=days, estimate=estimate, tell=say
        )
        for line in bounds(load_config(run_file, given), stage or (), phases=phases):
            say(f"each run: {line}")
        made = schedule_file(
            run_file,
            given,
            cron=cron,
            time_zone=time_zone,
            lookback_days=days,
            name=name,
            stages=stage or (),
            phases=phases,
            missed_s=missed_seconds,
            estimate=False,  # made above, before the bound
        )
        warnings = when.warnings(now)
        for warning in warnings:
            say(f"warning: {warning}")
        return {**made.status(), "what": made.what, "warnings": warnings}

    run_verb(
        action,
        text=lambda r: f"{r['name']}  {r['what']}; {_ahead(r)}",
        as_json=as_json,
        debug=debug,
    )


@app.command("list")
def list_all(
    *,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List schedules: next tick, last tick and what came of it."""

    def action() -> Result:
        from eoray.k8s.schedule import list_schedules

        return {"schedules": list_schedules(cluster_section(namespace, context))}

    run_verb(action, text=_table, as_json=as_json, debug=debug)


@app.command("run-now")
def run_now(
    name: Name,
    *,
    scheduled_time: Annotated[
        str | None,
        typer.Option(help="The tick whose window is meant, UTC; the last one that was due."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start the run of a tick by hand; the same tick again is the same run."""

    def action() -> Result:
        from eoray.k8s.window import parse_moment

        moment = None if scheduled_time is None else parse_moment(scheduled_time)
        job, tick = _find(name, namespace, context).run_now(moment)
        return {"name": name, "job": job, "scheduled_time": f"{tick:%Y-%m-%dT%H:%MZ}"}

    run_verb(
        action,
        text=lambda r: f"{r['name']}  Job {r['job']} submits the run of {r['scheduled_time']}",
        as_json=as_json,
        debug=debug,
    )


@app.command()
def suspend(
    name: Name,
    *,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start nothing more; what runs goes on."""

    def action() -> Result:
        found = _find(name, namespace, context)
        found.suspend()
        return found.status()

    run_verb(action, text=lambda r: f"{r['name']}  {_ahead(r)}", as_json=as_json, debug=debug)


@app.command()
def resume(
    name: Name,
    *,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start again; the last tick that was missed starts at once, unless it is too late."""

    def action() -> Result:
        found = _find(name, namespace, context)
        found.resume()
        return found.status()

    run_verb(action, text=lambda r: f"{r['name']}  {_ahead(r)}", as_json=as_json, debug=debug)


@app.command()
def delete(
    name: Name,
    *,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete a schedule, its Jobs and run files; runs that it submitted go on."""

    def action() -> Result:
        return {"name": name, "deleted": _find(name, namespace, context).delete()}

    run_verb(action, text=lambda r: f"{r['name']}  deleted", as_json=as_json, debug=debug)


def _find(name: str, namespace: str | None, context: str | None) -> Schedule:
    from eoray.k8s.schedule import find_schedule

    return find_schedule(cluster_section(namespace, context), name)


def _ahead(row: Result) -> str:
    return "suspended" if row["suspended"] else f"next tick {row['next'] or 'never'}"


def _table(result: Result) -> str:
    rows = [
        (
            row["name"],
            row["cron"],
            row["time_zone"],
            _ahead(row),
            f"last {row['last'] or 'never'}",
            ": ".join(part for part in (row["outcome"], row["why"]) if part),
        )
        for row in result["schedules"]
    ]
    return table(rows) if rows else "no schedules"
