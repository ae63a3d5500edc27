"""``eoray submit``: carry out a run file on Kubernetes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eoray.cli.options import (
    AsJson,
    Debug,
    Estimate,
    Items,
    LookbackDays,
    Overrides,
    Phases,
    Reasons,
    RunFile,
    Since,
    Stages,
)
from eoray.cli.outcome import Exit, Result, run_verb
from eoray.cli.view import keep_view
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.config import RunConfig
    from eoray.k8s.healing import Healing
    from eoray.k8s.job import Job
    from eoray.k8s.states import State
    from eoray.k8s.window import Window


def submit(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    stage: Stages = None,
    ray_cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="NAME", help="Run on this RayCluster, which stays."),
    ] = None,
    phases: Phases = False,
    heal: Annotated[
        bool,
        typer.Option("--heal", help="Read again what could not be read, as `eoray heal` does."),
    ] = False,
    item: Items = None,
    reason: Reasons = None,
    since: Since = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, on the server too; create nothing."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Begin another attempt though one succeeded.")
    ] = False,
    wait_for_lease: Annotated[
        bool, typer.Option("--wait-for-lease", help="Let the driver wait for another writer's end.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Make another writer of the store stop.")
    ] = False,
    estimate: Estimate = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave as soon as the run is submitted.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--wait", help="Wait for the end without the head's log.")
    ] = False,
    scheduled_time: Annotated[
        str | None,
        typer.Option(help="Let the days of the run end before this minute, UTC."),
    ] = None,
    lookback_days: LookbackDays = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Submit a run file to Kubernetes and follow it; Ctrl-C detaches, the run goes on.

    Submitting again attaches to what runs, says what is done, or begins the next attempt.
    """

    def action() -> Result:
        from eoray.config import load_config
        from eoray.k8s.forecast import foresee
        from eoray.k8s.job import submit_phases
        from eoray.k8s.window import move_window

        given = _settings(run_file, overrides or [], ray_cluster)
        if phases:
            _check_phases(detach=detach, heal=heal, dry_run=dry_run)
        healing = _healing(item, reason, since, heal=heal)
        given += _lease(wait=wait_for_lease, take_over=take_over)
        window = _window(scheduled_time, lookback_days)

        def load() -> RunConfig:
            config = load_config(run_file, given)
            return config if window is None else move_window(config, window)

        config = load()
        _check(config, run_file, stage or (), is_one_job=not phases and healing is None)
        if healing is None:
            given += foresee(
                run_file, given, stages=stage or (), window=window, estimate=estimate, tell=say
            )
            config = load()
        for line in bounds(config, stage or (), phases=phases):
            say(line)
        how: dict[str, Any] = {
            "stages": stage or (),
            "again": again,
            "window": window,
            "estimate": False,  # made above, before the bound
            "schedule": os.environ.get("EORAY_SCHEDULE"),
            "tell": say,
        }
        if not phases:
            how |= {"heal": healing, "dry_run": dry_run}
        jobs = submit_phases if phases else _submit_one
        result, ended = _follow(jobs(run_file, given, **how), detach=detach, quiet=quiet)
        if phases and not ended:
            say("the phases behind it are not submitted; submit again to go on with them")
        return result

    run_verb(action, text=lambda r: f"{r['name']}  {r['line']}", as_json=as_json, debug=debug,
             ends=end_of)  # fmt: skip


def _settings(run_file: str, overrides: list[str], ray_cluster: str | None) -> list[str]:
    """The settings that are given, the environment's first: a later one wins."""
    named = [] if ray_cluster is None else [f"cluster.ray_cluster={ray_cluster}"]
    return [*of_environment(run_file, overrides), *overrides, *named]


def _check(config: RunConfig, run_file: str, stages: Sequence[str], *, is_one_job: bool) -> None:
    """Refuse what can be refused before anything is estimated, or asked of the cluster."""
    from eoray.k8s.checks import check_run
    from eoray.k8s.phases import check_idle_gpus

    folder = Path(run_file).resolve().parent
    check_run(config, folder)
    if is_one_job:
        check_idle_gpus(config, stages)
    _look_at_lease(config, folder)


def _submit_one(run_file: str, given: list[str], **how: Any) -> Iterator[Job]:
    from eoray.k8s.job import submit as submit_file

    yield submit_file(run_file, given, **how)


def _check_phases(*, detach: bool, heal: bool, dry_run: bool) -> None:
    """Refuse what a run in phases cannot be told."""
    reasons = {
        "--detach": (detach, "each phase is submitted when the one before has ended"),
        "--heal": (heal, "a heal is one job"),
        "--dry-run": (dry_run, "only the first phase could be checked on the server"),
    }
    for option, (is_given, why) in reasons.items():
        if is_given:
            raise ConfigError(
                f"--phases and {option} exclude each other, because {why}; leave one out"
            )


