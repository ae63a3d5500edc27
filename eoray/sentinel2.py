"""Sentinel-2 facts: bands, scene classes, scale, and the bits of eoray's per-pixel layers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum, IntFlag

from eoray.errors import ConfigError

BANDS_10M = ("B02", "B03", "B04", "B08")
"""Bands whose native pixel is 10 m, in the order of the stored array."""

BANDS_20M = ("B05", "B06", "B07", "B8A", "B11", "B12")
"""Bands whose native pixel is 20 m, in the order of the stored array."""

BANDS = BANDS_10M + BANDS_20M

COMMON_NAMES = {
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B11": "swir16",
    "B12": "swir22",
}
"""STAC ``eo`` common names (rededge numbered in order of wavelength, as Earth Search does)."""

WAVELENGTHS_UM = {
    "B02": 0.490,
    "B03": 0.560,
    "B04": 0.665,
    "B05": 0.704,
    "B06": 0.741,
    "B07": 0.783,
    "B08": 0.842,
    "B8A": 0.865,
    "B11": 1.610,
    "B12": 2.190,
}
"""Central wavelengths in micrometres."""

FILL = -32768
"""Stored value of a reflectance that does not exist."""

SCALE = 1e-4
"""Surface reflectance = stored integer x SCALE."""

REFLECTANCE_MAX = 32767
"""Stored values above this are clipped to it (reflectance 3.2767)."""

DN_NODATA = 0
DN_SATURATED = 65535


class Scl(IntEnum):
    """Classes of the scene classification layer (SCL) of Sen2Cor."""

    NO_DATA = 0
    SATURATED = 1
    DARK = 2
    CLOUD_SHADOW = 3
    VEGETATION = 4
    BARE = 5
    WATER = 6
    UNCLASSIFIED = 7
    CLOUD_MEDIUM = 8
    CLOUD_HIGH = 9
    CIRRUS = 10
    SNOW = 11


class Quality(IntFlag):
    """Bits of the uint8 ``quality`` array: how a pixel came to be, not what it shows."""

    NO_DATA = 1
    SATURATED = 2
    GRANULE_EDGE = 4
    FAILED_READ = 8
    FOREIGN_ZONE = 16
    OTHER_GRANULE = 32
    CLIPPED_AT_SOURCE = 64
    TERRAIN = 128


class Mask(IntFlag):
    """Bits of the uint8 ``mask`` array at 20 m: why a pixel is not clear. 0 is clear."""

    CLOUD = 1
    SHADOW = 2
    CIRRUS = 4
    SNOW = 8
    DILATED = 16
    INVALID = 32
    OTHER = 64


class Screen(IntFlag):
    """Bits of the uint8 ``screen`` array at 20 m: what a pixel's own dates say about its mask."""

    CLOUD = 1
    """Called clear, but brighter in the blue than its neighbours in time."""
    SHADOW = 2
    """Called clear, but darker."""
    RESCUED = 4
    """Called cloud, or close to one, but as it always is: counts as clear."""
    UNJUDGED = 8
    """Clear, with too few clear neighbours in time to tell."""


UNUSABLE = Quality.NO_DATA | Quality.SATURATED | Quality.FAILED_READ
"""Quality bits that keep a pixel out of composites, training and change."""


def resolve_bands(names: Iterable[str]) -> tuple[str, ...]:
    """Turn band ids and common names into band ids, keeping their order.

    Args:
        names: Ids (``B04``) or common names (``red``), mixed as you like.

    Returns:
        Band ids, without repetition.

    Raises:
        ConfigError: A name is unknown; the nearest known one is named.
    """
    by_common = {common: band for band, common in COMMON_NAMES.items()}
    bands: list[str] = []
    for name in names:
        band = by_common.get(name, name)
        if band not in BANDS:
            near = difflib.get_close_matches(name, [*BANDS, *by_common], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"unknown band {name!r}; {hint}eoray reads {', '.join(BANDS)} and their common "
                "names"
            )
        if band not in bands:
            bands.append(band)
    return tuple(bands)


def native_resolution_m(band: str) -> int:
    """Return 10 or 20, the native pixel of a band in metres."""
    return 10 if band in BANDS_10M else 20


def bands_of(resolution_m: int) -> tuple[str, ...]:
    """Return the bands whose native pixel has this size in metres."""
    return {10: BANDS_10M, 20: BANDS_20M}[resolution_m]
