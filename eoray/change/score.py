"""Scores of detected breaks against a truth that is known everywhere (synthetic archives only).

These are validation scores of pixels, not design-based estimates of accuracy or area.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from eoray.errors import GridError

EARLY_DAYS = 30
"""A detection this long before the truth still counts: dates are read between observations."""
LATE_DAYS = 365
"""A detection this long after an abrupt change still counts."""
LATE_GRADUAL_DAYS = 905
"""The same for a slow change, counted from its onset: 540 days of decline and a year."""

PATCH_SIZES = ((1, 1), (2, 5), (6, 20), (21, 100), (101, None))
"""Classes of patch size in pixels, ends included."""

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Edges of the classes of changed share of a pixel."""


@dataclass(frozen=True, slots=True)
class ChangeScore:
    """How breaks agree with the truth, pixel by pixel."""

    n_pixels: int
    """Pixels that were judged."""
    n_changed: int
    """Of these, pixels that changed."""
    true_positives: int
    """Changed pixels with a detection in the window around the true date."""
    false_positives: int
    """Stable pixels with a detection, changed ones with one before, or only after, the window."""
    false_negatives: int
    """Changed pixels without a detection in the window."""
    precision: float
    recall: float
    f1: float
    false_alarm_share: float
    """Share of stable pixels with any detection."""
    precision_at_1pct: float
    """Precision if 1 % of the pixels changed, at this recall and false alarm share."""
    date_error_median_days: float
    """Median |detected - true| over abrupt true positives."""
    date_error_p90_days: float
    date_bias_days: float
    """Median of detected - true: positive is late."""
    bracket_hit_share: float
    """Share of abrupt true positives whose true date lies in (date_lo, date_hi]."""
    recall_by_patch: Mapping[str, float]
    """Recall of pixels by size of their patch, ``"2-5"`` etc."""
    recall_by_fraction: Mapping[str, float]
    """Recall by the changed share of the pixel, ``"0.25-0.5"`` etc."""
    recall_by_kind: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ChangeTruth:
    """What really changed; all arrays have dims (y, x)."""

    date: np.ndarray
    """Integer, days since 1970-01-01 of the change or of its onset; 0 where nothing changed."""
    gradual: np.ndarray
    """True where the change was slow."""
    patch: np.ndarray | None = None
    """Integer ids of patches, 0 outside; None: connected pixels (8 neighbours) of one date."""
    fraction: np.ndarray | None = None
    """Share of the pixel that changed, 0-1."""
    kind: np.ndarray | None = None
    """Names of the kinds of change, "" outside."""


def score_breaks(
    arrays: Mapping[str, np.ndarray], truth: ChangeTruth, *, judged: np.ndarray | None = None
) -> ChangeScore:
    """Compare breaks with the truth.

    A detection is right when its first anomalous observation (``date_hi``) lies from 30 days before
    to 365 days after the change (905 for a slow one); the date error is that of ``date_est``.
    Detections that follow a right one are not counted: land that changed goes on changing.

    Args:
        arrays: ``date_lo``, ``date_hi``, ``date_est`` as ``detect_breaks`` returns them.
        truth: What changed.
        judged: True where a pixel counts, dims (y, x), such as those monitored; None: all.

    Raises:
        GridError: Shapes differ.

    Source:
        Omission and commission of pixels as Zhu et al. 2020 count them (Remote Sensing of
        Environment 238, 111116), with the date error apart.
    """
    seen = np.asarray(arrays["date_hi"]).astype(np.int64)
    if seen.shape[1:] != truth.date.shape:
        raise GridError(
            f"breaks have shape {seen.shape[1:]} but the truth {truth.date.shape}; "
            "resample the truth to the pixel of the change product"
        )
    use = np.ones(truth.date.shape, bool) if judged is None else judged.astype(bool)
    when = truth.date.astype(np.int64)
    changed = (when > 0) & use
    stable = (when == 0) & use
    found = seen > 0
    late = np.where(truth.gradual, LATE_GRADUAL_DAYS, LATE_DAYS)
    inside = found & (seen >= when - EARLY_DAYS) & (seen <= when + late) & changed
    hit = inside.any(axis=0)
    early = (found & (seen < when - EARLY_DAYS)).any(axis=0) & changed
    beside = changed & ~hit & found.any(axis=0)
    wrong = stable & found.any(axis=0)
    tp, fn = int(hit.sum()), int((changed & ~hit).sum())
    fp = int((wrong | early | beside).sum())
    recall = _ratio(tp, tp + fn)
    alarm = _ratio(int(wrong.sum()), int(stable.sum()))
    error, within = _dates(arrays, inside, hit & ~truth.gradual, when)
    return ChangeScore(
        n_pixels=int(use.sum()),
        n_changed=int(changed.sum()),
        true_positives=tp,
        false_positives=fp,
        false_negatives=fn,
        precision=_ratio(tp, tp + fp),
        recall=recall,
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        false_alarm_share=alarm,
        precision_at_1pct=reweight_precision(recall, alarm, prevalence=0.01),
        date_error_median_days=float(np.median(np.abs(error))) if error.size else float("nan"),
        date_error_p90_days=float(np.percentile(np.abs(error), 90)) if error.size else float("nan"),
        date_bias_days=float(np.median(error)) if error.size else float("nan"),
        bracket_hit_share=within,
        recall_by_patch=_by_patch(truth, changed, hit),
        recall_by_fraction=_by_fraction(truth, changed, hit),
        recall_by_kind=_by_kind(truth, changed, hit),
    )


