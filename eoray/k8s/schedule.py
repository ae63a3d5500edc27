"""Schedules: a run file that a CronJob submits again and again, each time for its own window."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eoray.errors import ClusterError, ConfigError, ConflictError
from eoray.k8s.client import Cluster, connect
from eoray.k8s.cron import next_ticks, parse_cron, read_zone, summer_time_warnings
from eoray.k8s.forecast import foresee
from eoray.k8s.names import PART_OF, SCHEDULE
from eoray.k8s.refusals import AlreadyExistsError
from eoray.k8s.submitter import (
    CONTAINER,
    MANAGED_BY,
    SubmitPlan,
    build_cronjob,
    build_run_file,
    check_name,
    plan_submission,
)
from eoray.k8s.ticks import describe_schedule, last_due
from eoray.k8s.window import Window, move_window

if TYPE_CHECKING:
    from eoray.config import ClusterSection, RunConfig

DEFAULT_ZONE = "Etc/UTC"

MISSED_S = 3600
"""A tick that could not start for so long is given up."""

_GONE_S = 120.0
"""A deleted schedule gets this long to go."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a schedule ticks, checked."""

    cron: str
    time_zone: str = DEFAULT_ZONE
    missed_s: int = MISSED_S

    def next_ticks(self, now: datetime, count: int) -> list[datetime]:
        """The next ticks, UTC."""
        return next_ticks(parse_cron(self.cron), read_zone(self.time_zone), now, count)

    def warnings(self, now: datetime) -> list[str]:
        """Days on which summer time skips or doubles a tick."""
        return summer_time_warnings(parse_cron(self.cron), read_zone(self.time_zone), now)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule on a cluster."""

    cluster: Cluster
    name: str
    """Of the CronJob."""
    what: Literal["created", "updated"] | None = None
    """What became of the request that this object comes from."""

    def describe(self) -> dict[str, Any]:
        """The CronJob object.

        Raises:
            ClusterError: It is gone.
        """
        found = self.cluster.cronjob(self.name)
        if found is None or SCHEDULE not in found["metadata"].get("labels", {}):
            raise ClusterError(
                f"no schedule {self.name!r} in namespace {self.cluster.namespace!r}; `eoray "
                "schedule list` shows them"
            )
        return found

    def status(self) -> dict[str, Any]:
        """Its next tick, its last one and what came of it; see :func:`describe_schedule`."""
        jobs = self.cluster.jobs(f"{SCHEDULE}={self.name}")
        return describe_schedule(self.describe(), jobs, datetime.now(UTC))

    def run_now(self, moment: datetime | None = None) -> tuple[str, datetime]:
        """Start the run of a tick by hand; the same tick again is the same run.

        Args:
            moment: The tick; None takes the last one that was due.

        Returns:
            The Job's name, and the moment.

        Raises:
            ConfigError: The moment has not come yet, or none was due.
        """
        cronjob, now = self.describe(), datetime.now(UTC)
        tick = last_due(cronjob, now) if moment is None else moment
        if tick is None:
            raise ConfigError(
                f"schedule {self.name!r} was not due yet; say whose window is meant: "
                "--scheduled-time 2026-01-31T03:00"
            )
        if tick > now:
            raise ConfigError(
                f"{tick:%Y-%m-%dT%H:%MZ} has not come yet; name a minute that has passed"
            )
        made = self.cluster.create_job(build_manual_job(cronjob, tick))
        return made["metadata"]["name"], tick

    def suspend(self) -> None:
        """Start nothing more; what runs goes on."""
        self._set_suspend(wanted=True)

    def resume(self) -> None:
        """Start again; the last tick that was missed starts at once, unless it is too late."""
        self._set_suspend(wanted=False)

    def delete(self, *, wait: Callable[[float], None] = time.sleep) -> bool:
        """Delete it with its Jobs and run files; runs that it submitted go on.

        Returns:
            False where there was none.

        Raises:
            ConfigError: Helm made it.
            ClusterError: It does not go.
        """
        found = self.cluster.cronjob(self.name)
        if found is None:
            return False
        _check_ours(found)
        self.cluster.delete_cronjob(self.name)
        waited = 0.0
        while self.cluster.cronjob(self.name) is not None:
            if waited >= _GONE_S:
                raise ClusterError(f"schedule {self.name!r} is not gone after {waited:g} s")
            wait(1.0)
            waited += 1.0
        return True

    def _set_suspend(self, *, wanted: bool) -> None:
        self.describe()
        self.cluster.patch_cronjob(self.name, {"spec": {"suspend": wanted}})


def schedule(  # noqa: PLR0913 - one schedule, and all that may be said about it
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    cron: str,
    time_zone: str = DEFAULT_ZONE,
    lookback_days: int | None = None,
    name: str | None = None,
    stages: Sequence[str] = (),
    phases: bool = False,
    missed_s: int = MISSED_S,
    estimate: bool | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Schedule:
    """Let a cluster submit a run file again and again; a schedule of this name is changed.

    The window of each run ends with the last whole day before the tick. A suspended schedule stays
    suspended.

    Args:
        path: The run file.
        overrides: Dotted settings, such as ``cluster.namespace=maps``.
        cron: When: minute, hour, day, month, weekday.
        time_zone: Of the hours.
        lookback_days: Length of the window; None keeps the first day, so that the record grows.
        name: Of the schedule; the run's name if not given.
        stages: Some of its stages; () for all.
        phases: A job for each sequence of stages with the same worker groups, one after another.
        missed_s: Seconds after which a tick that could not start is given up.
        estimate: Size the heads of its runs, as :func:`foresee_tick` does; None does, except in
            pods.
        tell: Called with the estimate.

    Raises:
        ConfigError: The run file, the expression, the zone or the name cannot be used; nothing was
            created.
        ClusterError: The cluster cannot be reached or refuses.
    """
    from eoray.config import load_config

    when = Timetable(cron, time_zone, missed_s)
    folder = Path(path).resolve().parent

    def plan(config: RunConfig) -> SubmitPlan:
        return plan_schedule(config, folder, when, name, stages, lookback_days, phases=phases)

    plan(load_config(path, overrides))
    found = foresee_tick(
        path, overrides, stages=stages, lookback_days=lookback_days, estimate=estimate, tell=tell
    )
    config = load_config(path, [*overrides, *found])
    return apply_schedule(connect(config.cluster), plan(config), when)


def foresee_tick(
    path: str | Path,
    overrides: Sequence[str],
    *,
    stages: Sequence[str] = (),
    lookback_days: int | None = None,
    estimate: bool | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Estimate the run of a tick that came now, and size its head for it.

    The pods that submit have no room for a plan, and of the days before the next tick a catalogue
    does not know all yet. A record that grows outgrows the head: estimate it again now and then.

    Returns:
        Settings of the run file that follow from it; none where nobody knows.
    """
    window = Window(datetime.now(UTC), lookback_days)
    try:
        return foresee(
            path, overrides, stages=stages, window=window, estimate=estimate, tell=tell
        )  # fmt: skip
    except ConfigError as error:
        tell(f"no estimate from here: {error}")
        return []


