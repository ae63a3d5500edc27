"""What a cluster says of an attempt: why its pods wait, what went wrong, which images they have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eoray.k8s.client import Cluster
from eoray.k8s.why import explain_waiting, images_of_pods, warnings_of
from tests.k8s.fake_api import FakeApi

NAME = "slovenia-01234567-1"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "ray-x"}


@pytest.fixture
def job(api: FakeApi) -> dict[str, Any]:
    return api.put("rayjobs", {"metadata": {"name": NAME, "labels": {}}, "spec": {}})


def put_event(
    api: FakeApi, minutes_ago: float, reason: str, said: str = "", *, pod: str = ""
) -> None:
    """Let something be said of the attempt's Ray cluster, or of one of its pods."""
    kind = "Warning" if reason.startswith("Failed") else "Normal"
    about = {"kind": "Pod", "name": pod} if pod else {"kind": "RayCluster", "name": "ray-x"}
    when = (NOW - timedelta(minutes=minutes_ago)).isoformat()
    event = {"type": kind, "reason": reason, "message": said, "involvedObject": about}
    api.put("events", {**event, "metadata": {"name": f"e-{len(api.objects)}"},
                       "lastTimestamp": when})  # fmt: skip


def put_unscheduled(api: FakeApi, name: str, said: str) -> None:
    labels = {"ray.io/cluster": "ray-x", "ray.io/node-type": "worker"}
    condition = {"type": "PodScheduled", "status": "False", "message": said}
    status = {"phase": "Pending", "conditions": [condition]}
    api.put("pods", {"metadata": {"name": name, "labels": labels}, "status": status})


