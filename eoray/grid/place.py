"""From places to tiles: who owns what, and which cells a geometry touches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from eoray.errors import ConfigError
from eoray.grid.antimeridian import split_antimeridian
from eoray.grid.lattice import Lattice, Zone, from_lonlat, lattice_of, zone_of_epsg
from eoray.grid.tiles import Cells, Tiles

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

MIN_LAT, MAX_LAT = -80.0, 84.0
"""Latitudes where UTM ends."""


def zone_boxes(zone: int) -> list[tuple[float, float, float, float]]:
    """Nominal area of an MGRS zone as (west, south, east, north) boxes in degrees."""
    west = -180.0 + 6.0 * (zone - 1)
    east = west + 6.0
    norway = {31: (0.0, 3.0), 32: (3.0, 12.0)}.get(zone, (west, east))
    svalbard = {31: (0.0, 9.0), 33: (9.0, 21.0), 35: (21.0, 33.0), 37: (33.0, 42.0)}
    high = None if zone in (32, 34, 36) else svalbard.get(zone, (west, east))
    boxes = [
        (west, MIN_LAT, east, 56.0),
        (norway[0], 56.0, norway[1], 64.0),
        (west, 64.0, east, 72.0),
    ]
    if high is not None:
        boxes.append((high[0], 72.0, high[1], MAX_LAT))
    return boxes


def zone_of(lon: np.ndarray | float, lat: np.ndarray | float) -> np.ndarray:
    """Return the MGRS zone that owns a place.

    Args:
        lon: Degrees east; any multiple of 360 may be added.
        lat: Degrees north.

    Returns:
        Zone numbers 1 to 60, int16, broadcast from the inputs; 0 beyond 84 N or 80 S.
    """
    east = (np.asarray(lon, "f8") + 180.0) % 360.0
    # the remainder of a tiny negative number rounds to 360 itself
    lon = np.where(east >= 360.0, 0.0, east) - 180.0
    lat = np.asarray(lat, "f8")
    zone = np.floor((lon + 180.0) / 6.0).astype("i2") + 1
    zone = np.where((lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 12), 32, zone)
    for first, last, owner in ((0, 9, 31), (9, 21, 33), (21, 33, 35), (33, 42, 37)):
        zone = np.where((lat >= 72) & (lon >= first) & (lon < last), owner, zone)
    return np.where((lat < MIN_LAT) | (lat > MAX_LAT), 0, zone).astype("i2")


def box_lonlat(west: float, south: float, east: float, north: float) -> BaseGeometry:
    """Make a lon/lat rectangle; ``west > east`` means that it crosses the antimeridian."""
    import shapely

    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union_all(
        [shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north)]
    )


def tiles_of_geometry(geometry: BaseGeometry, grid: Lattice | None = None) -> Tiles:
    """List the tiles that hold the owned pixels of a place.

    Args:
        geometry: Lon/lat in degrees (EPSG:4326); longitudes may run beyond 180 on either side.
        grid: The user's grid; None for the world grid.

    Returns:
        Tiles in order. Near a zone border each side's own tiles are listed.

    Raises:
        ConfigError: The place is empty, or reaches beyond 84 N or 80 S, or beyond the grid.
    """
    import shapely

    if geometry.is_empty:
        raise ConfigError("aoi is empty; give a polygon, [west, south, east, north] or tile ids")
    geometry = split_antimeridian(geometry)
    if grid is not None:
        return Tiles([_tiles_in_grid(grid, geometry)])
    west, south, east, north = geometry.bounds
    if south < MIN_LAT or north > MAX_LAT:
        raise ConfigError(
            f"aoi reaches from latitude {south:.2f} to {north:.2f}, but UTM ends at "
            f"{MIN_LAT:.0f} and {MAX_LAT:.0f}; cut it there (Sentinel-2 maps no land beyond)"
        )
    parts: list[Cells] = []
    for zone in range(1, 61):
        boxes = [b for b in zone_boxes(zone) if b[0] <= east and b[2] >= west]
        if boxes:
            area = shapely.union_all([shapely.box(*box) for box in boxes])
            share = _share(geometry, geometry.intersection(area))
            if not share.is_empty:
                parts.append(_cells_hit(zone, _project(lattice_of(zone), share)))
    return Tiles(parts)


def _share(whole: BaseGeometry, part: BaseGeometry) -> BaseGeometry:
    """Leave out what a cut reduced to lines and points: a border that the whole ends on."""
    import shapely

    parts = shapely.get_parts(part)
    dimension = shapely.get_dimensions(whole)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == dimension])


def _tiles_in_grid(grid: Lattice, geometry: BaseGeometry) -> Cells:
    """Tiles of a user's grid; a place that reaches beyond it is refused, never cut off."""
    area = area_of_use(grid.epsg)
    if not geometry.intersects(area):
        raise ConfigError(
            f"aoi {_shown(geometry.bounds)} lies outside the area of use of EPSG:{grid.epsg}, "
            f"{_shown(area.bounds)}; give grid {grid.name!r} a CRS of the place"
        )
    projected = _project(grid, geometry)
    x0, y0, x1, y1 = projected.bounds
    if not math.isfinite(x0 + y0 + x1 + y1):
        raise ConfigError(
            f"aoi {_shown(geometry.bounds)} has no coordinates in EPSG:{grid.epsg}; give grid "
            f"{grid.name!r} a CRS of the place"
        )
    left, bottom, right, top = grid.bounds(0, 0, grid.n_rows, grid.n_cols)
    slack = grid.pixel(grid.coarse) / 2
    if x0 < left - slack or y1 > top + slack:
        raise ConfigError(
            f"aoi begins at {_shown((x0, y1))} (x, y) in EPSG:{grid.epsg}, outside grid "
            f"{grid.name!r}, which begins at {_shown((left, top))}; move its origin to the upper "
            "left by whole pixels"
        )
    if x1 > right + slack or y0 < bottom - slack:
        raise ConfigError(
            f"aoi reaches to {_shown((x1, y0))} (x, y) in EPSG:{grid.epsg}, outside grid "
            f"{grid.name!r}, which ends at {_shown((right, bottom))}; give it a larger size, "
            "[width, height] in pixels"
        )
    return _cells_hit(grid, projected)


