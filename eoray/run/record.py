"""The record of a run beside its outputs: what was asked, what was done, how long it took."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eoray import storage


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where a run keeps things inside its store."""

    store: str
    name: str
    key: str

    @property
    def repository(self) -> str:
        """The Icechunk repository."""
        return storage.join(self.store, storage.REPOSITORY)

    @property
    def outputs(self) -> str:
        """Folder of models, maps and reports of this name."""
        return storage.join(self.store, self.name)

    @property
    def model(self) -> str:
        """The fitted model's package."""
        return storage.join(self.outputs, "model")

    @property
    def snapshot(self) -> str:
        """The frozen items of this run."""
        return storage.join(self.store, "_eoray", "runs", self.key, "items.parquet")

    def fallback(self, number: int) -> str:
        """The frozen items of the same products in a catalogue of ``source.fallback``."""
        name = f"items-fallback-{number}.parquet"
        return storage.join(self.store, "_eoray", "runs", self.key, name)

    @property
    def record(self) -> str:
        """What is known of this run."""
        return storage.join(self.store, "_eoray", "runs", self.key, "record.json")

    @property
    def attempts(self) -> str:
        """What the attempts on a cluster leave, a folder each."""
        return storage.join(self.store, "_eoray", "runs", self.key, "attempts")

    def attempt(self, name: str) -> str:
        """Folder of an attempt: ``record.json``, ``run.yaml``, ``driver.log``."""
        return storage.join(self.attempts, name)

    @property
    def run_file(self) -> str:
        """The resolved run file."""
        return storage.join(self.store, "_eoray", "runs", self.key, "run.yaml")


@dataclass(slots=True)
class RunReport:
    """What a run did, stage by stage."""

    name: str
    key: str
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> ``outputs, tasks, skipped, failed_reads, seconds``."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "name": self.name,
            "key": self.key,
            "stages": self.stages,
            "seconds": round(self.seconds, 2),
        }


def versions() -> dict[str, str]:
    """Versions that a product can depend on."""
    from importlib.metadata import version

    names = ("eoray", "numpy", "rasterio", "zarr", "icechunk", "ray", "torch", "numba")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def read_record(paths: RunPaths) -> dict[str, Any]:
    """What earlier attempts of this run left; empty if there was none."""
    if not storage.exists(paths.record):
        return {}
    record: dict[str, Any] = storage.read_json(paths.record)
    return record


def merge_record(paths: RunPaths, **values: Any) -> dict[str, Any]:
    """Add values to the record; mappings are merged one level deep."""
    record = read_record(paths)
    for name, value in values.items():
        old = record.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            record[name] = {**old, **value}
        else:
            record[name] = value
    storage.write_json(paths.record, record)
    return record
