from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pystac
import pystac.validation
import pytest
import rasterio
import shapely
from affine import Affine

from eoray.cube.read import CubeReader
from eoray.errors import DataError
from eoray.grid import Tile
from eoray.publish import (
    BandInfo,
    CollectionCard,
    PublishedCog,
    RasterInfo,
    copernicus_notice,
    legend_of,
    write_stac,
)
from eoray.publish.cog import sha256_of
from eoray.publish.footprint import footprint_of
from tests.publish.toy import BORDER, CLASS_ATTRS, NORTH, SOUTH

CARD = CollectionCard(
    id="toy",
    title="Toy land cover",
    description="A map of nowhere.",
    years=(2021, 2019, 2020, 2023),
    legend=legend_of(CLASS_ATTRS),
    license="CC-BY-4.0",
    providers=({"name": "Me", "roles": ["host"]},),
    model_href="../model/item.json",
    citation="Me (2024)",
    lineage="Collection 1, baseline 05.00 and later",
    software={"eoray": "0.1.0"},
)


@pytest.fixture(scope="module")
def folder(map_cogs: list[PublishedCog], change_cogs: list[PublishedCog], out_url: str) -> Path:
    write_stac([*map_cogs, *change_cogs], out_url + "/stac", CARD)
    return Path(out_url) / "stac"


def item(folder: Path, kind: str, tile: Tile) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / f"items/toy-{kind}-{tile.id}.json").read_text())
    return document


def test_documents_are_valid_stac(folder: Path) -> None:
    paths = [folder / "collection.json", *sorted((folder / "items").iterdir())]
    assert len(paths) == 6
    for path in paths:
        document = json.loads(path.read_text())
        # core schemas come with pystac; those of extensions would need the network
        document["stac_extensions"] = []
        assert pystac.validation.validate_dict(document)


def test_links_lead_to_every_item_and_file(folder: Path) -> None:
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 5
    for one in items:
        for asset in one.get_assets().values():
            assert Path(str(asset.get_absolute_href())).is_file()
        assert one.get_collection() is collection


@pytest.mark.parametrize(("tile", "code"), [(NORTH[0], 32632), (BORDER, 32633), (SOUTH, 32732)])
def test_projection_is_that_of_the_file(folder: Path, tile: Tile, code: int) -> None:
    properties = item(folder, "map", tile)["properties"]
    href = item(folder, "map", tile)["assets"]["class"]["href"]
    with rasterio.open(folder / "items" / href) as file:
        assert properties["proj:code"] == f"EPSG:{code}" == f"EPSG:{file.crs.to_epsg()}"
        assert properties["proj:shape"] == list(file.shape)
        assert properties["proj:transform"] == list(file.transform)[:6]
        assert properties["proj:bbox"] == list(file.bounds)


def test_geometry_is_the_outline_of_the_file(folder: Path) -> None:
    from pyproj import Transformer

    document = item(folder, "map", SOUTH)
    shape = shapely.from_geojson(json.dumps(document["geometry"]))
    assert shape.is_valid
    assert shape.exterior.is_ccw
    left, bottom, right, top = document["properties"]["proj:bbox"]
    corners = Transformer.from_crs(32732, 4326, always_xy=True).transform(
        [left, right], [bottom, top]
    )
    for lon, lat in zip(*corners, strict=True):
        assert shape.exterior.distance(shapely.Point(lon, lat)) < 2e-7
    assert document["bbox"] == pytest.approx(shape.bounds)


def test_classes_are_described_with_their_colours(folder: Path) -> None:
    (band,) = item(folder, "map", SOUTH)["assets"]["class"]["bands"]
    classes = band["classification:classes"]
    assert [one["value"] for one in classes] == [0, 1, 2, 3]
    assert classes[0]["nodata"] is True
    assert classes[2] == {
        "value": 2,
        "name": "evergreen_forest",
        "title": "evergreen forest",
        "color_hint": "135435",
    }


def test_bands_say_how_to_read_them(folder: Path) -> None:
    asset = item(folder, "map", SOUTH)["assets"]["probability"]
    assert asset["data_type"] == "uint8"
    assert asset["nodata"] == 255
    assert [band["name"] for band in asset["bands"]] == ["probability", "entropy"]
    assert asset["bands"][0]["raster:scale"] == 0.005
    assert asset["raster:spatial_resolution"] == 10


