"""Kernels that turn a pixel's stored values into the observations that a curve is fitted to."""

from __future__ import annotations

import numpy as np

from eoray.change.flags import ChangeFlag
from eoray.change.kernel import DAY, FLOOR, N_COEF, ORBIT, USED, Rule, Work, kernel, take_median

# Plain integers: numba freezes them into the compiled code.
REJECTED = int(ChangeFlag.REJECTED)
WATER = int(ChangeFlag.WATER)


@kernel
def gather(
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
def balance_orbits(
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
    value = take_median(pick, m)
    spread = 0.0
    for k in range(m):
        spread += abs(pick[k] - value)
    # sd = 1.2533 mean |d|; standard error of a median = 1.2533 sd / sqrt(m).
    error = 1.5708 * spread / m / np.sqrt(m)
    if error >= abs(value):
        return 0.0
    shrunk: float = value * (1.0 - (error / value) ** 2)
    return min(max(shrunk, -0.3), 0.3)


@kernel
def set_noise_floor(
    resid: np.ndarray, spread: np.ndarray, pick: np.ndarray, n: int, least: float
) -> None:
    """Set the smallest spread to believe in, per band: robust sd of residual differences."""
    for b in range(resid.shape[1]):
        for k in range(n - 1):
            pick[k] = abs(resid[k + 1, b] - resid[k, b])
        # 1.4826 (median absolute deviation to sd) / sqrt(2) (difference of two values).
        floor = max(least, 1.0483 * take_median(pick, n - 1))
        spread[FLOOR, b] = floor * floor


@kernel
def drop_spikes(w: Work, n: int, spike: float) -> int:
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
def describe_record(z: np.ndarray, n: int, n_clear: int, rule: Rule) -> int:
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
