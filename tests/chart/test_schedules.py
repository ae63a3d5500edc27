"""Schedules: a CronJob whose pod waits, and the run file that it submits."""

from __future__ import annotations

import pytest
import yaml

from tests.chart.release import Manifest, Release, render

SCHEDULE = {"name": "weekly", "cron": "0 3 * * 1", "runFile": "version: 1\nname: weekly\n"}


def _render(**changes: object) -> Release:
    return render({"schedules": [SCHEDULE | changes]})


@pytest.fixture(scope="module")
def plain() -> Release:
    return _render()


@pytest.fixture(scope="module")
def spec(plain: Release) -> Manifest:
    return dict(plain.one("CronJob", "weekly")["spec"])


@pytest.fixture(scope="module")
def job(spec: Manifest) -> Manifest:
    return dict(spec["jobTemplate"]["spec"])


@pytest.fixture(scope="module")
def pod(job: Manifest) -> Manifest:
    return dict(job["template"]["spec"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule", "0 3 * * 1"),
        ("timeZone", "Etc/UTC"),
        ("suspend", False),
        ("concurrencyPolicy", "Forbid"),
        ("startingDeadlineSeconds", 3600),
        ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 5),
    ],
)
def test_a_schedule_has_careful_defaults(spec: Manifest, field: str, value: object) -> None:
    assert spec[field] == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeZone", "Europe/Ljubljana"),
        ("startingDeadlineSeconds", 1200000),
        ("successfulJobsHistoryLimit", 0),
    ],
)
def test_a_schedules_fields_are_values(full: Release, field: str, value: object) -> None:
    assert full.one("CronJob", "weekly-slovenia")["spec"][field] == value


def test_a_schedule_can_be_suspended(full: Release) -> None:
    assert full.one("CronJob", "paused")["spec"]["suspend"] is True


def test_a_schedule_is_labelled_with_its_name(full: Release) -> None:
    labels = full.one("CronJob", "weekly-slovenia")["metadata"]["labels"]
    assert labels["eoray.dev/schedule"] == "weekly-slovenia"


def test_jobs_and_pods_are_labelled_with_the_schedule(spec: Manifest, job: Manifest) -> None:
    assert spec["jobTemplate"]["metadata"]["labels"]["eoray.dev/schedule"] == "weekly"
    assert job["template"]["metadata"]["labels"]["eoray.dev/schedule"] == "weekly"


def test_the_pods_exit_is_the_runs(pod: Manifest) -> None:
    command = ["eoray", "submit", "/etc/eoray/run.yaml", "--wait", "--json"]
    assert pod["containers"][0]["command"] == command


def test_a_failed_run_is_not_started_again(job: Manifest) -> None:
    assert job["podFailurePolicy"]["rules"] == [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "submit", "operator": "In", "values": [1, 2, 5]},
        },
    ]


def test_the_failure_policy_names_a_container_that_exists(job: Manifest, pod: Manifest) -> None:
    named = {r["onExitCodes"]["containerName"] for r in job["podFailurePolicy"]["rules"][1:]}
    assert named == {container["name"] for container in pod["containers"]}


def test_timeouts_and_outages_are_tried_twice_more(job: Manifest, pod: Manifest) -> None:
    assert job["backoffLimit"] == 2
    assert pod["restartPolicy"] == "Never"


def test_a_job_outlives_its_run_by_a_quarter_of_an_hour(full: Release) -> None:
    spec = full.one("CronJob", "weekly-slovenia")["spec"]["jobTemplate"]["spec"]
    assert spec["activeDeadlineSeconds"] == 36000 + 900


def test_a_run_without_deadline_gets_a_day(job: Manifest) -> None:
    assert job["activeDeadlineSeconds"] == 86400 + 900


def test_the_pod_knows_its_job_and_schedule(pod: Manifest) -> None:
    env = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
    field = "metadata.labels['batch.kubernetes.io/job-name']"
    assert env["EORAY_JOB_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": field}}
    assert env["EORAY_SCHEDULE"]["value"] == "weekly"


def test_the_run_file_is_mounted_where_it_is_read(plain: Release, pod: Manifest) -> None:
    (name,) = plain.named("ConfigMap")
    assert {"name": "run", "configMap": {"name": name}} in pod["volumes"]
    mount = {"name": "run", "mountPath": "/etc/eoray", "readOnly": True}
    assert mount in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    "text",
    ["version: 1\nname: weekly\n", "  version: 1\n  name: indented", 'version: 1\nname: "{{ x }}"'],
)
def test_the_run_file_arrives_as_it_was_given(text: str) -> None:
    (config,) = _render(runFile=text).named("ConfigMap").values()
    assert config["data"]["run.yaml"].rstrip() == text.rstrip()
    assert yaml.safe_load(config["data"]["run.yaml"]) == yaml.safe_load(text)


def test_the_run_file_is_immutable(plain: Release) -> None:
    (config,) = plain.named("ConfigMap").values()
    assert config["immutable"] is True


def test_a_changed_run_file_is_another_object(plain: Release) -> None:
    changed = _render(runFile="version: 1\nname: other\n")
    assert set(changed.named("ConfigMap")).isdisjoint(plain.named("ConfigMap"))


def test_an_upgrade_keeps_the_run_file_of_an_unfinished_tick(plain: Release) -> None:
    (config,) = plain.named("ConfigMap").values()
    assert config["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_rollback_makes_the_run_file_that_it_goes_back_to(plain: Release) -> None:
    (config,) = plain.named("ConfigMap").values()
    hooks = config["metadata"]["annotations"]["helm.sh/hook"].split(",")
    assert hooks == ["pre-install", "pre-upgrade", "pre-rollback"]
