"""Which scenes meet which tiles, for all tiles of a zone and all scenes at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.grid import TILE_M, Cells, box_lonlat
from eoray.grid.lattice import from_lonlat, to_lonlat
from eoray.grid.place import zone_boxes

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene

_REACH_M = 2.0 * TILE_M
"""Tiles of a zone reach beyond its border by less than this, what masks look at included."""

_PAIRS = 1_000_000
"""Pairs of scene and tile that are looked at together: some 100 MB."""

_SLACK_M = 1_000.0
"""The outline of a tile with its margin (320 m) leaves the box around its corners by less."""

type Pairs = tuple[np.ndarray, np.ndarray]
"""Positions of scenes, and the position of one tile for each."""


class Swarm:
    """Scenes in their order, with what tiles are held against."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = tuple(scenes)
        self.epsg = np.array([scene.grid_epsg for scene in scenes], np.int64)
        self.boxes = np.array([scene.bbox for scene in scenes], float).reshape(-1, 4)
        """West, south, east, north; east runs beyond 180 across the antimeridian."""
        self.boxes[:, 2] += 360.0 * (self.boxes[:, 0] > self.boxes[:, 2])

    def extents(self, chosen: np.ndarray) -> np.ndarray:
        """(x min, y min, x max, y max) of some scenes in their own CRS."""
        found = []
        for i in chosen.tolist():
            extent = self.scenes[i].extent
            a, _, c, _, e, f = extent.transform
            height, width = extent.shape
            found.append((c, f + e * height, c + a * width, f))
        return np.array(found, float).reshape(-1, 4)


