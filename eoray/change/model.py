"""Kernels of the model: ridge-regularised harmonic curves, refitted or updated by one date."""

from __future__ import annotations

import numpy as np

from eoray.change.kernel import (
    BIN,
    DAY,
    FLOOR,
    N_COEF,
    N_SEASON,
    NOW,
    SEASON,
    SSE,
    USED,
    WHOLE,
    Rule,
    Work,
    add_row,
    clear_rows,
    dot_row,
    get_row,
    inner_loop,
    invert,
    kernel,
    take_median,
)


@inner_loop
def level_of(count: int, level_obs: np.ndarray) -> int:
    """Number of harmonics less one that ``count`` observations carry."""
    level = 0
    for needed in level_obs:
        if count >= needed:
            level += 1
    return level


@inner_loop
def freedom_of(count: int, level: int) -> float:
    """Degrees of freedom of the residuals, at least 4."""
    return float(max(count - 4 - 2 * level, 4))


@kernel
def fit(w: Work, start: int, stop: int, ridge: np.ndarray) -> None:
    """Fit all bands to the used observations of start ... stop and restart the residual sums."""
    n_band = w.z.shape[1]
    clear_rows(w.v, int(np.int64(0)))
    clear_rows(w.beta, int(np.int64(0)))
    for k in range(start, stop + 1):
        if w.date[k, USED] != 1:
            continue
        x = get_row(w.x, k)
        for p in range(N_COEF):
            add_row(w.v, p, x, w.x[k, p])
        for b in range(n_band):
            add_row(w.beta, b, x, w.z[k, b])
    for p in range(N_COEF):
        w.v[p, p] += ridge[p]
    invert(w.v)
    for b in range(n_band):
        moment = get_row(w.beta, b)
        for p in range(N_COEF):
            w.beta[b, p] = dot_row(moment, w.v, p)
    clear_rows(w.spread, int(np.int64(SEASON)))
    for b in range(n_band):
        w.spread[SSE, b] = 0.0
    for s in range(N_SEASON):
        w.season_n[s] = 0.0
    for k in range(start, stop + 1):
        if w.date[k, USED] == 1:
            set_residuals(w.z, w.x, w.beta, w.resid, k)
            add_residuals(w.resid, w.spread, w.season_n, k, w.date[k, BIN], 1.0)


@kernel
def fit_whole(w: Work, start: int, n: int, rule: Rule) -> None:
    """Fit one curve to everything from ``start`` on, whatever happens in it."""
    for k in range(start, n):
        w.date[k, USED] = 1
    fit(w, start, n - 1, rule.ridge[level_of(n - start, rule.level_obs)])
    for k in range(start, n):
        w.date[k, USED] = 0


@inner_loop
def set_residuals(
    z: np.ndarray, x: np.ndarray, beta: np.ndarray, resid: np.ndarray, k: int
) -> None:
    """Set the residuals of observation ``k`` to the present curve."""
    row = get_row(x, k)
    for b in range(z.shape[1]):
        resid[k, b] = z[k, b] - dot_row(row, beta, b)


@inner_loop
def add_residuals(
    resid: np.ndarray, spread: np.ndarray, season_n: np.ndarray, k: int, s: int, weight: float
) -> None:
    """Add the squared residuals of observation ``k`` to the sums, overall and of its season."""
    for b in range(resid.shape[1]):
        square = resid[k, b] * resid[k, b] * weight
        spread[SSE, b] += square
        spread[SEASON + s, b] += square
    season_n[s] += 1.0


@inner_loop
def set_expected(spread: np.ndarray, season_n: np.ndarray, s: int, freedom: float) -> None:
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
def distance_of(resid: np.ndarray, spread: np.ndarray, k: int) -> float:
    """Sum over bands of the squared residual over its expected variance."""
    total = 0.0
    for b in range(resid.shape[1]):
        total += resid[k, b] * resid[k, b] / spread[NOW, b]
    return total


@inner_loop
def update(w: Work, k: int) -> None:
    """Add observation ``k`` to the model (recursive least squares, gain shared by all bands)."""
    x = get_row(w.x, k)
    p = int(np.int64(0))
    g = (
        dot_row(x, w.v, p),
        dot_row(x, w.v, p + 1),
        dot_row(x, w.v, p + 2),
        dot_row(x, w.v, p + 3),
        dot_row(x, w.v, p + 4),
        dot_row(x, w.v, p + 5),
        dot_row(x, w.v, p + 6),
        dot_row(x, w.v, p + 7),
    )
    share = 1.0 / (1.0 + dot_row(g, w.x, k))
    # Product of the errors before and after the update: the exact growth of the squared sum.
    add_residuals(w.resid, w.spread, w.season_n, k, w.date[k, BIN], share)
    for b in range(w.z.shape[1]):
        add_row(w.beta, b, g, w.resid[k, b] * share)
    for q in range(N_COEF):
        add_row(w.v, q, g, -g[q] * share)


