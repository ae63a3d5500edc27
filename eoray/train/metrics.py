"""Scores from accumulated counts: never a mean of means over batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.chips.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence


def count_confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Count pairs of truth and prediction.

    Args:
        truth: Class id - 1, or IGNORE; any shape.
        predicted: Class id - 1; same shape.
        n_classes: Classes of the legend.

    Returns:
        Dims (truth, predicted), int64.
    """
    used = truth != IGNORE
    pair = truth[used].astype(np.int64) * n_classes + predicted[used]
    return np.bincount(pair, minlength=n_classes**2).reshape(n_classes, n_classes)


def score_confusion(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Turn counts into scores.

    Args:
        counts: Dims (truth, predicted).
        names: Class names.

    Returns:
        ``overall_accuracy``, ``miou`` (mean over classes that occur in truth or prediction),
        ``n_pixels`` and ``per_class`` with precision, recall, f1, iou and n (pixels of truth);
        a ratio without denominator is None.
    """
    hit = np.diag(counts)
    truth, predicted = counts.sum(axis=1), counts.sum(axis=0)
    union = truth + predicted - hit
    ious = [_ratio(h, u) for h, u in zip(hit, union, strict=True)]
    there = [iou for iou in ious if iou is not None]
    return {
        "overall_accuracy": _ratio(hit.sum(), counts.sum()),
        "miou": float(np.mean(there)) if there else None,
        "n_pixels": int(counts.sum()),
        "per_class": [
            {
                "class": name,
                "precision": _ratio(hit[i], predicted[i]),
                "recall": _ratio(hit[i], truth[i]),
                "f1": _ratio(2 * hit[i], truth[i] + predicted[i]),
                "iou": ious[i],
                "n": int(truth[i]),
            }
            for i, name in enumerate(names)
        ],
    }


def _ratio(part: int, whole: int) -> float | None:
    return float(part) / float(whole) if whole else None


def bootstrap_accuracy(
    counts: np.ndarray, *, seed: int, n_draws: int = 1000
) -> tuple[float, float] | None:
    """Interval of the overall accuracy from re-drawn blocks.

    Pixels of one block resemble each other, so blocks are drawn, not pixels.

    Args:
        counts: Confusion by block, dims (block, truth, predicted).
        seed: Of the draws.
        n_draws: Samples of blocks.

    Returns:
        2.5 and 97.5 percentiles; None with fewer than five blocks that hold labels, where the
        interval would mean nothing.
    """
    total = counts.sum(axis=(1, 2))
    held = total > 0
    if held.sum() < 5:
        return None
    hits = np.trace(counts[held], axis1=1, axis2=2)
    rng = np.random.default_rng([seed, 4])
    picks = rng.integers(0, held.sum(), (n_draws, int(held.sum())))
    accuracy = hits[picks].sum(axis=1) / total[held][picks].sum(axis=1)
    low, high = np.percentile(accuracy, [2.5, 97.5])
    return float(low), float(high)


def nearest_mean(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Classify pixels by the nearest class mean, the baseline beside every score.

    Args:
        values: Normalised reflectance, dims (channel, ...), 0 where absent.
        means: Normalised class means, dims (class, channel).

    Returns:
        Class id - 1, dims (...); the lower one of equals.
    """
    flat = values.reshape(values.shape[0], -1).astype(np.float64)
    # |v - m|^2 without |v|^2, which is the same for all classes
    distance = (means**2).sum(axis=1)[:, None] - 2.0 * means @ flat
    return np.asarray(np.argmin(distance, axis=0)).reshape(values.shape[1:])
