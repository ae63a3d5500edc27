"""Imports point one way, and importing eoray stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import eoray

PACKAGE = Path(eoray.__file__).parent

ORDER = (
    {"errors", "masking"},
    {"log", "sentinel2", "grid", "timeline", "buckets", "kernels"},
    {"config"},
    {"storage", "execute", "k8s"},
    {"catalog"},
    {"reading"},
    {"cube"},
    {"chips"},
    {"models"},
    {"train"},
    {"infer"},
    {"change", "stats"},
    {"assess"},
    {"publish"},
    {"report"},
    {"run"},
    {"cli"},
    {"__main__"},
)
"""From the bottom to the top: a module imports only what stands in a row above its own."""

RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

MAKES_DEMOS = {"eoray.run.demo", "eoray.cli.demo"}
"""The only modules of the product that may use synthetic data."""

MAY_IMPORT = {
    "ray": (
        "eoray.execute",
        "eoray.chips.dataset",
        "eoray.train.trainer",
        "eoray.infer.predict",
        "eoray.run.client",
        "eoray.run.meters",
    ),
    "torch": ("eoray.chips", "eoray.models", "eoray.train", "eoray.infer"),
}
"""Who may import a heavy package at all: modules, or packages with all that is in them."""


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from eoray import storage` imports a module, whatever it looks like
            inner = module == "eoray"
            yield from ((f"{module}.{a.name}" for a in node.names) if inner else (module,))


@cache
def _modules() -> dict[str, frozenset[str]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {_name(f): frozenset(_imports(ast.parse(f.read_text("utf-8")))) for f in files}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _is_within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _against_order(module: str, imported: str) -> bool:
    own, other = _part(module), _part(imported)
    if not imported.startswith("eoray.") or own in {"", other} or imported == "eoray.__version__":
        return False
    if other == "testing":
        return module not in MAKES_DEMOS
    if own == "testing":
        return RANK[other] >= RANK["run"]
    return RANK[other] >= RANK[own]


def test_every_part_has_its_place_in_the_order() -> None:
    parts = {_part(module) for module in _modules()} - {"", "testing"}
    assert parts
    assert parts <= RANK.keys()


def test_imports_point_one_way() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, names in _modules().items()
        for imported in sorted(names)
        if _against_order(module, imported)
    ]
    assert wrong == []


def test_a_wrong_direction_is_noticed() -> None:
    assert _against_order("eoray.grid", "eoray.cube.read")
    assert _against_order("eoray.storage", "eoray.execute")
    assert _against_order("eoray.cube.read", "eoray.testing.archive")
    assert not _against_order("eoray.cube.read", "eoray.cube.layout")
    assert not _against_order("eoray.cube.read", "eoray.grid")


def test_modules_import_each_other_by_absolute_name() -> None:
    relative = [m for m, names in _modules().items() for name in names if name.startswith(".")]
    assert relative == []


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_heavy_packages_have_few_importers(package: str) -> None:
    importers = {
        m for m, names in _modules().items() if any(n.split(".")[0] == package for n in names)
    }
    assert importers
    assert [m for m in sorted(importers) if not _is_within(m, MAY_IMPORT[package])] == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("eoray", {"torch", "ray", "numpy", "pydantic", "xarray"}),
        ("eoray.cli", {"torch", "ray", "numpy", "pydantic", "structlog", "xarray"}),
        ("eoray.config", {"torch", "ray", "geopandas", "rasterio", "xarray"}),
    ],
)
def test_importing_stays_light(module: str, heavy: set[str]) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(json.loads(done.stdout))
    assert module in loaded
    assert loaded & heavy == set()


def test_public_names_are_found_where_they_live() -> None:
    for name in eoray.__all__:
        assert getattr(eoray, name)
    assert dir(eoray) == eoray.__all__


def test_an_unknown_public_name_is_named() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_cubes'"):
        _ = eoray.open_cubes
