"""Windows of a stored cube against the arrays that went in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.cube.layout import zone_shape
from eoray.cube.read import CubeReader, CubeSource, open_reader
from eoray.cube.resample import mean_2x2
from eoray.errors import ConfigError, StoreError
from eoray.grid import PixelWindow, Tile
from eoray.sentinel2 import FILL


@pytest.fixture(scope="module")
def reader(scene_cube: Any) -> CubeReader:
    return CubeReader(CubeSource(scene_cube.url))


def at(tile: Tile, resolution_m: int, row: int, col: int, height: int, width: int) -> PixelWindow:
    """A window counted from the first tile's corner."""
    origin = tile.window(resolution_m)
    return PixelWindow(origin.row_off + row, origin.col_off + col, height, width)


def stored(cube: Any, path: str, positions: list[int]) -> np.ndarray:
    fill: dict[str, int] = {"reflectance": FILL, "quality": 1, "mask": 32, "scl": 0}
    first = cube.arrays[path, cube.keys[0]]
    empty = np.full_like(first, fill[path.split("/")[1]])
    return np.stack([cube.arrays.get((path, cube.keys[i]), empty) for i in positions])


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    path=st.sampled_from(["10m/reflectance", "20m/reflectance", "10m/quality", "20m/mask"]),
)
def test_any_window_and_any_order_of_dates_equals_what_was_written(
    scene_cube: Any, reader: CubeReader, data: st.DataObject, path: str
) -> None:
    resolution_m = int(path[:2])
    px = 10_240 // resolution_m
    row, col = data.draw(st.integers(0, px - 1)), data.draw(st.integers(0, 2 * px - 1))
    height = data.draw(st.integers(1, min(200, px - row)))
    width = data.draw(st.integers(1, min(200, 2 * px - col)))
    positions = data.draw(st.lists(st.integers(0, 3), max_size=5))
    window = at(scene_cube.tiles[0], resolution_m, row, col, height, width)
    values = reader.read(
        "s2", 32, path[4:], window=window, resolution_m=resolution_m, index=positions
    )
    if positions:
        expected = stored(scene_cube, path, positions)
        np.testing.assert_array_equal(values, expected[..., row : row + height, col : col + width])
    assert values.shape[0] == len(positions)
    assert values.dtype == scene_cube.arrays[path, scene_cube.keys[0]].dtype


def test_no_index_reads_all_dates_in_stored_order(scene_cube: Any, reader: CubeReader) -> None:
    window = at(scene_cube.tiles[0], 20, 100, 500, 5, 30)  # across the tile border
    values = reader.read("s2", 32, window=window, resolution_m=20)
    expected = stored(scene_cube, "20m/reflectance", [0, 1, 2, 3])[..., 100:105, 500:530]
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    "window",
    [
        PixelWindow(-5, -7, 10, 10),
        PixelWindow(zone_shape(20)[0] - 3, zone_shape(20)[1] - 2, 10, 10),
        PixelWindow(-50, 100, 10, 10),
        PixelWindow(zone_shape(20)[0] + 40, 100, 10, 10),
        PixelWindow(100, -50, 10, 10),
    ],
)
def test_windows_that_leave_the_zone_are_fill_there(
    reader: CubeReader, window: PixelWindow
) -> None:
    values = reader.read("s2", 32, window=window, resolution_m=20, index=[0])
    assert values.shape == (1, 2, 10, 10)
    assert (values == FILL).all()
    mask = reader.read("s2", 32, "mask", window=window, resolution_m=20, index=[0])
    assert (mask == 32).all()
    assert not reader.read_clear(32, window=window, resolution_m=20, index=[0]).any()


def bilinear(plane: np.ndarray) -> np.ndarray:
    """Whole-picture oracle of 20 -> 10 m: pad with fill, add four shifted copies."""
    valid = np.pad(plane != FILL, 1)
    data = np.pad(np.where(plane == FILL, 0, plane).astype("f8"), 1)
    height, width = plane.shape
    out = np.full((2 * height, 2 * width), FILL, np.int16)
    for dy in (0, 1):
        for dx in (0, 1):
            total, weight = np.zeros(plane.shape), np.zeros(plane.shape)
            for sy, wy in ((0, 3), (2 * dy - 1, 1)):
                for sx, wx in ((0, 3), (2 * dx - 1, 1)):
                    at = np.s_[1 + sy : 1 + sy + height, 1 + sx : 1 + sx + width]
                    total += wy * wx * data[at]
                    weight += wy * wx * valid[at]
            mean = np.rint(total / np.maximum(weight, 1))
            out[dy::2, dx::2] = np.where(plane == FILL, FILL, mean)
    return out


