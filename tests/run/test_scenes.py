"""Scenes opened without writing a cube are the cube that a run would write."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr

import eoray
from eoray.catalog.snapshot import write_snapshot
from eoray.errors import CatalogError, ConfigError, GridError, ReadError
from eoray.grid import lattice_of, to_lonlat
from eoray.reading import window as reading
from eoray.reading.cog import CogFile
from eoray.reading.engines import ENGINES
from eoray.sentinel2 import FILL, Quality
from eoray.testing import PositionOptions, expected_dn, write_position_archive

BANDS = ("B03", "B04", "B11")

# both libraries multiply affines the old way
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning"),
]


@dataclass(frozen=True)
class Place:
    """An archive of position-coded granules, its run file and the cube that the run wrote."""

    run_file: Path
    items: list[pystac.Item]
    options: PositionOptions

    @property
    def store(self) -> str:
        return str(self.run_file.parent / "out")


def make_place(folder: Path, *, south: bool, execute: bool = True) -> Place:
    options = PositionOptions(
        tiles=(1, 1), n_dates=2, bands=BANDS, granule_px=640, southern=south, overlap_px=98
    )
    write_position_archive(folder / "archive", options)
    run_file = folder / "run.yaml"
    run_file.write_text(f"""\
version: 1
name: places
aoi: archive/aoi.geojson
time: 2023-01-01/2023-12-31
task: cube
source: {{catalog: archive/catalog.json}}
cube: {{bands: [{", ".join(BANDS)}]}}
store: out
""")
    if execute:
        eoray.load_run(run_file).execute(["cube"], executor="inline")
    catalog = pystac.Catalog.from_file(str(folder / "archive" / "catalog.json"))
    items = sorted(catalog.get_items(recursive=True), key=lambda item: item.id)
    return Place(run_file, items, options)


@pytest.fixture(
    scope="module",
    params=[False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["north", "south"],
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"), south=request.param)


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("north"), south=False, execute=False)


def box_of(ds: xr.Dataset, rows: slice, cols: slice) -> list[float]:
    """A box in degrees around some pixels, a little within them."""
    x, y = ds.x.values[cols], ds.y.values[rows]
    lon, lat = to_lonlat(lattice_of(32), np.array([x[0], x[-1]]), np.array([y[-1], y[0]]))
    return [float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1])]


@pytest.mark.parametrize("resolution_m", [10, 20])
def test_a_run_opens_as_the_cube_that_it_writes(place: Place, resolution_m: int) -> None:
    cube = eoray.open_cube(place.store, resolution_m)
    scenes = eoray.open_scenes(place.run_file, resolution_m)
    assert all(array.chunks is not None for array in scenes.data_vars.values())
    assert set(scenes.data_vars) == {"reflectance", "quality", "scl", "mask"}
    xr.testing.assert_identical(scenes.load(), cube.load())
    assert int((cube.quality & int(Quality.OTHER_GRANULE)).max()) > 0
    assert (cube.reflectance != FILL).mean() > 0.9


def test_pixels_are_those_of_the_files(place: Place) -> None:
    scenes = eoray.open_scenes(place.run_file)
    one = scenes.isel(y=[500], x=[500])
    found = one.reflectance.sel(band="B04").values[:, 0, 0]
    # the first granule holds the place: its corner lies 340 m up and left of the tile
    expected = [
        int(expected_dn(500 + 34, 500 + 34, date_index=date, band="B04")) - 1000 for date in (0, 1)
    ]
    assert found.tolist() == [int(np.int16(min(value, 32767))) for value in expected]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES[1:])
def test_every_engine_gives_the_cube(place: Place, engine: str) -> None:
    cube = eoray.open_cube(place.store, bands=["B11", "B03"])
    box = box_of(cube, slice(480, 560), slice(500, 620))
    asked: dict[str, Any] = {"aoi": box, "time": "2023-01-05/2023-02-01", "bands": ["B11", "B03"]}
    scenes = eoray.open_scenes(place.run_file, engine=engine, **asked)
    written = eoray.open_cube(place.store, **asked)
    assert written.sizes["time"] == 1
    assert 70 < written.sizes["y"] < 130
    xr.testing.assert_identical(scenes.load(), written.load())


def test_items_snapshots_and_runs_are_the_same(place: Place, tmp_path: Path) -> None:
    write_snapshot(place.items, str(tmp_path / "items.parquet"))
    documents = [item.to_dict(transform_hrefs=False) for item in place.items]
    for document, item in zip(documents, place.items, strict=True):
        for key, asset in item.assets.items():
            document["assets"][key]["href"] = asset.get_absolute_href()
    cube = eoray.open_cube(place.store, bands=["B03", "B04"])
    box = box_of(cube, slice(300, 340), slice(700, 730))
    expected = eoray.open_cube(place.store, bands=["B03", "B04"], aoi=box).load()
    sources: tuple[Any, ...] = (
        place.items,
        documents,
        {"type": "FeatureCollection", "features": documents},
        str(tmp_path / "items.parquet"),
    )
    for source in sources:
        found = eoray.open_scenes(source, aoi=box, bands=["B03", "B04"])
        xr.testing.assert_identical(found.load(), expected)


def test_opening_reads_no_file_and_a_band_reads_its_own(
    north: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    plain = CogFile

    def noted(href: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(Path(href).stem)
        return plain(href, *args, **kwargs)

    monkeypatch.setattr(reading, "CogFile", noted)
    scenes = eoray.open_scenes(north.run_file)
    ndvi_like = scenes.eoray.red - scenes.eoray.green
    assert not asked
    scenes.reflectance.sel(band="B04").isel(time=0, y=slice(10, 20), x=slice(10, 20)).load()
    assert sorted(set(asked)) == ["B04", "SCL"]
    asked.clear()
    ndvi_like.isel(time=1, y=slice(10, 20), x=slice(10, 20)).load()
    assert sorted(set(asked)) == ["B03", "B04", "SCL"]


def test_chunks_begin_on_borders_of_tiles(north: Place) -> None:
    scenes = eoray.open_scenes(north.items)
    assert scenes.sizes["y"] % 1024 == 0  # without a place: all tiles that the items reach
    assert scenes.sizes["y"] > 1024
    assert set(scenes.reflectance.chunks[0]) == {1}
    tops = np.cumsum([0, *scenes.reflectance.chunks[2]])[:-1]
    row = round((9_400_320 - float(scenes.y[0])) // 10)
    assert {(row + int(top)) % 2048 for top in tops[1:]} <= {0}


def test_decoded_scenes_are_float32_with_nan(north: Place) -> None:
    box = box_of(eoray.open_scenes(north.run_file), slice(0, 40), slice(0, 60))
    raw = eoray.open_scenes(north.run_file, aoi=box, bands=["red"]).reflectance.load()
    floats = eoray.open_scenes(north.run_file, aoi=box, bands=["red"], decode=True).reflectance
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(floats), raw == FILL)
    np.testing.assert_allclose(floats.fillna(0), raw.where(raw != FILL, 0) * 1e-4, rtol=1e-6)


def test_pixels_of_a_geobox_of_ones_own(north: Place) -> None:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    scenes = eoray.open_scenes(north.run_file)
    x, y = float(scenes.x[200]) - 5, float(scenes.y[100]) + 5
    whole = eoray.open_scenes(
        north.items, geobox=GeoBox((40, 30), Affine(10, 0, x, 0, -10, y), 32632)
    )
    assert dict(whole.sizes) == {"time": 2, "y": 40, "x": 30, "band": 3}
    same = scenes.isel(y=slice(100, 140), x=slice(200, 230)).reflectance
    np.testing.assert_array_equal(whole.reflectance.sel(band=["B03", "B04"]), same)
    assert (whole.x.values == same.x.values).all()
    lon, lat = to_lonlat(lattice_of(32), np.array([x]), np.array([y]))
    degrees = GeoBox((50, 60), Affine(1e-4, 0, float(lon[0]), 0, -1e-4, float(lat[0])), 4326)
    warped = eoray.open_scenes(north.items, geobox=degrees, bands=["B03"])
    assert (warped.quality & int(Quality.FOREIGN_ZONE) > 0).all()
    assert warped.spatial_ref.attrs["crs_wkt"].startswith('GEOGCRS["WGS 84"')
    assert (warped.reflectance != FILL).all()


def test_geobox_that_is_no_grid_of_squares_is_refused(north: Place) -> None:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    oblong = GeoBox((4, 3), Affine(10, 0, 600_000, 0, -20, 5_000_000), 32632)
    with pytest.raises(ConfigError, match="its pixels must be square, north up"):
        eoray.open_scenes(north.items, geobox=oblong)
    square = GeoBox((4, 3), Affine(10, 0, 600_000, 0, -10, 5_000_000), 32632)
    with pytest.raises(ConfigError, match="a run lies on the grid of its file"):
        eoray.open_scenes(north.run_file, geobox=square)
    with pytest.raises(ConfigError, match="geobox= says the pixel"):
        eoray.open_scenes(north.items, 20, geobox=square)


def test_bad_questions_are_answered_before_a_file_is_read(
    north: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> np.ndarray:
        raise AssertionError("a file was read")

    monkeypatch.setattr(reading, "_copy", never)
    ask = eoray.open_scenes
    with pytest.raises(ConfigError, match="unknown band 'B4'; did you mean 'B04'"):
        ask(north.items, bands=["B4"])
    with pytest.raises(CatalogError, match="has no asset for B12 in any of 8 items"):
        ask(north.items, bands=["B12"])
    with pytest.raises(ConfigError, match="the run reads no B12; it has B03, B04, B11: add it"):
        ask(north.run_file, bands=["B12"])
    with pytest.raises(ConfigError, match="dem marks pixels of the cube by more than their scenes"):
        ask(eoray.load_run(north.run_file, ["cube.dem=/dem.tif"]))
    with pytest.raises(CatalogError, match="no scenes"):
        ask([])
    with pytest.raises(ConfigError, match="int is no STAC item; give pystac items"):
        ask([1])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="is neither a run file"):
        ask("items.json")
    with pytest.raises(ConfigError, match="engine 'gdal' is unknown"):
        ask(north.items, engine="gdal")
    with pytest.raises(ConfigError, match="scenes lie at 10, 20 m on the world grid, not at 60"):
        ask(north.run_file, 60)
    with pytest.raises(
        ConfigError, match=r"nothing in 2020.*; the scenes reaches? from 2023-01-03"
    ):
        ask(north.items, time="2020-01-01/2020-12-31")
    with pytest.raises(CatalogError, match="none of the scenes touches the place"):
        ask(north.items, aoi=[0, 0, 1, 1])
    with pytest.raises(ConfigError, match="in UTM zones 32; zone 33 is not among them"):
        ask(north.run_file, zone=33)
    with pytest.raises(ConfigError, match="is no box"):
        ask(north.items, aoi=[9, 52, 10])


def test_more_than_dask_can_hold_is_refused_with_what_to_give(
    north: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = eoray.open_scenes(north.items)
    held = sum(int(np.prod(array.data.numblocks)) for array in whole.data_vars.values())
    monkeypatch.setattr("eoray.run.scenes.MOST_CHUNKS", held - 1)
    size = f"{whole.sizes['y']} x {whole.sizes['x']} pixels on 2 dates, which are {held} chunks"
    with pytest.raises(ConfigError, match=rf"{size} of dask; give a smaller place with aoi=, or"):
        eoray.open_scenes(north.items)
    box = box_of(whole, slice(1100, 1140), slice(1100, 1160))
    assert eoray.open_scenes(north.items, aoi=box).sizes["y"] < 100
    day = str(whole.time.values[0])[:10]
    assert eoray.open_scenes(north.items, time=f"{day}/{day}").sizes["time"] == 1


def changed(item: pystac.Item, **properties: Any) -> pystac.Item:
    document = json.loads(json.dumps(item.to_dict(transform_hrefs=False)))
    for key, asset in item.assets.items():
        document["assets"][key]["href"] = asset.get_absolute_href()
    document["properties"].update(properties)
    return pystac.Item.from_dict(document)


def test_mixed_lineages_are_refused_unless_allowed(north: Place) -> None:
    old = [changed(item, **{"s2:processing_baseline": "04.00"}) for item in north.items[:4]]
    with pytest.raises(
        ConfigError, match=r"mix processing baselines .*open_scenes takes mixed=True"
    ):
        eoray.open_scenes([*old, *north.items[4:]])
    scenes = eoray.open_scenes([*old, *north.items[4:]], mixed=True)
    assert sorted(scenes.baseline.values.tolist()) == ["04.00", "05.10"]


@pytest.mark.slow
def test_a_lost_file_is_raised_or_recorded(tmp_path: Path) -> None:
    lost = make_place(tmp_path, south=False, execute=False)
    Path(lost.items[0].assets["red"].get_absolute_href() or "").unlink()
    scenes = eoray.open_scenes(lost.run_file, bands=["B04"])
    with pytest.raises(ReadError, match=r"B04 of item .* cannot be read"):
        scenes.reflectance.isel(time=0, y=slice(0, 8), x=slice(20, 28)).load()
    recorded = eoray.open_scenes(lost.run_file, bands=["B04"], errors="record")
    part = recorded.isel(time=0, y=slice(0, 8), x=slice(20, 28))
    assert (part.reflectance == FILL).all()
    assert (part.quality & int(Quality.FAILED_READ)).all()


def test_files_off_the_lattice_need_a_geobox(north: Place) -> None:
    shifted = []
    for item in north.items:
        document = changed(item).to_dict(transform_hrefs=False)
        for asset in document["assets"].values():
            if "proj:transform" in asset:
                asset["proj:transform"][2] += 2.5
        if "proj:transform" in document["properties"]:
            document["properties"]["proj:transform"][2] += 2.5
        shifted.append(document)
    with pytest.raises(GridError, match=r"lies 0\.\d+, 0\.000 of a pixel \(x, y\) off the world"):
        eoray.open_scenes(shifted)
