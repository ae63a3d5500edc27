"""Where things lie: the granules of an archive and the one ground that they all look at.

The ground is defined once per *site*, in metres of one CRS, as cells of 2.5 m. Granules of any
CRS look up their sub-pixels there, so overlapping granules and the neighbouring zone's granule
show the same field borders, roads and changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eoray.testing.noise import enlarge
from eoray.testing.options import ArchiveOptions

if TYPE_CHECKING:
    from pyproj import Transformer
    from shapely.geometry.base import BaseGeometry

CELL_M = 2.5
"""Edge of a cell of the ground."""

SUB = 4
"""Cells along the edge of a 10 m pixel."""

PAD = 8
"""Pixels of 10 m rendered beyond each edge of a granule, for blur and registration shifts."""

# The two granules of zone 32 overlap by 1 km around this northing, which lies where real
# granules 32UQU and 32UQV overlap, in the middle of a row of world tiles.
_MIDDLE_Y, _OVERLAP_M = 5_390_880, 1_000
_BORDER_X, _BEYOND_M = 720_880, 1_060
_NEIGHBOUR_X, _NEIGHBOUR_Y = 278_580, 5_390_460
_SOUTH_X, _SOUTH_Y = 716_820, 8_955_020
_BORDER_LON = 12.0


@dataclass(frozen=True, slots=True)
class Granule:
    """One MGRS granule of the archive: a small piece under a real granule's name."""

    mgrs: str
    """Such as ``32UQU``."""
    epsg: int
    x0: int
    """Easting of the upper left corner in metres, a multiple of 20, not of 10 240."""
    y0: int
    """Northing of the upper left corner."""
    size_px: int
    """Edge in pixels of 10 m."""
    site: str
    """Ground that it looks at: ``north`` or ``south``."""

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(x min, y min, x max, y max) in metres of its CRS."""
        edge = self.size_px * 10
        return self.x0, self.y0 - edge, self.x0 + edge, self.y0


@dataclass(frozen=True, slots=True)
class Frame:
    """A lattice of square cells in a CRS."""

    epsg: int
    x0: float
    """Easting of the upper left corner in metres."""
    y0: float
    rows: int
    cols: int
    cell_m: float

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Eastings of the columns and northings of the rows, float64."""
        x = self.x0 + (np.arange(self.cols) + 0.5) * self.cell_m
        y = self.y0 - (np.arange(self.rows) + 0.5) * self.cell_m
        return x, y


