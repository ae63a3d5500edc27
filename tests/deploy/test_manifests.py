"""The plain manifests are what the chart makes with its default values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.render_manifests import FOLDER, write_manifests
from tests.chart.release import Manifest, render

OBJECTS: list[Manifest] = [
    body
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for body in yaml.safe_load_all(path.read_text())
]


def _key(body: Manifest) -> tuple[str, str]:
    return body["kind"], body["metadata"]["name"]


def test_files_are_those_that_make_manifests_writes() -> None:
    written = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert written == write_manifests(), "write them again: make manifests"


def test_every_object_of_the_chart_is_there_but_hooks() -> None:
    charts = {_key(o): o for o in render().objects}
    hooks = {
        k for k, o in charts.items() if "helm.sh/hook" in (o["metadata"].get("annotations") or {})
    }
    assert hooks
    assert {_key(o) for o in OBJECTS} - {("Namespace", "eoray")} == set(charts) - hooks


@pytest.mark.parametrize("kind", ["Role", "NetworkPolicy"])
def test_rights_and_policies_are_the_charts(kind: str) -> None:
    field = {"Role": "rules", "NetworkPolicy": "spec"}[kind]
    ours = {o["metadata"]["name"]: o[field] for o in OBJECTS if o["kind"] == kind}
    assert ours == {name: o[field] for name, o in render().named(kind).items()}


def test_objects_live_in_the_namespace_that_the_files_make() -> None:
    placed: set[Any] = {o["metadata"].get("namespace") for o in OBJECTS if o["kind"] != "Namespace"}
    assert placed == {"eoray"}
    (namespace,) = (o for o in OBJECTS if o["kind"] == "Namespace")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


def test_no_object_claims_to_belong_to_a_release() -> None:
    labels = [set(o["metadata"].get("labels", {})) for o in OBJECTS]
    assert not set().union(*labels) & {"app.kubernetes.io/managed-by", "helm.sh/chart"}


def test_kustomize_takes_every_file() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    there = {path.name for path in FOLDER.iterdir()} - {"kustomization.yaml"}
    assert (set(listed), len(listed)) == (there, len(there))


def test_objects_pass_the_strict_schemas_of_kubernetes() -> None:
    for body in OBJECTS:
        kubernetes_validate.validate(body, "1.34", strict=True)


def test_files_are_yaml_that_a_reader_can_apply_alone() -> None:
    for path in sorted(Path(FOLDER).glob("*.yaml")):
        assert path.read_text().startswith("# Written by `make manifests`")
