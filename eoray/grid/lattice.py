"""Lattices: square pixels of one CRS in square tiles; what all grids are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.errors import GridError

if TYPE_CHECKING:
    from affine import Affine
    from pyproj import Transformer

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

USER_TILE_PX = 1024
"""Pixels along the edge of a tile of a user's grid."""

_ZONE_NAME = re.compile(r"z\d+")

_WORST_GROW_M = 300
"""Masks grow by no more than this."""

Bounds = tuple[float, float, float, float]
"""x min, y min, x max, y max."""


@dataclass(frozen=True, slots=True, order=True)
class Lattice:
    """Square pixels of one CRS in square tiles: a zone of the world grid, or a user's grid."""

    name: str
    """Names the group in the store: ``z32``, or the user's word."""
    epsg: int
    """CRS; southern UTM is named in the zone's northern CRS."""
    x: float
    """Left edge of column 0, in units of the CRS."""
    y: float
    """Upper edge of row 0."""
    edge: float
    """Edge of a tile, in units of the CRS."""
    edge_m: int
    """The same in nominal metres; ``levels`` divide it."""
    n_rows: int
    n_cols: int
    """Tiles, north to south and west to east."""
    levels: tuple[int, ...]
    """Pixels that are stored, in nominal metres, the finest first; SCL and masks lie at the last.
    Wherever a name says ``resolution_m`` it means one of these."""
    overlaps: bool = False
    """True for zones of the world grid, which overlap at their borders: each pixel has one owner,
    and granules of the zone come first. A user's grid owns all its pixels; granules are alike."""

    @classmethod
    def of_pixel(
        cls,
        name: str,
        epsg: int,
        origin: tuple[float, float],
        pixel: float,
        level: int,
        tiles: tuple[int, int],
    ) -> Lattice:
        """Make a user's grid, which has one pixel; ``config.grids`` checks what goes in.

        Args:
            name: Names the group in the store.
            epsg: CRS.
            origin: (x, y) of the upper left corner.
            pixel: Edge of a pixel in units of the CRS.
            level: The same in nominal whole metres.
            tiles: (rows, columns) of 1024 px.
        """
        x, y, edge = (_plain(value) for value in (*origin, pixel * USER_TILE_PX))
        return cls(name, epsg, x, y, edge, level * USER_TILE_PX, *tiles, (level,))

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any]) -> Lattice:
        """Read what :meth:`to_attrs` wrote."""
        (x, y), (n_rows, n_cols) = attrs["origin"], attrs["tiles"]
        level = attrs["resolution_m"]
        return cls.of_pixel(
            attrs["name"], attrs["epsg"], (x, y), attrs["pixel"], level, (n_rows, n_cols)
        )

    def to_attrs(self) -> dict[str, Any]:
        """A user's grid as stored attributes."""
        return {
            "name": self.name,
            "epsg": self.epsg,
            "origin": [self.x, self.y],
            "pixel": self.pixel(self.coarse),
            "resolution_m": self.coarse,
            "tiles": [self.n_rows, self.n_cols],
        }

    def __str__(self) -> str:
        """The name, as messages show it in place of a zone's number."""
        return self.name

    @property
    def label(self) -> str:
        """What messages call it."""
        return "the world grid" if self.overlaps else f"grid {self.name!r}"

    @property
    def coarse(self) -> int:
        """Level of SCL and masks, where it is decided which granule a pixel takes."""
        return self.levels[-1]

    def level(self, native_m: int) -> int:
        """Level at which a band of a native pixel is stored."""
        return native_m if native_m in self.levels else self.coarse

    def px(self, resolution_m: int) -> int:
        """Pixels along the edge of a tile.

        Raises:
            GridError: A user's grid has another pixel; on the world grid any divisor is one. The
                edge of a tile is always one: products with one value a tile have such pixels.
        """
        if not self.overlaps and resolution_m not in (*self.levels, self.edge_m):
            raise GridError(
                f"{self.label} has pixels of {self.coarse} m, not {resolution_m}; ask for those"
            )
        return self.edge_m // resolution_m

    def pixel(self, resolution_m: int) -> float:
        """Edge of a pixel in units of the CRS."""
        return _plain(self.edge / self.px(resolution_m))

    def size_text(self, resolution_m: int) -> str:
        """The edge of a pixel as messages show it."""
        size = self.pixel(resolution_m)
        return f"{size:g} m" if self.edge == self.edge_m else f"{size:g} units"

    def shape(self, resolution_m: int) -> tuple[int, int]:
        """(y, x) pixels of the whole lattice."""
        px = self.px(resolution_m)
        return self.n_rows * px, self.n_cols * px

    def affine(self, window: PixelWindow, resolution_m: int) -> Affine:
        """Affine from pixel corners of a window to (x, y)."""
        from affine import Affine

        pixel = self.pixel(resolution_m)
        x, y = self.x + window.col_off * pixel, self.y - window.row_off * pixel
        return Affine(pixel, 0, x, 0, -pixel, y)

    def bounds(self, row: int, col: int, n_rows: int = 1, n_cols: int = 1) -> Bounds:
        """(x min, y min, x max, y max) of a rectangle of tiles."""
        left, top = self.x + col * self.edge, self.y - row * self.edge
        right, bottom = left + n_cols * self.edge, top - n_rows * self.edge
        return float(left), float(bottom), float(right), float(top)

    def centres(self, window: PixelWindow, resolution_m: int) -> tuple[np.ndarray, np.ndarray]:
        """(x of columns, y of rows) of pixel centres."""
        pixel = self.pixel(resolution_m)
        x = self.x + (np.arange(window.width) + window.col_off + 0.5) * pixel
        y = self.y - (np.arange(window.height) + window.row_off + 0.5) * pixel
        return x, y

    def box(self, bounds: Bounds, resolution_m: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the pixels that bounds touch; may leave the lattice.

        Degrees with x min above x max cross the antimeridian: then all columns are touched.
        """
        x0, y0, x1, y1 = bounds
        if x0 > x1:
            x0, x1 = self.x, self.x + self.n_cols * self.edge
        pixel = self.pixel(resolution_m)
        return (
            math.floor((self.y - y1) / pixel),
            math.floor((x0 - self.x) / pixel),
            math.ceil((self.y - y0) / pixel),
            math.ceil((x1 - self.x) / pixel),
        )

    def misfit_px(self, transform: Affine6, resolution_m: int) -> tuple[float, float]:
        """Distance of a grid of the same CRS from the lattice, in pixels.

        Returns:
            (x, y) offsets in [0, 1); (0, 0) means that pixels copy without resampling, and
            (nan, nan) that they are of another size.
        """
        a, b, c, d, e, f = transform
        pixel = self.pixel(resolution_m)
        same = all(math.isclose(size, pixel, rel_tol=1e-9) for size in (a, -e))
        if not (same and b == 0 and d == 0):
            return math.nan, math.nan
        # to a millionth: multiples of a pixel in degrees are not exact
        return round((c - self.x) / pixel, 6) % 1.0, round((self.y - f) / pixel, 6) % 1.0

    def is_home(self, epsg: int) -> bool:
        """Whether granules of a CRS are first choice here."""
        return epsg == self.epsg or not self.overlaps

    def ground_m(self, row: int, col: int) -> tuple[float, float]:
        """(y, x) metres of ground under a pixel of SCL, in the middle of a tile."""
        return (20.0, 20.0) if self.overlaps else _ground_m(self, row, col)

    def margin(self, row: int, col: int) -> tuple[float, float]:
        """(y, x) around a tile, in units of the CRS, that masks may look at."""
        pixel = self.pixel(self.coarse)
        y, x = ((math.ceil(_WORST_GROW_M / size) + 1) * pixel for size in self.ground_m(row, col))
        return y, x


type Zone = int | Lattice
"""A UTM zone of the world grid by its number, or a user's grid."""


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
        """Affine from pixel corners of a window of the world grid to metres of the northern CRS."""
        return _world(1).affine(self, resolution_m)


def lattice_of(zone: Zone) -> Lattice:
    """The lattice of a zone; a user's grid is one already."""
    return zone if isinstance(zone, Lattice) else _world(zone)


@lru_cache(maxsize=60)
def _world(zone: int) -> Lattice:
    if not 1 <= zone <= 60:
        raise GridError(f"the world grid has no zone {zone}; zones run 1..60")
    return Lattice(
        name=f"z{zone:02d}",
        epsg=32600 + zone,
        x=0,
        y=TOP_M,
        edge=TILE_M,
        edge_m=TILE_M,
        n_rows=ZONE_ROWS,
        n_cols=ZONE_COLS,
        levels=(10, 20),
        overlaps=True,
    )


def zone_of_name(name: str) -> int | None:
    """Zone of the world grid that a group of a store is named after; None for a user's grid."""
    return int(name[1:]) if _ZONE_NAME.fullmatch(name) else None


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
    return _world(1).misfit_px(transform, resolution_m)


@lru_cache(maxsize=4096)
def _ground_m(lattice: Lattice, row: int, col: int) -> tuple[float, float]:
    """To three digits, so that the scale of a projection (1.0004) does not show in masks."""
    from pyproj import Geod

    x0, y0, x1, y1 = lattice.bounds(row, col)
    x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, lattice.pixel(lattice.coarse) / 2
    ends = np.array([x, x, x - half, x + half]), np.array([y - half, y + half, y, y])
    lon, lat = to_lonlat(lattice, *ends)
    _, _, metres = Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
    if not (np.isfinite(metres).all() and (metres > 0).all()):  # a corner of the CRS without ground
        return float(lattice.coarse), float(lattice.coarse)
    down, across = (float(f"{size:.3g}") for size in metres)
    return down, across


def _plain(value: float) -> float:
    """Whole numbers as ints: so they are written and stored."""
    return int(value) if float(value).is_integer() else float(value)


def to_lonlat(lattice: Lattice, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(longitude, latitude) in degrees of places in the CRS of a lattice."""
    lon, lat = from_lonlat(lattice.epsg).transform(x, y, direction="INVERSE")
    return np.asarray(lon), np.asarray(lat)


@lru_cache(maxsize=64)
def from_lonlat(epsg: int) -> Transformer:
    """From longitude and latitude (WGS 84) to a CRS, always x before y."""
    from pyproj import Transformer

    return Transformer.from_crs(4326, epsg, always_xy=True)
