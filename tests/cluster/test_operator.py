"""The stand-in for the operator, as far as it needs no cluster: what it makes of templates."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from eoray.config import parse_config
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.submit import plan_attempt
from tests.cluster.operator.clusters import desired
from tests.cluster.operator.jobs import ray_cluster, validate
from tests.cluster.operator.pods import (
    autoscaler_account,
    head_pod,
    head_service,
    start_command,
    worker_pod,
)

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
  workers: [{name: readers, min: 1, max: 3}]
"""


@pytest.fixture
def rayjob() -> dict[str, Any]:
    attempt = plan_attempt(parse_config(RUN_FILE), Path("/"))
    job = build_rayjob(attempt, "maps")
    job["metadata"]["uid"] = "uid-job"
    return job


@pytest.fixture
def cluster(rayjob: dict[str, Any]) -> dict[str, Any]:
    made = ray_cluster(rayjob, "slovenia-1-abcde")
    made["metadata"]["uid"] = "uid-cluster"
    return made


def env_of(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_flags_are_in_order_and_booleans_have_no_value() -> None:
    parameters = {"num-cpus": "0", "block": "true", "log-style": "auto", "no-monitor": "false"}
    command = start_command(parameters, is_head=True)
    assert command == "ray start --head --block --log-style=auto --num-cpus=0"


def test_a_cluster_has_the_labels_of_its_job_and_belongs_to_it(
    rayjob: dict[str, Any], cluster: dict[str, Any]
) -> None:
    metadata = cluster["metadata"]
    assert rayjob["metadata"]["labels"].items() <= metadata["labels"].items()
    assert metadata["ownerReferences"][0]["uid"] == "uid-job"


def test_the_head_has_token_ports_and_the_autoscaler(cluster: dict[str, Any]) -> None:
    pod = head_pod(cluster)
    ray, autoscaler = pod["spec"]["containers"]
    for container in (ray, autoscaler):
        env = env_of(container)
        assert env["RAY_AUTH_MODE"] == "token"
        reference = {"name": "slovenia-1-abcde", "key": "auth_token"}
        assert env["RAY_AUTH_TOKEN"] == {"secretKeyRef": reference}
    assert "ray start --head" in ray["args"][0]
    assert "--no-monitor" in ray["args"][0]
    assert "--num-cpus=0" in ray["args"][0]
    assert {port["containerPort"] for port in ray["ports"]} == {6379, 8265, 10001, 8080}
    assert autoscaler["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["metadata"]["generateName"] == "slovenia-1-abcde-head-"


def test_the_heads_pod_is_the_last_to_be_ended_where_memory_is_short(
    cluster: dict[str, Any],
) -> None:
    # the service class Guaranteed: every container asks for what it may use
    for container in head_pod(cluster)["spec"]["containers"]:
        requests, limits = (container["resources"][key] for key in ("requests", "limits"))
        assert {key: requests[key] for key in ("cpu", "memory")} == {
            key: limits[key] for key in ("cpu", "memory")
        }


def test_a_worker_waits_for_the_head_under_the_same_security(cluster: dict[str, Any]) -> None:
    group = cluster["spec"]["workerGroupSpecs"][0]
    pod = worker_pod(cluster, group)
    (waiting,) = pod["spec"]["initContainers"]
    (ray,) = pod["spec"]["containers"]
    address = "slovenia-1-abcde-head-svc.maps.svc.cluster.local:6379"
    assert f"ray health-check --address {address}" in waiting["args"][0]
    assert waiting["securityContext"] == ray["securityContext"]
    assert env_of(waiting)["RAY_AUTH_MODE"] == "token"
    assert f"--address={address}" in ray["args"][0]
    assert pod["metadata"]["labels"]["ray.io/group"] == "readers"


def test_the_template_is_not_changed(cluster: dict[str, Any]) -> None:
    before = copy.deepcopy(cluster)
    head_pod(cluster)
    worker_pod(cluster, cluster["spec"]["workerGroupSpecs"][0])
    assert cluster == before


def test_the_service_finds_the_head_before_it_is_ready(cluster: dict[str, Any]) -> None:
    service = head_service(cluster)["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    labels = head_pod(cluster)["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_the_autoscaler_gets_rights_on_pods_and_its_cluster_only(cluster: dict[str, Any]) -> None:
    account, role, _ = autoscaler_account(cluster)
    assert account["metadata"]["name"] == "eoray-ray"
    resources = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert resources == {"pods", "pods/resize", "rayclusters"}


@pytest.mark.parametrize(
    ("group", "pods"),
    [
        ({"replicas": 0, "minReplicas": 1, "maxReplicas": 3}, 1),
        ({"replicas": 9, "minReplicas": 1, "maxReplicas": 3}, 3),
        ({"replicas": 2, "minReplicas": 1, "maxReplicas": 3, "numOfHosts": 2}, 4),
    ],
)
def test_replicas_are_kept_within_their_limits(group: dict[str, Any], pods: int) -> None:
    assert desired(group) == pods


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activeDeadlineSeconds": -1}, "activeDeadlineSeconds must be a positive integer"),
        ({"suspend": True, "shutdownAfterJobFinishes": False}, "not allowed to be suspended"),
        ({"rayClusterSpec": None}, "one of RayClusterSpec or ClusterSelector must be set"),
        ({"backoffLimit": -1}, "backoffLimit must be a positive integer"),
    ],
)
def test_what_kuberay_refuses_is_refused(
    rayjob: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    assert validate(rayjob) is None
    rayjob["spec"] |= changes
    assert said in str(validate(rayjob))
