"""The sky of a pass: clouds, their shadows, haze, and what the classifier misses of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from eoray.testing.frame import Frame
from eoray.testing.noise import generator, rough_field, smooth_field
from eoray.testing.options import ArchiveOptions
from eoray.testing.passes import Pass

SKY_M = 80.0
"""Distance of the nodes of the sky in metres."""

_RUN_D = 40
"""Days in which the field of misses turns into another: misses come in runs of that length."""


@dataclass(frozen=True, slots=True)
class Sky:
    """Optical state over a site, nodes 80 m apart, dims (y, x), float32."""

    cloud: np.ndarray
    """Optical thickness of cloud."""
    cirrus: np.ndarray
    """Optical thickness of thin high cloud."""
    haze: np.ndarray
    """Optical thickness of haze that no class of SCL names."""
    shadow: np.ndarray
    """Share of direct light that clouds take away, 0 to 1."""
    miss: np.ndarray
    """Above 0 where the classifier misses thin cloud, cirrus and shadow."""


def sky_frame(ground: Frame) -> Frame:
    """Lattice of the sky over a ground."""
    rows = math.ceil(ground.rows * ground.cell_m / SKY_M) + 2
    cols = math.ceil(ground.cols * ground.cell_m / SKY_M) + 2
    return Frame(ground.epsg, ground.x0 - SKY_M, ground.y0 + SKY_M, rows, cols, SKY_M)


def draw_sky(taken: Pass, frame: Frame, options: ArchiveOptions) -> Sky:
    """Draw the sky of a pass; the same for all granules that it sees."""
    rng = generator(options.seed, "sky", taken.site, taken.key)
    shape = frame.shape
    billows = rough_field(rng, shape, 14.0, 4)
    cloud = _above(billows, taken.cloud_share) * np.float32(2.6)
    veil = rough_field(rng, shape, 22.0, 2)
    cirrus = _above(veil, float(rng.choice((0.0, 0.25), p=(0.82, 0.18)))) * np.float32(0.22)
    height_m = float(rng.uniform(900, 2600))
    shadow = _cast(cloud, taken, height_m)
    miss = _misses(taken, shape, options)
    haze = np.maximum(miss, 0) * np.float32(0.5)
    return Sky(cloud, cirrus, haze.astype(np.float32), shadow, miss)


def _above(field: np.ndarray, share: float) -> np.ndarray:
    """What stands above the level that this share of the field exceeds."""
    if share <= 0:
        return np.zeros_like(field)
    return np.maximum(field - np.float32(np.quantile(field, 1 - share)), 0)


def _cast(cloud: np.ndarray, taken: Pass, height_m: float) -> np.ndarray:
    """Displace the clouds away from the sun by their height: north of them at noon in Europe."""
    azimuth, elevation = (math.radians(angle) for angle in taken.sun)
    away_m = height_m / math.tan(max(elevation, math.radians(12)))
    down = round(away_m * math.cos(azimuth) / SKY_M)
    right = round(-away_m * math.sin(azimuth) / SKY_M)
    dimmed = 1 - np.exp(-1.5 * cloud)
    return np.asarray(np.roll(dimmed, (down, right), axis=(0, 1)), np.float32)


def _misses(taken: Pass, shape: tuple[int, int], options: ArchiveOptions) -> np.ndarray:
    """Field that exceeds 0 on the wanted share, smooth in space and turning slowly in time."""
    if options.omission <= 0:
        return np.full(shape, -1.0, np.float32)
    number, rest = divmod(taken.day.toordinal(), _RUN_D)
    part = rest / _RUN_D
    fields = [
        smooth_field(generator(options.seed, "miss", taken.site, number + i), shape, 7.0)
        for i in (0, 1)
    ]
    mixed = ((1 - part) * fields[0] + part * fields[1]) / math.hypot(1 - part, part)
    level = NormalDist().inv_cdf(1 - options.omission)
    return np.asarray(mixed - level, np.float32)
