from __future__ import annotations

from dataclasses import replace

import pytest

from eoray.chips.recipe import InputRecipe
from eoray.errors import DataError, ModelError
from eoray.grid import Tile
from eoray.infer.plan import PredictOptions, plan_predict, predict_product
from eoray.models.package import ModelPackage
from tests.chips.landscape import TILE, Landscape

YEAR = ("2021-01-01", "2021-12-31")


def with_recipe(package: ModelPackage, recipe: InputRecipe) -> ModelPackage:
    return replace(package, meta=replace(package.meta, recipe=recipe))


def test_one_row_per_tile_and_season(package: ModelPackage, land: Landscape) -> None:
    entries, rows = plan_predict(package, land.reader, YEAR)
    (entry,) = entries
    assert (entry.key, entry.time) == ("2021-01-01/2022-01-01", "2021-01-01T00:00:00.000Z")
    (row,) = rows
    assert (row.entry, row.tiles, row.index) == (entry.key, (TILE,), (0, 1, 2, 3))
    assert row.periods[1] == "2021-04-01/2021-07-01"


def test_tiles_without_input_are_not_planned(package: ModelPackage, land: Landscape) -> None:
    _, rows = plan_predict(package, land.reader, YEAR, [TILE, Tile(32, 3, 3)])
    assert [row.tiles for row in rows] == [(TILE,)]
    with pytest.raises(DataError, match="holds no pixel from 2021-01-01 to 2021-12-31"):
        plan_predict(package, land.reader, YEAR, [Tile(32, 3, 3)])


def test_incomplete_season_is_refused(package: ModelPackage, land: Landscape) -> None:
    with pytest.raises(DataError, match="no 4 consecutive composites"):
        plan_predict(package, land.reader, ("2021-01-01", "2021-09-30"))


def test_model_of_other_bands_is_refused(package: ModelPackage, land: Landscape) -> None:
    other = with_recipe(package, replace(package.meta.recipe, bands=("B02", "B12")))
    with pytest.raises(ModelError, match=r"reads bands B02, B12 .*has B02, B03.*\(B12 missing\)"):
        plan_predict(other, land.reader, YEAR)


def test_product_says_how_it_was_made(package: ModelPackage) -> None:
    spec = predict_product("demo", package)
    assert (spec.name, spec.has_time) == ("map-demo", True)
    assert spec.parameters["model_hash"] == package.hash
    assert spec.parameters["recipe_hash"] == package.meta.recipe.hash
    layer = spec.array("10m/class")
    assert layer.attrs["flag_values"] == [1, 2, 3]
    assert layer.attrs["flag_meanings"] == "crop forest water"
    assert (layer.dtype, layer.fill) == ("uint8", 0)
    assert spec.array("10m/entropy").attrs["scale_factor"] == 0.005


def test_geometry_of_windows_is_a_parameter(package: ModelPackage) -> None:
    a, b = (predict_product("m", package, PredictOptions(core_px=c)).parameters for c in (64, 128))
    assert a != b
