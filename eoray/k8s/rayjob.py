"""The objects of an attempt: a RayJob, and the ConfigMap with its run file that it owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import yaml

from eoray.errors import ConfigError
from eoray.k8s.hooks import DRIVER_STOP_S, POD_FOLDER, RAY_STOP_S
from eoray.k8s.names import (
    ATTEMPT,
    LIFE,
    NAME,
    PART_OF,
    QUEUE,
    RECORD,
    RUN,
    SCHEDULE,
    STORAGE,
    SUBMISSION,
    attempt_name,
    attempts_folder,
)
from eoray.k8s.network import network_environment
from eoray.k8s.pods import (
    CONTAINER_SECURITY,
    RUN_FOLDER,
    head_template,
    start_parameters,
    worker_template,
)

if TYPE_CHECKING:
    from eoray.config import ClusterSection, RunConfig, WorkerGroup
    from eoray.k8s.healing import Healing

API_VERSION = "ray.io/v1"

RUN_VARIABLE = "EORAY_RUN_FILE"
"""Environment of a driver whose run file is not mounted."""

_AUTOSCALER = {"cpu": "500m", "memory": "1Gi"}
"""Ray's autoscaler, beside the head in its pod."""

_OWN_DEADLINE_S = 60
"""The driver ends by itself this long before KubeRay would cut it off."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of a run."""

    key: str
    number: int
    config: RunConfig
    """Every path in it is one that pods see."""
    stages: tuple[str, ...] = ()
    schedule: str | None = None
    ray_version: str = ""
    heal: Healing | None = None
    """Read again what could not be read, instead of running stages."""
    submission: str = ""
    """Tells it from one of the same name that was deleted; "" where it is only looked at."""

    @property
    def name(self) -> str:
        """Of the RayJob."""
        return attempt_name(self.key, self.number)

    @property
    def owned(self) -> str:
        """Of what the RayJob owns: what a deleted one owned stays for seconds, under its name."""
        return f"{self.name}-{self.submission}" if self.submission else self.name

    @property
    def labels(self) -> dict[str, str]:
        """On the RayJob, the ConfigMap and all pods."""
        labels = {
            PART_OF: "eoray",
            NAME: self.config.name,
            RUN: self.key,
            ATTEMPT: str(self.number),
        }
        return labels if self.schedule is None else {**labels, SCHEDULE: self.schedule}


def build_rayjob(attempt: Attempt, namespace: str) -> dict[str, Any]:
    """The RayJob of an attempt.

    The operator asks the head over HTTP: the other modes take the end of a log stream for the end
    of the job. Attempts are ours to count, so it tries nothing again by itself.
    """
    cluster = attempt.config.cluster
    metadata: dict[str, Any] = {
        "name": attempt.name,
        "namespace": namespace,
        "labels": {**attempt.labels, **_queue_labels(cluster)},
        "annotations": _record(attempt),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {
            "submissionMode": "HTTPMode",
            # KubeRay's clock runs from the first pod on, the driver's own from its first start
            "activeDeadlineSeconds": (cluster.start_minutes + cluster.deadline_minutes) * 60,
            "preRunningDeadlineSeconds": cluster.start_minutes * 60,
            "backoffLimit": 0,
            **(_own_cluster(attempt) if cluster.ray_cluster is None else _other_cluster(attempt)),
        },
    }


def _record(attempt: Attempt) -> dict[str, str]:
    """Where the record is, for those who know the attempt's name alone."""
    config = attempt.config
    found = {RECORD: f"{attempts_folder(config)}/{attempt.name}"}
    if attempt.submission:
        found[SUBMISSION] = attempt.submission
    sections = [s for url, s in config.storage.items() if f"{config.store}/".startswith(f"{url}/")]
    if sections:
        found[STORAGE] = sections[0].model_dump_json(exclude_defaults=True)
    return found


def _own_cluster(attempt: Attempt) -> dict[str, Any]:
    """A cluster that comes and goes with the attempt; the run file is mounted."""
    return {
        "entrypoint": entrypoint(attempt.stages, heal=attempt.heal),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": attempt.config.cluster.keep_seconds,
        "rayClusterSpec": _ray_cluster(attempt),
    }


def _other_cluster(attempt: Attempt) -> dict[str, Any]:
    """A cluster that stays. Its pods mount nothing of ours: the run file travels as environment.

    The operator neither suspends nor shuts it down; past the deadline it only gives up asking, so
    the driver's own deadline ends the run.
    """
    from eoray.config import dump_config

    variables = {
        **_driver_environment(attempt),
        **network_environment(attempt.config.cluster.network, is_pod=False),
        **attempt.config.cluster.env,
        RUN_VARIABLE: dump_config(attempt.config),
    }
    return {
        "entrypoint": entrypoint(attempt.stages, f"env:{RUN_VARIABLE}", heal=attempt.heal),
        "clusterSelector": {"ray.io/cluster": attempt.config.cluster.ray_cluster},
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": variables}, sort_keys=True),
    }


def _driver_environment(attempt: Attempt) -> dict[str, str]:
    return {
        "EORAY_ATTEMPT": attempt.name,
        # held against the image's own by the driver
        "EORAY_SUBMITTER": version("eoray"),
        "EORAY_RAY_VERSION": attempt.ray_version,
        **({"EORAY_SUBMISSION": attempt.submission} if attempt.submission else {}),
        "EORAY_DEADLINE_S": str(attempt.config.cluster.deadline_minutes * 60 - _OWN_DEADLINE_S),
        # the container's own standard output: what `kubectl logs` and log collectors read
        "EORAY_LOG_COPY": "/proc/1/fd/1",
        # to the SIGKILL behind the SIGTERM of a stopped job; Ray's own is 3
        "RAY_JOB_STOP_WAIT_TIME_S": str(DRIVER_STOP_S),
    }


