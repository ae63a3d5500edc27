"""Composites: reductions against numpy, and the stage on a small cube."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.cube.composite import (
    CompositeRecipe,
    CompositeRow,
    CompositeWorker,
    composite_product,
    days_of,
    plan_composites,
    reduce_scenes,
)
from eoray.cube.layout import DONE, NO_SCENE
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import ConfigError
from eoray.grid import Tile
from eoray.sentinel2 import FILL
from eoray.timeline import Calendar, DateRange


@st.composite
def stacks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(values, clear): some pixels never clear, values of unclear ones wild."""
    n_time, n_band = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(-1000, 15_000, (n_time, n_band, 6, 9)).astype(np.int16)
    clear = rng.random((n_time, 6, 9)) < draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    values[np.broadcast_to(~clear[:, None], values.shape)] = draw(st.sampled_from([FILL, 32767]))
    return values, clear


@settings(max_examples=60, deadline=None)
@given(stacks())
def test_median_is_numpy_nanmedian(stack: tuple[np.ndarray, np.ndarray]) -> None:
    values, clear = stack
    floats = np.where(clear[:, None], values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a clear date
        oracle = np.nanmedian(floats, axis=0)
    expected = np.where(np.isnan(oracle), FILL, np.rint(oracle)).astype(np.int16)
    np.testing.assert_array_equal(reduce_scenes(values, clear, "median"), expected)


@settings(max_examples=25, deadline=None)
@given(stacks(), st.randoms(use_true_random=False))
def test_order_of_scenes_does_not_matter(stack: tuple[np.ndarray, np.ndarray], random: Any) -> None:
    values, clear = stack
    order = list(range(len(values)))
    random.shuffle(order)
    first, second = (
        reduce_scenes(v, c, "median") for v, c in ((values, clear), (values[order], clear[order]))
    )
    np.testing.assert_array_equal(first, second)
    if clear.sum(axis=0).max() != 2:  # between two spectra every point of the line is as good
        first = reduce_scenes(values, clear, "geomedian")
        second = reduce_scenes(values[order], clear[order], "geomedian")
        assert ((first == FILL) == (second == FILL)).all()


def sum_of_distances(spectra: np.ndarray, point: np.ndarray) -> float:
    return float(np.sqrt(((spectra - point) ** 2).sum(axis=1)).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 9))
def test_no_spectrum_nearby_is_better_than_the_geomedian(seed: int, n_time: int) -> None:
    rng = np.random.default_rng(seed)
    spectra = rng.integers(-500, 9000, (n_time, 4)).astype(np.int16)
    clear = np.ones((n_time, 1, 1), bool)
    found = reduce_scenes(spectra[:, :, None, None], clear, "geomedian")[:, 0, 0].astype("f8")
    best = sum_of_distances(spectra.astype("f8"), found)
    for step in rng.normal(0, 40, (30, 4)):
        assert best <= sum_of_distances(spectra.astype("f8"), found + step) + 1.0


def test_geomedian_of_a_cross_is_its_centre_whatever_its_arms() -> None:
    """Known by symmetry; the band medians agree, one long arm does not pull."""
    spectra = np.array([[0, 0], [4000, 0], [-500, 0], [0, 300], [0, -300]], np.int16)
    clear = np.ones((5, 1, 1), bool)
    found = reduce_scenes(spectra[:, :, None, None], clear, "geomedian")[:, 0, 0]
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize(
    "spectra",
    [
        [[1000, 2000], [0, 0], [2100, 4000], [1400, 900], [600, 3200]],  # in the middle of four
        [[7, 70], [7, 70], [7, 70], [9000, 12], [800, 4000]],  # three of five are the same
        [[0, 0], [100, 200], [300, 600], [5000, 10000], [200, 400]],  # on a line: its median
    ],
)
def test_an_observation_that_is_the_geomedian_is_met_exactly(spectra: list[list[int]]) -> None:
    """Weiszfeld's iteration alone stops short of it."""
    values = np.array(spectra, np.int16)[:, :, None, None]
    expected = min(spectra, key=lambda s: sum_of_distances(np.array(spectra, "f8"), np.array(s)))
    found = reduce_scenes(values, np.ones((5, 1, 1), bool), "geomedian")[:, 0, 0]
    assert found.tolist() == expected


def test_geomedian_of_two_dates_is_their_middle() -> None:
    values = np.array([[-100, 7], [301, 9]], np.int16)[:, :, None, None]
    found = reduce_scenes(values, np.ones((2, 1, 1), bool), "geomedian")[:, 0, 0]
    assert found.tolist() == [101, 8]


def test_geomedian_of_one_date_is_that_date() -> None:
    spectrum = np.array([[-3, 1234, 32767]], np.int16)
    found = reduce_scenes(spectrum[:, :, None, None], np.ones((1, 1, 1), bool), "geomedian")
    assert found[:, 0, 0].tolist() == [-3, 1234, 32767]


