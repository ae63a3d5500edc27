"""Compiled kernels of the harmonic change engine: one pixel's observations in, its breaks out.

The model of a pixel is one ridge-regularised harmonic curve per band, kept by recursive least
squares. All functions here run without Python: they take plain arrays, allocate nothing per pixel
and use strict IEEE arithmetic, so that a pixel's result depends on its own values alone, whatever
the chunking or the number of threads.

Everything that numba compiles stands in this one file, because its on-disk cache looks only at
the file of the function that is called. Rows of eight travel as tuples: the compiler then knows
that they lie in registers and uses vector units without being allowed to reorder a sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from eoray.change.flags import ChangeFlag

# Plain integers: numba freezes them into the compiled code. They are part of the stored format.
INSUFFICIENT = int(ChangeFlag.INSUFFICIENT_RECORD)
UNSTABLE = int(ChangeFlag.NEVER_STABLE)
GAP = int(ChangeFlag.LONG_GAP)
WATER = int(ChangeFlag.WATER)
RECORD_END = int(ChangeFlag.RECORD_END)
REJECTED = int(ChangeFlag.REJECTED)
MAX_BREAKS = int(ChangeFlag.MAX_BREAKS)
PULSE = int(ChangeFlag.TRANSIENT)

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

_INNER = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
kernel = nb.njit(**_INNER)
"""Compiles a function that only other kernels call: wrappers for Python cost half the time."""
inner_loop = nb.njit(**_INNER, forceinline=True)
"""As ``kernel``, for what runs once per observation: calls instead of inlining halve the speed."""

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
    spike: float
    floor: float
    min_pairs: int
    pair_days: int
    green: int
    swir: int


class Work(NamedTuple):
    """Scratch of one call; the leading dim is that pixel's clear observations in order of time."""

    z: np.ndarray
    x: np.ndarray
    resid: np.ndarray
    date: np.ndarray
    beta: np.ndarray
    v: np.ndarray
    spread: np.ndarray
    season_n: np.ndarray
    pick: np.ndarray
    sums: np.ndarray
    whole: np.ndarray
    after: np.ndarray


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


@nb.njit(nogil=True, cache=True, error_model="numpy")
def detect_pixels(
    reflectance: np.ndarray,
    clear: np.ndarray,
    begin: int,
    end: int,
    date: np.ndarray,
    design: np.ndarray,
    n_orbits: int,
    fill: int,
    rule: Rule,
    out: Output,
) -> None:
    """Run the engine over the pixels begin ... end - 1.

    Args:
        reflectance: int16 (time, band, pixel), reflectance x 10000.
        clear: bool (time, pixel), True where the observation may be used.
        begin: First pixel.
        end: Pixel after the last.
        date: int64 (time, 3): days since 1970-01-01, bin of the year 0-7, orbit code.
        design: float64 (time, 8), the harmonic basis of each date.
        n_orbits: Number of orbit codes, which count from 0.
        fill: Stored value that means no data; an observation with it in any band is left out.
        rule: The thresholds.
        out: Arrays to write, pixel first.
    """
    n_time, n_band, _ = reflectance.shape
    raw = np.empty((GROUP, n_time, n_band), np.int16)
    gain = np.empty((n_orbits, n_band))
    w = Work(
        z=np.empty((n_time, n_band)),
        x=np.empty((n_time, N_COEF)),
        resid=np.empty((n_time, n_band)),
        date=np.empty((n_time, 4), np.int64),
        beta=np.empty((n_band, N_COEF)),
        v=np.empty((N_COEF, N_COEF)),
        spread=np.empty((SEASON + N_SEASON, n_band)),
        season_n=np.empty(N_SEASON),
        pick=np.empty(n_time),
        sums=np.empty((1, N_COEF)),
        whole=np.empty((N_COEF, N_COEF)),
        after=np.empty((n_time, n_band)),
    )
    for first in range(begin, end, GROUP):
        size = min(GROUP, end - first)
        for t in range(n_time):
            for b in range(n_band):
                for i in range(size):
                    raw[i, t, b] = reflectance[t, b, first + i]
        for i in range(size):
            n = _compact(w, raw, i, clear, first + i, date, design, fill)
            if n >= rule.min_obs and n_orbits > 1 and rule.min_pairs > 0:
                _balance_orbits(w.z, w.date, w.pick, gain, n, rule.min_pairs, rule.pair_days)
            _detect(w, n, rule, out, first + i)


