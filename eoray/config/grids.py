"""A grid of the user's own: what the run file says of it, checked, and the lattice it makes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from eoray.config.fields import Count, Slug
from eoray.config.section import Section
from eoray.errors import ConfigError
from eoray.grid import (
    USER_TILE_PX,
    Lattice,
    relabel_south,
    zone_of_name,
)

if TYPE_CHECKING:
    from pyproj import CRS

MAX_TILES = 2**23
"""Tiles of a grid; the ledger holds a plane of them for every date."""

REACH_M = 10_000_000
"""Edge of a grid whose size is not given: larger than any country, and any projection of one."""

_CODE = re.compile(r"EPSG:(\d+)", re.IGNORECASE)


def _check_name(name: str) -> str:
    if zone_of_name(name) is not None:
        raise ConfigError(f"{name!r} is how zones of the world grid are called; take another name")
    return name


def _check_crs(text: str) -> str:
    _crs_of(text)
    return text


class GridSection(Section):
    """A grid of your own, of one pixel for all bands; scenes that do not lie on it are warped."""

    name: Annotated[Slug, AfterValidator(_check_name)]
    """Names the groups of the store, in place of a UTM zone."""
    crs: Annotated[str, AfterValidator(_check_crs)]
    """EPSG code of a projected or geographic CRS, such as ``EPSG:3035``."""
    origin: tuple[float, float]
    """[x, y] of a pixel's corner: the upper left of the grid, in units of the CRS."""
    resolution: Annotated[float, Field(gt=0)]
    """Edge of a pixel in units of the CRS, metres or degrees."""
    size: tuple[Count, Count] | None = None
    """[width, height] in pixels; none given: 10 000 km each, or all degrees east and south."""

    @model_validator(mode="after")
    def _makes_a_lattice(self) -> GridSection:
        self.lattice()
        return self

    def lattice(self) -> Lattice:
        """The pixels that the section describes; southern UTM is named in the northern CRS."""
        crs, code = _crs_of(self.crs)
        (x, y), pixel = self.origin, self.resolution
        epsg, (_, _, x, _, _, y) = relabel_south(code, (pixel, 0.0, x, 0.0, -pixel, y))
        level = max(1, round(pixel * _metres(crs)))
        width, height = self.size or self._reach(crs)
        n_rows, n_cols = (-(-edge // USER_TILE_PX) for edge in (height, width))
        if n_rows * n_cols > MAX_TILES:
            raise ConfigError(
                f"grid {self.name!r} would have {n_rows} x {n_cols} tiles of {USER_TILE_PX} "
                f"pixels, more than {MAX_TILES}; give it a size, [width, height] in pixels"
            )
        return Lattice.of_pixel(self.name, epsg, (x, y), pixel, level, (n_rows, n_cols))

    def _reach(self, crs: CRS) -> tuple[int, int]:
        """(width, height) in pixels where no size is given; it hangs on nothing but the section."""
        across = down = REACH_M / _metres(crs)
        if crs.is_geographic:
            across, down = 180.0 - self.origin[0], self.origin[1] + 90.0
        if across <= 0 or down <= 0:
            raise ConfigError(
                f"origin {list(self.origin)} is no place on earth; write [longitude, latitude] of "
                "a pixel's corner to the upper left of the aoi"
            )
        return math.ceil(across / self.resolution), math.ceil(down / self.resolution)


def _crs_of(text: str) -> tuple[CRS, int]:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    match = _CODE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no EPSG code; write one such as 'EPSG:3035'")
    code = int(match[1])
    try:
        crs = CRS.from_epsg(code)
    except CRSError as error:
        raise ConfigError(f"{text!r} is unknown; write a code such as 'EPSG:3035'") from error
    if not (crs.is_projected or crs.is_geographic) or len(crs.axis_info) != 2:
        raise ConfigError(
            f"{text!r} ({crs.name}) is neither projected nor geographic in two dimensions; write "
            "the code of one that is, such as 'EPSG:3035'"
        )
    return crs, code


def _metres(crs: CRS) -> float:
    """Nominal metres of a unit of a CRS; of a degree at the equator."""
    factor = crs.axis_info[0].unit_conversion_factor  # to metres, or radians
    geod: Any = crs.get_geod()
    return float(factor if crs.is_projected else factor * geod.a)
