"""The plan of the scene product: every (tile, datatake) once, nothing depends on the others."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from eoray.catalog.scene import BandAsset, Scene
from eoray.cube.plan import BLOCK_COLS, BLOCK_ROWS, SceneRow, plan_scenes
from eoray.grid import TILE_M, TOP_M, Tile, Tiles, box_lonlat, tiles_of_geometry, zone_of
from eoray.testing.scenes import make_scene

ORIGIN = Tile(32, 400, 70)


def scene_over(
    name: str, day: int, row: int, col: int, edge: int = 3, zone: int = 32, **fields: Any
) -> Scene:
    """A granule that covers ``edge`` x ``edge`` tiles from a tile on, less 100 m all round."""
    px = edge * 512 - 10
    x, y = col * TILE_M + 100, TOP_M - row * TILE_M - 100
    asset = BandAsset("SCL", f"/nowhere/{name}.tif", (20.0, 0.0, x, 0.0, -20.0, y), (px, px), 0)
    date = f"2021-06-{day:02d}"
    when = {
        "datatake": f"S2A_{date.replace('-', '')}T100000_R022",
        "sensing_time": f"{date}T10:00:00.000Z",
        "solar_day": date,
    }
    return make_scene(name, zone, (asset,), **{**when, **fields})


SCENES = [
    scene_over("32TQS_1", 1, 398, 69),
    scene_over("32TQT_1", 1, 400, 71),
    scene_over("32TQS_6", 6, 399, 70),
    scene_over("32TQS_11", 11, 100, 10),
]

TILE_SETS = st.sets(
    st.builds(Tile, st.just(32), st.integers(397, 404), st.integers(68, 75)), min_size=1
)


def touches(scene: Scene, tile: Tile) -> bool:
    """Brute force on bounds: the file, grown by what masks look at."""
    a, _, c, _, e, f = scene.asset("SCL").transform
    height, width = scene.asset("SCL").shape
    x0, y0, x1, y1 = tile.bounds
    return bool(
        c - 320 < x1 and c + a * width + 320 > x0 and f + 320 > y0 and f + e * height - 320 < y1
    )


@settings(max_examples=20, deadline=None)
@given(TILE_SETS, st.permutations(SCENES))
def test_each_tile_and_datatake_is_in_one_row(tiles: set[Tile], scenes: list[Scene]) -> None:
    _, rows = plan_scenes(scenes, sorted(tiles))
    planned = [(tile, row.entry) for row in rows for tile in row.tiles]
    expected = {(t, s.datatake) for t in tiles for s in SCENES if touches(s, t)}
    assert len(planned) == len(set(planned))
    assert set(planned) == expected
    for row in rows:
        assert row.block.n_rows <= BLOCK_ROWS
        assert row.block.n_cols <= BLOCK_COLS


@settings(max_examples=20, deadline=None)
@given(TILE_SETS, st.permutations(SCENES))
def test_sources_of_a_tile_depend_neither_on_order_nor_on_other_tiles(
    tiles: set[Tile], scenes: list[Scene]
) -> None:
    first = min(tiles)
    alone, together = (
        {
            row.entry: source
            for row in plan_scenes(some, chosen)[1]
            for tile, source in zip(row.tiles, row.sources, strict=True)
            if tile == first
        }
        for some, chosen in ((SCENES, [first]), (scenes, sorted(tiles, reverse=True)))
    )
    assert alone == together


def test_rows_run_in_order_of_time_and_are_small() -> None:
    tiles = [Tile(32, row, col) for row in range(397, 405) for col in range(68, 76)]
    entries, rows = plan_scenes(SCENES, tiles)
    assert [row.entry[10:12] for row in rows] == sorted(row.entry[10:12] for row in rows)
    assert [e.key for e in entries[32]] == [SCENES[0].datatake, SCENES[2].datatake]
    assert len({row.key for row in rows}) == len(rows)
    assert len(pickle.dumps(rows[0])) < 20_000


def test_source_names_items_and_what_decides_their_values() -> None:
    _, (row,) = plan_scenes(SCENES[:2], [Tile(32, 400, 71)])
    assert row.sources == (
        "32TQS_1 baseline 05.00 offset -1000 (raw); 32TQT_1 baseline 05.00 offset -1000 (raw)",
    )
    assert "/nowhere" not in row.sources[0]


def test_row_reduced_to_some_tiles_keeps_their_sources() -> None:
    tiles = [Tile(32, row, col) for row in (400, 401) for col in (70, 71)]
    _, rows = plan_scenes(SCENES[2:3], tiles)
    sources = {t: s for row in rows for t, s in zip(row.tiles, row.sources, strict=True)}
    (row,) = [row for row in rows if tiles[3] in row.tiles]
    numbered = replace(row, sources=tuple(tile.id for tile in row.tiles))
    kept: SceneRow = numbered.only(list(row.tiles[-1:]))
    assert kept.tiles == row.tiles[-1:]
    assert kept.sources == (row.tiles[-1].id,)
    assert (kept.block.n_rows, kept.block.n_cols) == (1, 1)
    assert len(sources) == 4


def test_neighbour_zone_gets_the_datatake_too_and_no_far_zone() -> None:
    """A granule of zone 33 whose ground lies in tiles of both zones."""
    foreign = scene_over("33TUN_1", 1, 400, 26, zone=33)
    west = Tile(32, 400, 70)
    to_33 = Transformer.from_crs(32632, 32633, always_xy=True)
    x, y = to_33.transform(*np.add(west.bounds[:2], 5000))
    own = Tile(33, int((TOP_M - y) // TILE_M), int(x // TILE_M))
    foreign = scene_over("33TUN_1", 1, own.row - 1, own.col - 1, zone=33)
    far = Tile(32, 430, 70)
    entries, rows = plan_scenes([foreign], [west, own, far])
    assert sorted(entries) == [32, 33]
    assert sorted(t for row in rows for t in row.tiles) == [west, own]


def test_entry_joins_what_its_scenes_say() -> None:
    mixed = [
        SCENES[0],
        replace(SCENES[1], baseline="05.10", refined=False, sun_zenith=32.0, relative_orbit=22),
    ]
    entries, _ = plan_scenes(mixed, [Tile(32, 400, 71)])
    columns = entries[32][0].columns
    assert columns["baseline"] == "05.00+05.10"
    assert columns["refined"] == -1
    assert columns["sun_zenith"] == 31.0
    assert columns["solar_day"] == "2021-06-01"
    assert entries[32][0].time == "2021-06-01T10:00:00.000Z"


BORDERS = [
    *((6.0, lat) for lat in (0.0, -33.0, 45.0, 60.0, 71.9, 78.0, 83.5)),
    (3.0, 60.0),
    (9.0, 75.0),
    (180.0, 65.0),
    (-180.0, -17.0),
    (12.0, -79.5),
]
"""Places (lon, lat) where zones meet, with Norway, Svalbard and the antimeridian."""


@pytest.mark.parametrize("place", BORDERS)
@settings(max_examples=4, deadline=None)
@given(east=st.floats(-60_000, 60_000), north=st.floats(-30_000, 30_000))
def test_every_tile_of_any_zone_that_a_scene_touches_is_planned(
    place: tuple[float, float], east: float, north: float
) -> None:
    """Held against each tile's outline, however far from the granule's zone."""
    lon, lat = place
    tiles = tiles_near(lon, lat)
    zone = int(zone_of(lon - 0.1 if lon > -180 else 179.9, lat))
    x, y = Transformer.from_crs(4326, 32600 + zone, always_xy=True).transform(lon, lat)
    col, row = int((x + east) // TILE_M), int((TOP_M - y - north) // TILE_M)
    scene = scene_over("granule", 1, max(0, row - 5), col - 5, edge=11, zone=zone)
    _, rows = plan_scenes([scene], tiles)
    planned = {tile for row in rows for tile in row.tiles}
    box = box_lonlat(*scene.bbox)
    foreign = [tile for tile in tiles if tile.zone != zone]
    assert planned - set(foreign) == {t for t in tiles if t.zone == zone and touches(scene, t)}
    assert planned & set(foreign) == {tile for tile in foreign if box.intersects(outline(tile))}


def tiles_near(lon: float, lat: float) -> Tiles:
    """Tiles within some 60 km of a place, of all zones."""
    wide = 0.6 / max(0.1, float(np.cos(np.radians(lat))))
    west, east = lon - wide, lon + wide
    west, east = (x - 360 * (x > 180) + 360 * (x < -180) for x in (west, east))
    return tiles_of_geometry(box_lonlat(west, max(-80, lat - 0.6), east, min(84, lat + 0.6)))


def outline(tile: Tile) -> Any:
    """A tile and what masks look at around it, lon/lat."""
    ring = shapely.segmentize(shapely.box(*tile.bounds).buffer(320, join_style="mitre"), 500)
    to_lonlat = Transformer.from_crs(tile.epsg, 4326, always_xy=True)
    ring = shapely.transform(ring, lambda xy: np.stack(to_lonlat.transform(*xy.T), axis=1))
    west, south, east, north = ring.bounds
    if east - west < 180:
        return ring
    lon = shapely.get_coordinates(ring)[:, 0]
    return box_lonlat(lon[lon > 0].min(), south, lon[lon < 0].max(), north)


def test_rows_by_number_are_those_in_order() -> None:
    tiles = [Tile(32, row, col) for row in range(397, 405) for col in range(68, 76)]
    _, rows = plan_scenes(SCENES, [*tiles, Tile(33, 900, 3)])
    told = list(rows)
    assert [rows[i] for i in range(len(rows))] == told
    assert rows[-1] == told[-1]
    assert rows[1:3] == told[1:3]
    with pytest.raises(IndexError):
        rows[len(rows)]
    assert rows.n_places == sum(len(row.tiles) for row in told)
    assert rows.n_tiles == len({tile for row in told for tile in row.tiles})
    assert rows.zones == [32]
    assert [scene.item_id for scene in rows.scenes] == ["32TQS_1", "32TQT_1", "32TQS_6"]


def test_plans_in_small_portions_are_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a border of zones, so that boxes and outlines are held against each other, too."""
    tiles = tiles_near(6.0, 45.0)
    scenes = [
        scene_over(f"{zone}-{row}", 1 + row % 3, row, col, edge=5, zone=zone)
        for zone, col in ((31, 64), (32, 20))
        for row in range(426, 434)
    ]
    whole = plan_scenes(scenes, tiles)
    monkeypatch.setattr("eoray.cube.meet._PAIRS", 40)
    entries, rows = plan_scenes(scenes, tiles)
    assert len(rows) > 10
    assert (entries, list(rows)) == (whole[0], list(whole[1]))


def test_no_scene_no_row() -> None:
    entries, rows = plan_scenes([], [Tile(32, 400, 70)])
    assert (entries, list(rows), rows.scenes, rows.n_tiles) == ({}, [], [], 0)