def _healing(
    items: list[str] | None, reasons: list[str] | None, since: str, *, heal: bool
) -> Healing | None:
    """What to read again; None where a run is meant."""
    from eoray.k8s.healing import Healing

    if heal:
        return Healing(tuple(items or ()), tuple(reasons or ()), since)
    if items or reasons or since:
        raise ConfigError("--item, --reason and --since say what to read again; add --heal")
    return None


def _follow(jobs: Iterator[Job], *, detach: bool, quiet: bool) -> tuple[Result, bool]:
    """Follow what is submitted, one after another.

    Returns:
        (the last of them, whether it was followed to its end).
    """
    result: dict[str, Any] = {}
    ended = True
    for job in jobs:
        what = "submitted" if job.submission is None else job.submission.what
        say(f"{job.name}: {what}")
        if what == "checked":
            return {"what": what, "name": job.name, "line": "checked; nothing was created"}, True
        state = _follow_one(job, detach=detach or what == "done", quiet=quiet)
        result, ended = {"what": what, **job.outcome(state)}, state.is_finished
        if not ended:
            result["interrupted"] = not detach
            break
        if what != "done":
            keep_view(job)
    return result, ended


def _follow_one(job: Job, *, detach: bool, quiet: bool) -> State:
    """Follow an attempt to its end, or to the operator's verdict, or until Ctrl-C leaves it."""
    try:
        if detach:
            return job.verdict(tell=say)
        return job.follow(tell=say, line=(lambda _: None) if quiet else say)
    except KeyboardInterrupt:
        say(goes_on(job.name))
    return job.status()


def goes_on(name: str) -> str:
    """What Ctrl-C leaves of a run that is followed."""
    return (
        f"detached: {name} goes on; follow it again with `eoray logs --follow {name}`, end it with "
        f"`eoray cancel {name}`"
    )


def bounds(config: RunConfig, stages: Sequence[str], *, phases: bool) -> list[str]:
    """What the run may use at most, phase by phase."""
    from eoray.k8s.bound import EXCLUDED, bound_of
    from eoray.k8s.phases import split_phases

    if not phases:
        return bound_of(config.cluster).lines()
    found = split_phases(config, stages)
    lines = [(phase, bound_of(phase.config.cluster).lines()[0]) for phase in found]
    return [*(f"{', '.join(phase.stages)}: {line}" for phase, line in lines), EXCLUDED]


def _lease(*, wait: bool, take_over: bool) -> list[str]:
    """What the driver is to do about another writer, as a setting of the run file."""
    if wait and take_over:
        raise ConfigError("--wait-for-lease and --take-over exclude each other; choose one")
    return ["run.lease=wait"] if wait else ["run.lease=take-over"] if take_over else []


def _look_at_lease(config: RunConfig, folder: Path) -> None:
    """Refuse a store that another run writes; where it is not seen from here, the driver does."""
    from eoray.buckets import use_buckets
    from eoray.config import config_key, with_absolute_paths
    from eoray.run.lease import check_free

    if config.run.lease != "refuse":
        return
    use_buckets({url: section.bucket() for url, section in config.storage.items()})
    sent = with_absolute_paths(config, folder)  # what the driver's lease is named after
    why = check_free(sent.store, config_key(sent))
    if why:
        say(f"whether another run writes the store is left to the driver: {why}")


def of_environment(run_file: str, overrides: list[str]) -> list[str]:
    """The namespace that EORAY_NAMESPACE names, where the run file names none."""
    from eoray.config import load_config

    namespace = os.environ.get("EORAY_NAMESPACE")
    named = load_config(run_file, overrides).cluster.namespace
    return [f"cluster.namespace={namespace}"] if namespace and named is None else []


def _window(scheduled_time: str | None, lookback_days: int | None) -> Window | None:
    """The window that is asked for, or that of the schedule whose pod this is."""
    from eoray.k8s.window import Window, parse_moment, scheduled_minute

    job = os.environ.get("EORAY_JOB_NAME")
    if scheduled_time is not None:
        return Window(parse_moment(scheduled_time), lookback_days)
    return Window(scheduled_minute(job), lookback_days) if job else None


def say(line: str) -> None:
    """Tell the reader on stderr what is going on."""
    typer.echo(line, err=True)


def end_of(result: Result) -> Exit:
    """The run's own exit code, once it has ended; Ctrl-C before tells nothing of the run."""
    code = result.get("exit_code")
    if code is None:
        return Exit.DETACHED if result.get("interrupted") else Exit.DONE
    return Exit(code)
