"""KubeRay's resource definitions as strict JSON schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_validator(folder: Path, plural: str) -> jsonschema.Draft202012Validator:
    """Read the definition of a resource such as ``rayclusters``, version v1."""
    definition = yaml.load((folder / f"ray.io_{plural}.yaml").read_text(), Loader=LOADER)
    (served,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema = to_json_schema(served["schema"]["openAPIV3Schema"])
    # A structural schema leaves the object's metadata open.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def to_json_schema(node: Any) -> Any:
    """Turn a structural OpenAPI schema into one that also refuses unknown fields.

    Integer-or-string and nullable become types; what has a default is not required, since the
    API server fills it in first.
    """
    if isinstance(node, list):
        return [to_json_schema(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    schema = {key: to_json_schema(value) for key, value in node.items() if key != "properties"}
    if node.get("x-kubernetes-int-or-string"):
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]
    if node.get("nullable"):
        schema["type"] = [node["type"], "null"]
    properties = node.get("properties")
    if isinstance(properties, dict):
        schema["properties"] = {name: to_json_schema(value) for name, value in properties.items()}
        schema["required"] = [
            name for name in node.get("required", []) if "default" not in properties[name]
        ]
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    return schema
