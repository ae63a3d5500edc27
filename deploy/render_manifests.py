"""Plain manifests of what the chart makes with its default values: ``make manifests``.

Helm's hooks are left out: outside Helm they would be plain Jobs that run at once. So are the labels
that name a release.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "deploy" / "manifests"
NAMESPACE = "eoray"

_OF_RELEASES = ("app.kubernetes.io/managed-by", "helm.sh/chart")

_HEAD = "# Written by `make manifests` from helm/eoray with its default values.\n"


def write_manifests() -> dict[str, str]:
    """Text of each file by its name: one for each part of the chart, and the namespace."""
    parts: dict[str, list[dict[str, Any]]] = {"namespace": [_namespace()]}
    chart = helm_python.Chart.load(REPOSITORY / "helm" / "eoray")
    rendered = chart.render({"skipCrdCheck": True}, name="eoray", namespace=NAMESPACE)
    for path, text in sorted(rendered.items()):
        bodies = [body for body in _read(path, text) if not _is_hook(body)]
        if bodies:
            parts.setdefault(Path(path).parent.name, []).extend(map(_without_release, bodies))
    files = {f"{part}.yaml": _HEAD + _dump(bodies) for part, bodies in parts.items()}
    listed = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return {**files, "kustomization.yaml": _HEAD + _dump([{**listed, "resources": list(files)}])}


def _namespace() -> dict[str, Any]:
    """Whose pods must meet the standard that all of ours meet."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": labels},
    }


def _read(path: str, text: str) -> list[dict[str, Any]]:
    return [b for b in yaml.safe_load_all(text) if b] if path.endswith(".yaml") else []


def _is_hook(body: dict[str, Any]) -> bool:
    return "helm.sh/hook" in (body["metadata"].get("annotations") or {})


def _without_release(body: dict[str, Any]) -> dict[str, Any]:
    for label in _OF_RELEASES:
        body["metadata"].get("labels", {}).pop(label, None)
    return body


def _dump(bodies: list[dict[str, Any]]) -> str:
    text: str = yaml.safe_dump_all(bodies, sort_keys=False, width=100)
    return text


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.glob("*.yaml"):
        file.unlink()
    for name, content in write_manifests().items():
        (FOLDER / name).write_text(content)
