"""Settings of the engine: refusals, run lengths, the numbers that kernels get."""

from __future__ import annotations

import json

import pytest

from eoray.change import ChangeParameters, default_bands
from eoray.change.parameters import resolve_rule, resolve_run_length
from eoray.errors import ConfigError

PARAMETERS = ChangeParameters()


@pytest.mark.parametrize(
    ("density", "length"), [(0, 3), (8, 3), (12, 3), (16, 4), (24, 5), (42, 6), (84, 8), (300, 14)]
)
def test_run_grows_with_the_root_of_the_density(density: float, length: int) -> None:
    assert resolve_run_length(density, PARAMETERS) == length


def test_run_can_be_fixed() -> None:
    fixed = ChangeParameters(min_run=6, max_run=6)
    assert {resolve_run_length(d, fixed) for d in (5, 42, 200)} == {6}


def test_thresholds_are_quantiles_of_chi_square() -> None:
    """Table of chi-square, 6 degrees of freedom, .99: 16.812."""
    rule = resolve_rule(PARAMETERS)
    assert rule.limit == pytest.approx(16.812, abs=5e-4)
    assert rule.state_limit == pytest.approx(16.812, abs=5e-4)
    assert rule.step_limit == 6 * 6


def test_few_observations_carry_one_harmonic() -> None:
    ridge = resolve_rule(PARAMETERS).ridge
    free = (ridge < 1e3).sum(axis=1)
    assert free.tolist() == [4, 6, 8]


def test_attributes_are_json_and_rebuild_the_parameters() -> None:
    parameters = ChangeParameters(bands=("B8A", "B11"), probability=0.995)
    values = json.loads(json.dumps(parameters.as_attrs()))
    values["bands"] = tuple(values["bands"])
    assert ChangeParameters(**values) == parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probability", 1.0),
        ("reference_run", 1),
        ("min_run", 15),
        ("min_obs", 3),
        ("init_days", 30),
        ("record_days", 100),
        ("pulse_share", -0.1),
        ("state_probability", 0.4),
        ("known_evidence", -1.0),
        ("noise_floor", 0.0),
    ],
)
def test_value_that_cannot_work_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"change.{name} is {value!r}"):
        ChangeParameters(**{name: value})  # type: ignore[arg-type]


def test_no_band_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"change\.bands is empty"):
        ChangeParameters(bands=())


def test_bands_of_20_m_repeat_at_10_m_and_are_left_out() -> None:
    cube = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
    assert default_bands(20, cube) == ("B02", "B03", "B04", "B8A", "B11", "B12")
    assert default_bands(10, cube) == ("B02", "B03", "B04", "B08")
    assert default_bands(20, ("B04", "B05")) == ("B04",)


def test_cube_without_a_watched_band_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none of the bands B02.* only B05"):
        default_bands(20, ("B05",))