def plan_schedule(
    config: RunConfig,
    folder: Path,
    when: Timetable,
    name: str | None = None,
    stages: Sequence[str] = (),
    lookback_days: int | None = None,
    *,
    phases: bool = False,
) -> SubmitPlan:
    """Check all that can be checked of a schedule without a cluster.

    Args:
        config: The run.
        folder: Where its relative paths start.
        when: Its ticks.
        name: Of the schedule; the run's name if not given.
        stages: Some of its stages; () for all.
        lookback_days: Length of the window.
        phases: A job for each sequence of stages with the same worker groups.

    Raises:
        ConfigError: The run file, the expression, the zone or the name cannot be used.
    """
    (tick,) = when.next_ticks(datetime.now(UTC), 1)
    check_name(name or config.name)
    plan = plan_submission(
        config, folder, name=name, stages=stages, lookback_days=lookback_days, phases=phases
    )
    move_window(config, Window(tick, lookback_days))  # the first window is one
    return plan


def apply_schedule(cluster: Cluster, plan: SubmitPlan, when: Timetable) -> Schedule:
    """Create a schedule, or make the one of its name like it.

    The CronJob comes first, then its run file, which it owns: pods wait for that. A run file is
    never changed; older ones stay for ticks that go on, and go with the schedule.

    Raises:
        ConfigError: A CronJob of this name is not ours to change.
        ConflictError: It is being deleted.
        ClusterError: The cluster cannot be reached or refuses.
    """
    there = cluster.cronjob(plan.name)
    if there is not None:
        _check_ours(there)
    cronjob = build_cronjob(
        plan,
        cluster.namespace,
        cron=when.cron,
        time_zone=when.time_zone,
        missed_s=when.missed_s,
        suspend=there is not None and bool(there["spec"].get("suspend")),
    )
    cluster.apply_cronjob(cronjob, dry_run=True)
    made = cluster.apply_cronjob(cronjob)
    _add_run_file(cluster, plan, made)
    return Schedule(cluster, plan.name, "created" if there is None else "updated")


