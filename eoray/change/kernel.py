"""What the compiled kernels of the change engine share: layouts of scratch, small linear algebra.

Kernels run without Python, allocate nothing per pixel and use strict IEEE arithmetic, so that a
pixel's result depends on its own values alone, whatever the chunking or the number of threads. Rows
of eight travel as tuples: the compiler then knows that they lie in registers and uses vector units
without being allowed to reorder a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba as nb
import numpy as np

N_COEF = 8
"""Intercept, slope, and cosine and sine of one to three cycles a year."""
GROUP = 32
"""Pixels gathered together: one cache line of int16, which is then read once."""
N_SEASON = 8
"""Bins of the year in which the residual spread is kept apart."""
YEAR = 365.25

DAY, BIN, ORBIT, USED = 0, 1, 2, 3
"""Columns of ``Work.date``: days since 1970, season bin, orbit code, 1 where in the fit."""
FLOOR, SSE, NOW, MEAN, WHOLE, SEASON = 0, 1, 2, 3, 4, 5
"""Rows of ``Work.spread``: noise floor squared, sum of squared residuals, variance expected of the
last observation, mean residual of a run, variance in a fit to the whole record; from SEASON on the
sums of squares by bin."""

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def kernel[F: Callable[..., Any]](function: F) -> F:
    """Compile a function that only other kernels call: wrappers for Python cost half the time."""
    compiled: F = nb.njit(**_OPTIONS)(function)
    return compiled


def inner_loop[F: Callable[..., Any]](function: F) -> F:
    """Compile what runs once per observation: calls instead of inlining halve the speed."""
    compiled: F = nb.njit(forceinline=True, **_OPTIONS)(function)
    return compiled


Row = tuple[float, float, float, float, float, float, float, float]


class Rule(NamedTuple):
    """Numbers that the kernels follow; see ``ChangeParameters`` for their meaning."""

    ridge: np.ndarray
    level_obs: np.ndarray
    run_length: np.ndarray
    limit: float
    stable_limit: float
    cos_min: float
    min_obs: int
    init_days: int
    record_days: int
    run_days: int
    gap_days: int
    pulse_days: int
    pulse_share: float
    step_limit: float
    known_limit: float
    season_days: int
    state_limit: float
    state_days: int
    spike: float
    floor: float
    min_pairs: int
    pair_days: int
    green: int
    swir: int


class Work(NamedTuple):
    """Scratch of one call; the leading dim is that pixel's clear observations in order of time."""

    z: np.ndarray
    """(obs, band), reflectance."""
    x: np.ndarray
    """(obs, 8), basis."""
    resid: np.ndarray
    """(obs, band), last difference to a curve."""
    date: np.ndarray
    """(obs, 4), int64: DAY, BIN, ORBIT, USED."""
    beta: np.ndarray
    """(band, 8), coefficients."""
    v: np.ndarray
    """(8, 8), inverse of X'X + ridge, shared by all bands."""
    spread: np.ndarray
    """(row, band), rows FLOOR ... SEASON + 7."""
    season_n: np.ndarray
    """(8), residuals in each bin."""
    pick: np.ndarray
    """(obs), for medians."""
    sums: np.ndarray
    """(1, 8), a sum of rows of ``x``."""
    whole: np.ndarray
    """(8, 8), ``v`` of the fit to the whole record."""
    after: np.ndarray
    """(obs, band), residuals of that fit summed from there to the end."""
    state: np.ndarray
    """(band + 2, band), factor of the covariance of all past observations, their mean, scratch."""


class Output(NamedTuple):
    """Result arrays; the leading dim is the pixel."""

    n_breaks: np.ndarray
    date_lo: np.ndarray
    date_hi: np.ndarray
    magnitude: np.ndarray
    n_obs: np.ndarray
    monitored_from: np.ndarray
    monitored_to: np.ndarray
    qa_flags: np.ndarray


@kernel
def clear_rows(a: np.ndarray, first: int) -> None:
    """Set rows from ``first`` on to 0."""
    for k in range(first, a.shape[0]):
        for q in range(a.shape[1]):
            a[k, q] = 0.0


@inner_loop
def get_row(a: np.ndarray, k: int) -> Row:
    """Take row ``k`` as a tuple."""
    return (a[k, 0], a[k, 1], a[k, 2], a[k, 3], a[k, 4], a[k, 5], a[k, 6], a[k, 7])


@inner_loop
def add_row(a: np.ndarray, k: int, row: Row, factor: float) -> None:
    """Add a multiple of a tuple to row ``k``."""
    a[k, 0] += row[0] * factor
    a[k, 1] += row[1] * factor
    a[k, 2] += row[2] * factor
    a[k, 3] += row[3] * factor
    a[k, 4] += row[4] * factor
    a[k, 5] += row[5] * factor
    a[k, 6] += row[6] * factor
    a[k, 7] += row[7] * factor


@inner_loop
def dot_row(row: Row, a: np.ndarray, k: int) -> float:
    """Multiply a tuple by row ``k``, summed in a fixed tree."""
    even: float = (row[0] * a[k, 0] + row[4] * a[k, 4]) + (row[2] * a[k, 2] + row[6] * a[k, 6])
    odd: float = (row[1] * a[k, 1] + row[5] * a[k, 5]) + (row[3] * a[k, 3] + row[7] * a[k, 7])
    return even + odd


@kernel
def invert(a: np.ndarray) -> None:
    """Invert a positive definite matrix in place (Gauss-Jordan; no pivot is needed)."""
    for k in range(N_COEF):
        inverse = 1.0 / a[k, k]
        a[k, k] = 1.0
        for q in range(N_COEF):
            a[k, q] *= inverse
        for p in range(N_COEF):
            if p != k:
                factor = a[p, k]
                a[p, k] = 0.0
                for q in range(N_COEF):
                    a[p, q] -= factor * a[k, q]


@kernel
def take_median(values: np.ndarray, n: int) -> float:
    """Median of the first ``n`` values, which it reorders (Hoare's selection)."""
    half = n // 2
    lo, hi = 0, n - 1
    while lo < hi:
        pivot = values[half]
        i, j = lo, hi
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < half:
            lo = i
        if half < i:
            hi = j
    middle: float = values[half]
    if n % 2 == 1:
        return middle
    below: float = values[0]
    for k in range(1, half):
        below = max(below, values[k])
    return 0.5 * (below + middle)
