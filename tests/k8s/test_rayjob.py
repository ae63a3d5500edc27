"""The RayJob that a run file becomes."""

from __future__ import annotations

import copy
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from eoray.config import RunConfig, config_key, local_paths, parse_config
from eoray.errors import ConfigError
from eoray.k8s.checks import check_rayjob, check_run
from eoray.k8s.names import ATTEMPT, RECORD, RUN, STORAGE
from eoray.k8s.pods import POD_MOUNTS
from eoray.k8s.rayjob import build_config_map, build_rayjob, entrypoint
from eoray.k8s.submit import plan_attempt
from eoray.k8s.submitter import images_to_mirror
from eoray.run.record import RunPaths
from tests.k8s.crds import problems

GPU = "cluster.workers=[{name: gpu, gpus: 1, max: 2, cpu: 8, memory_gi: 32}]"
CLAIM = "cluster.claims=[{{claim: outputs, path: '{}'}}]"


def built(config: RunConfig, **how: Any) -> dict[str, Any]:
    return build_rayjob(plan_attempt(config, Path("/nowhere"), **how), "maps")


def pods(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    spec = rayjob["spec"]["rayClusterSpec"]
    groups = [group["template"]["spec"] for group in spec["workerGroupSpecs"]]
    return [spec["headGroupSpec"]["template"]["spec"], *groups]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("cluster.autoscale=false", "cluster.queue=main", "cluster.priority=low"),
        (GPU, "cluster.deadline_minutes=60", "cluster.secrets=[s3]", "cluster.env={A: b}"),
        ("cluster.claims=[{claim: outputs, path: /data}]", "cluster.pull_secrets=[pull]"),
    ],
)
def test_strict_schema_of_kuberay_takes_the_rayjob(read_config: Any, overrides: Any) -> None:
    rayjob = built(read_config(*overrides))
    assert problems(rayjob, "rayjobs") == []
    check_rayjob(rayjob)


def test_schema_of_the_tests_finds_a_misspelt_field(config: RunConfig) -> None:
    rayjob = built(config)
    rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containrs"] = []
    assert any("containrs" in problem for problem in problems(rayjob, "rayjobs"))


def test_job_ends_by_itself_and_leaves_attempts_to_us(read_config: Any) -> None:
    spec = built(read_config("cluster.deadline_minutes=90"))["spec"]
    assert spec["submissionMode"] == "HTTPMode"
    assert spec["backoffLimit"] == 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] == (30 + 90) * 60
    assert 0 < spec["ttlSecondsAfterFinished"] <= 60


def test_ray_asks_for_a_token(config: RunConfig) -> None:
    cluster = built(config)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == "2.60.0"


def test_pods_have_the_priority_that_head_and_groups_say(
    config: RunConfig, read_config: Any
) -> None:
    groups = "cluster.workers=[{name: readers}, {name: gpu, priority_class: low}]"
    said = built(read_config("cluster.head={priority_class: high}", groups))
    assert [pod.get("priorityClassName") for pod in pods(said)] == ["high", None, "low"]
    assert problems(said, "rayjobs") == []
    assert not any("priorityClassName" in pod for pod in pods(built(config)))


def test_nothing_runs_on_the_head_and_its_node_is_kept(config: RunConfig) -> None:
    head = built(config)["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    annotations = head["template"]["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    seconds = {t["key"]: t["tolerationSeconds"] for t in head["template"]["spec"]["tolerations"]}
    assert seconds == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}


def test_driver_ends_before_kuberay_cuts_it_off_and_logs_to_the_container(
    read_config: Any,
) -> None:
    rayjob = built(read_config("cluster.deadline_minutes=90"))
    env = {e["name"]: e.get("value") for e in pods(rayjob)[0]["containers"][0]["env"]}
    assert env["EORAY_DEADLINE_S"] == "5340"
    assert env["EORAY_ATTEMPT"] == rayjob["metadata"]["name"]
    assert env["EORAY_LOG_COPY"] == "/proc/1/fd/1"


