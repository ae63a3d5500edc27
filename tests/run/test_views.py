"""Sun, view and terrain through whole runs: scenes stay observed, and what is asked for is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from eoray.change import ChangeParameters
from eoray.change.stage import plan_change
from eoray.cube.check import check_cube
from eoray.cube.nbar import METHOD, nadir_factor, read_views
from eoray.cube.open import open_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import CatalogError, ConfigError, StoreError
from eoray.grid import PixelWindow
from eoray.run import load_run
from eoray.sentinel2 import FILL, Mask, Quality

PLAIN = "cube: {bands: [B04, B8A], composite: {method: none}}"
WINTER = "time=2021-11-01/2022-02-28"
ARRAYS = ("reflectance", "scl", "quality", "mask")


@pytest.fixture(scope="module")
def winter(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of four months of two bands."""
    folder = tmp_path_factory.mktemp("winter")
    (folder / "run.yaml").write_text(f"""\
version: 1
name: run
aoi: {archive / "aoi.geojson"}
time: 2021-11-01/2022-02-28
task: cube
source: {{catalog: {archive / "catalog.json"}, lineage: {{baseline_min: "02.00", mixed: true}}}}
store: out
cube: {{bands: [B04, B8A], composite: {{method: median, period: P4M}}}}
""")
    load_run(folder / "run.yaml").execute(["cube"], executor="inline")
    return folder


def reader_of(folder: Path) -> CubeReader:
    return CubeReader(CubeSource(str(folder / "out")))


def whole(reader: CubeReader) -> PixelWindow:
    (tile,) = (tile for tile in reader.tiles("s2") if tile.zone == 32)
    return tile.window(20)


def test_open_cube_shows_reflectance_from_above_lazily(winter: Path) -> None:
    url = str(winter / "out")
    where: dict[str, Any] = {"zone": 32, "resolution_m": 20}
    seen = open_cube(url, bands=["B8A"], **where)
    above = open_cube(url, bands=["B8A"], nbar=True, **where)
    assert above.reflectance.attrs["nbar"] == METHOD
    assert "nbar" not in seen.reflectance.attrs
    reader = reader_of(winter)
    clear = seen.isel(x=slice(0, 64), y=slice(0, 64))
    for t in range(0, seen.sizes["time"], 5):
        before = clear.reflectance[t, 0].values
        after = above.isel(x=slice(0, 64), y=slice(0, 64)).reflectance[t, 0].values
        np.testing.assert_array_equal(before == FILL, after == FILL)
        table = reader.entries("s2", 32)
        views = read_views(reader, "s2", 32, [int(table.index[t])])
        top = whole(reader)
        window = PixelWindow(top.row_off, top.col_off, 64, 64)
        factor = nadir_factor(views, bands=["B8A"], zone=32, window=window, resolution_m=20)[0]
        wanted = np.where(before == FILL, FILL, np.floor(before * factor + 0.5))
        np.testing.assert_allclose(after, wanted, atol=1)  # a product on the edge of rounding
        assert (after == wanted).mean() > 0.999


def test_only_scenes_can_be_seen_from_above(winter: Path) -> None:
    with pytest.raises(ConfigError, match="has no view of its own"):
        open_cube(str(winter / "out"), 20, zone=32, product="s2-P4M-median", nbar=True)


def test_a_composite_from_above_stands_beside_the_plain_one(winter: Path) -> None:
    run = load_run(winter / "run.yaml", ["cube.nbar=true"])
    report = run.execute(["cube"], executor="inline")
    assert report.stages["cube"]["composite"] == "s2-P4M-median-nbar"
    assert report.stages["cube"]["skipped"] > 0  # scenes are the same
    reader = reader_of(winter)
    assert reader.attrs("s2-P4M-median-nbar")["nbar"] == METHOD
    assert "nbar" not in reader.attrs("s2-P4M-median")
    assert "nbar" not in reader.attrs("s2")
    window = whole(reader)
    plain, above = (
        reader.read(name, 32, window=window, resolution_m=20)[-1, 0].astype(float)
        for name in ("s2-P4M-median", "s2-P4M-median-nbar")
    )
    known = plain != FILL
    np.testing.assert_array_equal(above != FILL, known)
    share = above[known] / plain[known]
    assert 0.9 < np.median(share) < 1.1
    assert (above[known] != plain[known]).mean() > 0.5


