"""The cube as others see it: xarray, rioxarray, odc-geo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from eoray.cube.open import open_cube
from eoray.errors import ConfigError, StoreError
from eoray.grid import Tile
from eoray.sentinel2 import FILL

Make = Callable[..., Any]


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


def test_band_of_the_other_pixel_is_refused_by_name(scene_cube: Any) -> None:
    with pytest.raises(ConfigError, match="band B8A is not stored at 10 m, which holds B03, B08"):
        open_cube(scene_cube.url, bands=["B03", "nir08"])


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
