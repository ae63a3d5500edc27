"""Start an operator in the test cluster: the stand-in, or the program that a variable names."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.cluster import Cluster

NAME = "ray-operator"
NAMESPACE = "kuberay-system"
VARIABLE = "EORAY_TEST_RAY_OPERATOR"
"""Path of a real operator program, which then runs in place of the stand-in."""
SILENCE = "RAYJOB_STATUS_CHECK_TIMEOUT_SECONDS"
"""KubeRay's own variable, which the stand-in reads too."""

_REPOSITORY = Path(__file__).resolve().parents[3]
_ALL = ["get", "list", "watch", "create", "update", "patch", "delete"]
# What KubeRay's own chart gives it, less what it needs for parts that are not used here.
_RULES = (
    ("ray.io", ["rayjobs", "rayclusters"], [*_ALL, "deletecollection"]),
    ("ray.io", ["rayservices", "raycronjobs"], ["get", "list", "watch"]),
    ("ray.io", ["rayjobs/status", "rayclusters/status"], ["get", "update", "patch"]),
    ("ray.io", ["rayjobs/finalizers", "rayclusters/finalizers"], ["update"]),
    ("", ["pods"], [*_ALL, "deletecollection"]),
    ("", ["pods/status", "pods/resize", "pods/proxy", "services/proxy"],
     ["get", "create", "update", "patch"]),
    ("", ["services", "serviceaccounts", "secrets", "events"], _ALL),
    ("events.k8s.io", ["events"], _ALL),
    ("", ["endpoints"], ["get", "list", "watch"]),
    ("batch", ["jobs"], _ALL),
    ("coordination.k8s.io", ["leases"], ["get", "list", "create", "update"]),
    ("rbac.authorization.k8s.io", ["roles", "rolebindings"], _ALL),
    ("networking.k8s.io", ["ingresses", "ingressclasses"], _ALL),
)  # fmt: skip


def start_operator(cluster: Cluster, *, silence_s: int | None = None) -> None:
    """Start it under an account of its own; one that runs is left.

    Args:
        cluster: Runs.
        silence_s: A head that does not answer for so long ends its RayJob; None for KubeRay's 300.
    """
    if cluster.machine.is_alive(NAME):
        return
    token = _make_account(cluster)
    state = cluster.slot.state
    authority, server = state / "ca.crt", f"https://{cluster.slot.node_ip}:6443"
    program = os.environ.get(VARIABLE)
    settings = [] if silence_s is None else [f"{SILENCE}={silence_s}"]
    if program is None:
        (state / f"{NAME}.token").write_text(token)
        token_file = str(state / f"{NAME}.token")
        options = ["--server", server, "--authority", str(authority), "--token", token_file]
        search = [f"PYTHONPATH={_REPOSITORY}", "PYTHONUNBUFFERED=1"]
        python = ["env", *search, *settings, sys.executable, "-m", "tests.cluster.operator"]
        cluster.machine.start(NAME, [*python, *options])
        return
    config = state / f"{NAME}.conf"
    config.write_text(json.dumps(_kubeconfig(server, authority, token)))
    # the program finds the cluster's names nowhere on the host: it asks through the API server
    options = ["-use-kubernetes-proxy", "-enable-leader-election=false"]
    addresses = ["-metrics-addr=:18080", "-health-probe-bind-address=:18082"]
    words = ["env", f"KUBECONFIG={config}", *settings, program, *options, *addresses]
    cluster.machine.start(NAME, words)


@contextmanager
def impatient_operator(cluster: Cluster, silence_s: int) -> Iterator[None]:
    """Let the operator give up heads that are silent for so long, while the block lasts."""
    stop_operator(cluster)
    start_operator(cluster, silence_s=silence_s)
    try:
        yield
    finally:
        stop_operator(cluster)
        start_operator(cluster)


def gives_up_silent_heads() -> bool:
    """Whether the operator does at all: KubeRay asks such a head until the deadline before 1.7."""
    program = os.environ.get(VARIABLE)
    return program is None or SILENCE.encode() in Path(program).read_bytes()


def stop_operator(cluster: Cluster) -> None:
    """End it, as a node that is lost does."""
    cluster.machine.stop(NAME)


def _make_account(cluster: Cluster) -> str:
    """A service account with a ClusterRole, and a token for it."""
    rules = [{"apiGroups": [g], "resources": r, "verbs": v} for g, r, v in _RULES]
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME}
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount",
         "metadata": {"name": NAME, "namespace": NAMESPACE}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME},
         "rules": rules},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
         "roleRef": role, "subjects": [subject]},
    )  # fmt: skip
    return cluster.kubectl(
        "create", "token", NAME, f"--namespace={NAMESPACE}", "--duration=24h"
    ).strip()


def _kubeconfig(server: str, authority: Path, token: str) -> dict[str, object]:
    named = {"name": NAME}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [
            {**named, "cluster": {"server": server, "certificate-authority": str(authority)}}
        ],
        "users": [{**named, "user": {"token": token}}],
        "contexts": [{**named, "context": {"cluster": NAME, "user": NAME}}],
    }