@kernel
def _compact(
    w: Work,
    raw: np.ndarray,
    i: int,
    clear: np.ndarray,
    pixel: int,
    date: np.ndarray,
    design: np.ndarray,
    fill: int,
) -> int:
    """Copy the pixel's usable observations to the front of the scratch and return their number."""
    n = 0
    for t in range(raw.shape[1]):
        if not clear[t, pixel]:
            continue
        whole = True
        for b in range(raw.shape[2]):
            if raw[i, t, b] == fill:
                whole = False
            w.z[n, b] = raw[i, t, b] * 1e-4
        if whole:
            for c in range(3):
                w.date[n, c] = date[t, c]
            for p in range(N_COEF):
                w.x[n, p] = design[t, p]
            n += 1
    for k in range(n):
        w.date[k, USED] = 0
    return n


@kernel
def _detect(w: Work, n_clear: int, rule: Rule, out: Output, i: int) -> None:
    """Find the breaks of the pixel in ``w`` and write them at position ``i`` of ``out``."""
    out.n_obs[i] = n_clear
    if n_clear < rule.min_obs or w.date[n_clear - 1, DAY] - w.date[0, DAY] < rule.record_days:
        out.qa_flags[i] = INSUFFICIENT
        return
    # Typed zeros: a literal would compile everything below a second time.
    start = np.int64(0)
    seg = np.int64(0)
    _fit_all(w, start, n_clear, rule)
    _noise_floor(w.resid, w.spread, w.pick, n_clear, rule.floor)
    n = _screen(w, n_clear, rule.spike)
    years = (w.date[n - 1, DAY] - w.date[0, DAY]) / YEAR
    length = rule.run_length[min(int(n / years), rule.run_length.shape[0] - 1)]
    flags = _describe(w.z, n, n_clear, rule)
    while seg < out.date_lo.shape[1]:
        _fit_all(w, start, n, rule)
        _keep_whole(w, start, n)
        limit = rule.step_limit * np.sqrt(max(n - start, 40) / 40.0)
        start, stop = _initialise(w, n, start, rule)
        if stop < 0 or stop + length >= n:
            if seg == 0:
                flags |= UNSTABLE if stop < 0 else INSUFFICIENT
            break
        if seg == 0:
            out.monitored_from[i] = w.date[stop + 1, DAY]
        out.monitored_to[i] = w.date[n - length, DAY]
        first, seen = _monitor(w, n, start, stop, length, limit, rule)
        flags |= seen
        if first < 0:
            break
        _write_break(w, first, length, out, i, seg)
        if n - first < 2 * length:
            flags |= RECORD_END
        start = first
        seg += 1
    if seg == out.date_lo.shape[1]:
        flags |= MAX_BREAKS
    out.n_breaks[i] = seg
    out.qa_flags[i] = flags
    used = 0
    for k in range(n):
        used += w.date[k, USED]
    out.n_obs[i] = used


@kernel
def _balance_orbits(
    z: np.ndarray,
    date: np.ndarray,
    pick: np.ndarray,
    gain: np.ndarray,
    n: int,
    min_pairs: int,
    pair_days: int,
) -> None:
    """Take the pixel's own directional gain of each relative orbit out of its values.

    Neighbours in time seen from different orbits differ by the direction of view and by noise; the
    median relative difference per band is the gain against the orbit seen most often. It is shrunk
    by its own uncertainty (James-Stein), so that a gain that cannot be told from noise is left out.
    """
    n_orbits, n_band = gain.shape
    reference, most = 0, -1
    for o in range(n_orbits):
        count = 0
        for k in range(n):
            if date[k, ORBIT] == o:
                count += 1
        if count > most:
            reference, most = o, count
        for b in range(n_band):
            gain[o, b] = 0.0
    for _ in range(1 if n_orbits == 2 else 3):
        for o in range(n_orbits):
            for b in range(n_band):
                if o != reference:
                    gain[o, b] = _orbit_gain(z, date, pick, gain, n, o, b, min_pairs, pair_days)
    for k in range(n):
        for b in range(n_band):
            z[k, b] /= 1.0 + gain[date[k, ORBIT], b]


