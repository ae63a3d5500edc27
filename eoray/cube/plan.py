"""From scenes and tiles to tasks: which granules each tile meets, and who reads them.

Planet-scale plans hold millions of (tile, datatake) pairs, so pairs are found with arrays, zone by
zone, and strings and tuples that many tiles share are made once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.layout import TimeEntry
from eoray.grid import (
    TILE_M,
    Block,
    Tile,
    Zone,
    blocks_of_cells,
    blocks_of_tiles,
    box_lonlat,
    lattice_of,
)
from eoray.grid.lattice import from_lonlat, to_lonlat
from eoray.grid.place import zone_boxes

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene

BLOCK_EDGE = 4
"""Tiles along a block: a 1024 px block of a COG is then decoded 1.4 to 1.6 times, not 3.9."""

_REACH_M = 2.0 * TILE_M
"""Tiles of a zone reach beyond its border by less than this, what masks look at included."""


@dataclass(frozen=True, slots=True)
class SceneRow:
    """A datatake over a block of tiles: one task."""

    key: str
    entry: str
    block: Block
    tiles: tuple[Tile, ...]
    scenes: tuple[Scene, ...]
    sources: tuple[str, ...]
    """What each tile is made from, as the ledger keeps it."""

    def only(self, tiles: Sequence[Tile]) -> SceneRow:
        """The row reduced to some of its tiles."""
        kept = [(t, s) for t, s in zip(self.tiles, self.sources, strict=True) if t in tiles]
        ((block, members),) = blocks_of_tiles([t for t, _ in kept], BLOCK_EDGE)
        return replace(self, block=block, tiles=members, sources=tuple(s for _, s in sorted(kept)))


def plan_scenes(
    scenes: Sequence[Scene], tiles: Sequence[Tile]
) -> tuple[dict[Zone, list[TimeEntry]], list[SceneRow]]:
    """Group scenes and tiles into time entries and tasks.

    Args:
        scenes: Resolved scenes of one lineage, any order.
        tiles: Tiles of the AOI, each once.

    Returns:
        Entries by zone, and rows sorted by zone, time and block. Each (tile, datatake) that a
        scene touches is in exactly one row, and no row depends on the others.
    """
    ordered = sorted(scenes, key=attrgetter("sensing_time", "datatake", "item_id"))
    takes = {scene.datatake: None for scene in ordered}
    rank = dict(zip(takes, range(len(takes)), strict=True))
    entries: dict[Zone, list[TimeEntry]] = {}
    rows: list[SceneRow] = []
    cells = sorted(tiles, key=attrgetter("zone", "row", "col"))
    for zone, part in groupby(cells, attrgetter("zone")):
        here = _Places(zone, tuple(part))
        near = [scene for scene, hit in zip(ordered, here.reached_by(ordered), strict=True) if hit]
        near.sort(key=lambda scene: (rank[scene.datatake], scene.item_id))
        for datatake, members in groupby(near, attrgetter("datatake")):
            met = _Meetings.of(tuple(members), here)
            if met.found:
                entries.setdefault(zone, []).append(_entry(datatake, met.scenes))
                rows += met.rows(datatake)
    rows.sort(key=lambda row: (row.block.zone, row.scenes[0].sensing_time, row.key))
    return entries, rows


def scenes_over(scenes: Sequence[Scene], tile: Tile) -> tuple[Scene, ...]:
    """Scenes that may hold pixels of a tile, or of what masks look at around it."""
    place = _Places(tile.zone, (tile,))
    return tuple(scene for scene in scenes if len(place.touched_by(scene)))


class _Places:
    """The tiles of one zone, with what scenes are held against."""

    def __init__(self, zone: Zone, tiles: tuple[Tile, ...]) -> None:
        self.zone, self.tiles = zone, tiles
        self.lattice = lattice_of(zone)
        self.rows = np.array([tile.row for tile in tiles])
        self.cols = np.array([tile.col for tile in tiles])
        edge = self.lattice.edge
        y, x = self._margins()
        left, top = self.lattice.x + self.cols * edge, self.lattice.y - self.rows * edge
        self._bounds = np.stack([left - x, top - edge - y, left + edge + x, top + y])
        """Dims (x min, y min, x max, y max) x tile, with what masks look at."""
        self._outlines = np.full(len(tiles), None, object)

    def _margins(self) -> tuple[Any, Any]:
        if self.lattice.overlaps:
            return self.lattice.margin(0, 0)
        margins = [self.lattice.margin(tile.row, tile.col) for tile in self.tiles]
        y, x = np.array(margins).T
        return y, x

    def reached_by(self, scenes: Sequence[Scene]) -> np.ndarray:
        """Tell which scenes may touch a tile of the zone; too many rather than too few."""
        if not (self.lattice.overlaps and len(scenes)):
            return np.ones(len(scenes), bool)
        west, south, east, north = np.array([scene.bbox for scene in scenes]).T
        east = np.where(west > east, east + 360.0, east)
        reached = np.array([scene.grid_epsg == self.lattice.epsg for scene in scenes])
        for x0, y0, x1, y1 in zone_boxes(self.lattice.epsg - 32600):
            slack_y = _REACH_M / 110_000
            poleward = min(max(abs(y0), abs(y1)) + slack_y, 89.0)
            slack_x = slack_y / math.cos(math.radians(poleward))
            lat = (south <= y1 + slack_y) & (north >= y0 - slack_y)
            for turn in (-360.0, 0.0, 360.0):
                lon = (west + turn <= x1 + slack_x) & (east + turn >= x0 - slack_x)
                reached |= lat & lon
        return reached

    def touched_by(self, scene: Scene) -> np.ndarray:
        """Positions of the tiles that may hold pixels of a scene, or of what masks look at."""
        if scene.grid_epsg == self.lattice.epsg:
            a, _, c, _, e, f = scene.extent.transform
            height, width = scene.extent.shape
            return self._within((c, f + e * height, c + a * width, f))
        near = self._near(scene.bbox)
        if not len(near):
            return near
        import shapely

        hit = shapely.intersects(box_lonlat(*scene.bbox), self._outlines_of(near))
        return near[np.asarray(hit)]

    def _within(self, bounds: tuple[float, float, float, float]) -> np.ndarray:
        """Tiles that share an area with bounds in the CRS of the lattice."""
        x0, y0, x1, y1 = bounds
        edge, top = self.lattice.edge, self.lattice.y
        first, last = 0, len(self.tiles)
        if self.lattice.overlaps:  # tiles are in order of rows
            rows = [(top - y1) // edge - 1, (top - y0) // edge + 2]
            first, last = (int(at) for at in np.searchsorted(self.rows, rows))
        left, bottom, right, upper = self._bounds[:, first:last]
        hit = (x0 < right) & (x1 > left) & (y1 > bottom) & (y0 < upper)
        return first + np.flatnonzero(hit)

    def _near(self, bbox: tuple[float, float, float, float]) -> np.ndarray:
        """Tiles that a scene of another CRS may touch; too many rather than too few."""
        if not self.lattice.overlaps:
            return np.arange(len(self.tiles))
        west, south, east, north = bbox
        if west > east:
            east += 360.0
        lon, lat = np.linspace(west, east, 33), np.linspace(south, north, 33)
        ring = [np.tile(lon, 2), np.repeat([south, north], 33)]
        sides = [np.repeat([west, east], 33), np.tile(lat, 2)]
        x, y = from_lonlat(self.lattice.epsg).transform(*np.concatenate([ring, sides], axis=1))
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return np.arange(len(self.tiles))
        reach = self.lattice.edge
        return self._within((x.min() - reach, y.min() - reach, x.max() + reach, y.max() + reach))

    def _outlines_of(self, positions: np.ndarray) -> np.ndarray:
        """Tiles with their margins as lon/lat polygons, made when they are first asked for."""
        absent = positions[[self._outlines[i] is None for i in positions]]
        if len(absent):
            self._outlines[absent] = self._make_outlines(absent)
        return np.asarray(self._outlines[positions])

    def _make_outlines(self, positions: np.ndarray) -> np.ndarray:
        import shapely

        half = self.lattice.edge * 5_000 / TILE_M
        rings = shapely.segmentize(shapely.box(*self._bounds[:, positions]), half)
        lonlat = shapely.transform(rings, self._to_lonlat)
        west, south, east, north = shapely.bounds(lonlat).T
        for i in np.flatnonzero(east - west > 180):  # the outline crosses the antimeridian
            lon = shapely.get_coordinates(lonlat[i])[:, 0]
            lonlat[i] = box_lonlat(lon[lon > 0].min(), south[i], lon[lon < 0].max(), north[i])
        return np.asarray(lonlat)

    def _to_lonlat(self, xy: np.ndarray) -> np.ndarray:
        return np.stack(to_lonlat(self.lattice, *xy.T), axis=1)


@dataclass(frozen=True, slots=True)
class _Meetings:
    """Which scenes of a datatake the tiles of a zone meet."""

    places: _Places
    positions: np.ndarray
    """Of the tiles that meet one, ascending."""
    found: list[tuple[int, ...]]
    """Numbers of the scenes that each of them meets."""
    members: Sequence[Scene]
    """In order of their ids."""

    @classmethod
    def of(cls, members: Sequence[Scene], places: _Places) -> _Meetings:
        """Hold the scenes of a datatake against the tiles of a zone."""
        touched = [places.touched_by(scene) for scene in members]
        tile = np.concatenate(touched)
        number = np.repeat(np.arange(len(members)), [len(part) for part in touched])
        order = np.lexsort((number, tile))
        met, first = np.unique(tile[order], return_index=True)
        numbers, ends = number[order].tolist(), [*first.tolist(), len(tile)]
        return cls(places, met, [tuple(numbers[a:b]) for a, b in pairwise(ends)], members)

    @property
    def scenes(self) -> list[Scene]:
        """Scenes that some tile meets, in order of their ids."""
        return [self.members[i] for i in sorted(set().union(*self.found))]

    def rows(self, datatake: str) -> Iterator[SceneRow]:
        """The tasks of the datatake in this zone."""
        places = self.places
        sources = {found: _source(self.members[i] for i in found) for found in set(self.found)}
        cells = places.rows[self.positions], places.cols[self.positions]
        tiles = [places.tiles[i] for i in self.positions.tolist()]
        for block, within in blocks_of_cells(places.zone, *cells, BLOCK_EDGE):
            first, met = tiles[within[0]], [self.found[i] for i in within]
            yield SceneRow(
                key=f"{datatake}/{first.id}x{len(within)}",
                entry=datatake,
                block=block,
                tiles=tuple(tiles[i] for i in within),
                scenes=tuple(self.members[i] for i in sorted(set().union(*set(met)))),
                sources=tuple(sources[found] for found in met),
            )


def _source(scenes: Iterable[Scene]) -> str:
    """Ids with what decides their values; never hrefs, which may be signed."""
    return "; ".join(
        f"{s.item_id} baseline {s.baseline or '?'} offset {s.dn_offset:+d} ({s.offset_rule})"
        for s in scenes
    )


def _entry(datatake: str, scenes: Sequence[Scene]) -> TimeEntry:
    first = scenes[0]
    refined = {s.refined for s in scenes}
    columns: dict[str, str | float | int] = {
        "solar_day": min(s.solar_day for s in scenes),
        "satellite": first.satellite,
        "relative_orbit": first.relative_orbit,
        "provider": _joined(s.provider for s in scenes),
        "baseline": _joined(s.baseline for s in scenes),
        "offset_rule": _joined(s.offset_rule for s in scenes),
        "refined": -1 if None in refined or len(refined) > 1 else int(bool(refined.pop())),
    }
    for name in ("sun_zenith", "sun_azimuth", "view_zenith", "view_azimuth"):
        columns[name] = float(np.mean([getattr(s, name) for s in scenes]))
    return TimeEntry(datatake, first.sensing_time, columns)


def _joined(values: Iterable[str]) -> str:
    return "+".join(sorted({value or "?" for value in values}))
