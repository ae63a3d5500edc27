"""The whole planet: every place in one zone and in a tile of it, over the antimeridian too."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
from pyproj import Geod, Transformer

from eoray.catalog.footprint import bbox_of, item_footprint
from eoray.catalog.lineage import Lineage
from eoray.catalog.scene import resolve_scenes
from eoray.catalog.search import search_items
from eoray.catalog.snapshot import write_snapshot
from eoray.cube.open import to_geometry
from eoray.cube.plan import plan_scenes
from eoray.errors import CatalogError, ConfigError
from eoray.grid import (
    TILE_M,
    TOP_M,
    Tile,
    box_lonlat,
    split_antimeridian,
    tiles_of_geometry,
    zone_boxes,
    zone_of,
)
from eoray.run.aoi import resolve_aoi
from eoray.run.scenes import open_scenes

LATITUDES = (-79.0, -62.0, -45.0, -23.0, -7.0, 0.0, 20.0, 40.0, 60.0, 71.5, 78.0)
"""Eleven, of both hemispheres: the equator, south-west Norway (60), Svalbard (78)."""

BELT_M = 30_000.0
"""Half the width of the belt around a border."""

DEGREE_M = 111_320.0


@lru_cache
def to_utm(zone: int) -> Transformer:
    return Transformer.from_crs(4326, 32600 + zone, always_xy=True)


def borders_at(lat: float) -> list[float]:
    """Longitudes where zones end, by their nominal areas."""
    boxes = [box for zone in range(1, 61) for box in zone_boxes(zone) if box[1] <= lat < box[3]]
    return sorted({box[0] for box in boxes if box[0] < box[2]})


@pytest.mark.parametrize("lat", LATITUDES)
def test_every_place_near_any_border_is_owned_once_and_lies_in_a_tile_of_its_owner(
    lat: float,
) -> None:
    rng = np.random.default_rng(round((lat + 90) * 10))
    borders = borders_at(lat)
    assert len(borders) == {60.0: 60, 71.5: 60, 78.0: 57}.get(lat, 60)
    per_border, metre = 40, 1 / (DEGREE_M * math.cos(math.radians(lat)))
    away = rng.uniform(11, BELT_M, (len(borders), per_border))
    away *= rng.choice([-1, 1], away.shape)
    lon = (np.array(borders)[:, None] + away * metre + 180) % 360 - 180
    lats = lat + rng.uniform(-0.05, 0.05, lon.shape)
    owner = zone_of(lon, lats)
    n_owners = np.zeros(lon.shape, int)
    for zone in range(1, 61):
        # every zone whose pixels could hold the place: those around it
        near = np.abs((lon - (6 * zone - 183) + 180) % 360 - 180) < 12
        if not near.any():
            continue
        x, y = to_utm(zone).transform(lon[near], lats[near])
        centre = (np.floor(x / 10) + 0.5) * 10, (np.floor(y / 10) + 0.5) * 10
        back = to_utm(zone).transform(*centre, direction="INVERSE")
        n_owners[near] += zone_of(*back) == zone
    assert (n_owners == 1).all()
    if lat in (-23.0, 0.0, 60.0, 78.0):  # tiles are listed zone by zone, which takes longer
        for border, lons, where, zones in zip(borders, lon, lats, owner, strict=True):
            side = (BELT_M + 50) * metre
            belt = split_antimeridian(
                shapely.box(border - side, lat - 0.06, border + side, lat + 0.06)
            )
            tiles = set(tiles_of_geometry(belt))
            assert {tile.zone for tile in tiles} == set(np.unique(zones).tolist())
            for one_lon, one_lat, zone in zip(lons[::5], where[::5], zones[::5], strict=True):
                x, y = to_utm(int(zone)).transform(one_lon, one_lat)
                assert Tile(int(zone), int((TOP_M - y) // TILE_M), int(x // TILE_M)) in tiles


@pytest.mark.parametrize(
    "box", [(-10.0, 36.0, 3.0, 44.0), (12.0, -34.0, 20.0, -26.0), (4.0, 58.0, 12.0, 62.0)]
)
def test_tiles_of_land_are_few_more_than_its_area(box: tuple[float, ...]) -> None:
    """What overlaps at zone borders, and what sticks out: some per cent."""
    place = box_lonlat(*box)
    area = abs(Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(place, 0.05))[0])
    n_tiles = len(tiles_of_geometry(place))
    assert 1.0 < n_tiles * TILE_M**2 / area < 1.12


DATELINE = {
    "beyond the east": shapely.box(179.7, 66.0, 180.4, 66.2),
    "beyond the west": shapely.box(-180.3, 66.0, -179.6, 66.2),
    "a turn further": shapely.box(539.7, 66.0, 540.4, 66.2),
    "in two parts": shapely.MultiPolygon(
        [shapely.box(179.7, 66.0, 180, 66.2), shapely.box(-180, 66.0, -179.6, 66.2)]
    ),
}
"""One place, drawn in four ways."""


@pytest.mark.parametrize("way", DATELINE)
def test_a_place_over_the_antimeridian_is_the_same_however_it_is_drawn(
    way: str, tmp_path: Path
) -> None:
    expected = tiles_of_geometry(box_lonlat(179.7, 66.0, -179.6, 66.2))
    assert {tile.zone for tile in expected} == {1, 60}
    assert 8 < len(expected) < 40
    assert tiles_of_geometry(DATELINE[way]) == expected
    assert to_geometry(DATELINE[way]).bounds == (-180, 66.0, 180, 66.2)  # type: ignore[union-attr]
    gpd.GeoDataFrame(geometry=[DATELINE[way]], crs=4326).to_file(tmp_path / "a.geojson")
    aoi = resolve_aoi("a.geojson", tmp_path)
    assert list(aoi.tiles) == expected
    assert (aoi.geometry.bounds[0], aoi.geometry.bounds[2]) == (-180, 180)


@pytest.mark.parametrize("lon", [180.25, -179.75, 540.25])
def test_a_point_beyond_the_antimeridian_lies_in_zone_1(lon: float) -> None:
    (tile,) = tiles_of_geometry(shapely.Point(lon, 66.0).buffer(1e-5))
    assert tile.zone == 1
    assert split_antimeridian(shapely.Point(lon, 66.0)).x == pytest.approx(-179.75)


def test_places_at_the_poles_are_refused_with_the_limit(tmp_path: Path) -> None:
    for box in ([0, 83, 10, 85], [-180, -90, 180, -79.5]):
        with pytest.raises(ConfigError, match="UTM ends at -80 and 84; cut it there"):
            resolve_aoi(box, tmp_path)
    with pytest.raises(ConfigError, match=r"from latitude -90\.00 to 90\.00"):
        resolve_aoi([-180, -90, 180, 90], tmp_path)
    gpd.GeoDataFrame(geometry=[shapely.Polygon()], crs=4326).to_file(tmp_path / "e.geojson")
    with pytest.raises(ConfigError, match="holds no geometry; draw a polygon"):
        resolve_aoi("e.geojson", tmp_path)


PC = "stac/planetary-computer/search_20190101_antimeridian_33items.json"
WCP = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE"

FIRST, LAST = datetime(2015, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
ANY = Lineage(baseline_min=None, mixed=True)


@pytest.fixture(scope="module")
def eastern_items(shared_data: Path) -> list[pystac.Item]:
    """33 real items of one pass over the end of the longitudes, and one that lies across it."""
    documents = json.loads((shared_data / PC).read_text())["features"]
    documents.append(json.loads((shared_data / "stac/stactools" / f"{WCP}.json").read_text()))
    for document in documents:
        document["links"] = [{"rel": "self", "href": "/nowhere/item.json"}]
    return [pystac.Item.from_dict(document) for document in documents]


@pytest.fixture(scope="module")
def catalogues(
    eastern_items: list[pystac.Item], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    folder = tmp_path_factory.mktemp("catalogues")
    documents = [item.to_dict(transform_hrefs=False) for item in eastern_items]
    collected: dict[str, Any] = {"type": "FeatureCollection", "features": documents}
    (folder / "c.json").write_text(json.dumps(collected))
    write_snapshot(eastern_items, str(folder / "c.parquet"))
    return [str(folder / "c.json"), str(folder / "c.parquet")]


def search(url: str, aoi: Any) -> list[str]:
    try:
        return [item.id for item in search_items(url, aoi=aoi, start=FIRST, end=LAST)]
    except CatalogError:
        return []


@pytest.mark.parametrize("way", DATELINE)
def test_a_real_item_across_the_antimeridian_is_found_however_the_place_is_drawn(
    way: str, eastern_items: list[pystac.Item], catalogues: list[str]
) -> None:
    across = eastern_items[-1]
    west, south, east, north = bbox_of(
        item_footprint({"geometry": across.geometry, "bbox": across.bbox}, across.id)
    )
    assert west > 170 > -170 > east
    assert (south < 66.0, north > 66.2) == (True, True)
    beside = shapely.transform(DATELINE[way], lambda xy: xy + np.array([20.0, 0.0]))
    for url in catalogues:
        assert search(url, DATELINE[way]) == [across.id]
        assert search(url, beside) == []


def test_a_real_item_across_the_antimeridian_is_planned_on_both_sides(
    eastern_items: list[pystac.Item],
) -> None:
    scenes = resolve_scenes(eastern_items[-1:], lineage=ANY, bands=["B04"]).scenes
    west, south, east, north = scenes[0].bbox
    tiles = tiles_of_geometry(box_lonlat(west, south, east, north))
    entries, rows = plan_scenes(scenes, tiles)
    assert sorted(entries) == [1, 60]
    planned = {tile for row in rows for tile in row.tiles}
    outline = shapely.from_wkb(scenes[0].footprint)
    inner = [tiles_of_geometry(part.buffer(-0.05)) for part in shapely.get_parts(outline)]
    assert {tile.zone for part in inner for tile in part} == {1, 60}
    assert {tile for part in inner for tile in part} <= planned


def test_real_items_at_a_border_of_zones_are_one_pass_in_both(
    eastern_items: list[pystac.Item], catalogues: list[str]
) -> None:
    place = box_lonlat(173.65, 57.7, 174.1, 58.2)  # the border lies at 174
    found = search(catalogues[0], place)
    assert {name.split("_T")[1][:2] for name in found} == {"59", "60"}
    items = [item for item in eastern_items if item.id in found]
    scenes = resolve_scenes(items, lineage=ANY, bands=["B04"]).scenes
    tiles = tiles_of_geometry(place)
    entries, rows = plan_scenes(scenes, tiles)
    assert sorted(entries) == [59, 60]
    assert {e.key for e in entries[59]} == {e.key for e in entries[60]}
    planned = [tile for row in rows for tile in row.tiles]
    assert sorted(planned) == sorted(set(planned)) == tiles


def test_scenes_of_several_zones_need_a_name(eastern_items: list[pystac.Item]) -> None:
    granules = ("T58UFF", "T59ULA", "T60VUK", "T59VNC")
    items = [item for item in eastern_items if any(granule in item.id for granule in granules)]
    with pytest.raises(ConfigError, match="lie in UTM zones 58, 59, 60; name one with zone="):
        open_scenes(items, bands=["red"])
    with pytest.raises(ConfigError, match="zones 58, 59, 60; zone 1 is not among them"):
        open_scenes(items, zone=1)
    place = box_lonlat(171.5, 56.2, 171.6, 56.3)
    found = open_scenes(items, bands=["red"], aoi=place)  # the place says the zone
    assert found.spatial_ref.attrs["crs_wkt"].startswith('PROJCRS["WGS 84 / UTM zone 59N"')
    assert found.sizes["time"] == 1
    named = open_scenes(items, bands=["red"], aoi=place, zone=59)
    assert named.reflectance.data.name == found.reflectance.data.name  # the same tasks of dask