@kernel
def _orbit_gain(
    z: np.ndarray,
    date: np.ndarray,
    pick: np.ndarray,
    gain: np.ndarray,
    n: int,
    o: int,
    b: int,
    min_pairs: int,
    pair_days: int,
) -> float:
    """Gain of orbit ``o`` in band ``b``, given the present gains of the others; 0 if not sure."""
    m = 0
    for k in range(n - 1):
        p, q = date[k, ORBIT], date[k + 1, ORBIT]
        if (p == o) == (q == o) or date[k + 1, DAY] - date[k, DAY] > pair_days:
            continue
        # Below .02 a relative difference is noise over noise.
        d = (z[k, b] - z[k + 1, b]) / max(0.5 * (z[k, b] + z[k + 1, b]), 0.02)
        pick[m] = d + gain[q, b] if p == o else gain[p, b] - d
        m += 1
    if m < min_pairs:
        return 0.0
    value = _median(pick, m)
    spread = 0.0
    for k in range(m):
        spread += abs(pick[k] - value)
    # sd = 1.2533 mean |d|; standard error of a median = 1.2533 sd / sqrt(m).
    error = 1.5708 * spread / m / np.sqrt(m)
    if error >= abs(value):
        return 0.0
    return min(max(value * (1.0 - (error / value) ** 2), -0.3), 0.3)


@kernel
def _noise_floor(
    resid: np.ndarray, spread: np.ndarray, pick: np.ndarray, n: int, least: float
) -> None:
    """Set the smallest spread to believe in, per band: robust sd of residual differences."""
    for b in range(resid.shape[1]):
        for k in range(n - 1):
            pick[k] = abs(resid[k + 1, b] - resid[k, b])
        # 1.4826 (median absolute deviation to sd) / sqrt(2) (difference of two values).
        floor = max(least, 1.0483 * _median(pick, n - 1))
        spread[FLOOR, b] = floor * floor


@kernel
def _median(values: np.ndarray, n: int) -> float:
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
    if n % 2 == 1:
        return values[half]
    below = values[0]
    for k in range(1, half):
        below = max(below, values[k])
    return 0.5 * (below + values[half])


@kernel
def _screen(w: Work, n: int, spike: float) -> int:
    """Drop spikes: residuals far from the median of themselves and both neighbours in two bands."""
    n_band = w.z.shape[1]
    for k in range(1, n - 1):
        far = 0
        for b in range(n_band):
            before, here, after = w.resid[k - 1, b], w.resid[k, b], w.resid[k + 1, b]
            away = here - max(min(before, here), min(max(before, here), after))
            if away * away > spike * spike * w.spread[FLOOR, b]:
                far += 1
        if far >= min(2, n_band):
            w.date[k, USED] = -1
    m = 0
    for k in range(n):
        if w.date[k, USED] < 0:
            continue
        for b in range(n_band):
            w.z[m, b] = w.z[k, b]
        for c in range(4):
            w.date[m, c] = w.date[k, c]
        for p in range(N_COEF):
            w.x[m, p] = w.x[k, p]
        m += 1
    return m


@kernel
def _describe(z: np.ndarray, n: int, n_clear: int, rule: Rule) -> int:
    """Flags of the record as a whole: how much was rejected, and whether it is mostly water."""
    flags = 0
    if (n_clear - n) * 10 > n_clear:
        flags |= REJECTED
    if rule.green >= 0 and rule.swir >= 0:
        wet = 0
        for k in range(n):
            if z[k, rule.green] > z[k, rule.swir]:
                wet += 1
        if 2 * wet > n:
            flags |= WATER
    return flags


@kernel
def _initialise(w: Work, n: int, start: int, rule: Rule) -> tuple[int, int]:
    """Find the first stable window of enough observations and days; (start, -1) when none is."""
    while start + rule.min_obs <= n:
        stop = start + rule.min_obs - 1
        while stop < n and w.date[stop, DAY] - w.date[start, DAY] < rule.init_days:
            stop += 1
        if stop >= n:
            return start, -1
        for k in range(start, stop + 1):
            w.date[k, USED] = 1
        _fit(w, start, stop, rule.ridge[_level(stop - start + 1, rule.level_obs)])
        if _is_stable(w, start, stop, rule):
            return start, stop
        for k in range(start, stop + 1):
            w.date[k, USED] = 0
        start += 1
    return start, -1


