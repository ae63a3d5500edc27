"""Stratified estimators of accuracy and area with their standard errors.

Everything is one ratio estimator over the strata (Stehman 2014), so that the strata may differ
from the classes of the map. Where they are the classes, and all pixels have one size, it gives the
formulas of Olofsson et al. 2014 digit for digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eoray.assess.design import SampleDesign
from eoray.errors import DataError

Z95 = 1.96
"""Half-width of a 95 % interval in standard errors, as in the published tables."""

FEW_POINTS = 50
"""Strata with fewer points get a warning: normal intervals cover too rarely there."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its standard error; NaN where the sample cannot say."""

    value: float
    standard_error: float

    @property
    def half_width(self) -> float:
        """Half of the 95 % confidence interval."""
        return Z95 * self.standard_error

    def to_dict(self) -> dict[str, float | None]:
        """Return value, standard error and half-width; None where not finite."""
        values = {
            "value": self.value,
            "standard_error": self.standard_error,
            "ci95_half_width": self.half_width,
        }
        return {key: value if math.isfinite(value) else None for key, value in values.items()}


@dataclass(frozen=True, slots=True)
class AccuracyTable:
    """Accuracy of a map and areas of its classes, estimated from one probability sample."""

    classes: Mapping[int, str]
    """Class id to name, in the order of every tuple and matrix below."""
    counts: np.ndarray
    """Sample pixels, dims (map class, reference class), int64: not weighted, for the record."""
    proportions: np.ndarray
    """Estimated share of the frame's area, dims (map class, reference class), float64, sum 1."""
    overall: Estimate
    users: tuple[Estimate, ...]
    """Of what the map calls a class, the share that is that class (1 - commission error)."""
    producers: tuple[Estimate, ...]
    """Of what is a class, the share that the map calls so (1 - omission error)."""
    areas_m2: tuple[Estimate, ...]
    """Area of each class in the reference, m2."""
    frame_m2: float
    """True ground area that the sample stands for."""
    warnings: tuple[str, ...] = ()
    """What makes the intervals less trustworthy than they look."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; areas in m2."""
        per_class = [
            {
                "id": class_id,
                "name": name,
                "users_accuracy": self.users[i].to_dict(),
                "producers_accuracy": self.producers[i].to_dict(),
                "area_m2": self.areas_m2[i].to_dict(),
            }
            for i, (class_id, name) in enumerate(self.classes.items())
        ]
        return {
            "overall_accuracy": self.overall.to_dict(),
            "classes": per_class,
            "error_matrix_counts": self.counts.tolist(),
            "error_matrix_proportions": self.proportions.tolist(),
            "frame_m2": self.frame_m2,
            "warnings": list(self.warnings),
        }


def estimate_accuracy(
    design: SampleDesign | None,
    *,
    classes: Mapping[int, str],
    stratum: np.ndarray,
    mapped: np.ndarray,
    reference: np.ndarray,
    area_m2: np.ndarray | None = None,
    finite_population: bool = True,
) -> AccuracyTable:
    """Estimate accuracy and areas from the answers to a stratified random sample.

    Args:
        design: Record of the sample. Strata may be other than the map's classes.
        classes: Class id to name; the order of all results.
        stratum: Stratum id of each answered pixel, dims (n).
        mapped: Class id in the map, dims (n).
        reference: Class id in the reference, dims (n).
        area_m2: True area of each pixel, dims (n); calibrated to the stratum's area, so that
            estimated areas sum to the frame. Equal within a stratum when left out.
        finite_population: Multiply variances by 1 - n/N, which is right for a sample without
            replacement; the published worked tables leave it out.

    Raises:
        DataError: No design, a class or stratum that is not listed, or a stratum with fewer than
            two answers (unless it was sampled whole).

    Source:
        Stehman 2014, Int. J. Remote Sensing 35:4923-4939, equations 26 to 28; Olofsson et al.
        2014, Remote Sensing of Environment 148:42-57, equations 4 to 11.
    """
    if design is None:
        raise DataError(
            "no design record was given, so areas and accuracies cannot be estimated; draw the "
            "sample with `draw_sample`, or report a validation score instead"
        )
    ids = np.array(list(classes))
    strata = np.array([part.id for part in design.strata])
    h = _positions(stratum, strata, "stratum")
    i, j = _positions(mapped, ids, "mapped class"), _positions(reference, ids, "reference class")
    frame = _Frame.of(design, h, area_m2, finite_population=finite_population)
    is_mapped = np.eye(len(ids), dtype=bool)[i].T
    is_reference = np.eye(len(ids), dtype=bool)[j].T
    a = frame.unit
    counts = np.zeros((len(ids), len(ids)), "i8")
    np.add.at(counts, (i, j), 1)
    both = is_mapped & is_reference
    shares = tuple(frame.ratio(a * row, a) for row in is_reference)
    return AccuracyTable(
        classes=dict(classes),
        counts=counts,
        proportions=frame.proportions(i, j, len(ids)),
        overall=frame.ratio(a * (i == j), a),
        users=tuple(frame.ratio(a * y, a * x) for y, x in zip(both, is_mapped, strict=True)),
        producers=tuple(frame.ratio(a * y, a * x) for y, x in zip(both, is_reference, strict=True)),
        areas_m2=tuple(_scaled(share, design.area_m2) for share in shares),
        frame_m2=design.area_m2,
        warnings=_warnings(design, h, i, j),
    )


