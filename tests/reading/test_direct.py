"""Windows of scenes are what the cube stage writes, whoever reads the files."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from eoray.cube.direct import SceneReader
from eoray.cube.mask import MaskRecipe
from eoray.cube.plan import plan_scenes
from eoray.cube.scenes import PRODUCT, CubeRecipe, SceneWorker
from eoray.errors import ConfigError, GridError, ReadError
from eoray.grid import (
    TOP_M,
    PixelWindow,
    Tile,
    blocks_of_tiles,
    box_lonlat,
    owner_mask,
    tiles_of_geometry,
)
from eoray.reading import window as reading
from eoray.reading.cog import CogFile
from eoray.reading.engines import ENGINES, StackstacFile, resolve_engine
from eoray.sentinel2 import Quality

BANDS = ("B03", "B04", "B8A")
RECIPE = CubeRecipe(BANDS, MaskRecipe(), {"mixed": False}, "sentinel-2-c1-l2a")
TILES = [Tile(32, 400, 70), Tile(32, 400, 71), Tile(32, 401, 71)]
"""Three of four: the fourth is not planned."""

FILLS = {"quality": 1, "scl": 0, "mask": 32, "reflectance": -32768}

# both libraries multiply affines the old way
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning"),
]


@dataclass(frozen=True)
class Pass:
    """A datatake, and what the cube stage makes of it over a block of 2 x 2 tiles."""

    scenes: tuple[Any, ...]
    reader: SceneReader
    written: dict[str, np.ndarray]
    origin: PixelWindow
    """The block, in pixels of 20 m."""

    def window(self, top: int, left: int, height: int, width: int, level: int) -> PixelWindow:
        k = 20 // level
        return PixelWindow(
            self.origin.row_off * k + top, self.origin.col_off * k + left, height, width
        )

    def expect(self, array: str, level: int, window: PixelWindow) -> np.ndarray:
        k = 20 // level
        top = window.row_off - self.origin.row_off * k
        left = window.col_off - self.origin.col_off * k
        whole: np.ndarray = self.written[f"{level}m/{array}"]
        return whole[..., top : top + window.height, left : left + window.width]


def read(found: Pass, array: str, window: PixelWindow, level: int) -> np.ndarray:
    read = found.reader.read
    values = read(PRODUCT, 32, array, window=window, resolution_m=level, index=[0])
    return np.asarray(values[0])


def make_pass(scenes: list[Any], **fields: Any) -> Pass:
    entries, rows = plan_scenes(scenes, TILES)
    (block, _), *_ = blocks_of_tiles(TILES, 4)
    written: dict[str, np.ndarray] = {}
    for row in rows:
        for result in SceneWorker(RECIPE, retries=0)(row):
            for path, values in result.arrays.items():
                level, array = path.split("m/")
                k = 20 // int(level)
                shape = (*values.shape[:-2], 1024 * k, 1024 * k)
                whole = written.setdefault(path, np.full(shape, FILLS[array], values.dtype))
                at = result.tile.window(int(level))
                top = at.row_off - block.row * 512 * k
                left = at.col_off - block.col * 512 * k
                whole[..., top : top + at.height, left : left + at.width] = values
    reader = SceneReader(
        RECIPE, 32, tuple(entries[32]), (tuple(rows),), key="one", retries=0, **fields
    )
    return Pass(tuple(scenes), reader, written, block.window(20))


def clouds(arrays: dict[str, np.ndarray]) -> None:
    arrays["SCL"][120:150, 100:400] = 9
    arrays["SCL"][160:180, 300:420] = 3
    arrays["SCL"][200:210, 300:310] = 0
    arrays["B03"][350:360, 170:390] = 65535
    arrays["B04"][200:210, :] = 0


@pytest.fixture(scope="module")
def seen(granules_at: Any) -> Pass:
    """Two granules of the zone that overlap, one of them clouded, and one of the next zone."""
    row, col = TILES[0].row * 512, TILES[0].col * 512
    near = granules_at.write(
        "32TQS_a", row=row - 40, col=col - 60, height=700, width=800, patch=clouds
    )
    far = granules_at.write("32TQT_b", row=row + 300, col=col + 90, height=600, width=500, number=1)
    over = Transformer.from_crs(32632, 32633, always_xy=True)
    x, y = over.transform((col + 500) * 20, TOP_M - (row + 500) * 20)
    beyond = granules_at.write(
        "33TTM_c",
        row=int((TOP_M - y) / 20) - 250,
        col=int(x / 20) - 250,
        height=700,
        width=800,
        zone=33,
        number=2,
    )
    return make_pass([near, far, beyond])


def test_pass_holds_what_can_differ(seen: Pass) -> None:
    quality, mask = seen.written["10m/quality"], seen.written["20m/mask"]
    present = Quality(int(np.bitwise_or.reduce(quality, axis=None)))
    for name in ("NO_DATA", "SATURATED", "GRANULE_EDGE", "FOREIGN_ZONE", "OTHER_GRANULE"):
        assert Quality[name] in present
    assert set(np.unique(mask)) >= {0, 1, 2, 16, 32}


WINDOWS = st.tuples(
    st.integers(-40, 1000), st.integers(-40, 1000), st.integers(1, 600), st.integers(1, 600)
)


@settings(max_examples=12, deadline=None)
@given(box=WINDOWS, level=st.sampled_from([10, 20]), data=st.data())
def test_any_window_is_what_the_cube_stage_writes(
    seen: Pass, box: tuple[int, int, int, int], level: int, data: st.DataObject
) -> None:
    arrays = ["reflectance", "quality"] + (["scl", "mask"] if level == 20 else [])
    array = data.draw(st.sampled_from(arrays))
    top, left = max(0, box[0]), max(0, box[1])
    window = seen.window(top, left, box[2] // 2 + 1, box[3], level)
    found = read(seen, array, window, level)
    expected = np.full_like(found, FILLS[array])
    inside = seen.expect(array, level, window)
    expected[..., : inside.shape[-2], : inside.shape[-1]] = inside
    np.testing.assert_array_equal(found, expected)


def test_one_band_alone_and_bands_of_both_pixels(seen: Pass) -> None:
    window = seen.window(401, 333, 150, 211, 10)
    kwargs: dict[str, Any] = {"window": window, "resolution_m": 10, "index": [0]}
    one = seen.reader.read_bands(PRODUCT, 32, bands=["B04"], **kwargs)
    np.testing.assert_array_equal(one[0], seen.expect("reflectance", 10, window)[1:])
    both = seen.reader.read_bands(PRODUCT, 32, bands=["B8A", "B04"], **kwargs)
    np.testing.assert_array_equal(both[:, 1:], one)
    assert len(np.unique(both[0, 0])) > 1000  # B8A, between its own pixels
    with pytest.raises(ConfigError, match="opened without band B02; they have B03, B04, B8A"):
        seen.reader.read_bands(PRODUCT, 32, bands=["B02"], **kwargs)


def test_only_the_files_that_are_needed_are_read(
    seen: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    plain = CogFile

    def noted(href: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(Path(href).stem.rpartition("_")[2])
        return plain(href, *args, **kwargs)

    monkeypatch.setattr(reading, "CogFile", noted)
    window = seen.window(300, 400, 20, 20, 20)
    read(seen, "scl", window, 20)
    assert set(asked) == {"SCL"}
    asked.clear()
    read(seen, "quality", window, 20)
    assert set(asked) == {"SCL", "B8A"}
    asked.clear()
    seen.reader.read_bands(PRODUCT, 32, bands=["B04"], window=window, resolution_m=20, index=[0])
    assert set(asked) == {"SCL", "B04"}


def test_reader_travels_to_other_processes(seen: Pass) -> None:
    for engine in ENGINES:
        reader = replace(seen.reader, engine=resolve_engine(engine))
        assert pickle.loads(pickle.dumps(reader)) == reader
        assert reader.token == pickle.loads(pickle.dumps(reader)).token
    assert len({replace(seen.reader, engine=resolve_engine(e)).token for e in ENGINES}) == 3


@pytest.mark.parametrize("engine", ENGINES[1:])
@pytest.mark.parametrize(
    "south", [pytest.param(False, marks=pytest.mark.slow), True], ids=["north", "south"]
)
def test_other_engines_copy_the_same_values(granules: Any, engine: str, south: bool) -> None:
    tile = Tile(32, 1000 if south else 400, 40)
    at = tile.window(20)
    scene = granules.write(
        "32MQS_s",
        row=at.row_off + 11,
        col=at.col_off - 9,
        height=230,
        width=530,
        south=south,
        patch=clouds if not south else None,
    )
    entries, rows = plan_scenes([scene], [tile])
    own = SceneReader(RECIPE, 32, tuple(entries[32]), (tuple(rows),), key="s", retries=0)
    other = replace(own, engine=resolve_engine(engine))
    window = PixelWindow(at.row_off + 5, at.col_off + 7, 120, 90)
    finer = PixelWindow(window.row_off * 2 + 1, window.col_off * 2, 100, 77)
    for array, level, part in (
        ("reflectance", 10, finer),
        ("quality", 10, finer),
        ("reflectance", 20, window),
        ("scl", 20, window),
        ("mask", 20, window),
    ):
        asked: dict[str, Any] = {"window": part, "resolution_m": level, "index": [0]}
        found = other.read(PRODUCT, 32, array, **asked)
        np.testing.assert_array_equal(found, own.read(PRODUCT, 32, array, **asked))
    assert not (other.read(PRODUCT, 32, "quality", **asked) & int(Quality.FOREIGN_ZONE)).any()


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_other_engines_read_what_is_warped(seen: Pass, engine: str) -> None:
    other = replace(seen.reader, engine=resolve_engine(engine))
    window = seen.window(700, 620, 200, 200, 20)
    quality = seen.expect("quality", 20, window)
    found = other.read(PRODUCT, 32, window=window, resolution_m=20, index=[0])[0]
    foreign = quality & int(Quality.FOREIGN_ZONE) > 0
    assert foreign.sum() > 5000
    np.testing.assert_array_equal(found, seen.expect("reflectance", 20, window))


def test_a_stack_on_another_grid_is_refused(granules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import stackstac

    scene = granules.write("32TQS_a", row=200_000, col=20_000, height=64, width=64)
    plain = stackstac.stack

    def snapped(*args: Any, **kwargs: Any) -> Any:
        """What it does when left alone: bounds on multiples of the pixel, from zero."""
        return plain(*args, **{**kwargs, "resolution": 60, "snap_bounds": True})

    monkeypatch.setattr(stackstac, "stack", snapped)
    with pytest.raises(GridError, match=r"stackstac laid .*_B04.tif' on shape"):
        StackstacFile(scene.asset("B04")).read(slice(3, 40), slice(0, 30))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_cannot_be_read_is_raised_or_recorded(granules: Any, engine: str) -> None:
    tile = Tile(32, 400, 40)
    at = tile.window(20)
    scene = granules.write("32TQS_a", row=at.row_off, col=at.col_off, height=512, width=512)
    (granules.folder / "32TQS_a_B04.tif").unlink()
    entries, rows = plan_scenes([scene], [tile])
    reader = SceneReader(
        RECIPE,
        32,
        tuple(entries[32]),
        (tuple(rows),),
        key="s",
        retries=0,
        engine=resolve_engine(engine),
    )
    window = PixelWindow(at.row_off * 2, at.col_off * 2, 64, 64)
    asked: dict[str, Any] = {"window": window, "resolution_m": 10, "index": [0]}
    with pytest.raises(ReadError, match="B04 of item 32TQS_a cannot be read"):
        reader.read(PRODUCT, 32, **asked)
    patient = replace(reader, raise_errors=False)
    values = patient.read(PRODUCT, 32, **asked)[0]
    assert (values[1] == -32768).all()
    assert (values[0] > -32768).all()
    quality = patient.read(PRODUCT, 32, "quality", **asked)
    assert (quality == int(Quality.FAILED_READ)).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_is_not_what_its_item_says_is_a_failed_read(granules: Any, engine: str) -> None:
    tile = Tile(32, 400, 40)
    at = tile.window(20)
    scene = granules.write("32TQS_a", row=at.row_off, col=at.col_off, height=512, width=512)
    moved = tuple(
        replace(a, transform=(*a.transform[:2], a.transform[2] + 40.0, *a.transform[3:]))
        for a in scene.assets
    )
    entries, rows = plan_scenes([replace(scene, assets=moved)], [tile])
    reader = SceneReader(
        RECIPE,
        32,
        tuple(entries[32]),
        (tuple(rows),),
        key="s",
        retries=0,
        engine=resolve_engine(engine),
    )
    window = PixelWindow(at.row_off + 10, at.col_off + 10, 8, 8)
    with pytest.raises(ReadError, match=r"the file's transform is .* its item says"):
        reader.read(PRODUCT, 32, "scl", window=window, resolution_m=20, index=[0])


def test_unknown_and_absent_engines_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match="engine 'rasterio' is unknown; engines are eoray, odc-st"
    ):
        resolve_engine("rasterio")
    monkeypatch.setattr("eoray.reading.engines.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="run `pip install stackstac`"):
        resolve_engine("stackstac")


def test_a_granule_over_the_equator_is_copied_into_tiles_of_both_hemispheres(
    granules: Any,
) -> None:
    tiles = [Tile(32, 917, 40), Tile(32, 918, 40)]
    assert [tile.is_south for tile in tiles] == [False, True]
    top, left = tiles[0].row * 512 + 300, 40 * 512 + 17
    recipe = replace(RECIPE, bands=("B8A",))
    for name, south in (("32NQF_n", False), ("32MQE_s", True)):
        box = {"row": top, "col": left, "height": 400, "width": 450}
        scene = granules.write(name, **box, south=south)  # the same files, named either way
        entries, rows = plan_scenes([scene], tiles)
        assert sorted(tile for row in rows for tile in row.tiles) == tiles
        reader = SceneReader(
            recipe, 32, tuple(entries[32]), (tuple(rows),), key="equator", retries=0
        )
        window = PixelWindow(top, left, 400, 450)
        values = reader.read(PRODUCT, 32, window=window, resolution_m=20, index=[0])[0, 0]
        written = granules.written[name]["B8A"].astype("i4") - 1000
        np.testing.assert_array_equal(values, written)
        quality = reader.read(PRODUCT, 32, "quality", window=window, resolution_m=20)
        assert not quality.any()


def test_a_place_in_two_zones_has_each_pixel_of_ground_once(granules: Any) -> None:
    """One granule at a border of zones: copied in its own, warped in the other."""
    to_utm = Transformer.from_crs(4326, 32632, always_xy=True)
    x, y = to_utm.transform(12.0, 46.5)
    row, col = int((TOP_M - y) // 20), int(x // 20)
    scene = granules.write("32TQS_a", row=row - 90, col=col - 100, height=200, width=190)
    place = box_lonlat(11.99, 46.495, 12.01, 46.505)
    tiles = tiles_of_geometry(place)
    entries, rows = plan_scenes([scene], tiles)
    assert sorted(entries) == [32, 33]
    seen: dict[int, float] = {}
    for zone in (32, 33):
        own = tuple(row for row in rows if row.block.zone == zone)
        reader = SceneReader(RECIPE, zone, tuple(entries[zone]), (own,), key="two", retries=0)
        seen[zone] = 0.0
        for tile in (t for row in own for t in row.tiles):
            asked: dict[str, Any] = {"window": tile.window(20), "resolution_m": 20, "index": [0]}
            quality = reader.read(PRODUCT, zone, "quality", **asked)[0]
            there = (quality & int(Quality.NO_DATA)) == 0
            warped = (quality & int(Quality.FOREIGN_ZONE)) > 0
            assert (warped[there] == (zone == 33)).all()
            seen[zone] += float((there & owner_mask(tile, 20)).sum()) * 400
    assert min(seen.values()) > 0.2 * 3800 * 4000
    # a pixel of the border line more or less
    assert sum(seen.values()) == pytest.approx(3800 * 4000, abs=4000 * 20)
