"""Terrain from a DEM: where land is steep, and where it lies in the shadow of other land.

Elevation is warped to the pixels of SCL with a margin of ten kilometres. Steep land
(``SLOPE_DEG``) is flagged in ``quality`` and stays clear; land in cast shadow at the date's sun is
flagged and, as ``Mask.SHADOW``, not clear. A tile's result depends on the tile, the DEM and the
sun alone, never on what else a task reads.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np

from eoray.catalog.orbit import SWATH_DEG, look_from, pass_time, sun_position
from eoray.errors import ConfigError, ReadError
from eoray.grid import PixelWindow, Tile, from_lonlat, to_lonlat
from eoray.masking import mask as mask_secrets
from eoray.reading.gdal import TIMEOUTS, GdalFile, forget_answers
from eoray.reading.persist import GaveUpError, persist
from eoray.reading.requests import Patience, one_turn
from eoray.sentinel2 import Mask, Quality
from eoray.storage import is_local

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from eoray.catalog.scene import Scene

SLOPE_DEG = 15.0
"""Steeper land is flagged."""

REACH_M = 10_240.0
"""How far away land may cast a shadow: that of 3 700 m of relief under a sun 20 degrees high."""

_MARGIN_PX = 512
"""Widest margin: finer pixels of a user's grid see less far, and memory stays bounded."""

_TILES_KEPT = 16
"""Tiles of one block, 10 MB each with the margin: the next date finds them."""


@dataclass(frozen=True, slots=True)
class TerrainRecipe:
    """Which elevation, as a cube keeps it."""

    url: str
    """Any raster that GDAL reads, metres."""
    name: str
    """File name and a digest of what its header says; a moved file is the same."""

    def parameters(self) -> dict[str, Any]:
        """The recipe as stored attributes."""
        return {"dem": self.name, "slope_deg": SLOPE_DEG, "reach_m": REACH_M}


def check_dem(
    url: str, tiles: Iterable[Tile], *, retries: int = 2, seconds: float = 120.0
) -> TerrainRecipe:
    """Open a DEM and see that it reaches the tiles.

    Args:
        url: Local path or URL.
        tiles: Tiles of the run.
        retries: Further attempts after one that failed.
        seconds: No attempt begins later than this after the first.

    Raises:
        ConfigError: It cannot be opened, has no CRS, or touches no tile.
    """

    def read(file: DatasetReader) -> list[Any]:
        _check_place(file, url, tiles)
        return [str(file.crs), list(file.transform), file.shape, file.dtypes, str(file.nodata)]

    try:
        # a name that is wrong on this machine is said at once
        is_here = is_local(url) and not url.startswith("/vsi")
        header = _ask(url, read, Patience(0 if is_here else retries, seconds))
    except GaveUpError as gave_up:
        raise ConfigError(
            f"cube.dem {mask_secrets(url)!r} cannot be opened ({_told(gave_up)}); name a raster of "
            "elevation in metres that GDAL reads, such as a GeoTIFF or a VRT"
        ) from gave_up.__cause__
    digest = hashlib.sha256(json.dumps(header).encode()).hexdigest()[:8]
    return TerrainRecipe(url, f"{url.rstrip('/').rsplit('/', 1)[-1]} {digest}")


def _ask[T](url: str, read: Callable[[DatasetReader], T], patience: Patience) -> T:
    """Read a DEM, again if its server failed; GDAL forgets all links, for a VRT names others."""
    import rasterio
    from rasterio.errors import RasterioError

    def attempt(patience: Patience) -> T:
        try:
            with (
                rasterio.Env(**TIMEOUTS),
                one_turn(url, patience),
                GdalFile(url, patience) as file,
            ):
                return read(file.dataset)
        except RasterioError:
            forget_answers()
            raise

    return persist(attempt, url, patience)


def _told(gave_up: GaveUpError) -> str:
    plural = "s" if gave_up.attempts != 1 else ""
    return f"{mask_secrets(str(gave_up.__cause__))}, after {gave_up.attempts} attempt{plural}"


