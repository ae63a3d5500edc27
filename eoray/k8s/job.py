"""A submitted run as an object: ask it, follow it, end it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s.checks import check_run
from eoray.k8s.client import Cluster, connect
from eoray.k8s.end import cancel_attempt, delete_attempt
from eoray.k8s.follow import HeadLog, describe, wait_for_end, wait_for_verdict
from eoray.k8s.forecast import foresee
from eoray.k8s.names import ATTEMPT, NAME, PART_OF, RECORD, RUN, STORAGE, split_attempt
from eoray.k8s.patience import Patience
from eoray.k8s.phases import split_phases
from eoray.k8s.states import State, state_of, state_of_gone
from eoray.k8s.submit import Submission, find_attempt, plan_attempt, submit_run
from eoray.k8s.why import explain_waiting, images_of_pods, warnings_of
from eoray.k8s.window import Window, move_window

if TYPE_CHECKING:
    from eoray.buckets import Bucket
    from eoray.config import ClusterSection, RunConfig
    from eoray.k8s.healing import Healing


@dataclass(frozen=True, slots=True)
class Job:
    """An attempt of a run on a cluster."""

    cluster: Cluster
    name: str
    """Of the RayJob."""
    submission: Submission | None = None
    """What became of the submission that this object comes from."""

    def status(self) -> State:
        """Its state now; ``deleted`` where it is gone."""
        found = self.cluster.rayjob(self.name)
        return self._done or state_of_gone({}) if found is None else state_of(found)

    def describe(self) -> dict[str, Any]:
        """The RayJob object.

        Raises:
            ClusterError: It is gone.
        """
        found = self.cluster.rayjob(self.name)
        if found is None:
            raise ClusterError(
                f"attempt {self.name!r} is gone from namespace {self.cluster.namespace!r}"
            )
        return found

    def explain(self) -> list[str]:
        """Why its pods wait, as far as the cluster tells."""
        return explain_waiting(self.cluster, self.describe())

    def view(self) -> dict[str, Any]:
        """What the cluster says of it now.

        Returns:
            Its summary, ``warnings`` of events, oldest first, and ``images`` of its pods.

        Raises:
            ClusterError: It is gone.
        """
        rayjob = self.describe()
        told = {"warnings": warnings_of(self.cluster, rayjob)}
        return {**summary(rayjob), **told, "images": images_of_pods(self.cluster, rayjob)}

    def record(self) -> tuple[str, dict[str, Bucket]]:
        """Where its record lies: the folder beside the outputs, and how that bucket is reached.

        Returns:
            The folder is "" for an attempt of an older eoray; the mapping is empty where the run
            file does not describe the bucket.
        """
        from eoray.config.storage import BucketSection

        found = self.describe()["metadata"].get("annotations") or {}
        folder, described = found.get(RECORD, ""), found.get(STORAGE)
        if described is None:
            return folder, {}
        bucket = "/".join(folder.split("/")[:3])
        return folder, {bucket: BucketSection.model_validate_json(described).bucket()}

    def wait(
        self, timeout: float | None = None, *, tell: Callable[[str], None] = lambda _: None
    ) -> State:
        """Wait until it has ended.

        Args:
            timeout: Seconds; the run goes on when they have passed.
            tell: Called with each new state, and with why its pods wait.

        Raises:
            WaitTimeoutError: It has not ended by then.
        """
        return self._done or wait_for_end(self.cluster, self.name, timeout_s=timeout, tell=tell)

    def verdict(self, *, tell: Callable[[str], None] = lambda _: None) -> State:
        """Wait until the operator has taken it on or refused it, ten seconds at most.

        Args:
            tell: Called where the operator says nothing.
        """
        return self._done or wait_for_verdict(self.cluster, self.name, tell=tell)

    def outcome(self, state: State) -> dict[str, Any]:
        """Its summary; of one that is gone, its name and the state that is known of it.

        Args:
            state: What is known; an end stands, whoever has the name by now.
        """
        found = self.cluster.rayjob(self.name)
        if found is not None:
            return summary(found, state if state.is_finished else None)
        key, number = split_attempt(self.name) or ("", 0)
        labels = {RUN: key, ATTEMPT: str(number)}
        return summary({"metadata": {"name": self.name, "labels": labels}}, state)

    def logs(
        self, *, follow: bool = False, tell: Callable[[str], None] = lambda _: None
    ) -> Iterator[str]:
        """Lines of the head: what it has said, or, following, until the attempt has ended.

        Args:
            follow: Go on until the end.
            tell: Called when the cluster stays away for a while.
        """
        log, patience, is_seen = HeadLog(self.cluster), Patience(tell), False
        while True:
            ended, lines = False, list[str]()
            with patience.bear():
                rayjob = self.cluster.rayjob(self.name) if is_seen else self.describe()
                is_seen, ended = True, rayjob is None or state_of(rayjob).is_finished
                lines = [] if rayjob is None else list(log.read(rayjob))
            yield from lines
            if not follow or ended:
                return
            time.sleep(patience.pause_s)

    def follow(
        self,
        *,
        timeout: float | None = None,
        tell: Callable[[str], None],
        line: Callable[[str], None],
    ) -> State:
        """Wait as :meth:`wait` does, and hand on the lines of the head's log meanwhile."""
        log = HeadLog(self.cluster)

        def read(rayjob: dict[str, Any]) -> None:
            for said in log.read(rayjob):
                line(said)

        return wait_for_end(self.cluster, self.name, timeout_s=timeout, tell=tell, on_poll=read)

    def cancel(self, *, tell: Callable[[str], None] = lambda _: None) -> State:
        """End it; what is committed stays, and so does what is known of it.

        Args:
            tell: Called where it had to be deleted instead of suspended.
        """
        return cancel_attempt(self.cluster, self.describe(), tell=tell)

    def delete(self) -> bool:
        """Delete it and its pods; False where it was gone already."""
        return delete_attempt(self.cluster, self.name)

    @property
    def _done(self) -> State | None:
        """The success that its submission found, perhaps by its record alone."""
        made = self.submission
        return made.state if made is not None and made.what == "done" else None


