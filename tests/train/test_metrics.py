from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.chips.labels import IGNORE
from eoray.train.metrics import bootstrap_accuracy, count_confusion, nearest_mean, score_confusion


@given(seed=st.integers(0, 1000), n=st.integers(1, 5))
def test_counts_equal_a_double_loop_and_add_up(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n, (4, 7)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = IGNORE
    guess = rng.integers(0, n, (4, 7))
    expected = np.zeros((n, n), int)
    for t, p in zip(truth.ravel(), guess.ravel(), strict=True):
        if t != IGNORE:
            expected[t, p] += 1
    assert np.array_equal(count_confusion(truth, guess, n), expected)
    halves = [count_confusion(truth[s], guess[s], n) for s in (slice(0, 2), slice(2, 4))]
    assert np.array_equal(halves[0] + halves[1], expected)


def test_scores_of_a_worked_table() -> None:
    counts = np.array([[8, 2, 0], [1, 5, 0], [0, 4, 0]])
    scores = score_confusion(counts, ("a", "b", "c"))
    assert scores["overall_accuracy"] == pytest.approx(13 / 20)
    a, b, c = scores["per_class"]
    assert a == {
        "class": "a",
        "precision": pytest.approx(8 / 9),
        "recall": pytest.approx(8 / 10),
        "f1": pytest.approx(16 / 19),
        "iou": pytest.approx(8 / 11),
        "n": 10,
    }
    assert b["precision"] == pytest.approx(5 / 11)
    assert (c["precision"], c["recall"]) == (None, 0.0)
    assert scores["miou"] == pytest.approx((8 / 11 + 5 / 12 + 0) / 3)
    assert scores["n_pixels"] == 20


def test_class_that_never_occurs_is_not_in_the_mean() -> None:
    scores = score_confusion(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ("a", "b", "c"))
    assert scores["per_class"][2]["iou"] is None
    assert scores["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_nearest_mean_equals_distances_written_out() -> None:
    rng = np.random.default_rng(0)
    values, means = rng.normal(size=(5, 6, 7)), rng.normal(size=(4, 5))
    expected = np.array(
        [
            [np.argmin(((means - values[:, r, c]) ** 2).sum(axis=1)) for c in range(7)]
            for r in range(6)
        ]
    )
    assert np.array_equal(nearest_mean(values, means), expected)


def test_interval_covers_the_rate_of_independent_blocks() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        hits = rng.binomial(50, rng.beta(16, 4, 40))
        counts = np.zeros((40, 2, 2), int)
        counts[:, 0, 0], counts[:, 0, 1] = hits, 50 - hits
        interval = bootstrap_accuracy(counts, seed=seed, n_draws=300)
        assert interval is not None
        inside += interval[0] <= 0.8 <= interval[1]
    assert 0.88 <= inside / 200 <= 0.99


def test_no_interval_from_a_handful_of_blocks() -> None:
    assert bootstrap_accuracy(np.ones((4, 2, 2), int), seed=0) is None