@kernel
def keep_whole(w: Work, start: int, n: int) -> None:
    """Keep what ``_step_score`` needs of the fit to the whole record: V, spread, residual sums."""
    for p in range(N_COEF):
        for q in range(N_COEF):
            w.whole[p, q] = w.v[p, q]
    freedom = freedom_of(n - start, 2) - 1.0
    for b in range(w.z.shape[1]):
        w.spread[WHOLE, b] = w.spread[SSE, b] / freedom
        total = 0.0
        for back in range(n - start):
            total += w.resid[n - 1 - back, b]
            w.after[n - 1 - back, b] = total


@kernel
def score_step(w: Work, start: int, first: int, n: int) -> float:
    """Score one date as that from which the whole record lies on another level.

    The score test of a step added to the curve: the sum of the residuals from that date on, squared
    over its variance, with the variance of the residuals as the step would leave it, summed over
    bands. It looks at the whole record, where a run looks at a few observations.

    Source:
        The Chow test as a check on breaks: Bullock, Woodcock and Holden 2020, Remote Sensing of
        Environment 238, 111165.
    """
    zero = int(np.int64(0))
    clear_rows(w.sums, zero)
    for k in range(first, n):
        add_row(w.sums, zero, get_row(w.x, k), 1.0)
    row = get_row(w.sums, zero)
    weight = float(n - first)
    for p in range(N_COEF):
        weight -= w.sums[0, p] * dot_row(row, w.whole, p)
    freedom = freedom_of(n - start, 2) - 1.0
    score = 0.0
    for b in range(w.z.shape[1]):
        gain = w.after[first, b] * w.after[first, b] / max(weight, 0.5)
        score += gain / max(w.spread[FLOOR, b], w.spread[WHOLE, b] - gain / freedom)
    return score


@kernel
def is_new_state(w: Work, start: int, first: int, n: int, rule: Rule) -> bool:
    """Whether the land looks as it never did before, at whatever time of the year.

    The other crop of a rotation, a late spring or a mown meadow leave the curve of their date, but
    not the range of what the pixel was at other dates. So observations from ``first`` on are held
    against mean and covariance of all before, season included: the median of their squared
    Mahalanobis distances must exceed the threshold of a prediction.

    Source:
        Hotelling's T2 for one more observation of n known ones in p bands, with the factor
        (n2 - 1) / (n (n - p)): Seber 1984, Multivariate Observations, section 3.4. Chi-square
        stands in for F, since the noise floor on the diagonal carries part of the freedom.
    """
    n_band = w.z.shape[1]
    _set_states(w, start, first)
    m = 0
    for k in range(first, n):
        if w.date[k, DAY] - w.date[first, DAY] > rule.state_days:
            break
        w.pick[m] = _distance_to_states(w, k)
        m += 1
    count = first - start
    room = (count * count - 1.0) / (count * max(count - n_band, 1))
    is_far: bool = take_median(w.pick, m) > rule.state_limit * room
    return is_far


@kernel
def _set_states(w: Work, start: int, first: int) -> None:
    """Set mean and Cholesky factor of the covariance of the observations before ``first``."""
    n_band = w.z.shape[1]
    mean = n_band
    count = first - start
    clear_rows(w.state, int(np.int64(0)))
    for k in range(start, first):
        for b in range(n_band):
            w.state[mean, b] += w.z[k, b] / count
    for k in range(start, first):
        for b in range(n_band):
            d = (w.z[k, b] - w.state[mean, b]) / (count - 1)
            for c in range(b + 1):
                w.state[b, c] += d * (w.z[k, c] - w.state[mean, c])
    for b in range(n_band):
        w.state[b, b] += w.spread[FLOOR, b]
        for c in range(b + 1):
            total = w.state[b, c]
            for q in range(c):
                total -= w.state[b, q] * w.state[c, q]
            w.state[b, c] = np.sqrt(max(total, 1e-12)) if b == c else total / w.state[c, c]


@kernel
def _distance_to_states(w: Work, k: int) -> float:
    """Squared Mahalanobis distance of observation ``k``."""
    n_band = w.z.shape[1]
    mean, white = n_band, n_band + 1
    far = 0.0
    for b in range(n_band):
        total = w.z[k, b] - w.state[mean, b]
        for q in range(b):
            total -= w.state[b, q] * w.state[white, q]
        w.state[white, b] = total / w.state[b, b]
        far += w.state[white, b] * w.state[white, b]
    return far