def _check_place(file: DatasetReader, url: str, tiles: Iterable[Tile]) -> None:
    from rasterio.warp import transform_bounds

    if file.crs is None:
        raise ConfigError(f"cube.dem {url!r} has no CRS; assign one with gdal_edit.py -a_srs")
    left, bottom, right, top = file.bounds
    for tile in tiles:
        x0, y0, x1, y1 = transform_bounds(tile.epsg, file.crs, *tile.bounds, densify_pts=5)
        if x0 < right and x1 > left and y0 < top and y1 > bottom:
            return
    raise ConfigError(
        f"cube.dem {url!r} reaches none of the tiles of aoi (its bounds are "
        f"{[round(edge, 3) for edge in file.bounds]} in {file.crs}); name one that covers them"
    )


@dataclass(frozen=True, slots=True)
class Terrain:
    """A tile and what stands around it."""

    height: np.ndarray
    """Dims (y, x), float32, metres, pixels of SCL with ``margin`` of them around; NaN unknown."""
    margin: tuple[int, int]
    """(y, x) pixels around the tile."""
    steep: np.ndarray
    """True where the tile is steep, dims (y, x) of the tile."""


@lru_cache(maxsize=_TILES_KEPT)
def read_terrain(url: str, tile: Tile, retries: int = 2, seconds: float = 120.0) -> Terrain:
    """Warp a DEM to a tile; once per process and block.

    Where it holds nothing, land is neither steep nor does it cast a shadow.

    Args:
        url: Local path or URL.
        tile: Which.
        retries: Further attempts after one that failed.
        seconds: No attempt begins later than this after the first.

    Raises:
        ReadError: Every attempt failed.
    """
    lattice = tile.lattice
    down, across = lattice.ground_m(tile.row, tile.col)
    margin = _margin_px(down), _margin_px(across)
    inner = tile.window(lattice.coarse)
    window = PixelWindow(
        inner.row_off - margin[0],
        inner.col_off - margin[1],
        inner.height + 2 * margin[0],
        inner.width + 2 * margin[1],
    )
    patience = Patience(retries, seconds)
    try:
        height = _ask(url, lambda file: _warp(file, tile, window), patience)
    except GaveUpError as gave_up:
        raise ReadError(
            f"cube.dem {mask_secrets(url)!r} cannot be read around tile {tile.id} "
            f"({_told(gave_up)}); mend the file or its server and run again: what is done is kept",
            asset=mask_secrets(url),
        ) from gave_up.__cause__
    steep = slope_deg(height, (down, across)) > SLOPE_DEG
    inside = np.s_[margin[0] : margin[0] + inner.height, margin[1] : margin[1] + inner.width]
    return Terrain(height, margin, np.ascontiguousarray(steep[inside]))


def _margin_px(ground_m: float) -> int:
    return min(math.ceil(REACH_M / ground_m), _MARGIN_PX)


def _warp(file: DatasetReader, tile: Tile, window: PixelWindow) -> np.ndarray:
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    lattice = tile.lattice
    with WarpedVRT(
        file,
        crs=f"EPSG:{lattice.epsg}",
        transform=lattice.affine(window, lattice.coarse),
        width=window.width,
        height=window.height,
        resampling=Resampling.bilinear,
        dtype="float32",
        nodata=np.nan,
    ) as warped:
        return np.asarray(warped.read(1), np.float32)


def slope_deg(height: np.ndarray, ground_m: tuple[float, float]) -> np.ndarray:
    """Slope of each pixel from its eight neighbours, degrees.

    Args:
        height: Dims (y, x), metres; NaN where unknown.
        ground_m: (y, x) metres under a pixel.

    Returns:
        Dims (y, x), float32; 0 where a neighbour is unknown, and at the edge.

    Source:
        Horn 1981, Proceedings of the IEEE 69(1).
    """
    z = height.astype(np.float64)
    out = np.zeros(z.shape, np.float32)
    if min(z.shape) < 3:
        return out
    west, east = _three(z[:, :-2], axis=0), _three(z[:, 2:], axis=0)
    north, south = _three(z[:-2], axis=1), _three(z[2:], axis=1)
    rise = np.hypot((east - west) / (8 * ground_m[1]), (south - north) / (8 * ground_m[0]))
    out[1:-1, 1:-1] = np.degrees(np.arctan(np.nan_to_num(rise)))
    return out


