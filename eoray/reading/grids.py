"""Check before reading that the files of scenes lie on the cube's grid, and on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eoray.errors import GridError
from eoray.grid import Lattice, lattice_of
from eoray.reading.window import asset_resolution_m

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene

_HINT = "say `cube.warp: true` to resample, or leave items out with source.query"


def check_grids(
    scenes: Sequence[Scene], bands: Sequence[str], *, warp: bool, grid: Lattice | None = None
) -> None:
    """Refuse scenes that could only be read by resampling, unless that is wanted.

    Args:
        scenes: What a plan reads.
        bands: Band ids that it reads.
        warp: Whether resampling is allowed.
        grid: The user's grid; None for the world grid, where only scenes of a zone can misfit.

    Raises:
        GridError: Names the first item that does not fit, and by how much; for two items of one
            pixel size that do not fit each other, the part of a pixel between them.
    """
    for scene in scenes:
        _check_extents(scene, bands)
    if warp:
        return
    found = {scene: _misfit(scene, bands, grid) for scene in scenes}
    misfits = [scene for scene, why in found.items() if why is not None]
    if not misfits:
        return
    first = misfits[0]
    message = f"item {first.item_id}: {found[first]}"
    for other in misfits[1:]:
        between = _between(first.asset(bands[0]), other.asset(bands[0]))
        if between is not None and first.grid_epsg == other.grid_epsg:
            dx, dy = between
            message += (
                f"; item {other.item_id} lies {dx:g}, {dy:g} of a pixel (x, y) off it, so both "
                "fit no common grid either"
            )
            break
    raise GridError(f"{message}; {_HINT}")


def _misfit(scene: Scene, bands: Sequence[str], grid: Lattice | None) -> str | None:
    """What keeps a scene's files from being copied; None when nothing does."""
    if grid is None and scene.zone is None:
        return None
    lattice = lattice_of(scene.zone or 1) if grid is None else grid
    if scene.grid_epsg != lattice.epsg:
        return f"its files lie in EPSG:{scene.epsg}, {lattice.label} in EPSG:{lattice.epsg}"
    for asset in (*(scene.asset(band) for band in bands), scene.extent):
        band, resolution_m = asset.band, lattice.level(asset_resolution_m(asset))
        dx, dy = lattice.misfit_px(asset.transform, resolution_m)
        if math.isnan(dx):
            size = lattice.size_text(resolution_m)
            return f"{band} has pixels of {asset.transform[0]:g} m, not {size}"
        if (dx, dy) != (0.0, 0.0):
            return f"{band} lies {dx:.3f}, {dy:.3f} of a pixel (x, y) off {lattice.label}"
    return None


def _between(one: BandAsset, other: BandAsset) -> tuple[float, float] | None:
    """(x, y) part of a pixel between two lattices of one pixel size; None where they agree."""
    size = one.transform[0]
    if other.transform[0] != size:
        return None
    dx = ((other.transform[2] - one.transform[2]) / size) % 1.0
    dy = ((other.transform[5] - one.transform[5]) / size) % 1.0
    return None if (dx, dy) == (0.0, 0.0) else (round(dx, 6), round(dy, 6))


def _check_extents(scene: Scene, bands: Sequence[str]) -> None:
    """All files of an item must cover the same ground, or masks would lie beside their pixels."""
    scl = scene.extent
    for band in bands:
        asset = scene.asset(band)
        # a 110 km granule of 20 m pixels may end half a coarse pixel beside one of 10 m
        slack = max(abs(scl.transform[0]), abs(asset.transform[0]))
        apart = [abs(a - b) for a, b in zip(_bounds(scl), _bounds(asset), strict=True)]
        if max(apart) > slack:
            raise GridError(
                f"{scl.band} of item {scene.item_id} has shape {scl.shape} and covers "
                f"{_bounds(scl)}, but {band} has {asset.shape} and covers {_bounds(asset)}; "
                "mend proj:shape and proj:transform of the item, or leave it out with source.query"
            )


def _bounds(asset: BandAsset) -> tuple[float, float, float, float]:
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    return c, f + e * height, c + a * width, f
