from __future__ import annotations

import math

import pytest

from eoray.report import figures


@pytest.mark.parametrize(
    ("m2", "text"),
    [
        (950.0, "950 m²"),
        (123_456.0, "12.3 ha"),
        (1_340_000.0, "1.34 km²"),
        (71_200_000.0, "71.2 km²"),
        (4.2e11, "420,000 km²"),
        (None, "\N{EN DASH}"),
        (math.nan, "\N{EN DASH}"),
    ],
)
def test_area_is_written_in_a_fitting_unit(m2: float | None, text: str) -> None:
    assert figures.area(m2) == text


@pytest.mark.parametrize(
    ("n", "text"), [(17, "17 B"), (1_900_000_000, "1.9 GB"), (None, "\N{EN DASH}")]
)
def test_size_has_a_decimal_unit(n: int | None, text: str) -> None:
    assert figures.size(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.26, "7.3 s"), (150.0, "2.5 min"), (9000.0, "2.5 h")]
)
def test_duration_is_written_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def test_estimate_stands_with_its_interval() -> None:
    estimate = {"value": 0.8756, "standard_error": 0.02, "ci95_half_width": 0.0392}
    assert figures.with_interval(estimate) == "87.6 ± 3.9 %"
    assert figures.with_interval({**estimate, "value": None}) == "\N{EN DASH}"
    areas = {"value": 211_578_000.0, "ci95_half_width": 61_576_000.0}
    assert figures.area_with_interval(areas) == "21,158 ± 6,157.6"
