from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rio_cogeo.cogeo import cog_validate

from eoray.errors import ConfigError
from eoray.grid import tiles_of_geometry
from eoray.testing import (
    PositionOptions,
    expected_dn,
    list_position_granules,
    write_position_archive,
)
from eoray.testing.positions import position_jobs

SMALL = PositionOptions(tiles=(1, 1), n_dates=2, bands=("B04", "B11"), granule_px=640)


@pytest.fixture(scope="module", params=[False, True], ids=["north", "south"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PositionOptions]:
    options = PositionOptions(
        tiles=SMALL.tiles, n_dates=2, bands=SMALL.bands, granule_px=640, southern=request.param
    )
    folder = tmp_path_factory.mktemp("positions")
    write_position_archive(folder, options)
    return folder, options


def test_pixels_tell_their_place_band_and_date(archive: tuple[Path, PositionOptions]) -> None:
    folder, options = archive
    jobs = position_jobs(options)
    granules = list_position_granules(options)
    assert len(granules) == 4
    for job in (jobs[1], jobs[len(granules) + 2]):
        date_index = jobs.index(job) // len(granules)
        at = folder / "sentinel-2-c1-l2a" / job.id
        for name, resolution in (("B04", 10), ("B11", 20)):
            with rasterio.open(at / f"{name}.tif") as dataset:
                pixels = dataset.read(1)
                assert dataset.transform.c == job.granule.x0
                assert dataset.crs.to_epsg() == (32732 if options.southern else 32632)
            margin = options.nodata_px * 10 // resolution
            row, col = np.indices(pixels.shape)
            expected = expected_dn(row, col, date_index=date_index, band=name)
            np.testing.assert_array_equal(pixels[:, margin:], expected[:, margin:])
            assert not pixels[:, :margin].any()
        with rasterio.open(at / "SCL.tif") as dataset:
            scl = dataset.read(1)
        assert set(np.unique(scl[:, 6:])) == {4}
        assert not scl[:, :6].any()


def test_area_covers_exactly_the_tiles(archive: tuple[Path, PositionOptions]) -> None:
    folder, options = archive
    area = json.loads((folder / "aoi.geojson").read_bytes())["features"][0]["geometry"]
    found = tiles_of_geometry(shapely.geometry.shape(area))
    assert tuple(found) == options.tile_list


def test_area_of_many_tiles_is_exact_too() -> None:
    from eoray.testing.positions import _aoi

    options = PositionOptions(tiles=(8, 8))
    features = _aoi(options)["features"]
    area = features[0]["geometry"]  # type: ignore[index]
    assert tuple(tiles_of_geometry(shapely.geometry.shape(area))) == options.tile_list


def test_granules_cover_the_tiles() -> None:
    for options in (SMALL, PositionOptions(tiles=(3, 2), granule_px=1100)):
        boxes = [shapely.box(*granule.bounds) for granule in list_position_granules(options)]
        west = options.first_tile.bounds[0]
        wanted = shapely.union_all([shapely.box(*tile.bounds) for tile in options.tile_list])
        assert shapely.union_all(boxes).covers(wanted)
        assert min(box.bounds[0] for box in boxes) + options.nodata_px * 10 < west


def test_neighbours_in_place_time_and_band_differ() -> None:
    here = expected_dn(5, 7, date_index=0, band="B02")
    assert here == 5 * 7001 % 50_000 + 7 + 1
    others = {
        int(expected_dn(row, col, date_index=date, band=band))
        for row, col, date, band in (
            (6, 7, 0, "B02"),
            (5, 8, 0, "B02"),
            (5, 7, 1, "B02"),
            (5, 7, 0, "B03"),
            (7, 5, 0, "B02"),
        )
    }
    assert len(others | {int(here)}) == 6


def test_overviews_make_a_valid_cog(tmp_path: Path) -> None:
    options = PositionOptions(
        tiles=(1, 1), n_dates=1, bands=("B02",), overviews=True, baseline="02.14"
    )
    write_position_archive(tmp_path, options)
    (path,) = tmp_path.glob("*/*/B02.tif")
    assert cog_validate(path, strict=True)[0]
    (item,) = (tmp_path / "sentinel-2-c1-l2a").glob("*/*.json")
    blue = json.loads(item.read_bytes())["assets"]["blue"]
    assert blue["raster:bands"][0]["offset"] == 0


def test_odd_granules_are_refused() -> None:
    with pytest.raises(ConfigError, match="granule_px 650"):
        list_position_granules(PositionOptions(granule_px=650))
