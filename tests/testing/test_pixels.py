from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.testing.noise import enlarge, generator, hash_unit, rough_field, smooth_field
from eoray.testing.pixels import double_smooth, halve, mixing_matrix, resample


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([2, 4]), st.integers(0, 99))
def test_mixing_equals_counting_cells(rows: int, cols: int, edge: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    segment = rng.integers(0, 5, (rows * edge, cols * edge)).astype(np.uint16)
    segment[:edge] = 3
    shares = mixing_matrix(segment, edge, 5, pure=False).toarray()
    for pixel, row in enumerate(shares):
        r, c = divmod(pixel, cols)
        cells = segment[r * edge : (r + 1) * edge, c * edge : (c + 1) * edge]
        np.testing.assert_allclose(row, np.bincount(cells.ravel(), minlength=5) / edge**2)


def test_pure_pixels_take_the_centre() -> None:
    segment = np.zeros((4, 8), np.uint16)
    segment[2, 6] = 7
    shares = mixing_matrix(segment, 4, 9, pure=True).toarray()
    assert shares.argmax(axis=1).tolist() == [0, 7]
    assert shares.sum() == 2


@pytest.mark.parametrize("blur", [True, False])
@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.4, -0.3), (1.25, -1.6)])
def test_shift_moves_a_plane_by_that_much(down: float, right: float, blur: bool) -> None:
    y, x = np.mgrid[0:40, 0:40].astype(np.float32)
    moved = resample((2 * y + 3 * x)[None], down, right, 8, blur=blur)
    expected = (2 * (y - down) + 3 * (x - right))[8:-8, 8:-8]
    np.testing.assert_allclose(moved[0], expected, atol=1e-3)


def test_blur_keeps_the_sum_and_does_not_depend_on_the_shift() -> None:
    spot = np.zeros((1, 41, 41), np.float32)
    spot[0, 20, 20] = 1
    y = np.arange(25) - 12
    for down in (0.0, 0.2, 0.5, 1.3):
        seen = resample(spot, down, 0.0, 8, blur=True)[0].sum(axis=1)
        assert seen.sum() == pytest.approx(1, abs=1e-6)
        centre = (seen * y).sum()
        assert centre == pytest.approx(down, abs=1e-6)
        assert (seen * (y - centre) ** 2).sum() == pytest.approx(0.25, abs=1e-5)


def test_halving_undoes_doubling_of_a_plane() -> None:
    y, x = np.mgrid[0:8, 0:8].astype(np.float32)
    np.testing.assert_allclose(halve(double_smooth(2 * y + x))[1:-1, 1:-1], (2 * y + x)[1:-1, 1:-1])


def test_enlarged_nodes_keep_their_values() -> None:
    coarse = smooth_field(generator(1, "a"), (7, 6), 1.0)
    fine = enlarge(coarse, (41, 33), 8)
    np.testing.assert_allclose(fine[::8, ::8], coarse[:6, :5], atol=1e-6)
    np.testing.assert_allclose(fine[4, ::8], (coarse[0, :5] + coarse[1, :5]) / 2, atol=1e-6)


def test_fields_are_standard_and_seeded() -> None:
    field = rough_field(generator(3, "x"), (60, 70), 5.0)
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(field, rough_field(generator(3, "x"), (60, 70), 5.0))
    assert not np.array_equal(field, rough_field(generator(3, "y"), (60, 70), 5.0))


def test_hash_is_uniform_and_salted() -> None:
    draws = hash_unit(np.arange(20_000), 1)
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(np.histogram(draws, 10, (0, 1))[0], 2000, atol=180)
    assert abs(np.corrcoef(draws, hash_unit(np.arange(20_000), 2))[0, 1]) < 0.03
