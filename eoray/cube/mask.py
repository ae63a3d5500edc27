"""From the scene classification to the stored mask: why a pixel is not clear."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from eoray.sentinel2 import Mask, Scl

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


GROUND_M = (20.0, 20.0)
"""(y, x) metres under a pixel of SCL on the world grid."""


@dataclass(frozen=True, slots=True)
class MaskRecipe:
    """How SCL becomes a mask; part of a cube's lineage."""

    clear: tuple[int, ...] = (4, 5, 6)
    """SCL classes that are clear."""
    cloud_m: int = 100
    """Classes 8 and 9 grow by this distance."""
    shadow_m: int = 60
    """Class 3 grows by this distance."""

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
        return f"scl{classes}/cloud{self.cloud_m}m/shadow{self.shadow_m}m"


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
    mask: np.ndarray = lut[scl]
    for classes, distance_m in (
        ((Scl.CLOUD_MEDIUM, Scl.CLOUD_HIGH), recipe.cloud_m),
        ((Scl.CLOUD_SHADOW,), recipe.shadow_m),
    ):
        core = np.isin(scl, classes)
        mask[grow(core, distance_m, ground_m) & ~core] |= int(Mask.DILATED)
    mask[scl == Scl.NO_DATA] = int(Mask.INVALID)  # nothing to say about what nobody saw
    return mask


def grow(core: np.ndarray, radius: float, pixel: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Grow a region by a Euclidean distance, in units of the (y, x) edges of a pixel."""
    from scipy.ndimage import distance_transform_edt

    if radius <= 0 or not core.any():
        return core
    return np.asarray(distance_transform_edt(~core, sampling=pixel) <= radius)


def clear_classes(classes: Iterable[int]) -> tuple[int, ...]:
    """Sort and deduplicate SCL classes."""
    return tuple(sorted({int(c) for c in classes}))
