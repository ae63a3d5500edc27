"""What holds for every pod and container, also those that come with a schedule or a hook."""

from __future__ import annotations

import pytest

from tests.chart.release import Manifest, Release, render

RELEASES = {
    "full": render(profile="full"),
    "local": render(profile="local"),
    "gpu": render(profile="gpu"),
    "production": render(profile="production"),
}
CONTAINERS = {
    f"{profile}:{at}": container
    for profile, release in RELEASES.items()
    for at, container in release.containers()
}
PODS = {f"{profile}:{at}": pod for profile, r in RELEASES.items() for at, pod in r.pods()}
EVERY_CONTAINER = pytest.mark.parametrize("at", CONTAINERS)
EVERY_POD = pytest.mark.parametrize("at", PODS)


def test_all_containers_are_looked_at() -> None:
    assert {at for at in CONTAINERS if at.startswith("full:")} == {
        "full:CronJob/weekly-slovenia/submit",
        "full:CronJob/paused/submit",
        "full:Job/eoray-unfinished/submit",
        "full:Pod/eoray-access/submit",
        "full:Pod/eoray-doctor/submit",
        "full:RayCluster/eoray/head/ray-head",
        "full:RayCluster/eoray/cpu/ray-worker",
        "full:RayCluster/eoray/gpu/ray-worker",
        "full:RayCluster/eoray/autoscaler",
    }


@EVERY_CONTAINER
@pytest.mark.parametrize("kind", ["requests", "limits"])
@pytest.mark.parametrize("resource", ["cpu", "memory", "ephemeral-storage"])
def test_every_container_has_requests_and_limits(at: str, kind: str, resource: str) -> None:
    assert CONTAINERS[at]["resources"][kind][resource]


@EVERY_CONTAINER
def test_every_container_is_restricted(at: str) -> None:
    assert CONTAINERS[at]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


@EVERY_POD
def test_every_pod_is_restricted(at: str) -> None:
    security = PODS[at]["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert PODS[at]["spec"].keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"})


@EVERY_POD
def test_volumes_are_bounded_and_never_the_hosts(at: str) -> None:
    volumes = PODS[at]["spec"]["volumes"]
    assert {kind for v in volumes for kind in v} <= {"name", "emptyDir", "configMap"}
    assert all("sizeLimit" in v["emptyDir"] for v in volumes if "emptyDir" in v)


@EVERY_POD
def test_tmp_is_writable(at: str) -> None:
    mounts = {m["mountPath"] for c in PODS[at]["spec"]["containers"] for m in c["volumeMounts"]}
    assert "/tmp" in mounts


@EVERY_POD
def test_every_pod_is_one_that_the_policies_select(at: str) -> None:
    assert PODS[at]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "eoray"


@pytest.mark.parametrize("at", [at for at in PODS if at.startswith("full:")])
def test_pull_secrets_reach_every_pod(at: str) -> None:
    assert PODS[at]["spec"]["imagePullSecrets"] == [{"name": "mirror"}]


@pytest.mark.parametrize("account", ["eoray-ray", "eoray-submit"])
def test_pull_secrets_reach_both_accounts(full: Release, account: str) -> None:
    assert full.one("ServiceAccount", account)["imagePullSecrets"] == [{"name": "mirror"}]


def _submit_pod(at: str) -> Manifest:
    return dict(PODS[at]["spec"])


SUBMIT_PODS = ["CronJob/weekly-slovenia", "Job/eoray-unfinished", "Pod/eoray-doctor"]


@pytest.mark.parametrize("at", SUBMIT_PODS)
def test_submit_pods_use_the_submit_account_with_its_token(at: str) -> None:
    spec = _submit_pod(f"full:{at}")
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == (
        "eoray-submit",
        True,
    )


@pytest.mark.parametrize("at", SUBMIT_PODS)
def test_submit_pods_know_their_namespace(at: str) -> None:
    env = {e["name"]: e for e in _submit_pod(f"full:{at}")["containers"][0]["env"]}
    field = env["EORAY_NAMESPACE"]["valueFrom"]["fieldRef"]
    assert field == {"fieldPath": "metadata.namespace"}


@pytest.mark.parametrize("at", SUBMIT_PODS)
def test_submit_pods_take_their_environment_and_place_from_values(at: str) -> None:
    spec = _submit_pod(f"full:{at}")
    (container,) = spec["containers"]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "catalogue"}}]
    assert spec["nodeSelector"] == {"pool": "small"}
    assert spec["tolerations"] == [{"key": "small", "operator": "Exists"}]
    assert spec["priorityClassName"] == "high"


def test_a_submit_pod_asks_for_little() -> None:
    resources = CONTAINERS["production:Pod/eoray-doctor/submit"]["resources"]
    assert (resources["requests"]["cpu"], resources["requests"]["memory"]) == ("50m", "256Mi")