@pytest.mark.parametrize("method", ["median", "geomedian"])
def test_parts_of_a_picture_equal_the_whole(method: str) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 9000, (6, 3, 40, 30)).astype(np.int16)
    clear = rng.random((6, 40, 30)) < 0.5
    clear[:, :7] = False
    whole = reduce_scenes(values, clear, method)
    parts = [
        reduce_scenes(values[:, :, top : top + 9], clear[:, top : top + 9], method)
        for top in range(0, 40, 9)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="'best' is unknown; use 'geomedian' or 'median'"):
        reduce_scenes(np.zeros((1, 1, 1, 1), np.int16), np.ones((1, 1, 1), bool), "best")


RECIPE = CompositeRecipe("median", "P1M", 3)
JANUARY = DateRange.parse("2021-01-01/2021-02-28")


def plan(cube: Any, recipe: CompositeRecipe = RECIPE) -> tuple[Any, list[CompositeRow]]:
    return plan_composites(recipe, CubeReader(CubeSource(cube.url)), cube.tiles, JANUARY)


def test_plan_has_all_periods_since_2015_and_rows_where_scenes_are(scene_cube: Any) -> None:
    entries, rows = plan(scene_cube)
    assert [e.key for e in entries[32]][:1] == ["2015-01-01/2015-02-01"]
    assert len(entries[32]) == 6 * 12 + 2
    assert [row.key for row in rows] == [f"2021-01-01/2021-02-01/{t.id}" for t in scene_cube.tiles]
    assert rows[0].positions == (0, 2, 1)  # in order of time, not of the stored axis
    assert rows[0].orbits == (103, 109, 120)


def test_source_of_a_row_follows_the_pixels_of_its_scenes(scene_cube: Any) -> None:
    _, rows = plan(scene_cube)
    assert rows[0].sources != rows[1].sources
    assert rows[0].sources[0].startswith("3 scenes ")
    assert rows[0].only(rows[0].tiles) is rows[0]
    with pytest.raises(ConfigError, match="cannot be reduced"):
        rows[0].only([Tile(32, 1, 1)])


def test_product_names_what_it_is_made_of(scene_cube: Any) -> None:
    spec = composite_product(RECIPE, CubeReader(CubeSource(scene_cube.url)), [32])
    assert spec.name == "s2-P1M-median"
    assert spec.parameters["of"]["bands"] == list(scene_cube.bands)
    assert spec.array("20m/reflectance").lead == (("band", 2),)


def test_worker_reduces_the_clear_scenes_of_a_tile(scene_cube: Any) -> None:
    _, rows = plan(scene_cube)
    (result,) = CompositeWorker(CubeSource(scene_cube.url), RECIPE)(rows[1])
    dates = [scene_cube.keys[i] for i in rows[1].positions]
    for resolution_m in (10, 20):
        factor = 20 // resolution_m
        values, quality, mask = (
            np.stack([np.split(scene_cube.arrays[path, date], 2, axis=-1)[1] for date in dates])
            for path in (f"{resolution_m}m/reflectance", f"{resolution_m}m/quality", "20m/mask")
        )
        mask = mask.repeat(factor, axis=1).repeat(factor, axis=2)
        clear = (quality & 0b1011 == 0) & (mask == 0) & (values != FILL).all(axis=1)
        np.testing.assert_array_equal(result.arrays[f"{resolution_m}m/n_obs"], clear.sum(axis=0))
        # three dates of three orbits: as many orbits as dates
        np.testing.assert_array_equal(result.arrays[f"{resolution_m}m/n_orbit"], clear.sum(axis=0))
        np.testing.assert_array_equal(
            result.arrays[f"{resolution_m}m/reflectance"], reduce_scenes(values, clear, "median")
        )
    assert (result.status, result.n_failed, result.source) == (DONE, 0, rows[1].sources[0])
    assert result.n_valid == (result.arrays["10m/n_obs"] > 0).sum()


def test_dates_of_one_orbit_count_as_one_orbit(scene_cube: Any) -> None:
    _, rows = plan(scene_cube)
    row = replace(rows[0], orbits=(7, 7, 9))
    worker = CompositeWorker(CubeSource(scene_cube.url), RECIPE)
    (result,) = worker(row)
    n_obs, n_orbit = result.arrays["20m/n_obs"], result.arrays["20m/n_orbit"]
    assert n_orbit.max() == 2
    assert (n_orbit[n_obs == 3] == 2).all()
    assert (n_orbit[n_obs == 1] == 1).all()


def test_tile_without_a_clear_date_is_fill(scene_cube: Any) -> None:
    _, rows = plan(scene_cube)
    row = replace(rows[0], positions=(3,), orbits=(1,))
    (result,) = CompositeWorker(CubeSource(scene_cube.url), RECIPE)(row)
    assert (result.status, result.n_valid) == (NO_SCENE, 0)
    assert (result.arrays["10m/reflectance"] == FILL).all()


def test_days_of_a_period_end_before_the_next() -> None:
    assert str(days_of(Calendar.parse("P1M").period(1))) == "2015-02-01/2015-02-28"
