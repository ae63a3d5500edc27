"""The objects that eoray makes are those that the chart renders: one shape, two makers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from eoray.config import RunConfig, parse_config
from eoray.k8s.schedule import Timetable, plan_schedule
from eoray.k8s.submitter import SubmitPlan, build_cronjob, build_job, build_run_file
from tests.chart.release import NAMESPACE, Manifest, render

RUN_FILE = """\
version: 1
name: slovenia
aoi: [14.0, 46.0, 14.2, 46.2]
time: 2024-01-01/2024-12-31
task: cube
store: s3://maps/slovenia
cluster:
  image: registry.example/eoray@sha256:0123
  ray_version: 2.60.0
  pull_secrets: [mirror]
  deadline_minutes: 600
  submit:
    image: registry.example/eoray-submit:0.1.0
    node_selector: {pool: small}
    tolerations: [{key: small, operator: Exists}]
    priority_class: high
"""
WHEN = Timetable("0 3 * * 1", "Europe/Ljubljana", 1800)
VALUES: dict[str, Any] = {
    "image": {
        "registry": "registry.example",
        "submit": {"repository": "eoray-submit", "tag": "0.1.0"},
    },
    "imagePullSecrets": [{"name": "mirror"}],
    "submit": {
        "nodeSelector": {"pool": "small"},
        "tolerations": [{"key": "small", "operator": "Exists"}],
        "priorityClassName": "high",
    },
}
OF_RELEASES = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}


def _without_release(body: Manifest) -> Manifest:
    """The object without the labels of a release, wherever labels stand, and what Helm is told."""
    plain = copy.deepcopy(body)
    for labels in _labels(plain):
        for name in OF_RELEASES & set(labels):
            del labels[name]
    plain["metadata"].pop("annotations", None)
    return plain


def _labels(part: Any) -> Iterator[dict[str, str]]:
    if isinstance(part, dict):
        if isinstance(part.get("labels"), dict):
            yield part["labels"]
        for inner in part.values():
            yield from _labels(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _labels(inner)


def _fields(part: Any, path: str = "") -> dict[str, Any]:
    """Every value of an object by its path, so that a difference names its field."""
    if isinstance(part, dict) and part:
        pairs = [(f"{path}.{key}", value) for key, value in part.items()]
    elif isinstance(part, list) and part:
        pairs = [(f"{path}[{number}]", value) for number, value in enumerate(part)]
    else:
        return {path: part}
    return {at: value for inner, below in pairs for at, value in _fields(below, inner).items()}


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return parse_config(RUN_FILE)


@pytest.fixture(scope="module", params=[(None, False), (21, False), (21, True)])
def plan(config: RunConfig, request: pytest.FixtureRequest) -> SubmitPlan:
    days, phases = request.param
    return plan_schedule(config, Path(), WHEN, "weekly", (), days, phases=phases)


@pytest.fixture(scope="module")
def rendered(plan: SubmitPlan) -> dict[str, Manifest]:
    """What the chart makes of equal values, by kind."""
    schedule = {
        "name": "weekly",
        "cron": WHEN.cron,
        "timeZone": WHEN.time_zone,
        "startingDeadlineSeconds": WHEN.missed_s,
        "lookbackDays": plan.lookback_days or 0,
        "phases": plan.n_phases > 0,
        "runFile": plan.text,
    }
    release = render(VALUES | {"schedules": [schedule]})
    (config_map,) = release.named("ConfigMap").values()
    return {"CronJob": release.one("CronJob", "weekly"), "ConfigMap": config_map}


def test_cronjob_equals_the_charts_field_by_field(
    plan: SubmitPlan, rendered: dict[str, Manifest]
) -> None:
    made = build_cronjob(
        plan, NAMESPACE, cron=WHEN.cron, time_zone=WHEN.time_zone, missed_s=WHEN.missed_s
    )
    ours, charts = _fields(_without_release(made)), _fields(_without_release(rendered["CronJob"]))
    assert len(ours) > 60
    assert ours == charts


def test_run_file_equals_the_charts_field_by_field(
    plan: SubmitPlan, rendered: dict[str, Manifest]
) -> None:
    made = build_run_file(plan, NAMESPACE, schedule="weekly")
    assert _fields(_without_release(made)) == _fields(_without_release(rendered["ConfigMap"]))


def test_job_that_submits_once_has_the_pod_of_a_schedule_without_its_name(
    plan: SubmitPlan, rendered: dict[str, Manifest]
) -> None:
    scheduled = _without_release(rendered["CronJob"])["spec"]["jobTemplate"]["spec"]
    del scheduled["template"]["metadata"]["labels"]["eoray.dev/schedule"]
    (container,) = scheduled["template"]["spec"]["containers"]
    container["env"] = [
        entry
        for entry in container["env"]
        if entry["name"] not in ("EORAY_JOB_NAME", "EORAY_SCHEDULE")
    ]
    assert _fields(build_job(plan, NAMESPACE)["spec"]) == _fields(scheduled)


def test_objects_pass_the_strict_schemas_of_kubernetes(plan: SubmitPlan) -> None:
    cronjob = build_cronjob(plan, NAMESPACE, cron=WHEN.cron, time_zone=WHEN.time_zone)
    run_file = build_run_file(plan, NAMESPACE, schedule="weekly")
    for body in (cronjob, run_file, build_job(plan, NAMESPACE)):
        kubernetes_validate.validate(body, "1.34", strict=True)
