"""Hand-made pixels whose breaks are known."""

from __future__ import annotations

import numpy as np

FIRST_DAY = 17_532  # 2018-01-01
SIX_BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
LEVEL = np.array([400, 700, 500, 3000, 1800, 900])
SEASON = np.array([-50, 30, -80, 900, -150, -200])


def make_days(years: float = 5.0, step: int = 9) -> np.ndarray:
    return FIRST_DAY + np.arange(0, round(years * 365.25), step)


def make_pixels(
    day: np.ndarray, *, n_pixel: int = 1, n_band: int = 6, noise: float = 10.0, seed: int = 1
) -> np.ndarray:
    """Seasonal reflectance x 10000, dims (time, band, 1, x), as int16."""
    rng = np.random.default_rng(seed)
    band = np.arange(n_band) % 6
    wave = np.sin(2 * np.pi * (day - FIRST_DAY - 100) / 365.25)
    clean = LEVEL[band] + wave[:, None] * SEASON[band]
    values = clean[:, :, None] + noise * rng.standard_normal((len(day), n_band, n_pixel))
    stored: np.ndarray = np.rint(values).astype(np.int16)
    return stored[:, :, None, :]


def all_clear(values: np.ndarray) -> np.ndarray:
    return np.ones((values.shape[0], *values.shape[2:]), bool)
