"""Median absolute deviations of spectra from their geometric median, compiled.

How much a place varies within a period: in shape (``smad``), in size (``emad``), in both relative
to how bright it is (``bcmad``).

Sources:
    Roberts, Dunn, Mueller 2018, IGARSS, for the three; Roberts, Mueller, McIntyre 2017, IEEE TGRS
    55(11), for the geometric median that they are taken from.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np

MADS = ("smad", "emad", "bcmad")
"""Names of the layers, in the order of the answer."""

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

_INNER = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@nb.njit(cache=True, **_OPTIONS)
def reduce_mads(values: np.ndarray, clear: np.ndarray, centre: np.ndarray, fill: int) -> np.ndarray:
    """Take the medians of three distances between the clear spectra and a centre.

    Args:
        values: Dims (time, band, y, x), int16.
        clear: Dims (time, y, x), bool.
        centre: Dims (band, y, x), int16: the geometric median as it is stored.
        fill: Of ``centre``; there is nothing clear.

    Returns:
        Dims (3, y, x), float32, NaN where nothing is clear: 1 - cosine; Euclidean, in stored
        units; Bray-Curtis. A spectrum of zeros has neither direction nor size and is left out
        of the first and the third.
    """
    n_time, height, width = clear.shape
    out = np.full((3, height, width), np.nan, np.float32)
    gaps = np.empty((3, n_time))
    count = np.empty(3, np.int64)
    for row in range(height):
        for col in range(width):
            if centre[0, row, col] == fill:
                continue
            count[:] = 0
            for t in range(n_time):
                if clear[t, row, col]:
                    _measure(values[t, :, row, col], centre[:, row, col], gaps, count)
            for kind in range(3):
                n = count[kind]
                if n:
                    ordered = gaps[kind, :n]
                    ordered.sort()
                    middle = 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])
                    out[kind, row, col] = np.float32(middle)
    return out


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache on disk."""
    values = np.zeros((1, 1, 1, 1), np.int16)
    reduce_mads(values, np.ones((1, 1, 1), bool), values[0], -1)


@nb.njit(**_INNER)
def _measure(spectrum: np.ndarray, centre: np.ndarray, gaps: np.ndarray, count: np.ndarray) -> None:
    """Append the three distances of one spectrum."""
    dot, own, other, square, apart, together = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for b in range(len(spectrum)):
        x, m = float(spectrum[b]), float(centre[b])
        dot += x * m
        own += x * x
        other += m * m
        square += (x - m) * (x - m)
        apart += abs(x - m)
        together += abs(x + m)
    if own > 0.0 and other > 0.0:
        gaps[0, count[0]] = max(0.0, 1.0 - dot / math.sqrt(own * other))
        count[0] += 1
    gaps[1, count[1]] = math.sqrt(square)
    count[1] += 1
    if together > 0.0:
        gaps[2, count[2]] = apart / together
        count[2] += 1
