"""Compiled search for breaks: one pixel's observations in, its breaks out.

A pixel's curve is learnt on a first stable window and updated by every observation that fits. What
does not fit, observation after observation, is looked at once more against the whole record before
it is called a break.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np

from eoray.change.flags import ChangeFlag
from eoray.change.kernel import (
    BIN,
    DAY,
    FLOOR,
    GROUP,
    MEAN,
    N_COEF,
    N_SEASON,
    NOW,
    SEASON,
    SSE,
    USED,
    YEAR,
    Output,
    Rule,
    Work,
    kernel,
    take_median,
)
from eoray.change.model import (
    distance_of,
    fit,
    fit_whole,
    freedom_of,
    is_new_state,
    keep_whole,
    level_of,
    score_step,
    set_expected,
    set_residuals,
    update,
)
from eoray.change.observe import (
    balance_orbits,
    describe_record,
    drop_spikes,
    gather,
    set_noise_floor,
)

# Plain integers: numba freezes them into the compiled code. They are part of the stored format.
INSUFFICIENT = int(ChangeFlag.INSUFFICIENT_RECORD)
UNSTABLE = int(ChangeFlag.NEVER_STABLE)
GAP = int(ChangeFlag.LONG_GAP)
RECORD_END = int(ChangeFlag.RECORD_END)
MAX_BREAKS = int(ChangeFlag.MAX_BREAKS)
PULSE = int(ChangeFlag.TRANSIENT)


def _source_stamp() -> str:
    """Digest of the kernels in other files: numba's cache looks at the caller's file alone."""
    digest = hashlib.sha256()
    for name in ("flags.py", "kernel.py", "model.py", "observe.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _compile_entry(stamp: str) -> Any:
    """Make the compiled entry point; what it closes over is part of its key in the cache."""

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
        if not stamp:
            return
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
            state=np.empty((n_band + 2, n_band)),
        )
        for first in range(begin, end, GROUP):
            size = min(GROUP, end - first)
            for t in range(n_time):
                for b in range(n_band):
                    for i in range(size):
                        raw[i, t, b] = reflectance[t, b, first + i]
            for i in range(size):
                n = gather(w, raw, i, clear, first + i, date, design, fill)
                if n >= rule.min_obs and n_orbits > 1 and rule.min_pairs > 0:
                    balance_orbits(w.z, w.date, w.pick, gain, n, rule.min_pairs, rule.pair_days)
                _detect(w, n, rule, out, first + i)

    return detect_pixels


@kernel
def _detect(w: Work, n_clear: int, rule: Rule, out: Output, i: int) -> None:
    """Find the breaks of the pixel in ``w`` and write them at position ``i`` of ``out``."""
    out.n_obs[i] = n_clear
    if n_clear < rule.min_obs or w.date[n_clear - 1, DAY] - w.date[0, DAY] < rule.record_days:
        out.qa_flags[i] = INSUFFICIENT
        return
    # Typed zeros: a literal would compile everything below a second time.
    start = int(np.int64(0))
    seg = int(np.int64(0))
    fit_whole(w, start, n_clear, rule)
    set_noise_floor(w.resid, w.spread, w.pick, n_clear, rule.floor)
    n = drop_spikes(w, n_clear, rule.spike)
    years = (w.date[n - 1, DAY] - w.date[0, DAY]) / YEAR
    length = rule.run_length[min(int(n / years), rule.run_length.shape[0] - 1)]
    flags = describe_record(w.z, n, n_clear, rule)
    last = n - length
    while last > 0 and w.date[n - 1, DAY] - w.date[last, DAY] < rule.run_days:
        last -= 1
    while seg < out.date_lo.shape[1]:
        start, stop = _initialise(w, n, start, rule)
        if stop < 0 or stop >= last:
            if seg == 0:
                flags |= UNSTABLE if stop < 0 else INSUFFICIENT
            break
        fit_whole(w, start, n, rule)
        keep_whole(w, start, n)
        _learn(w, start, stop, rule)
        if seg == 0:
            out.monitored_from[i] = w.date[stop + 1, DAY]
        out.monitored_to[i] = w.date[last, DAY]
        first, seen = _monitor(w, n, start, stop, length, rule)
        flags |= seen
        if first < 0:
            break
        _write_break(w, first, length, out, i, seg)
        out.monitored_to[i] = w.date[first, DAY]
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
def _initialise(w: Work, n: int, start: int, rule: Rule) -> tuple[int, int]:
    """Find the first stable window of enough observations and days; (start, -1) when none is."""
    while start + rule.min_obs <= n:
        stop = start + rule.min_obs - 1
        while stop < n and w.date[stop, DAY] - w.date[start, DAY] < rule.init_days:
            stop += 1
        if stop >= n:
            return start, -1
        _learn(w, start, stop, rule)
        if _is_stable(w, start, stop, rule):
            return start, stop
        for k in range(start, stop + 1):
            w.date[k, USED] = 0
        start += 1
    return start, -1


@kernel
def _learn(w: Work, start: int, stop: int, rule: Rule) -> None:
    """Fit the curve to the first window."""
    for k in range(start, stop + 1):
        w.date[k, USED] = 1
    fit(w, start, stop, rule.ridge[level_of(stop - start + 1, rule.level_obs)])


@kernel
def _is_stable(w: Work, start: int, stop: int, rule: Rule) -> bool:
    """Test the window's slope and its first and last residual against its own spread (COLD)."""
    count = stop - start + 1
    freedom = 1.0 / freedom_of(count, level_of(count, rule.level_obs))
    rise = w.x[stop, 1] - w.x[start, 1]
    test = 0.0
    for b in range(w.z.shape[1]):
        ends = abs(w.resid[start, b]) + abs(w.resid[stop, b])
        value = abs(w.beta[b, 1] * rise) + ends
        test += value * value / (9.0 * max(w.spread[FLOOR, b], w.spread[SSE, b] * freedom))
    return test <= rule.stable_limit


