"""Pod templates of head and workers: non-root, read-only root, every limit written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eoray.config import ClusterSection
from eoray.config.cluster import HeadSection, WorkerGroup
from eoray.k8s.hooks import HEAD_GRACE_S, save_fit, stop_driver
from eoray.k8s.names import ATTEMPT, RUN
from eoray.k8s.network import CA_FOLDER, ca_volume

RUN_FOLDER = "/etc/eoray"
"""Where the run file lies in the pods."""

_SHARED_FOLDER = "/dev/shm"  # noqa: S108 - Ray's place
_TMP_FOLDER = "/tmp"  # noqa: S108 - Ray's session lies there
_HOME_FOLDER = "/home/ray"

POD_MOUNTS = (RUN_FOLDER, _SHARED_FOLDER, _TMP_FOLDER, _HOME_FOLDER, CA_FOLDER)
"""What pods mount themselves, where no claim can be."""

HEAD = "ray-head"
WORKER = "ray-worker"

GPU = "nvidia.com/gpu"
"""What NVIDIA's device plugin calls a GPU."""

SHARED_SHARE = 0.3
"""Of a pod's memory: Ray's object store, in /dev/shm and charged to the pod."""

POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}

CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

_OWN_CLUSTER = {
    "name": "EORAY_RAY_CLUSTER",
    "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['ray.io/cluster']"}},
}
"""Tells an attempt from one that had its name before and was deleted."""

_SHORT_TOLERATIONS = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute",
     "tolerationSeconds": 30}
    for what in ("not-ready", "unreachable")
]  # fmt: skip
"""A head on a lost node is replaced after 30 s: KubeRay gives up after 300 s without an answer."""


def head_template(
    cluster: ClusterSection, config_map: str, labels: Mapping[str, str], env: Mapping[str, str]
) -> dict[str, Any]:
    """The head's pod: driver, dashboard and committer; no task runs there."""
    head = cluster.head
    annotations = {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    template = _template(cluster, HEAD, head, config_map, labels, env)
    template["metadata"]["annotations"] = annotations
    template["spec"]["tolerations"] += _SHORT_TOLERATIONS
    template["spec"]["automountServiceAccountToken"] = cluster.autoscale
    template["spec"]["terminationGracePeriodSeconds"] = HEAD_GRACE_S
    template["spec"]["containers"][0]["lifecycle"] = stop_driver()
    return template


def worker_template(
    cluster: ClusterSection,
    group: WorkerGroup,
    config_map: str,
    labels: Mapping[str, str],
    env: Mapping[str, str],
) -> dict[str, Any]:
    """The pod of a group of workers."""
    template = _template(cluster, WORKER, group, config_map, labels, env)
    template["spec"]["terminationGracePeriodSeconds"] = group.grace_seconds
    hook = save_fit(group.grace_seconds)
    if hook is not None:
        template["spec"]["containers"][0]["lifecycle"] = hook
    if group.gpus:
        template["spec"]["tolerations"].append(
            {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
        )
    if group.is_spread:
        template["spec"]["topologySpreadConstraints"] = [_spread(group, labels)]
    return template


def _spread(group: WorkerGroup, labels: Mapping[str, str]) -> dict[str, Any]:
    """A wish, no condition, since it must neither hold pods back nor ask for nodes.

    Not over zones: what workers tell each other would be paid for.
    """
    alike = {RUN: labels[RUN], ATTEMPT: labels[ATTEMPT], "ray.io/group": group.name}
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": alike},
    }


def object_store_bytes(memory_gi: float) -> int:
    """Ray's object store in a pod of this size."""
    return int(memory_gi * SHARED_SHARE * 1024) << 20


def start_parameters(part: HeadSection | WorkerGroup) -> dict[str, str]:
    """What ``ray start`` is told: never more than the pod has, and no CPU on the head."""
    store = {"object-store-memory": str(object_store_bytes(part.memory_gi))}
    if isinstance(part, HeadSection):
        return {**store, "num-cpus": "0", "dashboard-host": "0.0.0.0"}  # noqa: S104 - the pod's own
    return {**store, "num-cpus": str(max(1, int(part.cpu))), "num-gpus": str(part.gpus)}


def _template(
    cluster: ClusterSection,
    container: str,
    part: HeadSection | WorkerGroup,
    config_map: str,
    labels: Mapping[str, str],
    env: Mapping[str, str],
) -> dict[str, Any]:
    volumes, mounts = _volumes(cluster, part, config_map)
    resources: dict[str, str] = {"cpu": _cpu(part.cpu), "memory": _memory(part.memory_gi)}
    image = cluster.image
    if isinstance(part, WorkerGroup):
        image = part.image or image
        if part.gpus:
            resources[GPU] = str(part.gpus)
    return {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "serviceAccountName": cluster.service_account,
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": POD_SECURITY,
            "imagePullSecrets": [{"name": name} for name in cluster.pull_secrets],
            "nodeSelector": dict(part.node_selector),
            "tolerations": [dict(toleration) for toleration in part.tolerations],
            **({"priorityClassName": part.priority_class} if part.priority_class else {}),
            "volumes": volumes,
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "env": [
                        *({"name": k, "value": v} for k, v in sorted(env.items())),
                        _OWN_CLUSTER,
                    ],
                    "envFrom": [{"secretRef": {"name": name}} for name in cluster.secrets],
                    "resources": {
                        "requests": {**resources, "ephemeral-storage": "4Gi"},
                        "limits": {**resources, "ephemeral-storage": "16Gi"},
                    },
                    "securityContext": CONTAINER_SECURITY,
                    "volumeMounts": mounts,
                }
            ],
        },
    }


def _volumes(
    cluster: ClusterSection, part: HeadSection | WorkerGroup, config_map: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    shared = {"medium": "Memory", "sizeLimit": str(object_store_bytes(part.memory_gi))}
    volumes: list[dict[str, Any]] = [
        {"name": "run", "configMap": {"name": config_map}},
        {"name": "shared-mem", "emptyDir": shared},
        {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}},
        {"name": "home", "emptyDir": {"sizeLimit": "4Gi"}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "run", "mountPath": RUN_FOLDER, "readOnly": True},
        {"name": "shared-mem", "mountPath": _SHARED_FOLDER},
        {"name": "tmp", "mountPath": _TMP_FOLDER},
        {"name": "home", "mountPath": _HOME_FOLDER},
    ]
    for number, claim in enumerate(cluster.claims):
        name = f"claim-{number}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim.claim}})
        mounts.append({"name": name, "mountPath": claim.path})
    ca_volumes, ca_mounts = ca_volume(cluster.network)
    return [*volumes, *ca_volumes], [*mounts, *ca_mounts]


def _cpu(cpu: float) -> str:
    return f"{round(cpu * 1000)}m"


def _memory(gi: float) -> str:
    return f"{round(gi * 1024)}Mi"