def build_config_map(attempt: Attempt, rayjob: Mapping[str, Any]) -> dict[str, Any]:
    """The run file of an attempt, collected with the RayJob that owns it."""
    from eoray.config import dump_config

    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _owned(attempt, rayjob),
        "immutable": True,
        "data": {"run.yaml": dump_config(attempt.config)},
    }


def build_budget(attempt: Attempt, rayjob: Mapping[str, Any]) -> dict[str, Any]:
    """What keeps the head's node from being drained, collected with the RayJob that owns it.

    One for each attempt: one for all heads would let some of them go. It selects pods, since a
    RayCluster has no scale from which ``maxUnavailable`` could be counted.
    """
    cluster = attempt.config.cluster
    life = (cluster.start_minutes + cluster.deadline_minutes) * 60 + cluster.keep_seconds
    selected = {
        RUN: attempt.key, ATTEMPT: str(attempt.number), "ray.io/node-type": "head",
    }  # fmt: skip
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {**_owned(attempt, rayjob), "annotations": {LIFE: str(life)}},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": selected}},
    }


def _owned(attempt: Attempt, rayjob: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an object that a RayJob owns, without blockOwnerDeletion: few may set it."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "name": attempt.name,
        "uid": rayjob["metadata"]["uid"],
    }
    return {
        "name": attempt.owned,
        "namespace": rayjob["metadata"]["namespace"],
        "labels": attempt.labels,
        "ownerReferences": [owner],
    }


def entrypoint(
    stages: Sequence[str],
    run_file: str = f"{RUN_FOLDER}/run.yaml",
    *,
    heal: Healing | None = None,
) -> str:
    """The driver's command; a shell on the head reads it, so no free text of the user's is in it.

    Args:
        stages: Some of the run's stages; () for all.
        run_file: Where the driver finds it.
        heal: Failed reads to try again, instead of running stages.

    Raises:
        ConfigError: A stage is unknown.
    """
    from eoray.config import STAGES

    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ConfigError(f"stage {unknown[0]!r} is unknown; stages are {', '.join(STAGES)}")
    verb = "run" if heal is None else "heal"
    words = ["eoray", verb, run_file, "--address", "auto", "--json"]
    chosen = [f"--stage {stage}" for stage in stages] if heal is None else heal.words()
    return " ".join([*words, *chosen])


def _queue_labels(cluster: ClusterSection) -> dict[str, str]:
    if cluster.queue is None:
        return {}
    labels = {QUEUE: cluster.queue}
    if cluster.priority is not None:
        labels["kueue.x-k8s.io/priority-class"] = cluster.priority
    return labels


def _ray_cluster(attempt: Attempt) -> dict[str, Any]:
    cluster, labels = attempt.config.cluster, attempt.labels
    env = _environment(attempt)
    head_env = {**env, **_driver_environment(attempt)}
    spec: dict[str, Any] = {
        "rayVersion": attempt.ray_version,
        # without the mode KubeRay leaves the cluster open
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": start_parameters(cluster.head),
            "template": head_template(cluster, attempt.owned, labels, head_env),
        },
        "workerGroupSpecs": [
            _worker_group(attempt, group, env) for group in attempt.config.cluster.workers
        ],
    }
    if cluster.autoscale:
        spec["enableInTreeAutoscaling"] = True
        spec["autoscalerOptions"] = {
            "version": "v2",
            "securityContext": CONTAINER_SECURITY,
            # The first process of its container, Ray's autoscaler ignores SIGTERM: until it ends by
            # itself, a minute behind Ray's control service, a head that was lost is not replaced.
            "env": [{"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "10"}],
            # equal, as the head's own: a pod all of whose requests are its limits is the last one
            # that the kernel and the kubelet end where memory is short
            "resources": {"requests": dict(_AUTOSCALER), "limits": dict(_AUTOSCALER)},
        }
    return spec


def _worker_group(attempt: Attempt, group: WorkerGroup, env: Mapping[str, str]) -> dict[str, Any]:
    cluster = attempt.config.cluster
    fewest = group.min if cluster.autoscale else group.max
    described = {
        "groupName": group.name,
        "replicas": fewest,
        "minReplicas": fewest,
        "maxReplicas": group.max,
        "rayStartParams": start_parameters(group),
        "template": worker_template(cluster, group, attempt.owned, attempt.labels, env),
    }
    if cluster.autoscale:
        described["idleTimeoutSeconds"] = group.idle_seconds
    return described


def _environment(attempt: Attempt) -> dict[str, str]:
    return {
        "HOME": "/home/ray",
        "EORAY_POD_FOLDER": POD_FOLDER,
        # A node that gets SIGTERM tells Ray that it is taken away, so that what dies with it is
        # no failure, and waits: 30 s by itself, longer than a pod has left behind its hook
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(RAY_STOP_S // 2),
        "RAY_USAGE_STATS_ENABLED": "0",
        # a torch that has to come from a cold disk needs longer than Ray's 30 s
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
        **network_environment(attempt.config.cluster.network),
        **attempt.config.cluster.env,
    }