@inner_loop
def _level(count: int, level_obs: np.ndarray) -> int:
    """Number of harmonics less one that ``count`` observations carry."""
    level = 0
    for needed in level_obs:
        if count >= needed:
            level += 1
    return level


@kernel
def _fit_all(w: Work, start: int, n: int, rule: Rule) -> None:
    """Fit one curve to everything from ``start`` on, whatever happens in it."""
    for k in range(start, n):
        w.date[k, USED] = 1
    _fit(w, start, n - 1, rule.ridge[_level(n - start, rule.level_obs)])
    for k in range(start, n):
        w.date[k, USED] = 0


@kernel
def _keep_whole(w: Work, start: int, n: int) -> None:
    """Keep what ``_step_score`` needs of the fit to the whole record: V, spread, residual sums."""
    for p in range(N_COEF):
        for q in range(N_COEF):
            w.whole[p, q] = w.v[p, q]
    freedom = _freedom(n - start, 2) - 1.0
    for b in range(w.z.shape[1]):
        w.spread[WHOLE, b] = w.spread[SSE, b] / freedom
        total = 0.0
        for back in range(n - start):
            total += w.resid[n - 1 - back, b]
            w.after[n - 1 - back, b] = total


@kernel
def _step_score(w: Work, start: int, first: int, n: int) -> float:
    """Score one date as that from which the whole record lies on another level.

    The score test of a step added to the curve: the sum of the residuals from that date on, squared
    over its variance, with the variance of the residuals as the step would leave it, summed over
    bands. It looks at the whole record, where a run looks at a few observations.

    Source:
        The Chow test as a check on breaks: Bullock, Woodcock and Holden 2020, Remote Sensing of
        Environment 238, 111165.
    """
    zero = np.int64(0)
    _clear(w.sums, zero)
    for k in range(first, n):
        _add_row(w.sums, zero, _row(w.x, k), 1.0)
    row = _row(w.sums, zero)
    weight = float(n - first)
    for p in range(N_COEF):
        weight -= w.sums[0, p] * _dot(row, w.whole, p)
    freedom = _freedom(n - start, 2) - 1.0
    score = 0.0
    for b in range(w.z.shape[1]):
        gain = w.after[first, b] * w.after[first, b] / max(weight, 0.5)
        score += gain / max(w.spread[FLOOR, b], w.spread[WHOLE, b] - gain / freedom)
    return score


@inner_loop
def _freedom(count: int, level: int) -> float:
    """Degrees of freedom of the residuals, at least 4."""
    return float(max(count - 4 - 2 * level, 4))


@kernel
def _fit(w: Work, start: int, stop: int, ridge: np.ndarray) -> None:
    """Fit all bands to the used observations of start ... stop and restart the residual sums."""
    n_band = w.z.shape[1]
    _clear(w.v, np.int64(0))
    _clear(w.beta, np.int64(0))
    for k in range(start, stop + 1):
        if w.date[k, USED] != 1:
            continue
        x = _row(w.x, k)
        for p in range(N_COEF):
            _add_row(w.v, p, x, w.x[k, p])
        for b in range(n_band):
            _add_row(w.beta, b, x, w.z[k, b])
    for p in range(N_COEF):
        w.v[p, p] += ridge[p]
    _invert(w.v)
    for b in range(n_band):
        moment = _row(w.beta, b)
        for p in range(N_COEF):
            w.beta[b, p] = _dot(moment, w.v, p)
    _clear(w.spread, np.int64(SEASON))
    for b in range(n_band):
        w.spread[SSE, b] = 0.0
    for s in range(N_SEASON):
        w.season_n[s] = 0.0
    for k in range(start, stop + 1):
        if w.date[k, USED] == 1:
            _residuals(w.z, w.x, w.beta, w.resid, k)
            _add_residuals(w.resid, w.spread, w.season_n, k, w.date[k, BIN], 1.0)


@kernel
def _clear(a: np.ndarray, first: int) -> None:
    for k in range(first, a.shape[0]):
        for q in range(a.shape[1]):
            a[k, q] = 0.0


@inner_loop
def _row(a: np.ndarray, k: int) -> Row:
    return (a[k, 0], a[k, 1], a[k, 2], a[k, 3], a[k, 4], a[k, 5], a[k, 6], a[k, 7])


