"""Kernels of the temporal screen on pixels whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.cube.mask import MaskRecipe, grow
from eoray.cube.screen import ScreenRecipe, judge_strip
from eoray.cube.screening import (
    CLEAR,
    CLOUD,
    GROWN,
    OTHER,
    RESCUED,
    SHADOW,
    UNUSABLE,
    Dates,
    ScreenRule,
    disc,
    release_grown,
    rescue_targets,
    screen_dates,
)
from eoray.sentinel2 import Screen

RULE = ScreenRule()
GRASS = np.array([300, 350, 3200])
ROOF = np.array([2300, 2600, 2900])
SKY = np.array([7600, 7450, 7600])
N_TIME = 24


def series(spectrum: np.ndarray, *, n_time: int = N_TIME, noise: float = 0.02) -> np.ndarray:
    """One pixel over time, dims (time, 3, 1, 1)."""
    rng = np.random.default_rng(7)
    values = spectrum * (1 + noise * rng.standard_normal((n_time, 1)))
    return np.rint(values).astype(np.int16)[:, :, None, None]


def judge(
    values: np.ndarray, state: np.ndarray, *, step_days: int = 10, first: int = 0
) -> np.ndarray:
    """Bits of all dates from ``first`` on, dims (time, y, x)."""
    out = np.zeros((len(values) - first, *state.shape[1:]), np.uint8)
    dates = Dates(np.arange(len(values)) * step_days, first, len(values))
    screen_dates(values, state, dates, RULE, out)
    return out


def clear(n_time: int = N_TIME) -> np.ndarray:
    return np.full((n_time, 1, 1), CLEAR, np.uint8)


def seen_through(spectrum: np.ndarray, share: float) -> np.ndarray:
    """A share of the sky's light over the ground's."""
    return np.rint((1 - share) * spectrum + share * SKY).astype(np.int16)


def test_missed_haze_and_shadow_are_found_and_nothing_else() -> None:
    values = series(GRASS)
    values[5, :, 0, 0] = seen_through(GRASS, 0.06)
    values[12, :, 0, 0] = GRASS * 0.5
    bits = judge(values, clear())[:, 0, 0]
    assert bits[5] == Screen.CLOUD
    assert bits[12] == Screen.SHADOW
    assert bits.sum() == Screen.CLOUD + Screen.SHADOW


def test_run_of_missed_clouds_does_not_pass_for_the_ground() -> None:
    values = series(GRASS)
    for t in (9, 10, 11):
        values[t, :, 0, 0] = seen_through(GRASS, 0.1 + 0.1 * (t - 9))
    bits = judge(values, clear())[:, 0, 0]
    assert (np.flatnonzero(bits) == [9, 10, 11]).all()


@pytest.mark.parametrize("after", [[700, 1100, 1800], [620, 640, 500]], ids=["ploughed", "flooded"])
def test_ground_that_changes_for_good_stays_clear(after: list[int]) -> None:
    values = series(GRASS)
    values[12:] = series(np.array(after))[12:]
    assert not judge(values, clear()).any()


def test_season_is_no_cloud() -> None:
    day = np.arange(36) * 10
    green = 0.5 - 0.5 * np.cos(2 * np.pi * day / 365)
    soil, crop = np.array([800, 1250, 1900]), np.array([250, 280, 4300])
    values = soil + green[:, None] * (crop - soil)
    stack = np.rint(values).astype(np.int16)[:, :, None, None]
    assert not judge(stack, clear(36)).any()


def test_few_neighbours_judge_nothing() -> None:
    values, state = series(GRASS), clear()
    state[4:] = OTHER
    assert judge(values, state)[:4].ravel().tolist() == [Screen.UNJUDGED] * 4
    assert not judge(values, state)[4:].any()
    # dates a season away are no neighbours
    assert (judge(values, clear(), step_days=91) == Screen.UNJUDGED).all()


def test_only_the_dates_of_the_span_are_written() -> None:
    values = series(GRASS)
    values[3, :, 0, 0] = SKY
    values[9, :, 0, 0] = SKY
    whole, part = judge(values, clear()), judge(values, clear(), first=6)
    np.testing.assert_array_equal(part, whole[6:])


def test_roof_that_is_always_called_cloud_is_rescued_on_clear_days_alone() -> None:
    values, state = series(ROOF), np.full((N_TIME, 1, 1), CLOUD, np.uint8)
    cloudy = [2, 3, 8, 13, 19]
    for t in cloudy:
        values[t, :, 0, 0] = seen_through(ROOF, 0.8)
    rescue_targets(values, state, RULE)
    found = np.flatnonzero(state.ravel() == RESCUED)
    assert not set(found) & set(cloudy)
    assert len(found) >= N_TIME - len(cloudy) - 1


def test_water_that_is_called_shadow_is_rescued_but_not_in_a_shadow() -> None:
    water = np.array([600, 350, 200])
    values, state = series(water, noise=0.05), clear()
    state[::3] = SHADOW
    values[6, :, 0, 0] = water * 0.45
    rescue_targets(values, state, RULE)
    kept = np.flatnonzero(state.ravel() == SHADOW)
    assert 6 in kept
    assert len(kept) <= 2


@pytest.mark.parametrize(
    ("spectrum", "noise"),
    [(GRASS, 0.02), (ROOF, 0.8), (np.array([6000, 5900, 6100]), 0.02)],
    ids=["dark", "restless", "white"],
)
def test_what_is_dark_restless_or_white_stays_cloud(spectrum: np.ndarray, noise: float) -> None:
    state = np.full((N_TIME, 1, 1), CLOUD, np.uint8)
    rescue_targets(series(spectrum, noise=noise), state, RULE)
    assert (state == CLOUD).all()


def test_grey_skies_are_not_what_is_usual_where_clear_days_differ() -> None:
    values = series(np.array([3300, 3300, 3400]))
    state = np.full((N_TIME, 1, 1), CLOUD, np.uint8)
    for t in (4, 11, 17):
        values[t, :, 0, 0] = GRASS
        state[t] = CLEAR
    rescue_targets(values, state, RULE)
    assert not (state == RESCUED).any()


def test_what_grew_from_a_rescued_roof_alone_is_freed() -> None:
    plane = np.full((1, 40, 40), CLEAR, np.uint8)
    roof, cloud = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    roof[10, 10] = cloud[10, 18] = True
    plane[0][grow(roof | cloud, 100, (20.0, 20.0))] = GROWN
    plane[0][roof], plane[0][cloud] = RESCUED, CLOUD
    release_grown(plane, disc(100, (20.0, 20.0)), disc(60, (20.0, 20.0)))
    expected = grow(cloud, 100, (20.0, 20.0)) & ~cloud
    np.testing.assert_array_equal(plane[0] == GROWN, expected)
    assert plane[0, 10, 6] == RESCUED
    assert plane[0, 30, 30] == CLEAR


def test_a_shadow_nearby_keeps_its_own_margin() -> None:
    plane = np.full((1, 20, 20), CLEAR, np.uint8)
    plane[0, 8:12, 8:12] = GROWN
    plane[0, 10, 10] = RESCUED
    plane[0, 10, 14] = SHADOW
    release_grown(plane, disc(100, (20.0, 20.0)), disc(60, (20.0, 20.0)))
    assert plane[0, 10, 11] == GROWN  # 60 m from the shadow
    assert plane[0, 10, 9] == RESCUED


@given(st.floats(0, 300), st.sampled_from([(20.0, 20.0), (15.0, 30.0), (7.3, 11.9)]))
def test_disc_is_how_masks_grow(radius_m: float, ground_m: tuple[float, float]) -> None:
    core = np.zeros((101, 101), bool)
    core[50, 50] = True
    found = np.zeros_like(core)
    offsets = disc(radius_m, ground_m) + 50
    found[offsets[:, 0], offsets[:, 1]] = True
    np.testing.assert_array_equal(found, grow(core, radius_m, ground_m))


@given(st.integers(0, 2**32), st.integers(3, 30))
def test_a_pixel_is_judged_by_itself(seed: int, split: int) -> None:
    """Parts of a strip give what the whole gives, where nothing is rescued near the cut."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5000, (20, 3, 2, 33)).astype(np.int16)
    state = rng.choice([UNUSABLE, CLEAR, SHADOW, OTHER], (20, 2, 33)).astype(np.uint8)
    dates, recipe = Dates(np.arange(20) * 5, 4, 15), ScreenRecipe(MaskRecipe())

    def run(cols: slice) -> np.ndarray:
        part = np.ascontiguousarray(values[..., cols]), np.ascontiguousarray(state[..., cols])
        return judge_strip(*part, dates, recipe, (20.0, 20.0))

    whole = run(slice(None))
    parts = [run(slice(0, split)), run(slice(split, None))]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=2))
