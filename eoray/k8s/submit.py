"""Submit a run: attach to what runs, say what is done, or begin the next attempt."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eoray.config import with_absolute_paths
from eoray.errors import ConfigError, ConflictError
from eoray.k8s.checks import check_rayjob, check_run, try_pods, warn_of_tag
from eoray.k8s.client import Cluster
from eoray.k8s.existing import adopt_cluster
from eoray.k8s.forecast import most_cpus
from eoray.k8s.names import ATTEMPT, NAME, RUN, SCHEDULE, SUBMISSION, attempt_name, run_key
from eoray.k8s.nodes import check_gpus
from eoray.k8s.phases import check_idle_gpus
from eoray.k8s.rayjob import Attempt, build_budget, build_config_map, build_rayjob
from eoray.k8s.records import find_recorded
from eoray.k8s.refusals import AbsentError, AlreadyExistsError, ForbiddenError, RefusedError
from eoray.k8s.states import State, state_of

if TYPE_CHECKING:
    from eoray.config import ClusterSection, RunConfig
    from eoray.k8s.healing import Healing

_ENDING = ("cancelling", "deleting")
"""Of an attempt that somebody ends: nothing to attach to."""

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""Keys and names of runs, as labels hold them."""

_PODS_END_S = 180.0
"""An earlier attempt's pods get this long to end: two drivers must not meet in one store."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submission."""

    name: str
    """The RayJob that stands for the run now."""
    key: str
    what: Literal["created", "attached", "done", "checked"]
    """``checked``: it would be created, and was not."""
    state: State


def submit_run(  # noqa: PLR0913 - one submission, and all that may be said about it
    cluster: Cluster,
    config: RunConfig,
    folder: Path,
    *,
    stages: Sequence[str] = (),
    schedule: str | None = None,
    again: bool = False,
    heal: Healing | None = None,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    wait: Callable[[float], None] = time.sleep,
) -> Submission:
    """Submit a run; nothing is created unless everything that can be checked is right.

    Args:
        cluster: Where to.
        config: The run.
        folder: Where its relative paths start.
        stages: Some of its stages; () for all.
        schedule: The schedule that it belongs to.
        again: Begin another attempt though one succeeded.
        heal: Read again what could not be read, instead; a heal that has ended begins again.
        dry_run: Check everything, on the server too, and create nothing.
        tell: Called with what is going on.
        wait: Called with seconds between questions.

    Raises:
        ConfigError: The run file cannot be carried out in pods, or asks for GPUs that no node has.
        ConflictError: Pods of an earlier attempt do not end.
        ClusterError: The cluster cannot be reached, refuses, or has no KubeRay.
    """
    config = adopt_cluster(cluster, config, tell=tell)
    attempt = plan_attempt(config, folder, stages=stages, schedule=schedule, heal=heal)
    again = again or heal is not None
    # before the cluster is asked: what has a record by now is listed there, or was deleted
    recorded = find_recorded(attempt.config, attempt.key)
    latest = max(cluster.rayjobs(f"{RUN}={attempt.key}"), key=_number, default=None)
    if latest is not None and _stands(state_of(latest), again=again):
        return _attach(cluster, attempt, latest, tell, dry_run=dry_run)
    number = 0 if latest is None else _number(latest)
    if recorded is not None and recorded.number > number:
        number = recorded.number
        if recorded.is_done and not again:
            state = State("succeeded", message="by its record; the cluster has forgotten it")
            return Submission(attempt_name(attempt.key, number), attempt.key, "done", state)
    if not dry_run:
        _wait_for_pods(cluster, attempt.key, number, tell, wait)
        _wait_for_earlier_driver(cluster, latest, tell, wait)
    attempt = replace(attempt, number=number + 1, submission=secrets.token_hex(4))
    rayjob = build_rayjob(attempt, cluster.namespace)
    check_rayjob(rayjob)
    if config.cluster.ray_cluster is None:
        check_gpus(cluster, config.cluster, tell)
        warn_of_tag(config.cluster, tell)
    return _create(cluster, attempt, rayjob, tell, dry_run=dry_run)


