from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from pyproj import Transformer

from eoray.cube.open import open_cube
from eoray.cube.read import CubeSource
from eoray.errors import ConfigError, StoreError
from eoray.grid import Tile
from eoray.publish import export_window, export_zarr
from eoray.timeline import DateRange
from tests.publish.toy import NORTH, SOUTH, change_arrays, composite_arrays, map_arrays


def box_of(tile: Tile, rows: slice, cols: slice) -> tuple[float, float, float, float]:
    """Lon/lat box just inside some 10 m pixels of a tile."""
    x, _, _, y = tile.bounds
    xs = [x + cols.start * 10 + 3, x + cols.stop * 10 - 3]
    ys = [y - rows.stop * 10 + 3, y - rows.start * 10 - 3]
    return Transformer.from_crs(tile.epsg, 4326, always_xy=True).transform_bounds(
        xs[0], ys[0], xs[1], ys[1]
    )


def place(file: rasterio.DatasetReader, tile: Tile, px: int) -> tuple[slice, slice]:
    """Where an exported window lies in its tile."""
    row = round((tile.bounds[3] - file.bounds.top) / px)
    col = round((file.bounds.left - tile.bounds[0]) / px)
    return slice(row, row + file.height), slice(col, col + file.width)


BOX = box_of(NORTH[0], slice(200, 300), slice(400, 480))


