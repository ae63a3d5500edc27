"""Fixtures of tests on a real Kubernetes: one cluster for all, a fresh namespace for each."""

from __future__ import annotations

import ipaddress
import json
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from tests.cluster.cluster import Cluster
from tests.cluster.environment import eoray_images
from tests.cluster.errors import UnavailableError
from tests.cluster.images import python_image
from tests.cluster.machine import wait_until
from tests.cluster.operator.install import VARIABLE, start_operator
from tests.cluster.runs import products
from tests.cluster.site import Site, open_site

REPOSITORY = Path(__file__).resolve().parents[2]
IMPORTED = pytest.StashKey[Future[None]]()
"""eoray's image, on its way to the node."""
UNDISTURBED = pytest.StashKey[Future[dict[str, Any]]]()
"""A run of this machine, and what it leaves."""
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests with eoray's pods last: their image is made beside the others."""
    items.sort(key=lambda item: "site" in _fixtures(item))


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def _is_wanted(fixture: str, session: pytest.Session) -> bool:
    return any(fixture in _fixtures(item) for item in session.items)


@pytest.fixture(scope="session")
def kubernetes_cluster(
    request: pytest.FixtureRequest, bring_up: Callable[[Cluster], None]
) -> Iterator[Cluster]:
    """A running cluster with one node and the python image; one that ran before stays."""
    cluster = Cluster.of()
    ran_before = bool(cluster.status())
    try:
        bring_up(cluster)
        cluster.import_image(python_image())
        with ThreadPoolExecutor(1) as beside:
            if _is_wanted("site", request.session):
                request.config.stash[IMPORTED] = beside.submit(_import_eoray, cluster)
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
    folder = _definitions()
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


def _definitions() -> Path:
    """Those of the real operator where one is named, since its own release fits it alone."""
    if (program := os.environ.get(VARIABLE)) and (own := Path(program).with_name("crds")).is_dir():
        return own
    data = Path(os.environ.get("EORAY_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    return data.parent / "kuberay-crds"


def _import_eoray(cluster: Cluster) -> None:
    for image in eoray_images():
        cluster.import_image(image)


@pytest.fixture(scope="session")
def site(
    request: pytest.FixtureRequest,
    kubernetes_cluster: Cluster,
    kuberay_crds: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """What runs on pods stand on; made once for all tests."""
    try:
        request.config.stash[IMPORTED].result()
    except UnavailableError as error:
        pytest.skip(str(error))
    start_operator(kubernetes_cluster)
    with (
        open_site(kubernetes_cluster, tmp_path_factory.mktemp("site")) as site,
        ThreadPoolExecutor(1) as beside,
    ):
        if _is_wanted("undisturbed", request.session):
            request.config.stash[UNDISTURBED] = beside.submit(_run_here, site)
        yield site


@pytest.fixture
def object_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads the store too."""
    for name, value in site.storage.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def undisturbed(request: pytest.FixtureRequest, site: Site) -> dict[str, Any]:
    """What a run leaves when this machine carries it out alone, without Kubernetes."""
    return request.config.stash[UNDISTURBED].result()


def _run_here(site: Site) -> dict[str, Any]:
    path = site.run_file("undisturbed", store=str(site.folder / "undisturbed"))
    done = site.eoray("run", path, "--executor", "ray", "--json")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(report["stages"]) >= {"cube", "fit", "predict", "change", "publish"}
    return products(str(site.folder / "undisturbed"))
