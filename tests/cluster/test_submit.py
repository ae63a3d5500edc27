"""What eoray creates, on a real API server: taken whole, owned, counted, refused, collected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from eoray.config import RunConfig, parse_config
from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.end import delete_attempt
from eoray.k8s.names import SUBMISSION
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.refusals import RefusedError
from eoray.k8s.submit import plan_attempt, submit_run
from tests.cluster.cluster import Cluster as Kubernetes
from tests.cluster.machine import wait_until
from tests.cluster.pods import restricted_pod, wait_for_phase

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("kuberay_crds"),
]

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
  service_account: default
  deadline_minutes: 60
  secrets: [storage]
  claims: [{claim: outputs, path: /data}]
  workers:
    - {name: readers, max: 3}
    - {name: gpu, gpus: 1, max: 2, node_selector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}}
"""


@pytest.fixture(autouse=True)
def _nodes_have_gpus(kubernetes_cluster: Kubernetes) -> None:
    """A group of the run asks for one, and an administrator sees whether there is any."""
    kubernetes_cluster.add_fake_gpu_nodes(2)


@pytest.fixture
def config() -> RunConfig:
    return parse_config(RUN_FILE)


@pytest.fixture
def cluster(api: client.ApiClient, namespace: str) -> Cluster:
    return Cluster(lambda: api, namespace)


def play_operator(api: client.ApiClient, namespace: str, name: str, **status: str) -> None:
    """Set the status as the operator would."""
    client.CustomObjectsApi(api).patch_namespaced_custom_object_status(
        "ray.io", "v1", namespace, "rayjobs", name, {"status": status},
        _content_type="application/merge-patch+json",
    )  # fmt: skip


def test_every_field_that_is_sent_is_kept(cluster: Cluster, config: RunConfig) -> None:
    made = submit_run(cluster, config, Path("/"))
    kept = cluster.rayjob(made.name)
    assert kept is not None
    token = kept["metadata"]["annotations"][SUBMISSION]
    attempt = replace(plan_attempt(config, Path("/")), submission=token)
    sent = build_rayjob(attempt, cluster.namespace)
    assert missing(sent["spec"], kept["spec"]) == []


