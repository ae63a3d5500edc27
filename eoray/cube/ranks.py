"""Medians and percentiles along time, compiled: dates are ordered for many pixels at once.

A sorting network compares the same dates whatever the values are, so that a vector register of
pixels goes through it at once: no branch is mispredicted, nothing is copied to floating point.

Source:
    Batcher's merge exchange: Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numba as nb
import numpy as np

LANES = 64
"""Pixels that are ordered together; 32 take half as long again, 128 gain nothing."""

_ABSENT = np.int16(32767)
"""Stands behind the clear values; equal clear ones change no rank."""

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}

_INNER = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def reduce_percentiles(
    values: np.ndarray, clear: np.ndarray, percents: Sequence[int], fill: int
) -> np.ndarray:
    """Take percentiles of the clear values, band by band.

    Args:
        values: Dims (time, band, y, x), int16.
        clear: Dims (time, y, x), bool.
        percents: Whole numbers from 0 to 100; 50 is the median.
        fill: Given where nothing is clear.

    Returns:
        Dims (percentile, band, y, x), int16: linear between the two nearest values (numpy's
        rule), to the nearest unit in exact arithmetic, halves to the even one.
    """
    # numba compiles once per layout: always hand it C arrays
    values, clear = np.ascontiguousarray(values), np.ascontiguousarray(clear)
    wanted = np.array(percents, np.int64)
    return np.asarray(_reduce(values, clear, _network(len(values)), wanted, fill))


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache on disk."""
    reduce_percentiles(np.zeros((2, 1, 1, 1), np.int16), np.ones((2, 1, 1), bool), (50,), -1)


@lru_cache(maxsize=64)
def _network(n: int) -> np.ndarray:
    """Comparisons (low, high) that order n values, dims (comparison, 2)."""
    pairs = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top if n > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return np.array(pairs, np.int64).reshape(-1, 2)


@nb.njit(cache=True, **_OPTIONS)
def _reduce(
    values: np.ndarray, clear: np.ndarray, network: np.ndarray, percents: np.ndarray, fill: int
) -> np.ndarray:
    n_time, n_band, height, width = values.shape
    out = np.full((len(percents), n_band, height, width), fill, np.int16)
    lanes = np.empty((n_time, LANES), np.int16)
    count = np.empty(LANES, np.int16)
    dates = np.empty(n_time, np.int64)
    # flat, with unsigned positions: the compiler then knows that they run on and never wrap
    stored, seen = values.reshape(values.size), clear.reshape(clear.size)
    for row in range(height):
        for left in range(0, width, LANES):
            n_lane = min(LANES, width - left)
            start = row * width + left
            n_date = _look(seen, n_time, height * width, start, n_lane, count, dates)
            for band in range(n_band if n_date else 0):
                for i in range(n_date):
                    t = dates[i]
                    at = (t * n_band + band) * height * width + start
                    _copy(stored, at, seen, t * height * width + start, n_lane, lanes[i])
                _order(lanes, network, n_date)
                _pick(lanes, count, percents, out, band, row, left, n_lane)
    return out


@nb.njit(**_INNER)
def _look(
    seen: np.ndarray,
    n_time: int,
    step: int,
    start: int,
    n_lane: int,
    count: np.ndarray,
    dates: np.ndarray,
) -> int:
    """Count each lane's clear dates, and list those clear in any: clouds cover many at once."""
    count[:] = 0
    n_date = 0
    for t in range(n_time):
        at, any_clear = np.uint64(t * step + start), np.int16(0)
        for k in range(np.uint64(n_lane)):
            clear = np.int16(seen[at + k])
            count[k] += clear
            any_clear |= clear
        if any_clear:
            dates[n_date] = t
            n_date += 1
    return n_date


@nb.njit(**_INNER)
def _copy(
    stored: np.ndarray, at: int, seen: np.ndarray, seen_at: int, n_lane: int, lane: np.ndarray
) -> None:
    """Copy a run of pixels; each cache line of the input is touched once."""
    first, first_seen = np.uint64(at), np.uint64(seen_at)
    for k in range(np.uint64(n_lane)):
        # a choice by bits: a branch is mispredicted for every other pixel of a cloud's edge
        keep = np.int16(-np.int16(seen[first_seen + k]))
        lane[k] = (stored[first + k] & keep) | (_ABSENT & ~keep)


@nb.njit(**_INNER)
def _order(lanes: np.ndarray, network: np.ndarray, n_date: int) -> None:
    """Order each lane; comparisons with dates that are not there would change nothing."""
    for c in range(network.shape[0]):
        low, high = network[c, 0], network[c, 1]
        if high >= n_date:
            continue
        for k in range(LANES):
            a, b = lanes[low, k], lanes[high, k]
            lanes[low, k] = min(a, b)
            lanes[high, k] = max(a, b)


@nb.njit(**_INNER)
def _pick(
    lanes: np.ndarray,
    count: np.ndarray,
    percents: np.ndarray,
    out: np.ndarray,
    band: int,
    row: int,
    left: int,
    n_lane: int,
) -> None:
    for i in range(len(percents)):
        percent = np.int32(percents[i])
        for k in range(n_lane):
            if count[k] == 0:
                continue
            place = percent * np.int32(count[k] - 1)
            low = place // 100
            part = place - 100 * low
            high = low + (part > 0)
            hundredfold = np.int32(lanes[low, k] * (100 - part) + lanes[high, k] * part)
            whole = hundredfold // 100
            rest = hundredfold - 100 * whole
            up = rest > 50 or (rest == 50 and (whole & 1) != 0)
            out[i, band, row, left + k] = whole + up