@pytest.mark.parametrize("corner", [(0, 0), (31, 1001), (600, 1501)])
def test_bands_at_10_m_follow_the_rule_across_tiles(
    scene_cube: Any, reader: CubeReader, corner: tuple[int, int]
) -> None:
    row, col = corner
    window = at(scene_cube.tiles[0], 10, row, col, 61, 45)
    bands = ["B12", "B03", "B8A"]
    values = reader.read_bands("s2", 32, bands=bands, window=window, resolution_m=10, index=[2, 0])
    part = np.s_[row : row + 61, col : col + 45]
    fine = stored(scene_cube, "10m/reflectance", [2, 0])
    coarse = stored(scene_cube, "20m/reflectance", [2, 0])
    for date in (0, 1):
        np.testing.assert_array_equal(values[date, 1], fine[date, 0][part])
        np.testing.assert_array_equal(values[date, 0], bilinear(coarse[date, 1])[part])
        np.testing.assert_array_equal(values[date, 2], bilinear(coarse[date, 0])[part])


def test_bands_at_20_m_follow_the_rule(scene_cube: Any, reader: CubeReader) -> None:
    window = at(scene_cube.tiles[0], 20, 5, 470, 90, 81)
    values = reader.read_bands(
        "s2", 32, bands=("B8A", "B08"), window=window, resolution_m=20, index=[1, 3]
    )
    part = np.s_[:, 5:95, 470:551]
    np.testing.assert_array_equal(
        values[:, 0], stored(scene_cube, "20m/reflectance", [1, 3])[:, 0][part]
    )
    np.testing.assert_array_equal(
        values[:, 1], mean_2x2(stored(scene_cube, "10m/reflectance", [1, 3])[:, 1])[part]
    )
    assert (values[1] == FILL).all()


@pytest.mark.parametrize("resolution_m", [10, 20])
def test_clear_needs_usable_quality_and_an_empty_mask(
    scene_cube: Any, reader: CubeReader, resolution_m: int
) -> None:
    window = at(scene_cube.tiles[0], resolution_m, 33, 487, 21, 45)
    clear = reader.read_clear(32, window=window, resolution_m=resolution_m, index=[0, 2, 3])
    mask = stored(scene_cube, "20m/mask", [0, 2, 3])
    factor = 20 // resolution_m
    mask = mask.repeat(factor, axis=1).repeat(factor, axis=2)
    quality = stored(scene_cube, f"{resolution_m}m/quality", [0, 2, 3])
    expected = (mask == 0) & (quality & 0b1011 == 0)
    np.testing.assert_array_equal(clear, expected[:, 33:54, 487:532])
    assert clear[:2].any()
    assert not clear[2].any()


def test_reader_tells_what_stands_in_the_store(scene_cube: Any, reader: CubeReader) -> None:
    assert reader.products() == ["s2"]
    assert reader.zones("s2") == [32]
    assert reader.zones("map") == []
    assert reader.tiles("s2") == list(scene_cube.tiles)
    assert reader.bands("s2", 32) == list(scene_cube.bands)
    assert reader.resolutions("s2", 32) == [10, 20]
    assert reader.attrs("s2")["bands"] == list(scene_cube.bands)
    assert [name for name, _ in reader.arrays("s2", 32, 20)] == [
        "mask",
        "quality",
        "reflectance",
        "scl",
    ]


def test_a_band_that_is_not_stored_is_named(reader: CubeReader) -> None:
    with pytest.raises(ConfigError, match=r"has no band B02; it holds B03, B08, B8A, B12"):
        reader.read_bands(
            "s2", 32, bands=["B02"], window=PixelWindow(0, 0, 2, 2), resolution_m=10, index=[0]
        )


def test_an_array_that_is_not_stored_is_named(reader: CubeReader) -> None:
    with pytest.raises(StoreError, match="holds no array 's2/z32/20m/cloud'"):
        reader.read("s2", 32, "cloud", window=PixelWindow(0, 0, 2, 2), resolution_m=20)
    with pytest.raises(StoreError, match=r"no product 'map'.*it holds s2"):
        reader.attrs("map")


def test_reader_opens_once_per_process_and_names_its_snapshot(scene_cube: Any) -> None:
    source = CubeSource(scene_cube.url)
    first = open_reader(source)
    assert open_reader(CubeSource(scene_cube.url)) is first
    pinned = open_reader(CubeSource(scene_cube.url, first.snapshot))
    assert pinned.snapshot == first.snapshot


def test_an_earlier_snapshot_shows_the_earlier_store(
    coarse_store: Any, make_entry: Any, make_result: Any
) -> None:
    coarse_store.append([make_entry(1)])
    before = coarse_store.reader().snapshot
    coarse_store.write(make_result(Tile(32, 457, 48), "take-01", 4))
    assert CubeReader(CubeSource(coarse_store.url, before)).tiles("coarse") == []
    assert coarse_store.reader().tiles("coarse") == [Tile(32, 457, 48)]


def test_a_store_without_a_commit_is_called_empty(coarse_store: Any) -> None:
    with pytest.raises(StoreError, match="is empty; run the cube stage"):
        coarse_store.reader().products()
