"""The one rule between 10 m and 20 m: bilinear on centres down, mean of at least three up.

A 20 m centre lies on a corner of the 10 m lattice, so each 10 m pixel mixes its four nearest
20 m pixels with weights 9, 3, 3 and 1 sixteenths; weights of missing ones go to the others.
"""

from __future__ import annotations

import numpy as np

from eoray.grid import PixelWindow
from eoray.sentinel2 import FILL

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


def mean_2x2(values: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels where at least three are valid; int16, fill elsewhere."""
    *lead, height, width = values.shape
    blocks = values.reshape(*lead, height // 2, 2, width // 2, 2)
    valid = blocks != FILL
    count = valid.sum(axis=(-3, -1), dtype="i4")
    total = np.where(valid, blocks, 0).sum(axis=(-3, -1), dtype="i4")
    mean = np.rint(total / np.maximum(count, 1).astype("f4")).astype("i2")
    return np.where(count >= 3, mean, np.int16(FILL))


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
    row_near, row_far = _neighbours(window.row_off, window.height, source.row_off)
    col_near, col_far = _neighbours(window.col_off, window.width, source.col_off)
    out = np.empty((*values.shape[:-2], window.height, window.width), "i2")
    for at in np.ndindex(values.shape[:-2]):
        plane = values[at]
        valid = plane != FILL
        weight = valid.astype("f4")
        data = np.where(valid, plane, 0).astype("f4")
        # separable: 3/4 of the near row and 1/4 of the far one, then the same along x
        data = 0.75 * data[row_near] + 0.25 * data[row_far]
        weight = 0.75 * weight[row_near] + 0.25 * weight[row_far]
        data = 0.75 * data[:, col_near] + 0.25 * data[:, col_far]
        weight = 0.75 * weight[:, col_near] + 0.25 * weight[:, col_far]
        inside = valid[row_near][:, col_near]
        mean = np.rint(data / np.where(weight > 0, weight, 1)).astype("i2")
        out[at] = np.where(inside, mean, np.int16(FILL))
    return out


def _neighbours(offset: int, length: int, source_offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the 20 m pixel that holds a 10 m pixel, and of its other neighbour."""
    fine = np.arange(length) + offset
    near = fine // 2
    far = near + np.where(fine % 2 == 0, -1, 1)
    return near - source_offset, far - source_offset
