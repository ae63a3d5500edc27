"""End an attempt: cancel it and keep its record, or delete it."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError
from eoray.k8s.names import CANCELLED
from eoray.k8s.states import State, state_of

if TYPE_CHECKING:
    from eoray.k8s.client import Cluster

_QUEUE = "kueue.x-k8s.io/queue-name"

FINALIZER = "ray.io/rayjob-finalizer"


def cancel_attempt(
    cluster: Cluster, rayjob: dict[str, Any], *, now: Callable[[], datetime] | None = None
) -> State:
    """End an attempt and keep what is known of it.

    The annotation says that it was meant, since a suspended RayJob may also wait in a queue. What
    is committed stays; the next attempt goes on from there. Of an attempt that has ended, the pods
    that outlive it are ended.

    Raises:
        ClusterError: A queue drives the attempt: only that may suspend it.
    """
    name, labels = rayjob["metadata"]["name"], rayjob["metadata"].get("labels", {})
    state = state_of(rayjob)
    other = rayjob.get("spec", {}).get("clusterSelector", {}).get("ray.io/cluster")
    if other and state.is_finished:
        return state  # the cluster is not the run's to end
    if other:
        raise ClusterError(
            f"attempt {name!r} runs on RayCluster {other!r}, which is not suspended for one run; "
            f"`eoray delete {name}` stops its driver: what is committed stays"
        )
    if state.is_finished:
        ray_cluster = (rayjob.get("status") or {}).get("rayClusterName")
        if ray_cluster:
            cluster.delete_raycluster(ray_cluster)
        return state
    if _QUEUE in labels:
        raise ClusterError(
            f"attempt {name!r} is driven by Kueue, which alone may suspend it; delete it with "
            f"`eoray delete {name}`: what is committed stays"
        )
    moment = (now or (lambda: datetime.now(UTC)))().isoformat(timespec="seconds")
    mark = {"metadata": {"annotations": {CANCELLED: f"{moment} {_user()}"}}}
    cluster.patch_rayjob(name, {**mark, "spec": {"suspend": True}})
    found = cluster.rayjob(name)
    return State("cancelled") if found is None else state_of(found)


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
