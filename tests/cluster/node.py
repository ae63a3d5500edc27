"""One node that runs pods: containerd, kubelet, kube-proxy and CoreDNS."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import command_line
from tests.cluster.errors import ClusterError
from tests.cluster.images import PAUSE_IMAGE
from tests.cluster.kubectl import Kubectl
from tests.cluster.machine import Machine, run, wait_until
from tests.cluster.requirements import CNI_FOLDER
from tests.cluster.slot import RECORDS, Slot

PROGRAMS = ("containerd", "kubelet", "kube-proxy", "coredns")
NODE = "node-1"
DNS_READY_PORT = 8181
CGROUPS = Path("/sys/fs/cgroup")
SYSCTLS = Path("/proc/sys")
# kubelet writes these, and no namespace keeps them to itself.
KUBELET_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_SAVED_SYSCTLS = RECORDS / "eoray-kubernetes.sysctls.json"


def start_node(machine: Machine, programs: Path, kubectl: Kubectl, pause: Path) -> None:
    """Start the node and wait until it is ready and services have addresses."""
    _start_containerd(machine, pause)
    _start_kubelet(machine, programs, kubectl)
    _start_services(machine, programs, kubectl)


def import_image(slot: Slot, tar: Path) -> None:
    """Give an image to the node; pods name it and never pull."""
    _ctr(slot, "images", "import", str(tar))


def save_sysctls() -> None:
    """Note the host's values, once for all slots."""
    if not _SAVED_SYSCTLS.exists():
        values = {name: (SYSCTLS / name).read_text() for name in KUBELET_SYSCTLS}
        _SAVED_SYSCTLS.write_text(json.dumps(values))


def restore_sysctls() -> None:
    """Put them back, unless another slot still runs; its ``down`` does it then."""
    if not _SAVED_SYSCTLS.exists() or list(RECORDS.glob("eoray-kubernetes-*.json")):
        return
    for name, value in json.loads(_SAVED_SYSCTLS.read_text()).items():
        (SYSCTLS / name).write_text(value)
    _SAVED_SYSCTLS.unlink()


def cgroup_folders(slot: Slot) -> list[Path]:
    """The slot's top cgroup: one folder, or with cgroup v1 one for each controller."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / slot.name]
    # `cpu` and `cpuacct` may be two names of one folder. In `unified`, version 2 beside version
    # 1, runc makes folders too.
    roots = {each.resolve() for each in CGROUPS.iterdir() if each.is_dir()}
    return sorted(root / slot.name for root in roots)


def _give_processor_time(folder: Path) -> None:
    """Let the pods count as six processes: by default all of them together count as one.

    Beside a few busy programs Ray would not start within the 30 s that it gives its parts.
    """
    for name, value in {"cpu.shares": 6 * 1024, "cpu.weight": 6 * 100}.items():
        if (folder / name).exists():  # of cgroup v1 and v2
            (folder / name).write_text(str(value))


def remove_cgroups(slot: Slot) -> None:
    """Remove what kubelet made; the kernel lets go of the last process a moment after its end."""

    def gone() -> bool:
        for top in cgroup_folders(slot):
            inside_first = sorted(top.rglob("*/"), key=lambda path: -len(path.parts))
            for folder in [*inside_first, top]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return not any(top.exists() for top in cgroup_folders(slot))

    wait_until(gone, 15, f"the removal of the cgroups {slot.name}")


def _ctr(slot: Slot, *arguments: str) -> str:
    socket = slot.state / "containerd.sock"
    return run(["ctr", "--address", socket, "--namespace", "k8s.io", *arguments], timeout_s=600)


def _start_containerd(machine: Machine, pause: Path) -> None:
    slot = machine.slot
    (slot.state / "containerd.toml").write_text(_containerd_config(slot))
    networks = slot.state / "cni"
    networks.mkdir()
    (networks / "10-pods.conflist").write_text(json.dumps(_pod_network(slot)))
    machine.run("sysctl", "-qw", "net.ipv4.ip_forward=1")  # this namespace's own
    machine.start("containerd", ["containerd", "--config", slot.state / "containerd.toml"])
    machine.wait(lambda: _is_containerd_ready(slot), 30, "containerd")
    import_image(slot, pause)


def _is_containerd_ready(slot: Slot) -> bool:
    try:
        _ctr(slot, "images", "list")
    except ClusterError:
        return False
    return True


def _containerd_config(slot: Slot) -> str:
    state = slot.state
    return f"""\