def plan_attempt(
    config: RunConfig,
    folder: Path,
    *,
    stages: Sequence[str] = (),
    schedule: str | None = None,
    heal: Healing | None = None,
) -> Attempt:
    """The first attempt of a run, checked, with every path as pods see it.

    Args:
        config: The run.
        folder: Where its relative paths start.
        stages: Some of its stages; () for all.
        schedule: The schedule that it belongs to.
        heal: Read again what could not be read, instead.

    Raises:
        ConfigError: The run file cannot be carried out in pods, GPUs would idle, or stages are
            asked of a heal.
    """
    if heal is not None and stages:
        raise ConfigError(
            "healing and stages exclude each other, because a heal makes the cube again and what "
            "was made of it; leave the stages out"
        )
    check_run(config, folder)
    if heal is None:
        check_idle_gpus(config, stages)
    resolved = with_absolute_paths(config, folder)
    ray = config.cluster.ray_version or _own_ray()
    asked, work = (stages, "") if heal is None else (tuple(heal.words()), "heal")
    key = run_key(resolved, _images(config.cluster), asked, work=work)
    return Attempt(key, 1, _with_workers(resolved), tuple(stages), schedule, ray, heal)


def find_attempt(cluster: Cluster, name: str) -> dict[str, Any]:
    """The RayJob that a user means: an attempt, or the latest one of a run by key or name.

    Raises:
        AbsentError: There is none.
    """
    exact = cluster.rayjob(name)
    if exact is not None:
        return exact
    is_label = re.fullmatch(_LABEL, name) is not None  # a server refuses to look for another one
    for label in (RUN, NAME) if is_label else ():
        found = cluster.rayjobs(f"{label}={name}")
        if found:
            return max(found, key=_age)
    raise AbsentError(
        f"no run or attempt {name!r} in namespace {cluster.namespace!r}; `eoray list` shows them"
    )


def prune_history(
    cluster: Cluster, key: str, keep: int, *, schedule: str | None = None
) -> list[str]:
    """Delete the oldest ended attempts beyond a number; what has not ended, and records, stay.

    Args:
        cluster: Where they are.
        key: The run.
        keep: Newest ended attempts of the run, and of the schedule, that stay.
        schedule: The schedule that the run belongs to: each of its windows is a run of its own.

    Returns:
        Names of the deleted ones, oldest first.
    """
    selectors = [f"{RUN}={key}", *([f"{SCHEDULE}={schedule}"] if schedule else [])]
    surplus = [job for one in selectors for job in _surplus(cluster.rayjobs(one), keep)]
    names = dict.fromkeys(job["metadata"]["name"] for job in sorted(surplus, key=_age))
    return [name for name in names if cluster.delete_rayjob(name)]


def _stands(state: State, *, again: bool) -> bool:
    """Whether an attempt is what is asked for: it goes on, or is done."""
    goes_on = not state.is_finished and state.word not in _ENDING
    return goes_on or (state.word == "succeeded" and not again)


def _attach(
    cluster: Cluster,
    attempt: Attempt,
    rayjob: Mapping[str, Any],
    tell: Callable[[str], None],
    *,
    dry_run: bool,
) -> Submission:
    """Attach to an attempt that is there, and make what a submitter which died left out."""
    metadata, state = rayjob["metadata"], state_of(rayjob)
    if not (dry_run or state.is_finished):  # looking first needs a right more
        token = (metadata.get("annotations") or {}).get(SUBMISSION, "")
        there = replace(attempt, number=_number(rayjob), submission=token)
        _add_owned(cluster, there, rayjob, tell)
    what: Literal["attached", "done"] = "done" if state.word == "succeeded" else "attached"
    return Submission(metadata["name"], attempt.key, what, state)


def _surplus(rayjobs: list[dict[str, Any]], keep: int) -> list[dict[str, Any]]:
    ended = [job for job in rayjobs if state_of(job).is_finished]
    return sorted(ended, key=_age)[: max(0, len(ended) - keep)]


def _age(rayjob: Mapping[str, Any]) -> tuple[str, int]:
    """Sorts by when an attempt was made, the oldest first."""
    return rayjob["metadata"]["creationTimestamp"], _number(rayjob)


def _create(
    cluster: Cluster,
    attempt: Attempt,
    rayjob: dict[str, Any],
    tell: Callable[[str], None],
    *,
    dry_run: bool,
) -> Submission:
    """RayJob first, then what it owns: pods wait for their run file, nothing is left behind."""
    try:
        cluster.create_rayjob(rayjob, dry_run=True)
        try_pods(cluster, rayjob)
        if dry_run:
            return Submission(attempt.name, attempt.key, "checked", state_of(rayjob))
        made = cluster.create_rayjob(rayjob)
    except AlreadyExistsError:  # another submitter was faster
        there = cluster.rayjob(attempt.name)
        if there is None:
            raise
        return _attach(cluster, attempt, there, tell, dry_run=dry_run)
    _add_owned(cluster, attempt, made, tell)
    with suppress(ForbiddenError):  # in a role that may submit and not delete
        keep = attempt.config.cluster.history
        prune_history(cluster, attempt.key, keep, schedule=attempt.schedule)
    return Submission(attempt.name, attempt.key, "created", state_of(made))


