"""From digital numbers to stored reflectance: offset removed, negatives kept, no clipping at 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from eoray.sentinel2 import DN_NODATA, DN_SATURATED, FILL, REFLECTANCE_MAX, Quality

_NO_DATA = int(Quality.NO_DATA)


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
    cols: slice | None = None,
) -> bool:
    """Put digital numbers, as reflectance x 10 000, where their scene was chosen.

    ``DN + offset`` with negative values kept, 32767 where it would be larger, -32768 where DN is 0.

    Args:
        dn: Dims (y, x), uint16; 0 is no data.
        dn_offset: Added where DN > 0: -1000 for raw data of baseline 04.00 on, else 0.
        share: Which pixels to write.
        corner: (row, col) within the frame, in the band's pixels, where ``dn`` begins.
        target: Plane of the whole frame, int16, written.
        cols: Columns of ``dn`` that count, the first of them at the corner; None for all.

    Returns:
        True where the detector was saturated (DN 65535); see :func:`mark_saturated`.

    Source:
        ESA, Sentinel-2 processing baseline 04.00: the offset exists to keep negative values.
    """
    part = (0, dn.shape[1]) if cols is None else (cols.start, cols.stop)
    where = share.index, share.number, share.factor
    return bool(_place(dn, part, dn_offset, *where, corner, target) == DN_SATURATED)


def mark_saturated(
    dn: np.ndarray, share: Share, corner: tuple[int, int], quality: np.ndarray
) -> None:
    """Set the bit of saturation where a scene was chosen and its DN is 65535.

    Args:
        dn: Dims (y, x), uint16.
        share: Which pixels to write.
        corner: (row, col) of ``dn`` within the frame, in the band's pixels.
        quality: Bits of the whole frame, uint8, written.
    """
    (row, col), factor = corner, share.factor
    rows, cols = np.nonzero(dn == DN_SATURATED)
    rows, cols = rows + row, cols + col
    ours = share.index[rows // factor, cols // factor] == share.number
    quality[rows[ours], cols[ours]] |= np.uint8(Quality.SATURATED)


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
    plane = np.zeros((1, 1), np.int16)
    place_band(np.ones((1, 1), np.uint16), 0, share, (0, 0), plane)
    mark_empty(plane[None], np.zeros((1, 1), np.uint8))


@numba.njit(nogil=True, cache=True)
def _place(
    dn: np.ndarray,
    part: tuple[int, int],
    dn_offset: int,
    index: np.ndarray,
    number: int,
    factor: int,
    corner: tuple[int, int],
    target: np.ndarray,
) -> int:
    """Row by row where the scene has all of it, else run by run; gives the largest number."""
    first, width = part[0], part[1] - part[0]
    left = corner[1] // factor
    right = (corner[1] + width - 1) // factor + 1
    largest = np.uint16(0)
    known, n_ours = -1, 0
    for r in range(dn.shape[0]):
        row = r + corner[0]
        chosen = index[row // factor]
        if row // factor != known:
            known, n_ours = row // factor, _count(chosen[left:right], number)
        if n_ours == 0:
            continue
        if n_ours == right - left:
            ours = target[row, corner[1] : corner[1] + width]
            largest = max(largest, _place_run(dn[r, first : first + width], dn_offset, ours))
            continue
        at = 0
        while at < width:
            col = (at + corner[1]) // factor
            is_ours = chosen[col] == number
            end = col + 1
            while end < right and (chosen[end] == number) == is_ours:
                end += 1
            stop = min(width, end * factor - corner[1])
            if is_ours:
                ours = target[row, at + corner[1] : stop + corner[1]]
                run = dn[r, first + at : first + stop]
                largest = max(largest, _place_run(run, dn_offset, ours))
            at = stop
    return int(largest)


@numba.njit(nogil=True, cache=True)
def _count(chosen: np.ndarray, number: int) -> int:
    found = 0
    for i in range(len(chosen)):
        found += chosen[i] == number
    return found


@numba.njit(nogil=True, cache=True)
def _place_run(dn: np.ndarray, dn_offset: int, target: np.ndarray) -> Any:
    """No branch, and no number wider than needed: the compiler makes vectors of it."""
    largest, offset = np.uint16(0), np.int32(dn_offset)
    for i in range(len(dn)):
        value = np.uint16(dn[i])
        largest = max(largest, value)
        shifted = min(np.int32(value) + offset, np.int32(REFLECTANCE_MAX))
        target[i] = np.int16(FILL) if value == DN_NODATA else np.int16(shifted)
    return largest
