from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubernetes import client

from tests.cluster.cluster import Cluster
from tests.cluster.images import images_folder, python_image
from tests.cluster.machine import wait_until
from tests.cluster.node import KUBELET_SYSCTLS, SYSCTLS, cgroup_folders
from tests.cluster.pods import restricted_pod, run_pod, wait_for_phase
from tests.cluster.programs import KUBERNETES
from tests.cluster.slot import RECORDS, Slot

# The first test of a machine also builds the programs.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

FOREVER = "import signal; signal.pause()"


@pytest.fixture
def core(api: client.ApiClient) -> Any:
    return client.CoreV1Api(api)


def test_the_api_server_has_the_pinned_version(api: client.ApiClient) -> None:
    assert client.VersionApi(api).get_code().git_version == f"v{KUBERNETES}"


def test_a_restricted_pod_runs_to_completion(core: Any, namespace: str) -> None:
    code = "import os; print('uid', os.getuid())"
    assert run_pod(core, namespace, restricted_pod("once", code)) == ("Succeeded", "uid 1000\n")


def test_a_failing_pod_keeps_its_exit_code(core: Any, namespace: str) -> None:
    phase, _ = run_pod(core, namespace, restricted_pod("fails", "raise SystemExit(7)"))
    container = core.read_namespaced_pod("fails", namespace).status.container_statuses[0]
    assert (phase, container.state.terminated.exit_code) == ("Failed", 7)


def test_a_privileged_pod_is_refused(core: Any, namespace: str) -> None:
    pod = restricted_pod("privileged", "")
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(client.ApiException, match="violates PodSecurity") as refusal:
        core.create_namespaced_pod(namespace, pod)
    assert refusal.value.status == 403


def test_a_pod_reaches_another_by_the_name_of_its_service(core: Any, namespace: str) -> None:
    serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000, bind='0.0.0.0')"
    core.create_namespaced_pod(namespace, restricted_pod("server", serve, hostname="server"))
    ports = [{"port": 80, "targetPort": 8000}]
    service = {
        "metadata": {"name": "front"},
        "spec": {"selector": {"app": "server"}, "ports": ports},
    }
    address = core.create_namespaced_service(namespace, service).spec.cluster_ip
    wait_for_phase(core, namespace, "server", "Running")
    phase, log = run_pod(
        core, namespace, restricted_pod("asker", ASK.format(name=f"front.{namespace}"))
    )
    assert (phase, log) == ("Succeeded", f"{address} 200\n")


# The service's rules come a moment after the pod, and its program a moment after that.
ASK = """
import socket, time, urllib.request
name = "{name}.svc.cluster.local"
for attempt in range(40):
    try:
        status = urllib.request.urlopen("http://" + name, timeout=2).status
        break
    except OSError:
        time.sleep(0.5)
print(socket.gethostbyname(name), status)
"""


def test_a_pod_reaches_the_host(
    core: Any, namespace: str, kubernetes_cluster: Cluster, http_server: str
) -> None:
    code = f"import urllib.request as u; print(u.urlopen('{http_server}', timeout=10).status)"
    assert run_pod(core, namespace, restricted_pod("outwards", code)) == ("Succeeded", "200\n")


