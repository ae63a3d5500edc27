"""Frozen items come back as they were, and hash the same however they are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pystac
import pytest

from eoray.catalog.lineage import Lineage
from eoray.catalog.scene import resolve_scenes
from eoray.catalog.snapshot import hash_items, read_snapshot, write_snapshot
from eoray.catalog.static import to_item
from eoray.errors import CatalogError

Load = Callable[[str], list[pystac.Item]]
Make = Callable[..., pystac.Item]

REAL = [
    "stac/cdse/search_202007_4items.json",
    "stac/earth-search-v0/S2A_33UWP_20220405_0_L2A.json",
    "stac/earth-search-v1/c1_item-collection.json",
    "stac/planetary-computer/search_20190101_antimeridian_33items.json",
    "stac/stactools/S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE.json",
]


@pytest.mark.parametrize("name", REAL)
def test_a_snapshot_resolves_to_the_same_scenes(load: Load, tmp_path: Path, name: str) -> None:
    items = load(name)
    url = str(tmp_path / "items.parquet")
    digest = write_snapshot(items, url)
    again, known = read_snapshot(url)
    options: dict[str, Any] = {"lineage": Lineage(baseline_min=None), "bands": ["B04", "B11"]}
    assert digest == known == hash_items(items)
    assert repr(resolve_scenes(again, **options)) == repr(resolve_scenes(items, **options))


def test_items_of_all_providers_fit_in_one_snapshot(load: Load, tmp_path: Path) -> None:
    items = [item for name in REAL for item in load(name)]
    items += load("stac/earth-search-v1/search_point_s2_landsat_20231008.json")
    digest = write_snapshot(items, str(tmp_path / "all.parquet"))
    again, known = read_snapshot(str(tmp_path / "all.parquet"))
    assert (len(again), known) == (len(items), digest)


@pytest.mark.parametrize("query", ["?X-Amz-Date=1&X-Amz-Signature=0af3", "?sv=2024&sig=aB%3D"])
def test_signed_links_are_refused_and_not_repeated(make: Make, tmp_path: Path, query: str) -> None:
    item = make(name="a")
    key = next(iter(item.assets))
    item.assets[key].href += query
    with pytest.raises(CatalogError, match=rf"asset '{key}' of item .*signed link") as refused:
        write_snapshot([item], str(tmp_path / "items.parquet"))
    assert list(tmp_path.iterdir()) == []
    assert "***" in str(refused.value)
    assert query.rpartition("=")[2] not in str(refused.value).replace("***", "")


def test_signatures_that_can_be_made_anew_are_not_frozen(make: Make, tmp_path: Path) -> None:
    plain, signed = make(name="a"), make(name="a")
    for key, asset in plain.assets.items():
        place = f"https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/32/T/{key}.tif"
        asset.href = place
        signed.assets[key].href = f"{place}?st=2024&se=2025&sig=aB%3D"
        signed.assets[key].extra_fields["alternate"] = {"https": {"href": f"{place}?sig=aB%3D"}}
        asset.extra_fields["alternate"] = {"https": {"href": place}}
    digest = write_snapshot([signed], str(tmp_path / "items.parquet"))
    assert digest == hash_items([plain])
    assert b"aB%3D" not in (tmp_path / "items.parquet").read_bytes()
    (frozen,), _ = read_snapshot(str(tmp_path / "items.parquet"))
    assert frozen.assets["red"].href == plain.assets["red"].href


def test_a_signed_alternate_of_an_unknown_signer_is_refused(make: Make, tmp_path: Path) -> None:
    item = make(name="a")
    other = {"s3": {"href": "https://files.example/a.tif?X-Amz-Signature=0af3"}}
    item.assets["red"].extra_fields["alternate"] = other
    with pytest.raises(CatalogError, match=r"asset 'red' of item .*signed link"):
        write_snapshot([item], str(tmp_path / "items.parquet"))


def test_neither_order_nor_encoding_nor_links_change_the_hash(make: Make, tmp_path: Path) -> None:
    items = [make(name="b"), make(name="a")]
    digest = write_snapshot(items, str(tmp_path / "x.parquet"))
    table = pq.ParquetFile(tmp_path / "x.parquet").read()
    pq.write_table(table, tmp_path / "y.parquet", compression="none", row_group_size=1)
    assert read_snapshot(str(tmp_path / "y.parquet"))[1] == digest
    linked = make(name="a")
    linked.add_link(pystac.Link("related", "https://example.test/other"))
    assert hash_items([linked, make(name="b")]) == digest


def test_any_change_of_an_item_changes_the_hash(make: Make) -> None:
    assert hash_items([make(name="a")]) != hash_items([make(name="a", **{"eo:cloud_cover": 12.6})])


def test_two_writes_give_equal_bytes(make: Make, tmp_path: Path) -> None:
    items = [make(name="b"), make(name="a")]
    write_snapshot(items, str(tmp_path / "x.parquet"))
    write_snapshot(items[::-1], str(tmp_path / "y.parquet"))
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "y.parquet").read_bytes()


def test_relative_hrefs_are_frozen_as_absolute(
    document: Callable[..., Any], tmp_path: Path
) -> None:
    content = document()
    content["assets"]["red"]["href"] = "./red.tif"
    write_snapshot([to_item(content, "/archive/a/item.json")], str(tmp_path / "x.parquet"))
    item = read_snapshot(str(tmp_path / "x.parquet"))[0][0]
    assert item.assets["red"].href == "/archive/a/red.tif"


def test_properties_of_mixed_type_are_kept(make: Make, tmp_path: Path) -> None:
    items = [make(name="a", odd=1), make(name="b", odd="one"), make(name="c", odd=[1, {"x": None}])]
    write_snapshot(items, str(tmp_path / "x.parquet"))
    again, _ = read_snapshot(str(tmp_path / "x.parquet"))
    assert [i.properties["odd"] for i in again] == [1, "one", [1, {"x": None}]]


def test_the_table_is_stac_geoparquet(load: Load, tmp_path: Path) -> None:
    from stac_geoparquet.arrow import stac_table_to_items

    items = load("stac/planetary-computer/two-sentinel-2-items_2024.json")
    write_snapshot(items, str(tmp_path / "x.parquet"))
    table = pq.ParquetFile(tmp_path / "x.parquet").read()
    assert {b"geo", b"stac-geoparquet"} <= set(table.schema.metadata)
    box = table.column("bbox").to_pylist()[0]
    assert (box["xmin"], box["ymax"]) == pytest.approx((-106.1831726, 40.6507988))
    documents = list(stac_table_to_items(table.drop_columns(["eoray:item"])))
    assert [d["id"] for d in documents] == sorted(item.id for item in items)
    assert documents[0]["geometry"]["type"] == "Polygon"
    assert documents[0]["assets"]["B04"]["href"].endswith("B04_10m.tif")


def test_a_table_of_another_writer_is_read(load: Load) -> None:
    items = load("stac/planetary-computer/100-sentinel-2-items.parquet")
    assert len(items) == 100
    assert items[0].assets["B04"].extra_fields["proj:shape"] == [10980, 10980]


def test_nothing_is_not_frozen(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"no items to freeze"):
        write_snapshot([], str(tmp_path / "x.parquet"))


def test_a_missing_or_broken_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"there is no item snapshot"):
        read_snapshot(str(tmp_path / "none.parquet"))
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CatalogError, match=r"half.parquet' cannot be read as stac-geoparquet"):
        read_snapshot(str(tmp_path / "half.parquet"))