def test_flags_of_change_are_bit_fields(folder: Path) -> None:
    bands = item(folder, "change", SOUTH)["assets"]["change"]["bands"]
    assert bands[0]["name"] == "break_date"
    assert bands[0]["unit"] == "days since 1970-01-01"
    (flags,) = [band for band in bands if band["name"] == "qa_flags"]
    fields = {one["name"]: one["offset"] for one in flags["classification:bitfields"]}
    assert (fields["insufficient_record"], fields["transient"]) == (0, 11)


def test_checksum_is_that_of_the_file(folder: Path) -> None:
    asset = item(folder, "map", SOUTH)["assets"]["class"]
    digest, size = sha256_of(str(folder / "items" / asset["href"]))
    assert (asset["file:checksum"], asset["file:size"]) == (f"1220{digest}", size)


def test_map_is_linked_to_its_model_and_change_is_not(folder: Path) -> None:
    links = {link["rel"]: link["href"] for link in item(folder, "map", SOUTH)["links"]}
    assert links["ml-model"] == links["derived_from"] == "../../model/item.json"
    rels = [link["rel"] for link in item(folder, "change", SOUTH)["links"]]
    assert "ml-model" not in rels


def test_source_terms_and_licence_are_named(folder: Path) -> None:
    collection = json.loads((folder / "collection.json").read_text())
    notice = "Contains modified Copernicus Sentinel data [2019-2021, 2023]"
    assert notice in collection["description"]
    assert collection["license"] == "CC-BY-4.0"
    assert collection["sci:citation"] == "Me (2024)"
    names = [one["name"] for one in collection["providers"]]
    assert names == ["European Union / ESA, Copernicus Programme", "Me", "eoray"]
    properties = item(folder, "map", SOUTH)["properties"]
    assert properties["processing:lineage"].startswith(notice)
    assert "baseline 05.00" in properties["processing:lineage"]
    assert properties["processing:software"] == {"eoray": "0.1.0"}


def test_extent_holds_all_items(folder: Path) -> None:
    extent = json.loads((folder / "collection.json").read_text())["extent"]
    whole, *parts = extent["spatial"]["bbox"]
    assert all(whole[0] <= box[0] and box[2] <= whole[2] for box in parts)
    assert extent["temporal"]["interval"] == [["2019-01-01T00:00:00Z", "2022-12-31T23:59:59Z"]]


def test_synthetic_products_claim_no_copernicus_data() -> None:
    assert "synthetic" in copernicus_notice((), is_synthetic=True)
    assert "modified" not in copernicus_notice((2020,), is_synthetic=True)


def test_notice_without_years_is_refused() -> None:
    with pytest.raises(DataError, match="names years and none was given"):
        copernicus_notice(())


def test_nothing_to_describe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no published file to describe"):
        write_stac([], str(tmp_path), CARD)


def test_same_files_give_the_same_documents(
    reader: CubeReader, map_cogs: list[PublishedCog], tmp_path: Path
) -> None:
    texts = []
    for name in ("a", "b"):
        write_stac(map_cogs, str(tmp_path / name), CARD)
        texts.append((tmp_path / name / "items" / f"toy-map-{SOUTH.id}.json").read_text())
    assert texts[0] == texts[1]


def test_raster_across_the_antimeridian_is_cut_there() -> None:
    info = RasterInfo(
        epsg=32601,
        transform=Affine(10, 0, 245_760, 0, -10, 5_000_000),
        height=1024,
        width=4096,
        dtype="uint8",
        nodata=0,
        bands=(BandInfo("class", ""),),
        overviews="MODE",
    )
    geometry, (west, south, east, north) = footprint_of(info)
    assert geometry["type"] == "MultiPolygon"
    shape = shapely.from_geojson(json.dumps(geometry))
    assert shape.is_valid
    assert west > 0 > east
    assert south < 45.1 < north
    assert sorted(part.bounds[2] for part in shape.geoms) == pytest.approx([east, 180.0])
    assert all(part.exterior.is_ccw for part in shape.geoms)
