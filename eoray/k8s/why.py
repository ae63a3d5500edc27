"""What a cluster says of an attempt: why its pods wait, what went wrong, which images they have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from eoray.k8s.client import Cluster
from eoray.k8s.refusals import ForbiddenError
from eoray.k8s.states import state_of

_POD_PREFIX = 50
"""Letters of a cluster's name in those of its pods."""

_NOT_STARTED = ("pending", "queued", "invalid")

_LATELY = timedelta(minutes=20)
"""The operator tries again what was refused after 1000 s at the latest, and says so again."""

_POD_CREATED = ("CreatedHeadPod", "CreatedWorkerPod")

_POD_REFUSED = re.compile(r'pods "[^"]+" is forbidden: ')
"""The name is another one each time, and no such pod exists."""

_TERMINATED = re.compile(r"&ContainerStateTerminated\{ExitCode:(-?\d+),.*?Reason:([^,]*),.*")
"""How KubeRay tells a container's end, behind so much else that a cut message loses it."""


def explain_waiting(
    cluster: Cluster, rayjob: Mapping[str, Any], *, now: datetime | None = None
) -> list[str]:
    """Why pods of an attempt wait: by events of RayJob and RayCluster, and by the pods themselves.

    Args:
        cluster: Where it is.
        rayjob: One that has not started, or that runs: its workers come with the work, so they may
            wait while the head runs. Any other waits for nothing.
        now: Moment at which warnings are late ones; None for this one.
    """
    word = state_of(rayjob).word
    ray_cluster = (rayjob.get("status") or {}).get("rayClusterName", "")
    found: list[str] = []
    if word in _NOT_STARTED:
        found += _told(cluster.events("RayJob", rayjob["metadata"]["name"]))
    elif word != "running":
        return []
    if ray_cluster:
        events = cluster.events("RayCluster", ray_cluster)
        is_running = word == "running"
        found += _told(_standing(events, now or datetime.now(UTC)) if is_running else events)
        pods = cluster.pods(f"ray.io/cluster={ray_cluster}")
        found += [*_of_pods(pods), *_of_silent_pods(cluster, pods)]
    return list(dict.fromkeys(found))


def _told(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """The last two warnings."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    return [
        f"{event.get('reason')}: {_short(_POD_REFUSED.sub('', str(event.get('message') or '')))}"
        for event in warnings[-2:]
    ]


def _standing(events: Iterable[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Events of a Ray cluster that still hold: late ones, behind which it got no pod."""
    timed = [(moment, event) for event in events if (moment := _moment(event)) is not None]
    created = [moment for moment, event in timed if event.get("reason") in _POD_CREATED]
    since = max([now - _LATELY, *created])
    return [event for moment, event in timed if moment >= since]


def _moment(event: Mapping[str, Any]) -> datetime | None:
    """When an event was seen last."""
    said = event.get("lastTimestamp") or event.get("eventTime")
    return datetime.fromisoformat(said) if said else None


def _of_pods(pods: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What pods wait for; those that wait for the same are one line."""
    waiting: dict[str, list[str]] = {}
    for pod in pods:
        for why in _of_pod(pod):
            waiting.setdefault(why, []).append(pod["metadata"]["name"])
    for why, names in waiting.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"pod {names[0]}{others}: {why}"


def _of_pod(pod: Mapping[str, Any]) -> Iterator[str]:
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"no node yet: {_short(condition.get('message'))}"
    containers = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            yield f"{waiting['reason']}: {_short(waiting.get('message'))}"


def _of_silent_pods(cluster: Cluster, pods: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The last event of pods whose containers say nothing, where it warns: a volume is missing.

    Two pods are asked for: the others wait for the same, as a rule.
    """
    waiting = (pod for pod in pods if pod.get("status", {}).get("phase") == "Pending")
    silent = [pod["metadata"]["name"] for pod in waiting if not any(_of_pod(pod))]
    for name in silent[:2]:
        for why in _told(cluster.events("Pod", name)[-1:]):
            yield f"pod {name}: {why}"


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


def images_of_pods(cluster: Cluster, rayjob: Mapping[str, Any]) -> list[str]:
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
    message = _TERMINATED.sub(r"\2, exit code \1", str(event.get("message") or ""))
    return f"{moment or ''} {what}: {_short(message, 300)}".strip()


def _short(message: Any, letters: int = 200) -> str:
    return " ".join(str(message or "").split())[:letters]
