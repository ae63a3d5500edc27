"""The chart as Helm renders it, and questions about what came out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "eoray"
NAMESPACE = "maps"
PROFILES = {
    "defaults": None,
    "local": CHART / "values-local.yaml",
    "production": CHART / "values-production.yaml",
    "gpu": CHART / "values-gpu.yaml",
    "full": Path(__file__).with_name("full.yaml"),
}

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """Rendered templates."""

    texts: dict[str, str]
    """Rendered text by path of its template."""

    @cached_property
    def objects(self) -> list[Manifest]:
        """All objects, in the order of the templates' paths."""
        texts = (text for path, text in sorted(self.texts.items()) if path.endswith(".yaml"))
        return [doc for text in texts for doc in yaml.safe_load_all(text) if doc]

    @property
    def notes(self) -> str:
        """What `helm install` prints."""
        return next(text for path, text in self.texts.items() if path.endswith("NOTES.txt"))

    def named(self, kind: str) -> dict[str, Manifest]:
        """Objects of one kind by name."""
        return {o["metadata"]["name"]: o for o in self.objects if o["kind"] == kind}

    def one(self, kind: str, name: str = "eoray") -> Manifest:
        """Give the object of this kind and name."""
        return self.named(kind)[name]

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """Pod templates, each with the path that leads to it."""
        for o in self.objects:
            at = f"{o['kind']}/{o['metadata']['name']}"
            match o["kind"]:
                case "Pod":
                    yield at, o
                case "Job":
                    yield at, o["spec"]["template"]
                case "CronJob":
                    yield at, o["spec"]["jobTemplate"]["spec"]["template"]
                case "RayCluster":
                    yield f"{at}/head", o["spec"]["headGroupSpec"]["template"]
                    for group in o["spec"]["workerGroupSpecs"]:
                        yield f"{at}/{group['groupName']}", group["template"]

    def containers(self) -> Iterator[tuple[str, Manifest]]:
        """Containers, init containers and the autoscaler, which the operator adds to the head."""
        for at, pod in self.pods():
            for key in ("initContainers", "containers"):
                for container in pod["spec"].get(key, []):
                    yield f"{at}/{container['name']}", container
        for name, cluster in self.named("RayCluster").items():
            if cluster["spec"]["enableInTreeAutoscaling"]:
                yield f"RayCluster/{name}/autoscaler", cluster["spec"]["autoscalerOptions"]


def read_profile(name: str) -> Manifest:
    """Read the values of a profile."""
    path = PROFILES[name]
    return {} if path is None else dict(yaml.safe_load(path.read_text()))


def merge(below: Manifest, above: Manifest) -> Manifest:
    """Lay mappings over each other as Helm does: lists and scalars are replaced."""
    merged = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def render(values: Manifest | None = None, *, profile: str = "defaults") -> Release:
    """Render as `helm template eoray helm/eoray -n maps -f PROFILE` does, without a cluster."""
    merged = merge(merge(read_profile(profile), {"skipCrdCheck": True}), values or {})
    chart = helm_python.Chart.load(CHART)
    return Release(chart.render(merged, name="eoray", namespace=NAMESPACE))
