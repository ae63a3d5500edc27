"""Geometric median of spectra along time, compiled.

Weiszfeld's iteration alone crawls where the answer is one of the observations, and stops tens of
units short of it. Here an observation is tested by its own condition, and between observations
Newton's steps need four or five iterations.

Sources:
    Weiszfeld 1937, Tohoku Math. J. 43; Vardi and Zhang 2000, PNAS 97(4), for the condition at an
    observation; Roberts, Mueller, McIntyre 2017, IEEE TGRS 55(11), for its use on scenes.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np

MAX_STEPS = 60
"""Of one pixel; five are usual."""

TOLERANCE = 0.05
"""Stored units; the answer is rounded to whole ones."""

NEAR = 0.5
"""Stored units from an observation within which its weight stops every other step."""

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

_INNER = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Of functions that only the compiled one calls: wrappers for Python take half the time."""


@nb.njit(cache=True, **_OPTIONS)
def reduce_geomedian(values: np.ndarray, clear: np.ndarray, fill: int) -> np.ndarray:
    """Reduce every pixel's clear spectra to their geometric median.

    Args:
        values: Dims (time, band, y, x), int16.
        clear: Dims (time, y, x), bool.
        fill: Given where nothing is clear.

    Returns:
        Dims (band, y, x), int16, to the nearest unit; of two spectra the middle.
    """
    n_time, n_band, height, width = values.shape
    out = np.empty((n_band, height, width), np.int16)
    points = np.empty((n_time, n_band))
    gaps = np.empty((n_time, n_band))
    x, trial, pull = np.empty(n_band), np.empty(n_band), np.empty(n_band)
    hessian = np.empty((n_band, n_band))
    for row in range(height):
        for col in range(width):
            n = 0
            for t in range(n_time):
                if clear[t, row, col]:
                    for b in range(n_band):
                        points[n, b] = values[t, b, row, col]
                    n += 1
            if n == 0:
                for b in range(n_band):
                    out[b, row, col] = fill
                continue
            for b in range(n_band):
                x[b] = 0.0
                for i in range(n):
                    x[b] += points[i, b]
                x[b] /= n
            if n > 2:
                _minimise(points, n, x, trial, pull, gaps, hessian)
            for b in range(n_band):
                out[b, row, col] = math.floor(x[b] + 0.5)
    return out


@nb.njit(**_INNER)
def _minimise(
    points: np.ndarray,
    n: int,
    x: np.ndarray,
    trial: np.ndarray,
    pull: np.ndarray,
    gaps: np.ndarray,
    hessian: np.ndarray,
) -> None:
    """Move x to where the sum of distances to the points is least."""
    n_band = len(x)
    tested = -1
    for _ in range(MAX_STEPS):
        total, nearest, least = _look_around(points, n, x, pull, gaps, hessian)
        if nearest != tested or least < NEAR:
            tested = nearest
            share = _pull_away(points, n, nearest, trial)
            if share >= 1.0:
                for b in range(n_band):
                    x[b] = points[nearest, b]
                return
            if least < NEAR:  # an observation holds all steps short: leave from it
                for b in range(n_band):
                    x[b] = share * points[nearest, b] + (1.0 - share) * trial[b]
                continue
        moved = False
        if _solve(hessian, pull, trial):
            for b in range(n_band):
                trial[b] += x[b]
            moved = _sum_distances(points, n, trial) <= total
        if not moved:
            _weiszfeld(points, n, x, trial)
        step = 0.0
        for b in range(n_band):
            step = max(step, abs(trial[b] - x[b]))
            x[b] = trial[b]
        if step < TOLERANCE:
            return


