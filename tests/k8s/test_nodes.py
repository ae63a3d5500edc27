"""GPUs that no node has: refused before anything is created."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eoray.errors import ConfigError
from eoray.k8s.client import Cluster
from eoray.k8s.submit import submit_run
from tests.k8s.fake_api import FakeApi

NODES = "/api/v1/nodes"
GROUP = "cluster.workers=[{name: trainers, gpus: 4, max: 2, node_selector: {pool: gpu}}]"
DEADLINE = "cluster.deadline_minutes=60"


def node(gpus: int, *, pool: str = "gpu", provider: str = "") -> dict[str, Any]:
    capacity = {"cpu": "8"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {
        "metadata": {"name": f"{pool}-{gpus}", "labels": {"pool": pool}},
        "spec": {"providerID": provider} if provider else {},
        "status": {"capacity": capacity, "allocatable": {"cpu": "8"}},
    }


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "none of 0 nodes with pool=gpu has one"),
        ([node(0), node(0)], "none of 2 nodes with pool=gpu has one"),
        ([node(2), node(8, pool="other")], "the largest of 1 nodes with pool=gpu has 2"),
        ([node(2, provider="kind://docker/eoray/worker")], "group trainers: pods ask for 4 GPUs"),
    ],
)
def test_gpus_that_no_node_has_are_refused_and_nothing_is_created(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path, nodes: Any, message: str
) -> None:
    api.plain = {NODES: {"items": nodes}}
    for dry_run in (False, True):
        with pytest.raises(ConfigError, match=message):
            submit_run(cluster, read_config(GROUP, DEADLINE), folder, dry_run=dry_run)
    assert api.written() == []
    assert not [path for method, path in api.requests if method == "POST"]


def test_nodes_with_enough_gpus_are_taken_though_others_use_them(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    api.plain = {NODES: {"items": [node(0, pool="cpu"), node(4)]}}
    told: list[str] = []
    made = submit_run(cluster, read_config(GROUP, DEADLINE), folder, tell=told.append)
    assert made.what == "created"
    assert told == []


def test_cloud_that_may_add_nodes_is_waited_for_and_that_is_said(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    api.plain = {NODES: {"items": [node(0, provider="aws:///eu-central-1a/i-0123")]}}
    told: list[str] = []
    made = submit_run(cluster, read_config(GROUP, DEADLINE), folder, tell=told.append)
    assert made.what == "created"
    (line,) = told
    assert "none of 1 nodes with pool=gpu has one" in line
    assert line.endswith("pods wait until the cloud adds such a node")


def test_who_may_not_see_nodes_submits(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    assert submit_run(cluster, read_config(GROUP, DEADLINE), folder).what == "created"
    assert ("GET", NODES) in api.requests


def test_without_gpus_nodes_are_not_asked_for(
    api: FakeApi, cluster: Cluster, read_config: Any, folder: Path
) -> None:
    submit_run(cluster, read_config(), folder)
    assert ("GET", NODES) not in api.requests
