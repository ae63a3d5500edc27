"""A cube against its source files, on a path of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from eoray.cli import main
from eoray.cube import store
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import StoreError
from eoray.run import load_run
from eoray.run.source_check import SourceReport, check_source, judge_offset
from eoray.sentinel2 import Scl
from eoray.testing import ArchiveOptions, write_archive

PART = ["time=2021-05-15/2021-06-20", "run.executor=inline"]
PLAIN = "cube: {bands: [B04, B12], composite: {method: none}}"
RUN_FILE = f"""\
version: 1
name: run
aoi: archive/aoi.geojson
time: 2021-01-01/2021-12-31
task: cube
source:
  catalog: archive/catalog.json
  lineage: {{baseline_min: "02.00", mixed: true}}
store: out
{PLAIN}
"""


@pytest.fixture(scope="module")
def made(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store; the archive is a copy, which tests may spoil."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(archive, folder / "archive")
    path = folder / "run.yaml"
    path.write_text(RUN_FILE)
    load_run(path, PART).execute(["cube"])
    return folder


def test_a_cube_is_what_its_source_gives(made: Path) -> None:
    report = check_source(str(made / "out"), samples=6)
    assert report.samples > 0
    assert report.values > 10_000
    assert (report.problems, report.unread) == ([], [])
    assert check_source(str(made / "out"), samples=6) == report


ALL_BANDS = "bands: [B02, B03, B04, B05, B06, B07, B08, B8A, B11, B12]"


def check_whole(folder: Path, time: str) -> SourceReport:
    """Make a cube of all bands and compare every value of it; all that is there is compared."""
    path = folder / "run.yaml"
    path.write_text(RUN_FILE.replace("bands: [B04, B12]", ALL_BANDS))
    load_run(path, [f"time={time}"]).execute(["cube"])
    report = check_source(str(folder / "out"), samples=None)
    reader = CubeReader(CubeSource(str(folder / "out")))
    ledger, keys = reader.ledger("s2", 32), reader.entries("s2", 32).key
    receipts = [ledger.get(tile, key) for tile in reader.tiles("s2") for key in keys]
    assert report.samples == sum(r is not None and r.n_valid > 0 for r in receipts)
    assert (report.problems, report.unread) == ([], [])
    return report


def test_every_value_of_the_record_is_the_sources(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive, tmp_path / "archive")
    report = check_whole(tmp_path, "2020-01-01/2022-12-31")
    assert report.samples > 50
    assert report.values > 50 * 512 * 512 * 10


@pytest.mark.slow
def test_every_value_of_a_larger_place_is_the_sources(tmp_path: Path) -> None:
    """Parts, tiles and blocks that meet."""
    options = ArchiveOptions(size_px=1536, years=(2021,), dates_per_year=12)
    write_archive(tmp_path / "archive", options, workers=2)
    report = check_whole(tmp_path, "2021-01-01/2021-12-31")
    assert report.samples > 50


def test_a_value_that_is_not_the_sources_is_named(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    repository = store.open_repository(str(tmp_path / "out" / "cube.icechunk"))
    session = repository.writable_session(store.BRANCH)
    array: Any = zarr.open_group(session.store, mode="a")["s2/z32/10m/reflectance"]
    row, col = 391 * 1024, 70 * 1024
    part = array[:, :, row : row + 1024, col : col + 1024]
    part[part != -32768] += 1000
    array[:, :, row : row + 1024, col : col + 1024] = part
    session.commit("an offset applied twice")
    report = check_source(str(tmp_path / "out"), samples=6)
    assert report.mismatches
    assert all(" values of B04 are not those of S2" in line for line in report.mismatches)
    assert "s2 tile z32r0391c070 at S2" in report.mismatches[0]


def test_check_prints_what_was_compared(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["check", str(made / "out"), "--source", "--sample", "3"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "as its ledger and its source say" in said
    assert re.search(r"source +\d+ values in 3 windows compared\n", said)
    assert re.search(r"granules +differ by B04 0\.00\d\d, B12 0\.00\d\d, dates compared: 2\n", said)


def test_files_that_are_gone_prove_nothing(made: Path, tmp_path: Path) -> None:
    (made / "archive").rename(tmp_path / "away")
    try:
        report = check_source(str(made / "out"), samples=2)
    finally:
        (tmp_path / "away").rename(made / "archive")
    assert report.problems == []
    assert len(report.unread) == 2


def test_a_repository_without_its_runs_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out" / "cube.icechunk", tmp_path / "cube.icechunk")
    with pytest.raises(StoreError, match="no scenes whose items are known"):
        check_source(str(tmp_path))


@pytest.mark.parametrize(
    ("level", "offset", "baseline", "doubt"),
    [
        (1080, -1000, "05.10", ""),
        (80, -1000, "05.10", "out of them already"),
        (80, 0, "05.10", ""),  # a provider that has taken it out
        (1080, 0, "05.10", "in them still"),
        (80, 0, "02.12", ""),
        (1080, 0, "99.99", ""),
    ],
)
def test_dark_ground_tells_whether_the_offset_is_in_the_pixels(
    level: int, offset: int, baseline: str, doubt: str
) -> None:
    scl = np.full((40, 40), Scl.VEGETATION, np.uint8)
    scl[:20] = Scl.WATER
    dn = np.where(scl == Scl.WATER, level, 3000).astype(np.uint16)
    dn[0, :20] = 0
    said = judge_offset(dn, scl, offset, baseline)
    assert doubt in said
    assert bool(said) == bool(doubt)
    assert judge_offset(dn[:, :2], scl[:, :2], offset, baseline) == ""
