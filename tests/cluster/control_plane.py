"""etcd, the API server, the controllers and the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.machine import Machine

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
ETCD_URL = "http://127.0.0.1:2379"


def start_control_plane(machine: Machine, programs: Path, kubectl: Kubectl) -> None:
    """Start all four and wait until a pod could be made."""
    commands = control_plane_commands(machine, programs)
    for name in ("etcd", "kube-apiserver"):
        machine.start(name, commands[name])
    machine.wait(lambda: is_api_ready(kubectl), 60, "the API server")
    for name in ("kube-controller-manager", "kube-scheduler"):
        machine.start(name, commands[name])
    # Pods are refused until their namespace has one, and a controller makes it.
    account = ("get", "serviceaccount", "default", "--namespace", "default")
    machine.wait(lambda: kubectl.succeeds(*account), 60, "the default service account")


def is_api_ready(kubectl: Kubectl) -> bool:
    return kubectl.succeeds("get", "--raw", "/readyz")


def control_plane_commands(machine: Machine, programs: Path) -> dict[str, list[str | Path]]:
    """Command lines by program: tests that stop one start it again with the same."""
    state, slot = machine.slot.state, machine.slot
    etcd: dict[str, str | Path] = {
        "data-dir": state / "etcd",
        "listen-client-urls": ETCD_URL,
        "advertise-client-urls": ETCD_URL,
        "listen-peer-urls": "http://127.0.0.1:2380",
        # Nothing here outlives the machine's next boot, so nothing waits for the disk.
        "unsafe-no-fsync": "true",
    }
    api: dict[str, str | Path] = {
        "etcd-servers": ETCD_URL,
        "advertise-address": slot.node_ip,
        "secure-port": "6443",
        "tls-cert-file": state / "apiserver.crt",
        "tls-private-key-file": state / "apiserver.key",
        "client-ca-file": state / "ca.crt",
        "kubelet-certificate-authority": state / "ca.crt",
        "kubelet-client-certificate": state / "admin.crt",
        "kubelet-client-key": state / "admin.key",
        # Logs and exec go to the node's address; its name is in no DNS.
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": state / "service-account.key",
        "service-account-signing-key-file": state / "service-account.key",
        "service-cluster-ip-range": slot.services,
        # So that it is Pod Security that refuses privileged pods, as in real clusters.
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
    }
    controllers: dict[str, str | Path] = {
        "kubeconfig": state / "controller-manager.conf",
        "service-account-private-key-file": state / "service-account.key",
        "root-ca-file": state / "ca.crt",
        "use-service-account-credentials": "true",
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
    }
    scheduler: dict[str, str | Path] = {
        "kubeconfig": state / "scheduler.conf",
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
    }
    options: dict[str, Mapping[str, str | Path]] = dict(
        zip(PROGRAMS, (etcd, api, controllers, scheduler), strict=True)
    )
    return {name: command_line(programs / name, given) for name, given in options.items()}


def command_line(program: Path, options: Mapping[str, str | Path]) -> list[str | Path]:
    if not program.exists():
        raise ClusterError(f"{program} is absent: build it with `python -m tests.cluster build`")
    return [program, *(f"--{name}={value}" for name, value in options.items())]