def find_schedule(section: ClusterSection, name: str) -> Schedule:
    """A schedule by its name.

    Raises:
        ClusterError: There is none.
    """
    found = Schedule(connect(section), name)
    found.describe()
    return found


def list_schedules(section: ClusterSection) -> list[dict[str, Any]]:
    """All schedules of a namespace, as :func:`describe_schedule` gives them."""
    cluster, now = connect(section), datetime.now(UTC)
    jobs = cluster.jobs(f"{PART_OF}=eoray")
    rows = []
    for cronjob in cluster.cronjobs(f"{PART_OF}=eoray"):
        name = cronjob["metadata"]["name"]
        own = [job for job in jobs if job["metadata"]["labels"].get(SCHEDULE) == name]
        rows.append(describe_schedule(cronjob, own, now))
    return rows


def build_manual_job(cronjob: Mapping[str, Any], tick: datetime) -> dict[str, Any]:
    """The Job of a tick that is started by hand: its name has no minute, so it is told one."""
    metadata, template = cronjob["metadata"], cronjob["spec"]["jobTemplate"]
    spec = copy.deepcopy(template["spec"])
    for container in spec["template"]["spec"]["containers"]:
        if container["name"] == CONTAINER:
            container["command"] += ["--scheduled-time", f"{tick:%Y-%m-%dT%H:%MZ}"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "generateName": f"{metadata['name']}-now-",
            "namespace": metadata["namespace"],
            "labels": dict(template["metadata"]["labels"]),
            "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
            # as the controller's own Jobs: kept by the history limits, gone with the schedule
            "ownerReferences": [{**_owner(cronjob), "controller": True}],
        },
        "spec": spec,
    }


def _add_run_file(cluster: Cluster, plan: SubmitPlan, cronjob: Mapping[str, Any]) -> None:
    body = build_run_file(plan, cluster.namespace, schedule=plan.name)
    body["metadata"]["ownerReferences"] = [_owner(cronjob)]
    try:
        cluster.create_config_map(body)
    except AlreadyExistsError:  # of an earlier time, or of a schedule that was deleted since
        cluster.own_config_map(plan.run_file, _owner(cronjob))


def _owner(cronjob: Mapping[str, Any]) -> dict[str, Any]:
    """Without blockOwnerDeletion, which some clusters allow to few."""
    metadata = cronjob["metadata"]
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _check_ours(cronjob: Mapping[str, Any]) -> None:
    """Refuse to change what others look after."""
    metadata = cronjob["metadata"]
    name, labels = metadata["name"], metadata.get("labels", {})
    if SCHEDULE not in labels:
        raise ConfigError(
            f"CronJob {name!r} is no schedule of eoray; give the schedule another name with --name"
        )
    if labels.get(MANAGED_BY) == "Helm":
        release = labels.get("app.kubernetes.io/instance", "?")
        raise ConfigError(
            f"schedule {name!r} belongs to the Helm release {release!r}; change `schedules` in its "
            "values and upgrade it"
        )
    if "deletionTimestamp" in metadata:
        raise ConflictError(f"schedule {name!r} is being deleted; try again when it is gone")
