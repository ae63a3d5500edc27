"""Shifts against copies of real pictures that were moved by a known part of a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eoray.cube.shifts import WINDOW_PX, measure_shift
from eoray.testing.pixels import resample

MARGIN = 8
EDGE = 400


def real_band(shared_data: Path, name: str) -> np.ndarray:
    import rasterio

    (path,) = (shared_data / "sentinel2" / "majortom_48QUE").glob(f"*/{name}.tif")
    with rasterio.open(path) as file:
        return np.asarray(file.read(1, window=((0, EDGE), (300, 300 + EDGE))), np.float32)


def moved(picture: np.ndarray, down: float, right: float) -> np.ndarray:
    return np.asarray(resample(picture[None], down, right, MARGIN, blur=True)[0])


def blobs(shape: tuple[int, ...]) -> np.ndarray:
    """Clear ground between clouds, three quarters of it."""
    rng = np.random.default_rng(3)
    clear = np.ones(shape, bool)
    for row, col in rng.integers(0, shape[0], (14, 2)):
        clear[row : row + 50, col : col + 50] = False
    return clear


@pytest.mark.parametrize(
    ("down", "right"), [(0.0, 0.0), (0.13, -0.27), (0.5, 0.5), (-0.35, 0.8), (1.2, -0.6)]
)
def test_shift_of_a_real_picture_is_found(shared_data: Path, down: float, right: float) -> None:
    nir = real_band(shared_data, "B08")
    noise = np.random.default_rng(1).normal(0, 40, (EDGE - 16, EDGE - 16))
    picture, reference = moved(nir, down, right) * 1.2 + 100 + noise, moved(nir, 0, 0)
    clear = blobs(reference.shape)
    shift = measure_shift(np.where(clear, picture, 9000), reference, clear)
    assert shift.is_measured
    assert shift.down == pytest.approx(down, abs=0.04)
    assert shift.right == pytest.approx(right, abs=0.04)
    assert shift.error < 0.05


def test_edges_whose_sign_changes_with_the_season_count_alike(shared_data: Path) -> None:
    """Fields that are bright in spring and dark in autumn, beside others that stay."""
    nir = real_band(shared_data, "B08")
    picture, reference = moved(nir, 0.3, -0.4), moved(nir, 0, 0)
    rows, cols = np.indices(reference.shape) // 37
    inverted = np.where((rows + cols) % 2 == 0, picture, 8000 - picture)
    # the chequers themselves stand in one picture only
    shift = measure_shift(inverted, reference, np.ones(reference.shape, bool))
    assert [shift.down, shift.right] == pytest.approx([0.3, -0.4], abs=0.1)


def test_ground_without_edges_is_not_measured() -> None:
    rng = np.random.default_rng(2)
    size = (300, 300)
    shift = measure_shift(rng.normal(size=size), rng.normal(size=size), np.ones(size, bool))
    assert not shift.is_measured
    assert np.isnan([shift.down, shift.right, shift.error]).all()


def test_too_little_clear_ground_is_not_measured(shared_data: Path) -> None:
    nir = real_band(shared_data, "B08")
    clear = np.zeros(nir.shape, bool)
    clear[:WINDOW_PX, : WINDOW_PX // 3] = True
    shift = measure_shift(nir, nir, clear)
    assert (shift.n_windows, shift.is_measured) == (0, False)
