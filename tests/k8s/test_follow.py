"""Following an attempt: its state, why it does not start, its log, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.follow import HeadLog, WaitTimeoutError, explain, wait_for_end
from eoray.k8s.refusals import ForbiddenError
from tests.k8s.fake_api import FakeApi

NAME = "slovenia-01234567-1"


@pytest.fixture
def job(api: FakeApi) -> dict[str, Any]:
    return api.put("rayjobs", {"metadata": {"name": NAME, "labels": {}}, "spec": {}})


def play(api: FakeApi, *steps: dict[str, str]) -> Callable[[float], None]:
    """Give the operator's steps, one for each wait."""
    left: Iterator[dict[str, str]] = iter(steps)
    return lambda _: api.set_status(NAME, **next(left))


def test_waiting_tells_each_state_once_and_ends_with_the_last(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    told: list[str] = []
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    steps = (running, running, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
    state = wait_for_end(cluster, NAME, tell=told.append, wait=play(api, *steps))
    assert state.word == "succeeded"
    assert told == ["pending", "running", "succeeded"]


def test_end_of_a_deadline_is_told_with_kuberays_reason(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    api.set_status(
        NAME, jobDeploymentStatus="Failed", jobStatus="RUNNING", reason="DeadlineExceeded"
    )
    state = wait_for_end(cluster, NAME)
    assert (state.word, state.reason, state.exit_code) == ("failed", "DeadlineExceeded", 1)


def test_timeout_of_waiting_leaves_the_run_alone(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    seconds = iter(range(0, 1000, 5))
    with pytest.raises(WaitTimeoutError, match=r"is pending after 12 s; it goes on: `eoray wait"):
        wait_for_end(cluster, NAME, timeout_s=12, clock=lambda: next(seconds), wait=lambda _: None)
    assert api.written() == []


def test_rights_that_are_away_for_a_moment_end_no_waiting(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    def restart(_: float) -> None:
        if len(api.requests) == 1:
            api.faults += [(403, "no RBAC policy matched")] * 3
        else:
            api.set_status(NAME, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    assert wait_for_end(cluster, NAME, clock=lambda: 0.0, wait=restart).word == "succeeded"
    assert len(api.requests) == 5  # pending, three refusals, succeeded


def test_rights_that_stay_away_are_told(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    seconds = iter(range(0, 1000, 20))
    api_is_asked: list[bool] = []

    def refuse(_: float) -> None:
        if not api_is_asked:
            api.refuse["GET", "rayjobs"] = (403, "not yours")
        api_is_asked.append(True)

    with pytest.raises(ForbiddenError, match="you may not get rayjobs"):
        wait_for_end(cluster, NAME, clock=lambda: next(seconds), wait=refuse)
    assert len(api_is_asked) > 2


def test_attempt_that_somebody_deleted_is_an_error(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="is gone: somebody deleted it"):
        wait_for_end(cluster, NAME)


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
    assert explain(cluster, job) == [
        "Failed: bad spec",
        "Failed: PodSec",
        "pod w1 waits for a node: 0/3 nodes: no GPU",
        "pod w1: ImagePullBackOff: no such image",
    ]


def test_log_is_read_piece_by_piece_each_line_once(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    log = HeadLog(cluster)
    assert list(log.read(job)) == []
    api.set_status(NAME, rayClusterName="ray-x")
    labels = {"ray.io/cluster": "ray-x", "ray.io/node-type": "head"}
    api.put("pods", {"metadata": {"name": "head", "labels": labels}})
    api.logs["head"] = "T1 one\nT2 two\nT2 two again\n"
    assert list(log.read(job)) == ["one", "two", "two again"]
    api.logs["head"] = "T2 two\nT2 two again\nT2 late\nT3 three\n"
    assert list(log.read(job)) == ["late", "three"]


def test_log_of_a_pod_that_vanished_is_no_end(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    log = HeadLog(cluster)
    api.set_status(NAME, rayClusterName="ray-x")
    labels = {"ray.io/cluster": "ray-x", "ray.io/node-type": "head"}
    api.put("pods", {"metadata": {"name": "head", "labels": labels}})
    assert list(log.read(job)) == []
    api.logs["head"] = "T1 one\n"
    assert list(log.read(job)) == ["one"]