version = 2
root = "{state}/containerd"
state = "{state}/containerd-run"

[grpc]
address = "{state}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{state}/containerd-opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# Where root lacks CAP_SYS_RESOURCE, a process may not make itself safer from the OOM killer,
# and without this no sandbox would start.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_FOLDER}"
conf_dir = "{state}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _pod_network(slot: Slot) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": str(slot.state / "pod-addresses"),
        "ranges": [[{"subnet": slot.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": slot.name, "plugins": [bridge, ports]}


def _start_kubelet(machine: Machine, programs: Path, kubectl: Kubectl) -> None:
    slot = machine.slot
    save_sysctls()
    for folder in cgroup_folders(slot):
        folder.mkdir(exist_ok=True)
        _give_processor_time(folder)
    (slot.state / "resolv.conf").write_text(f"nameserver {slot.node_ip}\n")
    config = slot.state / "kubelet.json"
    config.write_text(json.dumps(_kubelet_config(slot), indent=1))
    options: dict[str, str | Path] = {
        "config": config,
        "kubeconfig": slot.state / "kubelet.conf",
        "hostname-override": NODE,
        "node-ip": slot.node_ip,
        "root-dir": slot.state / "kubelet",
        "cert-dir": slot.state / "kubelet-pki",
    }
    machine.start("kubelet", command_line(programs / "kubelet", options))
    ready = ("wait", f"node/{NODE}", "--for=condition=Ready", "--timeout=1s")
    machine.wait(lambda: kubectl.succeeds(*ready), 60, "a ready node")


def _kubelet_config(slot: Slot) -> dict[str, Any]:
    state = slot.state
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(state / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(state / "kubelet.crt"),
        "tlsPrivateKeyFile": str(state / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{state}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{slot.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # One machine of two cores plays several: pods share it by their requests, and none is held
        # to a limit that would make it slower than a small machine is anyway.
        "cpuCFSQuota": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [slot.dns_ip],
        "resolvConf": str(state / "resolv.conf"),
        "podLogsDir": str(state / "pod-logs"),
        "volumePluginDir": str(state / "volume-plugins"),
        # Images cannot be pulled again, so none is ever collected, however full the disk is.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "200Mi"},
    }


def _start_services(machine: Machine, programs: Path, kubectl: Kubectl) -> None:
    slot = machine.slot
    proxy = slot.state / "kube-proxy.json"
    proxy.write_text(json.dumps(_proxy_config(slot), indent=1))
    machine.start("kube-proxy", [programs / "kube-proxy", f"--config={proxy}"])
    corefile = slot.state / "Corefile"
    corefile.write_text(_corefile(slot))
    machine.start("coredns", [programs / "coredns", "-conf", corefile])
    kubectl.apply(*_dns_service(slot))
    machine.wait(lambda: _is_dns_ready(slot), 30, "CoreDNS")


def _is_dns_ready(slot: Slot) -> bool:
    """Ask CoreDNS whether it has read all services; before that it denies them."""
    connection = http.client.HTTPConnection(slot.node_ip, DNS_READY_PORT, timeout=2)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _proxy_config(slot: Slot) -> dict[str, Any]:
    # Zero leaves the kernel's connection limits alone; a namespace may not write them.
    limits = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(slot.state / "proxy.conf")},
        "mode": "iptables",
        "clusterCIDR": slot.pods,
        "hostnameOverride": NODE,
        "bindAddress": slot.node_ip,
        "conntrack": limits,
    }


def _corefile(slot: Slot) -> str:
    return f"""\
. {{
    bind {slot.node_ip}
    ready {slot.node_ip}:{DNS_READY_PORT}
    kubernetes cluster.local {{
        kubeconfig {slot.state}/admin.conf {slot.name}
    }}
    cache 5
}}
"""


def _dns_service(slot: Slot) -> list[dict[str, Any]]:
    """Give the fixed service address to CoreDNS, which runs on the node and not in a pod."""
    ports = [
        {"name": f"dns-{name}", "port": 53, "protocol": name.upper()} for name in ("udp", "tcp")
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": slot.dns_ip, "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-node",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [slot.node_ip]}],
    }
    return [service, endpoints]