def reweight_precision(recall: float, false_alarm_share: float, *, prevalence: float) -> float:
    """Precision that these rates give where a share ``prevalence`` of the land changed (Bayes).

    Args:
        recall: Share of changed pixels found.
        false_alarm_share: Share of stable pixels flagged.
        prevalence: Share of pixels that changed, 0-1.
    """
    right = recall * prevalence
    return _ratio(right, right + false_alarm_share * (1 - prevalence))


def score_no_change(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Commission on an archive in which nothing changed.

    Args:
        arrays: Result of ``detect_breaks``.

    Returns:
        ``monitored_share`` of the pixels, ``flagged_share`` of the monitored ones, and
        ``flagged_per_year``: breaks per monitored pixel and year.
    """
    first, last = arrays["monitored_from"], arrays["monitored_to"]
    monitored = (first > 0) & (last > 0)
    years = float((last - first)[monitored].clip(0).sum()) / 365.25
    breaks = np.asarray(arrays["n_breaks"])[monitored]
    return {
        "monitored_share": float(monitored.mean()) if monitored.size else 0.0,
        "flagged_share": _ratio(int((breaks > 0).sum()), int(monitored.sum())),
        "flagged_per_year": _ratio(float(breaks.sum()), years),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _dates(
    arrays: Mapping[str, np.ndarray], inside: np.ndarray, abrupt: np.ndarray, when: np.ndarray
) -> tuple[np.ndarray, float]:
    """Errors of the first right detection, and the share whose bracket holds the truth."""
    first = inside.argmax(axis=0)[None]
    est, lo, hi = (
        np.take_along_axis(np.asarray(arrays[name]).astype(np.int64), first, axis=0)[0][abrupt]
        for name in ("date_est", "date_lo", "date_hi")
    )
    true = when[abrupt]
    within = (lo < true) & (true <= hi)
    return est - true, _ratio(int(within.sum()), within.size)


def _by_patch(truth: ChangeTruth, changed: np.ndarray, hit: np.ndarray) -> dict[str, float]:
    patch = _patches(truth) if truth.patch is None else truth.patch
    ids, counts = np.unique(patch[patch > 0], return_counts=True)
    size = np.zeros(patch.shape, np.int64)
    size[patch > 0] = counts[np.searchsorted(ids, patch[patch > 0])]
    found = {}
    for low, high in PATCH_SIZES:
        part = changed & (size >= low) & (size <= (high or size.max(initial=0)))
        if part.any():
            name = f"{low}" if low == high else f"{low}-{high}" if high else f">{low - 1}"
            found[name] = _ratio(int((hit & part).sum()), int(part.sum()))
    return found


def _patches(truth: ChangeTruth) -> np.ndarray:
    from scipy.ndimage import label

    labels = np.zeros(truth.date.shape, np.int64)
    for date in np.unique(truth.date[truth.date > 0]):
        part, _ = label(truth.date == date, structure=np.ones((3, 3)))
        labels[part > 0] = part[part > 0] + labels.max()
    return labels


def _by_fraction(truth: ChangeTruth, changed: np.ndarray, hit: np.ndarray) -> dict[str, float]:
    found = {}
    if truth.fraction is not None:
        for low, high in pairwise(FRACTIONS):
            part = changed & (truth.fraction > low) & (truth.fraction <= high)
            if part.any():
                found[f"{low}-{high}"] = _ratio(int((hit & part).sum()), int(part.sum()))
    return found


def _by_kind(truth: ChangeTruth, changed: np.ndarray, hit: np.ndarray) -> dict[str, float]:
    if truth.kind is None:
        return {}
    names = sorted(set(np.unique(truth.kind[changed]).tolist()))
    return {
        str(name): _ratio(
            int((hit & (truth.kind == name)).sum()), int((changed & (truth.kind == name)).sum())
        )
        for name in names
    }
