"""The world grid: ownership at zone borders, tiles, southern relabelling, true areas."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from eoray.errors import ConfigError, GridError
from eoray.grid import (
    TILE_M,
    TOP_M,
    ZONE_COLS,
    ZONE_ROWS,
    Block,
    PixelWindow,
    Tile,
    Tiles,
    blocks_of_tiles,
    box_lonlat,
    misfit_px,
    owner_mask,
    pixel_area_m2,
    relabel_south,
    tiles_of_geometry,
    zone_boxes,
    zone_of,
    zone_of_epsg,
)

BELT_M = 30_000
"""Half the width of the belt around a border."""

DEGREE_M = 111_320.0

LATITUDES = (-79.6, -66.0, -45.0, -23.0, -0.02, 0.02, 34.0, 56.2, 60.0, 71.8, 78.0, 83.7)
"""Both hemispheres, the equator, Norway, Svalbard and both limits."""

BORDERS = (-180.0, -174.0, -6.0, 0.0, 3.0, 6.0, 9.0, 12.0, 21.0, 33.0, 42.0, 174.0)

TILES = st.builds(
    Tile, st.integers(1, 60), st.integers(0, ZONE_ROWS - 1), st.integers(0, ZONE_COLS - 1)
)


@lru_cache
def to_utm(zone: int) -> Transformer:
    return Transformer.from_crs(4326, 32600 + zone, always_xy=True)


def oracle_zone(lon: float, lat: float) -> int:
    """MGRS zones in the words of their definition, without arrays."""
    lon = lon - 360.0 * math.floor((lon + 180.0) / 360.0)
    if 56 <= lat < 64 and 3 <= lon < 12:
        return 32
    if 72 <= lat <= 84 and 0 <= lon < 42:
        return 31 if lon < 9 else 33 if lon < 21 else 35 if lon < 33 else 37
    return min(60, int((lon + 180) // 6) + 1)


def tile_containing(zone: int, lon: float, lat: float) -> Tile:
    x, y = to_utm(zone).transform(lon, lat)
    return Tile(zone, int((TOP_M - y) // TILE_M), int(x // TILE_M))


@st.composite
def belt_points(draw: st.DrawFn) -> tuple[float, float]:
    """A place within 30 km of a zone border and more than 10 m from it."""
    lat = draw(st.sampled_from(LATITUDES)) + draw(st.floats(-0.2, 0.2))
    lat = min(83.999, max(-79.999, lat))
    metres = draw(st.floats(11.0, BELT_M)) * draw(st.sampled_from((-1, 1)))
    lon = draw(st.sampled_from(BORDERS)) + metres / (DEGREE_M * math.cos(math.radians(lat)))
    return (lon + 180.0) % 360.0 - 180.0, lat


@settings(max_examples=60, deadline=None)
@given(belt_points())
def test_point_near_a_border_is_owned_once_and_lies_in_a_tile_of_its_owner(
    point: tuple[float, float],
) -> None:
    lon, lat = point
    owner = int(zone_of(lon, lat))
    assert owner == oracle_zone(lon, lat)
    tiny = 2e-6  # about 0.2 m
    found = tiles_of_geometry(box_lonlat(lon - tiny, lat - tiny, lon + tiny, lat + tiny))
    assert {tile.zone for tile in found} == {owner}
    assert tile_containing(owner, lon, lat) in found


@pytest.mark.parametrize("lat", LATITUDES)
def test_belt_around_a_border_is_covered_by_pixels_of_exactly_one_zone(lat: float) -> None:
    """Pixel lattices of two zones, sampled where they overlap: no gap, no duplicate."""
    rng = np.random.default_rng(int(abs(lat) * 100))
    border = 6.0 if not 56 <= lat < 64 else 12.0
    if lat >= 72:
        border = 9.0
    metres = rng.uniform(11, BELT_M, 400) * rng.choice([-1, 1], 400)
    lon = border + metres / (DEGREE_M * math.cos(math.radians(lat)))
    lats = np.clip(lat + rng.uniform(-0.15, 0.15, 400), -79.99, 83.99)
    zones = {int(z) for z in np.unique(zone_of(lon, lats))}
    owned = np.zeros(400, int)
    for zone in zones:
        x, y = to_utm(zone).transform(lon, lats)
        centre_x, centre_y = (np.floor(x / 10) + 0.5) * 10, (np.floor(y / 10) + 0.5) * 10
        back = to_utm(zone).transform(centre_x, centre_y, direction="INVERSE")
        owned += zone_of(*back) == zone
    assert len(zones) == 2
    assert owned.tolist() == [1] * 400


@pytest.mark.parametrize(
    ("lon", "lat", "zone"),
    [
        (2.9, 60, 31),
        (3.0, 60, 32),
        (11.9, 56, 32),
        (12.0, 63.9, 33),
        (3.0, 55.999, 31),
        (3.0, 64, 31),
        (8.9, 78, 31),
        (9.0, 72, 33),
        (20.9, 80, 33),
        (21.0, 80, 35),
        (33.0, 84, 37),
        (42.0, 80, 38),
        (9.0, 71.99, 32),
        (-180.0, 0, 1),
        (180.0, 0, 1),
        (179.999, 0, 60),
        (540.0, -10, 1),
        (10.0, 84.01, 0),
        (10.0, -80.01, 0),
    ],
)
def test_zone_exceptions_and_limits(lon: float, lat: float, zone: int) -> None:
    assert int(zone_of(lon, lat)) == zone


def test_longitude_a_rounding_error_west_of_the_antimeridian_has_a_zone() -> None:
    lon = np.nextafter(-180.0, -181.0)
    assert int(zone_of(lon, 10.0)) in (1, 60)


@settings(deadline=None)
@given(st.floats(-720, 720), st.floats(-80, 84))
def test_every_place_between_the_limits_has_one_zone(lon: float, lat: float) -> None:
    assert 1 <= int(zone_of(lon, lat)) <= 60


@settings(deadline=None)
@given(TILES)
def test_tile_id_reads_back(tile: Tile) -> None:
    assert Tile.from_id(tile.id) == tile


@pytest.mark.parametrize("text", ["z32r457c048", "32r0457c048", "z32r0457c048 ", "Z32R0457C048"])
def test_unreadable_tile_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write it like 'z32r0457c048'"):
        Tile.from_id(text)


@pytest.mark.parametrize("text", ["z00r0000c000", "z61r0000c000", "z32r1786c000", "z32r0000c098"])
def test_tile_outside_the_grid_is_refused(text: str) -> None:
    with pytest.raises(GridError, match="outside the world grid"):
        Tile.from_id(text)


@settings(deadline=None)
@given(TILES)
def test_tiles_lie_on_multiples_of_their_edge_and_rows_run_south(tile: Tile) -> None:
    x0, y0, x1, y1 = tile.bounds
    assert (x1 - x0, y1 - y0) == (TILE_M, TILE_M)
    assert x0 % TILE_M == 0
    assert (y1 - 0) % TILE_M == 0  # the equator is a tile edge
    window = tile.window(20)
    assert (window.row_off, window.col_off) == (tile.row * 512, tile.col * 512)
    assert tuple(window.transform(20)) == tuple(tile.transform(20))
    assert tile.is_south == (y1 <= 0)


def test_equator_parts_rows_917_and_918() -> None:
    assert Tile(32, 917, 40).bounds[1] == 0.0
    assert Tile(32, 918, 40).bounds[3] == 0.0
    assert [Tile(32, r, 40).is_south for r in (917, 918)] == [False, True]


@pytest.mark.parametrize("zone", range(1, 61, 7))
@pytest.mark.parametrize("lat", [-80.0, 0.0, 84.0])
def test_rows_and_columns_of_every_zone_are_inside_the_lattice(zone: int, lat: float) -> None:
    boxes = [box for box in zone_boxes(zone) if box[1] <= lat <= box[3]] or zone_boxes(zone)
    # a tile reaches 10 240 m beyond what it touches: 0.1 degrees at the equator
    wide = np.linspace(min(b[0] for b in boxes) - 0.1, max(b[2] for b in boxes) + 0.1, 25)
    x, y = to_utm(zone).transform(wide, np.full(25, lat))
    assert (x > 0).all()
    assert (x < ZONE_COLS * TILE_M).all()
    assert ((TOP_M - y) > 0).all()
    assert ((TOP_M - y) < ZONE_ROWS * TILE_M).all()


def test_geometry_ending_on_a_border_takes_no_tiles_of_the_zone_beyond() -> None:
    assert {t.zone for t in tiles_of_geometry(box_lonlat(12.0, 47.0, 12.1, 47.1))} == {33}
    assert {t.zone for t in tiles_of_geometry(box_lonlat(11.9, 47.0, 12.0, 47.1))} == {32}


def test_geometry_across_a_border_lists_tiles_of_both_zones_with_owned_pixels() -> None:
    tiles = tiles_of_geometry(box_lonlat(11.95, 47.0, 12.05, 47.05))
    assert {tile.zone for tile in tiles} == {32, 33}
    assert all(owner_mask(tile, 20).any() for tile in tiles)


def test_box_across_the_antimeridian_lies_in_zones_60_and_1() -> None:
    tiles = tiles_of_geometry(box_lonlat(179.9, -17.1, -179.9, -17.0))
    assert {tile.zone for tile in tiles} == {1, 60}
    assert len(tiles) < 12


def test_empty_geometry_is_refused() -> None:
    with pytest.raises(ConfigError, match="aoi is empty"):
        tiles_of_geometry(shapely.Polygon())


@pytest.mark.parametrize("box", [(0, 83.5, 1, 84.5), (0, -81, 1, -79)])
def test_poles_are_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ConfigError, match="UTM ends at -80 and 84"):
        tiles_of_geometry(box_lonlat(*box))


@pytest.mark.parametrize(
    ("lon", "lat", "zones"),
    [(3, 56, (31, 32)), (6, 56, (31, 32)), (12, 64, (32, 33)), (9, 72, (31, 32, 33))],
)
def test_owner_mask_at_corners_of_zones_is_exact(
    lon: float, lat: float, zones: tuple[int, ...]
) -> None:
    """The shortcut through the outline must not miss a corner of another zone."""
    for zone in zones:
        centre = tile_containing(zone, lon, lat)
        for row in (-1, 0, 1):
            for col in (-1, 0, 1):
                tile = Tile(zone, centre.row + row, centre.col + col)
                x0, _, _, y1 = tile.bounds
                at = (np.arange(128) + 0.5) * 80
                x, y = np.meshgrid(x0 + at, y1 - at)
                lons, lats = to_utm(zone).transform(x, y, direction="INVERSE")
                expected = zone_of(lons, lats) == zone
                assert (owner_mask(tile, 80) == expected).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(200_000, 800_000), st.floats(1_200_000, 9_990_000))
def test_southern_crs_is_the_northern_one_shifted(zone: int, x: float, y: float) -> None:
    both = Transformer.from_crs(32700 + zone, 32600 + zone, always_xy=True)
    north_x, north_y = both.transform(x, y)
    assert abs(north_x - x) < 1e-6
    assert abs(north_y - (y - 10_000_000)) < 1e-6


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # odc-geo 0.5
def test_relabelled_southern_granule_pastes_without_resampling() -> None:
    from odc.geo.geobox import GeoBox
    from odc.geo.overlap import compute_reproject_roi

    stated = (10.0, 0.0, 499_980.0, 0.0, -10.0, 9_200_020.0)
    epsg, transform = relabel_south(32732, stated)
    assert epsg == 32632
    tile = tile_containing(32, 9.2, -7.5)
    raw = GeoBox((10980, 10980), Affine(*stated), "EPSG:32732")
    relabelled = GeoBox((10980, 10980), Affine(*transform), f"EPSG:{epsg}")
    assert not compute_reproject_roi(raw, tile.geobox(10)).paste_ok
    assert compute_reproject_roi(relabelled, tile.geobox(10)).paste_ok
    assert misfit_px(transform, 10) == (0.0, 0.0)
    assert misfit_px((20.0, 0.0, *transform[2:4], -20.0, transform[5]), 20) == (0.0, 0.0)


@pytest.mark.parametrize("epsg", [32632, 4326, 3035, 32761])
def test_other_crs_pass_the_relabelling(epsg: int) -> None:
    assert relabel_south(epsg, (10, 0, 1, 0, -10, 2)) == (epsg, (10, 0, 1, 0, -10, 2))


def test_zone_of_epsg_knows_both_hemispheres_only() -> None:
    codes = (32601, 32660, 32701, 32760, 32600, 32661, 4326, 3035)
    assert [zone_of_epsg(code) for code in codes] == [1, 60, 1, 60, None, None, None, None]


def test_misfit_names_the_part_of_a_pixel() -> None:
    dx, dy = misfit_px((10.0, 0.0, 399_962.5, 0.0, -10.0, 5_700_001.0), 10)
    assert (dx, dy) == pytest.approx((0.25, 0.9))
    assert all(math.isnan(part) for part in misfit_px((20.0, 0, 0, 0, -20.0, 0), 10))
    assert all(math.isnan(part) for part in misfit_px((10.0, 0.1, 0, 0, -10.0, 0), 10))


@st.composite
def tile_sets(draw: st.DrawFn) -> list[Tile]:
    cells = draw(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30))
    return [Tile(32, 450 + row, 40 + col) for row, col in cells]


@settings(deadline=None)
@given(tile_sets(), st.integers(1, 5))
def test_blocks_hold_each_tile_once_and_fit_around_it(tiles: list[Tile], edge: int) -> None:
    blocks = list(blocks_of_tiles(tiles, edge))
    assert sorted(t for _, members in blocks for t in members) == sorted(tiles)
    for block, members in blocks:
        assert max(block.n_rows, block.n_cols) <= edge
        for tile in members:
            assert 0 <= tile.row - block.row < block.n_rows
            assert 0 <= tile.col - block.col < block.n_cols


@settings(deadline=None)
@given(tile_sets(), st.integers(1, 5))
def test_grouping_of_a_tile_does_not_depend_on_the_others(tiles: list[Tile], edge: int) -> None:
    """Two tiles share a block with others present exactly if they do alone."""
    home = {t: n for n, (_, members) in enumerate(blocks_of_tiles(tiles, edge)) for t in members}
    for first, second in itertools.pairwise(tiles):
        alone = len(list(blocks_of_tiles([first, second], edge))) == 1
        assert alone == (home[first] == home[second])


def test_block_window_and_bounds_span_its_tiles() -> None:
    block = Block(32, 400, 50, 2, 3)
    corner = Tile(32, 401, 52)
    assert block.bounds[:2] == (50 * TILE_M, corner.bounds[1])
    assert block.bounds[2:] == (corner.bounds[2], Tile(32, 400, 50).bounds[3])
    assert block.window(20) == PixelWindow(400 * 512, 50 * 512, 1024, 1536)
    assert PixelWindow(10, 20, 3, 4).buffered(2) == PixelWindow(8, 18, 7, 8)


@pytest.mark.parametrize(("lon", "lat"), [(9.3, -70.0), (11.9, 0.1), (11.9, -30.0), (9.3, 78.0)])
def test_pixel_area_equals_the_geodesic_polygon(lon: float, lat: float) -> None:
    tile = tile_containing(32, lon, lat)
    areas = pixel_area_m2(tile, 20)
    geod = Geod(ellps="WGS84")
    x0, _, _, y1 = tile.bounds
    for row, col in ((0, 0), (511, 371)):
        # vertices along the edges: a straight UTM edge is not quite a geodesic
        west, north = x0 + col * 20, y1 - row * 20
        ring = shapely.segmentize(shapely.box(west, north - 20, west + 20, north), 5)
        x, y = np.array(ring.exterior.coords).T
        lons, lats = to_utm(32).transform(x, y, direction="INVERSE")
        exact = abs(geod.polygon_area_perimeter(lons, lats)[0])
        assert areas[row, col] == pytest.approx(exact, rel=1e-6)


def test_ten_metre_pixels_of_the_equator_cover_the_published_range() -> None:
    """99.80 to 100.08 m2: a UTM square is not what it says."""
    centre = pixel_area_m2(tile_containing(32, 9.0, 0.01), 10)
    border = pixel_area_m2(tile_containing(32, 11.99, 0.01), 10)
    assert centre.max() == pytest.approx(100.08, abs=0.005)
    assert border.min() == pytest.approx(99.80, abs=0.01)


def test_tiles_as_numbers_are_the_tiles_in_order() -> None:
    some = [Tile(33, 5, 2), Tile(32, 400, 70), Tile(32, 400, 9), Tile(32, 7, 97), Tile(33, 5, 2)]
    tiles = Tiles.of(some)
    told = sorted(set(some))
    assert list(tiles) == told
    assert [tiles[i] for i in range(-4, 4)] == told * 2
    assert tiles[1:3] == told[1:3]
    assert tiles == told
    assert tiles != told[:3]
    assert Tile(32, 7, 97) in tiles
    assert Tile(31, 7, 97) not in tiles
    assert Tiles.of(tiles) is tiles
    assert [(part.zone, len(part)) for part in tiles.parts] == [(32, 3), (33, 1)]
    assert tiles.parts[0].places.tolist() == [7 * 98 + 97, 400 * 98 + 9, 400 * 98 + 70]
    with pytest.raises(IndexError):
        tiles[4]
