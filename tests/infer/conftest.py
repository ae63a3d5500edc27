"""A package with context (3 x 3 convolutions) on the small landscape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from eoray.chips.labels import Legend
from eoray.chips.recipe import InputRecipe, Normalisation, to_canonical_json
from eoray.models.package import ModelPackage, PackageMeta, save_package
from eoray.models.registry import ModelSpec, build_model, register
from tests.chips.fake_reader import BANDS, PARAMETERS, PRODUCT
from tests.chips.landscape import NAMES, Landscape, make_landscape


def build_conv(n_channels: int, n_classes: int, options: Mapping[str, Any]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(n_channels, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, n_classes, 5, padding=2)
    )


register("conv-of-tests", build_conv)


@pytest.fixture(scope="session")
def land() -> Landscape:
    return make_landscape(size_px=192)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    recipe = InputRecipe(PRODUCT, BANDS, 4, (1, 1), to_canonical_json(PARAMETERS))
    spec = ModelSpec("conv-of-tests", recipe.n_channels, 3)
    meta = PackageMeta(
        name="conv",
        spec=spec,
        recipe=recipe,
        normal=Normalisation((1500.0,) * 20, (300.0,) * 20),
        legend=Legend(NAMES),
        seasons=("2021-01-01/2022-01-01",),
        bbox=(8.0, 42.0, 9.0, 43.0),
        chip_px=64,
    )
    folder = str(tmp_path_factory.mktemp("package"))
    return save_package(folder, build_model(spec, seed=2), meta)
