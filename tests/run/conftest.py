"""A small synthetic archive and run files for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eoray.testing import CLASSES, ArchiveOptions, write_archive

RunFileWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 datatakes of a square of 640 m, enough for four waves."""
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, ArchiveOptions(size_px=64), workers=1)
    return folder


@pytest.fixture
def write_run(archive: Path, tmp_path: Path) -> RunFileWriter:
    """Write a run file; further lines of YAML may follow."""

    def write(name: str = "run", *, store: str = "out", more: str = "", task: str = "cube") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"""\
version: 1
name: {name}
aoi: {archive / "aoi.geojson"}
time: 2020-01-01/2022-12-31
task: {task}
source:
  catalog: {archive / "catalog.json"}
  lineage: {{baseline_min: "02.00", mixed: true}}
store: {tmp_path / store}
run: {{wave_shards: 90}}
fit:
  labels: {archive / "labels.geojson"}
  classes: [{", ".join(CLASSES)}]
{more}
""")
        return path

    return write
