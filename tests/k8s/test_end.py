"""Ending an attempt: suspended, taken from its queue, its driver asked to stop, deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eoray.errors import ClusterError, ConflictError
from eoray.k8s.client import Cluster
from eoray.k8s.end import FINALIZER, cancel_attempt, delete_attempt
from eoray.k8s.follow import WaitTimeoutError
from eoray.k8s.head import DASHBOARD_PORT
from eoray.k8s.names import CANCELLED, QUEUE
from eoray.k8s.refusals import ForbiddenError
from eoray.k8s.states import state_of
from eoray.k8s.submit import submit_run
from tests.k8s.fake_api import FakeApi
from tests.k8s.fake_head import Dashboard, put_cluster

NAME = "slovenia-01234567-1"


@pytest.fixture
def job(api: FakeApi) -> dict[str, Any]:
    return api.put("rayjobs", {"metadata": {"name": NAME, "labels": {}}, "spec": {}})


@pytest.fixture
def queued(api: FakeApi, job: dict[str, Any]) -> dict[str, Any]:
    """The attempt in a queue of Kueue, among others' workloads."""
    api.served += ("workloads",)
    api.plain["/apis/kueue.x-k8s.io"] = {"preferredVersion": {"version": "v1beta2"}}
    job["metadata"]["labels"][QUEUE] = "main"
    for name, uid in (("other", "uid-of-another"), ("rayjob-x", job["metadata"]["uid"])):
        owner = {"kind": "RayJob", "uid": uid}
        body = {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": {"active": True}}
        api.put("workloads", body)
    return job


def test_cancelling_marks_and_suspends(api: FakeApi, cluster: Cluster, job: dict[str, Any]) -> None:
    api.set_status(NAME, jobDeploymentStatus="Running")
    state = cancel_attempt(cluster, job, now=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    assert state.word == "cancelling"
    kept = api.objects["rayjobs", "maps", NAME]
    assert kept["spec"]["suspend"] is True
    assert kept["metadata"]["annotations"][CANCELLED].startswith("2026-01-02T00:00:00+00:00 ")


def test_cancelling_what_has_ended_ends_the_pods_that_outlive_it(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    api.set_status(NAME, jobDeploymentStatus="Failed", rayClusterName="ray-x")
    api.put("rayclusters", {"metadata": {"name": "ray-x"}})
    assert cancel_attempt(cluster, job).word == "failed"
    assert api.names("rayclusters") == []
    assert "suspend" not in job["spec"]


def test_run_in_a_queue_is_taken_from_it_and_never_suspended_by_us(
    api: FakeApi, cluster: Cluster, queued: dict[str, Any]
) -> None:
    told: list[str] = []
    cancel_attempt(cluster, queued, tell=told.append)
    active = {name: body["spec"]["active"] for (plural, _, name), body in api.objects.items()
              if plural == "workloads"}  # fmt: skip
    assert active == {"other": True, "rayjob-x": False}
    assert CANCELLED in queued["metadata"]["annotations"]
    assert "suspend" not in queued["spec"]
    assert ("PATCH", "/apis/kueue.x-k8s.io/v1beta2/namespaces/maps/workloads/rayjob-x") in (
        api.requests
    )
    assert told == []


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_run_in_a_queue_is_deleted_where_the_right_on_workloads_is_missing(
    api: FakeApi, cluster: Cluster, queued: dict[str, Any], method: str
) -> None:
    api.refuse[method, "workloads"] = (403, "workloads is forbidden")
    told: list[str] = []
    assert cancel_attempt(cluster, queued, tell=told.append).word == "cancelled"
    assert api.names("rayjobs") == []
    (line,) = told
    assert line.startswith(f"{NAME} was deleted, not suspended: you may not list or patch Kueue's")


def test_run_that_kueue_does_not_know_is_deleted(
    api: FakeApi, cluster: Cluster, queued: dict[str, Any]
) -> None:
    del api.objects["workloads", "maps", "rayjob-x"]
    cancel_attempt(cluster, queued)
    assert api.names("rayjobs") == []


def test_label_of_a_queue_without_kueue_is_suspended_as_any(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    job["metadata"]["labels"][QUEUE] = "main"
    cancel_attempt(cluster, job)
    assert job["spec"]["suspend"] is True


def test_deleting_says_when_only_the_operators_finalizer_holds(
    api: FakeApi, cluster: Cluster, job: dict[str, Any]
) -> None:
    job["metadata"]["finalizers"] = [FINALIZER]
    with pytest.raises(ClusterError, match="the KubeRay operator does not run"):
        delete_attempt(cluster, NAME, timeout_s=4, wait=lambda _: None)
    job["metadata"]["finalizers"] = []
    assert delete_attempt(cluster, NAME) is True
    assert delete_attempt(cluster, NAME) is False


JOB = f"{NAME}-x7k2p"
"""Ray's own name of the attempt's job."""


@pytest.fixture
def shared(api: FakeApi, dashboard: Dashboard) -> Dashboard:
    """The attempt on a cluster that stays: its driver works until it is asked to stop."""
    put_cluster(api, {DASHBOARD_PORT: dashboard.port})
    spec = {"clusterSelector": {"ray.io/cluster": "eoray"}}
    api.put("rayjobs", {"metadata": {"name": NAME, "labels": {}}, "spec": spec})
    api.set_status(NAME, jobDeploymentStatus="Running", jobStatus="RUNNING", jobId=JOB)
    dashboard.jobs[JOB] = ["RUNNING"]
    return dashboard


def rayjob_of(api: FakeApi) -> dict[str, Any]:
    return api.objects["rayjobs", "maps", NAME]


def test_driver_on_a_cluster_that_stays_is_asked_and_waited_for(
    api: FakeApi, cluster: Cluster, shared: Dashboard
) -> None:
    shared.stopped[JOB] = ["RUNNING", "RUNNING", "STOPPED"]
    waits: list[float] = []
    told: list[str] = []

    def operate(seconds: float) -> None:
        """Let time pass; the operator tells the end three questions after it."""
        waits.append(seconds)
        if len(waits) == 4:
            api.set_status(NAME, jobDeploymentStatus="Complete", jobStatus="STOPPED", jobId=JOB)

    state = cancel_attempt(cluster, rayjob_of(api), tell=told.append, wait=operate)
    assert (state.word, state.exit_code) == ("cancelled", 5)
    assert shared.requests == [
        f"GET /api/jobs/{JOB}", f"POST /api/jobs/{JOB}/stop", *[f"GET /api/jobs/{JOB}"] * 3
    ]  # fmt: skip
    assert len(waits) == 4
    assert told == [f"asked the driver of {NAME} to stop: it commits what is finished"]
    assert "suspend" not in rayjob_of(api)["spec"]
    assert ("rayclusters", "maps", "eoray") in api.objects


def test_driver_that_succeeded_meanwhile_has_succeeded(
    api: FakeApi, cluster: Cluster, shared: Dashboard
) -> None:
    shared.stopped[JOB] = ["SUCCEEDED"]

    def operate(_: float) -> None:
        api.set_status(NAME, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", jobId=JOB)

    assert cancel_attempt(cluster, rayjob_of(api), wait=operate).word == "succeeded"


def test_driver_that_does_not_end_is_told(
    api: FakeApi, cluster: Cluster, shared: Dashboard
) -> None:
    shared.stopped[JOB] = ["RUNNING"]
    with pytest.raises(WaitTimeoutError, match=r"has not ended 75 s .*`eoray delete slovenia-"):
        cancel_attempt(cluster, rayjob_of(api), wait=lambda _: None)
    assert state_of(rayjob_of(api)).word == "cancelling"


def test_operator_that_is_down_leaves_it_cancelling(
    api: FakeApi, cluster: Cluster, shared: Dashboard
) -> None:
    waits: list[float] = []
    assert cancel_attempt(cluster, rayjob_of(api), wait=waits.append).word == "cancelling"
    assert sum(waits) == 30


@pytest.mark.parametrize("job", ["", "never-submitted"])
def test_attempt_whose_driver_has_not_begun_is_deleted(
    api: FakeApi, cluster: Cluster, shared: Dashboard, job: str
) -> None:
    api.set_status(NAME, jobDeploymentStatus="Initializing", jobId=job)
    told: list[str] = []
    assert cancel_attempt(cluster, rayjob_of(api), tell=told.append).word == "cancelled"
    assert api.names("rayjobs") == []
    assert told == [f"{NAME} was deleted, not stopped: its driver had not begun"]


def test_what_cannot_be_asked_is_not_marked(
    api: FakeApi, cluster: Cluster, shared: Dashboard
) -> None:
    shared.token = "another"
    with pytest.raises(ClusterError, match="'maps/eoray' refuses the token of its Secret"):
        cancel_attempt(cluster, rayjob_of(api))
    api.refuse["GET", "secrets"] = (403, "secrets is forbidden")
    with pytest.raises(ForbiddenError, match="you may not get secrets"):
        cancel_attempt(cluster, rayjob_of(api))
    assert api.written() == []
    assert f"POST /api/jobs/{JOB}/stop" not in shared.requests


def test_next_attempt_waits_for_the_driver_that_was_asked_to_stop(
    api: FakeApi, cluster: Cluster, dashboard: Dashboard, read_config: Any, folder: Path
) -> None:
    put_cluster(api, {DASHBOARD_PORT: dashboard.port}, image="r/eoray@sha256:1")
    config = read_config("cluster={ray_cluster: eoray}")
    first = submit_run(cluster, config, folder).name
    kept = api.objects["rayjobs", "maps", first]
    kept["metadata"]["annotations"] = {CANCELLED: "now ann"}
    api.set_status(first, jobDeploymentStatus="Running", jobStatus="RUNNING")
    with pytest.raises(ConflictError, match="was asked to stop and still works"):
        submit_run(cluster, config, folder, wait=lambda _: None)

    def operate(_: float) -> None:
        api.set_status(first, jobDeploymentStatus="Complete", jobStatus="STOPPED")

    told: list[str] = []
    second = submit_run(cluster, config, folder, tell=told.append, wait=operate)
    assert (second.what, second.name) == ("created", f"{first[:-2]}-2")
    assert told == [f"waiting for the driver of {first} to end"]
