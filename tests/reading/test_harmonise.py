"""Digital numbers to reflectance: nothing is clipped at zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.reading.harmonise import harmonise, saturated
from eoray.sentinel2 import FILL


@pytest.mark.parametrize(
    ("dn", "offset", "stored"),
    [
        (1, -1000, -999),
        (999, -1000, -1),
        (1000, -1000, 0),
        (1001, -1000, 1),
        (0, -1000, FILL),
        (0, 0, FILL),
        (1, 0, 1),
        (32767, 0, 32767),
        (33767, -1000, 32767),
        (33768, -1000, 32767),
        (65535, -1000, 32767),
        (65535, 0, 32767),
    ],
)
def test_values_on_both_sides_of_the_offset(dn: int, offset: int, stored: int) -> None:
    assert harmonise(np.array([dn], np.uint16), offset).tolist() == [stored]


@given(st.integers(1, 32767), st.sampled_from([0, -1000]))
def test_values_that_exist_are_shifted_and_no_more(dn: int, offset: int) -> None:
    assert harmonise(np.array([[dn]], np.uint16), offset).item() == dn + offset


def test_result_is_int16_of_the_same_shape() -> None:
    dn = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    assert harmonise(dn, 0).dtype == np.int16
    assert harmonise(dn, 0).shape == (2, 3, 4)


def test_only_65535_is_saturated() -> None:
    assert saturated(np.array([0, 1, 65534, 65535], np.uint16)).tolist() == [0, 0, 0, 1]