@kernel
def _monitor(w: Work, n: int, start: int, stop: int, length: int, rule: Rule) -> tuple[int, int]:
    """Go through the observations after ``stop``; return (first of the break or -1, flags).

    An observation that fits updates the model. One that does not begins or lengthens a run. A run
    is a break once it is long enough in observations and days, of one direction, does not return
    to the model and is a step in the record as a whole; and where the land only looks as it did at
    another time of the year, once the step is strong or has lasted for all seasons. Until then
    the run goes on.
    """
    # The weather of years makes the scores of stable land grow with the length of the record.
    step_limit = rule.step_limit * np.sqrt(float(max(n - start, 40)) / 40.0)
    # How much the seasons of one place differ is learnt from years, not from observations.
    years = (w.date[n - 1, DAY] - w.date[start, DAY]) / YEAR
    known_limit = max(step_limit, rule.known_limit / max(years, 1.0))
    count = stop - start + 1
    level = level_of(count, rule.level_obs)
    flags = 0
    first = -1
    last = stop
    for k in range(stop + 1, n):
        set_residuals(w.z, w.x, w.beta, w.resid, k)
        set_expected(w.spread, w.season_n, w.date[k, BIN], freedom_of(count, level))
        if distance_of(w.resid, w.spread, k) <= rule.limit:
            if w.date[k, DAY] - w.date[last, DAY] > rule.gap_days:
                flags |= GAP
            first = -1
            last = k
            count += 1
            w.date[k, USED] = 1
            if level_of(count, rule.level_obs) > level:
                level += 1
                fit(w, start, k, rule.ridge[level])
            else:
                update(w, k)
            continue
        first = k if first < 0 else first
        if k - first + 1 < length or w.date[k, DAY] - w.date[first, DAY] < rule.run_days:
            continue
        _run_mean(w.resid, w.spread, first, k)
        if not _has_one_direction(w.resid, w.spread, first, k, rule.cos_min):
            first += 1
            continue
        if _returns(w, n, k, length, rule):
            flags |= PULSE
            first = -1
            continue
        score = score_step(w, start, first, n)
        if score < step_limit:
            continue
        if score >= known_limit or w.date[k, DAY] - w.date[first, DAY] >= rule.season_days:
            return first, flags
        if is_new_state(w, start, first, n, rule):
            return first, flags
    return -1, flags


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
        set_residuals(w.z, w.x, w.beta, w.resid, k)
        along = 0.0
        for b in range(w.z.shape[1]):
            along += w.resid[k, b] * w.spread[MEAN, b] / w.spread[NOW, b]
        seen += 1
        if along < rule.pulse_share * scale:
            back += 1
    return seen >= length and 2 * back > seen


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
        value = np.rint(take_median(w.pick, length) * 1e4)
        out.magnitude[i, seg, b] = min(max(value, -32767.0), 32767.0)


detect_pixels = _compile_entry(_source_stamp())
"""The compiled engine. One call runs without the GIL."""
