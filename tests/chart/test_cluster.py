"""The cluster that stays."""

from __future__ import annotations

import pytest

from tests.chart.release import Manifest, Release, render

HAS_CLUSTER = pytest.mark.parametrize("profile", ["local", "gpu", "full"])


@pytest.fixture(scope="module")
def spec(full: Release) -> Manifest:
    return dict(full.one("RayCluster")["spec"])


@pytest.fixture(scope="module")
def head(spec: Manifest) -> Manifest:
    return dict(spec["headGroupSpec"]["template"]["spec"])


@pytest.fixture(scope="module")
def groups(spec: Manifest) -> dict[str, Manifest]:
    return {group["groupName"]: group for group in spec["workerGroupSpecs"]}


def _templates(release: Release) -> list[Manifest]:
    spec = release.one("RayCluster")["spec"]
    return [spec["headGroupSpec"]["template"], *(g["template"] for g in spec["workerGroupSpecs"])]


@HAS_CLUSTER
def test_the_cluster_asks_for_a_token(releases: dict[str, Release], profile: str) -> None:
    assert releases[profile].one("RayCluster")["spec"]["authOptions"] == {"mode": "token"}


@HAS_CLUSTER
def test_the_cluster_names_its_ray_version(releases: dict[str, Release], profile: str) -> None:
    assert releases[profile].one("RayCluster")["spec"]["rayVersion"] == "2.60.0"


@HAS_CLUSTER
def test_ray_reports_no_usage(releases: dict[str, Release], profile: str) -> None:
    for template in _templates(releases[profile]):
        (container,) = template["spec"]["containers"]
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


@HAS_CLUSTER
def test_pods_carry_the_labels_that_policies_select(
    releases: dict[str, Release], profile: str
) -> None:
    for template in _templates(releases[profile]):
        labels = template["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "eoray"
        assert labels["eoray.dev/cluster"] == "eoray"


def test_fields_behind_operator_gates_are_not_set(spec: Manifest) -> None:
    assert spec.keys().isdisjoint({"networkPolicy", "tlsOptions", "historyServerOptions"})


def test_the_head_is_reached_from_inside_only(spec: Manifest) -> None:
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["enableIngress"] is False


def test_the_head_runs_no_tasks(spec: Manifest) -> None:
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_nodes_with_the_head_are_not_taken_away(spec: Manifest) -> None:
    assert spec["headGroupSpec"]["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


@pytest.mark.parametrize("taint", ["not-ready", "unreachable"])
def test_the_head_leaves_a_silent_node_after_30_seconds(head: Manifest, taint: str) -> None:
    seconds = {t["key"]: t.get("tolerationSeconds") for t in head["tolerations"]}
    assert seconds[f"node.kubernetes.io/{taint}"] == 30


def test_the_head_takes_its_place_from_values(head: Manifest) -> None:
    assert head["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    assert head["tolerations"][-1] == {"key": "maps", "operator": "Exists"}
    assert head["priorityClassName"] == "high"


def test_ports_are_named(head: Manifest) -> None:
    ports = {port["name"]: port["containerPort"] for port in head["containers"][0]["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}


def test_shared_memory_holds_the_object_store(groups: dict[str, Manifest]) -> None:
    group = groups["cpu"]
    volumes = {v["name"]: v["emptyDir"] for v in group["template"]["spec"]["volumes"]}
    assert group["rayStartParams"]["object-store-memory"] == str(512 * 1024**2)
    assert volumes["shm"] == {"medium": "Memory", "sizeLimit": "768Mi"}


def test_ray_writes_to_its_own_folders(head: Manifest) -> None:
    mounts = {m["mountPath"] for m in head["containers"][0]["volumeMounts"]}
    assert mounts == {"/dev/shm", "/tmp", "/home/ray"}


def test_secrets_come_by_reference(head: Manifest) -> None:
    assert head["containers"][0]["envFrom"] == [{"secretRef": {"name": "store"}}]


def test_groups_size_themselves(groups: dict[str, Manifest]) -> None:
    sizes = {name: (g["minReplicas"], g["maxReplicas"]) for name, g in groups.items()}
    assert sizes == {"cpu": (1, 3), "gpu": (0, 2)}


def test_a_group_may_leave_earlier_than_the_others(groups: dict[str, Manifest]) -> None:
    assert groups["cpu"]["idleTimeoutSeconds"] == 60
    assert "idleTimeoutSeconds" not in groups["gpu"]


@pytest.mark.parametrize("kind", ["requests", "limits"])
def test_gpus_are_requested_and_limited(groups: dict[str, Manifest], kind: str) -> None:
    (container,) = groups["gpu"]["template"]["spec"]["containers"]
    assert container["resources"][kind]["nvidia.com/gpu"] == "2"


def test_groups_without_gpus_ask_for_none(groups: dict[str, Manifest]) -> None:
    (container,) = groups["cpu"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_gpu_groups_have_their_own_image(groups: dict[str, Manifest]) -> None:
    images = {n: g["template"]["spec"]["containers"][0]["image"] for n, g in groups.items()}
    assert images["gpu"] == "registry.example.org/mirror/eoray/eoray-gpu:0.1.0"
    assert images["cpu"].startswith("registry.example.org/mirror/eoray/eoray@sha256:1")


def test_spread_groups_prefer_one_pod_per_node(groups: dict[str, Manifest]) -> None:
    (constraint,) = groups["cpu"]["template"]["spec"]["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"]["ray.io/group"] == "cpu"
    assert "topologySpreadConstraints" not in groups["gpu"]["template"]["spec"]


def test_only_an_autoscaling_head_has_a_token(head: Manifest, groups: dict[str, Manifest]) -> None:
    assert head["automountServiceAccountToken"] is True
    assert groups["cpu"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_autoscaler_is_the_second(spec: Manifest) -> None:
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"


def test_the_second_autoscaler_gets_pods_that_do_not_restart(full: Release) -> None:
    assert {t["spec"]["restartPolicy"] for t in _templates(full)} == {"Never"}


def test_without_autoscaling_groups_keep_their_minimum(releases: dict[str, Release]) -> None:
    spec = releases["local"].one("RayCluster")["spec"]
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (1, 1, 1)
    assert "autoscalerOptions" not in spec


def test_without_autoscaling_no_ray_pod_has_a_token(releases: dict[str, Release]) -> None:
    tokens = {t["spec"]["automountServiceAccountToken"] for t in _templates(releases["local"])}
    assert tokens == {False}


def test_the_queue_is_kueues(full: Release, releases: dict[str, Release]) -> None:
    label = "kueue.x-k8s.io/queue-name"
    assert full.one("RayCluster")["metadata"]["labels"][label] == "maps"
    assert label not in releases["gpu"].one("RayCluster")["metadata"]["labels"]


def test_the_heads_budget_covers_this_head_alone(full: Release) -> None:
    assert full.one("PodDisruptionBudget", "eoray-head")["spec"] == {
        "minAvailable": 1,
        "selector": {"matchLabels": {"eoray.dev/cluster": "eoray", "ray.io/node-type": "head"}},
    }


def test_the_heads_budget_can_be_left_out() -> None:
    release = render({"disruption": {"protectHead": False}}, profile="gpu")
    assert release.named("PodDisruptionBudget") == {}
