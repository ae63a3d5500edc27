"""Runs on a Ray cluster that stays: what it decides, what must agree, what KubeRay takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from eoray.config import dump_config, parse_config
from eoray.errors import ConfigError
from eoray.k8s.bound import bound_of
from eoray.k8s.checks import check_rayjob
from eoray.k8s.client import Cluster
from eoray.k8s.end import cancel_attempt
from eoray.k8s.follow import HeadLog
from eoray.k8s.rayjob import RUN_VARIABLE
from eoray.k8s.render import render_rayjob
from eoray.k8s.submit import submit_run
from tests.k8s.crds import problems
from tests.k8s.fake_api import FakeApi

STAYS = "cluster={ray_cluster: eoray}"


def group(most: int, cpu: str) -> dict[str, Any]:
    """A group of workers."""
    container = {"name": "ray-worker", "resources": {"limits": {"cpu": cpu}}}
    template = {"spec": {"containers": [container]}}
    return {"groupName": f"g{most}", "maxReplicas": most, "template": template}


@pytest.fixture
def spec(api: FakeApi) -> dict[str, Any]:
    """Spec of a RayCluster that stands in the namespace."""
    made = {
        "rayVersion": "2.60.0",
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"template": {"spec": {"containers": [{"image": "r/eoray@sha256:1"}]}}},
        "workerGroupSpecs": [group(3, "4"), group(2, "1500m")],
    }
    api.put("rayclusters", {"metadata": {"name": "eoray"}, "spec": made})
    return made


def submitted(api: FakeApi, name: str) -> dict[str, Any]:
    return api.objects["rayjobs", "maps", name]


def test_rayjob_selects_the_cluster_and_brings_the_run_file(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path
) -> None:
    config = read_config(STAYS, "cluster.env={A: b}", "cluster.deadline_minutes=90")
    made = submit_run(cluster, config, folder, stages=["cube"])
    rayjob = submitted(api, made.name)
    sent = rayjob["spec"]
    assert sent["clusterSelector"] == {"ray.io/cluster": "eoray"}
    kept = {"rayClusterSpec", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "suspend"}
    assert not kept & set(sent)
    variables = yaml.safe_load(sent["runtimeEnvYAML"])["env_vars"]
    assert sent["entrypoint"] == (
        f"eoray run env:{RUN_VARIABLE} --address auto --json --stage cube"
    )
    run = parse_config(variables[RUN_VARIABLE])
    assert (run.store, run.cluster.image) == (config.store, "r/eoray@sha256:1")
    assert run.run.workers == 3 * 4 + 2 * 1
    assert variables["EORAY_ATTEMPT"] == made.name
    assert variables["EORAY_DEADLINE_S"] == "5340"
    assert variables["A"] == "b"
    assert all(isinstance(value, str) for value in variables.values())
    plain = {key: rayjob[key] for key in ("apiVersion", "kind", "metadata", "spec")}
    assert problems(plain, "rayjobs") == []


def test_run_on_another_image_is_another_run(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path
) -> None:
    first = submit_run(cluster, read_config(STAYS), folder)
    assert submit_run(cluster, read_config(STAYS), folder).what == "attached"
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = "r/eoray@sha256:2"
    second = submit_run(cluster, read_config(STAYS), folder)
    assert (second.what, second.key == first.key) == ("created", False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster={ray_cluster: other}"],
            "there is no RayCluster 'other' in namespace 'maps'; the chart",
        ),
        ([STAYS, "cluster.image=r/eoray:2"], r"cluster.image: is 'r/eoray:2', but .*sha256:1"),
        ([STAYS, "cluster.ray_version=2.1.0"], r"ray_version: is '2\.1\.0', but .*'2\.60\.0'"),
        ([STAYS, "store=out"], "store: pods do not see"),
    ],
)
def test_what_does_not_agree_is_refused_and_leaves_nothing(
    api: FakeApi,
    cluster: Cluster,
    spec: Any,
    read_config: Any,
    folder: Path,
    overrides: list[str],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        submit_run(cluster, read_config(*overrides), folder)
    assert api.written() == []


def test_open_cluster_is_refused(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path
) -> None:
    spec["authOptions"] = {}
    with pytest.raises(ConfigError, match=r"asks for no token.* with KubeRay 1\.6 or newer"):
        submit_run(cluster, read_config(STAYS), folder)


def test_run_file_beyond_a_variable_is_refused(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path
) -> None:
    tiles = ", ".join(f"z33r{row:04d}c048" for row in range(100, 1700) for _ in range(8))
    with pytest.raises(ConfigError, match=r"bytes and reaches a cluster .* put the place into a"):
        submit_run(cluster, read_config(STAYS, f"aoi=[{tiles}]"), folder)


def test_secrets_that_do_not_reach_it_are_told(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path
) -> None:
    told: list[str] = []
    config = read_config("cluster={ray_cluster: eoray, secrets: [s3]}")
    submit_run(cluster, config, folder, tell=told.append)
    (said,) = told
    assert said.startswith("cluster.secrets do not reach RayCluster 'eoray': its pods have")


def test_queue_and_a_cluster_that_stays_exclude_each_other(read_config: Any) -> None:
    with pytest.raises(ConfigError, match="ray_cluster and queue exclude each other"):
        read_config("cluster={ray_cluster: eoray, queue: main, autoscale: false}")


@pytest.mark.parametrize(
    ("key", "value"),
    [("suspend", True), ("shutdownAfterJobFinishes", True), ("ttlSecondsAfterFinished", 5)],
)
def test_what_kuberay_refuses_beside_a_selector_is_refused_before(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path, key: str, value: Any
) -> None:
    made = submit_run(cluster, read_config(STAYS), folder)
    rayjob = submitted(api, made.name)
    rayjob["spec"][key] = value
    with pytest.raises(ConfigError, match=f"{key} and clusterSelector exclude each other"):
        check_rayjob(rayjob)


def test_cancelling_what_has_ended_leaves_the_cluster_alone(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path
) -> None:
    name = submit_run(cluster, read_config(STAYS), folder).name
    api.set_status(name, jobDeploymentStatus="Failed", jobStatus="RUNNING", rayClusterName="eoray")
    assert cancel_attempt(cluster, submitted(api, name)).word == "failed"
    assert ("rayclusters", "maps", "eoray") in api.objects


def test_bound_is_the_time_alone(read_config: Any) -> None:
    lines = bound_of(read_config(STAYS, "cluster.deadline_minutes=90").cluster).lines()
    assert lines == ["at most 2.0 h on RayCluster 'eoray', which stays"]


def test_log_of_its_head_is_read_from_the_jobs_own_time_on(
    api: FakeApi, cluster: Cluster, spec: Any, read_config: Any, folder: Path
) -> None:
    name = submit_run(cluster, read_config(STAYS), folder).name
    rayjob = submitted(api, name)
    made = datetime.now(UTC) - timedelta(minutes=10)
    rayjob["metadata"]["creationTimestamp"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    api.set_status(name, jobDeploymentStatus="Running", rayClusterName="eoray")
    labels = {"ray.io/cluster": "eoray", "ray.io/node-type": "head"}
    api.put("pods", {"metadata": {"name": "head", "labels": labels}})
    api.logs["head"] = "T1 mine\n"
    assert list(HeadLog(cluster).read(rayjob)) == ["mine"]
    (asked,) = [path for _, path in api.requests if "/head/log" in path]
    since = int(asked.partition("sinceSeconds=")[2].partition("&")[0])
    assert 600 <= since < 900


def test_job_for_a_cluster_that_stays_is_rendered_without_asking_it(
    read_config: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(read_config(STAYS)))
    rayjob = yaml.safe_load(render_rayjob(path))
    assert rayjob["spec"]["clusterSelector"] == {"ray.io/cluster": "eoray"}
