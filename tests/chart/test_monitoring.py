"""Metrics, alerts and quota."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from eoray.k8s.names import ATTEMPT, RUN, attempt_name
from eoray.run.meters import METRICS
from tests.chart.release import Manifest, Release, render

OF_RUNS = {"EorayHeadMemoryHigh", "EorayNoCommit", "EorayFailedReads", "EorayRunFailed"}
ALERTS = OF_RUNS | {"EorayScheduleFailed", "EorayMapOld"}
OURS = {f"ray_{name}" for name in METRICS}
# Ray 2.60's dashboard agent, KubeRay's operator (controllers/ray/metrics), and kube-state-metrics'
# pages on Job and CronJob.
OF_OTHERS = {
    "kuberay_job_deployment_status",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "kube_job_failed",
    "kube_job_owner",
    "kube_job_status_start_time",
    "kube_cronjob_created",
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_successful_time",
    "ray_node_cpu_count",
    "ray_node_cpu_utilization",
    "ray_node_gpus_utilization",
    "ray_node_network_receive_speed",
    "ray_node_network_send_speed",
    "ray_node_disk_usage",
}


@pytest.fixture(scope="module")
def alerts(full: Release) -> dict[str, Manifest]:
    (group,) = full.one("PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_monitoring_is_off_by_default(defaults: Release, kind: str) -> None:
    assert defaults.named(kind) == {}


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_prometheus_finds_its_objects_by_label(full: Release, kind: str) -> None:
    assert full.one(kind)["metadata"]["labels"]["release"] == "prometheus"


def test_heads_and_workers_are_read(full: Release) -> None:
    spec = full.one("PodMonitor")["spec"]
    assert spec["selector"] == {
        "matchLabels": {"app.kubernetes.io/part-of": "eoray"},
        "matchExpressions": [{"key": "ray.io/node-type", "operator": "Exists"}],
    }
    assert spec["podMetricsEndpoints"] == [{"port": "metrics", "interval": "30s"}]


def test_metrics_say_which_run_they_are_of_by_labels_that_its_pods_have(full: Release) -> None:
    labels = full.one("PodMonitor")["spec"]["podTargetLabels"]
    assert labels == [RUN, ATTEMPT, "ray.io/cluster"]  # the last is the operator's


def test_there_are_six_alerts(alerts: dict[str, Manifest]) -> None:
    assert set(alerts) == ALERTS


def test_alerts_use_metrics_that_exist(alerts: dict[str, Manifest]) -> None:
    text = " ".join(rule["expr"] for rule in alerts.values())
    assert metrics_in(text) <= OURS | OF_OTHERS


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(\w+)\{", expression))


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_series_is_of_our_namespace(alerts: dict[str, Manifest], alert: str) -> None:
    matchers = re.findall(r"\w+\{(.*?)\}", alerts[alert]["expr"])
    assert matchers
    assert all('namespace="maps"' in each for each in matchers)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_brackets_of_an_expression_close(alerts: dict[str, Manifest], alert: str) -> None:
    expression = alerts[alert]["expr"]
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_the_head_is_told_from_workers(alerts: dict[str, Manifest]) -> None:
    expression = alerts["EorayHeadMemoryHigh"]["expr"]
    assert expression.count('RayNodeType="head"') == 2
    assert expression.endswith("> 0.85")


def test_a_failed_run_is_told_for_an_hour(alerts: dict[str, Manifest]) -> None:
    now, before = alerts["EorayRunFailed"]["expr"].split("unless on (namespace, name)")
    assert before.split() == [*now.split(), "offset", "1h"]


@pytest.mark.parametrize(
    ("name", "is_ours"), [(attempt_name("maps-heal-0123abcd", 12), True), ("nightly-train", False)]
)
def test_a_failed_run_is_one_of_ours(alerts: dict[str, Manifest], name: str, is_ours: bool) -> None:
    pattern = re.findall(r'name=~"(.*?)"', alerts["EorayRunFailed"]["expr"])[0]
    assert (re.fullmatch(pattern, name) is not None) is is_ours


def test_a_failed_schedule_is_one_of_the_releases(alerts: dict[str, Manifest]) -> None:
    assert 'owner_name=~"weekly-slovenia|paused"' in alerts["EorayScheduleFailed"]["expr"]


def test_an_alert_names_the_schedule_when_it_fires(alerts: dict[str, Manifest]) -> None:
    summary = alerts["EorayScheduleFailed"]["annotations"]["summary"]
    assert summary == "The last run of schedule {{ $labels.cronjob }} failed"


def test_an_old_map_is_judged_by_its_schedules_age(alerts: dict[str, Manifest]) -> None:
    expression = alerts["EorayMapOld"]["expr"]
    assert ") > 1209600\n" in expression
    assert 'cronjob="weekly-slovenia"' in expression


def test_without_schedules_only_runs_are_watched() -> None:
    (group,) = render({"monitoring": {"rules": {"enabled": True}}}).one("PrometheusRule")["spec"][
        "groups"
    ]
    assert {rule["alert"] for rule in group["rules"]} == OF_RUNS


@pytest.fixture(scope="module")
def dashboard(full: Release) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        full.one("ConfigMap", "eoray-dashboard")["data"]["eoray.json"]
    )
    return loaded


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_grafana_finds_the_dashboard_by_its_label(full: Release, defaults: Release) -> None:
    labels = full.one("ConfigMap", "eoray-dashboard")["metadata"]["labels"]
    assert labels["grafana_dashboard"] == "1"
    assert "eoray-dashboard" not in defaults.named("ConfigMap")


def test_panels_use_metrics_that_exist_and_show_the_drivers(dashboard: dict[str, Any]) -> None:
    shown = metrics_in(" ".join(expressions(dashboard)))
    assert shown <= OURS | OF_OTHERS
    assert shown >= OURS - {"ray_eoray_commits"}


def test_every_panel_keeps_to_the_chosen_namespace(dashboard: dict[str, Any]) -> None:
    for expression in expressions(dashboard):
        matchers = re.findall(r"\w+\{(.*?)\}", expression)
        assert matchers
        assert all('namespace="$namespace"' in each for each in matchers)


def test_panels_do_not_cover_each_other(dashboard: dict[str, Any]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        covered = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & covered
        assert at["x"] + at["w"] <= 24
        cells |= covered


def test_the_quota_is_what_was_asked_for(full: Release) -> None:
    assert full.one("ResourceQuota")["spec"] == {"hard": {"requests.nvidia.com/gpu": "8"}}


def test_the_quota_of_production_counts_no_runs(releases: dict[str, Release]) -> None:
    hard = releases["production"].one("ResourceQuota")["spec"]["hard"]
    assert not any(key.startswith("count/") for key in hard)
