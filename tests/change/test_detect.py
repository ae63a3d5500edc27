"""What the engine calls a break, when, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.change import ChangeFlag, ChangeParameters, detect, detect_breaks, last_break_date
from eoray.change.parameters import resolve_run_length
from eoray.change.series import harmonic_design
from eoray.errors import DataError, GridError
from tests.change.made import SIX_BANDS, all_clear, make_days, make_pixels

PARAMETERS = ChangeParameters(bands=SIX_BANDS)
CUT = np.array([400, 300, 700, -1400, 900, 1100], np.int16)[:, None, None]


def run(values: np.ndarray, day: np.ndarray, **options: object) -> dict[str, np.ndarray]:
    clear = options.pop("clear", None)
    parameters = options.pop("parameters", PARAMETERS)
    return detect_breaks(
        values,
        all_clear(values) if clear is None else clear,  # type: ignore[arg-type]
        day,
        parameters=parameters,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )


def cell(found: dict[str, np.ndarray], name: str) -> list[int]:
    return [int(v) for v in found[name][..., 0, 0].ravel()]


def has(found: dict[str, np.ndarray], flag: ChangeFlag) -> bool:
    return bool(found["qa_flags"][0, 0] & flag)


@pytest.mark.parametrize("at", [60, 100, 150])
def test_step_is_bracketed_by_its_two_observations(at: int) -> None:
    day = make_days()
    values = make_pixels(day)
    values[at:] += CUT

    found = run(values, day)

    assert cell(found, "n_breaks") == [1]
    assert cell(found, "date_lo") == [day[at - 1], 0, 0, 0]
    assert cell(found, "date_hi") == [day[at], 0, 0, 0]
    assert cell(found, "date_est") == [day[at - 1] + 4, 0, 0, 0]


def test_two_steps_are_two_breaks_in_order() -> None:
    day = make_days(9)
    values = make_pixels(day)
    values[120:] += CUT
    values[260:] -= CUT

    found = run(values, day)

    assert cell(found, "n_breaks") == [2]
    assert cell(found, "date_hi") == [day[120], day[260], 0, 0]


def test_season_alone_is_no_break() -> None:
    day = make_days()
    found = run(make_pixels(day, n_pixel=200, noise=60), day)
    assert found["n_breaks"].sum() == 0
    assert (found["date_hi"] == 0).all()
    assert (found["magnitude"] == -32768).all()


def test_drought_of_four_months_is_a_pulse_and_no_break() -> None:
    day = make_days()
    values = make_pixels(day)
    values[100:114] += CUT

    found = run(values, day)

    assert cell(found, "n_breaks") == [0]
    assert has(found, ChangeFlag.TRANSIENT)


def test_other_season_of_the_same_states_is_no_break() -> None:
    """A crop that grows two months later in the last two years: on other dates, nothing new."""
    day = make_days(4, step=12)
    values = make_pixels(day, n_pixel=40, noise=60).astype(float)
    late = make_pixels(day - 60, n_pixel=40, noise=60, seed=2)
    since = day >= day[0] + 730
    values[since] = late[since]

    shifted = run(np.rint(values).astype(np.int16), day)
    values[since] += CUT
    cut = run(np.rint(values).astype(np.int16), day)

    assert (shifted["n_breaks"] > 0).mean() <= 0.05
    assert (cut["n_breaks"] > 0).mean() >= 0.95


def test_magnitude_is_the_median_residual_to_a_ridge_fit() -> None:
    """Oracle: numpy's solution with the same ridge on all observations before the break."""
    day, at = make_days(), 100
    values = make_pixels(day, noise=3)
    values[at:] += CUT
    length = resolve_run_length(len(day) * 365.25 / (day[-1] - day[0]), PARAMETERS)
    X = harmonic_design(day)
    ridge = np.diag([1e-4, 0.3 * 20, *[0.05 * 20] * 6])
    y = values[:, :, 0, 0] * 1e-4
    beta = np.linalg.solve(X[:at].T @ X[:at] + ridge, X[:at].T @ y[:at])
    residual = y[at : at + length] - X[at : at + length] @ beta

    found = run(values, day)

    expected = np.rint(np.median(residual, axis=0) * 1e4)
    np.testing.assert_array_equal(found["magnitude"][0, :, 0, 0], expected)


def test_short_record_is_insufficient_whatever_happens_in_it() -> None:
    day = make_days(1.4, step=4)
    values = make_pixels(day)
    values[100:] += CUT

    found = run(values, day)

    assert cell(found, "n_breaks") == [0]
    assert cell(found, "monitored_from") == [0]
    assert has(found, ChangeFlag.INSUFFICIENT_RECORD)


def test_few_observations_are_insufficient() -> None:
    day = make_days(5, step=160)
    found = run(make_pixels(day), day)
    assert has(found, ChangeFlag.INSUFFICIENT_RECORD)
    assert cell(found, "n_obs") == [len(day)]


def test_all_cloud_is_insufficient_and_empty() -> None:
    day = make_days()
    values = make_pixels(day)

    found = run(values, day, clear=~all_clear(values))

    assert has(found, ChangeFlag.INSUFFICIENT_RECORD)
    for name in ("n_breaks", "n_obs", "monitored_from", "monitored_to", "date_est"):
        assert not found[name].any(), name


