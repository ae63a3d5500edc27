"""Composites: reductions against numpy, and the stage on a small cube."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.config.agree import LEARNABLE
from eoray.cube.composite import (
    SPECTRAL,
    CompositeRecipe,
    CompositeRow,
    CompositeWorker,
    composite_arrays,
    composite_product,
    days_of,
    keep_first_of_day,
    plan_composites,
    reduce_scenes,
)
from eoray.cube.layout import DONE, NO_SCENE, TileResult, TimeEntry
from eoray.cube.mask import MaskRecipe
from eoray.cube.read import CubeReader, CubeSource
from eoray.cube.scenes import CubeRecipe, scene_product
from eoray.errors import ConfigError
from eoray.grid import Tile
from eoray.sentinel2 import FILL, Mask
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
    with pytest.raises(ConfigError, match="'best' makes no spectrum from all dates; use"):
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


def made(cube: Any, recipe: CompositeRecipe, tile: int = 1) -> tuple[CompositeRow, Any]:
    """A row and its result, in which every array is the product's."""
    _, rows = plan(cube, recipe)
    (result,) = CompositeWorker(CubeSource(cube.url), recipe)(rows[tile])
    spec = composite_product(recipe, CubeReader(CubeSource(cube.url)), [32])
    for path, values in result.arrays.items():
        array = spec.array(path)
        assert values.shape[:-2] == array.lead_shape
        assert values.dtype == array.dtype
    assert set(result.arrays) == {
        f"{g.resolution_m}m/{a.name}" for g in spec.groups for a in g.arrays
    }
    return rows[tile], result


def scenes_of(cube: Any, row: CompositeRow, resolution_m: int) -> tuple[np.ndarray, np.ndarray]:
    """What the second tile's rows are made of: values and clear, in order of time."""
    dates, factor = [cube.keys[i] for i in row.positions], 20 // resolution_m
    values, quality, mask = (
        np.stack([np.split(cube.arrays[path, date], 2, axis=-1)[1] for date in dates])
        for path in (f"{resolution_m}m/reflectance", f"{resolution_m}m/quality", "20m/mask")
    )
    mask = mask.repeat(factor, axis=1).repeat(factor, axis=2)
    return values, (quality & 0b1011 == 0) & (mask == 0) & (values != FILL).all(axis=1)


@pytest.mark.slow
def test_geomad_is_the_geomedian_with_its_deviations(scene_cube: Any) -> None:
    row, result = made(scene_cube, CompositeRecipe("geomad", "P1M", 3))
    values, clear = scenes_of(scene_cube, row, 20)
    centre, part = result.arrays["20m/reflectance"], np.s_[..., 150:250, :]
    plain = reduce_scenes(values[part], clear[part], "geomedian")
    np.testing.assert_array_equal(centre[part], plain)
    at = 200, 300
    gaps = values[clear[:, *at], :, *at].astype("f8") - centre[:, *at]
    emad = np.median(np.sqrt((gaps**2).sum(axis=1))) * 1e-4
    assert result.arrays["20m/emad"][at] == pytest.approx(emad, rel=1e-6)
    np.testing.assert_array_equal(np.isnan(result.arrays["20m/smad"]), ~clear.any(axis=0))


def test_spread_is_the_days_between_the_first_and_the_last_clear_one(scene_cube: Any) -> None:
    row, result = made(scene_cube, CompositeRecipe("count", "P1M", 3))
    _, clear = scenes_of(scene_cube, row, 10)
    days = np.array([3, 9, 20])[:, None, None]  # of January
    spread = np.where(clear, days, -99).max(axis=0) - np.where(clear, days, 99).min(axis=0)
    expected = np.where(clear.any(axis=0), spread, 0)
    np.testing.assert_array_equal(result.arrays["10m/doy_spread"], expected)
    assert set(np.unique(expected)) == {0, 6, 11, 17}
    assert sorted(result.arrays) == sorted(
        f"{m}m/{name}" for m in (10, 20) for name in ("n_obs", "n_orbit", "doy_spread")
    )


def test_percentiles_stand_under_their_names(scene_cube: Any) -> None:
    recipe = CompositeRecipe("percentiles", "P1M", 3, percentiles=(0, 50))
    row, result = made(scene_cube, recipe)
    values, clear = scenes_of(scene_cube, row, 20)
    expected = reduce_scenes(values, clear, "median")
    np.testing.assert_array_equal(result.arrays["20m/p50"], expected)
    least = np.where(clear[:, None], values, 32767).min(axis=0)
    known = clear.any(axis=0)
    np.testing.assert_array_equal(result.arrays["20m/p0"][:, known], least[:, known])
    assert "20m/reflectance" not in result.arrays


def test_best_pixel_is_one_observation_of_its_date_at_both_levels(scene_cube: Any) -> None:
    row, result = made(scene_cube, CompositeRecipe("best-pixel", "P1M", 3))
    first = np.datetime64("2021-01-01").astype("datetime64[D]").astype(int)
    for resolution_m in (10, 20):
        values, clear = scenes_of(scene_cube, row, resolution_m)
        dates = result.arrays[f"{resolution_m}m/source_date"]
        picture = result.arrays[f"{resolution_m}m/reflectance"]
        for t, day in enumerate((3, 9, 20)):
            here = dates == first + day - 1
            assert clear[t][here].all()
            np.testing.assert_array_equal(picture[:, here], values[t][:, here])
        np.testing.assert_array_equal(dates == -1, ~clear.any(axis=0))
        assert len(np.unique(dates)) == 4
    fine, coarse = result.arrays["10m/source_date"], result.arrays["20m/source_date"]
    replicated = coarse.repeat(2, axis=0).repeat(2, axis=1)
    # but for what is not clear at one of the levels alone (2 % per kind of hole)
    assert (fine == replicated).mean() > 0.8


