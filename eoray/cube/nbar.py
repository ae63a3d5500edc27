"""Reflectance as seen from straight above: the c-factor, applied when scenes are read.

What stands in ``s2`` is what was observed. A factor per date, band and place takes it to the nadir
view under the same sun; it follows from angles and a table, so nothing is stored twice. One global
shape of the directional effect serves every surface, which removes about half of what forest and
crops show between orbits and nearly nothing over water; see ``docs/input.md``.

Sources:
    Roy et al. 2016, RSE 176, 255-271: the c-factor and its parameters. Roy et al. 2017, RSE 199,
    25-38, for Sentinel-2; Roy et al. 2017, Remote Sensing 9(12), 1325, for the red edge. Lucht,
    Schaaf, Strahler 2000, IEEE TGRS 38(2), for the kernels. The sun stays where it was, as in Roy
    et al. 2016: taking it to one zenith, as HLS does, would add a seasonal model to every series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from eoray.catalog.orbit import N_ORBITS, SWATH_DEG, look_from, pass_time, sun_position
from eoray.errors import ConfigError
from eoray.grid import PixelWindow, Tile, Zone, lattice_of, to_lonlat
from eoray.sentinel2 import FILL

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader

METHOD = "c-factor, roy 2017, orbit angles"
"""Name of the method in stored parameters."""

COEFFICIENTS = {
    "B02": (0.0774, 0.0079, 0.0372),
    "B03": (0.1306, 0.0178, 0.0580),
    "B04": (0.1690, 0.0227, 0.0574),
    "B05": (0.2085, 0.0256, 0.0845),
    "B06": (0.2316, 0.0273, 0.1003),
    "B07": (0.2599, 0.0294, 0.1197),
    "B08": (0.3093, 0.0330, 0.1535),
    "B8A": (0.3093, 0.0330, 0.1535),
    "B11": (0.3430, 0.0453, 0.1154),
    "B12": (0.2658, 0.0387, 0.0639),
}
"""Band -> weights of the isotropic, geometric and volumetric part (f_iso, f_geo, f_vol)."""

_BEYOND_DEG = 1.5
"""A tile at the edge of a swath has corners so far beyond it."""

_ANGLES = ("sun_zenith", "sun_azimuth", "view_zenith", "view_azimuth")


type Stated = tuple[float, float, float, float]
"""Sun zenith and azimuth, view zenith and azimuth, degrees; NaN where unknown."""


@dataclass(frozen=True, slots=True)
class Views:
    """What tells the angles of some dates."""

    keys: tuple[str, ...]
    """Of the time entries, for messages."""
    days: tuple[int, ...]
    """UTC days since 1970-01-01."""
    orbits: tuple[int, ...]
    """Relative orbits; 0 where unknown."""
    stated: tuple[Stated, ...]
    """Means of the items; used where an orbit is unknown, or does not pass over the place."""

    def only(self, rows: Sequence[int]) -> Views:
        """Some of the dates."""
        return Views(
            tuple(self.keys[i] for i in rows),
            tuple(self.days[i] for i in rows),
            tuple(self.orbits[i] for i in rows),
            tuple(self.stated[i] for i in rows),
        )


def read_views(
    reader: CubeReader, product: str, zone: Zone, positions: Sequence[int] | np.ndarray
) -> Views:
    """Collect what tells the angles of time entries, by their places on the stored axis."""
    table = reader.entries(product, zone)
    row_of = {int(index): row for row, index in enumerate(table.index)}
    rows = [row_of[int(position)] for position in positions]
    nothing = np.full(len(table), np.nan)
    stated = np.stack([table.columns.get(name, nothing) for name in _ANGLES], axis=1)
    days = table.time.astype("datetime64[D]").astype(np.int64)
    return Views(
        tuple(str(table.key[row]) for row in rows),
        tuple(int(days[row]) for row in rows),
        tuple(int(table.columns["relative_orbit"][row]) for row in rows),
        tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in stated[rows]),
    )


def check_views(views: Views, tile: Tile) -> None:
    """Refuse dates whose angles over a tile are unknown.

    Raises:
        ConfigError: Names the first of them.
    """
    lacking = [
        key for key, known in zip(views.keys, known_views(views, tile), strict=True) if not known
    ]
    if lacking:
        raise ConfigError(
            f"{len(lacking)} of {len(views.keys)} dates of tile {tile.id} have no angles for NBAR, "
            f"such as {lacking[0]}: the items name neither a relative orbit that passes there nor "
            "sun and view angles; turn nbar off, or choose a catalogue that states them"
        )


def known_views(views: Views, tile: Tile) -> list[bool]:
    """Tell for every date whether its angles over a tile are known."""
    corners = (tile.row, tile.col, tile.row + 1, tile.col + 1)
    return [
        bool(np.isfinite(_angles(tile.zone, corners, day, orbit, stated)).all())
        for day, orbit, stated in zip(views.days, views.orbits, views.stated, strict=True)
    ]


def to_nadir(
    values: np.ndarray,
    views: Views,
    *,
    bands: Sequence[str],
    zone: Zone,
    window: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    """Take stored reflectance to the nadir view, in place.

    The factor is computed at the corners of tiles and interpolated between them, so that it has no
    seams; dates without angles stay as they are (``check_views`` refuses them).

    Args:
        values: Dims (time, band, y, x), int16 as stored; fill stays fill.
        views: One per date.
        bands: Band ids.
        zone: UTM zone or the user's grid.
        window: Where the values lie, pixels of ``resolution_m``.
        resolution_m: 10 or 20.

    Returns:
        ``values``.
    """
    px = lattice_of(zone).px(resolution_m)
    row0, col0 = window.row_off // px, window.col_off // px
    at_y = (window.row_off + np.arange(window.height) + 0.5) / px - row0
    at_x = (window.col_off + np.arange(window.width) + 0.5) / px - col0
    for i in range(len(values)):
        knots = _knots(views.only([i]), bands, zone, window, px)
        _multiply(values[i], knots, at_y, at_x, FILL)
    return values


def warm_up() -> None:
    """Compile the product, or load it from numba's cache on disk."""
    at = np.full(1, 0.5)
    _multiply(np.zeros((1, 1, 1), np.int16), np.ones((1, 2, 2)), at, at, FILL)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _multiply(
    values: np.ndarray, knots: np.ndarray, at_y: np.ndarray, at_x: np.ndarray, fill: int
) -> None:
    """Multiply by a field given at its knots; a pass over memory instead of six."""
    n_band, height, width = values.shape
    top, rise = np.empty(width, np.float32), np.empty(width, np.float32)
    low, high = np.float32(fill + 1), np.float32(-fill - 1)
    half = np.float32(0.5)
    for b in range(n_band):
        last = -1
        for i in range(height):
            k = int(at_y[i])
            if k != last:  # the rows of corners above and below
                last = k
                for j in range(width):
                    c = int(at_x[j])
                    across = at_x[j] - c
                    above = knots[b, k, c] + (knots[b, k, c + 1] - knots[b, k, c]) * across
                    below = knots[b, k + 1, c] * (1 - across) + knots[b, k + 1, c + 1] * across
                    top[j], rise[j] = above, below - above
            down = np.float32(at_y[i] - k)
            row = values[b, i]
            for j in range(width):
                value = row[j]
                moved = np.floor(np.float32(value) * (top[j] + rise[j] * down) + half)
                moved = max(moved, low)
                moved = min(moved, high)
                row[j] = value if value == fill else np.int16(np.int32(moved))