def _project(lattice: Lattice, geometry: BaseGeometry) -> BaseGeometry:
    import shapely

    # 0.05 degrees: the bend of a meridian between two vertices stays below a metre
    dense = shapely.segmentize(geometry, 0.05)
    project = from_lonlat(lattice.epsg)
    projected = shapely.transform(dense, lambda xy: np.stack(project.transform(*xy.T), axis=1))
    return projected if projected.is_valid else shapely.make_valid(projected)


def _cells_hit(zone: Zone, projected: BaseGeometry) -> Cells:
    import shapely

    lattice = lattice_of(zone)
    x0, y0, x1, y1 = projected.bounds
    edge, top, left = lattice.edge, lattice.y, lattice.x
    first, last = math.floor((x0 - left) / edge), math.floor((x1 - left) / edge)
    cols = np.arange(max(0, first), min(lattice.n_cols - 1, last) + 1)
    first, last = math.floor((top - y1) / edge), math.floor((top - y0) / edge)
    rows = np.arange(max(0, first), min(lattice.n_rows - 1, last) + 1)
    row, col = (part.ravel() for part in np.meshgrid(rows, cols, indexing="ij"))
    shapely.prepare(projected)
    hit = _within(projected, lattice, row, col)
    rest = np.flatnonzero(~hit)
    cells = _boxes(lattice, row[rest], col[rest], 1)
    hit[rest] = shapely.intersects(projected, cells) & ~shapely.touches(projected, cells)
    return Cells(zone, row[hit], col[hit])


_SQUARE = 16
"""Cells along a square that is looked at as one."""


def _within(
    projected: BaseGeometry, lattice: Lattice, row: np.ndarray, col: np.ndarray
) -> np.ndarray:
    """True for cells whose whole square the place holds: those need no look of their own."""
    import shapely

    squares = row // _SQUARE * lattice.n_cols + col // _SQUARE
    found, where = np.unique(squares, return_inverse=True)
    top, left = found // lattice.n_cols * _SQUARE, found % lattice.n_cols * _SQUARE
    boxes = _boxes(lattice, top, left, _SQUARE)
    return np.asarray(shapely.contains_properly(projected, boxes))[where]


def _boxes(lattice: Lattice, row: np.ndarray, col: np.ndarray, n_cells: int) -> np.ndarray:
    """Squares of cells, in the CRS of a lattice."""
    import shapely

    left, top = lattice.x + col * lattice.edge, lattice.y - row * lattice.edge
    edge = n_cells * lattice.edge
    return np.asarray(shapely.box(left, top - edge, left + edge, top))


def area_of_use(epsg: int) -> BaseGeometry:
    """Where a CRS is meant to be used, lon/lat in degrees; UTM from 80 S to 84 N, as here."""
    from pyproj import CRS

    area = CRS.from_epsg(epsg).area_of_use
    west, south, east, north = (-180.0, -90.0, 180.0, 90.0) if area is None else area.bounds
    if zone_of_epsg(epsg) is not None:
        south, north = MIN_LAT, MAX_LAT
    return box_lonlat(west, south, east, north)


def _shown(numbers: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{number:.8g}" for number in numbers) + "]"
