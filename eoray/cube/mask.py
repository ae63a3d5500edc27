"""From the scene classification, or a network's, to the stored mask: why a pixel is not clear."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numba
import numpy as np

from eoray.sentinel2 import Mask, Quality, Scl

_BITS = {
    Scl.NO_DATA: Mask.INVALID,
    Scl.SATURATED: Mask.INVALID,
    Scl.DARK: Mask.OTHER,
    Scl.CLOUD_SHADOW: Mask.SHADOW,
    Scl.UNCLASSIFIED: Mask.OTHER,
    Scl.CLOUD_MEDIUM: Mask.CLOUD,
    Scl.CLOUD_HIGH: Mask.CLOUD,
    Scl.CIRRUS: Mask.CIRRUS,
    Scl.SNOW: Mask.SNOW,
}


_EMPTY, _SHADOW = int(Scl.NO_DATA), int(Scl.CLOUD_SHADOW)
_CLOUD_MEDIUM, _CLOUD_HIGH = int(Scl.CLOUD_MEDIUM), int(Scl.CLOUD_HIGH)
_DILATED, _NO_DATA = np.uint8(Mask.DILATED), np.uint8(Quality.NO_DATA)

GROUND_M = (20.0, 20.0)
"""(y, x) metres under a pixel of SCL on the world grid."""


LEARNED_HALO_PX = 16
"""Pixels of SCL around a tile that a network sees: as far as masks grow, so that a tile has the
same scenes with it or without. A tile and its halo are 544 px, 17 times a network's stride."""


class Cloud(IntEnum):
    """Classes of a network that finds clouds, as OmniCloudMask numbers them."""

    CLEAR = 0
    THICK = 1
    THIN = 2
    SHADOW = 3
    UNKNOWN = 255


_LEARNED_BITS = {
    Cloud.CLEAR: Mask(0),
    Cloud.THICK: Mask.CLOUD,
    Cloud.THIN: Mask.CIRRUS,
    Cloud.SHADOW: Mask.SHADOW,
}


class CloudClassifier(Protocol):
    """Finds clouds in a picture; ``eoray.models.clouds`` has one. Travels to the workers."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that it looks at, in order."""

    def __call__(self, reflectance: np.ndarray) -> np.ndarray:
        """Classify stored reflectance (band, y, x), int16; gives (y, x), uint8 of ``Cloud``."""


@dataclass(frozen=True, slots=True)
class MaskRecipe:
    """How SCL, a network or both become a mask; part of a cube's lineage."""

    clear: tuple[int, ...] = (4, 5, 6)
    """SCL classes that are clear."""
    cloud_m: int = 100
    """Classes 8 and 9 grow by this distance."""
    shadow_m: int = 60
    """Class 3 grows by this distance."""
    learned: str = ""
    """Name of the network, such as ``omnicloudmask-0f3a52c1``; without one SCL tells."""
    with_scl: bool = True
    """Beside a network, what SCL finds counts too; alone, SCL tells no data and snow only."""

    @property
    def halo_px(self) -> int:
        """20 m pixels that must be read around a block."""
        return self.halo_at(GROUND_M)

    def halo_at(self, ground_m: tuple[float, float]) -> int:
        """Pixels of (y, x) metres of ground that must be read around a block."""
        return math.ceil(max(self.cloud_m, self.shadow_m) / min(ground_m)) + 1

    @property
    def name(self) -> str:
        """Stable name of the recipe."""
        classes = "-".join(str(c) for c in sorted(self.clear))
        found = f"scl{classes}" if self.with_scl else f"snow{int(Scl.SNOW not in self.clear)}"
        learned = f"{self.learned}+" if self.learned else ""
        return f"{learned}{found}/cloud{self.cloud_m}m/shadow{self.shadow_m}m"


def mask_scl(
    scl: np.ndarray, recipe: MaskRecipe, ground_m: tuple[float, float] = GROUND_M
) -> np.ndarray:
    """Mark what is not clear.

    Args:
        scl: Dims (y, x), uint8, at 20 m, with the recipe's halo around what is kept.
        recipe: Clear classes and distances.
        ground_m: (y, x) metres under a pixel.

    Returns:
        Dims (y, x), uint8 of ``Mask`` bits; 0 is clear. Classes that Sen2Cor does not know
        count as ``OTHER``.
    """
    lut = np.full(256, int(Mask.OTHER), np.uint8)
    for scl_class in Scl:
        lut[scl_class] = int(_BITS.get(scl_class, Mask.OTHER))
    lut[list(recipe.clear)] = 0
    lut[Scl.NO_DATA] = int(Mask.INVALID)
    cloud = (scl == _CLOUD_MEDIUM) | (scl == _CLOUD_HIGH)
    shadow = scl == _SHADOW
    out = np.empty(scl.shape, np.uint8)
    near = grow(cloud, recipe.cloud_m, ground_m), grow(shadow, recipe.shadow_m, ground_m)
    _combine(scl, lut, near, out)
    return out


@numba.njit(nogil=True, cache=True)
def _combine(
    scl: np.ndarray, lut: np.ndarray, near: tuple[np.ndarray, np.ndarray], out: np.ndarray
) -> None:
    """The bit of each class, and that of a neighbour of clouds or shadows beside it."""
    near_cloud, near_shadow = near
    height, width = scl.shape
    for r in range(height):
        for c in range(width):
            seen = scl[r, c]
            bits = lut[seen]
            is_cloud = seen in (_CLOUD_MEDIUM, _CLOUD_HIGH)
            beside = (near_cloud[r, c] and not is_cloud) or (near_shadow[r, c] and seen != _SHADOW)
            if beside and seen != _EMPTY:  # nothing to say about what nobody saw
                bits |= _DILATED
            out[r, c] = bits


