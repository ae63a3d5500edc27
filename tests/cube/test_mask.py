"""SCL to mask bits: every class, and growth by a Euclidean distance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.cube.mask import MaskRecipe, clear_classes, grow, mask_learned, mask_scl
from eoray.sentinel2 import Mask, Scl

NO_GROWTH = MaskRecipe(cloud_m=0, shadow_m=0)


@pytest.mark.parametrize(
    ("scl", "bits"),
    [
        (0, Mask.INVALID),
        (1, Mask.INVALID),
        (2, Mask.OTHER),
        (3, Mask.SHADOW),
        (4, 0),
        (5, 0),
        (6, 0),
        (7, Mask.OTHER),
        (8, Mask.CLOUD),
        (9, Mask.CLOUD),
        (10, Mask.CIRRUS),
        (11, Mask.SNOW),
        (12, Mask.OTHER),
        (255, Mask.OTHER),
    ],
)
def test_every_class_has_its_bit(scl: int, bits: int) -> None:
    assert mask_scl(np.full((1, 1), scl, np.uint8), NO_GROWTH).item() == int(bits)


@pytest.mark.parametrize("extra", [2, 7, 11])
def test_classes_called_clear_are_clear(extra: int) -> None:
    recipe = MaskRecipe(clear=(4, 5, 6, extra))
    assert mask_scl(np.full((3, 3), extra, np.uint8), recipe).max() == 0


def disc(core: np.ndarray, radius_px: float) -> np.ndarray:
    """Brute force: a pixel is in when any core pixel lies within the radius."""
    rows, cols = np.nonzero(core)
    out = np.zeros_like(core)
    for row in range(core.shape[0]):
        for col in range(core.shape[1]):
            if len(rows):
                out[row, col] = ((rows - row) ** 2 + (cols - col) ** 2).min() <= radius_px**2
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.01, 0.1]), st.sampled_from([0, 1, 3, 5]))
def test_growth_is_a_disc(seed: int, share: float, radius_px: int) -> None:
    core = np.random.default_rng(seed).random((20, 17)) < share
    np.testing.assert_array_equal(grow(core, radius_px), disc(core, radius_px))


@pytest.mark.parametrize(("scl", "radius_px"), [(8, 5), (9, 5), (3, 3)])
def test_cloud_grows_100_m_and_shadow_60_m(scl: int, radius_px: int) -> None:
    plane = np.full((31, 31), Scl.VEGETATION, np.uint8)
    plane[15, 15] = scl
    mask = mask_scl(plane, MaskRecipe())
    core = plane == scl
    np.testing.assert_array_equal((mask & Mask.DILATED) > 0, disc(core, radius_px) & ~core)
    assert mask[15, 15] == int(Mask.SHADOW if scl == 3 else Mask.CLOUD)


@pytest.mark.parametrize("scl", [0, 1, 2, 7, 10, 11])
def test_other_classes_do_not_grow(scl: int) -> None:
    plane = np.full((9, 9), Scl.BARE, np.uint8)
    plane[4, 4] = scl
    assert (mask_scl(plane, MaskRecipe()) > 0).sum() == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 20), st.integers(0, 20))
def test_the_halo_is_enough_for_a_part_to_equal_the_whole(seed: int, row: int, col: int) -> None:
    recipe = MaskRecipe()
    rng = np.random.default_rng(seed)
    plane = rng.choice([4, 4, 4, 4, 4, 4, 8, 3, 11, 0], (50, 50)).astype(np.uint8)
    halo = recipe.halo_px
    whole = mask_scl(plane, recipe)
    part = mask_scl(plane[row : row + 10 + 2 * halo, col : col + 10 + 2 * halo], recipe)
    np.testing.assert_array_equal(
        part[halo:-halo, halo:-halo], whole[row + halo : row + halo + 10, col + halo :][:, :10]
    )


def test_name_of_a_recipe_tells_recipes_apart() -> None:
    recipes = [
        MaskRecipe(),
        MaskRecipe(clear=(4, 5)),
        MaskRecipe(cloud_m=0),
        MaskRecipe(shadow_m=0),
    ]
    assert len({recipe.name for recipe in recipes}) == 4
    assert MaskRecipe(clear=(6, 5, 4)).name == MaskRecipe().name
    assert clear_classes([6, 4, 4]) == (4, 6)


ALONE = MaskRecipe(cloud_m=0, shadow_m=0, learned="net", with_scl=False)
BOTH = MaskRecipe(cloud_m=0, shadow_m=0, learned="net")


@pytest.mark.parametrize(
    ("found", "scl", "alone", "both"),
    [
        (0, 4, 0, 0),
        (0, 9, 0, Mask.CLOUD),  # bright soil that Sen2Cor calls cloud
        (1, 4, Mask.CLOUD, Mask.CLOUD),  # a cloud that it misses
        (2, 8, Mask.CIRRUS, Mask.CIRRUS | Mask.CLOUD),
        (3, 6, Mask.SHADOW, Mask.SHADOW),
        (0, 11, Mask.SNOW, Mask.SNOW),
        (0, 1, Mask.INVALID, Mask.INVALID),
        (1, 0, Mask.INVALID, Mask.INVALID),  # nobody saw it
        (255, 4, Mask.OTHER, Mask.OTHER),  # a band was missing: never clear in silence
        (7, 4, Mask.OTHER, Mask.OTHER),
    ],
)
def test_a_network_joins_or_replaces_scl(found: int, scl: int, alone: int, both: int) -> None:
    classes, scl_map = (np.full((1, 1), value, np.uint8) for value in (found, scl))
    assert mask_learned(classes, scl_map, ALONE).item() == int(alone)
    assert mask_learned(classes, scl_map, BOTH).item() == int(both)


def test_clouds_of_a_network_grow_as_those_of_scl_do() -> None:
    rng = np.random.default_rng(1)
    classes = np.zeros((60, 60), np.uint8)
    classes[rng.random(classes.shape) < 0.01] = 1
    classes[rng.random(classes.shape) < 0.01] = 3
    as_scl = np.array([4, 9, 10, 3], np.uint8)[classes]
    recipe = MaskRecipe(learned="net", with_scl=False)
    found = mask_learned(classes, np.full_like(classes, 4), recipe)
    np.testing.assert_array_equal(found, mask_scl(as_scl, MaskRecipe()))
    assert (found & int(Mask.DILATED)).any()


def test_names_tell_networks_and_the_part_of_scl() -> None:
    assert MaskRecipe().name == "scl4-5-6/cloud100m/shadow60m"  # as in cubes of 0.1.0
    assert MaskRecipe(learned="net-1").name == "net-1+scl4-5-6/cloud100m/shadow60m"
    assert MaskRecipe(learned="net-1", with_scl=False).name == "net-1+snow1/cloud100m/shadow60m"
    clear = MaskRecipe((4, 5, 6, 11), learned="net-1", with_scl=False)
    assert clear.name == "net-1+snow0/cloud100m/shadow60m"
