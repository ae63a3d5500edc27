"""Slopes of planes, shadows of towers, and where the sun stands on a lattice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from eoray.cube.terrain import (
    SLOPE_DEG,
    _pixels_per_metre,
    cast_shadow,
    check_dem,
    mark_terrain,
    read_terrain,
    shadow_of_tile,
    slope_deg,
)
from eoray.errors import ConfigError, ReadError
from eoray.grid import Tile, box_lonlat, tiles_of_geometry
from eoray.reading.gdal import forget_answers
from eoray.sentinel2 import Mask, Quality
from eoray.testing import archive_server
from eoray.testing.http import ArchiveServer

GROUND = (20.0, 20.0)
TILE: Tile = tiles_of_geometry(box_lonlat(11.969, 48.619, 11.971, 48.621))[0]


@pytest.mark.parametrize("ground", [(20.0, 20.0), (30.0, 12.0)])
@pytest.mark.parametrize(("down", "across"), [(0.0, 0.0), (0.3, 0.0), (0.0, -0.2), (0.5, 0.7)])
def test_slope_of_a_plane_is_exact(down: float, across: float, ground: tuple[float, float]) -> None:
    rows, cols = np.mgrid[:7, :9].astype(float)
    height = 100 + down * rows * ground[0] + across * cols * ground[1]
    found = slope_deg(height, ground)[1:-1, 1:-1]
    np.testing.assert_allclose(found, math.degrees(math.atan(math.hypot(down, across))), rtol=1e-6)


def test_slope_beside_unknown_land_is_none() -> None:
    height = np.mgrid[:7, :7][0] * 40.0
    height[3, 3] = np.nan
    found = slope_deg(height, GROUND)
    assert (found[2:5, 2:5][np.isnan(height[2:5, 2:5]) == 0] == 0).all()
    assert found[5, 1] > 60


@pytest.mark.parametrize(
    ("azimuth", "rows", "cols"),
    [(180.0, -1, 0), (0.0, 1, 0), (90.0, 0, -1), (270.0, 0, 1), (135.0, -1, -1), (225.0, -1, 1)],
)
@pytest.mark.parametrize("elevation", [20.0, 45.0])
def test_shadow_of_a_tower_points_away_from_the_sun_and_has_its_length(
    azimuth: float, rows: int, cols: int, elevation: float
) -> None:
    """The azimuth is that of the sun, clockwise from north: a southern sun shadows the north."""
    n, high = 61, 100.0
    height = np.zeros((n, n), np.float32)
    height[30, 30] = high
    a = math.radians(azimuth)
    towards = (-math.cos(a) / 20, math.sin(a) / 20)
    shadow = cast_shadow(height, (0, 0), towards, 90 - elevation)
    line = [bool(shadow[30 + k * rows, 30 + k * cols]) for k in range(1, 30)]
    length_m = line.index(False) * 20 * math.hypot(rows, cols)
    assert length_m == pytest.approx(high / math.tan(math.radians(elevation)), abs=30)
    assert not any(line[line.index(False) :])
    against = [bool(shadow[30 - k * rows, 30 - k * cols]) for k in range(30)]
    assert not any(against)


def test_a_wall_shadows_by_its_height_over_the_tangent_to_a_pixel() -> None:
    height = np.zeros((5, 200), np.float32)
    height[:, 150:] = 333.0
    for zenith in (30.0, 50.0, 66.0):
        shadow = cast_shadow(height, (0, 0), (0.0, 1 / 20), zenith)  # the sun stands in the east
        reach = (150 - int(np.flatnonzero(shadow[2])[0])) * 20
        length = 333 * math.tan(math.radians(zenith))
        assert length - 20 < reach <= length  # of whole pixels
        assert shadow[2].sum() * 20 == reach


def test_a_slope_that_is_steeper_than_the_sun_is_high_shadows_itself() -> None:
    ramp = np.repeat(np.arange(50, dtype=np.float32)[:, None] * 20, 50, axis=1)  # falls northwards
    north, south = (1 / 20, 0.0), (-1 / 20, 0.0)
    assert cast_shadow(ramp, (5, 5), north, 50.0).all()
    assert not cast_shadow(ramp, (5, 5), north, 40.0).any()
    assert not cast_shadow(ramp, (5, 5), south, 50.0).any()


def test_unknown_land_casts_no_shadow_and_night_covers_all() -> None:
    height = np.full((20, 20), np.nan, np.float32)
    assert not cast_shadow(height, (0, 0), (0.05, 0.0), 60.0).any()
    assert cast_shadow(height, (2, 2), (0.05, 0.0), 91.0).all()
    assert not cast_shadow(np.eye(20, dtype="f4") * 99, (0, 0), (0.05, 0.0), 0.0).any()


def test_north_of_the_lattice_is_turned_to_true_north() -> None:
    """At 60 N, 3 degrees east of the middle of a zone, grid north lies 2.6 degrees east."""
    tile: Tile = tiles_of_geometry(box_lonlat(11.9, 60.0, 11.9001, 60.0001))[0]
    down, across = _pixels_per_metre(tile, 0.0)
    assert math.degrees(math.atan2(across, -down)) == pytest.approx(-2.5, abs=0.2)
    assert math.hypot(down, across) == pytest.approx(1 / 20, rel=2e-3)


def write_dem(path: Path, tile: Tile, **options: Any) -> str:
    """A plain with a block of 300 m, 40 px wide, around the tile's middle; 30 m pixels."""
    x0, _, x1, y1 = tile.bounds
    n = int((x1 - x0 + 30_000) / 30)
    height = np.full((n, n), 500, np.float32)
    middle = n // 2
    height[middle - 20 : middle + 20, middle - 20 : middle + 20] = 800
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": n,
        "height": n,
        "count": 1,
        "dtype": "float32",
        "crs": f"EPSG:{tile.epsg}",
        "transform": from_origin(x0 - 15_000, y1 + 15_000, 30, 30),
        **options,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(height, 1)
    return str(path)