def estimate_from_counts(
    counts: Sequence[Sequence[int]] | np.ndarray,
    design: SampleDesign,
    classes: Mapping[int, str],
    *,
    finite_population: bool = True,
) -> AccuracyTable:
    """Estimate from an error matrix of counts whose rows are strata and map classes at once.

    Args:
        counts: Sample pixels, dims (stratum = map class, reference class).
        design: Strata in the order of the rows; their ids are class ids.
        classes: Class id to name, in the order of rows and columns.
        finite_population: As in ``estimate_accuracy``.

    Raises:
        DataError: The matrix does not fit the classes, or as in ``estimate_accuracy``.
    """
    matrix = np.asarray(counts)
    if matrix.shape != (len(classes), len(design.strata)) or matrix.shape[0] != matrix.shape[1]:
        raise DataError(
            f"error matrix has shape {matrix.shape} but there are {len(design.strata)} strata and "
            f"{len(classes)} classes; give one row per stratum and one column per class"
        )
    rows, cols = np.indices(matrix.shape)
    ids, repeats = np.array(list(classes)), matrix.ravel()
    mapped = np.repeat(ids[rows.ravel()], repeats)
    return estimate_accuracy(
        design,
        classes=classes,
        stratum=mapped,
        mapped=mapped,
        reference=np.repeat(ids[cols.ravel()], repeats),
        finite_population=finite_population,
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """Weights of the strata and of the sampled pixels."""

    h: np.ndarray
    """Position of each pixel's stratum, dims (n)."""
    N: np.ndarray
    """Pixels per stratum."""
    n: np.ndarray
    """Answered pixels per stratum."""
    unit: np.ndarray
    """Area of each sampled pixel, m2, with the stratum's true mean."""
    correction: np.ndarray
    """1 - n/N per stratum, or ones."""

    @classmethod
    def of(
        cls,
        design: SampleDesign,
        h: np.ndarray,
        area_m2: np.ndarray | None,
        *,
        finite_population: bool,
    ) -> _Frame:
        N = np.array([part.n_pixels for part in design.strata], "f8")
        n = np.bincount(h, minlength=len(N)).astype("f8")
        for part, drawn in zip(design.strata, n, strict=True):
            if drawn < 2 and drawn < part.n_pixels:
                raise DataError(
                    f"stratum {part.name!r} ({part.id}) has {int(drawn)} answered pixels of "
                    f"{part.n_pixels}; two at least give a variance: draw more, or merge strata"
                )
        mean = np.array([part.area_m2 for part in design.strata]) / N
        unit = mean[h]
        if area_m2 is not None:
            own = np.asarray(area_m2, "f8")
            unit = own * (mean * n / np.bincount(h, own, minlength=len(N)))[h]
        correction = 1.0 - n / N if finite_population else np.ones_like(N)
        return cls(h, N, n, unit, correction)

    def total(self, y: np.ndarray) -> float:
        """Expand a value of the sampled pixels to the frame."""
        return float((self.N / self.n) @ np.bincount(self.h, y, minlength=len(self.N)))

    def ratio(self, y: np.ndarray, x: np.ndarray) -> Estimate:
        """Combined ratio of two totals, linearised: the variance is that of y - R x."""
        bottom = self.total(x)
        if bottom == 0:
            return Estimate(math.nan, math.nan)
        value = self.total(y) / bottom
        residual = y - value * x
        mean = np.bincount(self.h, residual, minlength=len(self.N)) / self.n
        square = np.bincount(self.h, (residual - mean[self.h]) ** 2, minlength=len(self.N))
        spread = square / np.maximum(self.n - 1, 1)
        variance = float((self.N**2 * self.correction / self.n) @ spread)
        return Estimate(value, math.sqrt(max(variance, 0.0)) / bottom)

    def proportions(self, i: np.ndarray, j: np.ndarray, size: int) -> np.ndarray:
        weight = self.unit * (self.N / self.n)[self.h]
        table = np.bincount(i * size + j, weight, minlength=size * size)
        return np.asarray((table / table.sum()).reshape(size, size))


def _scaled(share: Estimate, total: float) -> Estimate:
    return Estimate(share.value * total, share.standard_error * total)


def _positions(values: np.ndarray, known: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values)
    order = np.argsort(known)
    at = np.clip(np.searchsorted(known[order], values), 0, len(known) - 1)
    strange = np.unique(values[known[order][at] != values])
    if strange.size:
        raise DataError(
            f"{what} {strange.tolist()} of the sample is not one of {known.tolist()}; list every "
            "value, or translate the reference before it is compared"
        )
    return np.asarray(order[at])


def _warnings(design: SampleDesign, h: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[str, ...]:
    found = []
    for k, part in enumerate(design.strata):
        inside = h == k
        n = int(inside.sum())
        if n == part.n_pixels:
            continue
        if n < FEW_POINTS:
            found.append(
                f"stratum {part.name!r} has {n} points, fewer than {FEW_POINTS}: "
                "its 95 % intervals may cover the truth more rarely than stated"
            )
        if (i[inside] == j[inside]).all():
            found.append(
                f"stratum {part.name!r} has {n} points and no disagreement: its standard error "
                "is 0 by formula; with 95 % confidence up to "
                f"{100 * (1 - 0.05 ** (1 / n)):.1f} % of it may be wrong"
            )
    return tuple(found)
