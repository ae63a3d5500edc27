"""The place of a run: a file, a box or tile ids, turned into a geometry and tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eoray import storage
from eoray.config import resolve_path
from eoray.errors import ConfigError, EorayError
from eoray.grid import Lattice, Tile, Tiles, box_lonlat, split_antimeridian, tiles_of_geometry

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True)
class Aoi:
    """The place of a run."""

    geometry: BaseGeometry
    """Lon/lat in degrees, split at the antimeridian."""
    tiles: Tiles


def resolve_aoi(aoi: str | Sequence[float | str], folder: Path, grid: Lattice | None = None) -> Aoi:
    """Turn the run file's ``aoi`` into a geometry and tiles.

    Args:
        aoi: Path of a vector file, [west, south, east, north] in degrees (west > east crosses
            the antimeridian), or tile ids.
        folder: Where relative paths start.
        grid: The user's grid; None for the world grid, which alone has tile ids.

    Raises:
        ConfigError: Empty, out of range, beyond the grid, unreadable, or no tile id.
    """
    if isinstance(aoi, str):
        geometry = _read(resolve_path(aoi, folder))
        return Aoi(geometry, tiles_of_geometry(geometry, grid))
    values = list(aoi)
    if values and all(isinstance(value, str) for value in values):
        tiles = Tiles.of(Tile.from_id(str(value)) for value in values)
        return Aoi(_outline(tiles), tiles)
    geometry = _box([float(value) for value in values])
    return Aoi(geometry, tiles_of_geometry(geometry, grid))


def _box(values: list[float]) -> BaseGeometry:
    if len(values) != 4:
        raise ConfigError(
            f"aoi {values} has {len(values)} values; give [west, south, east, north] in degrees"
        )
    west, south, east, north = values
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= 90):
        raise ConfigError(f"aoi {values} is not in degrees; give [west, south, east, north]")
    if south >= north or west == east:
        raise ConfigError(
            f"aoi {values} is empty; south must be below north and west differ from east"
        )
    return box_lonlat(west, south, east, north)


def _read(path: str) -> BaseGeometry:
    import geopandas
    import shapely

    absent = (
        f"aoi file {path!r} does not exist; give a GeoJSON or GeoPackage path, "
        "[west, south, east, north] or tile ids"
    )
    try:
        with storage.local_copy(path) as local:
            if not local.exists():
                raise ConfigError(absent)
            frame = geopandas.read_file(local)
    except FileNotFoundError as error:
        raise ConfigError(absent) from error
    except EorayError:
        raise
    except Exception as error:  # pyogrio raises a family of its own
        raise ConfigError(
            f"aoi file {path!r} cannot be read ({error}); GeoJSON, GeoPackage and Shapefile work"
        ) from error
    shapes = frame.geometry[[shape is not None and not shape.is_empty for shape in frame.geometry]]
    if len(shapes) == 0:
        raise ConfigError(f"aoi file {path!r} holds no geometry; draw a polygon in it")
    if frame.crs is None:
        raise ConfigError(f"aoi file {path!r} names no CRS; save it with one")
    return split_antimeridian(shapely.union_all(shapes.to_crs(4326).values))


def _outline(tiles: Sequence[Tile]) -> BaseGeometry:
    """Tiles as lon/lat polygons."""
    import numpy as np
    import shapely
    from pyproj import Transformer

    rings = []
    for tile in tiles:
        to_lonlat = Transformer.from_crs(tile.epsg, 4326, always_xy=True)
        dense = shapely.segmentize(shapely.box(*tile.bounds), 2_000)
        ring = shapely.transform(
            dense, lambda xy, t=to_lonlat: np.stack(t.transform(*xy.T), axis=1)
        )
        west, south, east, north = ring.bounds
        if east - west > 180:
            lon = shapely.get_coordinates(ring)[:, 0]
            ring = box_lonlat(lon[lon > 0].min(), south, lon[lon < 0].max(), north)
        rings.append(ring)
    return shapely.union_all(rings)
