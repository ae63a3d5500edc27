"""Worker groups of eoray on fake GPU nodes: where the scheduler puts their pods, and where not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from eoray.config import parse_config
from eoray.k8s.client import Cluster as Runs
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.submit import plan_attempt
from tests.chart.release import render
from tests.chart.test_values import GROUP
from tests.cluster.cluster import Cluster
from tests.cluster.machine import wait_until
from tests.cluster.operator.pods import worker_pod
from tests.cluster.pods import restricted_pod
from tests.cluster.test_submit import RUN_FILE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

NODES = ["gpu-1", "gpu-2"]
"""With 8 GPUs and 64 CPUs each, tainted."""

WORKERS = """\
cluster.workers=[
{name: readers, cpu: 0.1, memory_gi: 0.25, max: 2},
{name: large, cpu: 16, memory_gi: 32, max: 1},
{name: gpu, cpu: 8, memory_gi: 32, gpus: 4, max: 5,
 node_selector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}},
{name: other, gpus: 1, max: 1, node_selector: {nvidia.com/gpu.product: none}}]
"""
"""The real node has no 16 CPUs; a fake one has them."""

TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]

SMALL = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "1Mi"}

Start = Callable[[dict[str, Any], str, int], None]
"""Make a number of pods of a group of a RayCluster, as its operator does."""


@pytest.fixture
def core(api: client.ApiClient, kubernetes_cluster: Cluster) -> Any:
    """With empty GPU nodes: pods of an earlier test go with its namespace, a little later."""
    kubernetes_cluster.add_fake_gpu_nodes(len(NODES))
    core: Any = client.CoreV1Api(api)

    def is_free() -> bool:
        pods = core.list_pod_for_all_namespaces().items
        return not any(pod.spec.node_name in NODES for pod in pods)

    wait_until(is_free, 60, "the fake GPU nodes to be free")
    return core


@pytest.fixture
def start(core: Any, namespace: str) -> Start:
    def make(spec: dict[str, Any], group: str, count: int) -> None:
        metadata = {"name": "rays", "namespace": namespace, "uid": ""}
        kind = {"apiVersion": "ray.io/v1", "kind": "RayCluster"}
        cluster = {**kind, "metadata": metadata, "spec": spec}
        for _ in range(count):
            pod = worker_pod(cluster, group_of(spec, group))
            del pod["metadata"]["ownerReferences"]  # there is no owner, and pods would go with it
            core.create_namespaced_pod(namespace, pod, field_validation="Strict")

    return make


def group_of(spec: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [group for group in spec["workerGroupSpecs"] if group["groupName"] == name]
    return dict(found)


def placed(core: Any, namespace: str, group: str) -> list[str]:
    """Node of each pod of a group once the scheduler has judged them all; "" where none fits."""
    selector = f"ray.io/group={group}"

    def verdicts() -> list[str | None]:
        pods = core.list_namespaced_pod(namespace, label_selector=selector).items
        return [pod.spec.node_name or _refusal(pod) for pod in pods]

    wait_until(lambda: None not in verdicts(), 30, f"a verdict on pods of {group}")
    return sorted(verdict or "" for verdict in verdicts())


def _refusal(pod: Any) -> str | None:
    """What the scheduler says; None where it has said nothing yet."""
    conditions = pod.status.conditions or []
    return next((each.message for each in conditions if each.reason == "Unschedulable"), None)


@pytest.mark.usefixtures("kuberay_crds")
def test_groups_of_a_run_go_where_taints_limits_and_selectors_say(
    core: Any, api: client.ApiClient, namespace: str, start: Start
) -> None:
    run = parse_config(RUN_FILE, overrides=[WORKERS, "cluster.claims=[]", "cluster.secrets=[]"])
    rayjob = build_rayjob(plan_attempt(run, Path("/")), namespace)
    kept = Runs(lambda: api, namespace).create_rayjob(rayjob, dry_run=True)
    spec = kept["spec"]["rayClusterSpec"]
    for group in spec["workerGroupSpecs"]:  # autoscaled: none before there is work
        assert (group["minReplicas"], group["replicas"]) == (0, 0)
    for group in ("readers", "large", "gpu", "other"):
        start(spec, group, group_of(spec, group)["maxReplicas"])
    refused, *nodes = placed(core, namespace, "gpu")
    assert nodes == ["gpu-1", "gpu-1", "gpu-2", "gpu-2"]
    assert "Insufficient nvidia.com/gpu" in refused
    assert set(placed(core, namespace, "readers")).isdisjoint(NODES)
    assert len(set(placed(core, namespace, "readers"))) == 1
    (refused,) = placed(core, namespace, "large")
    assert "untolerated taint" in refused
    (refused,) = placed(core, namespace, "other")
    assert "didn't match Pod's node affinity/selector" in refused


@pytest.mark.parametrize(
    ("spread", "nodes"), [(True, {"gpu-1": 2, "gpu-2": 2}), (False, {"gpu-2": 4})]
)
def test_groups_of_the_long_lived_cluster_are_spread_where_its_values_say(
    core: Any, namespace: str, start: Start, *, spread: bool, nodes: dict[str, int]
) -> None:
    small = {"objectStoreMiB": 128, "resources": {"requests": SMALL, "limits": SMALL}}
    group = {**GROUP, **small, "name": "gpu", "gpus": 1, "spread": spread}
    group["tolerations"] = TOLERATIONS
    accounts = {"ray": {"create": False, "name": "default"}}
    release = render({"cluster": {"enabled": True, "groups": [group]}, "serviceAccounts": accounts})
    fill(core, namespace, "gpu-1")
    start(release.one("RayCluster")["spec"], "gpu", 4)
    assert Counter(placed(core, namespace, "gpu")) == nodes


def fill(core: Any, namespace: str, node: str) -> None:
    """Take half of a node, so that the scheduler prefers the other one."""
    pod = restricted_pod("filler", "", nodeName=node, tolerations=TOLERATIONS)
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "32", "memory": "256Gi"}}
    core.create_namespaced_pod(namespace, pod)
