"""The world grid: UTM zones in their northern CRS, tiles of 10 240 m, pixels owned by one zone.

Every zone uses EPSG:326zz, south of the equator too (negative northings), so that one lattice
runs from 80 S to 84 N and southern granules copy without resampling. A tile exists in each zone
whose nominal area it touches, hence tiles of neighbouring zones overlap at the border; a *pixel*
belongs to the one zone that holds its centre. Zones are those of MGRS, with the exceptions of
south-west Norway (32V) and Svalbard (31X to 37X).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eoray.errors import ConfigError, GridError

if TYPE_CHECKING:
    from affine import Affine
    from odc.geo.geobox import GeoBox
    from pyproj import Transformer
    from shapely.geometry.base import BaseGeometry

type Affine6 = tuple[float, float, float, float, float, float]
"""Affine a, b, c, d, e, f: x = a col + b row + c, y = d col + e row + f, at pixel corners."""

TILE_M = 10_240
"""Edge of a tile in metres: 1024 px of 10 m, 512 px of 20 m, one shard at both."""

COARSE_TILE_M = 61_440
"""Edge of a tile of 60 m bands and 30 m sensors: 10 240 m is no multiple of their pixels."""

TOP_M = 9_400_320
"""Northing of the upper edge of row 0; a multiple of both tile sizes and of 60 m."""

ZONE_ROWS, ZONE_COLS = 1786, 98
"""Tiles of one zone, north to south and west to east; row 918 begins at the equator."""

SOUTH_M = 10_000_000
"""False northing of the southern CRS (EPSG:327zz) over the northern one."""

MIN_LAT, MAX_LAT = -80.0, 84.0

_TILE_ID = re.compile(r"z(\d{2})r(\d{4})c(\d{3})")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A cell of the world grid."""

    zone: int
    """UTM zone, 1 to 60."""
    row: int
    """0 in the north."""
    col: int
    """0 in the west, at easting 0."""

    def __post_init__(self) -> None:
        """Refuse a cell outside the zone's lattice."""
        rows = 0 <= self.row < ZONE_ROWS
        if not (1 <= self.zone <= 60 and rows and 0 <= self.col < ZONE_COLS):
            raise GridError(
                f"tile z{self.zone}r{self.row}c{self.col} lies outside the world grid; "
                f"zones run 1..60, rows 0..{ZONE_ROWS - 1}, columns 0..{ZONE_COLS - 1}"
            )

    @property
    def id(self) -> str:
        """Name of the tile, such as ``z32r0457c048``."""
        return f"z{self.zone:02d}r{self.row:04d}c{self.col:03d}"

    @classmethod
    def from_id(cls, text: str) -> Tile:
        """Read a tile id.

        Raises:
            ConfigError: The text is no tile id, or names a cell outside the grid.
        """
        match = _TILE_ID.fullmatch(text)
        if match is None:
            raise ConfigError(f"tile id {text!r} cannot be read; write it like 'z32r0457c048'")
        return cls(*(int(part) for part in match.groups()))

    @property
    def epsg(self) -> int:
        """EPSG code of the zone's northern CRS."""
        return 32600 + self.zone

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x min, y min, x max, y max) in metres of the northern CRS."""
        x, y = self.col * TILE_M, TOP_M - self.row * TILE_M
        return float(x), float(y - TILE_M), float(x + TILE_M), float(y)

    @property
    def is_south(self) -> bool:
        """True where the tile lies south of the equator; no tile crosses it."""
        return self.row >= TOP_M // TILE_M

    def transform(self, resolution_m: int) -> Affine:
        """Affine from (col, row) of a pixel corner to (x, y) in metres."""
        from affine import Affine

        x, _, _, y = self.bounds
        return Affine(resolution_m, 0, x, 0, -resolution_m, y)

    def geobox(self, resolution_m: int) -> GeoBox:
        """Shape, affine and CRS of the tile at a resolution."""
        from odc.geo.geobox import GeoBox

        px = TILE_M // resolution_m
        return GeoBox((px, px), self.transform(resolution_m), f"EPSG:{self.epsg}")

    def window(self, resolution_m: int) -> PixelWindow:
        """The tile's pixels in the zone-wide array of a resolution."""
        px = TILE_M // resolution_m
        return PixelWindow(self.row * px, self.col * px, px, px)


