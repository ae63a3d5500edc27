"""Time axis of the engine: harmonic basis, season bins and orbit codes of the dates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

YEAR = 365.25
"""Days of a year, the base period of the harmonics."""

N_SEASON = 8
"""Bins of the year for which the residual spread is kept apart."""


@dataclass(frozen=True, slots=True)
class Series:
    """Dates of a record, as the kernels take them."""

    date: np.ndarray
    """int64 (time, 3): days since 1970-01-01, bin of the year 0-7, orbit code from 0."""
    design: np.ndarray
    """float64 (time, 8), see ``harmonic_design``."""
    n_orbits: int
    """Number of orbit codes."""


def make_series(day: np.ndarray, orbit: np.ndarray) -> Series:
    """Prepare the dates of a record.

    Args:
        day: Integer (time), days since 1970-01-01, not decreasing.
        orbit: (time), any values that tell relative orbits apart.
    """
    codes, code = np.unique(orbit, return_inverse=True)
    season = (day % YEAR) / YEAR * N_SEASON
    return Series(
        date=np.stack([day, season, code.reshape(-1)], axis=1).astype(np.int64),
        design=harmonic_design(day),
        n_orbits=len(codes),
    )


def harmonic_design(day: np.ndarray) -> np.ndarray:
    """Build the basis 1, decades since the first date, cos and sin of 1, 2, 3 cycles a year.

    Args:
        day: int (time), days since 1970-01-01.

    Returns:
        float64 (time, 8). The phase counts from 1970-01-01, so it does not depend on the record.
    """
    rows = []
    for d in day.tolist():
        w = 2.0 * math.pi * d / YEAR
        waves = [f(k * w) for k in (1, 2, 3) for f in (math.cos, math.sin)]
        rows.append([1.0, (d - int(day[0])) / (10 * YEAR), *waves])
    return np.array(rows, np.float64).reshape(-1, 8)
