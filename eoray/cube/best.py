"""Best pixel: which of the clear observations of a period stands for it, and how it is judged.

Unlike a median it is one real spectrum of one day, with the noise of that day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eoray.sentinel2 import SCALE, Mask

RULE = "cloud-median-centre-view-sun/1"
"""Name of the rule below, with its numbers; part of a product's parameters."""

CLOUD_REACH_M = 1000.0
"""Farther from a cloud or its shadow, distance counts no more."""

FAR_REFLECTANCE = 0.1
"""Root mean square distance from the pixel's median spectrum that counts in full."""

MAX_VIEW_ZENITH = 12.0
"""Degrees at the edge of the swath."""

_WEIGHTS = {"cloud": 1.0, "median": 1.0, "centre": 0.5, "view": 0.25, "sun": 0.25}

_STEPS = 16_000
"""Steps of cost per unit: all five together stay below 65535."""

NEVER = np.uint16(65535)
"""Cost of what is not clear."""

UNJUDGED = np.uint16(65534)
"""Cost of what is clear at 10 m alone, where nothing is to be judged at 20 m."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the time axis tells of the observations of a row, in order of time."""

    offset: Sequence[float]
    """Days from the middle of the period, in halves of the period: -1 to 1."""
    view_zenith: Sequence[float]
    """Degrees."""
    sun_zenith: Sequence[float]
    """Degrees."""


def cost_of_observations(
    values: np.ndarray,
    median: np.ndarray,
    near_cloud: np.ndarray,
    circumstances: Circumstances,
) -> np.ndarray:
    """Judge every observation; the one that costs least is the best.

    The cost is the sum of five parts, each from 0 to its weight: nearness to a cloud or a cloud's
    shadow (1), distance from the pixel's median spectrum (1), days from the middle of the period
    (0.5), view angle (0.25), sun angle (0.25).

    Args:
        values: Dims (time, band, y, x), int16.
        median: Dims (band, y, x), int16, of the clear observations.
        near_cloud: Dims (time, y, x), see ``measure_near_cloud``.
        circumstances: Of the observations, in the same order.

    Returns:
        Dims (time, y, x), uint16 of 1 / 16 000.
    """
    cost = np.empty(near_cloud.shape, np.uint16)
    for t in range(len(cost)):
        alike = (
            _WEIGHTS["centre"] * min(1.0, abs(circumstances.offset[t]))
            + _WEIGHTS["view"] * _share(circumstances.view_zenith[t], MAX_VIEW_ZENITH)
            + _WEIGHTS["sun"] * _share(circumstances.sun_zenith[t], 90.0)
        )
        total = np.float32(_WEIGHTS["cloud"]) * near_cloud[t]
        total = total + np.float32(_WEIGHTS["median"]) * _far_from(median, values[t])
        cost[t] = np.rint((total + np.float32(alike)) * np.float32(_STEPS))
    return cost


def _share(angle: float, most: float) -> float:
    """An angle in parts of the most; 0 where nobody knows it."""
    return 0.0 if np.isnan(angle) else min(1.0, angle / most)


def _far_from(median: np.ndarray, values: np.ndarray) -> np.ndarray:
    gap = values.astype(np.float32) - median
    rms = np.sqrt((gap * gap).mean(axis=0)) * np.float32(SCALE)
    return np.asarray(np.minimum(rms / np.float32(FAR_REFLECTANCE), 1), np.float32)


def measure_near_cloud(mask: np.ndarray, ground_m: tuple[float, float]) -> np.ndarray:
    """Say how near the next cloud, cirrus or shadow is: 1 in it, 0 beyond the reach.

    Args:
        mask: Dims (time, y, x), uint8 of ``Mask`` bits, of a whole tile; beyond it no cloud is
            seen, so that a tile depends on nothing but its own scenes.
        ground_m: (y, x) metres under a pixel.

    Returns:
        Dims (time, y, x), float16.
    """
    from scipy.ndimage import distance_transform_edt

    out = np.zeros(mask.shape, np.float16)
    clouds = (mask & np.uint8(Mask.CLOUD | Mask.SHADOW | Mask.CIRRUS)) > 0
    for t in np.flatnonzero(clouds.any(axis=(1, 2))):
        distance = distance_transform_edt(~clouds[t], sampling=ground_m)
        out[t] = 1.0 - np.minimum(distance / CLOUD_REACH_M, 1.0)
    return out


def choose_best(cost: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Position in time of the clear observation that costs least; of equals the earliest.

    Args:
        cost: Dims (time, y, x), uint16, below ``NEVER``.
        clear: Dims (time, y, x), bool.

    Returns:
        Dims (y, x), int; 0 where nothing is clear.
    """
    return np.where(clear, cost, NEVER).argmin(axis=0)
