"""The one rule between 10 m and 20 m: bilinear on centres down, mean of at least three up.

A 20 m centre lies on a corner of the 10 m lattice, so each 10 m pixel mixes its four nearest
20 m pixels with weights 9, 3, 3 and 1 sixteenths; weights of missing ones go to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba as nb
import numpy as np

from eoray.grid import Lattice, PixelWindow
from eoray.sentinel2 import FILL, native_resolution_m

RULE = "20to10-bilinear-valid-weighted/10to20-mean3"
"""Name of the rule in model packages and product attributes."""


def source_window(window: PixelWindow, resolution_m: int, native_m: int) -> PixelWindow:
    """Native pixels that a window of another resolution needs, neighbours included."""
    if native_m == resolution_m:
        return window
    if native_m < resolution_m:
        return PixelWindow(
            window.row_off * 2, window.col_off * 2, window.height * 2, window.width * 2
        )
    row, col = window.row_off // 2 - 1, window.col_off // 2 - 1
    last_row = (window.row_off + window.height - 1) // 2 + 1
    last_col = (window.col_off + window.width - 1) // 2 + 1
    return PixelWindow(row, col, last_row - row + 1, last_col - col + 1)


def to_lattice(
    values: np.ndarray,
    source: PixelWindow,
    native_m: int,
    window: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    """Bring stored reflectance to another lattice.

    Args:
        values: Dims (..., y, x) over ``source``, int16, fill -32768.
        source: From :func:`source_window`.
        native_m: Pixel of ``values``.
        window: Wanted pixels.
        resolution_m: Pixel of ``window``.

    Returns:
        Dims (..., y, x) over ``window``, int16, rounded half to even.
    """
    if native_m == resolution_m:
        return values
    if native_m < resolution_m:
        return mean_2x2(values)
    return _bilinear(values, source, window)


def join_levels(
    read: Callable[[Sequence[str], PixelWindow, int], np.ndarray],
    bands: Sequence[str],
    n_times: int,
    window: PixelWindow,
    resolution_m: int,
    lattice: Lattice,
) -> np.ndarray:
    """Read bands of any native pixel and bring them to one.

    Args:
        read: Gives bands that are stored at one level, over a window of it: (bands, window, level)
            to dims (time, band, y, x).
        bands: Band ids, in the order wanted.
        n_times: Length of the time axis.
        window: Pixels of ``resolution_m``; even offsets and sizes are not required.
        resolution_m: The pixel of the answer.
        lattice: Whose pixels they are.

    Returns:
        Dims (time, band, y, x), int16, fill -32768.
    """
    out = np.full((n_times, len(bands), window.height, window.width), FILL, "i2")
    for native in lattice.levels:
        wanted = [b for b in bands if lattice.level(native_resolution_m(b)) == native]
        if wanted:
            source = source_window(window, resolution_m, native)
            values = to_lattice(read(wanted, source, native), source, native, window, resolution_m)
            out[:, [bands.index(b) for b in wanted]] = values
    return out


def mean_2x2(values: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels where at least three are valid; int16, fill elsewhere."""
    *lead, height, width = values.shape
    planes = np.ascontiguousarray(values).reshape(-1, height, width)
    out = np.empty((len(planes), height // 2, width // 2), "i2")
    _mean_of_four(planes, out)
    return out.reshape(*lead, *out.shape[1:])


def replicate(
    values: np.ndarray, source: PixelWindow, window: PixelWindow, resolution_m: int
) -> np.ndarray:
    """Take the 20 m pixel that holds each pixel of a window (nearest); any dtype."""
    if resolution_m == 20:
        return values
    rows = (np.arange(window.height) + window.row_off) // 2 - source.row_off
    cols = (np.arange(window.width) + window.col_off) // 2 - source.col_off
    return values[..., rows[:, None], cols]


def _bilinear(values: np.ndarray, source: PixelWindow, window: PixelWindow) -> np.ndarray:
    planes = np.ascontiguousarray(values).reshape(-1, *values.shape[-2:])
    out = np.empty((len(planes), window.height, window.width), "i2")
    far_corner = window.row_off, window.col_off
    _mix_four(planes, (source.row_off, source.col_off), far_corner, out)
    return out.reshape(*values.shape[:-2], window.height, window.width)


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache on disk."""
    window = PixelWindow(2, 2, 1, 1)
    source = source_window(window, 10, 20)
    _bilinear(np.zeros((source.height, source.width), np.int16), source, window)
    mean_2x2(np.zeros((2, 2), np.int16))


@nb.njit(nogil=True, cache=True)
def _mix_four(
    planes: np.ndarray, source: tuple[int, int], window: tuple[int, int], out: np.ndarray
) -> None:
    """Mix the four nearest 20 m pixels of each 10 m pixel; ``source`` and ``window``: corners."""
    for r in range(out.shape[1]):
        fine = r + window[0]
        near = fine // 2 - source[0]
        far = near + (1 if fine % 2 else -1)
        for n in range(out.shape[0]):
            for c in range(out.shape[2]):
                fine_col = c + window[1]
                near_col = fine_col // 2 - source[1]
                far_col = near_col + (1 if fine_col % 2 else -1)
                if planes[n, near, near_col] == FILL:
                    out[n, r, c] = FILL
                    continue
                total, weights = 9 * np.int64(planes[n, near, near_col]), 9
                if planes[n, near, far_col] != FILL:
                    total += 3 * np.int64(planes[n, near, far_col])
                    weights += 3
                if planes[n, far, near_col] != FILL:
                    total += 3 * np.int64(planes[n, far, near_col])
                    weights += 3
                if planes[n, far, far_col] != FILL:
                    total += np.int64(planes[n, far, far_col])
                    weights += 1
                out[n, r, c] = np.int16(np.rint(total / weights))


@nb.njit(nogil=True, cache=True)
def _mean_of_four(planes: np.ndarray, out: np.ndarray) -> None:
    """Average 2 x 2 pixels of each plane, in one pass; halves go to the even number."""
    for n in range(out.shape[0]):
        for r in range(out.shape[1]):
            for c in range(out.shape[2]):
                total: Any = 0
                count = 0
                for i in range(2):
                    for j in range(2):
                        value = planes[n, 2 * r + i, 2 * c + j]
                        if value != FILL:
                            total += np.int64(value)
                            count += 1
                out[n, r, c] = np.int16(np.rint(total / count)) if count >= 3 else FILL