class Places:
    """The tiles of one zone, with what scenes are held against."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.lattice = cells.lattice
        edge = self.lattice.edge
        self._keys = cells.places
        self._margin = y, x = self._margins()
        left, top = self.lattice.x + cells.cols * edge, self.lattice.y - cells.rows * edge
        self._bounds = np.stack([left - x, top - edge - y, left + edge + x, top + y])
        """Dims (x min, y min, x max, y max) x tile, with what masks look at."""
        self._outlines = np.full(len(cells), None, object)
        self._corners = np.full((2, 4, len(cells)), np.nan)
        """Dims (lon, lat) x corner x tile, without margins; NaN until asked for."""

    def _margins(self) -> tuple[Any, Any]:
        if self.lattice.overlaps:
            return self.lattice.margin(0, 0)
        cells = zip(self.cells.rows.tolist(), self.cells.cols.tolist(), strict=True)
        y, x = np.array([self.lattice.margin(row, col) for row, col in cells]).T
        return y, x

    def met_by(self, swarm: Swarm) -> Pairs:
        """Pairs of scenes and tiles that may hold pixels of them, or of what masks look at."""
        own = np.flatnonzero(swarm.epsg == self.lattice.epsg)
        other = np.flatnonzero(self._reached_by(swarm) & (swarm.epsg != self.lattice.epsg))
        found = [
            *self._within(own, swarm.extents(own)),
            *self._across(other, swarm),
        ]
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        which, tile = (np.concatenate(part) for part in zip(*found, strict=True))
        return which, tile

    def _reached_by(self, swarm: Swarm) -> np.ndarray:
        """Tell which scenes may touch a tile of the zone; too many rather than too few."""
        if not self.lattice.overlaps:
            return np.ones(len(swarm.scenes), bool)
        west, south, east, north = swarm.boxes.T
        reached = np.zeros(len(swarm.scenes), bool)
        for x0, y0, x1, y1 in zone_boxes(self.lattice.epsg - 32600):
            slack_y = _REACH_M / 110_000
            poleward = min(max(abs(y0), abs(y1)) + slack_y, 89.0)
            slack_x = slack_y / math.cos(math.radians(poleward))
            lat = (south <= y1 + slack_y) & (north >= y0 - slack_y)
            for turn in (-360.0, 0.0, 360.0):
                lon = (west + turn <= x1 + slack_x) & (east + turn >= x0 - slack_x)
                reached |= lat & lon
        return reached

    def _within(self, chosen: np.ndarray, bounds: np.ndarray) -> Iterator[Pairs]:
        """Scenes and the tiles that share an area with their bounds in the CRS of the lattice."""
        for at, tile in self._candidates(bounds):
            x0, y0, x1, y1 = bounds[at].T
            left, bottom, right, upper = self._bounds[:, tile]
            hit = (x0 < right) & (x1 > left) & (y1 > bottom) & (y0 < upper)
            yield chosen[at[hit]], tile[hit]

    def _candidates(self, bounds: np.ndarray) -> Iterator[Pairs]:
        """Positions of bounds, each with the tiles around; too many rather than too few."""
        lattice, cells = self.lattice, self.cells
        y, x = (float(np.max(size)) for size in self._margin)
        x0, y0, x1, y1 = (bounds + np.array([-x, -y, x, y])).T
        # what is beyond the lattice, or infinite, is as good as its end
        top, bottom = cells.rows[0] - 1, cells.rows[-1] + 1
        first = np.clip((lattice.y - y1) / lattice.edge - 1, top, bottom).astype(np.int64)
        last = np.clip((lattice.y - y0) / lattice.edge + 1, top, bottom).astype(np.int64)
        left = np.clip((x0 - lattice.x) / lattice.edge - 1, 0, lattice.n_cols).astype(np.int64)
        right = np.clip((x1 - lattice.x) / lattice.edge + 1, 0, lattice.n_cols - 1).astype(np.int64)
        count = np.minimum((last - first + 1) * (right - left + 1), len(cells))
        turns = np.flatnonzero(np.diff(np.cumsum(count) // _PAIRS)) + 1
        for part in np.split(np.arange(len(bounds)), turns):
            at, row = expand_ranges(first[part], last[part] + 1)
            at = part[at]
            ends = [row * lattice.n_cols + edge for edge in (left[at], right[at] + 1)]
            within, tile = expand_ranges(*(np.searchsorted(self._keys, end) for end in ends))
            yield at[within], tile

    def _across(self, chosen: np.ndarray, swarm: Swarm) -> Iterator[Pairs]:
        """Scenes of other zones and the tiles whose outline their box touches, lon/lat."""
        import shapely

        boxes = [box_lonlat(*swarm.scenes[i].bbox) for i in chosen.tolist()]
        shapes = np.array([None, *boxes], object)[1:]
        for at, tile in self._candidates(self._projected(swarm.boxes[chosen])):
            hit = self._seen_by_corners(swarm.boxes[chosen[at]], tile)
            doubt = np.flatnonzero(hit < 0)
            near = tile[doubt]
            hit[doubt] = shapely.intersects(shapes[at[doubt]], self._outlines_of(near))
            yield chosen[at[hit > 0]], tile[hit > 0]

    def _projected(self, boxes: np.ndarray) -> np.ndarray:
        """Bounds in the CRS of the lattice that hold lon/lat boxes; infinite where unknown."""
        everywhere = np.tile([-np.inf, -np.inf, np.inf, np.inf], (len(boxes), 1))
        if not self.lattice.overlaps or not len(boxes):
            return everywhere
        west, south, east, north = boxes.T
        lon, lat = np.linspace(west, east, 33), np.linspace(south, north, 33)
        side = np.ones((33, 1))
        x, y = from_lonlat(self.lattice.epsg).transform(
            np.concatenate([lon, lon, side * west, side * east]),
            np.concatenate([side * south, side * north, lat, lat]),
        )
        reach = self.lattice.edge
        bounds = [x.min(0) - reach, y.min(0) - reach, x.max(0) + reach, y.max(0) + reach]
        known = np.isfinite(x).all(0) & np.isfinite(y).all(0)
        return np.where(known[:, None], np.stack(bounds, axis=1), everywhere)

    def _seen_by_corners(self, boxes: np.ndarray, tile: np.ndarray) -> np.ndarray:
        """1 where a corner of the tile lies in the box, 0 where it is far from it, else -1.

        Outlines take twelve points and a look of their own; most tiles need neither.
        """
        if not self.lattice.overlaps:
            return np.full(len(tile), -1)
        middle = 6.0 * (self.lattice.epsg - 32600) - 183.0
        lon, lat = self._corners_of(tile)
        lon = (lon - middle + 180.0) % 360.0
        west, south, east, north = boxes.T
        width, west = east - west, (west - middle + 180.0) % 360.0
        level = (lat >= south) & (lat <= north)
        slack_y = _SLACK_M / 110_000
        poleward = np.minimum(np.abs(lat).max(0) + slack_y, 89.0)
        slack_x = slack_y / np.cos(np.radians(poleward))
        near = (lat.min(0) - slack_y <= north) & (lat.max(0) + slack_y >= south)
        inside, beside = np.zeros(len(tile), bool), np.zeros(len(tile), bool)
        for turn in (-360.0, 0.0, 360.0):
            inside |= (level & (lon >= west + turn) & (lon <= west + width + turn)).any(0)
            first, last = lon.min(0) - slack_x, lon.max(0) + slack_x
            beside |= (first <= west + width + turn) & (last >= west + turn)
        return np.where(inside, 1, np.where(near & beside, -1, 0))

    def _corners_of(self, tile: np.ndarray) -> np.ndarray:
        """Dims (lon, lat) x corner x tile; corners that tiles share are looked up once."""
        absent = np.unique(tile[np.isnan(self._corners[0, 0, tile])])
        if len(absent):
            down, right = np.array([0, 0, 1, 1])[:, None], np.array([0, 1, 0, 1])[:, None]
            width = self.lattice.n_cols + 1
            nodes = (self.cells.rows[absent] + down) * width + self.cells.cols[absent] + right
            known, where = np.unique(nodes, return_inverse=True)
            x = self.lattice.x + known % width * self.lattice.edge
            y = self.lattice.y - known // width * self.lattice.edge
            lonlat = np.stack(to_lonlat(self.lattice, x, y))
            self._corners[:, :, absent] = lonlat[:, where.reshape(nodes.shape)]
        return np.asarray(self._corners[:, :, tile])

    def _outlines_of(self, positions: np.ndarray) -> np.ndarray:
        """Tiles with their margins as lon/lat polygons, made when they are first asked for."""
        wanted = np.unique(positions)
        absent = wanted[[self._outlines[i] is None for i in wanted.tolist()]]
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


def expand_ranges(first: np.ndarray, end: np.ndarray) -> Pairs:
    """All whole numbers of half-open ranges: positions of the ranges, and the numbers."""
    count = np.maximum(end - first, 0)
    at = np.repeat(np.arange(len(first)), count)
    begun = np.cumsum(count) - count
    return at, np.arange(len(at)) - begun[at] + first[at]
