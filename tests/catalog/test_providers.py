"""Which provider an item is from."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pystac
import pytest

from eoray.buckets import bucket_of
from eoray.catalog.providers import (
    CDSE,
    GENERIC,
    PROVIDERS,
    Provider,
    asset_keys,
    bands_present,
    default_collection,
    provider_named,
    requests_at_once,
    resolve_provider,
    token_address,
)
from eoray.catalog.scene import resolve_products
from eoray.errors import ConfigError
from eoray.sentinel2 import BANDS, COMMON_NAMES, native_resolution_m


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


def words_of(band: str) -> dict[str, object]:
    is_scl = band == "SCL"
    common = "scl" if is_scl else COMMON_NAMES[band]
    return {"common": common, "id": band, "resolution": 20 if is_scl else native_resolution_m(band)}


@pytest.mark.parametrize(
    ("name", "file", "rule", "places"),
    [
        ("earth-search-c1", "earth-search-v1/c1_item-collection.json", "c1-declared", 1),
        (
            "earth-search-v1",
            "earth-search-v1/search_point_s2_landsat_20231008.json",
            "es-flag-applied",
            1,
        ),
        ("earth-search-v0", "earth-search-v0/S2A_28QCH_20200714_0_L2A.json", "es0-before-0400", 1),
        (
            "planetary-computer",
            "planetary-computer/two-sentinel-2-items_2024.json",
            "pc-baseline",
            1,
        ),
        ("planetary-computer", "planetary-computer/100-sentinel-2-items.parquet", "pc-baseline", 1),
        ("cdse", "cdse/search_202007_4items.json", "cdse-declared", 1),
        ("cdse", "cdse/issue1043_20200322.json", "cdse-declared", 1),
    ],
)
def test_real_items_are_as_their_row_says(
    load: Callable[[str], list[pystac.Item]], name: str, file: str, rule: str, places: int
) -> None:
    row = provider_named(name)
    items = [i for i in load(f"stac/{file}") if i.collection_id in row.collections]
    assert items
    scenes = resolve_products(items, bands=BANDS)
    assert len(scenes) == len(items)
    for item in items:
        assert resolve_provider(item.collection_id or "", item.properties) == row
        keys = [n.format(**words_of(b)) for b in (*BANDS, "SCL") for n in row.asset_names]
        assert set(keys) <= set(item.assets)
    for scene in scenes:
        assert scene.offset_rule == rule
        assert 1 + len(scene.elsewhere) == places
        for asset in scene.assets:
            parts = urlsplit(asset.href)
            assert f"{parts.scheme}://{parts.netloc}" in row.file_servers
            assert asset_keys(asset.band)[-1].startswith(asset.band)


@pytest.mark.parametrize("row", PROVIDERS, ids=lambda row: row.name)
def test_a_server_of_files_bears_what_its_row_says(row: Provider) -> None:
    for server in row.file_servers:
        assert requests_at_once(server) == row.at_once
        assert token_address(server) == row.tokens
    assert row.at_once >= 1
    assert set(row.asset_names) <= set(GENERIC.asset_names)


def test_unknown_servers_are_asked_as_any_other() -> None:
    assert requests_at_once("https://example.test") == GENERIC.at_once
    assert token_address("https://example.test") == ""


def test_the_archive_of_cdse_is_known_to_lie_at_its_own_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert CDSE.file_servers[0] == "s3://eodata"
    found = bucket_of("s3://eodata/Sentinel-2/a.jp2")
    assert (found.endpoint, found.in_path) == ("https://eodata.dataspace.copernicus.eu", True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://inside.example")
    assert bucket_of("s3://eodata/Sentinel-2/a.jp2").endpoint == "https://inside.example"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert bucket_of("s3://mine/a.tif").endpoint is None