def _three(lines: np.ndarray, *, axis: int) -> np.ndarray:
    """1, 2, 1 along an axis."""
    moved = np.moveaxis(lines, axis, 0)
    return np.asarray(np.moveaxis(moved[:-2] + 2 * moved[1:-1] + moved[2:], 0, axis))


def shadow_of_tile(
    terrain: Terrain, tile: Tile, sun_zenith: float, sun_azimuth: float
) -> np.ndarray:
    """Tell which pixels of SCL of a tile lie in cast shadow, dims (y, x), bool.

    Args:
        terrain: Of the tile.
        tile: Its place, which tells where north is on the lattice.
        sun_zenith: Degrees.
        sun_azimuth: Degrees clockwise from true north, towards the sun.
    """
    towards = _pixels_per_metre(tile, sun_azimuth)
    return cast_shadow(terrain.height, terrain.margin, towards, sun_zenith)


@lru_cache(maxsize=4096)
def _pixels_per_metre(tile: Tile, azimuth: float) -> tuple[float, float]:
    """(rows, columns) that a metre of ground in a direction from true north moves."""
    from pyproj import Geod

    lattice, length = tile.lattice, 1000.0
    x0, y0, x1, y1 = tile.bounds
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    lon, lat = to_lonlat(lattice, np.array([x]), np.array([y]))
    away = Geod(ellps="WGS84").fwd(lon[0], lat[0], azimuth, length)
    east, north = from_lonlat(lattice.epsg).transform(away[0], away[1])
    pixel = lattice.pixel(lattice.coarse) * length
    return float((y - north) / pixel), float((east - x) / pixel)


def cast_shadow(
    height: np.ndarray,
    margin: tuple[int, int],
    towards: tuple[float, float],
    sun_zenith: float,
) -> np.ndarray:
    """March from each pixel towards the sun until nothing higher can come.

    Args:
        height: Dims (y, x), float32, metres, with ``margin`` around what is asked; NaN unknown.
        margin: (y, x) pixels around.
        towards: (rows, columns) per metre of ground towards the sun.
        sun_zenith: Degrees; a sun at or below the horizon leaves all in shadow.

    Returns:
        Dims (y, x) without the margin, bool. The curve of the Earth (8 m in 10 km) is left out.
    """
    inner = height.shape[0] - 2 * margin[0], height.shape[1] - 2 * margin[1]
    if sun_zenith >= 90:
        return np.ones(inner, bool)
    stride = max(abs(towards[0]), abs(towards[1]))
    if sun_zenith < 1e-6 or stride == 0 or not np.isfinite(height).any():
        return np.zeros(inner, bool)
    step_m = 1.0 / stride
    rise_m = step_m / math.tan(math.radians(sun_zenith))
    walk = (towards[0] * step_m, towards[1] * step_m)
    z = np.ascontiguousarray(height, np.float32)
    top, n_steps = float(np.nanmax(z)), int(REACH_M / step_m)
    return np.asarray(_march(z, margin[0], margin[1], walk[0], walk[1], rise_m, top, n_steps))


