"""Following an attempt: its state, why it does not start, its log, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.follow import (
    HeadLog,
    WaitTimeoutError,
    wait_for_end,
    wait_for_verdict,
)
from eoray.k8s.job import Job
from eoray.k8s.names import CANCELLED
from eoray.k8s.refusals import ForbiddenError, UnknownCallerError
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


def test_what_a_running_attempt_waits_for_is_told_once_and_so_is_its_end(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    passed, told = [0.0], list[str]()
    labels = {"ray.io/cluster": "ray-x"}
    waiting = {"type": "PodScheduled", "status": "False", "message": "5 Insufficient GPU"}
    status = {"phase": "Pending", "conditions": [waiting]}
    api.put("pods", {"metadata": {"name": "gpu", "labels": labels}, "status": status})
    running = {"jobDeploymentStatus": "Running", "rayClusterName": "ray-x"}
    api.set_status(NAME, **running)

    def wait(seconds: float) -> None:
        passed[0] += seconds
        if passed[0] > 100:
            waiting["status"] = "True"
        if passed[0] > 200:
            ended = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
            api.set_status(NAME, **{**running, **ended})

    wait_for_end(cluster, NAME, tell=told.append, clock=lambda: passed[0], wait=wait)
    why = "running; pod gpu: no node yet: 5 Insufficient GPU"
    assert told == ["running", why, "running", "succeeded"]
    assert sum("/pods" in path for _, path in api.requests) < 10  # 100 looks at the RayJob


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "JobStatusCheckTimeoutExceeded"])
def test_end_by_kuberay_is_told_with_its_reason_though_the_driver_works(
    api: FakeApi, cluster: Cluster, job: dict[str, Any], reason: str
) -> None:
    api.set_status(NAME, jobDeploymentStatus="Failed", jobStatus="RUNNING", reason=reason)
    state = wait_for_end(cluster, NAME)
    assert (state.word, state.reason, state.exit_code) == ("failed", reason, 1)


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


def test_waiting_bears_with_minutes_of_an_expired_login_and_says_so_once(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    passed, told = [0.0], list[str]()

    def wait(seconds: float) -> None:
        passed[0] += seconds
        if passed[0] < 360:
            api.refuse["GET", "rayjobs"] = (401, "Unauthorized")
        else:
            api.refuse.clear()
            api.set_status(NAME, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    state = wait_for_end(cluster, NAME, tell=told.append, clock=lambda: passed[0], wait=wait)
    assert state.word == "succeeded"
    assert told[0] == "pending"
    assert "does not know you (get rayjobs in namespace 'maps'); log in again; the run" in told[1]
    assert told[2:] == [f"the Kubernetes API answers again after {passed[0]:.0f} s", "succeeded"]
    # from two seconds up to sixteen: 26 looks, each with the old and a renewed credential
    assert len(api.requests) < 60


def test_login_that_stays_expired_ends_the_waiting(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    passed = [0.0]

    def wait(seconds: float) -> None:
        passed[0] += seconds
        api.refuse["GET", "rayjobs"] = (401, "Unauthorized")

    with pytest.raises(UnknownCallerError, match="log in again"):
        wait_for_end(cluster, NAME, clock=lambda: passed[0], wait=wait)
    assert 1800 < passed[0] < 1840


def test_caller_who_was_never_known_is_told_at_once(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    api.refuse["GET", "rayjobs"] = (401, "Unauthorized")
    with pytest.raises(UnknownCallerError, match="log in again"):
        wait_for_end(cluster, NAME, wait=lambda _: None)


def test_timeout_of_waiting_holds_while_the_server_is_away(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    passed = [0.0]

    def wait(seconds: float) -> None:
        passed[0] += seconds
        api.refuse["GET", "rayjobs"] = (503, "the server is starting")

    with pytest.raises(WaitTimeoutError, match="is pending after 60 s; it goes on"):
        wait_for_end(cluster, NAME, timeout_s=60, clock=lambda: passed[0], wait=wait)


def test_following_a_log_goes_on_behind_an_expired_login(
    api: FakeApi, cluster: Cluster, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"ray.io/cluster": "ray-x", "ray.io/node-type": "head"}
    api.put("pods", {"metadata": {"name": "head", "labels": labels}})
    api.logs["head"] = "T1 one\n"
    running = {"jobDeploymentStatus": "Running", "rayClusterName": "ray-x"}
    api.set_status(NAME, **running)
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) < 4:
            api.refuse["GET", "pods"] = (401, "Unauthorized")
        else:
            api.refuse.clear()
            api.logs["head"] = "T1 one\nT2 two\n"
            ended = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
            api.set_status(NAME, **{**running, **ended})

    monkeypatch.setattr("eoray.k8s.job.time.sleep", wait)
    told: list[str] = []
    assert list(Job(cluster, NAME).logs(follow=True, tell=told.append)) == ["one", "two"]
    assert [line[:30] for line in told] == [
        "the Kubernetes API does not kn",
        "the Kubernetes API answers aga",
    ]
    assert looks == [2.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("marks", "word"), [({}, "deleted"), ({CANCELLED: "now ann"}, "cancelled")]
)
def test_attempt_that_somebody_deleted_has_ended_and_is_not_tried_again(
    api: FakeApi, cluster: Cluster, job: dict[str, Any], marks: dict[str, str], word: str
) -> None:
    api.set_status(NAME, jobDeploymentStatus="Running")
    job["metadata"]["annotations"] = marks
    told = list[str]()

    def delete(_: float) -> None:
        del api.objects["rayjobs", "maps", NAME]

    state = wait_for_end(cluster, NAME, tell=told.append, wait=delete)
    assert (state.word, state.exit_code) == (word, 5)
    assert told[-1].startswith(f"{word}: its RayJob is gone")


def test_following_the_log_of_a_deleted_attempt_ends(
    api: FakeApi, cluster: Cluster, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "eoray.k8s.job.time.sleep", lambda _: api.objects.pop(("rayjobs", "maps", NAME))
    )
    assert list(Job(cluster, NAME).logs(follow=True)) == []
    with pytest.raises(ClusterError, match="is gone from namespace 'maps'"):
        list(Job(cluster, NAME).logs(follow=True))


def test_verdict_is_the_operators_first_word_or_its_silence(
    api: FakeApi, cluster: Cluster, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eoray.k8s.follow._VERDICT_S", 10.0)
    told, looks = list[str](), list[float]()

    def refuse(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            api.set_status(NAME, jobDeploymentStatus="ValidationFailed", message="bad")

    state = wait_for_verdict(cluster, NAME, tell=told.append, wait=refuse)
    assert (state.word, told, len(looks)) == ("invalid", [], 3)
    api.set_status(NAME)
    looks.clear()
    assert wait_for_verdict(cluster, NAME, tell=told.append, wait=looks.append).word == "pending"
    assert len(looks) == 10
    assert told[0].startswith(f"the KubeRay operator has said nothing of {NAME} for 10 s")


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
