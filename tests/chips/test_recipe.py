from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.chips.recipe import (
    InputRecipe,
    Normalisation,
    check_recipe,
    find_observed,
    find_seasons,
    is_observed,
    prepare_input,
    to_canonical_json,
    view_of,
)
from eoray.errors import DataError, ModelError
from eoray.sentinel2 import BANDS, FILL
from tests.chips.fake_reader import PARAMETERS, PRODUCT, FakeReader, quarters


def make_recipe(**changes: Any) -> InputRecipe:
    values: dict[str, Any] = {
        "product": PRODUCT,
        "bands": ("B02", "B04"),
        "n_periods": 4,
        "season_start": (1, 1),
        "parameters": to_canonical_json(PARAMETERS),
    }
    return InputRecipe(**{**values, **changes})


def make_reader(*years: int, **changes: Any) -> FakeReader:
    periods = quarters(*years)
    values = np.ones((len(periods), 5, 8, 8), np.int16)
    return FakeReader({32: (457 * 1024, 48 * 1024, values)}, periods, **changes)


@given(
    bands=st.lists(st.sampled_from(BANDS), min_size=1, max_size=10, unique=True),
    n_periods=st.integers(1, 12),
    month=st.integers(1, 12),
)
def test_recipe_survives_json(bands: list[str], n_periods: int, month: int) -> None:
    recipe = make_recipe(bands=tuple(bands), n_periods=n_periods, season_start=(month, 1))
    assert InputRecipe.from_dict(recipe.to_dict()) == recipe
    assert len(recipe.channel_names) == recipe.n_channels == n_periods * (len(bands) + 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"bands": ("B04", "B02")},
        {"n_periods": 2},
        {"season_start": (4, 1)},
        {"parameters": to_canonical_json({**PARAMETERS, "min_obs": 2})},
    ],
)
def test_hash_tells_recipes_apart(changes: dict[str, Any]) -> None:
    assert make_recipe(**changes).hash != make_recipe().hash


def test_hash_is_stable_across_releases() -> None:
    # A model package of an earlier release must still fit its cube.
    assert make_recipe().hash == "6470dd2b9a3a60de"


def test_common_names_become_ids() -> None:
    assert make_recipe(bands=("blue", "red")) == make_recipe()


def test_input_is_normalised_by_time_and_band_with_fill_at_zero() -> None:
    values = np.array([[10, FILL], [30, 40]], np.int16)[:, :, None, None]
    normal = Normalisation(mean=(10.0, 20.0, 10.0, 20.0), std=(1.0, 2.0, 5.0, 10.0))
    x = prepare_input(values, normal)
    assert x[:, 0, 0].tolist() == [0.0, 0.0, 4.0, 2.0, 0.0, 1.0]
    assert x.dtype == np.float32


def test_pixel_is_observed_when_one_composite_has_all_bands() -> None:
    values = np.full((2, 2, 1, 3), FILL, np.int16)
    values[0, 0, 0, 0] = values[1, 1, 0, 0] = 5  # never both bands at once
    values[1, :, 0, 1] = 5
    assert is_observed(values).tolist() == [[False, True, False]]


def test_seasons_are_years_of_composites() -> None:
    seasons = find_seasons(make_reader(2020, 2021), PRODUCT, ("2020-01-01", "2021-12-31"))
    assert [season.key for season in seasons] == [
        "2020-01-01/2021-01-01",
        "2021-01-01/2022-01-01",
    ]
    assert seasons[1].index_of(32) == (4, 5, 6, 7)
    assert seasons[1].index_of(33) is None


def test_season_begins_with_first_composite_inside_the_time() -> None:
    (season,) = find_seasons(make_reader(2020, 2021), PRODUCT, ("2020-03-01", "2021-03-31"))
    assert season.key == "2020-04-01/2021-04-01"


def test_season_of_a_model_keeps_its_calendar() -> None:
    seasons = find_seasons(
        make_reader(2020, 2021),
        PRODUCT,
        ("2020-01-01", "2021-12-31"),
        n_periods=2,
        season_start=(4, 1),
    )
    assert [season.index_of(32) for season in seasons] == [(1, 2), (5, 6)]


def test_season_with_a_hole_is_no_season() -> None:
    reader = make_reader(2021)
    reader.periods = (reader.periods[0], *reader.periods[2:])
    with pytest.raises(DataError, match="it holds 2021-01-01/2021-04-01, 2021-07-01"):
        find_seasons(reader, PRODUCT, ("2021-01-01", "2021-12-31"), n_periods=3)


def test_scenes_are_no_composites() -> None:
    reader = make_reader(2021)
    reader.periods = ("S2A_20210101T100000",)
    reader.entries = lambda product, zone: type(  # type: ignore[method-assign]
        "Table", (), {"key": np.array(reader.periods), "index": np.array([0])}
    )()
    with pytest.raises(DataError, match="'S2A_20210101T100000', which is no period"):
        find_seasons(reader, PRODUCT, ("2021-01-01", "2021-12-31"))


def test_digest_of_a_tile_follows_its_pixels() -> None:
    reader = make_reader(2021)
    (season,) = find_seasons(reader, PRODUCT, ("2021-01-01", "2021-12-31"))
    before = find_observed(reader, PRODUCT, season)
    assert find_observed(make_reader(2021), PRODUCT, season) == before
    reader.planes[32][2][2, 0, 0, 0] = 7
    after = find_observed(reader, PRODUCT, season)
    assert after.keys() == before.keys()
    assert after != before


def test_absent_band_is_refused_naming_both() -> None:
    check_recipe(make_recipe(), make_reader(2021), model="m")  # what it has is accepted
    with pytest.raises(ModelError, match=r"reads bands B02, B12 .* has B02, B03, B04, B08, B11"):
        check_recipe(make_recipe(bands=("B02", "B12")), make_reader(2021), model="m")


def test_absent_product_is_refused() -> None:
    with pytest.raises(ModelError, match="reads product 's2-P1M-median' but the cube holds s2-P3M"):
        check_recipe(make_recipe(product="s2-P1M-median"), make_reader(2021), model="m")


def test_other_composite_parameters_are_refused_by_name() -> None:
    reader = make_reader(2021, parameters={**PARAMETERS, "min_obs": 1})
    with pytest.raises(ModelError, match=r"min_obs 3 \(model\) / 1 \(cube\)"):
        check_recipe(make_recipe(), reader, model="m")


def test_reader_passes_through() -> None:
    reader = make_reader(2021)
    assert view_of(reader) is reader
