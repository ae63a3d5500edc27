"""Changes of the ground: irregular patches with a day, a kind, and segments of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from eoray.testing.land import CLASS_OF, Land, Material
from eoray.testing.noise import generator, smooth_field
from eoray.testing.options import ArchiveOptions

CELLS_PER_PIXEL = 16
SIZE_PX = (1.0, 500.0)
"""Wanted sizes of a patch in pixels of 10 m, drawn evenly over their logarithm."""

_TREES = (Material.SPRUCE, Material.PINE, Material.BEECH, Material.OAK, Material.YOUNG)
_FIELDS = (Material.CROP, Material.MEADOW, Material.HAY, Material.PASTURE)
_ELIGIBLE = {1: _TREES, 2: _FIELDS, 3: _TREES, 4: _TREES[:4]}
"""Where each kind may happen (clear-cut, building, fire, decline)."""

_CLASS_AFTER = {1: 5, 2: 6, 3: 7, 4: 0}
"""Class id after a change; 0 keeps the class, since a thinned forest is still one."""

_DECLINE_DAYS = (300, 540)


@dataclass(frozen=True, slots=True)
class Patch:
    """One change."""

    id: int
    """From 1."""
    kind: int
    """Position in ``CHANGE_KINDS``, from 1."""
    start: date
    """Day of the event; onset where it is slow."""
    end: date
    """Day when it is complete: the same, but for a decline and the months of a building site."""
    n_cells: int
    """Cells of 2.5 m."""

    @property
    def area_px(self) -> float:
        """Area in pixels of 10 m."""
        return self.n_cells / CELLS_PER_PIXEL


@dataclass(frozen=True, slots=True)
class ChangedLand:
    """A ground whose changing parts are segments of their own."""

    land: Land
    patch: np.ndarray
    """Dims (segment), int32: id of the patch that the segment belongs to, 0 none."""
    patches: tuple[Patch, ...]

    def class_after(self) -> np.ndarray:
        """Class id of each segment at the end, uint8, dims (segment)."""
        after = self.land.classes.copy()
        for patch in self.patches:
            if _CLASS_AFTER[patch.kind]:
                after[self.patch == patch.id] = _CLASS_AFTER[patch.kind]
        return after


def add_changes(land: Land, options: ArchiveOptions, seed: int) -> ChangedLand:
    """Cut patches out of the ground until the wanted share of land changes.

    The cut is the same with and without ``options.change``, so that both archives render the
    same numbers wherever nothing happens.

    Args:
        land: Ground; its segment ids are not altered in place.
        options: ``change_share`` and ``years``.
        seed: Of the site.
    """
    rng = generator(seed, "patches")
    segment = land.segment.astype(np.uint32)
    material, key = list(land.material), list(land.key)
    owner: list[int] = [0] * len(material)
    patches: list[Patch] = []
    wanted = _wanted_sizes(land, options, rng)
    for size in wanted:
        kind = int(rng.choice((1, 2, 3, 4), p=(0.36, 0.24, 0.18, 0.22)))
        place = _find_place(segment, material, owner, kind, rng)
        start, end = _draw_days(kind, options, rng)
        if place is None:
            continue
        window, blob = _grow(segment, np.array(material), np.array(owner), place, size, kind, rng)
        number = len(patches) + 1
        cells = segment[window]
        for parent in np.unique(cells[blob]):
            cells[blob & (cells == parent)] = len(material)
            material.append(material[parent])
            key.append(key[parent])
            owner.append(number)
        patches.append(Patch(number, kind, start, end, int(blob.sum())))
    changed = Land(
        land.frame,
        segment.astype(np.uint16) if len(material) < 60_000 else segment,
        np.array(material, np.uint8),
        np.array(key, np.int64),
        land.wetness_m,
    )
    if not options.change:
        return ChangedLand(changed, np.zeros(len(material), np.int32), ())
    return ChangedLand(changed, np.array(owner, np.int32), tuple(patches))


def _wanted_sizes(land: Land, options: ArchiveOptions, rng: np.random.Generator) -> list[float]:
    n_land = int((CLASS_OF[land.material] != 1)[land.segment[::8, ::8]].sum()) * 64
    budget = n_land / CELLS_PER_PIXEL * options.change_share
    low, high = np.log(SIZE_PX[0]), np.log(min(SIZE_PX[1], max(budget / 3, 2.0)))
    sizes: list[float] = []
    while sum(sizes) < budget:
        sizes.append(float(np.exp(rng.uniform(low, high))))
    return sizes[:-1]


def _find_place(
    segment: np.ndarray, material: list[int], owner: list[int], kind: int, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Draw places until one may change so; the share of land that may is some ten per cent."""
    rows, cols = segment.shape
    for _ in range(200):
        row, col = int(rng.integers(8, rows - 8)), int(rng.integers(8, cols - 8))
        there = segment[row, col]
        if material[there] in _ELIGIBLE[kind] and not owner[there]:
            return row, col
    return None


def _draw_days(kind: int, options: ArchiveOptions, rng: np.random.Generator) -> tuple[date, date]:
    """Draw the days of a change, a year after the archive begins where it is long enough."""
    first, last = date(options.years[0], 1, 1), date(options.years[-1], 12, 31)
    span = (last - first).days
    earliest = 400 if span > 800 else span // 3
    start = first + timedelta(days=int(rng.integers(earliest, span - span // 12)))
    if kind == 4:
        return start, start + timedelta(days=int(rng.integers(*_DECLINE_DAYS)))
    if kind == 2:
        return start, start + timedelta(days=int(rng.integers(50, 130)))
    return start, start


def _grow(
    segment: np.ndarray,
    material: np.ndarray,
    owner: np.ndarray,
    place: tuple[int, int],
    size_px: float,
    kind: int,
    rng: np.random.Generator,
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Grow a ragged blob around a place, within what may change so.

    Returns:
        Window of the ground and the blob in it, bool.
    """
    wanted = max(round(size_px * CELLS_PER_PIXEL), CELLS_PER_PIXEL)
    reach = int(2.4 * np.sqrt(wanted / np.pi)) + 4
    rows = slice(max(place[0] - reach, 0), place[0] + reach + 1)
    cols = slice(max(place[1] - reach, 0), place[1] + reach + 1)
    cells = segment[rows, cols]
    y = np.arange(rows.start, rows.start + cells.shape[0])[:, None] - place[0]
    x = np.arange(cols.start, cols.start + cells.shape[1])[None, :] - place[1]
    stretch = np.exp(rng.uniform(-0.35, 0.35))
    distance = np.hypot(y * stretch, x / stretch) / reach
    ragged = smooth_field(rng, cells.shape, max(reach / 6, 1.0))
    score = distance + 0.13 * ragged
    score[place[0] - rows.start, place[1] - cols.start] = -9.0
    may = np.isin(material, _ELIGIBLE[kind]) & (owner == 0)
    score[~may[cells]] = np.inf
    n = min(wanted, int(np.isfinite(score).sum()))
    limit = np.partition(score.ravel(), n - 1)[n - 1]
    return (rows, cols), np.asarray(score <= limit)
