"""From digital numbers to stored reflectance: offset removed, negatives kept, no clipping at 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from eoray.sentinel2 import DN_NODATA, DN_SATURATED, FILL, REFLECTANCE_MAX, Quality

_SATURATED, _NO_DATA = int(Quality.SATURATED), int(Quality.NO_DATA)


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


def mark_empty(reflectance: np.ndarray, quality: np.ndarray) -> None:
    """Set the no-data bit where no band holds a value.

    Args:
        reflectance: Dims (band, y, x), int16, at least one band.
        quality: Bits, dims (y, x), uint8, written.
    """
    _mark_empty(reflectance, quality)


@numba.njit(nogil=True, cache=True)
def _mark_empty(reflectance: np.ndarray, quality: np.ndarray) -> None:
    n_bands, height, width = reflectance.shape
    for r in range(height):
        empty = np.full(width, _NO_DATA, np.uint8)
        for band in range(n_bands):
            for c in range(width):
                empty[c] *= reflectance[band, r, c] == FILL
        for c in range(width):
            quality[r, c] |= empty[c]


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache on disk."""
    share = Share(np.zeros((1, 1), np.int16), 0, 1)
    planes = np.zeros((1, 1), np.int16), np.zeros((1, 1), np.uint8)
    place_band(np.ones((1, 1), np.uint16), 0, share, (0, 0), *planes)
    mark_empty(planes[0][None], planes[1])


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
    """Run by run of the pixels that the scene has in a row: whole vectors at once."""
    height, width = dn.shape
    for r in range(height):
        row = r + corner[0]
        chosen = index[row // factor]
        at = 0
        while at < width:
            col = (at + corner[1]) // factor
            is_ours = chosen[col] == number
            end = col + 1
            last = (width + corner[1] - 1) // factor
            while end <= last and (chosen[end] == number) == is_ours:
                end += 1
            stop = min(width, end * factor - corner[1])
            if is_ours:
                left = at + corner[1]
                _place_run(
                    dn[r, at:stop],
                    dn_offset,
                    out[0][row, left : stop + corner[1]],
                    out[1][row, left : stop + corner[1]],
                )
            at = stop


@numba.njit(nogil=True, cache=True)
def _place_run(dn: np.ndarray, dn_offset: int, target: np.ndarray, quality: np.ndarray) -> None:
    largest: Any = 0
    for i in range(len(dn)):  # no branch: the compiler makes vectors of it
        value = np.int32(dn[i])
        largest = max(largest, value)
        shifted = min(value + np.int32(dn_offset), np.int32(REFLECTANCE_MAX))
        target[i] = np.int16(FILL) if value == DN_NODATA else np.int16(shifted)
    if largest == DN_SATURATED:
        for i in range(len(dn)):
            if dn[i] == DN_SATURATED:
                quality[i] |= _SATURATED
