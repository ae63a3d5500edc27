"""Holes are data: recorded with their reasons, read again, and then as if they had never been."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

import eoray
from eoray.cli import main
from eoray.cube.check import check_cube
from eoray.cube.holes import UNKNOWN
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import ConfigError, ReadError
from eoray.run import failures, load_run
from eoray.run.failures import FailedShareError
from eoray.run.heal import HoleFilter
from eoray.testing import PositionOptions, write_position_archive
from tests.conftest import REPOSITORY

BEGIN, END = "20210515", "20210715"
PART = ["time=2021-05-15/2021-07-15", "run.retries=0", "run.executor=inline"]
PLAIN = "cube: {bands: [B04, B8A], composite: {method: none}, max_failed_share: 1}"
MONTHLY = PLAIN.replace("method: none", "method: median, period: P1M, min_obs: 1")
N_FILES = 3
"""Two bands and SCL, of each of two granules."""


@pytest.fixture(scope="module")
def clean(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Check of the run without failures."""
    folder = tmp_path_factory.mktemp("clean")
    path = write_file(folder, archive, MONTHLY)
    load_run(path, PART).execute(["cube"])
    return check_cube(str(folder / "out")).to_dict()


def write_file(folder: Path, archive: Path, more: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(f"""\
version: 1
name: run
aoi: {archive / "aoi.geojson"}
time: 2021-01-01/2021-12-31
task: cube
source:
  catalog: {archive / "catalog.json"}
  lineage: {{baseline_min: "02.00", mixed: true}}
store: {folder / "out"}
{more}
""")
    return path


Broken = tuple[Path, list[Path]]


def break_archive(archive: Path, folder: Path) -> Broken:
    """Run file of an archive that lacks a band of its second date and the SCL of its last."""
    catalog = folder / "archive"
    shutil.copytree(archive, catalog)
    items = sorted(p for p in (catalog / "sentinel-2-c1-l2a").glob("*32UQU_2021*") if p.is_dir())
    days = [p for p in items if BEGIN <= day_of(p) <= END]
    lost = [days[1] / "B04.tif", days[-1] / "SCL.tif"]
    for path in lost:
        path.rename(path.with_suffix(".away"))
    return write_file(folder, catalog, PLAIN), lost


@pytest.fixture
def broken(archive: Path, tmp_path: Path) -> Broken:
    """Not run yet."""
    return break_archive(archive, tmp_path)


@pytest.fixture(scope="module")
def holed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """A run that left two holes; its store stays as it is."""
    path, lost = break_archive(archive, tmp_path_factory.mktemp("holed"))
    load_run(path, PART).execute(["cube"])
    return path, lost


def day_of(item: Path) -> str:
    return item.name.split("_")[2][:8]


def give_back(paths: list[Path]) -> None:
    for path in paths:
        path.with_suffix(".away").rename(path)


def store_of(path: Path) -> str:
    return str(path.parent / "out")


def test_a_healed_cube_is_that_of_a_run_without_failures(
    broken: Broken, clean: dict[str, Any]
) -> None:
    path, lost = broken
    path.write_text(path.read_text().replace(PLAIN, MONTHLY))
    first = load_run(path, PART).execute(["cube"])
    assert first.stages["cube"]["holes"]["reads"] == 2
    assert check_cube(store_of(path)).checksum != clean["checksum"]
    give_back(lost)
    healed = load_run(path, PART).heal()
    assert healed.stages["cube"]["tasks"] == 4  # two dates, and the composites of their months
    assert "holes" not in healed.stages["cube"]
    found = check_cube(store_of(path)).to_dict()
    assert found["checksum"] == clean["checksum"]
    assert found == clean
    assert load_run(path, PART).heal().stages == {}


def test_products_remake_the_tiles_that_were_touched_and_no_other(tmp_path: Path) -> None:
    options = PositionOptions(tiles=(1, 2), n_dates=1, bands=("B04", "B8A"), granule_px=1200)
    folder = write_position_archive(tmp_path / "archive", options).parent
    west, east = options.tile_list
    path = write_file(tmp_path, folder, MONTHLY)
    text = path.read_text().replace(str(folder / "aoi.geojson"), f"[{west.id}, {east.id}]")
    path.write_text(text.replace("2021-01-01/2021-12-31", "2023-01-01/2023-01-31"))
    overrides = ["run.retries=0", "run.executor=inline", "source.lineage.mixed=false"]
    (file,) = folder.glob("*/*UAB*/B04.tif")
    file.rename(file.with_suffix(".away"))
    load_run(path, overrides).execute(["cube"])
    (letter,) = eoray.failed_reads(store_of(path))
    assert letter.tile == east
    product = "s2-P1M-median"
    before = receipts_of(path, product)
    give_back([file])
    report = load_run(path, overrides).heal()
    assert report.stages["cube"]["tasks"] == 2  # the row without its western tile, one composite
    after = receipts_of(path, product)
    assert after[west] == before[west]
    assert after[east].digest != before[east].digest


def receipts_of(path: Path, product: str) -> dict[Any, Any]:
    ledger = CubeReader(CubeSource(store_of(path))).ledger(product, 32)
    return {one.tile: one for entry in ledger.entries for one in ledger.receipts(entry)}


def test_holes_are_named_with_their_reasons(
    holed: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    path, lost = holed
    letters = eoray.failed_reads(store_of(path))
    assert [(one.item_id, one.band, one.reason, one.attempts) for one in letters] == [
        (lost[0].parent.name, "B04", "missing", 1),
        (lost[1].parent.name, "SCL", "missing", 1),
    ]
    report = check_cube(store_of(path))
    assert (report.ok, report.holes) == (True, tuple(letters))
    assert report.n_masked is not None
    assert 0 < report.n_masked < report.n_valid
    with pytest.raises(SystemExit):
        main(["heal", str(path), *PART, "--list", "--json"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(one["band"], one["reason"]) for one in said["failed_reads"]] == [
        ("B04", "missing"),
        ("SCL", "missing"),
    ]
    assert (said["tiles"], said["tasks"]) == (2, 2)


def test_run_leaves_holes_alone_and_says_so(
    holed: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = holed
    before = check_cube(store_of(path), quick=True)
    with pytest.raises(SystemExit):
        main(["cube", str(path), *PART])
    said = capsys.readouterr().out
    assert "2 failed reads left holes in 2 tiles of a date" in said
    assert "eoray heal" in said
    assert check_cube(store_of(path), quick=True) == before


def test_a_filter_chooses_holes(holed: Broken) -> None:
    path, lost = holed
    run = load_run(path, PART)

    def bands(**wanted: Any) -> set[str]:
        return {one.band for one in run.find_holes(HoleFilter(**wanted)).letters}

    assert bands() == bands(reasons=("503", "missing")) == {"B04", "SCL"}
    assert bands(reasons=("503",)) == set()
    assert bands(items=(lost[0].parent.name,)) == {"B04"}
    assert bands(since="2021-06-15") == {"SCL"}
    assert len(run.find_holes(HoleFilter(since="2021-06-15")).again) == 1


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="since 'May' is no day"):
        HoleFilter(since="May")


def test_what_fails_again_stays_with_all_its_attempts(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lost = broken
    with monkeypatch.context() as patch:  # as cubes were written before reasons were kept
        patch.setattr("eoray.run.driver.write_letters", lambda *_: None)
        load_run(path, PART).execute(["cube"])
    assert {one.reason for one in eoray.failed_reads(store_of(path))} == {UNKNOWN}
    load_run(path, PART).heal()
    give_back(lost[:1])
    healed = load_run(path, [*PART, "run.retries=1"]).heal()
    assert healed.stages["cube"]["holes"] == {"tiles": 1, "reads": 1}
    (letter,) = eoray.failed_reads(store_of(path))
    assert (letter.item_id, letter.band) == (lost[1].parent.name, "SCL")
    assert (letter.reason, letter.attempts) == ("missing", 3)


FAULTS = runpy.run_path(str(REPOSITORY / "benchmarks" / "read" / "faults.py"))


QUICK = (("cog", "lie"), ("jp2", "503"))


def of_kind(files: str, kind: str) -> Any:
    marks = () if (files, kind) in QUICK else (pytest.mark.slow,)
    return pytest.param(files, kind, marks=marks)


@pytest.mark.parametrize(
    ("files", "kind"),
    [of_kind(files, kind) for files, kinds in FAULTS["KINDS"].items() for kind in kinds],
)
def test_no_hole_is_unflagged_and_each_heals(
    archive: Path, tmp_path: Path, files: str, kind: str
) -> None:
    days = "2021-05-15/2021-06-30" if (files, kind) in QUICK else "2021-05-15/2021-09-30"
    row = FAULTS["measure"](archive, tmp_path, kind, share=0.1, days=days, files=files)
    assert row["holes"] > 1
    assert 0 < row["pixels_that_differ"] <= row["pixels_flagged"]
    assert row["unflagged"] == 0
    assert row["healed"]
    # GDAL does not tell more, and a server that told it 503 is left alone for a moment
    by_gdal = set() if files == "cog" else {"broken", "timeout"}
    assert set(row["reasons"]) <= REASONS.get(kind, {kind}) | by_gdal


REASONS = {
    "truncate": {"truncated"},
    "hang-up": {"connection"},
    "reset": {"connection", "truncated"},
    "slow": {"timeout"},
    "corrupt": {"broken"},
    "lie": {"mismatch"},
}


def test_errors_raise_ends_the_run_at_the_first_failed_read(
    broken: Broken,
) -> None:
    path, _ = broken
    with pytest.raises(ReadError, match="B04 of item") as caught:
        load_run(path, PART).execute(["cube"], errors="raise")
    assert caught.value.reason == "missing"
    with pytest.raises(ConfigError, match="errors 'stop' is unknown"):
        load_run(path, PART).execute(["cube"], errors="stop")


def test_a_broken_source_ends_the_run_early_and_loses_nothing(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lost = broken
    for file in lost[0].parent.parent.glob("*/B04.tif"):
        file.unlink()
    monkeypatch.setattr(failures, "MIN_READS", 4 * N_FILES)
    run = load_run(path, [*PART, "cube.max_failed_share=0.3"])
    with pytest.raises(FailedShareError, match=r"4 of the first 12 reads failed \(33%\)") as caught:
        run.execute(["cube"])
    assert "4 times) for reason 'missing' at local files" in str(caught.value)
    ledger = CubeReader(CubeSource(store_of(path))).ledger("s2", 32)
    assert sum(len(ledger.receipts(entry)) for entry in ledger.entries) == 2
    assert len(eoray.failed_reads(store_of(path))) == 4