def test_workers_that_a_running_attempt_waits_for_are_explained(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    api.set_status(NAME, **RUNNING)
    for name in ("gpu-a", "gpu-b", "gpu-c"):
        put_unscheduled(api, name, "0/5 nodes are available: 5 Insufficient GPU.")
    refused = 'Failed to create worker Pod: pods "ray-x-{}" is forbidden: exceeded quota: maps'
    for minutes, end in ((5, "k2p"), (2, "x7v")):
        put_event(api, minutes, "FailedToCreateWorkerPod", refused.format(end))
    assert explain_waiting(cluster, job, now=NOW) == [
        "FailedToCreateWorkerPod: Failed to create worker Pod: exceeded quota: maps",
        "pod gpu-a and 2 more: no node yet: 0/5 nodes are available: 5 Insufficient GPU.",
    ]


@pytest.mark.parametrize(
    ("failed", "created", "n_lines"),
    [((2,), (10,), 1), ((10,), (2,), 0), ((30,), (), 0), ((2,), (2,), 1)],
    ids=["holds", "a pod came behind it", "an old one", "in one round"],
)
def test_warnings_of_a_running_cluster_hold_until_it_gets_a_pod(
    api: FakeApi, cluster: Cluster, job: dict[str, Any], failed: Any, created: Any, n_lines: int
) -> None:
    api.set_status(NAME, **RUNNING)
    for minutes in created:
        put_event(api, minutes, "CreatedWorkerPod")
    for minutes in failed:
        put_event(api, minutes, "FailedToCreateWorkerPod", "exceeded quota")
    assert len(explain_waiting(cluster, job, now=NOW)) == n_lines


def test_pod_whose_containers_say_nothing_is_explained_by_its_last_event(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    api.set_status(NAME, rayClusterName="ray-x")
    metadata = {"name": "head", "labels": {"ray.io/cluster": "ray-x"}}
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    containers = {
        "name": "ray-head",
        "image": "a",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
    }
    status = {"phase": "Pending", "containerStatuses": [{**containers, **creating}]}
    api.put("pods", {"metadata": metadata, "status": status})
    put_event(api, 2, "FailedMount", 'configmap "corporate-ca" not found', pod="head")
    told = 'pod head: FailedMount: configmap "corporate-ca" not found'
    assert explain_waiting(cluster, job) == [told]
    put_event(api, 1, "Pulling", pod="head")
    assert explain_waiting(cluster, job) == []


def test_an_attempt_that_has_ended_waits_for_nothing_and_is_not_asked_for(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    ended = {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING"}
    api.set_status(NAME, **{**RUNNING, **ended})
    put_unscheduled(api, "gpu-a", "no node")
    assert explain_waiting(cluster, job) == []
    assert api.requests == []


def test_why_nothing_starts_is_found_on_job_cluster_and_pods(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    api.set_status(NAME, rayClusterName="ray-x")
    for kind, name, message in (("RayJob", NAME, "bad spec"), ("RayCluster", "ray-x", "PodSec")):
        involved = {"kind": kind, "name": name}
        event = {"metadata": {"name": kind}, "type": "Warning", "reason": "Failed"}
        api.put("events", {**event, "message": message, "involvedObject": involved})
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    api.put(
        "pods",
        {
            "metadata": {"name": "w1", "labels": {"ray.io/cluster": "ray-x"}},
            "status": {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no GPU"}
                ],
                "containerStatuses": [
                    {
                        "name": "ray-worker",
                        "image": "eoray:1",
                        "imageID": "",
                        "ready": False,
                        "restartCount": 0,
                        "state": waiting,
                    }
                ],
            },
        },
    )
    assert explain_waiting(cluster, job) == [
        "Failed: bad spec",
        "Failed: PodSec",
        "pod w1: no node yet: 0/3 nodes: no GPU",
        "pod w1: ImagePullBackOff: no such image",
    ]


LOST = (
    "Deleted head Pod maps-of-a-long-name/weekly-slovenia-73ba96dd-12-wj92h-head-jx5fl; "
    "Pod status: Running; Pod restart policy: Never; Ray container terminated status: "
    "&ContainerStateTerminated{ExitCode:137,Signal:0,Reason:OOMKilled,Message:,"
    "StartedAt:2026-01-01 00:00:00 +0000 UTC,FinishedAt:2026-01-01 00:00:04 +0000 UTC,"
    "ContainerID:containerd://" + 64 * "0" + ",}"
)
"""As KubeRay 1.6 writes it."""


def test_warnings_are_those_of_the_attempt_its_cluster_and_their_pods(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    def put(at: int, kind: str, name: str, reason: str, said: str, type_: str = "Warning") -> None:
        event = {"metadata": {"name": f"event-{at}"}, "type": type_, "reason": reason}
        when = f"2026-01-01T00:00:0{at}+00:00"
        involved = {"kind": kind, "name": name}
        api.put("events", {**event, "message": said, "lastTimestamp": when,
                           "involvedObject": involved})  # fmt: skip

    api.set_status(NAME, rayClusterName="ray-x")
    put(4, "RayCluster", "ray-x", "DeletedHeadPod", LOST, "Normal")
    put(1, "RayCluster", "ray-x", "CreatedHeadPod", "Created head Pod", "Normal")
    put(2, "Pod", "ray-x-head-abcde", "Unhealthy", "probe failed")
    put(3, "Pod", "ray-xy-head-abcde", "Unhealthy", "another run's")
    put(5, "RayJob", NAME, "Failed", "silent")
    shown = f"{LOST.split('&', maxsplit=1)[0]}OOMKilled, exit code 137"
    assert warnings_of(cluster, job) == [
        "2026-01-01T00:00:02+00:00 Pod ray-x-head-abcde: Unhealthy: probe failed",
        f"2026-01-01T00:00:04+00:00 RayCluster ray-x: DeletedHeadPod: {shown}",
        f"2026-01-01T00:00:05+00:00 RayJob {NAME}: Failed: silent",
    ]


def test_images_are_told_by_digest_those_of_other_containers_left_out(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    assert images_of_pods(cluster, job) == []
    job["status"] = {"rayClusterName": "ray-x"}

    def pod(name: str, *images: str) -> None:
        names = ("ray-head", "autoscaler")
        statuses = [
            {"name": n, "imageID": i, "image": "eoray:1", "ready": True, "restartCount": 0}
            for n, i in zip(names, images, strict=False)
        ]
        metadata = {"name": name, "labels": {"ray.io/cluster": "ray-x"}}
        spec = {"containers": [{"name": "ray-head"}, {"name": "autoscaler"}]}
        status = {"containerStatuses": statuses}
        api.put("pods", {"metadata": metadata, "spec": spec, "status": status})

    pod("head", "registry.example/eoray@sha256:01", "registry.example/other@sha256:07")
    pod("worker-a", "registry.example/eoray@sha256:02")
    pod("worker-b", "registry.example/eoray@sha256:01")
    pod("worker-c")
    pod("worker-d", "")
    images = ["registry.example/eoray@sha256:01", "registry.example/eoray@sha256:02"]
    assert images_of_pods(cluster, job) == images
    api.refuse["GET", "pods"] = (403, "pods is forbidden")
    assert images_of_pods(cluster, job) == []
