from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.report import charts

LABELS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=12)
VALUES = st.floats(0, 1e9)


def numbers(svg: str, tag: str, name: str) -> list[float]:
    return [float(one.attrib[name]) for one in ET.fromstring(svg).iter(tag)]


@given(st.dictionaries(LABELS, VALUES, max_size=12))
def test_charts_are_well_formed_for_any_labels(values: dict[str, float]) -> None:
    drawn = [
        charts.bar_chart(values, title="a & b", unit="<ha>"),
        charts.strip_chart(values, title="t"),
        charts.range_chart({k: (v / 2, v, v * 2) for k, v in values.items()}, title="t", unit="n"),
        charts.interval_chart(
            [charts.Interval(k, v, v / 2, v * 2, v) for k, v in values.items()], title="t", unit="u"
        ),
    ]
    for svg in drawn:
        assert ET.fromstring(svg).attrib["role"] == "img"


def test_bars_are_as_high_as_their_values() -> None:
    svg = charts.bar_chart({"a": 10, "b": 40, "c": 0}, title="t", unit="u")
    heights = numbers(svg, "rect", "height")
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.2)
    assert heights[2] == 0


def test_interval_lies_around_its_dot() -> None:
    svg = charts.interval_chart(
        [charts.Interval("a", 50, 40, 60, 55), charts.Interval("b", 100, 90, 110)],
        title="t",
        unit="",
    )
    bars = [one.attrib for one in ET.fromstring(svg).iter("rect")][1::2]
    for dot, bar in zip(numbers(svg, "circle", "cx"), bars, strict=True):
        middle = float(bar["x"]) + float(bar["width"]) / 2
        assert dot == pytest.approx(middle, abs=0.2)
    assert len(re.findall(r"l8 8", svg)) == 1


def test_negative_end_of_an_interval_stops_at_zero() -> None:
    svg = charts.interval_chart([charts.Interval("a", 5, -5, 15)], title="t", unit="")
    assert min(numbers(svg, "rect", "x")[1:]) == pytest.approx(170)