def test_a_solar_day_is_one_observation_when_grouped() -> None:
    clear = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool)[:, None]
    keep_first_of_day(clear, (7, 7, 8))
    assert clear[:, 0].astype(int).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]]


def test_datatakes_of_one_solar_day_stay_two_unless_grouped(
    make_store: Any,
) -> None:
    """At high latitude two passes share a day; the second is past midnight of UTC."""
    url = two_passes(make_store)
    apart, together = (
        CompositeRecipe("median", "P1D", 1, by_solar_day=grouped) for grouped in (False, True)
    )
    days = DateRange.parse("2021-06-01/2021-06-02")
    tile, reader = Tile(32, 400, 50), CubeReader(CubeSource(url))
    _, rows = plan_composites(apart, reader, [tile], days)
    assert [row.entry for row in rows] == ["2021-06-01/2021-06-02", "2021-06-02/2021-06-03"]
    _, rows = plan_composites(together, reader, [tile], days)
    assert [row.entry for row in rows] == ["2021-06-01/2021-06-02"]
    assert together.product == "s2-P1D-median-solar-day"
    (result,) = CompositeWorker(CubeSource(url), together)(rows[0])
    picture, n_obs = result.arrays["20m/reflectance"][0], result.arrays["20m/n_obs"]
    assert picture[0, 0] == 100  # the earlier pass, where it is clear
    assert picture[0, 511] == 300  # the later one beside it
    assert set(np.unique(n_obs)) == {1}
    month = CompositeRecipe("median", "P1M", 1)
    _, rows = plan_composites(month, reader, [tile], days)
    (result,) = CompositeWorker(CubeSource(url), month)(rows[0])
    assert result.arrays["20m/n_obs"][0, 0] == 2
    assert result.arrays["20m/reflectance"][0, 0, 0] == 200


def two_passes(make_store: Any) -> str:
    """An ``s2`` of one tile: 100 everywhere but under cloud in the east, then 300."""
    recipe = CubeRecipe(("B8A",), MaskRecipe(), {}, "sentinel-2-c1-l2a")
    store = make_store(scene_product(recipe))
    entries = [
        TimeEntry(f"take-{i}", time, {"relative_orbit": 10 + i, "solar_day": "2021-06-01"})
        for i, time in enumerate(("2021-06-01T22:30:00.000Z", "2021-06-02T00:10:00.000Z"))
    ]
    store.append(entries)
    for i, entry in enumerate(entries):
        mask = np.zeros((512, 512), np.uint8)
        mask[:, 256:] = 0 if i else int(Mask.CLOUD)
        arrays: dict[str, np.ndarray] = {
            "10m/quality": np.zeros((1024, 1024), np.uint8),
            "20m/quality": np.zeros((512, 512), np.uint8),
            "20m/mask": mask,
            "20m/scl": np.full((512, 512), 4, np.uint8),
            "20m/reflectance": np.full((1, 512, 512), 100 + 200 * i, np.int16),
        }
        store.write(TileResult(Tile(32, 400, 50), entry.key, arrays, DONE, 1, 0, f"scene {i}"))
    return str(store.url)


def test_names_and_parameters_of_older_products_stay() -> None:
    for method in ("geomedian", "median"):
        recipe = CompositeRecipe(method, "P3M", 3)
        assert recipe.product == f"s2-P3M-{method}"
        assert recipe.parameters() == {"method": method, "period": "P3M", "min_obs": 3}
        names = [array.name for array in composite_arrays(recipe, ("B02",))]
        assert names == ["reflectance", "n_obs", "n_orbit"]


def test_models_may_read_what_holds_a_spectrum() -> None:
    """The run file's list, which knows nothing of cubes, is this one."""
    assert SPECTRAL == LEARNABLE


def test_a_season_stands_in_name_parameters_and_periods(scene_cube: Any) -> None:
    recipe = CompositeRecipe("median", "P3M", 3, season_start=(12, 1))
    assert recipe.product == "s2-P3M_12-01-median"
    assert recipe.parameters()["season_start"] == [12, 1]
    entries, rows = plan(scene_cube, recipe)
    assert rows[0].entry == "2020-12-01/2021-03-01"
    assert entries[32][0].key == "2014-12-01/2015-03-01"


def test_tile_without_a_clear_date_is_fill(scene_cube: Any) -> None:
    _, rows = plan(scene_cube)
    row = replace(rows[0], positions=(3,), orbits=(1,), days=(18655,))
    (result,) = CompositeWorker(CubeSource(scene_cube.url), RECIPE)(row)
    assert (result.status, result.n_valid) == (NO_SCENE, 0)
    assert (result.arrays["10m/reflectance"] == FILL).all()


def test_days_of_a_period_end_before_the_next() -> None:
    assert str(days_of(Calendar.parse("P1M").period(1))) == "2015-02-01/2015-02-28"