def missing(sent: Any, kept: Any, path: str = "spec") -> list[str]:
    """Paths of what was sent and is not there, or differs."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [
            line
            for key, value in sent.items()
            for line in missing(value, kept.get(key), f"{path}.{key}")
        ]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        pairs = enumerate(zip(sent, kept, strict=True))
        return [line for i, (a, b) in pairs for line in missing(a, b, f"{path}.{i}")]
    # a server leaves empty lists and maps out
    return [] if sent == kept or (not sent and kept is None) else [f"{path}: {sent!r} {kept!r}"]


def test_pods_of_head_and_workers_pass_the_restricted_standard(
    api: client.ApiClient, cluster: Cluster, config: RunConfig
) -> None:
    spec = build_rayjob(plan_attempt(config, Path("/")), cluster.namespace)["spec"][
        "rayClusterSpec"
    ]
    templates = [spec["headGroupSpec"]["template"]]
    templates += [group["template"] for group in spec["workerGroupSpecs"]]
    core = client.CoreV1Api(api)
    for number, template in enumerate(templates):
        pod: Any = {**template, "metadata": {**template["metadata"], "name": f"pod-{number}"}}
        taken = core.create_namespaced_pod(
            cluster.namespace, pod, dry_run="All", field_validation="Strict"
        )
        assert taken.spec is not None
        assert taken.spec.containers[0].image == config.cluster.image


def test_submitting_again_follows_what_the_operator_says(
    api: client.ApiClient, cluster: Cluster, config: RunConfig
) -> None:
    first = submit_run(cluster, config, Path("/"))
    assert submit_run(cluster, config, Path("/")).what == "attached"
    ended = {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"}
    play_operator(api, cluster.namespace, first.name, **ended)
    second = submit_run(cluster, config, Path("/"))
    assert (second.what, second.name) == ("created", f"{first.key}-2")
    play_operator(
        api, cluster.namespace, second.name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"
    )
    assert submit_run(cluster, config, Path("/")).what == "done"


def test_run_file_is_collected_with_its_attempt(
    api: client.ApiClient, cluster: Cluster, config: RunConfig
) -> None:
    made = submit_run(cluster, config, Path("/"))

    def is_there() -> bool:
        found = client.CoreV1Api(api).list_namespaced_config_map(cluster.namespace)
        names = [str(item.metadata and item.metadata.name) for item in found.items]
        return any(name.startswith(made.name) for name in names)

    assert is_there()
    assert delete_attempt(cluster, made.name, timeout_s=60) is True
    wait_until(lambda: not is_there(), 30, "the run file to be collected")


def test_head_of_a_run_is_not_drained_from_its_node(
    api: client.ApiClient, cluster: Cluster, config: RunConfig
) -> None:
    made = submit_run(cluster, config, Path("/"))
    kept = cluster.rayjob(made.name)
    assert kept is not None
    template = kept["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    pod = restricted_pod("head", "import signal; signal.pause()")
    # the second label is KubeRay's own
    pod["metadata"]["labels"] = {**template["metadata"]["labels"], "ray.io/node-type": "head"}
    core: Any = client.CoreV1Api(api)
    policy: Any = client.PolicyV1Api(api)
    core.create_namespaced_pod(cluster.namespace, pod)
    wait_for_phase(core, cluster.namespace, "head", "Running")

    def is_held() -> bool:
        (found,) = policy.list_namespaced_pod_disruption_budget(cluster.namespace).items
        return bool(found.status and found.status.current_healthy == 1)

    wait_until(is_held, 60, "the budget to count the head")
    eviction: Any = {"metadata": {"name": "head", "namespace": cluster.namespace}}
    with pytest.raises(client.ApiException, match="disruption budget") as refused:
        core.create_namespaced_pod_eviction("head", cluster.namespace, eviction)
    assert refused.value.status == 429
    assert delete_attempt(cluster, made.name, timeout_s=60) is True

    def is_gone() -> bool:
        found = policy.list_namespaced_pod_disruption_budget(cluster.namespace).items
        return not found

    wait_until(is_gone, 60, "the budget to be collected")


def test_quota_refuses_before_anything_is_created(
    api: client.ApiClient, cluster: Cluster, config: RunConfig
) -> None:
    core = client.CoreV1Api(api)
    quota: Any = {"metadata": {"name": "few"}, "spec": {"hard": {"count/rayjobs.ray.io": "0"}}}
    core.create_namespaced_resource_quota(cluster.namespace, quota)

    def is_counted() -> bool:
        found = core.read_namespaced_resource_quota("few", cluster.namespace)
        return bool(found.status and found.status.hard)

    wait_until(is_counted, 30, "the quota to be counted")
    with pytest.raises(RefusedError, match="exceeded quota: few"):
        submit_run(cluster, config, Path("/"))
    assert cluster.rayjobs("eoray.dev/name=slovenia") == []


def test_pods_that_could_not_be_made_are_refused_before_anything_is_created(
    cluster: Cluster,
) -> None:
    readers = "cluster.workers=[{name: readers, max: 3}]"
    absent = parse_config(RUN_FILE, overrides=[readers, "cluster.service_account=absent"])
    with pytest.raises(RefusedError, match=r"^pods of head: .*serviceaccount \"absent\" not found"):
        submit_run(cluster, absent, Path("/"))
    assert cluster.rayjobs("eoray.dev/name=slovenia") == []
    assert submit_run(cluster, parse_config(RUN_FILE, overrides=[readers]), Path("/")).what == (
        "created"
    )


def test_missing_right_is_named(api: client.ApiClient, cluster: Cluster, config: RunConfig) -> None:
    def as_nobody() -> client.ApiClient:
        nobody = client.ApiClient(api.configuration)
        nobody.set_default_header("Impersonate-User", "nobody")
        return nobody

    with pytest.raises(ClusterError, match=r"you may not list rayjobs.*nobody"):
        submit_run(Cluster(as_nobody, cluster.namespace), config, Path("/"))


def test_missing_namespace_is_told(api: client.ApiClient, config: RunConfig) -> None:
    with pytest.raises(ClusterError, match="there is no namespace 'nowhere'"):
        submit_run(Cluster(lambda: api, "nowhere"), config, Path("/"))