@inner_loop
def _add_row(a: np.ndarray, k: int, row: Row, factor: float) -> None:
    a[k, 0] += row[0] * factor
    a[k, 1] += row[1] * factor
    a[k, 2] += row[2] * factor
    a[k, 3] += row[3] * factor
    a[k, 4] += row[4] * factor
    a[k, 5] += row[5] * factor
    a[k, 6] += row[6] * factor
    a[k, 7] += row[7] * factor


@inner_loop
def _dot(row: Row, a: np.ndarray, k: int) -> float:
    return ((row[0] * a[k, 0] + row[4] * a[k, 4]) + (row[2] * a[k, 2] + row[6] * a[k, 6])) + (
        (row[1] * a[k, 1] + row[5] * a[k, 5]) + (row[3] * a[k, 3] + row[7] * a[k, 7])
    )


@kernel
def _invert(a: np.ndarray) -> None:
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


@inner_loop
def _residuals(z: np.ndarray, x: np.ndarray, beta: np.ndarray, resid: np.ndarray, k: int) -> None:
    row = _row(x, k)
    for b in range(z.shape[1]):
        resid[k, b] = z[k, b] - _dot(row, beta, b)


@inner_loop
def _add_residuals(
    resid: np.ndarray, spread: np.ndarray, season_n: np.ndarray, k: int, s: int, weight: float
) -> None:
    for b in range(resid.shape[1]):
        square = resid[k, b] * resid[k, b] * weight
        spread[SSE, b] += square
        spread[SEASON + s, b] += square
    season_n[s] += 1.0


@kernel
def _is_stable(w: Work, start: int, stop: int, rule: Rule) -> bool:
    """Test the window's slope and its first and last residual against its own spread (COLD)."""
    count = stop - start + 1
    freedom = 1.0 / _freedom(count, _level(count, rule.level_obs))
    rise = w.x[stop, 1] - w.x[start, 1]
    test = 0.0
    for b in range(w.z.shape[1]):
        ends = abs(w.resid[start, b]) + abs(w.resid[stop, b])
        value = abs(w.beta[b, 1] * rise) + ends
        test += value * value / (9.0 * max(w.spread[FLOOR, b], w.spread[SSE, b] * freedom))
    return test <= rule.stable_limit


@kernel
def _monitor(
    w: Work, n: int, start: int, stop: int, length: int, step_limit: float, rule: Rule
) -> tuple[int, int]:
    """Go through the observations after ``stop``; return (first of the break or -1, flags).

    An observation that fits updates the model. One that does not begins or lengthens a run; a run
    long enough in observations and days, of one direction, that does not return to the model, is
    a break.
    """
    count = stop - start + 1
    level = _level(count, rule.level_obs)
    flags = 0
    first = -1
    last = stop
    for k in range(stop + 1, n):
        _residuals(w.z, w.x, w.beta, w.resid, k)
        _expect(w.spread, w.season_n, w.date[k, BIN], _freedom(count, level))
        if _distance(w.resid, w.spread, k) <= rule.limit:
            if w.date[k, DAY] - w.date[last, DAY] > rule.gap_days:
                flags |= GAP
            first = -1
            last = k
            count += 1
            w.date[k, USED] = 1
            if _level(count, rule.level_obs) > level:
                level += 1
                _fit(w, start, k, rule.ridge[level])
            else:
                _update(w, k)
            continue
        first = k if first < 0 else first
        if k - first + 1 < length or w.date[k, DAY] - w.date[first, DAY] < rule.run_days:
            continue
        _run_mean(w.resid, w.spread, first, k)
        if not _has_one_direction(w.resid, w.spread, first, k, rule.cos_min):
            first += 1
        elif _step_score(w, start, first, n) < step_limit or _returns(w, n, k, length, rule):
            flags |= PULSE
            first = -1
        else:
            return first, flags
    return -1, flags


