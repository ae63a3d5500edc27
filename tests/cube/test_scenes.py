"""The layers of the scene product."""

from __future__ import annotations

import pytest

from eoray.cube.mask import MaskRecipe
from eoray.cube.scenes import CubeRecipe, scene_product
from eoray.sentinel2 import FILL


@pytest.mark.parametrize(
    ("bands", "at_10", "at_20"),
    [
        (("B02", "B8A"), ["reflectance", "quality"], ["reflectance", "quality", "scl", "mask"]),
        (("B02",), ["reflectance", "quality"], ["quality", "scl", "mask"]),
        (("B11",), ["quality"], ["reflectance", "quality", "scl", "mask"]),
    ],
)
def test_product_holds_the_layers_of_its_bands(
    bands: tuple[str, ...], at_10: list[str], at_20: list[str]
) -> None:
    spec = scene_product(CubeRecipe(bands, MaskRecipe(), {"mixed": False}, "c1", warp=True))
    assert [[a.name for a in group.arrays] for group in spec.groups] == [at_10, at_20]
    assert spec.parameters["bands"] == list(bands)
    assert spec.parameters["warp"] is True
    assert spec.parameters["mask"] == MaskRecipe().name
    for path in [f"10m/{name}" for name in at_10]:
        array = spec.array(path)
        assert array.fill == (FILL if array.name == "reflectance" else 1)