@pytest.mark.parametrize("cluster", [None, "long"])
def test_driver_is_told_the_versions_of_its_submitter(
    read_config: Any, cluster: str | None
) -> None:
    spec = built(read_config(f"cluster.ray_cluster={cluster or 'null'}"))["spec"]
    if cluster is None:
        variables = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        env = {e["name"]: e.get("value") for e in variables["env"]}
    else:
        env = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert env["EORAY_SUBMITTER"] == version("eoray")
    assert env["EORAY_RAY_VERSION"] == "2.60.0"


def test_head_asks_its_driver_to_stop_and_leaves_it_a_minute(config: RunConfig) -> None:
    head = pods(built(config))[0]
    env = {e["name"]: e.get("value") for e in head["containers"][0]["env"]}
    *shell, script, _, seconds = head["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert (shell, seconds) == (["/bin/sh", "-c"], "60")
    assert "kill -TERM" in script
    assert head["terminationGracePeriodSeconds"] > int(seconds)
    assert env["RAY_JOB_STOP_WAIT_TIME_S"] == "60"
    assert env["EORAY_POD_FOLDER"].startswith("/tmp/")


@pytest.mark.parametrize(("grace", "hook"), [(0, None), (10, None), (11, "1"), (120, "110")])
def test_worker_saves_its_fit_within_its_grace(
    read_config: Any, grace: int, hook: str | None
) -> None:
    rayjob = built(read_config(f"cluster.workers=[{{name: readers, grace_seconds: {grace}}}]"))
    worker = pods(rayjob)[1]
    assert worker["terminationGracePeriodSeconds"] == grace
    lifecycle = worker["containers"][0].get("lifecycle")
    seconds = lifecycle and lifecycle["preStop"]["exec"]["command"][-2:]
    assert seconds == (hook and [hook, str(grace)])


def test_driver_knows_its_ray_cluster_from_its_pod(config: RunConfig) -> None:
    env = {e["name"]: e for e in pods(built(config))[0]["containers"][0]["env"]}
    field = env["EORAY_RAY_CLUSTER"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.labels['ray.io/cluster']"


def test_shared_memory_is_part_of_the_memory_of_a_pod(config: RunConfig) -> None:
    worker = pods(built(config))[1]
    shared = next(v for v in worker["volumes"] if v["name"] == "shared-mem")["emptyDir"]
    limit = worker["containers"][0]["resources"]["limits"]["memory"]
    assert limit == "16384Mi"
    assert 0 < int(shared["sizeLimit"]) < 16384 << 20


def test_groups_start_empty_with_autoscaling_and_whole_without(read_config: Any) -> None:
    group = built(read_config(GPU, "cluster.deadline_minutes=60"))
    (gpu,) = group["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (gpu["minReplicas"], gpu["replicas"], gpu["maxReplicas"]) == (0, 0, 2)
    config = read_config(GPU, "cluster.deadline_minutes=60", "cluster.autoscale=false")
    fixed = built(config, stages=("fit",))
    (gpu,) = fixed["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (gpu["minReplicas"], gpu["replicas"], gpu["maxReplicas"]) == (2, 2, 2)
    assert "enableInTreeAutoscaling" not in fixed["spec"]["rayClusterSpec"]


def test_only_an_autoscaling_head_holds_a_token_of_the_api(read_config: Any) -> None:
    head, worker = pods(built(read_config()))
    assert head["automountServiceAccountToken"] is True
    assert worker["automountServiceAccountToken"] is False
    assert (
        pods(built(read_config("cluster.autoscale=false")))[0]["automountServiceAccountToken"]
        is False
    )


def test_autoscaler_ends_soon_behind_the_head_whose_pod_it_shares(config: RunConfig) -> None:
    # it ignores SIGTERM, and a head is replaced only when its whole pod is gone
    options = built(config)["spec"]["rayClusterSpec"]["autoscalerOptions"]
    assert options["env"] == [{"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "10"}]


def test_gpus_are_limits_with_a_toleration(read_config: Any) -> None:
    worker = pods(built(read_config(GPU, "cluster.deadline_minutes=60")))[1]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["tolerations"][0]["key"] == "nvidia.com/gpu"


def spread(rayjob: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Constraints of each worker group."""
    return [pod.get("topologySpreadConstraints", []) for pod in pods(rayjob)[1:]]


def test_readers_prefer_many_nodes_and_gpus_do_not(read_config: Any) -> None:
    groups = "cluster.workers=[{name: readers}, {name: gpu, gpus: 1}]"
    rayjob = built(read_config(groups, "cluster.deadline_minutes=60"))
    assert problems(rayjob, "rayjobs") == []
    (constraint,), none = spread(rayjob)
    assert none == []
    alike = constraint.pop("labelSelector")["matchLabels"]
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
    }
    assert alike.pop("ray.io/group") == "readers"  # which KubeRay adds
    assert alike.items() <= rayjob["metadata"]["labels"].items()
    assert set(alike) == {RUN, ATTEMPT}


def test_spread_is_as_the_run_file_says(read_config: Any) -> None:
    groups = "cluster.workers=[{name: readers, spread: false}, {name: gpu, gpus: 1, spread: true}]"
    none, wished = spread(built(read_config(groups, "cluster.deadline_minutes=60")))
    assert (none, len(wished)) == ([], 1)


def test_queue_is_a_label(read_config: Any) -> None:
    rayjob = built(read_config("cluster.autoscale=false", "cluster.queue=main"))
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "main"
    assert "suspend" not in rayjob["spec"]


def test_run_file_travels_in_an_owned_immutable_map_and_loads_to_the_same_run(
    config: RunConfig,
) -> None:
    attempt = plan_attempt(config, Path("/nowhere"))
    rayjob = build_rayjob(attempt, "maps")
    rayjob["metadata"]["uid"] = "u1"
    body = build_config_map(attempt, rayjob)
    assert body["immutable"] is True
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("RayJob", "u1")
    assert "blockOwnerDeletion" not in owner
    sent = parse_config(body["data"]["run.yaml"])
    assert sent.model_copy(update={"run": config.run}) == config


def test_tasks_at_once_are_the_cpus_of_the_largest_cluster(read_config: Any) -> None:
    groups = "cluster.workers=[{name: a, cpu: 4, max: 10}, {name: b, cpu: 2.5, max: 2}]"
    assert plan_attempt(read_config(groups), Path("/")).config.run.workers == 44
    assert plan_attempt(read_config(groups, "run.workers=3"), Path("/")).config.run.workers == 3


def test_relative_paths_below_a_claim_are_sent_as_pods_see_them(read_config: Any) -> None:
    weights = {"path": "cloud.safetensors", "sha256": "0" * 64, "encoder": "tu-regnety_004"}
    config = read_config(
        "task=land-cover",
        "cluster.claims=[{claim: data, path: /data}]",
        "store=out",
        "aoi=place.geojson",
        "source.catalog=stac/catalog.json",
        "source.fallback=[{catalog: other.parquet}, {catalog: 'https://stac.example'}]",
        "cube.dem=dem.tif",
        f"cube.mask={json.dumps({'method': 'omnicloudmask', 'weights': [weights]})}",
        "fit.labels=labels.gpkg",
        "assess.reference=reference",
    )
    sent = plan_attempt(config, Path("/data/runs")).config
    seen = local_paths(config, "/data/runs")
    assert len(seen) == 8
    assert local_paths(sent, "/etc/eoray") == seen
    assert (sent.cube.dem, sent.store) == ("/data/runs/dem.tif", "/data/runs/out")
    assert sent.source.fallback[1].catalog == "https://stac.example"


def test_group_may_have_an_image_of_its_own(read_config: Any) -> None:
    groups = "cluster.workers=[{name: readers}, {name: gpu, gpus: 1, image: 'eoray-gpu@sha256:9'}]"
    config = read_config(groups, "cluster.deadline_minutes=60")
    images = [pod["containers"][0]["image"] for pod in pods(built(config))]
    plain = config.cluster.image
    assert images == [plain, plain, "eoray-gpu@sha256:9"]
    assert images_to_mirror(config.cluster) == sorted({*images})
    other = read_config(groups.replace(":9", ":8"), "cluster.deadline_minutes=60")
    assert plan_attempt(other, Path("/")).key != plan_attempt(config, Path("/")).key


def test_shortest_deadline_leaves_the_driver_time(read_config: Any) -> None:
    head = pods(built(read_config("cluster.deadline_minutes=2")))[0]
    env = {entry["name"]: entry.get("value") for entry in head["containers"][0]["env"]}
    assert env["EORAY_DEADLINE_S"] == "60"
    with pytest.raises(ConfigError, match=r"cluster\.deadline_minutes: .* 2"):
        read_config("cluster.deadline_minutes=1")


def test_rayjob_tells_where_its_record_lies_and_how_the_bucket_is_reached(
    config: RunConfig, read_config: Any
) -> None:
    rayjob = built(config)
    folder = RunPaths(config.store, config.name, config_key(config)).attempt(
        rayjob["metadata"]["name"]
    )
    assert rayjob["metadata"]["annotations"] == {RECORD: folder}
    described = read_config('storage={"s3://maps": {"endpoint": "https://minio.example:9000"}}')
    found = built(described)["metadata"]["annotations"]
    assert found[STORAGE] == '{"endpoint":"https://minio.example:9000"}'


def test_entrypoint_is_ours_alone() -> None:
    assert entrypoint(["cube"]) == (
        "eoray run /etc/eoray/run.yaml --address auto --json --stage cube"
    )
    with pytest.raises(ConfigError, match="stage 'cube; rm' is unknown"):
        entrypoint(["cube; rm"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster={}", "cluster.image: missing"),
        ("store=out", r"store: pods do not see '.*/out' of this machine; .*s3://bucket"),
        ("cluster.env={AWS_SECRET_ACCESS_KEY: x}", "env.AWS_SECRET_ACCESS_KEY: looks like a secr"),
        (
            "source.catalog=https://a.example/c.json?se=1&sig=abc",
            "source.catalog: holds a signed link",
        ),
        (GPU, "deadline_minutes: missing, but up to 2 GPUs are asked for"),
        (CLAIM.format("/tmp/"), r"claims\[0\]\.path: '/tmp/' belongs to each pod; mount"),
        (CLAIM.format("/"), r"claims\[0\]\.path: '/' belongs to the image"),
        (
            "cluster.claims=[{claim: a, path: /data}, {claim: b, path: /data/}]",
            r"claims\[1\]\.path: '/data/' belongs to cluster.claims\[0\]",
        ),
    ],
)
def test_run_file_that_pods_cannot_carry_out_is_refused(
    read_config: Any, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_run(read_config(override), Path("/home/ann"))


def test_every_mount_of_a_pod_is_kept_from_claims(read_config: Any) -> None:
    for pod in pods(built(read_config("cluster.network={ca: {secret: own}}"))):
        (container,) = pod["containers"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == set(POD_MOUNTS)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("metadata.name", "a" * 60, "the name has 60 characters, KubeRay allows 47"),
        ("spec.submissionMode", "HttpMode", "submissionMode is 'HttpMode'"),
        ("spec.activeDeadlineSeconds", -1, "activeDeadlineSeconds is -1"),
        ("spec.backoffLimit", -1, "must not be negative"),
        ("spec.shutdownAfterJobFinishes", False, "needs shutdownAfterJobFinishes: true"),
        ("spec.rayClusterSpec.authOptions", {}, "authOptions.mode is not 'token'"),
        ("head.hostNetwork", True, "pods of head: asks for hostNetwork"),
        ("head.securityContext", {}, "pods of head: may run as root"),
        ("head.containers.0.securityContext", {"privileged": True}, "may gain rights"),
        ("head.containers.0.resources", {}, "has no request of cpu"),
        ("head.volumes.0", {"name": "x", "hostPath": {"path": "/"}}, "mounts a path of the node"),
    ],
)
def test_value_that_the_server_accepts_in_silence_is_refused(
    config: RunConfig, path: str, value: Any, message: str
) -> None:
    rayjob = copy.deepcopy(built(config))
    _set(rayjob, path.replace("head.", "spec.rayClusterSpec.headGroupSpec.template.spec."), value)
    with pytest.raises(ConfigError, match=message):
        check_rayjob(rayjob)


def _set(body: Any, path: str, value: Any) -> None:
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        body = body[part]
    body[last] = value
