"""Fixtures of tests on a real Kubernetes: one cluster for all, a fresh namespace for each."""

from __future__ import annotations

import ipaddress
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from tests.cluster.cluster import Cluster
from tests.cluster.environment import eoray_images
from tests.cluster.errors import UnavailableError
from tests.cluster.images import python_image
from tests.cluster.machine import wait_until
from tests.cluster.operator.install import start_operator
from tests.cluster.runs import products
from tests.cluster.site import Site, open_site

REPOSITORY = Path(__file__).resolve().parents[2]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@pytest.fixture(scope="session")
def bring_up(inner_networks: set[Network]) -> Callable[[Cluster], None]:
    """Bring a cluster up for tests; where the machine cannot run it they are skipped."""

    def up(cluster: Cluster) -> None:
        inner_networks.add(ipaddress.IPv4Network(cluster.slot.link_network))
        try:
            cluster.up()
        except UnavailableError as error:
            pytest.skip(str(error))

    return up


@pytest.fixture(scope="session")
def kubernetes_cluster(bring_up: Callable[[Cluster], None]) -> Iterator[Cluster]:
    """A running cluster with one node and the python image; one that ran before stays."""
    cluster = Cluster.of()
    ran_before = bool(cluster.status())
    try:
        bring_up(cluster)
        cluster.import_image(python_image())
        yield cluster
    finally:
        if not ran_before and cluster.status():
            cluster.down()


@pytest.fixture(scope="session")
def api(kubernetes_cluster: Cluster) -> Iterator[client.ApiClient]:
    """The API server, as an administrator."""
    configuration = client.Configuration()
    config.load_kube_config(str(kubernetes_cluster.kubeconfig), client_configuration=configuration)
    configuration.proxy = None  # no proxy knows an address that only this machine has
    with client.ApiClient(configuration) as api:
        yield api
        api.rest_client.pool_manager.clear()


@pytest.fixture
def namespace(api: client.ApiClient) -> Iterator[str]:
    """A fresh namespace that refuses pods beyond the restricted Pod Security standard."""
    core: Any = client.CoreV1Api(api)
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": name, "labels": labels}})

    def has_account() -> bool:
        return bool(core.list_namespaced_service_account(name).items)

    # Pods are refused until a controller has made it.
    wait_until(has_account, 20, f"the default service account of {name}")
    yield name
    core.delete_namespace(name)


@pytest.fixture(scope="session")
def kuberay_crds(kubernetes_cluster: Cluster) -> Path:
    """Ray's resource definitions, served by the cluster; the operator is not part of it."""
    data = Path(os.environ.get("EORAY_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = data.parent / "kuberay-crds"
    if not folder.is_dir():
        pytest.skip(
            f"no definitions of KubeRay: {folder} is no folder; it lies beside the folder that "
            "EORAY_SHARED_DATA names"
        )
    # On the server's side: they are larger than the annotation of a client's apply may be.
    kubernetes_cluster.kubectl("apply", "--server-side", f"--filename={folder}")
    established = ("--for=condition=Established", "--timeout=30s")
    kubernetes_cluster.kubectl("wait", "crd", "--all", *established)
    return folder


@pytest.fixture(scope="session")
def site(
    kubernetes_cluster: Cluster, kuberay_crds: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """What runs on pods stand on; made once for all tests."""
    try:
        images = eoray_images()
    except UnavailableError as error:
        pytest.skip(str(error))
    for image in images:
        kubernetes_cluster.import_image(image)
    start_operator(kubernetes_cluster)
    with open_site(kubernetes_cluster, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def object_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads the store too."""
    for name, value in site.storage.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def undisturbed(site: Site) -> dict[str, Any]:
    """What a run leaves when this machine carries it out alone, without Kubernetes."""
    path = site.run_file("undisturbed", store=str(site.folder / "undisturbed"))
    done = site.eoray("run", path, "--executor", "ray", "--json")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(report["stages"]) >= {"cube", "fit", "predict", "change", "publish"}
    return products(str(site.folder / "undisturbed"))
