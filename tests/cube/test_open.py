"""The cube as others see it: xarray, rioxarray, odc-geo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr

from eoray.cube.composite import (
    CompositeRecipe,
    CompositeWorker,
    composite_product,
    plan_composites,
)
from eoray.cube.open import open_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import ConfigError, StoreError
from eoray.grid import PixelWindow, Tile
from eoray.run.lease import hold_store
from eoray.sentinel2 import FILL
from eoray.testing.http import archive_server
from eoray.timeline import DateRange

Make = Callable[..., Any]
JANUARY = DateRange.parse("2021-01-01/2021-01-31")


def test_reflectance_is_as_stored_and_sorted_by_time(scene_cube: Any) -> None:
    dataset = open_cube(scene_cube.url)
    reflectance = dataset.reflectance
    assert reflectance.dims == ("time", "band", "y", "x")
    assert reflectance.shape == (4, 2, 1024, 2048)  # cut to the two tiles
    assert reflectance.dtype == np.int16
    assert reflectance.attrs["_FillValue"] == FILL
    assert reflectance.attrs["scale_factor"] == 1e-4
    assert dataset.band.values.tolist() == ["B03", "B08"]
    assert dataset.relative_orbit.values.tolist() == [103, 109, 120, 128]
    assert (dataset.time.values[1:] > dataset.time.values[:-1]).all()
    third = scene_cube.arrays["10m/reflectance", scene_cube.keys[1]]
    np.testing.assert_array_equal(reflectance.isel(time=2, y=slice(30, 90)), third[:, 30:90])


def test_store_folder_opens_as_the_repository_does(scene_cube: Any) -> None:
    folder = scene_cube.url.rsplit("/", 1)[0]
    assert open_cube(folder, 20).sizes == open_cube(scene_cube.url, 20).sizes


def test_a_store_behind_a_web_server_opens_and_is_not_written(scene_cube: Any) -> None:
    folder = Path(scene_cube.url)
    with archive_server(folder.parent) as server:
        dataset = open_cube(f"{server.url}/{folder.name}")
        xr.testing.assert_identical(dataset.load(), open_cube(scene_cube.url).load())
        with pytest.raises(StoreError, match="can only be read"):
            hold_store(server.url, "run").__enter__()
        with pytest.raises(StoreError, match="no cube can be opened"):
            open_cube(f"{server.url}/absent.icechunk")


def test_decoded_values_are_float32_with_nan(scene_cube: Any) -> None:
    window = {"y": slice(30, 60), "x": slice(1000, 1060)}
    raw = open_cube(scene_cube.url, 20).reflectance.isel(time=0, **window).values
    decoded = open_cube(scene_cube.url, 20, decode=True).reflectance.isel(time=0, **window)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(decoded), raw == FILL)
    valid = raw != FILL
    np.testing.assert_allclose(decoded.values[valid], raw[valid] * 1e-4, rtol=1e-6)
    assert np.isnan(decoded).any()
    assert valid.any()


def test_opening_reads_no_pixel(scene_cube: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import icechunk.store

    touched: list[str] = []
    plain = icechunk.store.IcechunkStore.get

    async def noted(self: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        touched.append(key)
        return await plain(self, key, *args, **kwargs)

    monkeypatch.setattr(icechunk.store.IcechunkStore, "get", noted)
    dataset = open_cube(scene_cube.url, decode=True)
    small = dataset.reflectance.isel(time=0, band=0, y=slice(0, 4), x=slice(0, 4))
    assert any("s2/z32" in key for key in touched)
    assert not [key for key in touched if "/reflectance/c/" in key or "/quality/c/" in key]
    assert small.shape == (4, 4)


def test_bands_are_chosen_by_id_or_common_name(scene_cube: Any) -> None:
    dataset = open_cube(scene_cube.url, bands=["nir", "B03"])
    assert dataset.band.values.tolist() == ["B08", "B03"]
    np.testing.assert_array_equal(
        dataset.reflectance.isel(time=0, band=0, y=slice(50, 60), x=slice(0, 9)),
        scene_cube.arrays["10m/reflectance", scene_cube.keys[0]][1, 50:60, :9],
    )
    one = open_cube(scene_cube.url).reflectance.sel(band="B08", time="2021-01-20")
    assert one.shape == (1, 1024, 2048)


@pytest.mark.parametrize("resolution_m", [10, 20])
def test_bands_of_both_pixels_come_on_one_lattice(scene_cube: Any, resolution_m: int) -> None:
    bands = ["nir08", "B03"]
    dataset = open_cube(scene_cube.url, resolution_m, bands=bands)
    assert dataset.reflectance.dims == ("time", "band", "y", "x")
    assert dataset.band.values.tolist() == ["B8A", "B03"]
    assert dataset.reflectance.attrs["scale_factor"] == 1e-4
    reader = CubeReader(CubeSource(scene_cube.url))
    first = min(scene_cube.tiles).window(resolution_m)
    window = PixelWindow(first.row_off + 30, first.col_off + 7, 50, 41)
    expected = reader.read_bands(
        "s2",
        32,
        bands=["B8A", "B03"],
        window=window,
        resolution_m=resolution_m,
        index=reader.entries("s2", 32).index,
    )
    part = dataset.reflectance.isel(y=slice(30, 80), x=slice(7, 48))
    np.testing.assert_array_equal(part, expected)
    assert (expected != FILL).any()
    np.testing.assert_array_equal(part[:, 1, ::-3, 5], expected[:, 1, ::-3, 5])
    np.testing.assert_array_equal(part.isel(x=[3, 1], time=[2, 0]), expected[[2, 0]][..., [3, 1]])
    decoded = open_cube(scene_cube.url, resolution_m, bands=bands, decode=True).reflectance
    assert decoded.dtype == np.float32
    some = decoded.isel(y=slice(30, 80), x=slice(7, 48)).values
    np.testing.assert_array_equal(np.isnan(some), expected == FILL)


def test_joined_bands_are_not_read_before_they_are_used(
    scene_cube: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    plain = CubeReader.read_bands

    def noted(self: CubeReader, *args: Any, **kwargs: Any) -> np.ndarray:
        read.append(kwargs["window"])
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(CubeReader, "read_bands", noted)
    dataset = open_cube(scene_cube.url, bands=["B8A", "B03"], decode=True)
    assert not read
    dataset.reflectance.isel(time=0, y=slice(5, 9), x=slice(2, 5)).load()
    assert [(w.height, w.width) for w in read] == [(4, 3)]


def test_place_and_days_cut_the_cube(scene_cube: Any) -> None:
    from pyproj import Transformer

    whole = open_cube(scene_cube.url)
    x0, y0 = float(whole.x[100]) - 2, float(whole.y[60]) - 2
    x1, y1 = float(whole.x[160]) + 2, float(whole.y[40]) + 2
    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    box = shapely.box(x0, y0, x1, y1)
    place = shapely.transform(box, lambda xy: np.stack(to_degrees.transform(*xy.T), axis=1))
    cut = open_cube(scene_cube.url, aoi=place, time="2021-01-04/2021-01-20")
    inside = whole.isel(y=slice(40, 61), x=slice(100, 161), time=slice(1, 3))
    west, north = float(cut.x[0]) - 5, float(cut.y[0]) + 5
    assert cut.attrs.pop("spatial:transform") == [10, 0, west, 0, -10, north]
    assert cut.attrs.pop("spatial:shape") == [21, 61]
    del inside.attrs["spatial:transform"], inside.attrs["spatial:shape"]
    xr.testing.assert_identical(cut.drop_vars("spatial_ref"), inside.drop_vars("spatial_ref"))
    assert cut.spatial_ref.attrs["GeoTransform"].split()[0] == str(int(float(cut.x[0]) - 5))
    by_box = open_cube(scene_cube.url, aoi=place.bounds)
    assert by_box.sizes["x"] >= 61
    joined = open_cube(
        scene_cube.url, 20, aoi=place, bands=["B03", "B8A"], time="2021-01-09/2021-01-09"
    )
    assert joined.sizes == {"time": 1, "band": 2, "y": 11, "x": 31}


def test_place_and_days_without_anything_are_refused(scene_cube: Any) -> None:
    with pytest.raises(ConfigError, match=r"nothing in 2022-01-01.*reaches from 2021-01-03 to"):
        open_cube(scene_cube.url, time="2022-01-01/2022-02-01")
    with pytest.raises(ConfigError, match="the aoi lies outside of product 's2' in zone 32"):
        open_cube(scene_cube.url, aoi=[0, 0, 1, 1])
    with pytest.raises(ConfigError, match="is no box"):
        open_cube(scene_cube.url, aoi=[9, 52, 10])


def test_band_that_is_not_stored_is_named_with_those_that_are(scene_cube: Any) -> None:
    with pytest.raises(ConfigError, match=r"band B05 is not stored; .* holds B03, B08, B8A"):
        open_cube(scene_cube.url, bands=["B03", "rededge1"])


def test_resolution_product_and_store_that_are_not_there_are_named(
    scene_cube: Any, tmp_path: Any
) -> None:
    with pytest.raises(StoreError, match=r"stored at \[10, 20\] m, not at 60"):
        open_cube(scene_cube.url, 60)
    with pytest.raises(StoreError, match=r"no product 'map-x'.*it holds s2"):
        open_cube(scene_cube.url, product="map-x")
    with pytest.raises(StoreError, match="no cube can be opened"):
        open_cube(str(tmp_path / "elsewhere"))


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray 0.20
@pytest.mark.parametrize("resolution_m", [10, 20])
def test_rioxarray_sees_crs_and_transform(scene_cube: Any, resolution_m: int) -> None:
    import rioxarray

    assert rioxarray.__version__
    dataset = open_cube(scene_cube.url, resolution_m)
    assert dataset.rio.crs.to_epsg() == 32632
    expected = scene_cube.tiles[0].transform(resolution_m)
    assert tuple(dataset.rio.transform())[:6] == tuple(expected)[:6]
    assert tuple(dataset.rio.transform(recalc=True))[:6] == tuple(expected)[:6]
    assert dataset.rio.bounds()[0] == scene_cube.tiles[0].bounds[0]


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # odc-geo 0.5
def test_odc_geo_sees_the_tiles_geobox(scene_cube: Any) -> None:
    import odc.geo.xr

    assert odc.geo.xr.__name__  # its import adds the accessor
    geobox = open_cube(scene_cube.url, 20).odc.geobox
    expected = scene_cube.tiles[0].geobox(20)
    assert geobox.crs.epsg == 32632
    assert tuple(geobox.transform)[:6] == tuple(expected.transform)[:6]
    assert geobox.shape == (512, 1024)


def test_several_zones_need_a_name(coarse_store: Any, make_entry: Make, make_result: Make) -> None:
    for zone in (32, 33):
        coarse_store.append([make_entry(1)], zone)
        coarse_store.write(make_result(Tile(zone, 400, 50), "take-01", zone))
    with pytest.raises(ConfigError, match="stands in UTM zones 32, 33; name one with zone="):
        open_cube(coarse_store.url, 640, product="coarse")
    with pytest.raises(ConfigError, match="zone 31 is not among them"):
        open_cube(coarse_store.url, 640, product="coarse", zone=31)
    dataset = open_cube(coarse_store.url, 640, product="coarse", zone=33)
    assert int(dataset.value[0, 0, 0, 0]) == 33
    assert dataset.spatial_ref.attrs["crs_wkt"].startswith('PROJCRS["WGS 84 / UTM zone 33N"')


def test_product_without_a_done_tile_opens_empty(coarse_store: Any, make_entry: Make) -> None:
    coarse_store.append([make_entry(1)])
    dataset = open_cube(coarse_store.url, 640, product="coarse")
    assert isinstance(dataset, xr.Dataset)
    assert (dataset.sizes["y"], dataset.sizes["x"]) == (0, 0)


def test_an_earlier_snapshot_opens(coarse_store: Any, make_entry: Make, make_result: Make) -> None:
    coarse_store.append([make_entry(1)])
    coarse_store.write(make_result(Tile(32, 400, 50), "take-01", 1))
    before = coarse_store.reader().snapshot
    coarse_store.write(make_result(Tile(32, 400, 51), "take-01", 1))
    sizes = [
        open_cube(coarse_store.url, 640, product="coarse", snapshot=s).sizes["x"]
        for s in (before, None)
    ]
    assert sizes == [16, 32]


def composite(cube: Any, make_store: Make, method: str) -> str:
    """Write a composite of the second tile into a store of its own."""
    recipe = CompositeRecipe(method, "P1M", 3)
    reader = CubeReader(CubeSource(cube.url))
    entries, rows = plan_composites(recipe, reader, cube.tiles, JANUARY)
    store = make_store(composite_product(recipe, reader, [32]))
    store.append(entries[32][-2:])
    (result,) = CompositeWorker(CubeSource(cube.url), recipe)(rows[1])
    store.write(result)
    return str(store.url)


def test_periods_have_bounds(scene_cube: Any, make_store: Make) -> None:
    url = composite(scene_cube, make_store, "count")
    dataset = open_cube(url, 20, product="s2-P1M-count", time=str(JANUARY))
    assert dataset.time.attrs["bounds"] == "time_bnds"
    assert dataset.time_bnds.dims == ("time", "bnds")
    assert dataset.time_bnds.values.astype("datetime64[D]").astype(str).tolist() == [
        ["2021-01-01", "2021-02-01"]
    ]
    assert set(dataset.data_vars) == {"n_obs", "n_orbit", "doy_spread"}
    assert dataset.n_obs.max() == 3
    with pytest.raises(ConfigError, match="holds no bands"):
        open_cube(url, 20, product="s2-P1M-count", bands=["B8A"])
    assert "time_bnds" not in open_cube(scene_cube.url, 20)


def test_percentiles_are_arrays_like_reflectance(scene_cube: Any, make_store: Make) -> None:
    url = composite(scene_cube, make_store, "percentiles")
    dataset = open_cube(
        url, 20, product="s2-P1M-percentiles", time=str(JANUARY), bands=["B12"], decode=True
    )
    spread = (dataset.p90 - dataset.p10).isel(time=0, band=0, y=slice(100, 140), x=slice(0, 40))
    assert dataset.p50.dims == ("time", "band", "y", "x")
    assert dataset.band.values.tolist() == ["B12"]
    assert 0 <= float(spread.min()) < float(spread.max()) < 1
    with pytest.raises(ConfigError, match="at 20 m only B8A, B12; name bands of one native pixel"):
        open_cube(url, 20, product="s2-P1M-percentiles", bands=["B03", "B12"])
