"""Schedules on a real API server: taken whole, changed, ticking, collected, within the role."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from eoray.config import RunConfig, parse_config
from eoray.k8s.client import Cluster
from eoray.k8s.refusals import ForbiddenError
from eoray.k8s.schedule import Schedule, Timetable, apply_schedule, plan_schedule
from eoray.k8s.submitter import build_cronjob, build_job
from eoray.k8s.window import scheduled_minute
from tests.chart.release import render
from tests.cluster.machine import wait_until
from tests.cluster.test_submit import RUN_FILE, missing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

MONDAYS = Timetable("0 3 * * 1", "Europe/Ljubljana")


@pytest.fixture
def config() -> RunConfig:
    return parse_config(RUN_FILE, overrides=["cluster.submit.service_account=default"])


@pytest.fixture
def cluster(api: client.ApiClient, namespace: str) -> Cluster:
    return Cluster(lambda: api, namespace)


@pytest.fixture
def user(api: client.ApiClient, cluster: Cluster) -> Cluster:
    """The same namespace, seen by somebody who has the chart's role eoray-user and no other."""
    rights = client.RbacAuthorizationV1Api(api)
    role = render().one("Role", "eoray-user")
    role["metadata"]["namespace"] = cluster.namespace
    rights.create_namespaced_role(cluster.namespace, role)  # type: ignore[arg-type]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "eoray-user"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}
    binding: Any = {"metadata": {"name": "ann"}, "roleRef": reference, "subjects": [subject]}
    rights.create_namespaced_role_binding(cluster.namespace, binding)
    return Cluster(lambda: _as(api, "ann"), cluster.namespace)


def _as(api: client.ApiClient, name: str) -> client.ApiClient:
    other = client.ApiClient(api.configuration)
    other.set_default_header("Impersonate-User", name)
    return other


def _apply(cluster: Cluster, config: RunConfig, when: Timetable = MONDAYS, **more: Any) -> Schedule:
    return apply_schedule(cluster, plan_schedule(config, Path("/"), when, **more), when)


def _config_maps(api: client.ApiClient, namespace: str) -> set[str]:
    found = client.CoreV1Api(api).list_namespaced_config_map(namespace).items
    names = {str(item.metadata and item.metadata.name) for item in found}
    return {name for name in names if "-run-" in name}


def test_every_field_that_is_sent_is_kept(cluster: Cluster, config: RunConfig) -> None:
    plan = plan_schedule(config, Path("/"), MONDAYS, lookback_days=21)
    apply_schedule(cluster, plan, MONDAYS)
    kept = cluster.cronjob("slovenia")
    sent = build_cronjob(plan, cluster.namespace, cron=MONDAYS.cron, time_zone=MONDAYS.time_zone)
    assert kept is not None
    assert missing(sent["spec"], kept["spec"]) == []


def test_job_for_git_is_taken_whole(cluster: Cluster, config: RunConfig) -> None:
    job = build_job(plan_schedule(config, Path("/"), MONDAYS), cluster.namespace)
    made = cluster.create_job(job)
    assert missing(job["spec"], made["spec"]) == []


def test_what_is_left_out_when_it_is_applied_again_goes(
    cluster: Cluster, config: RunConfig, api: client.ApiClient
) -> None:
    placed = config.cluster.submit.model_copy(update={"node_selector": {"pool": "small"}})
    section = config.cluster.model_copy(update={"submit": placed})
    _apply(cluster, config.model_copy(update={"cluster": section})).suspend()
    again = _apply(cluster, config, Timetable("0 4 * * *"))
    spec = again.describe()["spec"]
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert (again.what, spec["schedule"], spec["suspend"]) == ("updated", "0 4 * * *", True)
    assert "nodeSelector" not in pod
    assert len(_config_maps(api, cluster.namespace)) == 2


def test_tick_makes_a_job_whose_name_tells_the_minute(
    cluster: Cluster, config: RunConfig, api: client.ApiClient
) -> None:
    made = _apply(cluster, config, Timetable("* * * * *"))

    def jobs() -> list[dict[str, Any]]:
        return cluster.jobs("eoray.dev/schedule=slovenia")

    wait_until(lambda: bool(jobs()), 150, "the first tick")
    made.suspend()
    (job, *_) = jobs()
    minute = scheduled_minute(job["metadata"]["name"])
    assert abs(datetime.now(UTC) - minute) < timedelta(minutes=5)
    row = made.status()
    assert (row["outcome"], row["suspended"]) == ("running", True)

    def pods() -> list[dict[str, Any]]:
        return cluster.pods(f"batch.kubernetes.io/job-name={job['metadata']['name']}")

    wait_until(lambda: bool(pods()), 60, "a pod that the restricted standard lets in")


def test_user_of_the_chart_may_do_all_that_schedules_need(
    user: Cluster, config: RunConfig, api: client.ApiClient
) -> None:
    made = _apply(user, config)
    _apply(user, config, lookback_days=7)
    name, _ = made.run_now(datetime(2026, 1, 5, 3, tzinfo=UTC))
    assert name.startswith("slovenia-now-")
    made.suspend()
    assert made.status()["outcome"] == "running"
    made.resume()
    assert made.delete() is True
    wait_until(lambda: not user.jobs("eoray.dev/schedule=slovenia"), 60, "its Jobs to go")
    wait_until(lambda: not _config_maps(api, user.namespace), 60, "its run files to go")


def test_nobody_may_not(cluster: Cluster, api: client.ApiClient, config: RunConfig) -> None:
    nobody = Cluster(lambda: _as(api, "nobody"), cluster.namespace)
    with pytest.raises(ForbiddenError, match="you may not get cronjobs"):
        _apply(nobody, config)
