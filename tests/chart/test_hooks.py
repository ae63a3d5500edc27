"""Before uninstall, in `helm test`, and what is printed after an install."""

from __future__ import annotations

import pytest

from tests.chart.release import Manifest, Release, render


def test_uninstall_looks_for_unfinished_runs_first(defaults: Release) -> None:
    job = defaults.one("Job", "eoray-unfinished")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert container["command"] == ["eoray", "list", "--unfinished", "--exit-code"]


def test_uninstall_stops_at_the_first_refusal(defaults: Release) -> None:
    spec = defaults.one("Job", "eoray-unfinished")["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")


def test_a_second_uninstall_replaces_the_refused_ones_job(defaults: Release) -> None:
    annotations = defaults.one("Job", "eoray-unfinished")["metadata"]["annotations"]
    policies = annotations["helm.sh/hook-delete-policy"].split(",")
    assert policies == ["before-hook-creation", "hook-succeeded"]


def test_uninstall_may_go_unchecked() -> None:
    assert render({"uninstall": {"protectRuns": False}}).named("Job") == {}


def test_helm_test_asks_the_doctor(defaults: Release) -> None:
    pod = defaults.one("Pod", "eoray-doctor")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["containers"][0]["command"] == ["eoray", "doctor", "--in-cluster"]


def test_helm_test_tries_no_storage_unless_a_run_file_is_given(defaults: Release) -> None:
    assert "eoray-access" not in defaults.named("Pod")


RUN_FILE = """\
version: 1
name: slovenia
store: s3://maps/slovenia
time: $(DAYS)
"""


def access_pod(cluster: str = "", **values: Manifest) -> Manifest:
    given = {"test": {"runFile": RUN_FILE + cluster}, **values}
    return render(given).one("Pod", "eoray-access")


def test_helm_test_tries_storage_as_a_pod_that_does_the_work(full: Release) -> None:
    pod = full.one("Pod", "eoray-access")
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["serviceAccountName"] == "mapper"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["image"] == "registry.example.org/maps:1"
    assert container["command"][:3] == ["eoray", "doctor", "env:EORAY_RUN_FILE"]
    assert "--access" in container["command"]
    assert container["envFrom"] == [
        {"secretRef": {"name": "storage"}}, {"secretRef": {"name": "catalogue"}},
    ]  # fmt: skip
    assert {"name": "AWS_REGION", "value": "eu-central-1"} in container["env"]


def test_what_the_run_file_does_not_name_is_the_charts() -> None:
    spec = access_pod()["spec"]
    (container,) = spec["containers"]
    assert spec["serviceAccountName"] == "eoray-ray"
    assert container["image"].startswith("eoray/eoray:")
    assert "envFrom" not in container


def test_a_run_on_the_cluster_that_stays_has_its_identity() -> None:
    ray = {"existingSecret": "store", "env": {"AWS_REGION": "eu-1"}}
    named = "cluster: {ray_cluster: eoray, service_account: other, secrets: [other]}"
    spec = access_pod(named, ray=ray)["spec"]
    (container,) = spec["containers"]
    assert spec["serviceAccountName"] == "eoray-ray"
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert {"name": "AWS_REGION", "value": "eu-1"} in container["env"]


def test_the_run_file_reaches_the_pod_as_it_is_written() -> None:
    (container,) = access_pod()["spec"]["containers"]
    (text,) = (e["value"] for e in container["env"] if e["name"] == "EORAY_RUN_FILE")
    assert text == RUN_FILE.replace("$(", "$$(")  # which Kubernetes takes back


@pytest.mark.parametrize(
    ("profile", "line"),
    [
        ("full", 'cluster "eoray": token mode'),
        ("full", "eoray submit run.yaml"),
        ("full", "eoray list"),
        ("production", "each run gets a cluster and a token of its own"),
        ("production", "Images are named by tag"),
        ("defaults", "helm test eoray -n maps"),
        ("defaults", "may read every Secret of this namespace"),
        ("defaults", "network policies: on"),
    ],
)
def test_notes_say_the_state_and_the_next_commands(
    releases: dict[str, Release], profile: str, line: str
) -> None:
    assert line in releases[profile].notes


def test_notes_warn_of_missing_policies() -> None:
    assert "policies: OFF" in render({"networkPolicy": {"enabled": False}}).notes


def test_notes_are_silent_about_tags_when_digests_are_given(full: Release) -> None:
    assert "Images are named by tag" not in full.notes