def test_reflectance_keeps_its_values_and_place(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.tif")
    assert export_window(store_url, "s2-P1Y-median", url, bbox=BOX, zone=32) == url
    with rasterio.open(url) as file:
        at = place(file, NORTH[0], 10)
        expected = composite_arrays(NORTH[0])["10m/reflectance"][:, at[0], at[1]]
        np.testing.assert_array_equal(file.read(), expected)
        assert file.descriptions[::2] == ("2021-01-01/2022-01-01 B02", "2021-01-01/2022-01-01 B04")
        assert (file.nodata, file.scales) == (-32768, (1e-4, 1e-4, 1e-4))
        assert file.crs.to_epsg() == 32632
    assert at[0].start <= 200
    assert at[0].stop >= 300
    assert at[1].start <= 400
    assert at[1].stop >= 480


def test_bands_are_named_freely_and_resampled(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.tif")
    bands = ("swir16", "B04")
    export_window(
        CubeSource(store_url), "s2-P1Y-median", url, bbox=BOX, zone=32, bands=bands, resolution_m=20
    )
    with rasterio.open(url) as file:
        at = place(file, NORTH[0], 20)
        stored = composite_arrays(NORTH[0])
        swir, red = file.read()
        assert file.res == (20.0, 20.0)
    np.testing.assert_array_equal(swir, stored["20m/reflectance"][0, at[0], at[1]])
    mean = stored["10m/reflectance"][2].reshape(512, 2, 512, 2).mean(axis=(1, 3))
    assert np.abs(red - mean[at]).max() <= 0.5


def test_map_gives_its_classes(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.tif")
    export_window(store_url, "map-toy", url, bbox=BOX, zone=32)
    with rasterio.open(url) as file:
        at = place(file, NORTH[0], 10)
        np.testing.assert_array_equal(file.read(1), map_arrays(NORTH[0])["10m/class"][at])
        assert file.nodata == 0


def test_change_gives_one_band_per_segment(store_url: str, tmp_path: Path) -> None:
    url, box = str(tmp_path / "w.tif"), box_of(SOUTH, slice(60, 140), slice(40, 140))
    export_window(store_url, "change-toy", url, bbox=box, zone=32)
    with rasterio.open(url) as file:
        at = place(file, SOUTH, 20) if file.crs.to_epsg() == 32632 else None
        assert at is None
        assert file.crs.to_epsg() == 32732
        row = round((SOUTH.bounds[3] + 10_000_000 - file.bounds.top) / 20)
        col = round((file.bounds.left - SOUTH.bounds[0]) / 20)
        expected = change_arrays(SOUTH)["20m/date_est"]
        window = expected[:, row : row + file.height, col : col + file.width]
        np.testing.assert_array_equal(file.read(), window)
        assert file.descriptions == ("date_est segment 0", "date_est segment 1")
        assert file.units[0] == "days since 1970-01-01"
        assert window.any()


def test_window_may_leave_the_tiles(store_url: str, tmp_path: Path) -> None:
    url, box = str(tmp_path / "w.tif"), box_of(NORTH[0], slice(-50, 20), slice(-30, 20))
    export_window(store_url, "map-toy", url, bbox=box, zone=32, bands=["probability"])
    with rasterio.open(url) as file:
        assert (file.read(1)[:40] == 255).all()


def test_time_selects_entries(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.tif")
    days = DateRange.parse("2021-05-01/2021-12-31")
    export_window(store_url, "s2", url, bbox=BOX, zone=32, time=days, bands=["mask"])
    with rasterio.open(url) as file:
        assert file.descriptions == ("S2A 2021-06-01 mask", "S2A 2021-09-01 mask")


def test_zone_must_be_named_where_there_are_two(store_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stands in zones \[32, 33\]; say which"):
        export_window(store_url, "map-toy", str(tmp_path / "w.tif"), bbox=BOX)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zone": 31}, "does not stand in zone 31"),
        ({"bbox": (9.0, 48.0, 8.0, 49.0)}, "is empty; write west, south, east, north"),
        ({"bbox": (100.0, 48.0, 101.0, 49.0)}, "lies far from UTM zone 32"),
        ({"resolution_m": 20}, "is not stored at 20 m"),
        ({"bands": ["colour"]}, r"\['colour'\] is not stored; export one of class, entropy"),
        ({"time": DateRange.parse("2030-01-01/2030-02-01")}, "no entry in zone 32 within 2030"),
    ],
)
def test_wrong_request_is_named(
    store_url: str, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {"bbox": BOX, "zone": 32, **changes}
    with pytest.raises(ConfigError, match=message):
        export_window(store_url, "map-toy", str(tmp_path / "w.tif"), **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_missing_product_is_named(store_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no product 'map-none', only change-toy, map-toy, s2"):
        export_window(store_url, "map-none", str(tmp_path / "w.tif"), bbox=BOX)


def test_plain_zarr_opens_as_the_window_it_was_cut_from(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.zarr")
    assert export_zarr(store_url, "s2-P1Y-median", url, bbox=BOX, zone=32) == url
    window = open_cube(store_url, product="s2-P1Y-median", zone=32, aoi=BOX).load()
    copy = open_cube(url)
    assert copy.attrs.pop("eoray:product") == "s2-P1Y-median"
    assert (copy.attrs.pop("eoray:zone"), copy.attrs.pop("eoray:resolution_m")) == (32, 10)
    xr.testing.assert_identical(copy.load(), window)
    assert copy.eoray.bands == ("B02", "B03", "B04")
    west, north = float(copy.x[0]) - 5, float(copy.y[0]) + 5
    assert copy.attrs["spatial:transform"] == [10, 0, west, 0, -10, north]
    assert copy.attrs["spatial:shape"] == [copy.sizes["y"], copy.sizes["x"]]


def test_plain_zarr_is_read_without_eoray(store_url: str, tmp_path: Path) -> None:
    """zarr-python, xarray and GDAL, which knows no shards."""
    url = str(tmp_path / "w.zarr")
    export_zarr(store_url, "map-toy", url, bbox=BOX, zone=32)
    group = zarr.open_group(url, mode="r", zarr_format=3)
    array: Any = group["class"]
    assert (array.shards, array.chunks[0]) == (None, 1)
    with rasterio.open(f'ZARR:"{url}":/class:0') as file:
        classes = file.read(1)
        assert file.crs.to_epsg() == 32632
        at = place(file, NORTH[0], 10)
    np.testing.assert_array_equal(array[0], classes)
    np.testing.assert_array_equal(classes, map_arrays(NORTH[0])["10m/class"][at])
    decoded = xr.open_zarr(url, consolidated=False)
    assert str(decoded.time.values[0])[:10] == "2021-01-01"


def test_window_of_a_plain_zarr_is_cut_again(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.zarr")
    first = DateRange.parse("2021-03-01/2022-01-31")
    export_zarr(store_url, "s2", url, bbox=BOX, zone=32, time=first)
    inner = box_of(NORTH[0], slice(220, 240), slice(420, 440))
    days = "2021-03-01/2021-12-31"
    copy = open_cube(url, aoi=inner, time=days)
    own = open_cube(store_url, 20, product="s2", zone=32, aoi=inner, time=days)
    assert copy.sizes == own.sizes
    xr.testing.assert_equal(copy.load(), own.load())
    with pytest.raises(ConfigError, match=r"nothing in 2031.*w\.zarr reaches from 2021-03-01"):
        open_cube(url, time="2031-01-01/2031-12-31")
    with pytest.raises(ConfigError, match="outside of"):
        open_cube(url, aoi=(0.0, 0.0, 0.1, 0.1))
    with pytest.raises(StoreError, match="pixels of 20, not 10"):
        open_cube(url, 10)
    with pytest.raises(ConfigError, match="neither angles nor history"):
        open_cube(url, nbar=True)


def test_arrays_of_a_plain_zarr_are_chosen(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.zarr")
    export_zarr(store_url, "map-toy", url, bbox=BOX, zone=32, bands=("entropy", "class"))
    assert {*open_cube(url).data_vars} == {"entropy", "class"}
    bands = str(tmp_path / "b.zarr")
    export_zarr(store_url, "s2-P1Y-median", bands, bbox=BOX, zone=32, bands=("red",))
    assert list(open_cube(bands).band.values) == ["B04"]
    with pytest.raises(ConfigError, match="band B02 is not in"):
        open_cube(bands, bands=["blue"])


def test_plain_zarr_that_stands_is_kept(store_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "w.zarr")
    export_zarr(store_url, "map-toy", url, bbox=BOX, zone=32)
    with pytest.raises(StoreError, match=r"w\.zarr' exists; delete it first"):
        export_zarr(store_url, "map-toy", url, bbox=BOX, zone=32)
    with pytest.raises(StoreError, match="no Zarr at"):
        open_cube(str(tmp_path / "absent.zarr"))
