"""From digital numbers to stored reflectance: offset removed, negatives kept, no clipping at 0."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from eoray.sentinel2 import DN_NODATA, DN_SATURATED, FILL, REFLECTANCE_MAX, Quality

_SATURATED = int(Quality.SATURATED)


@dataclass(frozen=True, slots=True)
class Share:
    """The pixels that one scene has in a mosaic."""

    index: np.ndarray
    """Number of the scene that each 20 m pixel takes, dims (y, x), int16."""
    number: int
    """Of this scene."""
    factor: int
    """Pixels of the band along a 20 m pixel: 2 at 10 m."""


def place_band(
    dn: np.ndarray,
    dn_offset: int,
    share: Share,
    corner: tuple[int, int],
    target: np.ndarray,
    quality: np.ndarray,
) -> None:
    """Put digital numbers, as reflectance x 10 000, where their scene was chosen.

    ``DN + offset`` with negative values kept, 32767 where it would be larger, -32768 where DN is 0.
    Where the detector was saturated (DN 65535) the quality bit is set.

    Args:
        dn: Dims (y, x), uint16; 0 is no data.
        dn_offset: Added where DN > 0: -1000 for raw data of baseline 04.00 on, else 0.
        share: Which pixels to write.
        corner: (row, col) of ``dn`` within the frame, in the band's pixels.
        target: Plane of the whole frame, int16, written.
        quality: Bits of the whole frame, uint8, written.

    Source:
        ESA, Sentinel-2 processing baseline 04.00: the offset exists to keep negative values.
    """
    _place(dn, dn_offset, share.index, share.number, share.factor, corner, (target, quality))


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache on disk."""
    share = Share(np.zeros((1, 1), np.int16), 0, 1)
    planes = np.zeros((1, 1), np.int16), np.zeros((1, 1), np.uint8)
    place_band(np.ones((1, 1), np.uint16), 0, share, (0, 0), *planes)


@numba.njit(nogil=True, cache=True)
def _place(
    dn: np.ndarray,
    dn_offset: int,
    index: np.ndarray,
    number: int,
    factor: int,
    corner: tuple[int, int],
    out: tuple[np.ndarray, np.ndarray],
) -> None:
    target, quality = out
    for r in range(dn.shape[0]):
        row = r + corner[0]
        for c in range(dn.shape[1]):
            col = c + corner[1]
            if index[row // factor, col // factor] != number:
                continue
            value = np.int32(dn[r, c])
            if value == DN_NODATA:
                target[row, col] = FILL
                continue
            if value == DN_SATURATED:
                quality[row, col] |= _SATURATED
            target[row, col] = min(value + dn_offset, REFLECTANCE_MAX)
