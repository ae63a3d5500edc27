"""Pods, service and Secret of a RayCluster, as KubeRay 1.7 makes them from its templates."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]

GCS_PORT = 6379
DASHBOARD_PORT = 8265
AGENT_PORT = 52365
PORTS = {"gcs-server": GCS_PORT, "dashboard": DASHBOARD_PORT, "client": 10001, "metrics": 8080}
TOKEN_KEY = "auth_token"
CLUSTER, NODE_TYPE, GROUP = "ray.io/cluster", "ray.io/node-type", "ray.io/group"
HEAD_GROUP = "headgroup"

WAIT_FOR_GCS = """
SECONDS=0
while true; do
  if ray health-check --address {address} > /dev/null 2>&1; then
    echo "GCS is ready."
    break
  fi
  echo "$SECONDS seconds elapsed: Waiting for GCS to be ready."
  sleep 5
done
"""


def head_service(cluster: Object) -> Object:
    """The headless service by which workers find the head."""
    name = cluster["metadata"]["name"]
    labels = {
        CLUSTER: name,
        NODE_TYPE: "head",
        "ray.io/identifier": f"{name}-head",
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    ports = [
        {"name": name, "port": port, "appProtocol": "tcp"} for name, port in sorted(PORTS.items())
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-head-svc", "labels": labels, **_owned(cluster)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": ports,
        },
    }


def token_secret(cluster: Object) -> Object:
    """The token that all pods share, named after the cluster."""
    name = cluster["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {CLUSTER: name}, **_owned(cluster)},
        "stringData": {TOKEN_KEY: secrets.token_urlsafe(32)},
    }


def secret_name(cluster: Object) -> str | None:
    """Where the token is; None for a cluster that is open."""
    auth = cluster["spec"].get("authOptions", {})
    if auth.get("mode") != "token":
        return None
    return str(auth.get("secretName") or cluster["metadata"]["name"])


def autoscaler_account(cluster: Object) -> list[Object]:
    """The head's account and rights where Ray's autoscaler runs in it."""
    name = cluster["metadata"]["name"]
    meta = {"name": name, "labels": {CLUSTER: name}, **_owned(cluster)}
    rbac = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]},
        {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]},
    ]
    account = head_account(cluster)
    subject = {"kind": "ServiceAccount", "name": account,
               "namespace": cluster["metadata"]["namespace"]}  # fmt: skip
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**meta, "name": account}},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": meta, "subjects": [subject],
         "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name}},
    ]  # fmt: skip


def head_account(cluster: Object) -> str:
    """The account of the head: the template's own, else one of the cluster's name."""
    named = cluster["spec"]["headGroupSpec"]["template"]["spec"].get("serviceAccountName")
    return str(named or cluster["metadata"]["name"])


def head_pod(cluster: Object) -> Object:
    """The head, with Ray's autoscaler beside it where that is asked for."""
    group = cluster["spec"]["headGroupSpec"]
    parameters = {"dashboard-host": "0.0.0.0", **(group.get("rayStartParams") or {})}
    pod = _pod(cluster, group["template"], HEAD_GROUP, "head")
    ray = pod["spec"]["containers"][0]
    if cluster["spec"].get("enableInTreeAutoscaling"):
        parameters["no-monitor"] = "true"
        pod["spec"]["serviceAccountName"] = head_account(cluster)
        pod["spec"]["restartPolicy"] = "Never"
        pod["spec"]["containers"].append(_autoscaler(cluster, ray["image"]))
        _set_env(ray, RAY_enable_autoscaler_v2="true")
        for container in pod["spec"]["containers"]:
            _add_volume(pod, container, "ray-logs", "/tmp/ray", {})
    return _complete(cluster, pod, parameters, f"127.0.0.1:{GCS_PORT}", is_head=True)


