"""A KubeRay from before `authOptions`: said by name with its remedy, and nothing is created.

Its definitions are today's without the fields that came with 1.6. They take the place of today's
in the one API server for some seconds, before the tests that run pods have begun.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from eoray.cli import main
from eoray.k8s.doctor import FEATURES
from tests.cluster.cluster import Cluster as Kubernetes
from tests.cluster.machine import wait_until
from tests.cluster.test_submit import RUN_FILE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

Verb = Callable[..., tuple[int, str]]

STAYING: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCluster",
    "metadata": {"name": "staying"},
    "spec": {
        "authOptions": {"mode": "token"},
        "rayVersion": "2.60.0",
        "headGroupSpec": {
            "rayStartParams": {},
            "template": {"spec": {"containers": [{"name": "ray", "image": "eoray.test/eoray:1"}]}},
        },
    },
}


@pytest.fixture(scope="module", autouse=True)
def _aged(kuberay_crds: Path, api: client.ApiClient) -> Iterator[None]:
    """Definitions of an older KubeRay, until the last test has ended."""
    assert kuberay_crds.is_dir()
    kinds = {f"{kind}.ray.io": fields(api, f"{kind}.ray.io") for kind in ("rayclusters", "rayjobs")}
    # an object that is written meanwhile would lose the fields
    wait_until(lambda: not living(api), 60, "the end of what other tests run")
    try:
        for name, found in kinds.items():
            edit(api, name, [{"op": "remove", "path": path} for path in found])
        wait_until(lambda: not (is_told(api) or is_taken(api)), 60, "the older definitions")
        yield
    finally:
        for name, found in kinds.items():
            back = [{"op": "add", "path": path, "value": found[path]} for path in found]
            edit(api, name, back)
        wait_until(lambda: is_told(api) and is_taken(api), 60, "today's definitions")


def fields(api: client.ApiClient, name: str) -> dict[str, Any]:
    """Where a definition has the fields that an older KubeRay lacks, and what it says of them."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    found = ask(api, path)
    assert found["spec"]["group"] == "ray.io"
    return dict(places(found["spec"], "/spec"))


def places(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(JSON pointer, value) of the fields, at any depth."""
    pairs = enumerate(part) if isinstance(part, list) else part.items()
    for key, value in pairs:
        if key in FEATURES:
            yield f"{path}/{key}", value
        elif isinstance(value, (dict, list)):
            yield from places(value, f"{path}/{key}")


def edit(api: client.ApiClient, name: str, operations: list[dict[str, Any]]) -> None:
    """Change a definition."""
    client.ApiextensionsV1Api(api).patch_custom_resource_definition(
        name, operations, _content_type="application/json-patch+json"
    )


def ask(api: client.ApiClient, path: str) -> Any:
    """What stands at a path of the server."""
    asked = api.param_serialize("GET", path, auth_settings=["BearerToken"])
    return json.loads(api.call_api(*asked).read())


def living(api: client.ApiClient) -> list[str]:
    """Ray's objects that an operator may still write."""
    custom: Any = client.CustomObjectsApi(api)
    clusters = custom.list_cluster_custom_object("ray.io", "v1", "rayclusters")["items"]
    jobs = custom.list_cluster_custom_object("ray.io", "v1", "rayjobs")["items"]
    ended = ("Complete", "Failed")
    jobs = [job for job in jobs if job.get("status", {}).get("jobDeploymentStatus") not in ended]
    return [found["metadata"]["name"] for found in (*clusters, *jobs)]


def is_told(api: client.ApiClient) -> bool:
    """Whether the server's description of RayJobs has the field; it is made a little later."""
    schemas = ask(api, "/openapi/v3/apis/ray.io/v1")["components"]["schemas"]
    (job,) = (part for name, part in schemas.items() if name.endswith(".RayJob"))
    return '"authOptions":' in json.dumps(job)


def is_taken(api: client.ApiClient) -> bool:
    """Whether the server takes an object with the field."""
    try:
        create(api, "default", field_validation="Strict", dry_run="All")
    except client.ApiException as refused:
        if "unknown field" not in str(refused.body):
            raise
        return False
    return True


def create(api: client.ApiClient, namespace: str, **how: Any) -> Any:
    """Make the cluster that stays."""
    custom = client.CustomObjectsApi(api)
    return custom.create_namespaced_custom_object(
        "ray.io", "v1", namespace, "rayclusters", STAYING, **how
    )


@pytest.fixture
def verb(
    kubernetes_cluster: Kubernetes,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Verb:
    """Run a verb as an administrator: (exit code, what it printed)."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    kubeconfig = str(kubernetes_cluster.kubeconfig)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", kubeconfig)
    monkeypatch.setenv("EORAY_NAMESPACE", namespace)

    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, words)))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    content = yaml.safe_load(RUN_FILE)
    content["cluster"]["workers"] = [{"name": "readers", "max": 3}]
    path.write_text(yaml.safe_dump(content))
    return path


def made(kubernetes: Kubernetes, namespace: str) -> list[str]:
    """What a submission could have left."""
    kinds = "rayjobs,rayclusters,configmaps,poddisruptionbudgets,pods,secrets"
    words = ("get", kinds, "--namespace", namespace, "--output", "json")
    items = json.loads(kubernetes.kubectl(*words))["items"]
    names = [f"{item['kind']}/{item['metadata']['name']}" for item in items]
    return [name for name in names if name != "ConfigMap/kube-root-ca.crt"]


def test_doctor_names_each_field_and_the_kuberay_that_brought_it(verb: Verb) -> None:
    code, said = verb("doctor", "--service-account", "default")
    assert code == 1
    for field in FEATURES:
        assert f"no {field}; upgrade to KubeRay 1.6" in said


@pytest.mark.parametrize("how", [[], ["--dry-run"], ["--phases"]])
def test_submit_is_refused_with_the_field_and_the_remedy(
    verb: Verb, run_file: Path, kubernetes_cluster: Kubernetes, namespace: str, how: list[str]
) -> None:
    code, said = verb("submit", run_file, "--no-estimate", *how)
    assert code == 4
    assert 'unknown field "spec.rayClusterSpec.authOptions"' in said
    assert "upgrade its KubeRay to 1.6 or newer, `eoray doctor` says what it lacks" in said
    assert made(kubernetes_cluster, namespace) == []


def test_cluster_whose_field_was_dropped_in_silence_gets_no_run(
    verb: Verb,
    run_file: Path,
    kubernetes_cluster: Kubernetes,
    api: client.ApiClient,
    namespace: str,
) -> None:
    kept = create(api, namespace, field_validation="Ignore")  # as clients that do not ask for more
    assert "authOptions" not in kept["spec"]
    code, said = verb(
        "submit", run_file, "--no-estimate", "--cluster", "staying", "cluster.image=null"
    )
    assert code == 2
    assert "asks for no token" in said
    assert "with KubeRay 1.6 or newer: an older one drops the field" in said
    assert made(kubernetes_cluster, namespace) == ["RayCluster/staying"]
    kubernetes_cluster.kubectl("delete", "raycluster", "staying", "--namespace", namespace)
