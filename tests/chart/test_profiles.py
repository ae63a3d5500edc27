"""Every profile renders to objects that an API server takes."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import helm_python
import kubernetes_validate
import pytest

from tests.chart.crds import load_validator
from tests.chart.release import CHART, NAMESPACE, PROFILES, Release, merge, read_profile, render

EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES)
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding"}
UNCHECKED = ("ray.io/", "monitoring.coreos.com/")
CHANGES_EACH_TIME = r"\b(lookup|rand\w+|gen[A-Z]\w+|now|uuidv4|derivePassword|htpasswd)\b"


@EVERY_PROFILE
def test_strict_lint_finds_nothing(profile: str) -> None:
    values = merge(read_profile(profile), {"skipCrdCheck": True})
    report = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE)
    assert [m for m in report["messages"] if m["severity"] > 1] == []
    assert report["errors"] == []


@EVERY_PROFILE
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_core_objects_fit_the_strict_schema(
    releases: dict[str, Release], profile: str, version: str
) -> None:
    core = [o for o in releases[profile].objects if not o["apiVersion"].startswith(UNCHECKED)]
    assert core
    for manifest in core:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_strict_schema_refuses_a_misspelt_field(full: Release) -> None:
    manifest = copy.deepcopy(full.one("CronJob", "weekly-slovenia"))
    manifest["spec"]["concurencyPolicy"] = manifest["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes_validate.ValidationError, match="concurencyPolicy"):
        kubernetes_validate.validate(manifest, "1.34", strict=True)


@pytest.mark.parametrize("profile", ["local", "gpu", "full"])
def test_the_cluster_fits_the_operators_schema(
    releases: dict[str, Release], crd_folder: Path, profile: str
) -> None:
    validator = load_validator(crd_folder, "rayclusters")
    cluster = releases[profile].one("RayCluster")
    assert [error.message for error in validator.iter_errors(cluster)] == []


def test_the_operators_schema_refuses_a_misspelt_field(full: Release, crd_folder: Path) -> None:
    cluster = copy.deepcopy(full.one("RayCluster"))
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["container"] = []
    errors = load_validator(crd_folder, "rayclusters").iter_errors(cluster)
    assert [error.message for error in errors] == [
        "Additional properties are not allowed ('container' was unexpected)"
    ]


@EVERY_PROFILE
def test_rendering_twice_gives_equal_bytes(releases: dict[str, Release], profile: str) -> None:
    assert json.dumps(render(profile=profile).texts) == json.dumps(releases[profile].texts)


def test_no_template_calls_a_function_that_changes_each_time() -> None:
    templates = {path: path.read_text() for path in (CHART / "templates").rglob("*.*")}
    calls = {path.name: re.findall(r"{{.*?}}", text, re.DOTALL) for path, text in templates.items()}
    found = {name for name, code in calls.items() if re.search(CHANGES_EACH_TIME, " ".join(code))}
    # NOTES names the verb run-now.
    assert found - {"NOTES.txt"} == set()


@EVERY_PROFILE
def test_every_object_lies_in_the_releases_namespace(
    releases: dict[str, Release], profile: str
) -> None:
    spaced = [o for o in releases[profile].objects if o["kind"] not in CLUSTER_SCOPED]
    assert {o["metadata"]["namespace"] for o in spaced} == {NAMESPACE}


@EVERY_PROFILE
def test_every_object_is_labelled_as_ours(releases: dict[str, Release], profile: str) -> None:
    labels = [o["metadata"]["labels"] for o in releases[profile].objects]
    assert {each["app.kubernetes.io/part-of"] for each in labels} == {"eoray"}


@EVERY_PROFILE
def test_no_secret_is_rendered(releases: dict[str, Release], profile: str) -> None:
    assert releases[profile].named("Secret") == {}


def test_names_are_used_once(full: Release) -> None:
    names = [(o["kind"], o["metadata"]["name"]) for o in full.objects]
    assert len(names) == len(set(names))


def test_a_cluster_without_ray_is_refused() -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"does not serve ray\.io/v1: install"):
        render({"skipCrdCheck": False})


def test_defaults_render_no_cluster_schedule_or_quota(defaults: Release) -> None:
    kinds = {o["kind"] for o in defaults.objects}
    assert kinds.isdisjoint({"RayCluster", "CronJob", "ResourceQuota", "PodMonitor"})