def test_no_dates_at_all_is_insufficient() -> None:
    empty = np.zeros((0, 6, 2, 3), np.int16)
    found = run(empty, np.zeros(0, np.int64))
    assert (found["qa_flags"] == ChangeFlag.INSUFFICIENT_RECORD).all()
    assert found["magnitude"].shape == (4, 6, 2, 3)


def test_gap_of_more_than_a_year_is_flagged() -> None:
    day = make_days(6)
    values = make_pixels(day)
    clear = all_clear(values)
    clear[80:125] = False
    assert has(run(values, day, clear=clear), ChangeFlag.LONG_GAP)
    assert not has(run(values, day), ChangeFlag.LONG_GAP)


def test_values_under_cloud_do_not_matter() -> None:
    day = make_days()
    values = make_pixels(day, n_pixel=20, noise=80)
    clear = np.random.default_rng(5).random(all_clear(values).shape) < 0.6
    spoilt = np.where(clear[:, None], values, 9999).astype(np.int16)
    assert_same(run(values, day, clear=clear), run(spoilt, day, clear=clear))


def test_fill_in_one_band_leaves_the_observation_out() -> None:
    day = make_days()
    values = make_pixels(day, n_pixel=20, noise=80)
    values[90:] += CUT
    out = np.random.default_rng(6).random(all_clear(values).shape) < 0.3
    holed = values.copy()
    holed[:, 2][out] = -32768
    assert_same(run(holed, day), run(values, day, clear=~out))


