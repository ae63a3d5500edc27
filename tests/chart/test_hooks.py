"""Before uninstall, in `helm test`, and what is printed after an install."""

from __future__ import annotations

import pytest

from tests.chart.release import Release, render


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
