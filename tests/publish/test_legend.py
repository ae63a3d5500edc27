from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.errors import DataError
from eoray.publish.legend import legend_of, make_legend


def test_legend_is_read_from_cf_attributes() -> None:
    attrs = {
        "flag_values": [0, 1, 2],
        "flag_meanings": "not_mapped water evergreen_forest",
        "flag_colors": "#000000 #0102ff #135435",
    }
    legend = legend_of(attrs)
    assert [(one.id, one.name, one.hex) for one in legend] == [
        (1, "water", "0102FF"),
        (2, "evergreen forest", "135435"),
    ]


def test_colours_follow_the_names_when_none_are_stored() -> None:
    legend = legend_of({"flag_values": [1, 2], "flag_meanings": ["deciduous_forest", "water"]})
    assert legend[0].color[1] == max(legend[0].color)
    assert legend[1].color[2] == max(legend[1].color)


@given(
    st.dictionaries(
        st.integers(1, 255),
        st.sampled_from(["water", "forest", "crop", "wheat", "a", "b", "urban"]),
        min_size=1,
        max_size=40,
    )
)
def test_classes_come_in_order_of_their_ids(names: dict[int, str]) -> None:
    legend = make_legend(names)
    assert [one.id for one in legend] == sorted(names)
    assert {one.id: one.name for one in legend} == names


def test_two_kinds_of_forest_get_two_colours() -> None:
    legend = make_legend(dict.fromkeys(range(1, 11), "forest"))
    assert len({one.color for one in legend}) == 10


def test_attributes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(DataError, match="2 flag_values, 1 flag_meanings"):
        legend_of({"flag_values": [1, 2], "flag_meanings": "water"})


def test_colour_that_cannot_be_read_is_named() -> None:
    with pytest.raises(DataError, match="colour 'blue' cannot be read"):
        legend_of({"flag_values": [1], "flag_meanings": "water", "flag_colors": "blue"})


def test_class_zero_cannot_be_published() -> None:
    with pytest.raises(DataError, match=r"class ids \[0\] cannot be published"):
        make_legend({0: "nothing"})
