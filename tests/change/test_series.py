"""The harmonic basis and the codes of dates."""

from __future__ import annotations

import numpy as np

from eoray.change.series import harmonic_design, make_series


def test_basis_is_orthogonal_over_whole_years() -> None:
    day = np.arange(20_000, 20_000 + 4 * 1461)
    X = harmonic_design(day)
    waves = X[:, 2:]
    np.testing.assert_allclose(waves.T @ waves / len(day), np.eye(6) / 2, atol=1e-9)
    assert X[0, 1] == 0
    assert X[-1, 1] == (len(day) - 1) / 3652.5


def test_phase_does_not_depend_on_the_first_date() -> None:
    day = np.arange(20_000, 21_000, 7)
    np.testing.assert_array_equal(harmonic_design(day)[50:, 2:], harmonic_design(day[50:])[:, 2:])


def test_bins_are_eighths_of_a_year() -> None:
    series = make_series(np.arange(0, 1461), np.zeros(1461))
    bins = series.date[:, 1]
    assert bins.min() == 0
    assert bins.max() == 7
    counts = np.bincount(bins)
    assert counts.min() >= 4 * 45
    assert counts.max() <= 4 * 46


def test_orbits_get_codes_without_gaps() -> None:
    series = make_series(np.arange(4), np.array([108, 8, 108, 51]))
    assert series.date[:, 2].tolist() == [2, 0, 2, 1]
    assert series.n_orbits == 3
