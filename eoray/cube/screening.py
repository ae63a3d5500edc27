"""Compiled kernels of the temporal screen: each pixel is judged by its own other dates.

A cloud that the classifier missed is bluer and brighter than the pixel a few dates before and
after, its shadow darker. A roof that the classifier always calls cloud looks the same on every
date.

Sources:
    Zhu and Woodcock 2014, RSE 152 (Tmask), for screening by a pixel's own time series; Zhang,
    Guindon, Cihlar 2002, RSE 82, for blue less half of red, which haze raises and soil does not;
    Rousseeuw and Leroy 1988 for the shortest interval that holds a given part of the values, here
    two fifths: it stands on the ground even where clouds and shadows have most of the dates.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba as nb
import numpy as np

UNUSABLE, CLEAR, CLOUD, SHADOW, GROWN, OTHER, RESCUED = 0, 1, 2, 3, 4, 5, 6
"""States of a pixel on a date: not observed, clear, core of a cloud, core of a shadow, close to one
of them, else masked, rescued."""

BLUE, RED, NIR = 0, 1, 2
"""Bands in the order in which kernels take them."""


class ScreenRule(NamedTuple):
    """Numbers that the kernels follow; reflectance in stored units (x 10 000)."""

    side: int = 5
    """Clear dates taken before and as many after."""
    least: int = 4
    """Fewer neighbours than this judge nothing: with the date itself five."""
    reach_days: int = 90
    """Neighbours lie within."""
    k: float = 4.0
    """Robust standard deviations of a residual that make it stand out."""
    haze: float = 150.0
    """Least rise of blue less half of red."""
    shade: float = 0.2
    """Least fall of visible and near infrared, relative."""
    calm: float = 0.3
    """Largest robust standard deviation of a steady target, relative to its level."""
    calm_least: float = 60.0
    """The same in reflectance: water is dark, and its noise is not."""
    bright: float = 1000.0
    """Least red reflectance of a target that may be called cloud."""
    white: float = 4500.0
    """Most blue reflectance of one: above lie clouds and snow."""
    dark: float = 800.0
    """Most near infrared reflectance of one that may be called shadow, as water is."""
    rescue_k: float = 2.5
    """Standard deviations within which a date is as always."""
    rescue_share: float = 0.3
    """The same relative to the level: however restless, it is no further off."""
    rescue_dates: int = 10
    """Least dates that tell what always is."""


class Dates(NamedTuple):
    """Time axis of a strip."""

    day: np.ndarray
    """Days since 1970-01-01, ascending, int64."""
    first: int
    """First date to write."""
    stop: int
    """Date behind the last one."""


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_INNER = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@nb.njit(cache=True, **_OPTIONS)
def rescue_targets(values: np.ndarray, state: np.ndarray, rule: ScreenRule) -> None:
    """Turn cores of clouds and shadows into ``RESCUED`` where a pixel looks as it always does.

    Args:
        values: Blue, red and near infrared, dims (time, 3, y, x), int16.
        state: Dims (time, y, x), uint8; changed in place.
        rule: The thresholds.
    """
    n_time, _, height, width = values.shape
    seen = np.empty((3, n_time))
    level, spread = np.empty(3), np.empty(3)
    for row in range(height):
        for col in range(width):
            n, n_core, n_clear = 0, 0, 0
            for t in range(n_time):
                if state[t, row, col] != UNUSABLE:
                    for b in range(3):
                        seen[b, n] = values[t, b, row, col]
                    n += 1
                    n_core += state[t, row, col] == CLOUD or state[t, row, col] == SHADOW
                    n_clear += state[t, row, col] == CLEAR
            if n_core == 0 or n < rule.rescue_dates:
                continue
            calm = True
            for b in range(3):
                level[b], spread[b] = _shortest_part(seen[b], n)
                calm &= spread[b] <= max(rule.calm * level[b], rule.calm_least)
            if not calm or level[BLUE] > rule.white:
                continue
            if not _agrees_when_clear(values, state, level, spread, seen, row, col, n_clear, rule):
                continue
            for b in range(3):  # from here on the distance within which a date is as always
                most = max(rule.rescue_share * level[b], rule.rescue_k * rule.calm_least)
                spread[b] = min(rule.rescue_k * spread[b], most)
            is_bright, is_dark = level[RED] >= rule.bright, level[NIR] <= rule.dark
            for t in range(n_time):
                core = (state[t, row, col] == CLOUD and is_bright) or (
                    state[t, row, col] == SHADOW and is_dark
                )
                if core and _is_usual(values, t, row, col, level, spread):
                    state[t, row, col] = RESCUED


@nb.njit(**_INNER)
def _shortest_part(values: np.ndarray, n: int) -> tuple[float, float]:
    """Mean of the shortest interval that holds two fifths of the first n values, and a spread."""
    part = np.sort(values[:n])
    m = 2 * n // 5 + 1
    first, length = 0, part[m - 1] - part[0]
    for i in range(1, n - m + 1):
        if part[i + m - 1] - part[i] < length:
            first, length = i, part[i + m - 1] - part[i]
    # two fifths of normal values lie within 0.5244 standard deviations of their mean
    return float(part[first : first + m].mean()), length / 1.0488


@nb.njit(**_INNER)
def _agrees_when_clear(
    values: np.ndarray,
    state: np.ndarray,
    level: np.ndarray,
    spread: np.ndarray,
    scratch: np.ndarray,
    row: int,
    col: int,
    n_clear: int,
    rule: ScreenRule,
) -> bool:
    """Where skies are mostly grey, the usual look is that of clouds; clear dates tell."""
    if n_clear < 3:
        return True
    for b in range(3):
        n = 0
        for t in range(values.shape[0]):
            if state[t, row, col] == CLEAR:
                scratch[b, n] = values[t, b, row, col]
                n += 1
        middle = _median(scratch[b], n)
        if abs(middle - level[b]) > rule.rescue_k * spread[b]:
            return False
    return True


@nb.njit(**_INNER)
def _is_usual(
    values: np.ndarray,
    t: int,
    row: int,
    col: int,
    level: np.ndarray,
    reach: np.ndarray,
) -> bool:
    for b in range(3):
        if abs(values[t, b, row, col] - level[b]) > reach[b]:
            return False
    return True


@nb.njit(cache=True, **_OPTIONS)
def release_grown(state: np.ndarray, reach_cloud: np.ndarray, reach_shadow: np.ndarray) -> None:
    """Turn pixels close to a rescued one into ``RESCUED``, unless a core that stays is close too.

    Args:
        state: Dims (time, y, x), uint8; changed in place. Within the reach of its borders it
            is left as it is.
        reach_cloud: Offsets (n, 2) within which clouds make ``GROWN``, rows and columns.
        reach_shadow: The same for shadows.
    """
    n_time, height, width = state.shape
    freed = np.empty((height * width, 2), np.int64)
    for t in range(n_time):
        plane = state[t]
        n = 0
        for row in range(height):
            for col in range(width):
                if (
                    plane[row, col] == GROWN
                    and _is_near(plane, row, col, reach_cloud, RESCUED)
                    and not _is_near(plane, row, col, reach_cloud, CLOUD)
                    and not _is_near(plane, row, col, reach_shadow, SHADOW)
                ):
                    freed[n] = row, col
                    n += 1
        for i in range(n):
            plane[freed[i, 0], freed[i, 1]] = RESCUED


@nb.njit(**_INNER)
def _is_near(plane: np.ndarray, row: int, col: int, offsets: np.ndarray, wanted: int) -> bool:
    height, width = plane.shape
    for i in range(len(offsets)):
        r, c = row + offsets[i, 0], col + offsets[i, 1]
        if 0 <= r < height and 0 <= c < width and plane[r, c] == wanted:
            return True
    return False


@nb.njit(cache=True, **_OPTIONS)
def screen_dates(
    values: np.ndarray,
    state: np.ndarray,
    dates: Dates,
    rule: ScreenRule,
    out: np.ndarray,
) -> None:
    """Judge the clear and rescued dates of every pixel by their neighbours in time, twice.

    The second time neighbours that stood out are left aside, so that a run of missed clouds does
    not pass for the ground.

    Args:
        values: Blue, red and near infrared, dims (time, 3, y, x), int16.
        state: Dims (time, y, x), uint8.
        dates: Days, and which dates to write.
        rule: The thresholds.
        out: Dims (dates to write, y, x), uint8 of ``Screen`` bits, to write.
    """
    n_time, _, height, width = values.shape
    day, first, stop = dates
    at = np.empty(n_time, np.int64)
    series = np.empty((4, n_time))
    verdict, again = np.empty(n_time, np.uint8), np.empty(n_time, np.uint8)
    near, gap = np.empty((4, 2 * rule.side)), np.empty(2 * rule.side)
    for row in range(height):
        for col in range(width):
            n = 0
            for t in range(n_time):
                if state[t, row, col] == CLEAR or state[t, row, col] == RESCUED:
                    at[n] = t
                    for b in range(3):
                        series[b, n] = values[t, b, row, col]
                    series[3, n] = series[BLUE, n] - 0.5 * series[RED, n]
                    n += 1
            verdict[:n] = 0
            for i in range(n):
                again[i] = _judge(series, day, at, verdict, n, i, rule, near, gap)
            verdict[:n] = again[:n] & 3
            for i in range(n):
                if first <= at[i] < stop:
                    bits = _judge(series, day, at, verdict, n, i, rule, near, gap)
                    if state[at[i], row, col] == RESCUED:
                        bits |= 4
                    out[at[i] - first, row, col] = bits


@nb.njit(**_INNER)
def _judge(
    series: np.ndarray,
    day: np.ndarray,
    at: np.ndarray,
    verdict: np.ndarray,
    n: int,
    i: int,
    rule: ScreenRule,
    near: np.ndarray,
    gap: np.ndarray,
) -> int:
    """Bits of the i-th clear date; ``verdict`` holds those to leave aside."""
    m = 0
    for step in (-1, 1):
        taken, j = 0, i + step
        while 0 <= j < n and taken < rule.side:
            if abs(day[at[j]] - day[at[i]]) > rule.reach_days:
                break
            if verdict[j] == 0:
                for b in range(4):
                    near[b, m] = series[b, j]
                taken += 1
                m += 1
            j += step
    if m < rule.least:
        return 8
    rise, rise_sd = _residual(series[3, i], near[3], gap, m)
    blue, _ = _residual(series[BLUE, i], near[BLUE], gap, m)
    if rise > max(rule.haze, rule.k * rise_sd) and blue > rule.haze:
        return 1
    nir, nir_sd = _residual(series[NIR, i], near[NIR], gap, m)
    red, red_sd = _residual(series[RED, i], near[RED], gap, m)
    nir_level, red_level = series[NIR, i] - nir, series[RED, i] - red
    blue_level = series[BLUE, i] - blue
    dark = nir < -max(rule.shade * nir_level, 100.0) and nir < -rule.k * nir_sd
    dark &= red < -rule.shade * red_level and red < -rule.k * 0.5 * red_sd
    dark &= blue < -0.5 * rule.shade * blue_level
    return 2 if dark else 0


@nb.njit(**_INNER)
def _residual(value: float, near: np.ndarray, gap: np.ndarray, m: int) -> tuple[float, float]:
    """Distance to the median of neighbours, and their robust standard deviation."""
    middle = _median(near, m)
    for k in range(m):
        gap[k] = abs(near[k] - middle)
    return value - middle, 1.4826 * _median(gap, m)


@nb.njit(**_INNER)
def _median(values: np.ndarray, n: int) -> float:
    """Median of the first n values, by insertion: n is ten. Orders them."""
    for i in range(1, n):
        value, j = values[i], i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value
    return float(0.5 * (values[(n - 1) // 2] + values[n // 2]))


def disc(radius_m: float, ground_m: tuple[float, float]) -> np.ndarray:
    """Offsets (n, 2) of the pixels within a distance, as ``mask.grow`` reaches them; int64."""
    n = [math.floor(radius_m / size) for size in ground_m]
    rows, cols = np.mgrid[-n[0] : n[0] + 1, -n[1] : n[1] + 1]
    inside = np.hypot(rows * ground_m[0], cols * ground_m[1]) <= radius_m
    return np.stack([rows[inside], cols[inside]], axis=1).astype(np.int64)
