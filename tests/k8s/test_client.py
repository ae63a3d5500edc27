"""The client against a server that misbehaves."""

from __future__ import annotations

from typing import Any

import pytest

from eoray.config import ClusterSection
from eoray.errors import ClusterError
from eoray.k8s.client import Cluster, connect
from tests.k8s.fake_api import FakeApi


@pytest.mark.parametrize(
    "fault",
    [(410, "expired"), (429, "slow down"), (500, "oops"), (503, "starting"), (0, "")],
)
def test_reading_goes_on_behind_faults_of_the_server(
    api: FakeApi, cluster: Cluster, waits: list[float], fault: tuple[int, str]
) -> None:
    api.put("rayjobs", {"metadata": {"name": "a", "labels": {"x": "1"}}})
    api.faults = [fault] * 3
    assert [job["metadata"]["name"] for job in cluster.rayjobs("x=1")] == ["a"]
    assert len(waits) == 3
    assert waits == sorted(waits)


def test_reading_gives_up_in_the_end(api: FakeApi, cluster: Cluster, waits: list[float]) -> None:
    api.faults = [(503, "starting")] * 50
    with pytest.raises(ClusterError, match="failed to list rayjobs in namespace 'maps': 503"):
        cluster.rayjobs("x=1")
    assert len(waits) == 5


def test_creating_is_never_sent_twice(api: FakeApi, cluster: Cluster) -> None:
    api.faults = [(500, "who knows what happened")]
    with pytest.raises(ClusterError, match="500 who knows"):
        cluster.create_rayjob({"metadata": {"name": "a"}})
    assert len(api.requests) == 1


def test_expired_credential_is_fetched_anew_once(api: FakeApi, cluster: Cluster) -> None:
    api.faults = [(401, "Unauthorized")]
    assert cluster.rayjobs("x=1") == []
    api.faults = [(401, "Unauthorized")] * 2
    with pytest.raises(ClusterError, match=r"does not know you .*log in again"):
        cluster.rayjobs("x=1")


def test_cluster_without_kuberay_is_told_apart_from_a_missing_object(
    api: FakeApi, cluster: Cluster
) -> None:
    assert cluster.rayjob("absent") is None
    api.served = ("pods",)
    with pytest.raises(ClusterError, match=r"serves no rayjobs .*install the KubeRay operator"):
        cluster.rayjob("absent")


def test_missing_right_names_verb_resource_role_and_check(api: FakeApi, cluster: Cluster) -> None:
    api.refuse["GET", "pods"] = (403, "pods is forbidden")
    with pytest.raises(
        ClusterError, match=r"you may not list pods .*role eoray-user.*auth can-i list pods -n maps"
    ):
        cluster.pods("a=b")


def test_address_where_nothing_answers_is_told(waits: list[float]) -> None:
    from kubernetes.client import ApiClient, Configuration

    def nowhere() -> Any:
        configuration = Configuration(host="http://127.0.0.1:9")
        configuration.retries = False
        return ApiClient(configuration)

    with pytest.raises(ClusterError, match=r"does not answer .*kubectl cluster-info"):
        Cluster(nowhere, "maps", wait=waits.append).rayjobs("a=b")


def test_missing_kubeconfig_and_missing_context_are_told(tmp_path: Any, monkeypatch: Any) -> None:
    from kubernetes.config import kube_config

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="a kubeconfig is needed: set KUBECONFIG"):
        connect(ClusterSection(namespace="maps")).rayjobs("a=b")
    with pytest.raises(ClusterError, match="context 'prod' of the kubeconfig is needed"):
        connect(ClusterSection(namespace="maps", context="prod")).rayjobs("a=b")


def test_deleting_what_is_gone_is_no_error(cluster: Cluster) -> None:
    assert cluster.delete_rayjob("absent") is False