def test_negative_reflectance_is_a_value() -> None:
    day = make_days()
    values = (make_pixels(day) // 20 - 60).astype(np.int16)
    found = run(values, day)
    assert (values < 0).any()
    assert cell(found, "n_obs") == [len(day)]


@pytest.mark.parametrize("n_band", [1, 3, 10])
def test_any_number_of_bands(n_band: int) -> None:
    day, at = make_days(), 100
    values = make_pixels(day, n_band=n_band)
    values[at:] += 900

    found = run(
        values, day, parameters=ChangeParameters(bands=tuple(f"b{i}" for i in range(n_band)))
    )

    assert cell(found, "date_hi") == [day[at], 0, 0, 0]
    assert found["magnitude"].shape == (4, n_band, 1, 1)


def test_spikes_are_dropped_and_counted() -> None:
    day = make_days()
    values = make_pixels(day)
    values[5::8] += 2500

    found = run(values, day)

    assert cell(found, "n_breaks") == [0]
    assert has(found, ChangeFlag.REJECTED)
    assert cell(found, "n_obs")[0] <= len(day) - len(day[5::8]) + 1


def test_water_is_flagged() -> None:
    day = make_days()
    values = make_pixels(day)
    values[:, 4:] = 50
    assert has(run(values, day), ChangeFlag.WATER)
    assert not has(run(make_pixels(day), day), ChangeFlag.WATER)


def test_monitoring_ends_at_a_break_after_which_no_curve_can_be_learnt() -> None:
    day, at = make_days(), 170
    values = make_pixels(day)
    assert cell(run(values, day), "monitored_to")[0] > day[at]
    values[at:] += CUT
    assert cell(run(values, day), "monitored_to") == [day[at]]


def test_break_at_the_end_of_the_record_is_flagged() -> None:
    day = make_days()
    values = make_pixels(day)
    values[-11:] += CUT
    found = run(values, day)
    assert cell(found, "n_breaks") == [1]
    assert has(found, ChangeFlag.RECORD_END)


def test_monitoring_ends_where_a_run_would_be_too_short() -> None:
    day = make_days()
    found = run(make_pixels(day), day)
    assert cell(found, "monitored_to") == [day[-11]]
    assert day[-1] - day[-11] == PARAMETERS.run_days


def test_gain_of_an_orbit_does_not_hide_a_small_step() -> None:
    day, at = make_days(6), 150
    values = make_pixels(day, n_pixel=40, noise=25).astype(float)
    orbit = np.arange(len(day)) % 2
    values[at:] += CUT / 8
    values *= np.where(orbit, 1.12, 0.9)[:, None, None, None]
    values = np.rint(values).astype(np.int16)

    blind, aware = run(values, day), run(values, day, orbit=orbit)

    assert (aware["n_breaks"] > 0).mean() > (blind["n_breaks"] > 0).mean() + 0.3
    assert np.median(aware["date_hi"][0]) == day[at]


def test_orbit_of_pure_noise_changes_nothing() -> None:
    day = make_days()
    values = make_pixels(day, n_pixel=100, noise=60)
    values[100:] += CUT
    orbit = np.random.default_rng(2).integers(0, 2, len(day)) + 51
    blind, aware = run(values, day), run(values, day, orbit=orbit)
    assert (blind["date_hi"] == aware["date_hi"]).mean() > 0.98


def test_order_of_pixels_does_not_matter() -> None:
    day = make_days()
    values, clear = noisy_scene(day, 300)
    order = np.random.default_rng(3).permutation(300)
    whole = run(values, day, clear=clear)
    shuffled = run(values[..., order], day, clear=clear[..., order])
    assert_same({k: v[..., order] for k, v in whole.items()}, shuffled)


@pytest.mark.parametrize("cut", [1, 17, 150])
def test_chunked_equals_whole(cut: int) -> None:
    day = make_days()
    values, clear = noisy_scene(day, 300)
    left = run(values[..., :cut], day, clear=clear[..., :cut])
    right = run(values[..., cut:], day, clear=clear[..., cut:])
    joined = {k: np.concatenate([left[k], right[k]], axis=-1) for k in left}
    assert_same(joined, run(values, day, clear=clear))


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    day = make_days()
    values, clear = noisy_scene(day, 300)
    one = run(values, day, clear=clear)
    monkeypatch.setattr(detect, "BLOCK_PX", 37)
    assert_same(one, run(values, day, clear=clear, threads=2))


def test_layout_and_writability_of_the_input_do_not_compile_again() -> None:
    from eoray.change.engine import detect_pixels

    day = make_days()
    values = make_pixels(day, n_pixel=3)
    run(values, day)
    values.flags.writeable = False
    run(values, day)
    run(values[..., ::-1], day.astype(np.int32))
    assert len(detect_pixels.signatures) == 1


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_result_is_consistent_for_any_record(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    day = make_days(6)
    values = make_pixels(day, noise=float(rng.uniform(5, 300)), seed=seed)
    for at in rng.integers(0, len(day), 3):
        values[at:] += rng.integers(-900, 900, (6, 1, 1)).astype(np.int16)
    clear = rng.random(all_clear(values).shape) < share

    found = run(values, day, clear=clear)

    n = cell(found, "n_breaks")[0]
    lo, hi, est = (np.array(cell(found, f"date_{part}")) for part in ("lo", "hi", "est"))
    assert (lo[:n] < hi[:n]).all()
    assert ((lo <= est) & (est <= hi)).all()
    assert (hi[:n][:-1] <= lo[:n][1:]).all()
    assert not lo[n:].any()
    assert not hi[n:].any()
    assert (found["magnitude"][:n] > -32768).all()
    assert (found["magnitude"][n:] == -32768).all()
    usable = set(day[clear[:, 0, 0]].tolist())
    assert {int(d) for d in hi[:n]} <= usable
    if n:
        assert cell(found, "monitored_from")[0] <= hi[0]
        assert hi[n - 1] <= cell(found, "monitored_to")[0]
    assert cell(found, "n_obs")[0] <= len(usable)


def test_last_break_is_the_latest() -> None:
    dates = np.array([[[10, 0]], [[30, 0]], [[0, 0]], [[0, 0]]], np.int32)
    last = last_break_date({"date_est": dates})
    assert last.tolist() == [[30, 0]]
    assert last.dtype == np.int32


def test_break_near_a_step_of_processing_is_flagged() -> None:
    found = detect.empty_result(1, 1, 3)
    found["date_lo"][0, 0] = [1000, 1000, 0]
    found["date_hi"][0, 0] = [1020, 1020, 0]
    detect.flag_lineage(found, [1080])
    near = found["qa_flags"] & ChangeFlag.LINEAGE_STEP
    assert (near > 0).tolist() == [[True, True, False]]
    untouched = detect.empty_result(1, 1, 3)
    detect.flag_lineage(untouched, [0, 30])
    assert not (untouched["qa_flags"] & ChangeFlag.LINEAGE_STEP).any()


def test_snow_is_flagged_where_it_outnumbers_clear_land() -> None:
    found = detect.empty_result(1, 1, 2)
    clear = np.array([[[True, True]], [[False, True]], [[False, False]]])
    snow = np.array([[[False, False]], [[True, False]], [[True, True]]])
    detect.flag_snow(found, clear, snow)
    assert ((found["qa_flags"] & ChangeFlag.SNOW) > 0).tolist() == [[True, False]]


def test_wrong_number_of_bands_is_refused() -> None:
    day = make_days()
    with pytest.raises(GridError, match="6 bands B02"):
        run(make_pixels(day, n_band=3), day)


def test_mask_of_another_shape_is_refused() -> None:
    day = make_days()
    values = make_pixels(day)
    with pytest.raises(GridError, match="clear mask has shape"):
        run(values, day, clear=all_clear(values)[:-1])


def test_dates_that_go_back_are_refused() -> None:
    day = make_days()
    with pytest.raises(DataError, match="go back in time"):
        run(make_pixels(day), day[::-1])


def noisy_scene(day: np.ndarray, n_pixel: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with steps at various dates, noise and cloud: every branch is taken by some."""
    rng = np.random.default_rng(11)
    values = make_pixels(day, n_pixel=n_pixel, noise=90)
    for i in range(0, n_pixel, 3):
        values[int(rng.integers(20, len(day))) :, :, :, i] += CUT[..., 0]
    return values, rng.random(all_clear(values).shape) < rng.uniform(0.1, 1, n_pixel)


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        np.testing.assert_array_equal(values, other[name], err_msg=name)
