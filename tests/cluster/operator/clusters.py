"""RayClusters: their pods are made, replaced and counted."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from tests.cluster.operator.pods import (
    CLUSTER,
    GROUP,
    HEAD_GROUP,
    autoscaler_account,
    head_pod,
    head_service,
    secret_name,
    token_secret,
    worker_pod,
)
from tests.cluster.operator.rest import Api, ApiError

Object = dict[str, Any]

_OVER = ("Failed", "Succeeded")
_PLURALS = {"ServiceAccount": "serviceaccounts", "Role": "roles", "RoleBinding": "rolebindings"}


def reconcile_cluster(api: Api, cluster: Object) -> None:
    """Bring a RayCluster one step nearer to what it asks for.

    A head or worker that has ended is deleted and made anew, also by a cluster that was ready
    before; ``state`` stays ``ready`` from the first time on.
    """
    metadata = cluster["metadata"]
    if "deletionTimestamp" in metadata:
        return  # the garbage collector deletes what it owns
    name, namespace = metadata["name"], metadata["namespace"]
    _make_belongings(api, cluster)
    pods = api.list("pods", namespace, **{CLUSTER: name})
    groups = [HEAD_GROUP, *(group["groupName"] for group in _groups(cluster))]
    refused = 0
    for group in groups:
        own = [pod for pod in pods if _group(pod) == group]
        refused += not _reconcile_group(api, cluster, own, group)
    _set_status(api, cluster, pods, whole=not refused)


def record_event(api: Api, about: Object, reason: str, message: str, *, warns: bool = True) -> None:
    """Write an event about an object; the same one is counted, not repeated."""
    metadata = about["metadata"]
    namespace = metadata["namespace"]
    said = hashlib.sha256(f"{reason} {message}".encode()).hexdigest()[:10]
    name, now = f"{metadata['name']}.{said}", _now()
    there = api.get("events", namespace, name)
    if there is not None:
        update = {"count": int(there.get("count", 1)) + 1, "lastTimestamp": now}
        api.patch("events", namespace, name, update)
        return
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": namespace,
            "uid": metadata["uid"],
        },
        "type": "Warning" if warns else "Normal",
        "reason": reason,
        "message": message[:1000],
        "source": {"component": "kuberay-operator"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    api.create("events", namespace, event)


def _make_belongings(api: Api, cluster: Object) -> None:
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    if secret_name(cluster) == name:
        api.ensure("secrets", namespace, token_secret(cluster))
    api.ensure("services", namespace, head_service(cluster))
    if cluster["spec"].get("enableInTreeAutoscaling"):
        for each in autoscaler_account(cluster):
            api.ensure(_PLURALS[each["kind"]], namespace, each)


def _reconcile_group(api: Api, cluster: Object, pods: list[Object], group: str) -> bool:
    """Delete what has ended, else make what is missing. Tells whether nothing was refused."""
    namespace = cluster["metadata"]["namespace"]
    is_head = group == HEAD_GROUP
    ended = [pod for pod in pods if _is_over(pod) and "deletionTimestamp" not in pod["metadata"]]
    for pod in ended:
        pod_name = pod["metadata"]["name"]
        api.delete("pods", namespace, pod_name)
        reason = "DeletedHeadPod" if is_head else "DeletedWorkerPod"
        kind, phase = "head" if is_head else "worker", pod["status"].get("phase")
        end = _as_go_prints(_terminated(pod))
        message = (
            f"Deleted {kind} Pod {namespace}/{pod_name}; Pod status: {phase}; Pod restart policy: "
            f"{pod['spec']['restartPolicy']}; Ray container terminated status: {end}"
        )
        record_event(api, cluster, reason, message, warns=False)
    if ended:
        return False
    if is_head:
        return _create(api, cluster, head_pod(cluster), "Head") if not pods else True
    spec = next(each for each in _groups(cluster) if each["groupName"] == group)
    for name in (spec.get("scaleStrategy") or {}).get("workersToDelete") or ():
        api.delete("pods", namespace, name)
        pods = [pod for pod in pods if pod["metadata"]["name"] != name]
    wanted = desired(spec)
    for pod in pods[wanted:]:
        api.delete("pods", namespace, pod["metadata"]["name"])
    made = [
        _create(api, cluster, worker_pod(cluster, spec), "Worker")
        for _ in range(wanted - len(pods))
    ]
    return all(made)


def _create(api: Api, cluster: Object, pod: Object, kind: str) -> bool:
    namespace = cluster["metadata"]["namespace"]
    try:
        made = api.create("pods", namespace, pod)
    except ApiError as error:
        if error.status in (0, 429, 500, 503):
            raise
        message = f"Failed to create {kind.lower()} Pod for {namespace}: {error.message}"
        record_event(api, cluster, f"FailedToCreate{kind}Pod", message)
        return False
    message = f"Created {kind.lower()} Pod {namespace}/{made['metadata']['name']}"
    record_event(api, cluster, f"Created{kind}Pod", message, warns=False)
    return True


def desired(group: Object) -> int:
    """Pods that a group shall have now."""
    fewest, most = int(group.get("minReplicas") or 0), int(group.get("maxReplicas", 2**31))
    replicas = max(fewest, min(most, int(group.get("replicas") or 0)))
    return replicas * int(group.get("numOfHosts") or 1)


def _set_status(api: Api, cluster: Object, pods: list[Object], *, whole: bool) -> None:
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    wanted = sum(map(desired, _groups(cluster)))
    heads = [pod for pod in pods if _group(pod) == HEAD_GROUP]
    workers = [pod for pod in pods if _group(pod) != HEAD_GROUP]
    before = cluster.get("status") or {}
    ready = whole and len(pods) == wanted + 1 and all(map(_is_ready, pods))
    status: Object = {
        "state": "ready" if ready else before.get("state", ""),
        "desiredWorkerReplicas": wanted,
        "readyWorkerReplicas": sum(map(_is_ready, workers)),
        "availableWorkerReplicas": sum(p["status"].get("phase") == "Running" for p in workers),
        "head": {
            "podName": heads[0]["metadata"]["name"] if heads else "",
            "podIP": heads[0]["status"].get("podIP", "") if heads else "",
            "serviceName": f"{name}-head-svc",
        },
        "observedGeneration": cluster["metadata"].get("generation", 1),
    }
    if any(before.get(key) != value for key, value in status.items()):
        status["lastUpdateTime"] = _now()
        api.patch_status("rayclusters", namespace, name, status)


def _groups(cluster: Object) -> list[Object]:
    return list(cluster["spec"].get("workerGroupSpecs") or ())


def _group(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get(GROUP))


def _is_over(pod: Object) -> bool:
    """Whether a pod has ended, or its Ray container will not start again."""
    if pod["status"].get("phase") in _OVER:
        return True
    return bool(_terminated(pod)) and pod["spec"]["restartPolicy"] == "Never"


def _terminated(pod: Object) -> Object:
    """How the Ray container ended; empty while it runs."""
    ray = pod["spec"]["containers"][0]["name"]
    for each in pod["status"].get("containerStatuses") or ():
        if each["name"] == ray:
            return dict((each.get("state") or {}).get("terminated") or {})
    return {}


def _as_go_prints(ended: Object) -> str:
    """The end of a container in KubeRay's events."""
    if not ended:
        return "nil"
    told = {
        "ExitCode": ended["exitCode"],
        "Signal": ended.get("signal", 0),
        "Reason": ended.get("reason", ""),
        "Message": ended.get("message", ""),
        "StartedAt": ended.get("startedAt"),
        "FinishedAt": ended.get("finishedAt"),
        "ContainerID": ended.get("containerID", ""),
    }
    fields = "".join(f"{name}:{value}," for name, value in told.items())
    return f"&ContainerStateTerminated{{{fields}}}"


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return pod["status"].get("phase") == "Running" and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
