"""Medians and percentiles: against four lines of exact arithmetic, and against numpy."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.cube.ranks import LANES, _network, reduce_percentiles
from eoray.sentinel2 import FILL

PERCENTS = (0, 10, 25, 50, 75, 90, 100)


def exact(values: list[int], percent: int) -> int:
    """Linear between the two nearest, in fractions; Python rounds halves to even."""
    if not values:
        return FILL
    ordered, place = sorted(values), Fraction(percent * (len(values) - 1), 100)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return round(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def stack(
    seed: int, n_time: int, share: float, shape: tuple[int, int] = (3, 70)
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.integers(-1000, 15_000, (n_time, 2, *shape)).astype(np.int16)
    values[rng.random(values.shape) < 0.1] = 32767  # saturated, and the value that stands in
    values[rng.random(values.shape) < 0.1] = -32767
    clear = rng.random((n_time, *shape)) < share
    values[np.broadcast_to(~clear[:, None], values.shape)] = FILL
    return values, clear


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_percentiles_are_those_of_exact_arithmetic(seed: int, n_time: int, share: float) -> None:
    values, clear = stack(seed, n_time, share)
    found = reduce_percentiles(values, clear, PERCENTS, FILL)
    rng = np.random.default_rng(seed)
    for row, col in zip(rng.integers(0, 3, 12), rng.integers(0, 70, 12), strict=True):
        for band in range(2):
            one = values[clear[:, row, col], band, row, col].tolist()
            assert found[:, band, row, col].tolist() == [exact(one, p) for p in PERCENTS]


def test_percentiles_are_numpys() -> None:
    values, clear = stack(3, 23, 0.5)
    floats = np.where(clear[:, None], values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a clear date
        oracle = np.nanpercentile(floats, PERCENTS, axis=0)
    found = reduce_percentiles(values, clear, PERCENTS, FILL)
    known = ~np.isnan(oracle)
    assert (found[~known] == FILL).all()
    assert np.abs(found[known] - oracle[known]).max() <= 0.5 + 1e-6  # to the nearest unit


@pytest.mark.parametrize("width", [1, LANES - 1, LANES, LANES + 1, 2 * LANES + 5])
def test_any_width_is_reduced_alike(width: int) -> None:
    values, clear = stack(8, 9, 0.6, (2, 200))
    whole = reduce_percentiles(values, clear, (50,), FILL)
    part = reduce_percentiles(values[..., 3 : 3 + width], clear[..., 3 : 3 + width], (50,), FILL)
    np.testing.assert_array_equal(part, whole[..., 3 : 3 + width])


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12])
def test_network_orders_every_pattern_of_zeros_and_ones(n: int) -> None:
    """What orders all of these orders everything (Knuth's 0-1 principle)."""
    patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    for low, high in _network(n):
        assert low < high
        pair = patterns[:, [low, high]]
        patterns[:, low], patterns[:, high] = pair.min(axis=1), pair.max(axis=1)
    assert (np.diff(patterns, axis=1) >= 0).all()


def test_network_of_fewer_dates_is_the_part_of_a_larger_one() -> None:
    """Dates that no pixel of a run sees are left out of the comparisons, not of the network."""
    for n in range(1, 12):
        part = _network(12)[_network(12)[:, 1] < n]
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        for low, high in part:
            pair = patterns[:, [low, high]]
            patterns[:, low], patterns[:, high] = pair.min(axis=1), pair.max(axis=1)
        assert (np.diff(patterns, axis=1) >= 0).all()