def worker_pod(cluster: Object, group: Object) -> Object:
    """A worker of a group; it waits for the head before Ray starts."""
    address = f"{_head_name(cluster)}:{GCS_PORT}"
    parameters = {"address": address, **(group.get("rayStartParams") or {})}
    pod = _pod(cluster, group["template"], group["groupName"], "worker")
    spec = pod["spec"]
    if cluster["spec"].get("enableInTreeAutoscaling"):
        spec["restartPolicy"] = "Never"
    ray = spec["containers"][0]
    _authenticate(cluster, ray)
    small = {"cpu": "200m", "memory": "256Mi"}
    waiting = {
        "name": "wait-gcs-ready",
        "image": ray["image"],
        "imagePullPolicy": ray.get("imagePullPolicy", "IfNotPresent"),
        "command": ["/bin/bash", "-c", "--"],
        "args": [WAIT_FOR_GCS.format(address=address)],
        "securityContext": copy.deepcopy(ray.get("securityContext", {})),
        "env": [*copy.deepcopy(ray.get("env", [])), *_addresses(cluster)],
        "volumeMounts": copy.deepcopy(ray.get("volumeMounts", [])),
        "resources": {"limits": dict(small), "requests": dict(small)},
    }
    spec["initContainers"] = [*spec.get("initContainers", []), waiting]
    ray["env"] = [*ray.get("env", []), *_addresses(cluster)]
    return _complete(cluster, pod, parameters, address, is_head=False)


def start_command(parameters: Mapping[str, str], *, is_head: bool) -> str:
    """``ray start`` with flags in order; what is true has no value, what is false is left out."""
    flags = []
    for name, value in sorted(parameters.items()):
        if value.lower() in ("true", "false"):
            flags += [f"--{name}"] if value.lower() == "true" else []
        else:
            flags.append(f"--{name}={value}")
    return " ".join(["ray start", *(["--head"] if is_head else []), *flags])


def _pod(cluster: Object, template: Object, group: str, kind: str) -> Object:
    name = cluster["metadata"]["name"]
    template = copy.deepcopy(template)
    metadata = template.get("metadata", {})
    labels = {
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
        "ray.io/is-ray-node": "yes",
        "ray.io/identifier": f"{name}-{kind}",
        **metadata.get("labels", {}),
        CLUSTER: name,
        NODE_TYPE: kind,
        GROUP: group,
    }
    prefix = f"{name}-head-" if kind == "head" else f"{name}-{group}"[:50] + "-worker-"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": prefix,
            "labels": labels,
            "annotations": metadata.get("annotations", {}),
            **_owned(cluster),
        },
        "spec": template["spec"],
    }


