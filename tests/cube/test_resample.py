"""The rule between 10 m and 20 m against loops that spell it out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.cube.resample import mean_2x2, replicate, source_window, to_lattice
from eoray.grid import PixelWindow
from eoray.sentinel2 import FILL

SIZE = 12
"""Edge of the coarse picture; the fine one is twice as wide."""


def coarse_plane(seed: int, holes: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    plane = rng.integers(-900, 12_000, (SIZE, SIZE)).astype(np.int16)
    plane[rng.random((SIZE, SIZE)) < holes] = FILL
    return plane


def bilinear_pixel(plane: np.ndarray, row: int, col: int) -> int:
    """One 10 m pixel from its four nearest 20 m centres, weights of holes given to the others."""
    if plane[row // 2, col // 2] == FILL:
        return FILL
    total, weights = 0, 0
    for near_row in (True, False):
        for near_col in (True, False):
            r = row // 2 + (0 if near_row else (-1 if row % 2 == 0 else 1))
            c = col // 2 + (0 if near_col else (-1 if col % 2 == 0 else 1))
            weight = (3 if near_row else 1) * (3 if near_col else 1)
            if 0 <= r < SIZE and 0 <= c < SIZE and plane[r, c] != FILL:
                total += weight * int(plane[r, c])
                weights += weight
    return round(total / weights)  # Python rounds half to even, as the rule does


WINDOWS = st.tuples(
    st.integers(2, 12), st.integers(2, 12), st.integers(1, 9), st.integers(1, 9)
).map(lambda w: PixelWindow(*w))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.2, 0.7]), WINDOWS)
def test_20_to_10_m_equals_the_four_neighbour_rule(
    seed: int, holes: float, window: PixelWindow
) -> None:
    plane = coarse_plane(seed, holes)
    source = source_window(window, 10, 20)
    assert source.row_off >= 0
    part = plane[
        source.row_off : source.row_off + source.height,
        source.col_off : source.col_off + source.width,
    ]
    fine = to_lattice(part[None], source, 20, window, 10)[0]
    rows = range(window.row_off, window.row_off + window.height)
    cols = range(window.col_off, window.col_off + window.width)
    expected = [[bilinear_pixel(plane, r, c) for c in cols] for r in rows]
    assert fine.tolist() == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.8]))
def test_10_to_20_m_is_the_mean_of_at_least_three(seed: int, holes: float) -> None:
    fine = coarse_plane(seed, holes)
    coarse = mean_2x2(fine)
    for row in range(SIZE // 2):
        for col in range(SIZE // 2):
            quad = fine[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel()
            valid = [int(v) for v in quad if v != FILL]
            expected = round(sum(valid) / len(valid)) if len(valid) >= 3 else FILL
            assert coarse[row, col] == expected


@settings(max_examples=40, deadline=None)
@given(WINDOWS)
def test_source_window_of_10_m_holds_the_neighbours_and_no_more(window: PixelWindow) -> None:
    source = source_window(window, 10, 20)
    rows = [
        r // 2 + d
        for r in range(window.row_off, window.row_off + window.height)
        for d in (-1, 0, 1)
    ]
    assert (min(rows), max(rows)) == (source.row_off, source.row_off + source.height - 1)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_leading_dims_are_kept(lead: tuple[int, ...]) -> None:
    window = PixelWindow(4, 4, 6, 6)
    source = source_window(window, 10, 20)
    values = np.zeros((*lead, source.height, source.width), np.int16)
    assert to_lattice(values, source, 20, window, 10).shape == (*lead, 6, 6)
    fine = np.zeros((*lead, 12, 12), np.int16)
    assert to_lattice(fine, PixelWindow(8, 8, 12, 12), 10, window, 20).shape == (*lead, 6, 6)


def test_extremes_do_not_overflow() -> None:
    high = np.full((1, 4, 4), 32767, np.int16)
    assert (mean_2x2(high) == 32767).all()
    window = PixelWindow(2, 2, 4, 4)
    assert (to_lattice(high, source_window(window, 10, 20), 20, window, 10) == 32767).all()
    low = np.full((1, 4, 4), -32767, np.int16)
    assert (mean_2x2(low) == -32767).all()


@settings(max_examples=40, deadline=None)
@given(WINDOWS)
def test_masks_take_the_20_m_pixel_that_holds_them(window: PixelWindow) -> None:
    plane = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    source = source_window(window, 10, 20)
    part = plane[
        source.row_off : source.row_off + source.height,
        source.col_off : source.col_off + source.width,
    ]
    fine = replicate(part, source, window, 10)
    rows = np.arange(window.row_off, window.row_off + window.height)
    cols = np.arange(window.col_off, window.col_off + window.width)
    np.testing.assert_array_equal(fine, plane[rows[:, None] // 2, cols // 2])