@dataclass(frozen=True, slots=True)
class PixelWindow:
    """A rectangle of pixels of a zone at one resolution, counted from the zone's upper left."""

    row_off: int
    col_off: int
    height: int
    width: int

    def buffered(self, px: int) -> PixelWindow:
        """The window grown by ``px`` on every side; may leave the zone."""
        return PixelWindow(
            self.row_off - px, self.col_off - px, self.height + 2 * px, self.width + 2 * px
        )

    def transform(self, resolution_m: int) -> Affine:
        """Affine from pixel corners of the window to metres of the northern CRS."""
        from affine import Affine

        x, y = self.col_off * resolution_m, TOP_M - self.row_off * resolution_m
        return Affine(resolution_m, 0, x, 0, -resolution_m, y)


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of tiles of one zone: what one task reads at once."""

    zone: int
    row: int
    col: int
    n_rows: int
    n_cols: int

    def window(self, resolution_m: int) -> PixelWindow:
        """The block's pixels in the zone-wide array of a resolution."""
        px = TILE_M // resolution_m
        return PixelWindow(self.row * px, self.col * px, self.n_rows * px, self.n_cols * px)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x min, y min, x max, y max) in metres of the northern CRS."""
        x, y = self.col * TILE_M, TOP_M - self.row * TILE_M
        return float(x), float(y - self.n_rows * TILE_M), float(x + self.n_cols * TILE_M), float(y)


def blocks_of_tiles(tiles: list[Tile], edge: int) -> Iterator[tuple[Block, tuple[Tile, ...]]]:
    """Group tiles into blocks of up to ``edge`` x ``edge``, aligned to the grid.

    Yields:
        The smallest block that holds a group, and the group's tiles in order. Each tile comes
        once, and the grouping of a tile does not depend on the other tiles.
    """
    groups: dict[tuple[int, int, int], list[Tile]] = {}
    for tile in sorted(tiles):
        groups.setdefault((tile.zone, tile.row // edge, tile.col // edge), []).append(tile)
    for (zone, _, _), members in groups.items():
        rows, cols = [t.row for t in members], [t.col for t in members]
        yield (
            Block(
                zone,
                min(rows),
                min(cols),
                max(rows) - min(rows) + 1,
                max(cols) - min(cols) + 1,
            ),
            tuple(members),
        )


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


def tiles_of_geometry(geometry: BaseGeometry) -> list[Tile]:
    """List the tiles that hold the owned pixels of a place.

    Args:
        geometry: Lon/lat in degrees (EPSG:4326), split at the antimeridian.

    Returns:
        Sorted tiles. Near a zone border each side's own tiles are listed.

    Raises:
        ConfigError: The place is empty, or reaches beyond 84 N or 80 S.
    """
    import shapely

    if geometry.is_empty:
        raise ConfigError("aoi is empty; give a polygon, [west, south, east, north] or tile ids")
    west, south, east, north = geometry.bounds
    if south < MIN_LAT or north > MAX_LAT:
        raise ConfigError(
            f"aoi reaches from latitude {south:.2f} to {north:.2f}, but UTM ends at "
            f"{MIN_LAT:.0f} and {MAX_LAT:.0f}; cut it there (Sentinel-2 maps no land beyond)"
        )
    tiles: list[Tile] = []
    for zone in range(1, 61):
        boxes = [b for b in zone_boxes(zone) if b[0] <= east and b[2] >= west]
        if boxes:
            area = shapely.union_all([shapely.box(*box) for box in boxes])
            tiles += _tiles_in_zone(zone, _share(geometry, geometry.intersection(area)))
    return sorted(tiles)


def _share(whole: BaseGeometry, part: BaseGeometry) -> BaseGeometry:
    """Leave out what a cut reduced to lines and points: a border that the whole ends on."""
    import shapely

    parts = shapely.get_parts(part)
    dimension = shapely.get_dimensions(whole)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == dimension])


def _tiles_in_zone(zone: int, geometry: BaseGeometry) -> list[Tile]:
    import shapely

    if geometry.is_empty:
        return []
    # 0.05 degrees: the bend of a meridian between two vertices stays below a metre
    dense = shapely.segmentize(geometry, 0.05)
    to_utm = _lonlat_to_utm(zone)
    projected = shapely.transform(dense, lambda xy: np.stack(to_utm.transform(*xy.T), axis=1))
    if not projected.is_valid:
        projected = shapely.make_valid(projected)
    x0, y0, x1, y1 = projected.bounds
    cols = np.arange(max(0, int(x0 // TILE_M)), min(ZONE_COLS - 1, int(x1 // TILE_M)) + 1)
    top, bottom = math.floor((TOP_M - y1) / TILE_M), math.floor((TOP_M - y0) / TILE_M)
    rows = np.arange(max(0, top), min(ZONE_ROWS - 1, bottom) + 1)
    row, col = (part.ravel() for part in np.meshgrid(rows, cols, indexing="ij"))
    upper = TOP_M - row * TILE_M
    cells = shapely.box(col * TILE_M, upper - TILE_M, (col + 1) * TILE_M, upper)
    shapely.prepare(projected)
    hit = shapely.intersects(projected, cells) & ~shapely.touches(projected, cells)
    return [Tile(zone, int(r), int(c)) for r, c in zip(row[hit], col[hit], strict=True)]


@lru_cache(maxsize=8)
def owner_mask(tile: Tile, resolution_m: int) -> np.ndarray:
    """Tell which pixels of a tile belong to the tile's zone.

    Returns:
        Dims (y, x), bool, read-only; True where the pixel's centre lies in the zone.
    """
    owned = _find_owned(tile, resolution_m)
    owned.flags.writeable = False
    return owned


def _find_owned(tile: Tile, resolution_m: int) -> np.ndarray:
    px = TILE_M // resolution_m
    edge = _edge_points(tile)
    if (zone_of(*_to_lonlat(tile.zone, *edge)) == tile.zone).all():
        return np.ones((px, px), bool)
    x0, _, _, y1 = tile.bounds
    centre = (np.arange(px) + 0.5) * resolution_m
    x, y = np.meshgrid(x0 + centre, y1 - centre)
    return np.asarray(zone_of(*_to_lonlat(tile.zone, x, y)) == tile.zone)


def pixel_area_m2(tile: Tile, resolution_m: int) -> np.ndarray:
    """True ground area of the pixels of a tile.

    UTM stretches areas by its areal scale (0.9992 at the central meridian, 1.0020 at a border
    on the equator), so a 10 m pixel covers 99.80 to 100.08 m2 of ground.

    Returns:
        Dims (y, x), float64, m2; bilinear between exact values 640 m apart.
    """
    from pyproj import Proj
    from scipy.ndimage import map_coordinates

    x0, y0, x1, y1 = tile.bounds
    nodes = np.linspace(0.0, 1.0, 17)
    x, y = np.meshgrid(x0 + nodes * (x1 - x0), y1 - nodes * (y1 - y0))
    lon, lat = _to_lonlat(tile.zone, x, y)
    scale = Proj(tile.epsg).get_factors(lon, lat).areal_scale
    px = TILE_M // resolution_m
    at = (np.arange(px) + 0.5) / px * 16
    exact = map_coordinates(1.0 / np.asarray(scale), np.meshgrid(at, at, indexing="ij"), order=1)
    return np.asarray(exact * float(resolution_m) ** 2)


def relabel_south(
    epsg: int, transform: tuple[float, float, float, float, float, float]
) -> tuple[int, tuple[float, float, float, float, float, float]]:
    """Name a southern UTM grid in its zone's northern CRS; others pass unchanged.

    Args:
        epsg: Code of the source CRS.
        transform: Affine coefficients (a, b, c, d, e, f) in that CRS.

    Returns:
        Code and affine; the two CRS differ by exactly 10 000 000 m of northing.
    """
    if not 32701 <= epsg <= 32760:
        return epsg, transform
    a, b, c, d, e, f = transform
    return epsg - 100, (a, b, c, d, e, f - SOUTH_M)


def zone_of_epsg(epsg: int) -> int | None:
    """UTM zone of a WGS 84 / UTM code, northern or southern; None for any other CRS."""
    for base in (32600, 32700):
        if base + 1 <= epsg <= base + 60:
            return epsg - base
    return None


def misfit_px(
    transform: tuple[float, float, float, float, float, float], resolution_m: int
) -> tuple[float, float]:
    """Distance of a grid from the world lattice, in its pixels.

    Args:
        transform: Affine (a, b, c, d, e, f) in the zone's northern CRS.
        resolution_m: Pixel of the lattice; a file with another pixel gives (nan, nan).

    Returns:
        (x, y) offsets in [0, 1); (0, 0) means that pixels copy without resampling.
    """
    a, b, c, d, e, f = transform
    if not (a == resolution_m and e == -resolution_m and b == 0 and d == 0):
        return math.nan, math.nan
    return (c / resolution_m) % 1.0, ((TOP_M - f) / resolution_m) % 1.0


def _edge_points(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) every 320 m along the tile's outline."""
    x0, y0, x1, y1 = tile.bounds
    x, y = np.linspace(x0, x1, 33), np.linspace(y0, y1, 33)
    return (
        np.concatenate([x, x, np.full(33, x0), np.full(33, x1)]),
        np.concatenate([np.full(33, y0), np.full(33, y1), y, y]),
    )


def _to_lonlat(zone: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = _lonlat_to_utm(zone).transform(x, y, direction="INVERSE")
    return np.asarray(lon), np.asarray(lat)


@lru_cache(maxsize=60)
def _lonlat_to_utm(zone: int) -> Transformer:
    from pyproj import Transformer

    return Transformer.from_crs(4326, 32600 + zone, always_xy=True)
