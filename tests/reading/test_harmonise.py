"""Digital numbers to reflectance: nothing is clipped at zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.reading.harmonise import Share, mark_saturated, place_band
from eoray.sentinel2 import FILL, Quality


def place(
    dn: np.ndarray,
    offset: int = 0,
    *,
    index: np.ndarray | None = None,
    factor: int = 1,
    corner: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """(reflectance, quality) of a frame that held 7 and bit 1 everywhere."""
    index = np.zeros(dn.shape, np.int16) if index is None else index
    shape = index.shape[0] * factor, index.shape[1] * factor
    target, quality = np.full(shape, 7, np.int16), np.full(shape, 1, np.uint8)
    share = Share(index, 0, factor)
    saturated = place_band(dn, offset, share, corner, target)
    mark_saturated(dn, share, corner, quality)
    assert saturated == bool((quality != 1).any())
    return target, quality


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
    assert place(np.array([[dn]], np.uint16), offset)[0].item() == stored


@given(st.integers(1, 32767), st.sampled_from([0, -1000]))
def test_values_that_exist_are_shifted_and_no_more(dn: int, offset: int) -> None:
    assert place(np.array([[dn]], np.uint16), offset)[0].item() == dn + offset


def test_only_chosen_pixels_are_written() -> None:
    index = np.array([[0, 1], [-1, 0]], np.int16)
    dn = np.arange(100, 112, dtype=np.uint16).reshape(3, 4)
    found, quality = place(dn, index=index, factor=2, corner=(1, 0))
    np.testing.assert_array_equal(
        found, [[7, 7, 7, 7], [100, 101, 7, 7], [7, 7, 106, 107], [7, 7, 110, 111]]
    )
    assert (quality == 1).all()


def test_columns_of_wider_rows_land_where_they_alone_would() -> None:
    index = np.array([[0, 1, 0], [-1, 0, 0]], np.int16)
    wide = np.arange(100, 140, dtype=np.uint16).reshape(4, 10)
    alone, _ = place(np.ascontiguousarray(wide[:, 3:8]), index=index, factor=2, corner=(0, 1))
    target = np.full(alone.shape, 7, np.int16)
    place_band(wide, 0, Share(index, 0, 2), (0, 1), target, slice(3, 8))
    np.testing.assert_array_equal(target, alone)


def test_saturated_pixels_of_another_scene_are_not_marked() -> None:
    quality = np.zeros((2, 2), np.uint8)
    dn = np.full((1, 2), 65535, np.uint16)
    mark_saturated(dn, Share(np.array([[1, 0], [0, 1]], np.int16), 0, 1), (1, 0), quality)
    assert quality.tolist() == [[0, 0], [int(Quality.SATURATED), 0]]


def test_only_65535_is_saturated() -> None:
    dn = np.array([[0, 1, 65534, 65535]], np.uint16)
    both = 1 | int(Quality.SATURATED)
    assert place(dn)[1].tolist() == [[1, 1, 1, both]]
