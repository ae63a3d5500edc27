"""Which provider an item is from."""

from __future__ import annotations

import pytest

from eoray.catalog.providers import (
    asset_keys,
    bands_present,
    default_collection,
    resolve_provider,
)
from eoray.errors import ConfigError
from eoray.sentinel2 import BANDS


@pytest.mark.parametrize(
    ("collection", "properties", "name"),
    [
        ("sentinel-2-c1-l2a", {"earthsearch:payload_id": "x"}, "earth-search-c1"),
        ("sentinel-2-l2a", {"earthsearch:payload_id": "x"}, "earth-search-v1"),
        ("sentinel-s2-l2a-cogs", {"sentinel:sequence": "0"}, "earth-search-v0"),
        ("sentinel-2-l2a", {"s2:mgrs_tile": "13TDE"}, "planetary-computer"),
        ("sentinel-2-l2a", {"eopf:datatake_id": "x"}, "cdse"),
        ("sentinel-2-l2a", {"s2:datatake_id": "x"}, "generic"),
        ("mine", {}, "generic"),
    ],
)
def test_items_tell_their_provider(collection: str, properties: dict[str, str], name: str) -> None:
    assert resolve_provider(collection, properties).name == name


@pytest.mark.parametrize(
    ("said", "collection", "name"),
    [
        ("cdse", "mine", "cdse"),
        ("static", "sentinel-2-l2a", "generic"),
        ("earth-search", "sentinel-2-c1-l2a", "earth-search-c1"),
        ("earth-search", "mine", "earth-search-v1"),
    ],
)
def test_the_run_file_may_say_it(said: str, collection: str, name: str) -> None:
    assert resolve_provider(collection, {}, said=said).name == name


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown provider 'esa'.*planetary-computer"):
        resolve_provider("x", {}, said="esa")


@pytest.mark.parametrize(
    ("url", "collection"),
    [
        ("https://earth-search.aws.element84.com/v1", "sentinel-2-c1-l2a"),
        ("https://planetarycomputer.microsoft.com/api/stac/v1", "sentinel-2-l2a"),
        ("https://stac.dataspace.copernicus.eu/v1/", "sentinel-2-l2a"),
        ("https://example.test/stac", None),
        ("/archive/catalog.json", None),
    ],
)
def test_public_apis_have_a_collection_of_record(url: str, collection: str | None) -> None:
    assert default_collection(url) == collection


def test_native_resolution_is_taken_where_keys_carry_it() -> None:
    assert asset_keys("B04") == ("red", "B04", "B04_10m")
    assert asset_keys("B8A") == ("nir08", "B8A", "B8A_20m")
    assert asset_keys("SCL")[-1] == "SCL_20m"
    assert bands_present({f"{band}_20m": 0 for band in BANDS}) == BANDS[4:]
