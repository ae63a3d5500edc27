"""Median absolute deviations: against Geoscience Australia's package, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from eoray.cube.composite import reduce_scenes
from eoray.cube.mads import MADS, reduce_mads
from eoray.sentinel2 import FILL


def deviations(values: np.ndarray, clear: np.ndarray) -> dict[str, np.ndarray]:
    centre = reduce_scenes(values, clear, "geomad")
    return dict(zip(MADS, reduce_mads(values, clear, centre, FILL), strict=True))


def stack(seed: int, n_time: int = 17) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    level = rng.uniform(200, 4000, (1, 5, 12, 20))
    values = (level * rng.uniform(0.6, 1.4, (n_time, 1, 12, 20))).astype(np.int16)
    values = values + rng.integers(-150, 150, (n_time, 5, 12, 20)).astype(np.int16)
    clear = rng.random((n_time, 12, 20)) < 0.7
    clear[:, 0, :4] = False
    clear[1:, 1, :4] = False
    return values, clear


@pytest.mark.parametrize("seed", [1, 2])
def test_deviations_are_those_of_the_reference_package(seed: int) -> None:
    geomad = pytest.importorskip("geomad")
    values, clear = stack(seed)
    centre = reduce_scenes(values, clear, "geomad")
    # (y, x, band, time), not a number where not clear
    floats = np.where(clear[:, None], values, np.nan).astype("f4").transpose(2, 3, 1, 0).copy()
    gm = np.where(centre == FILL, np.nan, centre).astype("f4").transpose(1, 2, 0).copy()
    found = deviations(values, clear)
    for name in MADS:
        with pytest.warns(RuntimeWarning, match="All-NaN"):
            reference = getattr(geomad, f"{name}_pcm")(floats, gm, num_threads=1)
        np.testing.assert_allclose(found[name], reference, rtol=2e-5, atol=2e-7)
    assert np.isnan(found["emad"][0, :4]).all()


def test_the_geomedian_is_as_good_as_that_of_the_reference_package() -> None:
    geomad = pytest.importorskip("geomad")
    values, clear = stack(4)
    floats = np.where(clear[:, None], values, np.nan).astype("f4").transpose(2, 3, 1, 0).copy()
    reference = geomad.nangeomedian_pcm(floats, num_threads=1, nocheck=True)
    ours = reduce_scenes(values, clear, "geomad").transpose(1, 2, 0).astype("f4")
    cost = [
        np.nansum(np.sqrt(((floats - point[..., None]) ** 2).sum(axis=2)), axis=-1)
        for point in (ours, reference)
    ]
    several = clear.sum(axis=0) > 2
    assert (cost[0][several] <= cost[1][several] + 1.0).all()


def test_deviations_of_three_spectra_known_by_hand() -> None:
    """The middle one of a line is the geomedian; the outer ones lie 500 and 1000 away."""
    spectra = np.array([[300, 400], [600, 800], [1200, 1600]], np.int16)
    found = deviations(spectra[:, :, None, None], np.ones((3, 1, 1), bool))
    assert found["smad"][0, 0] == pytest.approx(0, abs=1e-7)  # all point the same way
    assert found["emad"][0, 0] == 500
    assert found["bcmad"][0, 0] == pytest.approx(1 / 3)  # of 0, 700 / 2100, 1400 / 4200


def test_one_observation_does_not_deviate() -> None:
    values, clear = stack(5)
    found = deviations(values, clear)
    once = clear.sum(axis=0) == 1
    assert once[1, :4].any()
    for name in MADS:
        np.testing.assert_allclose(found[name][once], 0, atol=1e-7)


def test_a_spectrum_of_zeros_has_no_direction() -> None:
    spectra = np.array([[0, 0], [0, 0], [300, 400], [0, 0]], np.int16)[:, :, None, None]
    found = deviations(spectra, np.ones((4, 1, 1), bool))
    assert found["emad"][0, 0] == 0
    assert np.isnan(found["smad"][0, 0])
    assert found["bcmad"][0, 0] == 1
