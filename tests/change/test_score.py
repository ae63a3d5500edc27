"""Scores against counts done by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from eoray.change.score import ChangeTruth, reweight_precision, score_breaks, score_no_change
from eoray.errors import GridError

# Eight pixels: found, found late in the window, missed, found too early, only after the window,
# stable, stable but flagged, slow change found after two years.
TRUE = np.array([[1000, 1000, 1000, 1000, 1000, 0, 0, 1000]])
FOUND = np.array([[1010, 1365, 0, 900, 1366, 0, 700, 1800]])
GRADUAL = np.array([[False] * 7 + [True]])


def make_breaks(hi: np.ndarray, width: int = 20) -> dict[str, np.ndarray]:
    dates = np.zeros((4, *hi.shape), np.int32)
    dates[0] = hi
    lo = np.where(dates > 0, dates - width, 0)
    return {"date_lo": lo, "date_hi": dates, "date_est": (lo + dates) // 2}


def test_counts_are_those_done_by_hand() -> None:
    score = score_breaks(make_breaks(FOUND), ChangeTruth(TRUE, GRADUAL))
    assert (score.n_pixels, score.n_changed) == (8, 6)
    assert score.true_positives == 3
    assert score.false_negatives == 3
    assert score.false_positives == 3
    assert score.precision == 0.5
    assert score.recall == 0.5
    assert score.f1 == 0.5
    assert score.false_alarm_share == 0.5


def test_date_error_is_of_abrupt_changes_and_of_the_estimate() -> None:
    score = score_breaks(make_breaks(FOUND), ChangeTruth(TRUE, GRADUAL))
    # Estimates lie 10 days before the first anomaly: errors 0 and 355.
    assert score.date_error_median_days == 177.5
    assert score.date_bias_days == 177.5
    assert score.bracket_hit_share == 0.5


def test_later_breaks_after_a_right_one_are_not_counted() -> None:
    breaks = make_breaks(np.array([[1010]]))
    breaks["date_hi"][1], breaks["date_lo"][1], breaks["date_est"][1] = 1700, 1690, 1695
    score = score_breaks(breaks, ChangeTruth(np.array([[1000]]), np.array([[False]])))
    assert (score.true_positives, score.false_positives) == (1, 0)


def test_break_before_a_right_one_is_commission() -> None:
    breaks = make_breaks(np.array([[500]]))
    breaks["date_hi"][1], breaks["date_lo"][1], breaks["date_est"][1] = 1010, 1000, 1005
    score = score_breaks(breaks, ChangeTruth(np.array([[1000]]), np.array([[False]])))
    assert (score.true_positives, score.false_positives) == (1, 1)
    assert score.date_bias_days == 5


def test_only_judged_pixels_count() -> None:
    judged = np.array([[True, False, True, False, False, True, False, False]])
    score = score_breaks(make_breaks(FOUND), ChangeTruth(TRUE, GRADUAL), judged=judged)
    assert (score.n_pixels, score.true_positives, score.false_positives) == (3, 1, 0)


def test_recall_by_patch_counts_pixels_of_patches_of_that_size() -> None:
    true = np.zeros((12, 12), int)
    true[0, 0] = 1000
    true[2, 2:5] = 1000
    true[5:9, 0:4] = 1200
    found = np.zeros((12, 12), int)
    found[2, 2] = 1000
    found[5:9, 0:3] = 1200
    score = score_breaks(make_breaks(found), ChangeTruth(true, np.zeros_like(true, bool)))
    assert score.recall_by_patch == {"1": 0.0, "2-5": pytest.approx(1 / 3), "6-20": 0.75}


def test_patch_ids_may_be_given() -> None:
    patch = np.array([[1, 1, 2, 2, 2, 0, 0, 3]])
    score = score_breaks(make_breaks(FOUND), ChangeTruth(TRUE, GRADUAL, patch=patch))
    assert score.recall_by_patch == {"1": 1.0, "2-5": 0.4}


def test_recall_by_fraction_and_kind() -> None:
    fraction = np.array([[0.1, 0.9, 0.9, 0.5, 0.5, 0, 0, 1.0]])
    kind = np.array([["fire", "fire", "cut", "cut", "cut", "", "", "decline"]])
    truth = ChangeTruth(TRUE, GRADUAL, fraction=fraction, kind=kind)
    score = score_breaks(make_breaks(FOUND), truth)
    assert score.recall_by_fraction == {"0.0-0.25": 1.0, "0.25-0.5": 0.0, "0.75-1.0": 2 / 3}
    assert score.recall_by_kind == {"cut": 0.0, "decline": 1.0, "fire": 1.0}


def test_precision_at_one_percent_is_bayes() -> None:
    """Worked example of the project's notes: .85 and .023 give about .27."""
    assert reweight_precision(0.85, 0.023, prevalence=0.01) == pytest.approx(0.2718, abs=1e-4)
    assert reweight_precision(0.5, 0.0, prevalence=0.01) == 1.0
    assert math.isnan(reweight_precision(0.0, 0.0, prevalence=0.01))


def test_score_is_json() -> None:
    score = score_breaks(make_breaks(FOUND), ChangeTruth(TRUE, GRADUAL))
    assert json.loads(json.dumps(score.to_dict()))["recall_by_patch"] == {"2-5": 0.4, "1": 1.0}


def test_truth_of_another_grid_is_refused() -> None:
    with pytest.raises(GridError, match=r"\(1, 8\) but the truth \(1, 7\)"):
        score_breaks(make_breaks(FOUND), ChangeTruth(TRUE[:, :7], GRADUAL[:, :7]))


def test_no_change_commission_is_per_monitored_pixel_and_year() -> None:
    found = {
        "monitored_from": np.array([[1000, 1000, 0, 1000]]),
        "monitored_to": np.array([[1731, 1731, 0, 1730]]),
        "n_breaks": np.array([[0, 2, 0, 0]]),
    }
    score = score_no_change(found)
    assert score["monitored_share"] == 0.75
    assert score["flagged_share"] == pytest.approx(1 / 3)
    assert score["flagged_per_year"] == pytest.approx(2 / (2192 / 365.25))