@nb.njit(**_INNER)
def _look_around(
    points: np.ndarray,
    n: int,
    x: np.ndarray,
    pull: np.ndarray,
    gaps: np.ndarray,
    hessian: np.ndarray,
) -> tuple[float, int, float]:
    """Sum of distances, nearest point and how near; fills downhill direction and Hessian."""
    n_band = len(x)
    total, least, nearest = 0.0, np.inf, 0
    weight = 0.0
    for b in range(n_band):
        pull[b] = 0.0
        for c in range(b + 1):
            hessian[b, c] = 0.0
    for i in range(n):
        square = 0.0
        for b in range(n_band):
            gaps[i, b] = points[i, b] - x[b]
            square += gaps[i, b] * gaps[i, b]
        distance = math.sqrt(square)
        total += distance
        if distance < least:
            least, nearest = distance, i
        inverse = 1.0 / max(distance, 1e-6)
        weight += inverse
        for b in range(n_band):
            unit = gaps[i, b] * inverse
            gaps[i, b] = unit
            pull[b] += unit
        for b in range(n_band):
            scaled = gaps[i, b] * inverse
            for c in range(b + 1):
                hessian[b, c] -= scaled * gaps[i, c]
    for b in range(n_band):
        hessian[b, b] += weight * (1.0 + 1e-9)
    return total, nearest, least


@nb.njit(**_INNER)
def _pull_away(points: np.ndarray, n: int, k: int, out: np.ndarray) -> float:
    """Share of the next step that stays at a point; 1 or more where the point is the median.

    The others pull with the length of the sum of their unit vectors; a point holds with its own
    number. Fills ``out`` with the weighted mean of the others (Vardi and Zhang).
    """
    own, weight = 0.0, 0.0
    for b in range(len(out)):
        out[b] = 0.0
    for i in range(n):
        square = 0.0
        for b in range(len(out)):
            gap = points[i, b] - points[k, b]
            square += gap * gap
        if square == 0.0:
            own += 1.0
            continue
        inverse = 1.0 / math.sqrt(square)
        weight += inverse
        for b in range(len(out)):
            out[b] += points[i, b] * inverse
    if weight == 0.0:
        return 1.0
    square = 0.0
    for b in range(len(out)):
        pull = out[b] - weight * points[k, b]
        square += pull * pull
        out[b] /= weight
    return own / math.sqrt(max(square, 1e-12))


@nb.njit(**_INNER)
def _sum_distances(points: np.ndarray, n: int, x: np.ndarray) -> float:
    total = 0.0
    for i in range(n):
        square = 0.0
        for b in range(len(x)):
            gap = points[i, b] - x[b]
            square += gap * gap
        total += math.sqrt(square)
    return total


@nb.njit(**_INNER)
def _solve(matrix: np.ndarray, right: np.ndarray, out: np.ndarray) -> bool:
    """Solve a symmetric system by Cholesky in its lower half; False where it is singular."""
    n = len(right)
    for i in range(n):
        for j in range(i + 1):
            s = matrix[i, j]
            for k in range(j):
                s -= matrix[i, k] * matrix[j, k]
            if i == j:
                if s <= 0.0:
                    return False
                matrix[i, i] = math.sqrt(s)
            else:
                matrix[i, j] = s / matrix[j, j]
        s = right[i]
        for k in range(i):
            s -= matrix[i, k] * out[k]
        out[i] = s / matrix[i, i]
    for i in range(n - 1, -1, -1):
        s = out[i]
        for k in range(i + 1, n):
            s -= matrix[k, i] * out[k]
        out[i] = s / matrix[i, i]
    return True


@nb.njit(**_INNER)
def _weiszfeld(points: np.ndarray, n: int, x: np.ndarray, out: np.ndarray) -> None:
    """One step that never rises: the mean of the points weighted by 1 / distance."""
    weight = 0.0
    for b in range(len(out)):
        out[b] = 0.0
    for i in range(n):
        square = 0.0
        for b in range(len(x)):
            gap = points[i, b] - x[b]
            square += gap * gap
        inverse = 1.0 / max(math.sqrt(square), 1e-6)
        weight += inverse
        for b in range(len(x)):
            out[b] += points[i, b] * inverse
    for b in range(len(x)):
        out[b] /= weight