def _add_owned(
    cluster: Cluster, attempt: Attempt, rayjob: Mapping[str, Any], tell: Callable[[str], None]
) -> None:
    # where they are there, another submitter of the same attempt was faster
    with suppress(AlreadyExistsError):
        cluster.create_config_map(build_config_map(attempt, rayjob))
    own_head = attempt.config.cluster.ray_cluster is None
    if own_head and attempt.config.cluster.protect_head:
        _protect_head(cluster, attempt, rayjob, tell)


def _protect_head(
    cluster: Cluster, attempt: Attempt, rayjob: Mapping[str, Any], tell: Callable[[str], None]
) -> None:
    try:
        cluster.create_budget(build_budget(attempt, rayjob))
    except AlreadyExistsError:
        return
    except (ForbiddenError, RefusedError) as error:
        tell(
            f"a drain of its node may end the head of {attempt.name}: {error} "
            "(cluster.protect_head: false goes without)"
        )


def _wait_for_pods(
    cluster: Cluster,
    key: str,
    number: int,
    tell: Callable[[str], None],
    wait: Callable[[float], None],
) -> None:
    """Wait for pods that there are now, of attempts up to a number.

    Once the next attempt is there, another submitter is faster, and what lives may be its pods:
    creating that attempt will tell.
    """
    waited, pods = 0.0, _live_pods(cluster, key)
    clusters = {_cluster_of(pod) for pod in pods}
    while pods and cluster.rayjob(attempt_name(key, number + 1)) is None:
        names = ", ".join(pod["metadata"]["name"] for pod in pods[:3])
        if waited >= _PODS_END_S:
            raise ConflictError(
                f"pods of an earlier attempt of run {key!r} still live ({names}); wait for their "
                f"end, or end them with `eoray cancel {key}`"
            )
        if waited == 0.0:
            tell(f"waiting for the pods of the earlier attempt to end: {names}")
        wait(3.0)
        waited += 3.0
        pods = [pod for pod in _live_pods(cluster, key) if _cluster_of(pod) in clusters]


def _live_pods(cluster: Cluster, key: str) -> list[dict[str, Any]]:
    return [pod for pod in cluster.pods(f"{RUN}={key}") if not _is_over(pod)]


def _cluster_of(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get("ray.io/cluster", ""))


def _wait_for_earlier_driver(
    cluster: Cluster,
    rayjob: dict[str, Any] | None,
    tell: Callable[[str], None],
    wait: Callable[[float], None],
) -> None:
    """Wait for the end of an attempt that has no pods of its own and was asked to stop."""
    if rayjob is None or "clusterSelector" not in rayjob["spec"]:
        return
    name, waited = rayjob["metadata"]["name"], 0.0
    while (found := cluster.rayjob(name)) is not None and not state_of(found).is_finished:
        if waited >= _PODS_END_S:
            raise ConflictError(
                f"attempt {name!r} was asked to stop and still works; wait for its end, or end it "
                f"with `eoray delete {name}`"
            )
        if waited == 0.0:
            tell(f"waiting for the driver of {name} to end")
        wait(3.0)
        waited += 3.0


def _is_over(pod: Mapping[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _number(rayjob: Mapping[str, Any]) -> int:
    return int(rayjob["metadata"]["labels"][ATTEMPT])


def _images(cluster: ClusterSection) -> str:
    """What decides results beside the run file; groups count where they name one of their own."""
    groups = [group.image for group in cluster.workers if group.image and not cluster.ray_cluster]
    return " ".join(dict.fromkeys([cluster.image or "", *groups]))


def _own_ray() -> str:
    try:
        return version("ray")
    except PackageNotFoundError as error:
        raise ConfigError(
            "cluster.ray_version: missing, and no Ray is installed here to take it from; write "
            "the version of Ray in the image"
        ) from error


def _with_workers(config: RunConfig) -> RunConfig:
    """As many tasks at once as the largest cluster has CPUs: the head's own count says nothing."""
    if config.run.workers != "auto":
        return config
    run = config.run.model_copy(update={"workers": most_cpus(config.cluster)})
    return config.model_copy(update={"run": run})
