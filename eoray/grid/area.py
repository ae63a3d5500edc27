"""Owned pixels of a tile, and the true area of its pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from eoray.errors import GridError
from eoray.grid.lattice import to_lonlat
from eoray.grid.place import zone_of
from eoray.grid.tile import Tile


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
    lattice, px = tile.lattice, tile.lattice.px(resolution_m)
    edge = _edge_points(tile)
    if not lattice.overlaps or (zone_of(*to_lonlat(lattice, *edge)) == tile.zone).all():
        return np.ones((px, px), bool)
    x, y = np.meshgrid(*lattice.centres(tile.window(resolution_m), resolution_m))
    return np.asarray(zone_of(*to_lonlat(lattice, x, y)) == tile.zone)


def _edge_points(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) every 320 m along the tile's outline."""
    x0, y0, x1, y1 = tile.bounds
    x, y = np.linspace(x0, x1, 33), np.linspace(y0, y1, 33)
    return (
        np.concatenate([x, x, np.full(33, x0), np.full(33, x1)]),
        np.concatenate([np.full(33, y0), np.full(33, y1), y, y]),
    )


def pixel_area_m2(tile: Tile, resolution_m: int) -> np.ndarray:
    """True ground area of the pixels of a tile.

    UTM stretches areas by its areal scale (0.9992 at the central meridian, 1.0020 at a border
    on the equator), so a 10 m pixel covers 99.80 to 100.08 m2 of ground.

    Returns:
        Dims (y, x), float64, m2; bilinear between exact values a sixteenth of a tile apart.
    """
    from scipy.ndimage import map_coordinates

    lattice = tile.lattice
    x0, y0, x1, y1 = tile.bounds
    nodes = np.linspace(0.0, 1.0, 17)
    x, y = np.meshgrid(x0 + nodes * (x1 - x0), y1 - nodes * (y1 - y0))
    px = lattice.px(resolution_m)
    at = (np.arange(px) + 0.5) / px * 16
    ground = _ground_m2(lattice.epsg, *to_lonlat(lattice, x, y))
    exact = map_coordinates(ground, np.meshgrid(at, at, indexing="ij"), order=1)
    return np.asarray(exact * float(lattice.pixel(resolution_m)) ** 2)


def _ground_m2(epsg: int, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Square metres of ground under a square of one unit of a CRS."""
    from pyproj import CRS, Proj

    crs = CRS.from_epsg(epsg)
    unit = crs.axis_info[0].unit_conversion_factor  # to metres, or radians
    if crs.is_projected:
        return np.asarray(unit**2 / np.asarray(Proj(epsg).get_factors(lon, lat).areal_scale))
    ellipsoid = crs.get_geod()
    if ellipsoid is None:
        raise GridError(f"EPSG:{epsg} names no ellipsoid, so its pixels have no area")
    phi = np.radians(lat)
    bend = 1.0 - ellipsoid.es * np.sin(phi) ** 2
    # the product of the radii of curvature along the meridian and the parallel
    return np.asarray(ellipsoid.a**2 * (1 - ellipsoid.es) / bend**2 * np.cos(phi) * unit**2)