def warm_up() -> None:
    """Compile the march, or load it from numba's cache on disk."""
    cast_shadow(np.zeros((3, 3), np.float32), (0, 0), (0.05, 0.0), 45.0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _march(
    z: np.ndarray,
    margin_y: int,
    margin_x: int,
    d_row: float,
    d_col: float,
    rise: float,
    top: float,
    n_steps: int,
) -> np.ndarray:
    rows, cols = z.shape
    out = np.zeros((rows - 2 * margin_y, cols - 2 * margin_x), np.bool_)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row, col = float(i + margin_y), float(j + margin_x)
            ray = float(z[i + margin_y, j + margin_x])
            if np.isnan(ray):
                continue
            for _ in range(n_steps):
                row += d_row
                col += d_col
                ray += rise
                if ray > top or row < 0 or col < 0 or row > rows - 1 or col > cols - 1:
                    break
                r, c = min(int(row), rows - 2), min(int(col), cols - 2)
                a, b = row - r, col - c
                land = (1 - a) * ((1 - b) * z[r, c] + b * z[r, c + 1]) + a * (
                    (1 - b) * z[r + 1, c] + b * z[r + 1, c + 1]
                )
                if land > ray:
                    out[i, j] = True
                    break
    return out


def sun_over(tile: Tile, scenes: Iterable[Scene]) -> tuple[float, float] | None:
    """(zenith, azimuth) of the sun over the middle of a tile.

    By the time at which the orbit passes there; where the orbit is unknown or does not pass, the
    angles of the granule whose middle is nearest.

    Args:
        tile: Where.
        scenes: Those of one datatake that touch the tile.

    Returns:
        Degrees; None where no scene tells.
    """
    x0, y0, x1, y1 = tile.bounds
    lons, lats = to_lonlat(tile.lattice, np.array([(x0 + x1) / 2]), np.array([(y0 + y1) / 2]))
    lon, lat = float(lons[0]), float(lats[0])
    found = sorted(scenes, key=lambda s: s.item_id)
    orbit = found[0].relative_orbit
    if orbit and look_from(orbit, lon, lat).view_zenith < SWATH_DEG + 1:
        begun = datetime.fromisoformat(found[0].sensing_time)
        return sun_position(pass_time(orbit, lon, lat, begun), lon, lat)
    stated = [s for s in found if math.isfinite(s.sun_zenith) and math.isfinite(s.sun_azimuth)]
    if not stated:
        return None
    nearest = min(stated, key=lambda s: (_away(s, lon, lat), s.item_id))
    return nearest.sun_zenith, nearest.sun_azimuth


def _away(scene: Scene, lon: float, lat: float) -> float:
    """Squared distance of a scene's middle from a place, degrees of latitude."""
    west, south, east, north = scene.bbox
    middle = (west + east + 360 * (east < west)) / 2
    across = ((middle - lon + 180) % 360 - 180) * math.cos(math.radians(lat))
    return float(across**2 + ((south + north) / 2 - lat) ** 2)


def mark_terrain(
    arrays: dict[str, np.ndarray],
    tile: Tile,
    recipe: TerrainRecipe,
    scenes: Iterable[Scene],
    patience: Patience | None = None,
) -> None:
    """Set the bits of terrain in the arrays of a tile, in place.

    Args:
        arrays: ``"20m/quality"``, ``"20m/mask"``, ... of a whole tile, without time.
        tile: Which.
        recipe: The DEM.
        scenes: Those of the datatake that touch the tile.
        patience: How long the DEM may be asked for.

    Raises:
        ReadError: The DEM cannot be read: then no pixel of the tile is known.
        ConfigError: No scene tells where the sun stands.
    """
    found = list(scenes)
    sun = sun_over(tile, found)
    if sun is None:
        raise ConfigError(
            f"item {found[0].item_id} names neither an orbit that passes tile {tile.id} nor the "
            "sun's angles, so shadows of terrain cannot be drawn; leave cube.dem out, or the item"
        )
    patience = patience or Patience()
    terrain = read_terrain(recipe.url, tile, patience.retries, patience.seconds)
    shadow = shadow_of_tile(terrain, tile, *sun)
    level = tile.lattice.coarse
    for resolution_m in tile.lattice.levels:
        quality = arrays[f"{resolution_m}m/quality"]
        factor = level // resolution_m
        marked = np.repeat(np.repeat(terrain.steep | shadow, factor, 0), factor, 1)
        quality[marked & ((quality & int(Quality.NO_DATA)) == 0)] |= np.uint8(Quality.TERRAIN)
    mask = arrays[f"{level}m/mask"]
    mask[shadow & ((mask & int(Mask.INVALID)) == 0)] |= np.uint8(Mask.SHADOW)