@pytest.fixture
def http_server(kubernetes_cluster: Cluster) -> Iterator[str]:
    """A server of the test host, at the address by which pods know it."""
    import http.server
    import threading

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    address = (kubernetes_cluster.slot.host_ip, 0)
    with http.server.HTTPServer(address, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{address[0]}:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("kuberay_crds")
def test_a_misspelt_field_of_a_rayjob_is_refused(api: client.ApiClient, namespace: str) -> None:
    job = rayjob("misspelt")
    job["spec"]["shutdownAfterJobFinished"] = True
    with pytest.raises(client.ApiException) as refusal:
        create_rayjob(api, namespace, job)
    assert refusal.value.status == 400
    message = json.loads(str(refusal.value.body))["message"]
    assert 'unknown field "spec.shutdownAfterJobFinished"' in message


@pytest.mark.usefixtures("kuberay_crds")
def test_a_correct_rayjob_is_accepted(api: client.ApiClient, namespace: str) -> None:
    created = create_rayjob(api, namespace, rayjob("correct"))
    assert created["spec"]["submissionMode"] == "HTTPMode"


def rayjob(name: str) -> dict[str, Any]:
    template: dict[str, Any] = {"spec": restricted_pod("head", "")["spec"]}
    head: dict[str, Any] = {"rayStartParams": {"num-cpus": "0"}, "template": template}
    spec = {
        "entrypoint": "true",
        "submissionMode": "HTTPMode",
        "rayClusterSpec": {"headGroupSpec": head},
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": spec,
    }


def create_rayjob(api: client.ApiClient, namespace: str, job: dict[str, Any]) -> dict[str, Any]:
    custom: Any = client.CustomObjectsApi(api)
    created: dict[str, Any] = custom.create_namespaced_custom_object(
        "ray.io", "v1", namespace, "rayjobs", job, field_validation="Strict"
    )
    return created


def test_fake_gpu_nodes_take_only_pods_that_tolerate_them(
    core: Any, namespace: str, kubernetes_cluster: Cluster
) -> None:
    kubernetes_cluster.add_fake_gpu_nodes(2)
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists"}
    for name, tolerations in (("fits", [toleration]), ("refused", [])):
        pod = restricted_pod(name, "", tolerations=tolerations)
        pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "8"}}
        core.create_namespaced_pod(namespace, pod)
    wait_for_phase(core, namespace, "fits", "Running")
    assert core.read_namespaced_pod("fits", namespace).spec.node_name in {"gpu-1", "gpu-2"}

    def is_unschedulable() -> bool:
        conditions = core.read_namespaced_pod("refused", namespace).status.conditions or []
        return any(each.reason == "Unschedulable" for each in conditions)

    wait_until(is_unschedulable, 20, "the scheduler's verdict")


def test_the_api_server_comes_back_with_its_objects(
    core: Any, namespace: str, kubernetes_cluster: Cluster
) -> None:
    kubernetes_cluster.restart("kube-apiserver")
    assert core.read_namespace(namespace).status.phase == "Active"


def test_up_on_a_running_cluster_changes_nothing(kubernetes_cluster: Cluster) -> None:
    before = kubernetes_cluster.machine
    kubernetes_cluster.up()
    assert kubernetes_cluster.machine == before


@pytest.mark.parametrize("crash", [(), ("containerd", "kubelet"), ("holder",)])
def test_down_leaves_nothing_behind(
    crash: tuple[str, ...], bring_up: Callable[[Cluster], None]
) -> None:
    slot = Slot.from_environment((Slot.from_environment().number + 1) % 10)
    before = traces(slot)
    cluster = Cluster.of(slot)
    bring_up(cluster)
    try:
        cluster.import_image(python_image())
        start_lasting_pod(cluster)
        processes = cluster.machine.processes()
        assert len(processes) > 10
        assert traces(slot) != before
        for name in crash:
            cluster.machine.stop(name)
    finally:
        cluster.down()
    assert traces(slot) == before
    assert not [pid for pid in processes if psutil.pid_exists(pid)]
    cluster.down()  # again: nothing to do


def start_lasting_pod(cluster: Cluster) -> None:
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Pod", **restricted_pod("lasts", FOREVER)})
    cluster.kubectl("wait", "pod/lasts", "--for=condition=Ready", "--timeout=30s")


@dataclasses.dataclass(frozen=True)
class Traces:
    """Where a cluster could leave something on the host."""

    mounts: list[str]
    links: list[str]
    cgroups: list[Path]
    sysctls: list[str]
    folders: list[Path]
    state_exists: bool


def traces(slot: Slot) -> Traces:
    places = (RECORDS, RECORDS / "netns", *map(Path, ("/var/lib", "/var/log", "/var/run", "/opt")))
    places += (Path("/usr/libexec"), Path("/etc"), Path("/etc/cni"))
    mounts = Path("/proc/mounts").read_text().splitlines()  # debootstrap's are no cluster's
    found = (path for place in places if place.is_dir() for path in place.iterdir())
    return Traces(
        mounts=[line for line in mounts if str(images_folder()) not in line],
        links=sorted(path.name for path in Path("/sys/class/net").iterdir()),
        cgroups=[folder for folder in cgroup_folders(slot) if folder.exists()],
        sysctls=[(SYSCTLS / name).read_text() for name in KUBELET_SYSCTLS],
        folders=sorted(path for path in found if could_be_ours(path.name, slot)),
        state_exists=slot.state.exists(),
    )


def could_be_ours(name: str, slot: Slot) -> bool:
    """Whether a file or folder may be a cluster's: a machine has others that come and go."""
    if name.startswith("eoray-kubernetes-"):
        return name.startswith(slot.name)
    words = ("cni", "containerd", "etcd", "kube", "calico", "nri", "pods", "containers", "runc")
    return any(word in name for word in words)
