"""KubeRay's schemas as a strict validator: what an API server checks of fields and types."""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


def crd_folder() -> Path:
    """Folder of KubeRay's CRDs, beside the shared data."""
    data = Path(os.environ.get("EORAY_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = data.parent / "kuberay-crds"
    if not folder.is_dir():
        pytest.skip(f"KubeRay's CRDs are not at hand: {folder} is no folder")
    return folder


@cache
def _schema(kind: str) -> dict[str, Any]:
    text = (crd_folder() / f"ray.io_{kind}.yaml").read_text()
    crd = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return _strict(schema)


def problems(body: dict[str, Any], kind: str) -> list[str]:
    """What the schema has against an object; field paths first."""
    from jsonschema import Draft202012Validator

    schema = _schema(kind)
    plain = copy.deepcopy(body)
    plain.pop("metadata")
    errors = Draft202012Validator(schema).iter_errors(plain)
    return sorted(f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of a structural schema, with unknown fields refused."""
    made = dict(schema)
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if made.pop("nullable", False) and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _strict(made[key])
    if "properties" in made:
        made["properties"] = {k: _strict(v) for k, v in made["properties"].items()}
        free = "additionalProperties" in made or schema.get("x-kubernetes-preserve-unknown-fields")
        if not free:
            made["additionalProperties"] = False
    made.pop("format", None)
    return made