@inner_loop
def _expect(spread: np.ndarray, season_n: np.ndarray, s: int, freedom: float) -> None:
    """Set the variance to expect at this time of the year: half overall, half of the season."""
    before, after = (s + N_SEASON - 1) % N_SEASON, (s + 1) % N_SEASON
    near = season_n[s] + season_n[before] + season_n[after]
    whole = 1.0 / freedom
    local = 0.0
    if near > 8:
        whole *= 0.5
        local = 0.5 / (near - 2)
    for b in range(spread.shape[1]):
        season = spread[SEASON + s, b] + spread[SEASON + before, b] + spread[SEASON + after, b]
        spread[NOW, b] = max(spread[FLOOR, b], whole * spread[SSE, b] + local * season)


@inner_loop
def _distance(resid: np.ndarray, spread: np.ndarray, k: int) -> float:
    """Sum over bands of the squared residual over its expected variance."""
    total = 0.0
    for b in range(resid.shape[1]):
        total += resid[k, b] * resid[k, b] / spread[NOW, b]
    return total


@kernel
def _run_mean(resid: np.ndarray, spread: np.ndarray, first: int, last: int) -> None:
    for b in range(resid.shape[1]):
        total = 0.0
        for k in range(first, last + 1):
            total += resid[k, b]
        spread[MEAN, b] = total / (last - first + 1)


@kernel
def _has_one_direction(
    resid: np.ndarray, spread: np.ndarray, first: int, last: int, cos_min: float
) -> bool:
    """Whether the standardised residuals of the run point, on average, along their mean."""
    total = 0.0
    for k in range(first, last + 1):
        along, here, mean = 0.0, 0.0, 0.0
        for b in range(resid.shape[1]):
            weight = 1.0 / spread[NOW, b]
            along += resid[k, b] * spread[MEAN, b] * weight
            here += resid[k, b] * resid[k, b] * weight
            mean += spread[MEAN, b] * spread[MEAN, b] * weight
        total += along / (np.sqrt(here * mean) + 1e-12)
    return total > cos_min * (last - first + 1)


@kernel
def _returns(w: Work, n: int, last: int, length: int, rule: Rule) -> bool:
    """Whether most of the following observations lie nearer to the model than to the run.

    Drought, flood and harvest leave the curve and come back; land that changed does not. With fewer
    than ``length`` observations to judge by, the run counts as change.
    """
    scale = 0.0
    for b in range(w.z.shape[1]):
        scale += w.spread[MEAN, b] * w.spread[MEAN, b] / w.spread[NOW, b]
    seen, back = 0, 0
    for k in range(last + 1, n):
        if w.date[k, DAY] - w.date[last, DAY] > rule.pulse_days:
            break
        _residuals(w.z, w.x, w.beta, w.resid, k)
        along = 0.0
        for b in range(w.z.shape[1]):
            along += w.resid[k, b] * w.spread[MEAN, b] / w.spread[NOW, b]
        seen += 1
        if along < rule.pulse_share * scale:
            back += 1
    return seen >= length and 2 * back > seen


@inner_loop
def _update(w: Work, k: int) -> None:
    """Add observation ``k`` to the model (recursive least squares, gain shared by all bands)."""
    x = _row(w.x, k)
    p = np.int64(0)
    g = (
        _dot(x, w.v, p),
        _dot(x, w.v, p + 1),
        _dot(x, w.v, p + 2),
        _dot(x, w.v, p + 3),
        _dot(x, w.v, p + 4),
        _dot(x, w.v, p + 5),
        _dot(x, w.v, p + 6),
        _dot(x, w.v, p + 7),
    )
    share = 1.0 / (1.0 + _dot(g, w.x, k))
    # Product of the errors before and after the update: the exact growth of the squared sum.
    _add_residuals(w.resid, w.spread, w.season_n, k, w.date[k, BIN], share)
    for b in range(w.z.shape[1]):
        _add_row(w.beta, b, g, w.resid[k, b] * share)
    for q in range(N_COEF):
        _add_row(w.v, q, g, -g[q] * share)


@kernel
def _write_break(w: Work, first: int, length: int, out: Output, i: int, seg: int) -> None:
    before = first - 1
    while before > 0 and w.date[before, USED] != 1:
        before -= 1
    out.date_lo[i, seg] = w.date[before, DAY]
    out.date_hi[i, seg] = w.date[first, DAY]
    for b in range(w.z.shape[1]):
        for k in range(length):
            w.pick[k] = w.resid[first + k, b]
        value = np.rint(_median(w.pick, length) * 1e4)
        out.magnitude[i, seg, b] = min(max(value, -32767.0), 32767.0)