def _complete(
    cluster: Object, pod: Object, parameters: dict[str, str], address: str, *, is_head: bool
) -> Object:
    """What both kinds get: the start command, KubeRay's variables, ports and probes."""
    ray = pod["spec"]["containers"][0]
    limits = ray.get("resources", {}).get("limits", {})
    parameters = {
        "metrics-export-port": str(PORTS["metrics"]),
        "block": "true",
        "dashboard-agent-listen-port": str(AGENT_PORT),
        "num-cpus": _whole_cpus(str(limits.get("cpu", "1"))),
        **({"memory": str(_bytes(str(limits["memory"])))} if "memory" in limits else {}),
        **parameters,
    }
    command = start_command(parameters, is_head=is_head)
    ray["command"] = ["/bin/bash", "-c", "--"]
    ray["args"] = [f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {command}"]
    _authenticate(cluster, ray)
    _add_volume(pod, ray, "shared-mem", "/dev/shm", {"medium": "Memory"})
    fields = {
        "RAY_CLUSTER_NAME": f"metadata.labels['{CLUSTER}']",
        "RAY_CLUSTER_NAMESPACE": "metadata.namespace",
        "RAY_CLOUD_INSTANCE_ID": "metadata.name",
        "RAY_NODE_TYPE_NAME": f"metadata.labels['{GROUP}']",
    }
    ray["env"] += [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in fields.items()
    ]
    _set_env(
        ray,
        KUBERAY_GEN_RAY_START_CMD=command,
        RAY_PORT=str(GCS_PORT),
        RAY_ADDRESS=address,
        RAY_USAGE_STATS_KUBERAY_IN_USE="1",
        RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE="1",
    )
    ports = {**(PORTS if is_head else {"metrics": PORTS["metrics"]})}
    there = {port.get("name") for port in ray.get("ports", [])}
    ray["ports"] = [
        *ray.get("ports", []),
        *({"name": n, "containerPort": p} for n, p in ports.items() if n not in there),
    ]
    probe = {
        "httpGet": {"path": "/api/healthz", "port": AGENT_PORT},
        "timeoutSeconds": 5 if is_head else 2,
        "periodSeconds": 5,
        "successThreshold": 1,
    }
    ray.setdefault("readinessProbe", {**probe, "initialDelaySeconds": 10, "failureThreshold": 10})
    ray.setdefault("livenessProbe", {**probe, "initialDelaySeconds": 30, "failureThreshold": 120})
    return pod


def _autoscaler(cluster: Object, image: str) -> Object:
    small = {"cpu": "500m", "memory": "512Mi"}
    fields = {
        "RAY_CLUSTER_NAME": f"metadata.labels['{CLUSTER}']",
        "RAY_CLUSTER_NAMESPACE": "metadata.namespace",
        "RAY_HEAD_POD_NAME": "metadata.name",
    }
    command = (
        "ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME) "
        "--cluster-namespace $(RAY_CLUSTER_NAMESPACE)"
    )
    container: Object = {
        "name": "autoscaler",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/bash", "-c", "--"],
        "args": [command],
        "env": [
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
              for name, path in fields.items()),
            {"name": "KUBERAY_CRD_VER", "value": "v1"},
        ],
        "resources": {"limits": dict(small), "requests": dict(small)},
    }  # fmt: skip
    _authenticate(cluster, container)
    options = cluster["spec"].get("autoscalerOptions") or {}
    taken = ("image", "imagePullPolicy", "resources", "securityContext", "command", "args")
    container |= {key: copy.deepcopy(options[key]) for key in taken if options.get(key)}
    for key in ("env", "envFrom", "volumeMounts"):
        if options.get(key):
            container[key] = [*container.get(key, []), *copy.deepcopy(options[key])]
    return container


def _authenticate(cluster: Object, container: Object) -> None:
    name = secret_name(cluster)
    if name is None:
        return
    _set_env(container, RAY_AUTH_MODE="token")
    reference = {"secretKeyRef": {"name": name, "key": TOKEN_KEY}}
    if not _has_env(container, "RAY_AUTH_TOKEN"):
        container["env"].append({"name": "RAY_AUTH_TOKEN", "valueFrom": reference})


def _addresses(cluster: Object) -> list[Object]:
    name = _head_name(cluster)
    return [{"name": "FQ_RAY_IP", "value": name}, {"name": "RAY_IP", "value": name.split(".")[0]}]


def _head_name(cluster: Object) -> str:
    metadata = cluster["metadata"]
    return f"{metadata['name']}-head-svc.{metadata['namespace']}.svc.cluster.local"


def _has_env(container: Object, name: str) -> bool:
    return any(each["name"] == name for each in container.get("env", []))


def _set_env(container: Object, **values: str) -> None:
    """Set what the template does not set itself."""
    container.setdefault("env", [])
    for name, value in values.items():
        if not _has_env(container, name):
            container["env"].append({"name": name, "value": value})


def _add_volume(pod: Object, container: Object, name: str, path: str, empty: Object) -> None:
    """Mount an empty folder where the template mounts nothing."""
    mounts = container.setdefault("volumeMounts", [])
    if any(mount["mountPath"] == path for mount in mounts):
        return
    volumes = pod["spec"].setdefault("volumes", [])
    if not any(volume["name"] == name for volume in volumes):
        volumes.append({"name": name, "emptyDir": dict(empty)})
    mounts.append({"name": name, "mountPath": path})


def _owned(cluster: Object) -> Object:
    metadata = cluster["metadata"]
    owner = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"namespace": metadata["namespace"], "ownerReferences": [owner]}


def _whole_cpus(quantity: str) -> str:
    cpus = float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
    return str(int(-(-cpus // 1)))


def _bytes(quantity: str) -> int:
    units = {"Ki": 10, "Mi": 20, "Gi": 30}
    if quantity[-2:] in units:
        return int(float(quantity[:-2]) * 2 ** units[quantity[-2:]])
    return int(quantity)
