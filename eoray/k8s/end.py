"""End an attempt: cancel it and keep its record, or delete it."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s.follow import WaitTimeoutError
from eoray.k8s.head import open_dashboard
from eoray.k8s.hooks import DRIVER_STOP_S
from eoray.k8s.names import CANCELLED, QUEUE
from eoray.k8s.refusals import ForbiddenError, NotServedError
from eoray.k8s.states import State, state_of

if TYPE_CHECKING:
    from eoray.k8s.client import Cluster
    from eoray.k8s.head import Dashboard

FINALIZER = "ray.io/rayjob-finalizer"

_DRIVER_S = DRIVER_STOP_S + 15.0
"""From the request to the end of a driver: Ray itself ends it by force before."""

_OPERATOR_S = 30.0
"""A RayJob says what its head says after this time, at the latest."""

_POLL_S = 1.0


def cancel_attempt(
    cluster: Cluster,
    rayjob: dict[str, Any],
    *,
    tell: Callable[[str], None] = lambda _: None,
    now: Callable[[], datetime] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> State:
    """End an attempt and keep what is known of it.

    The annotation says that it was meant, since a suspended RayJob may also wait in a queue. What
    takes the pods away makes the kubelet run the head's preStop hook, which asks the driver to
    stop and waits for it, a minute at most: see ``eoray.k8s.hooks``. On a cluster that stays no
    pod is taken away: there Ray's Jobs API asks the driver, and its end is waited for. What is
    committed stays; the next attempt goes on from there. Of an attempt that has ended, the pods
    that outlive it are ended.

    Args:
        cluster: Where it is.
        rayjob: The attempt.
        tell: Called with what is going on, and where it had to be deleted instead.
        now: Clock.
        wait: Called with seconds between questions.

    Raises:
        WaitTimeoutError: A driver on a cluster that stays does not end.
        ClusterError: A right is missing, or the head of that cluster does not answer.
    """
    name, state = rayjob["metadata"]["name"], state_of(rayjob)
    other = rayjob.get("spec", {}).get("clusterSelector", {}).get("ray.io/cluster")
    if other and state.is_finished:
        return state  # the cluster is not the run's to end
    if state.is_finished:
        ray_cluster = (rayjob.get("status") or {}).get("rayClusterName")
        if ray_cluster:
            cluster.delete_raycluster(ray_cluster)
        return state
    moment = (now or (lambda: datetime.now(UTC)))().isoformat(timespec="seconds")
    mark = {"metadata": {"annotations": {CANCELLED: f"{moment} {_user()}"}}}
    if other:
        return _stop_driver(cluster, rayjob, other, mark, tell, wait)
    if _is_queued_by_kueue(cluster, rayjob):
        cluster.patch_rayjob(name, mark)
        _take_from_queue(cluster, rayjob, tell)
    else:
        cluster.patch_rayjob(name, {**mark, "spec": {"suspend": True}})
    found = cluster.rayjob(name)
    return State("cancelled") if found is None else state_of(found)


def _stop_driver(
    cluster: Cluster,
    rayjob: Mapping[str, Any],
    ray_cluster: str,
    mark: dict[str, Any],
    tell: Callable[[str], None],
    wait: Callable[[float], None],
) -> State:
    """Ask a driver on a cluster that stays to stop, and wait until the RayJob says that it has."""
    name, job = rayjob["metadata"]["name"], (rayjob.get("status") or {}).get("jobId", "")
    with open_dashboard(cluster, ray_cluster) as dashboard:
        # looked at before the mark: without a right, or a head that answers, nothing is changed
        if _job_status(dashboard, job) is None:
            cluster.delete_rayjob(name)
            tell(f"{name} was deleted, not stopped: its driver had not begun")
            return State("cancelled")
        cluster.patch_rayjob(name, mark)
        dashboard.ask("POST", f"/api/jobs/{job}/stop")
        tell(f"asked the driver of {name} to stop: it commits what is finished")
        _wait_for_stopped_driver(dashboard, name, job, wait)
    return _wait_for_word(cluster, name, wait)


def _job_status(dashboard: Dashboard, job: str) -> str | None:
    """Ray's own word for a job; None where the head knows of none."""
    status, found = dashboard.ask("GET", f"/api/jobs/{job}") if job else (404, {})
    if status not in (200, 404):
        raise ClusterError(f"Ray at {dashboard.place!r} answers {status} about {job!r}; try again")
    return str(found["status"]) if status == 200 else None


def _wait_for_stopped_driver(
    dashboard: Dashboard, name: str, job: str, wait: Callable[[float], None]
) -> None:
    waited = 0.0
    while _job_status(dashboard, job) in ("PENDING", "RUNNING"):
        if waited >= _DRIVER_S:
            raise WaitTimeoutError(
                f"the driver of {name!r} has not ended {waited:g} s after it was asked to stop; "
                f"see `eoray logs {name}`, ask again, or end it with `eoray delete {name}`"
            )
        wait(_POLL_S)
        waited += _POLL_S


def _wait_for_word(cluster: Cluster, name: str, wait: Callable[[float], None]) -> State:
    """The RayJob's state; the operator asks the head every few seconds."""
    waited = 0.0
    while True:
        found = cluster.rayjob(name)
        state = State("cancelled") if found is None else state_of(found)
        if state.is_finished or waited >= _OPERATOR_S:
            return state
        wait(_POLL_S)
        waited += _POLL_S


def _is_queued_by_kueue(cluster: Cluster, rayjob: Mapping[str, Any]) -> bool:
    """Tell whether Kueue alone may suspend an attempt: it has a queue, and there is a Kueue."""
    if QUEUE not in rayjob["metadata"].get("labels", {}):
        return False
    try:
        cluster.workloads()
    except NotServedError:
        return False
    except ForbiddenError:
        return True
    return True


def _take_from_queue(
    cluster: Cluster, rayjob: Mapping[str, Any], tell: Callable[[str], None]
) -> None:
    """Let Kueue evict an attempt for good; where nobody may tell it to, delete the attempt."""
    name, uid = rayjob["metadata"]["name"], rayjob["metadata"]["uid"]
    try:
        for workload in cluster.workloads():
            owners = workload["metadata"].get("ownerReferences", ())
            if any(owner.get("uid") == uid for owner in owners):
                cluster.patch_workload(workload["metadata"]["name"], {"spec": {"active": False}})
                return
        why = "Kueue has no Workload of it"
    except ForbiddenError:
        why = "you may not list or patch Kueue's Workloads"
    cluster.delete_rayjob(name)
    tell(f"{name} was deleted, not suspended: {why}; its record lies beside the outputs")


def delete_attempt(
    cluster: Cluster,
    name: str,
    *,
    timeout_s: float = 120.0,
    wait: Callable[[float], None] = time.sleep,
) -> bool:
    """Delete an attempt with its pods; the record beside the outputs stays.

    Returns:
        False where there was none.

    Raises:
        ClusterError: Only the operator's finalizer holds it, and the operator does not answer.
    """
    if not cluster.delete_rayjob(name):
        return False
    waited = 0.0
    while (left := cluster.rayjob(name)) is not None:
        if waited >= timeout_s:
            held = left["metadata"].get("finalizers", [])
            why = f"finalizers {held!r} hold it"
            if FINALIZER in held:
                why = f"only {FINALIZER} holds it: the KubeRay operator does not run"
            raise ClusterError(f"attempt {name!r} is not gone after {timeout_s:g} s; {why}")
        wait(2.0)
        waited += 2.0
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a pod's user often has no name
        return "unknown"
