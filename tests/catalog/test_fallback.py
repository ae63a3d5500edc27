"""Which item of another provider is the same product, and which is other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from eoray.catalog.fallback import add_elsewhere, why_not_same
from eoray.catalog.scene import Scene, resolve_products
from eoray.catalog.static import to_item

BANDS = ("B04", "B8A")
Documents = Callable[..., dict[str, Any]]


def as_planetary_computer(document: dict[str, Any]) -> dict[str, Any]:
    """The same product as Planetary Computer lists it: other names, no offset declared."""
    names = {"red": "B04", "nir08": "B8A", "scl": "SCL"}
    product = document["properties"]["s2:product_uri"].removesuffix(".SAFE")
    parts = product.split("_")
    properties = {**document["properties"], "s2:mgrs_tile": parts[5][1:]}
    assets = {}
    for key, name in names.items():
        kept = {k: v for k, v in document["assets"][key].items() if k != "raster:bands"}
        assets[name] = {**kept, "href": f"https://other.test/{name}.tif"}
    return {
        **document,
        "id": "_".join([*parts[:3], *parts[4:]]),
        "collection": "sentinel-2-l2a",
        "properties": properties,
        "assets": assets,
    }


def scene_of(document: dict[str, Any]) -> Scene:
    (scene,) = resolve_products([to_item(document, "")], bands=BANDS)
    return scene


def test_the_same_product_is_found_under_other_names(document: Documents) -> None:
    ours, theirs = scene_of(document()), scene_of(as_planetary_computer(document()))
    assert (ours.provider, theirs.provider) == ("earth-search-c1", "planetary-computer")
    assert (ours.offset_rule, theirs.offset_rule) == ("c1-declared", "pc-baseline")
    (found,) = add_elsewhere([ours], {"pc": [theirs]})
    (place,) = found.elsewhere
    assert (place.provider, place.item_id) == ("planetary-computer", theirs.item_id)
    assert [asset.band for asset in place.assets] == [asset.band for asset in ours.assets]
    assert place.assets[0].href == "https://other.test/B04.tif"
    assert found.not_elsewhere == ""
    assert replace(found, elsewhere=()) == ours


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseline": "05.11"}, "another processing of it (baseline 05.11, generated"),
        (
            {"generated": "20250101T000000"},
            "another processing of it (baseline 05.10, generated 2025-01-01",
        ),
        ({"origin": (699970.0, 5100000.0)}, "has B04 of the same product on another grid"),
    ],
)
def test_other_data_is_never_taken(
    document: Documents, changes: dict[str, Any], words: str
) -> None:
    ours = scene_of(document())
    theirs = scene_of(as_planetary_computer(document(**changes)))
    (found,) = add_elsewhere([ours], {"pc": [theirs]})
    assert found.elsewhere == ()
    assert words in found.not_elsewhere


def test_pixels_without_the_offset_are_other_integers(document: Documents) -> None:
    ours = scene_of(document())
    shifted = document(name="S2B_32TQM_20240530_0_L2A", collection="sentinel-2-l2a")
    shifted["properties"]["earthsearch:boa_offset_applied"] = True
    theirs = scene_of(shifted)
    assert theirs.dn_offset == 0
    assert "offset +0 by rule es-flag-applied, here -1000" in why_not_same(ours, theirs)


def test_an_item_without_a_products_name_cannot_be_compared(document: Documents) -> None:
    ours = scene_of(document())
    assert "nobody can compare" in why_not_same(ours, replace(ours, product_uri=""))


def test_the_first_catalogue_comes_first_and_failures_are_forgotten(document: Documents) -> None:
    ours, same = scene_of(document()), scene_of(as_planetary_computer(document()))
    other = scene_of(as_planetary_computer(document(baseline="05.00")))
    (found,) = add_elsewhere([ours], {"old": [other], "pc": [same], "again": [same]})
    assert len(found.elsewhere) == 2
    assert found.not_elsewhere == ""
    (lost,) = add_elsewhere([ours], {"old": [other], "none": []})
    assert lost.not_elsewhere.startswith("old has another processing")
    assert lost.not_elsewhere.endswith("none has nothing of this pass")


def test_alternates_of_an_item_are_further_places(document: Documents) -> None:
    item = document()
    for key, asset in item["assets"].items():
        asset["alternate"] = {
            "s3": {"href": f"s3://bucket/{key}.tif"},
            "https": {"href": f"https://login.test/{key}", "auth:refs": ["oidc"]},
        }
    item["properties"]["auth:schemes"] = {"oidc": {"type": "openIdConnect"}, "s3": {"type": "s3"}}
    scene = scene_of(item)
    (place,) = scene.elsewhere
    assert place.provider == "earth-search-c1 (s3)"
    assert place.assets[0].href == "s3://bucket/red.tif"
    assert scene.asset("B04").href == "https://example.test/red.tif"


def test_a_file_behind_a_login_is_read_at_its_alternate(document: Documents) -> None:
    item = document()
    for key, asset in item["assets"].items():
        asset |= {"auth:refs": ["oidc"], "alternate": {"s3": {"href": f"s3://bucket/{key}.tif"}}}
    item["properties"]["auth:schemes"] = {"oidc": {"type": "openIdConnect"}}
    scene = scene_of(item)
    assert scene.asset("B04").href == "s3://bucket/red.tif"
    assert scene.elsewhere == ()