def nadir_factor(
    view: Views, *, bands: Sequence[str], zone: Zone, window: PixelWindow, resolution_m: int
) -> np.ndarray:
    """Return what reflectance of one date is multiplied by, dims (band, y, x), float32."""
    px = lattice_of(zone).px(resolution_m)
    knots = _knots(view, bands, zone, window, px)
    down = _weights(window.row_off + np.arange(window.height) + 0.5, px, knots.shape[1])
    across = _weights(window.col_off + np.arange(window.width) + 0.5, px, knots.shape[2])
    return np.asarray(down @ knots @ across.T, np.float32)


def _knots(
    view: Views, bands: Sequence[str], zone: Zone, window: PixelWindow, px: int
) -> np.ndarray:
    """Factors at the corners of the tiles that a window touches, dims (band, row, column)."""
    row0, col0 = window.row_off // px, window.col_off // px
    row1 = -(-(window.row_off + window.height) // px)
    col1 = -(-(window.col_off + window.width) // px)
    corners = (row0, col0, row1, col1)
    stated = view.stated[0] if np.isfinite(view.stated[0]).all() else None
    return _factors(zone, corners, tuple(bands), view.days[0], view.orbits[0], stated)


@lru_cache(maxsize=16_384)
def _factors(
    zone: Zone,
    corners: tuple[int, int, int, int],
    bands: tuple[str, ...],
    day: int,
    orbit: int,
    stated: Stated | None,
) -> np.ndarray:
    """One date; windows of a tile ask again and again."""
    sun_zenith, sun_azimuth, view_zenith, view_azimuth = _angles(zone, corners, day, orbit, stated)
    factors = c_factor(bands, sun_zenith, view_zenith, view_azimuth - sun_azimuth)
    return np.where(np.isfinite(factors), factors, 1.0)


def _weights(centres: np.ndarray, px: int, n_corners: int) -> np.ndarray:
    """Linear weights of the corners of tiles, dims (pixel, corner)."""
    at = centres / px - centres[0] // px
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(n_corners)[None, :])))


