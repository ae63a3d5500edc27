"""Frozen items come back as they were, and hash the same however they are kept."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pystac
import pytest
import shapely

from eoray.catalog.geoparquet import items_table, matching_groups, rows_in
from eoray.catalog.lineage import Lineage
from eoray.catalog.scene import resolve_scenes
from eoray.catalog.search import search_items
from eoray.catalog.snapshot import _documents, hash_items, read_snapshot, write_snapshot
from eoray.catalog.static import to_item
from eoray.errors import CatalogError
from eoray.testing.http import archive_server
from tests.s3_server import serve_s3

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


@pytest.fixture
def by_place(make: Make, tmp_path: Path) -> Path:
    """A table of eight groups, each of another place and month, four large items in each."""
    noise = random.Random(7)
    items = [
        make(
            name=f"g{group}-{number}",
            box=(20.0 * group - 80, 45.0, 20.0 * group - 79, 46.0),
            start=f"2024{group + 1:02d}{number + 10}T103021",
            **{"eoray:noise": noise.randbytes(20_000).hex()},
        )
        for group in range(8)
        for number in range(4)
    ]
    table = items_table(_documents(items))
    path = tmp_path / "planet.parquet"
    pq.write_table(table, path, row_group_size=4, write_page_index=True)
    return path


def found_in(url: str, box: tuple[float, float, float, float], **time: Any) -> list[str]:
    period = {"start": datetime(2024, 1, 1, tzinfo=UTC), "end": datetime(2025, 1, 1, tzinfo=UTC)}
    items = search_items(url, aoi=shapely.box(*box), **{**period, **time})
    return [item.id for item in items]


def test_of_a_remote_table_only_the_wanted_groups_travel(by_place: Path) -> None:
    size = by_place.stat().st_size
    with archive_server(by_place.parent) as server:
        url = f"{server.url}/planet.parquet"
        assert found_in(url, (0.2, 45.2, 0.4, 45.4)) == [f"g4-{n}" for n in range(4)]
        one = server.n_bytes
        assert 0 < one < size / 3
        march = {"start": datetime(2024, 3, 1, tzinfo=UTC), "end": datetime(2024, 4, 1, tzinfo=UTC)}
        assert found_in(url, (-90, 45, 90, 46), **march) == [f"g2-{n}" for n in range(4)]
        assert server.n_bytes - one < size / 3
        before = server.n_bytes
        assert len(found_in(url, (-90, 45, 90, 46))) == 32
        assert server.n_bytes - before > 3 * one


def test_a_table_in_a_bucket_is_searched(by_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_s3(monkeypatch) as s3:
        s3.put("maps/items/planet.parquet", by_place.read_bytes())
        found = found_in("s3://maps/items/planet.parquet", (20.2, 45.2, 20.4, 45.4))
        assert found == [f"g5-{n}" for n in range(4)]
        with pytest.raises(CatalogError, match=r"there is no item snapshot at 's3://maps/no\.parq"):
            found_in("s3://maps/no.parquet", (0, 45, 1, 46))


def test_boxes_across_the_antimeridian_are_not_ruled_out(make: Make, tmp_path: Path) -> None:
    across = make(name="across", box=(179.0, 60.0, -179.0, 61.0))
    path = tmp_path / "items.parquet"
    write_snapshot([across, make(name="far", box=(10.0, 60.0, 11.0, 61.0))], str(path))
    boxes = ((179.5, 60.2, 179.6, 60.3),)
    period = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
    for box in (boxes, ((-179.6, 60.2, -179.5, 60.3),)):
        assert matching_groups(pq.ParquetFile(path).metadata, (box, period)) == [0]
        table = rows_in(pq.read_table(path), box)
        assert table["id"].to_pylist() == ["across"]
    far = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    assert matching_groups(pq.ParquetFile(path).metadata, (boxes, far)) == []


def test_a_server_without_the_table_is_named(tmp_path: Path) -> None:
    with archive_server(tmp_path) as server:
        with pytest.raises(CatalogError, match=r"there is no item snapshot at .*no\.parquet"):
            found_in(f"{server.url}/no.parquet", (0, 45, 1, 46))
        (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(CatalogError, match="cannot be read as stac-geoparquet"):
            found_in(f"{server.url}/broken.parquet", (0, 45, 1, 46))
