"""How far granules of one datatake differ where both saw the ground.

Each pixel of a date has one granule, and where two meet there is a seam: the atmosphere was
corrected granule by granule. What they differ by in their overlap is the floor of every seam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.grid import PixelWindow
from eoray.reading.window import AssetWindow, asset_resolution_m, is_copied, read_asset
from eoray.sentinel2 import Scl

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.grid import Tile

EDGE_PX = 256
"""Longest edge of what is read of an overlap, in pixels of SCL: 5 km."""

CLEAR = (Scl.VEGETATION, Scl.BARE, Scl.WATER)

_LEAST = 100
"""Fewer pixels of SCL tell nothing."""


@dataclass(frozen=True, slots=True)
class BandDifference:
    """Second granule less first, in units of 1e-4, where both are clear."""

    mean: float
    """What a seam shows: the error of the correction."""
    p95: float
    """Of the absolute difference of single pixels."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two granules of a datatake in one tile."""

    datatake: str
    granules: tuple[str, str]
    tile: str
    pixels: int
    """Of SCL, valid in both granules."""
    clear: int
    """Those that both call clear: bands are compared there."""
    scl_differs: float
    """Share of ``pixels`` with another class."""
    bands: dict[str, BandDifference] = field(default_factory=dict)
    """Empty where too little is clear."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def pairs_of(scenes: Sequence[Scene], tile: Tile) -> Iterator[tuple[Scene, Scene]]:
    """Scenes of two granules that are copied to the tile and meet in it."""
    usable = (s for s in scenes if is_copied(s, tile.zone) and s.extent.band == "SCL")
    copied = sorted(usable, key=lambda s: s.item_id)
    for first, second in combinations(copied, 2):
        common = _common(first, second, tile)
        if first.granule != second.granule and min(common.height, common.width) > 0:
            yield first, second


def compare_granules(first: Scene, second: Scene, tile: Tile, bands: Sequence[str]) -> Overlap:
    """Compare two granules of a datatake in the middle of their overlap within a tile.

    Args:
        first: Item whose files fit the tile's grid.
        second: Another one of the same datatake.
        tile: Reached by both.
        bands: Compared where both have them and call the ground clear.

    Raises:
        ReadError: A file cannot be read.
    """
    coarse = tile.lattice.coarse
    window = _common(first, second, tile)
    classes = [_read(scene, scene.extent, tile, window, coarse) for scene in (first, second)]
    both = (classes[0] != Scl.NO_DATA) & (classes[1] != Scl.NO_DATA)
    clear = np.isin(classes[0], CLEAR) & np.isin(classes[1], CLEAR)
    n_both, n_clear = int(both.sum()), int(clear.sum())
    differs = int((both & (classes[0] != classes[1])).sum()) / n_both if n_both else 0.0
    compared = {
        band: difference
        for band in (bands if n_clear >= _LEAST else ())
        if (difference := _compare_band(first, second, tile, band, window, clear)) is not None
    }
    names = first.granule or first.item_id, second.granule or second.item_id
    return Overlap(first.datatake, names, tile.id, n_both, n_clear, round(differs, 4), compared)


def summarise_overlaps(overlaps: Sequence[Overlap]) -> dict[str, dict[str, float]]:
    """Sum up by band: mean size of the shift between granules, largest one, and mean p95.

    Args:
        overlaps: Of any datatakes; those without clear ground do not count.

    Returns:
        Band -> ``datatakes, shift, shift_max, p95``, differences in units of 1e-4.
    """
    bands = dict.fromkeys(band for one in overlaps for band in one.bands)
    summary = {}
    for band in bands:
        of_band = [one.bands[band] for one in overlaps if band in one.bands]
        shifts = [abs(one.mean) for one in of_band]
        summary[band] = {
            "datatakes": float(len(of_band)),
            "shift": round(float(np.mean(shifts)), 1),
            "shift_max": round(max(shifts), 1),
            "p95": round(float(np.mean([one.p95 for one in of_band])), 1),
        }
    return summary


def _compare_band(
    first: Scene, second: Scene, tile: Tile, band: str, window: PixelWindow, clear: np.ndarray
) -> BandDifference | None:
    assets = first.asset(band), second.asset(band)
    level = tile.lattice.level(asset_resolution_m(assets[0]))
    factor = tile.lattice.coarse // level
    fine = PixelWindow(
        window.row_off * factor, window.col_off * factor, len(clear) * factor,
        clear.shape[1] * factor,
    )  # fmt: skip
    a, b = (
        _read(scene, asset, tile, fine, level).astype(np.int32)
        for scene, asset in zip((first, second), assets, strict=True)
    )
    compared = clear.repeat(factor, axis=0).repeat(factor, axis=1) & (a > 0) & (b > 0)
    if not compared.any():
        return None
    difference = ((b + second.dn_offset) - (a + first.dn_offset))[compared]
    return BandDifference(
        round(float(difference.mean()), 1), round(float(np.quantile(np.abs(difference), 0.95)), 1)
    )


def _read(
    scene: Scene, asset: BandAsset, tile: Tile, window: PixelWindow, resolution_m: int
) -> np.ndarray:
    return read_asset(AssetWindow(scene, asset, tile.zone, window, resolution_m))


def _common(first: Scene, second: Scene, tile: Tile) -> PixelWindow:
    """The middle of what two files and a tile share, in pixels of SCL; without area if nothing."""
    lattice = tile.lattice
    whole = tile.window(lattice.coarse)
    top, left = whole.row_off, whole.col_off
    bottom, right = top + whole.height, left + whole.width
    for asset in (first.extent, second.extent):
        a, _, c, _, e, f = asset.transform
        bounds = (c, f + e * asset.shape[0], c + a * asset.shape[1], f)
        box = lattice.box(bounds, lattice.coarse)
        top, left = max(top, box[0]), max(left, box[1])
        bottom, right = min(bottom, box[2]), min(right, box[3])
    height, width = max(0, bottom - top), max(0, right - left)
    rows, cols = min(height, EDGE_PX), min(width, EDGE_PX)
    return PixelWindow(top + (height - rows) // 2, left + (width - cols) // 2, rows, cols)