@pytest.fixture(scope="module")
def dem(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dem(tmp_path_factory.mktemp("dem") / "dem.tif", TILE)


def test_a_dem_is_warped_to_the_tile_with_what_stands_around(dem: str) -> None:
    terrain = read_terrain(dem, TILE)
    assert terrain.steep.shape == (512, 512)
    assert terrain.margin == (512, 512)
    assert terrain.height.shape == (1536, 1536)
    assert (terrain.height[0, 0], terrain.height[768, 768]) == (500, 800)
    edge = np.flatnonzero(terrain.steep[256])
    assert 4 <= len(edge) <= 12  # both walls of the block
    assert edge.min() == pytest.approx(256 - 30, abs=3)
    assert edge.max() == pytest.approx(256 + 30, abs=3)


def test_the_shadow_of_a_block_falls_where_the_sun_does_not_stand(dem: str) -> None:
    terrain = read_terrain(dem, TILE)
    shadow = shadow_of_tile(terrain, TILE, 60.0, 180.0)
    rows, cols = np.nonzero(shadow)
    length = 300 * math.tan(math.radians(60)) / 20
    assert rows.max() < 256 - 25
    assert rows.min() == pytest.approx(256 - 30 - length, abs=3)
    assert abs(cols.mean() - 256) < 3


class _Scene:
    """What the terrain asks of a scene."""

    item_id = "item"
    relative_orbit = 22
    sensing_time = "2019-12-20T10:14:31.000Z"
    sun_zenith = sun_azimuth = math.nan
    bbox = (11.0, 48.0, 13.0, 49.0)


def test_bits_are_set_where_land_is_seen_and_nowhere_else(dem: str) -> None:
    recipe = check_dem(dem, [TILE])
    arrays = {
        "10m/quality": np.zeros((1024, 1024), np.uint8),
        "20m/quality": np.zeros((512, 512), np.uint8),
        "20m/mask": np.zeros((512, 512), np.uint8),
    }
    arrays["10m/quality"][:, :512] = int(Quality.NO_DATA)
    arrays["20m/quality"][:, :256] = int(Quality.NO_DATA)
    arrays["20m/mask"][:, :256] = int(Mask.INVALID)
    mark_terrain(arrays, TILE, recipe, [_Scene()])  # type: ignore[list-item]
    assert set(np.unique(arrays["20m/mask"])) == {0, int(Mask.SHADOW), int(Mask.INVALID)}
    assert set(np.unique(arrays["20m/quality"])) == {0, 1, int(Quality.TERRAIN)}
    assert (arrays["20m/mask"][:, :256] == int(Mask.INVALID)).all()
    marked = arrays["20m/quality"] == int(Quality.TERRAIN)
    shadow = arrays["20m/mask"] == int(Mask.SHADOW)
    assert (marked[shadow]).all()
    assert marked.sum() > shadow.sum() > 500  # the sun of December stands 17 degrees high
    twice = np.repeat(np.repeat(marked, 2, 0), 2, 1)
    np.testing.assert_array_equal(arrays["10m/quality"] == int(Quality.TERRAIN), twice)


def test_a_dem_that_cannot_serve_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cube.dem '.*none.tif' cannot be opened"):
        check_dem(str(tmp_path / "none.tif"), [TILE])
    nowhere = write_dem(tmp_path / "nocrs.tif", TILE, crs=None)
    with pytest.raises(ConfigError, match="has no CRS"):
        check_dem(nowhere, [TILE])
    far = Tile(TILE.zone, TILE.row + 20, TILE.col)
    elsewhere = write_dem(tmp_path / "far.tif", far)
    with pytest.raises(ConfigError, match="reaches none of the tiles"):
        check_dem(elsewhere, [TILE])


@pytest.fixture
def server(dem: str) -> Iterator[ArchiveServer]:
    forget_answers()
    read_terrain.cache_clear()
    with archive_server(Path(dem).parent) as server:
        yield server


def name_of(server: ArchiveServer, dem: str) -> str:
    """The DEM behind the server, as a VRT of this machine names it."""
    link = f"/vsicurl/{server.url}/dem.tif"
    with rasterio.open(dem) as file:
        n, crs, edge = file.width, file.crs.to_wkt(), ", ".join(map(str, file.transform.to_gdal()))
    place = Path(dem).with_name("dem.vrt")
    place.write_text(
        f'<VRTDataset rasterXSize="{n}" rasterYSize="{n}"><SRS>{escape(crs)}</SRS>'
        f'<GeoTransform>{edge}</GeoTransform><VRTRasterBand dataType="Float32" band="1">'
        f"<SimpleSource><SourceFilename>{link}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return str(place)


@pytest.mark.parametrize("as_vrt", [False, True])
def test_a_dem_that_a_server_refused_is_read_when_it_gives_it(
    server: ArchiveServer, dem: str, as_vrt: bool
) -> None:
    url = name_of(server, dem) if as_vrt else f"{server.url}/dem.tif"
    server.set_broken({"/dem.tif": "503"})
    with pytest.raises(
        ReadError, match=r"cube.dem '.*dem.(tif|vrt)' cannot be read .* after 2 attempts\)"
    ):
        read_terrain(url, TILE, retries=1)
    server.set_broken({})
    found = read_terrain(url, TILE, retries=0)
    np.testing.assert_array_equal(found.height, read_terrain(dem, TILE).height)


def test_a_passing_fault_of_a_dems_server_is_waited_out(server: ArchiveServer, dem: str) -> None:
    url = f"{server.url}/dem.tif"
    server.set_faults(dict.fromkeys(range(1, 3), "503"))
    assert check_dem(url, [TILE], retries=1).name == check_dem(dem, [TILE]).name
    server.set_faults({server.n_get + 1: "truncate"})
    found = read_terrain(url, TILE, retries=1)
    np.testing.assert_array_equal(found.height, read_terrain(dem, TILE).height)


def test_the_name_of_a_dem_is_that_of_its_file_and_header(dem: str, tmp_path: Path) -> None:
    moved = tmp_path / "dem.tif"
    moved.write_bytes(Path(dem).read_bytes())
    first, second = check_dem(dem, [TILE]), check_dem(str(moved), [TILE])
    assert first.name == second.name != dem
    assert first.parameters()["slope_deg"] == SLOPE_DEG