def c_factor(
    bands: Sequence[str],
    sun_zenith: np.ndarray | float,
    view_zenith: np.ndarray | float,
    relative_azimuth: np.ndarray | float,
) -> np.ndarray:
    """Ratio of modelled reflectance straight from above to that under the view, same sun.

    Args:
        bands: Band ids.
        sun_zenith: Degrees.
        view_zenith: Degrees.
        relative_azimuth: Between the directions towards satellite and sun, degrees; 0 is
            backscatter, which is bright, so that its factor lies below 1.

    Returns:
        Dims (band, ...), float64.
    """
    angles = (np.asarray(a, np.float64) for a in (sun_zenith, view_zenith, relative_azimuth))
    sun, view, azimuth = (np.radians(a) for a in angles)
    ratios = []
    for band in bands:
        iso, geo, vol = COEFFICIENTS[band]
        below, seen = (
            iso + geo * li_sparse(sun, v, azimuth) + vol * ross_thick(sun, v, azimuth)
            for v in (np.zeros_like(view), view)
        )
        ratios.append(below / seen)
    return np.stack(ratios)


def ross_thick(sun: np.ndarray, view: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Volumetric kernel of a dense canopy; angles in radians."""
    cosine = _phase_cosine(sun, view, azimuth)
    phase = np.arccos(cosine)
    spread = (np.pi / 2 - phase) * cosine + np.sin(phase)
    return np.asarray(spread / (np.cos(sun) + np.cos(view)) - np.pi / 4)


def li_sparse(sun: np.ndarray, view: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Geometric kernel of sparse crowns, reciprocal, h/b = 2 and b/r = 1; angles in radians."""
    cosine = _phase_cosine(sun, view, azimuth)
    slant = 1 / np.cos(sun) + 1 / np.cos(view)
    across = np.tan(sun) * np.tan(view)
    distance2 = np.tan(sun) ** 2 + np.tan(view) ** 2 - 2 * across * np.cos(azimuth)
    overlap = 2 * np.sqrt(distance2.clip(0) + (across * np.sin(azimuth)) ** 2) / slant
    t = np.arccos(overlap.clip(-1, 1))
    shaded = (t - np.sin(t) * np.cos(t)) * slant / np.pi
    both = (1 + cosine) / (2 * np.cos(sun) * np.cos(view))
    return np.asarray(shaded - slant + both)


def _phase_cosine(sun: np.ndarray, view: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    flat = np.sin(sun) * np.sin(view) * np.cos(azimuth)
    return np.asarray((np.cos(sun) * np.cos(view) + flat).clip(-1, 1))


def _angles(
    zone: Zone,
    corners: tuple[int, int, int, int],
    day: int,
    orbit: int,
    stated: Stated | None,
) -> np.ndarray:
    """Angles at the corners of tiles, dims (4, corner rows, corner columns), degrees."""
    row0, col0, row1, col1 = corners
    shape = (row1 - row0 + 1, col1 - col0 + 1)
    out = np.full((4, *shape), np.nan)
    for i in range(shape[0]):
        for j in range(shape[1]):
            lon, lat = _corner(zone, row0 + i, col0 + j)
            known = _passing(orbit, day, lon, lat)
            if known is not None:
                out[:, i, j] = known
    if np.isfinite(out).all() or stated is None:
        return out
    return np.broadcast_to(np.array(stated)[:, None, None], out.shape)


@lru_cache(maxsize=65_536)
def _corner(zone: Zone, row: int, col: int) -> tuple[float, float]:
    lattice = lattice_of(zone)
    x, y = lattice.x + col * lattice.edge, lattice.y - row * lattice.edge
    lon, lat = to_lonlat(lattice, np.array([x]), np.array([y]))
    return float(lon[0]), float(lat[0])


@lru_cache(maxsize=65_536)
def _passing(
    orbit: int, day: int, lon: float, lat: float
) -> tuple[float, float, float, float] | None:
    """Angles of a pass over a place; None where the orbit is unknown or does not see it."""
    if not 1 <= orbit <= N_ORBITS:
        return None
    look = look_from(orbit, lon, lat)
    if look.view_zenith > SWATH_DEG + _BEYOND_DEG:
        return None
    noon = datetime(1970, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
    sun = sun_position(pass_time(orbit, lon, lat, noon), lon, lat)
    return (*sun, look.view_zenith, look.view_azimuth)
