"""Which items of one pass and granule are the same pixels twice, and which are its two halves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from eoray.catalog.lineage import Lineage
    from eoray.catalog.scene import Scene

SAME_FOOTPRINT = 0.9
"""Mutual overlap from which two footprints are one."""

_NODATA_PCT = 5.0
"""Items whose no-data shares differ by more hold different pixels, whatever their outlines say."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scene with what decides whether another one repeats it."""

    scene: Scene
    outline: BaseGeometry
    """Lon/lat, cut at the antimeridian."""
    datastrip_start: str
    nodata_pct: float


def choose_processings(
    candidates: Sequence[Candidate], lineage: Lineage
) -> tuple[list[Candidate], list[tuple[Candidate, Candidate]]]:
    """Keep one processing of every datatake, granule and datastrip.

    The preferred one is of the lineage's provider and baselines, then generated last. Others of
    the same datatake and granule go where they repeat a kept one: the same datastrip, outlines
    that cover each other by 90 %, or another baseline's item that kept ones cover together.
    Halves of a datatake that was split into datastrips stay, to be mosaicked.

    Returns:
        The kept candidates, and (dropped, the kept one that it repeats); neither depends on the
        order of ``candidates``.
    """
    groups: dict[tuple[str, str, str], list[Candidate]] = {}
    for one in candidates:
        scene = one.scene
        alone = scene.item_id if not scene.granule else ""
        groups.setdefault((scene.datatake, scene.granule, alone), []).append(one)
    kept: list[Candidate] = []
    dropped: list[tuple[Candidate, Candidate]] = []
    for key in sorted(groups):
        here: list[Candidate] = []
        for one in sorted(groups[key], key=lambda c: _rank(c, lineage), reverse=True):
            winner = _repeated(one, here)
            if winner is None:
                here.append(one)
            else:
                dropped.append((one, winner))
        kept += here
    return kept, dropped


def _rank(one: Candidate, lineage: Lineage) -> tuple[bool, bool, str, str, str]:
    scene = one.scene
    return (
        scene.provider == lineage.provider,
        lineage.includes(scene.baseline),
        scene.generation_time,
        scene.baseline,
        scene.item_id,
    )


def _repeated(one: Candidate, kept: Sequence[Candidate]) -> Candidate | None:
    for other in kept:
        if _same_pixels(one, other):
            return other
    others = [other for other in kept if other.scene.baseline != one.scene.baseline]
    if others and _is_covered(one.outline, others):
        return others[0]
    return None


def _same_pixels(one: Candidate, other: Candidate) -> bool:
    if one.datastrip_start and one.datastrip_start == other.datastrip_start:
        return True
    gap = abs(one.nodata_pct - other.nodata_pct)
    if not math.isnan(gap) and gap > _NODATA_PCT:
        return False
    shared = one.outline.intersection(other.outline).area
    return bool(shared >= SAME_FOOTPRINT * max(one.outline.area, other.outline.area))


def _is_covered(outline: BaseGeometry, others: Sequence[Candidate]) -> bool:
    """Tell whether items together hold nearly all of an outline; their no-data share counts."""
    import shapely

    union = shapely.union_all([other.outline for other in others])
    if float(outline.intersection(union).area) < SAME_FOOTPRINT * outline.area:
        return False
    drawn_whole = [o for o in others if o.nodata_pct > _NODATA_PCT and o.outline.covers(outline)]
    return len(drawn_whole) < len(others)