def submit(  # noqa: PLR0913 - one submission, and all that may be said about it
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    stages: Sequence[str] = (),
    again: bool = False,
    window: Window | None = None,
    schedule: str | None = None,
    heal: Healing | None = None,
    dry_run: bool = False,
    estimate: bool | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Job:
    """Submit a run file to the cluster that its section ``cluster`` names.

    Submitting again attaches to what runs, says what is done, or begins the next attempt.

    Whether another run writes the store is left to the driver, which ends with that run's name
    unless ``run.lease`` says otherwise. The verb ``eoray submit`` looks beforehand.

    Args:
        path: The run file.
        overrides: Dotted settings, such as ``cluster.namespace=maps``.
        stages: Some of its stages; () for all.
        again: Begin another attempt though one succeeded.
        window: Days that replace the run file's; the same window is the same run.
        schedule: The schedule that it belongs to.
        heal: Read again what could not be read, instead of running it.
        dry_run: Check everything, on the server too, and create nothing.
        estimate: Ask the catalogue what is to be read, tell it, and size the head for it, which
            takes a minute at most; None does, except in pods.
        tell: Called with what is going on.

    Raises:
        ConfigError: The run file cannot be used, or not by pods; nothing was created.
        ClusterError: The cluster cannot be reached or refuses.
    """
    config, folder = _load(path, overrides, window), Path(path).resolve().parent
    cluster = connect(config.cluster)
    if heal is None:
        check_run(config, folder)
        found = foresee(
            path, overrides, stages=stages, window=window, estimate=estimate, tell=tell
        )  # fmt: skip
        config = _load(path, [*overrides, *found], window)
    made = submit_run(
        cluster, config, folder, stages=stages, schedule=schedule, again=again, heal=heal,
        dry_run=dry_run, tell=tell,
    )  # fmt: skip
    return Job(cluster, made.name, made)


def submit_phases(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    stages: Sequence[str] = (),
    again: bool = False,
    window: Window | None = None,
    schedule: str | None = None,
    estimate: bool | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Job]:
    """Submit the phases of a run one after another, as :func:`submit` does each.

    Yields:
        The attempt of each phase. Asked for the next one, it waits for the end of the last, and
        ends with it unless it has succeeded.

    Raises:
        ConfigError: The run file cannot be used, not by pods, or not divided; nothing was created.
        ClusterError: The cluster cannot be reached or refuses.
    """
    config, folder = _load(path, overrides, window), Path(path).resolve().parent
    cluster = connect(config.cluster)
    for phase in split_phases(config, stages):  # all of them, before the first is created
        plan_attempt(phase.config, folder, stages=phase.stages)
    found = foresee(path, overrides, stages=stages, window=window, estimate=estimate, tell=tell)
    phases = split_phases(_load(path, [*overrides, *found], window), stages)
    for number, phase in enumerate(phases, 1):
        tell(f"phase {number} of {len(phases)}: {', '.join(phase.stages)}")
        made = submit_run(
            cluster, phase.config, folder, stages=phase.stages, schedule=schedule, again=again,
            tell=tell,
        )  # fmt: skip
        job = Job(cluster, made.name, made)
        yield job
        if job.wait(tell=tell).word != "succeeded":
            return


def _load(path: str | Path, overrides: Sequence[str], window: Window | None) -> RunConfig:
    from eoray.config import load_config

    config = load_config(path, overrides)
    return config if window is None else move_window(config, window)


def find_job(section: ClusterSection, name: str) -> Job:
    """The attempt that a user means by its name, by its run's key or name.

    Raises:
        AbsentError: There is none.
        ClusterError: The cluster cannot be asked.
    """
    cluster = connect(section)
    return Job(cluster, find_attempt(cluster, name)["metadata"]["name"])


def list_jobs(section: ClusterSection) -> list[dict[str, Any]]:
    """All attempts in a namespace, oldest first, as plain values.

    Returns:
        ``name, run, key, attempt, state, reason, created`` of each.
    """
    found = connect(section).rayjobs(f"{PART_OF}=eoray")
    return [_row(rayjob, state_of(rayjob)) for rayjob in found]


def summary(rayjob: dict[str, Any], state: State | None = None) -> dict[str, Any]:
    """An attempt as plain values.

    Args:
        rayjob: The object.
        state: Where another one is known than the object's.
    """
    state = state or state_of(rayjob)
    status = rayjob.get("status") or {}
    return {
        **_row(rayjob, state),
        "finished": state.is_finished,
        "exit_code": state.exit_code if state.is_finished else None,
        "message": state.message,
        "line": describe(state),
        "ray_cluster": status.get("rayClusterName", ""),
        "started": status.get("startTime", ""),
        "ended": status.get("endTime", ""),
    }


def _row(rayjob: dict[str, Any], state: State) -> dict[str, Any]:
    metadata = rayjob["metadata"]
    labels = metadata.get("labels", {})
    return {
        "name": metadata["name"],
        "run": labels.get(NAME, ""),
        "key": labels.get(RUN, ""),
        "attempt": int(labels.get(ATTEMPT, 0)),
        "state": state.word,
        "reason": state.reason,
        "created": metadata.get("creationTimestamp", ""),
    }