def test_change_is_judged_from_above_where_several_orbits_see(winter: Path) -> None:
    reader = reader_of(winter)
    tiles = [tile for tile in reader.tiles("s2") if tile.zone == 32]
    wishes: tuple[tuple[Literal["auto"] | bool, bool], ...] = (
        (False, False),
        ("auto", True),
        (True, True),
    )
    for said, wanted in wishes:
        _, rows = plan_change(reader, tiles, allow_mixed=True, nbar=said)
        assert [row.nbar for row in rows] == [wanted]
    _, (row,) = plan_change(reader, tiles, allow_mixed=True, max_sun_zenith=70.0)
    _, (full,) = plan_change(reader, tiles, allow_mixed=True)
    table = reader.entries("s2", 32)
    low = set(table.key[table.columns["sun_zenith"] > 70.0].tolist())
    assert 0 < len(low & set(full.scenes)) == len(full.scenes) - len(row.scenes)
    assert ChangeParameters().as_attrs().keys().isdisjoint({"nbar", "max_sun_zenith"})


def test_scenes_under_a_low_sun_are_left_out_by_name(write_run: Any) -> None:
    run = load_run(write_run(more=PLAIN), [WINTER, "cube.max_sun_zenith=70"])
    plan = run.plan().to_dict()
    low = [one for one in plan["skipped"] if "sun zenith" in one["reason"]]
    assert low
    everything = load_run(write_run(more=PLAIN), [WINTER]).plan().to_dict()
    assert plan["scenes"] == everything["scenes"] - len(low)
    with pytest.raises(CatalogError, match=r"cube.max_sun_zenith 20"):
        load_run(write_run(more=PLAIN), [WINTER, "cube.max_sun_zenith=20"]).plan()


def test_terrain_sets_bits_and_nothing_else(winter: Path, tmp_path: Path, write_run: Any) -> None:
    plain = reader_of(winter)
    (tile,) = (tile for tile in plain.tiles("s2") if tile.zone == 32)
    seen = plain.read("s2", 32, "quality", window=tile.window(20), resolution_m=20)
    rows, cols = np.nonzero((seen & int(Quality.NO_DATA) == 0).any(axis=0))
    x = tile.bounds[0] + 20 * (cols.min() + 16)
    y = tile.bounds[3] - 20 * (rows.min() + 24)
    height = np.full((300, 300), 400, np.float32)
    height[:, 150:] += 600  # a cliff through the middle of what is seen, its face to the west
    profile: dict[str, Any] = {"driver": "GTiff", "width": 300, "height": 300, "count": 1}
    place = from_origin(x - 150 * 20, y + 150 * 20, 20, 20)
    dem = tmp_path / "dem.tif"
    with rasterio.open(
        dem, "w", dtype="float32", crs="EPSG:32632", transform=place, **profile
    ) as file:
        file.write(height, 1)

    path = write_run(more=PLAIN)
    load_run(path, [WINTER, f"cube.dem={dem}"]).execute(["cube"], executor="inline")
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    assert reader.attrs("s2")["dem"].startswith("dem.tif ")
    assert "dem" not in plain.attrs("s2")
    arrays = {
        name: [
            one.read("s2", 32, name, window=tile.window(20), resolution_m=20)
            for one in (plain, reader)
        ]
        for name in ARRAYS
    }
    for name in ("reflectance", "scl"):
        before, after = arrays[name]
        np.testing.assert_array_equal(before, after)
    before, after = arrays["quality"]
    terrain = (after & int(Quality.TERRAIN)) > 0
    np.testing.assert_array_equal(after & ~np.uint8(Quality.TERRAIN), before)
    assert terrain.any()
    assert not (terrain & (before & int(Quality.NO_DATA) > 0)).any()
    before, after = arrays["mask"]
    np.testing.assert_array_equal(after & ~np.uint8(Mask.SHADOW), before & ~np.uint8(Mask.SHADOW))
    new = (after & int(Mask.SHADOW)) > (before & int(Mask.SHADOW))
    assert new.any()
    assert (terrain[new]).all()
    counts = [check_cube(str(folder)) for folder in (winter / "out", tmp_path / "out")]
    assert [one.problems for one in counts] == [(), ()]
    assert counts[0].n_valid == counts[1].n_valid
    assert counts[0].n_masked < counts[1].n_masked  # type: ignore[operator]
    with pytest.raises(StoreError, match="was made with dem ="):
        load_run(path, [WINTER]).execute(["cube"], executor="inline")


def test_a_dem_is_looked_at_before_the_catalogue(write_run: Any, tmp_path: Path) -> None:
    run = load_run(write_run(more=PLAIN), [f"cube.dem={tmp_path / 'no.tif'}"])
    with pytest.raises(ConfigError, match=r"no.tif' cannot be opened"):
        run.plan()
