"""Reading back: the checksum is one of content, not of how it came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from eoray.cube import store
from eoray.cube.check import check_cube
from eoray.cube.layout import TileResult
from eoray.cube.mask import MaskRecipe
from eoray.cube.scenes import CubeRecipe, scene_product
from eoray.grid import Tile
from eoray.sentinel2 import Mask, Quality

Make = Callable[..., Any]

TILES = [Tile(32, 400, 50), Tile(32, 400, 51), Tile(33, 9, 9)]


@pytest.fixture
def s2_store(make_spec: Make, tmp_path: Path, request: pytest.FixtureRequest) -> Make:
    """Stores of the name that ``check`` takes for the cube."""
    maker = request.getfixturevalue("coarse_store").__class__

    def make(name: str) -> Any:
        return maker(str(tmp_path / name / "cube.icechunk"), make_spec("s2"))

    return make


def fill(target: Any, make_entry: Make, make_result: Make, *, backwards: bool) -> None:
    """The same content, in one wave in order, or date by date backwards."""
    days = [2, 1] if backwards else [1, 2]
    results = {
        (tile, day): make_result(tile, f"take-{day:02d}", day + tile.col, f"scene {day}")
        for tile in TILES
        for day in (1, 2)
    }
    zones = (33, 32) if backwards else (32, 33)
    if backwards:
        for day in days:
            for zone in zones:
                target.append([make_entry(day)], zone)
                for tile in (t for t in reversed(TILES) if t.zone == zone):
                    target.write(results[tile, day])
    else:
        for zone in zones:
            target.append([make_entry(1), make_entry(2)], zone)
        target.write(*results.values())


def test_checksum_is_that_of_the_content(
    s2_store: Make, make_entry: Make, make_result: Make
) -> None:
    first, second = s2_store("first"), s2_store("second")
    fill(first, make_entry, make_result, backwards=False)
    fill(second, make_entry, make_result, backwards=True)
    reports = [check_cube(target.url) for target in (first, second)]
    assert reports[0] == reports[1]
    assert (reports[0].ok, reports[0].tiles, reports[0].dates) == (True, 3, 2)
    assert check_cube(first.url, quick=True) == reports[0]


@pytest.mark.parametrize("what", ["pixel", "source", "status", "failed"])
def test_any_other_content_has_another_checksum(
    s2_store: Make, make_entry: Make, make_result: Make, what: str
) -> None:
    target = s2_store("cube")
    target.append([make_entry(1)])
    plain = make_result(TILES[0], "take-01", 1)
    target.write(plain)
    before = check_cube(target.url)
    changed = {
        "pixel": make_result(TILES[0], "take-01", 2),
        "source": replace(plain, source="another scene"),
        "status": replace(plain, status=2),
        "failed": replace(plain, n_failed=1),
    }[what]
    target.write(changed)
    after = check_cube(target.url)
    assert after.checksum != before.checksum
    assert after.ok
    assert after.failed_reads == (1 if what == "failed" else 0)


def test_pixels_that_are_not_the_ledgers_are_reported(
    s2_store: Make, make_entry: Make, make_result: Make
) -> None:
    target = s2_store("cube")
    target.append([make_entry(1)])
    target.write(make_result(TILES[0], "take-01", 1))
    session = target.repository.writable_session(store.BRANCH)
    array: Any = zarr.open_group(session.store, mode="a")["s2/z32/640m/flag"]
    array[0, 400 * 16 + 3, 50 * 16 + 4] = 77
    session.commit("a stray writer")
    report = check_cube(target.url)
    assert not report.ok
    assert "s2 tile z32r0400c050 at take-01: pixels hash to" in report.problems[0]
    assert check_cube(target.url, quick=True).ok


@pytest.mark.parametrize(("n_valid", "n_masked"), [(0, 0), (0, 1), (1, 0)])
def test_counts_that_are_not_those_of_the_pixels_are_reported(
    make_store: Make, make_entry: Make, n_valid: int, n_masked: int
) -> None:
    spec = scene_product(CubeRecipe(("B8A",), MaskRecipe(), {"mixed": False}, "c1"))
    target = make_store(spec)
    target.append([make_entry(1, **dict.fromkeys(("period_end", "solar_day", "satellite"), "x"))])
    quality, mask = np.zeros((2, 512, 512), np.uint8)
    quality[:10], mask[:30] = int(Quality.NO_DATA), int(Mask.CLOUD)
    arrays: dict[str, np.ndarray] = {
        "20m/reflectance": np.ones((1, 512, 512), np.int16),
        "20m/scl": np.full((512, 512), 4, np.uint8),
        "20m/quality": quality,
        "20m/mask": mask,
        "10m/quality": quality.repeat(2, 0).repeat(2, 1),
    }
    counted = 502 * 512, 20 * 512
    told = counted[0] + n_valid, counted[1] + n_masked
    target.write(TileResult(TILES[0], "take-01", arrays, 1, told[0], 0, "scene", n_masked=told[1]))
    report = check_cube(target.url)
    assert check_cube(target.url, quick=True).ok
    assert report.ok == (told == counted)
    if not report.ok:
        (problem,) = report.problems
        assert f"{counted[0]} pixels are valid and {counted[1]} of them masked" in problem
        assert f"the ledger says {told[0]} and {told[1]}; make" in problem


def test_used_dates_enter_the_checksum_and_unused_ones_do_not(
    s2_store: Make, make_entry: Make, make_result: Make
) -> None:
    target = s2_store("cube")
    target.append([make_entry(1)])
    target.write(make_result(TILES[0], "take-01", 1))
    before = check_cube(target.url)
    target.append([make_entry(2)])
    assert check_cube(target.url).checksum == before.checksum


def test_other_products_have_checksums_of_their_own(
    s2_store: Make, make_spec: Make, make_entry: Make, make_result: Make
) -> None:
    target = s2_store("cube")
    target.append([make_entry(1)])
    target.write(make_result(TILES[0], "take-01", 1))
    before = check_cube(target.url)
    target.spec = replace(make_spec("map-x"), has_time=False)
    target.append([make_entry(1)])
    target.write(make_result(TILES[1], "take-01", 1))
    after = check_cube(target.url)
    assert after.checksum == before.checksum
    assert sorted(after.products) == ["map-x", "s2"]
    assert (after.tiles, after.ok) == (1, True)


def test_report_is_plain_json(s2_store: Make, make_entry: Make, make_result: Make) -> None:
    import json

    target = s2_store("cube")
    target.append([make_entry(1)])
    target.write(make_result(TILES[0], "take-01", 1))
    report = check_cube(target.url).to_dict()
    assert json.loads(json.dumps(report)) == report
    assert set(report) >= {"ok", "tiles", "dates", "failed_reads", "checksum"}
    assert len(report["checksum"]) == 64


def test_tile_of_fill_is_done_and_hashes_to_nothing(
    s2_store: Make, make_entry: Make, make_result: Make
) -> None:
    target = s2_store("cube")
    target.append([make_entry(1)])
    empty = {
        "640m/value": np.full((2, 16, 16), -32768, np.int16),
        "640m/flag": np.zeros((16, 16), np.uint8),
    }
    result = replace(make_result(TILES[0], "take-01", 1), arrays=empty, n_valid=0, status=3)
    target.write(result)
    report = check_cube(target.url)
    assert (report.ok, report.tiles, report.dates) == (True, 0, 0)
