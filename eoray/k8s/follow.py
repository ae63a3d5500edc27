"""Follow an attempt: its state is the RayJob's, its log is decoration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.patience import Patience
from eoray.k8s.pods import HEAD
from eoray.k8s.refusals import ForbiddenError
from eoray.k8s.states import State, state_of, state_of_gone

_POD_PREFIX = 50
"""Letters of a cluster's name in those of its pods."""

_EXPLAIN_AFTER_S = 10.0
"""A run that has not started by then is explained."""

_VERDICT_S = 10.0
"""An operator that works takes a RayJob on, or refuses it, within this time."""


class WaitTimeoutError(ClusterError, TimeoutError):
    """The run has not ended within the time that the caller gave."""

    kind = "timeout"


def wait_for_end(
    cluster: Cluster,
    name: str,
    *,
    timeout_s: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
    on_poll: Callable[[dict[str, Any]], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> State:
    """Wait until an attempt has ended.

    Args:
        cluster: Where it is.
        name: Of the RayJob.
        timeout_s: Give up waiting after this time; the run goes on.
        tell: Called with each new state, and with why nothing starts.
        on_poll: Called with the RayJob each time it was looked at.
        clock: Seconds.
        wait: Called with seconds between questions.

    Returns:
        How it ended. One that somebody deleted has ended too, and is not to be tried again.

    Raises:
        WaitTimeoutError: It has not ended by then.
        ClusterError: The cluster stays away, or a right is missing.
    """
    begun, told, patience = clock(), "", Patience(tell, clock=clock)
    word, line, last = "unknown", "", dict[str, Any]()
    while True:
        state = None
        with patience.bear():
            rayjob = cluster.rayjob(name)
            state = state_of_gone(last) if rayjob is None else state_of(rayjob)
            word, line, last = state.word, describe(state), rayjob or last
            if rayjob is not None:
                on_poll(rayjob)
            if word in ("pending", "queued", "invalid") and clock() - begun > _EXPLAIN_AFTER_S:
                line = "; ".join([line, *explain(cluster, last)])
        if line != told:
            tell(line)
            told = line
        if state is not None and state.is_finished:
            return state
        if timeout_s is not None and clock() - begun >= timeout_s:
            raise WaitTimeoutError(
                f"attempt {name!r} is {word} after {timeout_s:g} s; it goes on: "
                f"`eoray wait {name}` waits again"
            )
        wait(patience.pause_s)


def wait_for_verdict(
    cluster: Cluster,
    name: str,
    *,
    tell: Callable[[str], None] = lambda _: None,
    wait: Callable[[float], None] = time.sleep,
) -> State:
    """Wait until the operator has taken an attempt on or refused it, ten seconds at most.

    Args:
        cluster: Where it is.
        name: Of the RayJob.
        tell: Called where the operator says nothing.
        wait: Called with seconds between questions.
    """
    waited = 0.0
    while True:
        rayjob = cluster.rayjob(name)
        if rayjob is None:
            return state_of_gone({})
        if (rayjob.get("status") or {}).get("jobDeploymentStatus"):
            return state_of(rayjob)
        if waited >= _VERDICT_S:
            tell(
                f"the KubeRay operator has said nothing of {name} for {waited:g} s; `eoray doctor` "
                f"looks for it, `eoray status {name}` tells when it has"
            )
            return state_of(rayjob)
        wait(1.0)
        waited += 1.0


def describe(state: State) -> str:
    """A state in one line."""
    return ": ".join(part for part in (state.word, state.reason, state.message) if part)


def explain(cluster: Cluster, rayjob: Mapping[str, Any]) -> list[str]:
    """Why an attempt does not start: events of RayJob and RayCluster, and its pods' conditions."""
    name = rayjob["metadata"]["name"]
    ray_cluster = (rayjob.get("status") or {}).get("rayClusterName", "")
    found = _warnings(cluster, "RayJob", name)
    if ray_cluster:
        found += _warnings(cluster, "RayCluster", ray_cluster)
        for pod in cluster.pods(f"ray.io/cluster={ray_cluster}"):
            found += _of_pod(pod)
    return list(dict.fromkeys(found))


def _warnings(cluster: Cluster, kind: str, name: str) -> list[str]:
    events = [event for event in cluster.events(kind, name) if event.get("type") == "Warning"]
    return [f"{event.get('reason')}: {_short(event.get('message'))}" for event in events[-2:]]


def warnings_of(cluster: Cluster, rayjob: Mapping[str, Any]) -> list[str]:
    """What the cluster says went wrong with an attempt, its Ray cluster and their pods.

    Events are forgotten within an hour or so, and pods that were lost are known by them alone.

    Returns:
        Lines with their time, oldest first.
    """
    name = rayjob["metadata"]["name"]
    ray_cluster = (rayjob.get("status") or {}).get("rayClusterName", "")
    events = cluster.events("RayJob", name)
    if ray_cluster:
        events += cluster.events("RayCluster", ray_cluster)
        # KubeRay cuts long names of clusters in those of their pods
        ours = f"{ray_cluster[:_POD_PREFIX]}-"
        events += [
            event
            for event in cluster.events("Pod")
            if f"{event['involvedObject']['name']}-".startswith(ours)
        ]
    told = [event for event in events if event.get("type") == "Warning" or _is_loss(event)]
    return sorted({_line_of(event) for event in told})


def images_of(cluster: Cluster, rayjob: Mapping[str, Any]) -> list[str]:
    """Images that the pods of an attempt have, by digest, as far as there are pods.

    More than one of a name means that its tag moved while the attempt lasted.
    """
    ray_cluster = (rayjob.get("status") or {}).get("rayClusterName", "")
    if not ray_cluster:
        return []
    try:
        pods = cluster.pods(f"ray.io/cluster={ray_cluster}")
    except ForbiddenError:
        return []
    return sorted({image for pod in pods for image in _images(pod)})


def _images(pod: Mapping[str, Any]) -> Iterator[str]:
    """Of the container that Ray runs in; others may be the cluster's own additions."""
    name = pod["spec"]["containers"][0]["name"]
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if status["name"] == name and status.get("imageID"):
            yield status["imageID"]


def _is_loss(event: Mapping[str, Any]) -> bool:
    """Whether KubeRay tells that a pod had ended and was replaced; it calls that normal."""
    return event.get("reason") in ("DeletedHeadPod", "DeletedWorkerPod")


def _line_of(event: Mapping[str, Any]) -> str:
    about, moment = event["involvedObject"], event.get("lastTimestamp") or event.get("eventTime")
    what = f"{about['kind']} {about['name']}: {event.get('reason')}"
    return f"{moment or ''} {what}: {_short(event.get('message'))}".strip()


def _of_pod(pod: Mapping[str, Any]) -> Iterator[str]:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"pod {name} waits for a node: {_short(condition.get('message'))}"
    containers = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            yield f"pod {name}: {waiting['reason']}: {_short(waiting.get('message'))}"


def _short(message: Any) -> str:
    return " ".join(str(message or "").split())[:200]


class HeadLog:
    """Lines of an attempt's head, read piece by piece, each once.

    Nothing is concluded from the end of a log: a pod that vanished, or a server that restarts,
    only means that there are no lines now.
    """

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start before the first line."""
        self._cluster, self._clock = cluster, clock
        self._asked: float | None = None
        self._last = ""
        self._seen: set[str] = set()

    def read(self, rayjob: Mapping[str, Any]) -> Iterator[str]:
        """Lines that are new since the last call."""
        name = (rayjob.get("status") or {}).get("rayClusterName", "")
        if not name:
            return
        selector = f"ray.io/cluster={name},ray.io/node-type=head"
        for pod in self._cluster.pods(selector):
            text = self._ask(pod["metadata"]["name"], rayjob)
            yield from self._new(text)

    def _ask(self, pod: str, rayjob: Mapping[str, Any]) -> str:
        now = self._clock()
        # a little more than what has passed: clocks differ, and lines are told apart by their time
        since = _age_s(rayjob) if self._asked is None else int(now - self._asked) + 10
        try:
            text = self._cluster.pod_log(pod, HEAD, since)
        except ClusterError:
            return ""
        self._asked = now
        return text

    def _new(self, text: str) -> Iterator[str]:
        for line in text.splitlines():
            stamp, _, said = line.partition(" ")
            if stamp < self._last or line in self._seen:
                continue
            if stamp > self._last:
                self._last, self._seen = stamp, set()
            self._seen.add(line)
            yield said


def _age_s(rayjob: Mapping[str, Any]) -> int | None:
    """Seconds since the job was made; None for a head of its own, which began with it."""
    if "clusterSelector" not in rayjob.get("spec", {}):
        return None
    made = datetime.fromisoformat(rayjob["metadata"]["creationTimestamp"])
    return int((datetime.now(UTC) - made).total_seconds()) + 10
