"""The doctor's findings, and their remedies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.doctor import FEATURES, Finding, examine
from eoray.k8s.names import LIFE
from tests.k8s.fake_api import FakeApi

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SCHEMAS = "/openapi/v3/apis/ray.io/v1"
ACCOUNT = "/api/v1/namespaces/maps/serviceaccounts/eoray-ray"
NAMESPACE = "/api/v1/namespaces/maps"
QUOTAS = "/api/v1/namespaces/maps/resourcequotas"
NODES = "/api/v1/nodes"
BUDGETS = "/apis/policy/v1/namespaces/maps/poddisruptionbudgets"


def schema(*fields: str) -> dict[str, Any]:
    deep: dict[str, Any] = {
        "properties": {"rayClusterSpec": {"properties": {name: {} for name in fields}}}
    }
    job = {"properties": {"spec": deep}}
    return {"components": {"schemas": {"io.ray.v1.RayJob": job}}}


@pytest.fixture
def healthy(api: FakeApi) -> FakeApi:
    label = "pod-security.kubernetes.io/enforce"
    gpu = {"status": {"allocatable": {"nvidia.com/gpu": "8"}}}
    api.plain = {
        "/version": {"gitVersion": "v1.35.4"},
        SCHEMAS: schema(*FEATURES),
        ACCOUNT: {"metadata": {"name": "eoray-ray"}},
        NAMESPACE: {"metadata": {"labels": {label: "restricted"}}},
        QUOTAS: {"items": []},
        BUDGETS: {"items": []},
        NODES: {"items": [gpu, gpu, {"status": {}}]},
    }
    return api


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in findings}


def test_healthy_cluster_has_no_complaint(healthy: FakeApi, cluster: Cluster) -> None:
    findings = examine(cluster)
    assert set(verdicts(findings).values()) == {"ok"}
    assert findings[-1].said == "3 nodes, 2 of them with 16 GPUs"


def test_cluster_without_kuberay_is_bad(healthy: FakeApi, cluster: Cluster) -> None:
    del healthy.plain[SCHEMAS]
    healthy.absent = {SCHEMAS: "404 page not found"}
    healthy.served = ()
    found = {f.what: f for f in examine(cluster)}["kuberay"]
    assert (found.verdict, found.remedy) == ("bad", "install the KubeRay operator 1.6 or newer")


def test_schema_that_the_caller_may_not_see_says_nothing_of_kuberay(
    healthy: FakeApi, cluster: Cluster
) -> None:
    del healthy.plain[SCHEMAS]
    found = {f.what: f for f in examine(cluster)}["kuberay"]
    assert (found.verdict, found.said) == ("unknown", "no right to see the API's schema")


def put_rayjob(api: FakeApi, name: str, **status: str) -> None:
    made = (NOW - timedelta(seconds=90 if name.startswith("old") else 30)).isoformat()
    api.put("rayjobs", {"metadata": {"name": name, "creationTimestamp": made}, "status": status})


def test_operator_that_takes_no_runs_on_is_bad(healthy: FakeApi, cluster: Cluster) -> None:
    put_rayjob(healthy, "old-a-1", jobDeploymentStatus="Running")
    put_rayjob(healthy, "young-1")
    found = {f.what: f for f in examine(cluster, now=NOW)}["operator"]
    assert (found.verdict, found.said) == ("ok", "it has taken on 1 of 2 RayJobs")
    for name in ("old-b-1", "old-c-1"):
        put_rayjob(healthy, name)
    found = {f.what: f for f in examine(cluster, now=NOW)}["operator"]
    said = "it has said nothing of old-b-1, old-c-1 for over a minute (2 of 4 RayJobs)"
    assert (found.verdict, found.said) == ("bad", said)
    assert "let it watch this namespace" in found.remedy


def test_operator_is_not_judged_without_a_rayjob_or_the_right_to_see_any(
    healthy: FakeApi, cluster: Cluster
) -> None:
    put_rayjob(healthy, "young-1")
    assert "operator" not in verdicts(examine(cluster, now=NOW))
    healthy.refuse["GET", "rayjobs"] = (403, "rayjobs is forbidden")
    put_rayjob(healthy, "old-1")
    assert "operator" not in verdicts(examine(cluster, now=NOW))


def test_old_kuberay_is_told_by_the_field_that_it_lacks(healthy: FakeApi, cluster: Cluster) -> None:
    healthy.plain[SCHEMAS] = schema("preRunningDeadlineSeconds")
    found = {f.what: f for f in examine(cluster)}["kuberay"]
    assert (found.verdict, found.said) == ("bad", "no authOptions")
    assert "upgrade to KubeRay 1.6" in found.remedy


def test_missing_rights_are_named(healthy: FakeApi, cluster: Cluster) -> None:
    healthy.denied = {("create", "rayjobs"), ("get", "pods/log")}
    bad, warn = (f for f in examine(cluster) if f.what == "rights")
    assert (bad.verdict, bad.said) == ("bad", "you may not create rayjobs in 'maps'")
    assert (warn.verdict, warn.said) == ("warn", "you may not get pods/log in 'maps'")


@pytest.mark.parametrize(("path", "what"), [(NODES, "nodes"), (NAMESPACE, "namespace")])
def test_what_the_caller_may_not_see_is_unknown_and_no_fault(
    healthy: FakeApi, cluster: Cluster, path: str, what: str
) -> None:
    del healthy.plain[path]
    assert verdicts(examine(cluster))[what] == "unknown"


def test_missing_account_is_bad(healthy: FakeApi, cluster: Cluster) -> None:
    del healthy.plain[ACCOUNT]
    healthy.served = (*healthy.served, "serviceaccounts")
    found = {f.what: f for f in examine(cluster)}["account"]
    assert (found.verdict, found.said) == ("bad", "no service account 'eoray-ray'")


def test_missing_namespace_is_bad(healthy: FakeApi, cluster: Cluster) -> None:
    del healthy.plain[NAMESPACE]
    healthy.absent = {NAMESPACE: 'namespaces "maps" not found'}
    found = {f.what: f for f in examine(cluster)}["namespace"]
    assert (found.verdict, found.said) == ("bad", "no namespace 'maps'")


def test_namespace_without_a_pod_standard_and_a_quota_on_runs_are_warnings(
    healthy: FakeApi, cluster: Cluster
) -> None:
    name = "count/rayjobs.ray.io"
    quota = {"status": {"hard": {name: "10"}, "used": {name: "9"}}}
    healthy.plain[NAMESPACE] = {"metadata": {}}
    healthy.plain[QUOTAS] = {"items": [quota]}
    found = {f.what: f for f in examine(cluster)}
    assert (found["namespace"].verdict, found["quota"].verdict) == ("warn", "warn")
    assert found["quota"].said == "count/rayjobs.ray.io: 9 of 10"


def budget(name: str, *, life: str | None, healthy: int) -> dict[str, Any]:
    annotations = {} if life is None else {LIFE: life}
    created = "2026-01-01T00:00:00Z"
    metadata = {"name": name, "creationTimestamp": created, "annotations": annotations}
    return {"metadata": metadata, "status": {"currentHealthy": healthy}}


def test_budget_that_blocks_a_drain_beyond_its_runs_time_is_named(
    healthy: FakeApi, cluster: Cluster
) -> None:
    healthy.plain[BUDGETS] = {
        "items": [
            budget("stuck-1", life="3600", healthy=1),
            budget("ended-1", life="3600", healthy=0),
            budget("young-1", life="86400", healthy=1),
            budget("theirs", life=None, healthy=1),
        ]
    }
    found = {f.what: f for f in examine(cluster, now=datetime(2026, 1, 1, 1, 1, tzinfo=UTC))}
    assert found["disruption"].verdict == "warn"
    assert found["disruption"].said == "stuck-1 block the drain of a node beyond their time"
    found = {f.what: f for f in examine(cluster, now=datetime(2026, 1, 1, 0, 59, tzinfo=UTC))}
    assert found["disruption"].said == "3 heads protected, none beyond its time"


def test_lines_show_verdict_subject_and_remedy() -> None:
    line = Finding("kuberay", "bad", "ray.io/v1 is not served", "install it").line()
    assert line == "bad      kuberay        ray.io/v1 is not served; install it"


def test_server_that_does_not_answer_is_an_error(api: FakeApi, cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="get version"):
        examine(cluster)


@pytest.mark.parametrize("path", [ACCOUNT, NAMESPACE, QUOTAS, BUDGETS, NODES])
def test_every_line_that_is_not_ok_has_its_remedy(
    healthy: FakeApi, cluster: Cluster, path: str
) -> None:
    del healthy.plain[path]
    healthy.denied = {("create", "rayjobs"), ("get", "pods/log")}
    healthy.refuse = {
        ("GET", plural): (403, "forbidden")
        for plural in ("serviceaccounts", "resourcequotas", "poddisruptionbudgets")
    }
    findings = [finding for finding in examine(cluster) if finding.verdict != "ok"]
    assert {finding.verdict for finding in findings} == {"bad", "warn", "unknown"}
    assert [finding.line() for finding in findings if not finding.remedy] == []