def _dilate(
    mask: np.ndarray,
    cloud: np.ndarray,
    shadow: np.ndarray,
    recipe: MaskRecipe,
    ground_m: tuple[float, float],
) -> None:
    for core, distance_m in ((cloud, recipe.cloud_m), (shadow, recipe.shadow_m)):
        mask[grow(core, distance_m, ground_m) & ~core] |= int(Mask.DILATED)


def mask_learned(
    classes: np.ndarray,
    scl: np.ndarray,
    recipe: MaskRecipe,
    ground_m: tuple[float, float] = GROUND_M,
) -> np.ndarray:
    """Mark what a network, or it and SCL, do not call clear.

    Args:
        classes: Dims (y, x), uint8 of ``Cloud``.
        scl: Dims (y, x), uint8, of the same pixels.
        recipe: Distances, and whether SCL counts.
        ground_m: (y, x) metres under a pixel.

    Returns:
        Dims (y, x), uint8 of ``Mask`` bits; thin cloud is ``CIRRUS``, and what the network could
        not judge is ``OTHER``.
    """
    lut = np.full(256, int(Mask.OTHER), np.uint8)
    for cloud, bit in _LEARNED_BITS.items():
        lut[cloud] = int(bit)
    mask: np.ndarray = lut[classes]
    _dilate(mask, classes == Cloud.THICK, classes == Cloud.SHADOW, recipe, ground_m)
    if recipe.with_scl:
        mask |= mask_scl(scl, recipe, ground_m)
    else:
        mask[scl == Scl.SATURATED] |= int(Mask.INVALID)
        if Scl.SNOW not in recipe.clear:
            mask[scl == Scl.SNOW] |= int(Mask.SNOW)
    mask[scl == Scl.NO_DATA] = int(Mask.INVALID)
    return mask


def grow(core: np.ndarray, radius: float, pixel: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Grow a region by a Euclidean distance, in units of the (y, x) edges of a pixel."""
    if radius <= 0 or not core.any():
        return core
    reach_y, reach_x = (math.floor(radius / size) + 1 for size in pixel)
    if reach_x >= _FAR:
        from scipy.ndimage import distance_transform_edt

        return np.asarray(distance_transform_edt(~core, sampling=pixel) <= radius)
    dy, dx = np.arange(reach_y + 1) * pixel[0], np.arange(reach_x + 1) * pixel[1]
    within = np.sqrt((dy * dy)[:, None] + (dx * dx)[None, :]) <= radius
    out = np.zeros(core.shape, np.bool_)
    _grow(np.ascontiguousarray(core), within.sum(axis=1) - 1, out)
    return out


_FAR = 255
"""Columns to the nearest pixel of a region, where it is that far or farther."""


@numba.njit(nogil=True, cache=True)
def _grow(core: np.ndarray, reach: np.ndarray, out: np.ndarray) -> None:
    """Set what lies within ``reach[rows away]`` columns of the region; -1 for none."""
    height, width = core.shape
    away = np.empty((height, width), np.uint8)
    for r in range(height):
        steps = _FAR
        for c in range(width):
            steps = 0 if core[r, c] else min(_FAR, steps + 1)
            away[r, c] = steps
        for c in range(width - 1, -1, -1):
            steps = 0 if core[r, c] else min(_FAR, steps + 1)
            away[r, c] = min(away[r, c], steps)
    for r in range(height):
        for other in range(max(0, r - len(reach) + 1), min(height, r + len(reach))):
            most = reach[abs(other - r)]
            if most >= 0:
                for c in range(width):
                    out[r, c] |= away[other, c] <= most


def count_pixels(quality: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """Count pixels that hold data, and those of them that are masked.

    Args:
        quality: Dims (y, x), uint8 of ``Quality`` bits.
        mask: Dims (y, x), uint8 of ``Mask`` bits, as fine or coarser by a whole factor.
    """
    n_valid, n_masked = _count(quality, mask, len(quality) // len(mask))
    return int(n_valid), int(n_masked)


@numba.njit(nogil=True, cache=True)
def _count(quality: np.ndarray, mask: np.ndarray, factor: int) -> tuple[int, int]:
    n_valid = n_masked = 0
    height, width = mask.shape
    for r in range(height * factor):
        found = unclear = 0
        if factor == 2:
            for c in range(width):
                pair = (quality[r, 2 * c] & _NO_DATA == 0) + (quality[r, 2 * c + 1] & _NO_DATA == 0)
                found += pair
                unclear += pair * (mask[r // 2, c] != 0)
        else:
            for c in range(width * factor):
                valid = quality[r, c] & _NO_DATA == 0
                found += valid
                unclear += valid and mask[r // factor, c // factor] != 0
        n_valid += found
        n_masked += unclear
    return n_valid, n_masked


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache on disk."""
    scl = np.full((3, 3), Scl.CLOUD_HIGH, np.uint8)
    mask = mask_scl(scl, MaskRecipe())
    for quality in (scl, np.zeros((6, 12), np.uint8)[:, :6]):
        count_pixels(quality, mask)
        count_pixels(quality, mask[:, :])


def clear_classes(classes: Iterable[int]) -> tuple[int, ...]:
    """Sort and deduplicate SCL classes."""
    return tuple(sorted({int(c) for c in classes}))