def list_granules(options: ArchiveOptions) -> tuple[Granule, ...]:
    """List the granules of an archive, the pair of zone 32 first."""
    size = options.size_px
    edge = size * 10
    half = edge // 2 // 20 * 20
    west = east_edge_m(options) - edge
    granules = [
        Granule("32UQU", 32632, west, _MIDDLE_Y + _OVERLAP_M // 2, size, "north"),
        Granule("32UQV", 32632, west, _MIDDLE_Y - _OVERLAP_M // 2 + edge, size, "north"),
    ]
    if options.neighbour_zone:
        x0, y0 = _NEIGHBOUR_X - half, _NEIGHBOUR_Y + half
        granules.append(Granule("33UTP", 32633, x0, y0, size, "north"))
    if options.southern:
        granules.append(Granule("32LQQ", 32732, _SOUTH_X, _SOUTH_Y, size, "south"))
    return tuple(granules)


def east_edge_m(options: ArchiveOptions) -> int:
    """Eastern edge of the pair of zone 32 in metres: somewhat beyond 12 degrees east."""
    return _BORDER_X + min(_BEYOND_M, options.size_px * 10 // 4 // 20 * 20)


@lru_cache(maxsize=8)
def transformer(source: int, target: int) -> Transformer:
    """Projection between two EPSG codes, (x, y) or (lon, lat) order; costly to make, so kept."""
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)


def ground_frame(granules: tuple[Granule, ...], site: str) -> Frame:
    """Lay the lattice of a site's ground around all granules that look at it."""
    members = [granule for granule in granules if granule.site == site]
    epsg = members[0].epsg
    boxes = np.array([_bounds_in(granule, epsg) for granule in members])
    x_min, y_min = np.floor(boxes[:, :2].min(axis=0) / 40 - 4) * 40
    x_max, y_max = np.ceil(boxes[:, 2:].max(axis=0) / 40 + 4) * 40
    rows, cols = round((y_max - y_min) / CELL_M), round((x_max - x_min) / CELL_M)
    return Frame(epsg, float(x_min), float(y_max), rows, cols, CELL_M)


def _bounds_in(granule: Granule, epsg: int) -> tuple[float, float, float, float]:
    x_min, y_min, x_max, y_max = granule.bounds
    if granule.epsg == epsg:
        return float(x_min), float(y_min), float(x_max), float(y_max)
    west, south, east, north = transformer(granule.epsg, epsg).transform_bounds(
        x_min, y_min, x_max, y_max
    )
    return west, south, east, north


def pixel_frame(granule: Granule, resolution_m: int, *, pad: bool = True) -> Frame:
    """Lattice of a granule's pixels, with the margin that rendering needs."""
    margin = PAD * 10 if pad else 0
    n = (granule.size_px * 10 + 2 * margin) // resolution_m
    return Frame(granule.epsg, granule.x0 - margin, granule.y0 + margin, n, n, float(resolution_m))


def locate(frame: Frame, ground: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Find the place of a lattice's cell centres on the ground.

    Args:
        frame: Lattice in any CRS.
        ground: Lattice of the ground.

    Returns:
        (row, col) as fractions of ground cells counted from the centre of cell (0, 0); one
        dimension each (rows of the lattice, its columns) where both share a CRS, else dims
        (y, x). float64. Across zones exact at nodes 64 cells apart and bilinear between, which
        is good to a millimetre.
    """
    x, y = frame.centres()
    if frame.epsg == ground.epsg:
        return _to_cells(x, y, ground)
    nodes_y, nodes_x = _nodes(frame.rows), _nodes(frame.cols)
    grid_x, grid_y = np.meshgrid(
        frame.x0 + (nodes_x + 0.5) * frame.cell_m, frame.y0 - (nodes_y + 0.5) * frame.cell_m
    )
    to_ground = transformer(frame.epsg, ground.epsg)
    row, col = _to_cells(*to_ground.transform(grid_x, grid_y), ground)
    return enlarge(row, frame.shape, 64), enlarge(col, frame.shape, 64)


def _nodes(n: int) -> np.ndarray:
    return np.arange(0, n + 64, 64, dtype=np.float64)


def _to_cells(x: np.ndarray, y: np.ndarray, ground: Frame) -> tuple[np.ndarray, np.ndarray]:
    return (ground.y0 - y) / ground.cell_m - 0.5, (x - ground.x0) / ground.cell_m - 0.5


def look_up(values: np.ndarray, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Take the ground's cell nearest to each place.

    Args:
        values: Dims (y, x) of the ground.
        place: What ``locate`` returned.

    Returns:
        Dims (y, x) of the lattice, dtype of ``values``. Beyond the ground its edge is repeated.
    """
    row = np.clip(np.rint(place[0]).astype(np.int64), 0, values.shape[0] - 1)
    col = np.clip(np.rint(place[1]).astype(np.int64), 0, values.shape[1] - 1)
    if row.ndim == 1:
        return np.asarray(values[row][:, col])
    return np.asarray(values[row, col])


def interpolate(values: np.ndarray, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Interpolate the ground linearly; arguments as ``look_up``. float32."""
    row = np.clip(place[0], 0, values.shape[0] - 1.001)
    col = np.clip(place[1], 0, values.shape[1] - 1.001)
    i, j = row.astype(np.int64), col.astype(np.int64)
    u, v = (row - i).astype(np.float32), (col - j).astype(np.float32)
    if row.ndim == 1:
        tall = values[i] * (1 - u)[:, None] + values[i + 1] * u[:, None]
        return np.asarray(tall[:, j] * (1 - v) + tall[:, j + 1] * v, np.float32)
    upper = values[i, j] * (1 - v) + values[i, j + 1] * v
    lower = values[i + 1, j] * (1 - v) + values[i + 1, j + 1] * v
    return np.asarray(upper * (1 - u) + lower * u, np.float32)


def lonlat_polygon(granule: Granule) -> BaseGeometry:
    """Footprint of a granule in degrees (EPSG:4326), corners only."""
    import shapely

    return to_lonlat(shapely.box(*granule.bounds), granule.epsg)


def to_lonlat(geometry: BaseGeometry, epsg: int) -> BaseGeometry:
    """Project a geometry to degrees (EPSG:4326), rounded to 1e-7 degrees (a centimetre)."""
    import shapely

    to_degrees = transformer(epsg, 4326)
    return shapely.transform(
        geometry, lambda xy: np.round(np.stack(to_degrees.transform(*xy.T), axis=1), 7)
    )


def aoi_polygons(granules: tuple[Granule, ...]) -> dict[str, BaseGeometry]:
    """Areas of interest in degrees, by file name.

    ``aoi`` lies in zone 32 alone, under both granules of the pair; ``aoi_border`` reaches over
    12 degrees east into zone 33; ``aoi_south`` lies in the southern granule.
    """
    import shapely

    x_min, y_min, x_max, _ = granules[0].bounds
    y_max = granules[1].bounds[3]
    epsg = granules[0].epsg
    lat = transformer(epsg, 4326).transform(x_max, y_max)[1]
    border = int(transformer(4326, epsg).transform(_BORDER_LON, lat)[0] // 20) * 20
    edge = 100
    areas = {
        "aoi": (granules[0], (x_min + edge, y_min + edge, border - edge, y_max - edge)),
        "aoi_border": (
            granules[0],
            (border - 1000, _MIDDLE_Y - 1500, border + 1000, _MIDDLE_Y + 1500),
        ),
    }
    for granule in granules:
        if granule.site == "south":
            west, south, east, north = granule.bounds
            areas["aoi_south"] = (granule, (west + edge, south + edge, east - edge, north - edge))
    return {
        name: to_lonlat(shapely.box(*box), granule.epsg) for name, (granule, box) in areas.items()
    }
