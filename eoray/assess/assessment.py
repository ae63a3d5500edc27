"""From a map to its accuracy and areas: draw, ask the reference, estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eoray.assess.area import AccuracyTable, estimate_accuracy
from eoray.assess.design import SamplePlan
from eoray.assess.sample import ReadTile, Sample, draw_sample
from eoray.errors import DataError
from eoray.grid import Tile, owner_mask, pixel_area_m2

Reference = Callable[[Sample], np.ndarray]
"""Gives the reference class id of each point, dims (n); 0 where it cannot tell."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Accuracy and area estimates of a map, with everything needed to judge them."""

    sample: Sample
    table: AccuracyTable
    n_unanswered: int
    """Points that the reference could not tell; left out, as if missing at random."""
    mapped_m2: Mapping[int, float]
    """Class id to true area of the owned pixels that the map gives it: the biased figure."""

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``assess.json``: plain values, areas in m2."""
        document = self.table.to_dict()
        for row in document["classes"]:
            row["mapped_area_biased_m2"] = self.mapped_m2.get(row["id"], 0.0)
        return {
            "kind": "accuracy and area estimate from a probability sample",
            "design": self.sample.design.to_dict(),
            "n_points": len(self.sample),
            "n_unanswered": self.n_unanswered,
            **document,
        }


def assess_map(
    tiles: Sequence[Tile],
    read: ReadTile,
    reference: Reference,
    *,
    classes: Mapping[int, str],
    strata: Mapping[int, str] | None = None,
    plan: SamplePlan | None = None,
) -> Assessment:
    """Estimate the accuracy of a map and the area of its classes.

    Args:
        tiles: Tiles of the map.
        read: Gives classes (and strata, where they differ) of one tile.
        reference: Answers the sample; better than the map, and not used to make it.
        classes: Class id to name, for map and reference.
        strata: Stratum id to name; the classes when left out.
        plan: Size and seed of the sample; 600 points, 50 at least per stratum, when left out.

    Raises:
        DataError: Nothing is mapped, or the reference answers too little or something unknown.
    """
    plan = plan or SamplePlan()
    sample = draw_sample(tiles, read, plan, names=strata or classes)
    answers = np.asarray(reference(sample))
    if answers.shape != (len(sample),):
        raise DataError(
            f"the reference gave {answers.shape} answers to {len(sample)} points; give one class "
            "id per point, 0 where it cannot tell"
        )
    table = estimate_answers(sample, answers, classes=classes)
    return Assessment(
        sample=sample,
        table=table,
        n_unanswered=int((answers == 0).sum()),
        mapped_m2=mapped_areas(tiles, read, resolution_m=plan.resolution_m),
    )


def estimate_answers(
    sample: Sample, answers: np.ndarray, *, classes: Mapping[int, str]
) -> AccuracyTable:
    """Estimate from a sample whose answers came in, 0 marking points that nobody could tell.

    Raises:
        DataError: A stratum has too few answers, or an answer is not one of ``classes``.
    """
    told = answers != 0
    return estimate_accuracy(
        sample.design,
        classes=classes,
        stratum=sample.stratum[told],
        mapped=sample.mapped[told],
        reference=answers[told],
        area_m2=sample.area_m2[told],
    )


def mapped_areas(
    tiles: Sequence[Tile], read: ReadTile, *, resolution_m: int = 10
) -> dict[int, float]:
    """Add up what the map calls each class: true area of owned pixels, m2, biased by its errors."""
    total = np.zeros(256)
    for tile in sorted(set(tiles)):
        owned = owner_mask(tile, resolution_m)
        area = pixel_area_m2(tile, resolution_m)[owned]
        total += np.bincount(read(tile).classes[owned], area, minlength=256)
    return {int(k): float(total[k]) for k in np.flatnonzero(total) if k > 0}
