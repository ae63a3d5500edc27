"""Which level of a file a coarser grid reads: the smallest overview that is no coarser than it.

An overview costs the square of its factor less to read than the picture. Those of Sentinel-2's COGs
hold means of reflectance and the nearest class of SCL; how another file's were made, nobody can
tell from it. JPEG 2000 keeps wavelets instead, which mix classes: it is read as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eoray.grid import Affine6, Lattice, Zone, lattice_of
from eoray.reading.cog import scaled
from eoray.reading.warp import transformer

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.reading.cog import CogFile

type Step = tuple[float, float]
"""(down, across) pixels of a file from one pixel of a lattice to the next."""

SLACK = 1.05
"""An overview may be coarser than the grid by so much: scales of neighbouring zones differ, and
the edge of 10 980 px halves to 686.25."""

_LEAST_FACTOR = 2 / SLACK


def takes_overviews(scene: Scene, asset: BandAsset, zone: Zone, resolution_m: int) -> bool:
    """Tell whether a grid's pixel is at least twice that of a file that keeps overviews.

    Args:
        scene: The item; it knows the CRS.
        asset: One of its files.
        zone: The lattice.
        resolution_m: Level of it.
    """
    # nominal metres are the most that a pixel has anywhere: most files end here
    if resolution_m < _LEAST_FACTOR * asset.transform[0] or asset.href.lower().endswith(".jp2"):
        return False
    return min(pixels_a_step(scene, asset, zone, resolution_m)) >= _LEAST_FACTOR


def reads_overviews(scenes: Iterable[Scene], bands: Sequence[str], grid: Lattice | None) -> bool:
    """Tell whether a cube is so coarse that overviews are read of some of its files.

    Args:
        scenes: What a plan reads.
        bands: Band ids; what says where pixels are is looked at, too.
        grid: The user's grid; None for the world grid, which is as fine as the files.
    """
    if grid is None:
        return False
    return any(
        takes_overviews(scene, asset, grid, grid.coarse)
        for scene in scenes
        for asset in (*(scene.asset(band) for band in bands), scene.extent)
    )


def pixels_a_step(scene: Scene, asset: BandAsset, zone: Zone, resolution_m: int) -> Step:
    """How many pixels a lattice leaps over in the middle of a file; the same for all windows."""
    where = asset.transform, asset.shape, scene.grid_epsg
    return _pixels_a_step(*where, zone, resolution_m)


@lru_cache(maxsize=4096)
def _pixels_a_step(
    transform: Affine6, shape: tuple[int, int], epsg: int | None, zone: Zone, resolution_m: int
) -> Step:
    lattice = lattice_of(zone)
    a, _, c, _, e, f = transform
    pixel = lattice.pixel(resolution_m)
    if epsg is None or epsg == lattice.epsg:
        return pixel / -e, pixel / a
    to_file = transformer(lattice.epsg, epsg)
    x, y = to_file.transform(c + a * shape[1] / 2, f + e * shape[0] / 2, direction="INVERSE")
    xs, ys = to_file.transform(np.array([x, x, x + pixel]), np.array([y, y - pixel, y]))
    down, across = np.hypot(np.diff(xs)[0], np.diff(ys)[0]), np.hypot(xs[2] - xs[0], ys[2] - ys[0])
    return float(down / -e), float(across / a)


def fitting_level(factors: Sequence[int], step: Step) -> int | None:
    """The number of the overview to read; None where the picture itself is coarse enough.

    Args:
        factors: By how much each overview is smaller, rounded, the largest picture first.
        step: Of the picture.
    """
    fit = [n for n, factor in enumerate(factors) if 1 < factor <= min(step) * SLACK]
    return max(fit, key=lambda n: factors[n], default=None)


def fitting_overview(file: CogFile, step: Step) -> int | None:
    """The number of the overview of a COG to read; None where the picture is coarse enough."""
    factors = [factor_of(file.shape, level.shape) for level in file.overviews]
    return fitting_level(factors, step)


def factor_of(picture: tuple[int, int], level: tuple[int, int]) -> int:
    """By how much an overview is smaller, rounded as GDAL does."""
    return round(picture[1] / level[1])


def halvings(scene: Scene, asset: BandAsset, zone: Zone, resolution_m: int) -> int:
    """By how much what is read of a file is smaller, where its overviews are halvings; 1 for it."""
    if not takes_overviews(scene, asset, zone, resolution_m):
        return 1
    step = min(pixels_a_step(scene, asset, zone, resolution_m)) * SLACK
    return 1 << int(math.log2(step))


def level_asset(asset: BandAsset, shape: tuple[int, int]) -> BandAsset:
    """An overview of a file, described as a file of its own."""
    return replace(asset, transform=scaled(asset.transform, asset.shape, shape), shape=shape)


def covers_ground(step: Step, factor: int) -> bool:
    """Tell whether a level is so coarse that two by two pixels of it leave out no ground."""
    return max(step) <= 2 * SLACK * factor
