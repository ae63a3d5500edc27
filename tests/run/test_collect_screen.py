"""Sums of registration over dates whose answer is known."""

from __future__ import annotations

import numpy as np

from eoray.run.collect_screen import _summed


def test_dates_are_summed_by_year_and_by_the_global_reference() -> None:
    day = np.array(
        ["2020-05-01", "2020-06-01", "2021-08-22", "2021-08-23", "2022-01-01"], "datetime64[D]"
    )
    shift = np.array([0.75, 0.55, np.nan, 0.25, 2.05])
    error = np.array([0.05, 0.05, np.nan, 0.01, 0.90])
    found = _summed(day, shift, error, ["a", "b", "c", "d", "e"], 0.5)
    assert (found.n_measured, found.n_unknown, found.n_beyond) == (4, 1, 1)
    assert found.before == (2, 0.65, np.quantile([0.75, 0.55], 0.95))
    assert found.since is not None
    assert found.since[0] == 2
    assert list(found.by_year) == [2020, 2021, 2022]
    counted = {edge: n for edge, n in found.histogram.items() if n}
    assert counted == {"0.2": 1, "0.5": 1, "0.7": 1, "1.1": 1}
    # the furthest first; an uncertain one is named, and used
    assert [(row.tile, row.left_out) for row in found.worst] == [
        ("e", False),
        ("a", True),
        ("b", False),
        ("d", False),
    ]


def test_without_a_limit_nothing_is_left_out() -> None:
    day = np.array(["2020-05-01"], "datetime64[D]")
    found = _summed(day, np.array([1.0]), np.array([0.01]), ["a"], None)
    assert found.n_beyond == 0
    assert found.since is None
