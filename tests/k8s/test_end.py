"""Ending an attempt: suspended, taken from its queue, deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.end import FINALIZER, cancel_attempt, delete_attempt
from eoray.k8s.names import CANCELLED, QUEUE
from tests.k8s.fake_api import FakeApi

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
