"""STAC of the published files: one collection, one item per group of tiles and product.

Documents are built as plain dicts, so their bytes depend on their content alone. Links are
relative; the folder can be moved as long as the files move with it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eoray import storage
from eoray.errors import DataError
from eoray.publish.cog import sha256_of
from eoray.publish.footprint import footprint_of
from eoray.publish.legend import LegendClass
from eoray.publish.maps import PublishedCog

STAC_VERSION = "1.1.0"

EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"

COPERNICUS = {
    "name": "European Union / ESA, Copernicus Programme",
    "roles": ["producer", "licensor"],
    "url": "https://dataspace.copernicus.eu/",
}

SENTINEL_TERMS = (
    "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"
)

ROLES: Mapping[str, tuple[str, str, list[str]]] = {
    "class": ("map", "Land cover class", ["data"]),
    "probability": ("map", "Probability of the class, and entropy", ["data", "uncertainty"]),
    "change": ("change", "Date of the last break, and how it was found", ["data"]),
}
"""Role of a file -> (kind of the item, title of the asset, STAC roles)."""


@dataclass(frozen=True, slots=True)
class CollectionCard:
    """What people need to know about the products as a whole."""

    id: str
    title: str
    description: str
    years: tuple[int, ...]
    """Years of the Sentinel-2 data that went in, for the notice that their terms ask for."""
    legend: tuple[LegendClass, ...] = ()
    license: str = "other"
    """SPDX id of the products' own licence, or ``other``."""
    providers: tuple[Mapping[str, Any], ...] = ()
    """Further STAC providers, such as who ran the processing."""
    model_href: str | None = None
    """STAC MLM item of the model, absolute or relative to the collection."""
    citation: str = ""
    """How to cite the products."""
    lineage: str = ""
    """Text for ``processing:lineage``: collection of record, baselines, masks."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Name to version."""
    is_synthetic: bool = False
    """Made from a synthetic archive: says so in every document."""


def copernicus_notice(years: Sequence[int], *, is_synthetic: bool = False) -> str:
    """Write the notice that the terms of Sentinel data oblige every user to give.

    Args:
        years: Years of the data; gaps are kept.
        is_synthetic: Nothing of it came from Copernicus, and the notice says that instead.
    """
    if is_synthetic:
        return "Made from synthetic data. Contains no Copernicus Sentinel data."
    if not years:
        raise DataError(
            "the Copernicus notice names years and none was given; pass those of the scenes used"
        )
    return f"Contains modified Copernicus Sentinel data [{_runs_of(years)}]"


def write_stac(cogs: Sequence[PublishedCog], out_url: str, card: CollectionCard) -> str:
    """Write ``collection.json`` and one item per product and tile group.

    Args:
        cogs: What ``publish_map`` and ``publish_change`` wrote.
        out_url: Folder of the documents.
        card: Texts and provenance.

    Returns:
        URL of the collection.

    Raises:
        DataError: There is nothing to describe.
    """
    if not cogs:
        raise DataError("there is no published file to describe; publish a map or change first")
    items = [_item(members, out_url, card) for members in _by_item(cogs).values()]
    for item in items:
        storage.write_json(storage.join(out_url, "items", f"{item['id']}.json"), item)
    url = storage.join(out_url, "collection.json")
    storage.write_json(url, _collection(items, card))
    return url


def _by_item(cogs: Sequence[PublishedCog]) -> dict[tuple[str, str], list[PublishedCog]]:
    found: dict[tuple[str, str], list[PublishedCog]] = {}
    for cog in cogs:
        found.setdefault((ROLES[cog.role][0], cog.group.id), []).append(cog)
    return dict(sorted(found.items()))


def _item(cogs: Sequence[PublishedCog], out_url: str, card: CollectionCard) -> dict[str, Any]:
    first = cogs[0]
    kind = ROLES[first.role][0]
    geometry, bbox = footprint_of(first.info)
    notice = copernicus_notice(card.years, is_synthetic=card.is_synthetic)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": f"{card.id}-{kind}-{first.group.id}",
        "collection": card.id,
        "geometry": geometry,
        "bbox": bbox,
        "properties": {
            "title": f"{card.title}: {kind} {first.group.id}",
            "description": f"{ROLES[first.role][1]}. {notice}",
            "datetime": None,
            "start_datetime": f"{first.start}T00:00:00Z",
            "end_datetime": f"{first.end}T23:59:59Z",
            "license": card.license,
            "providers": _providers(card),
            "gsd": first.info.transform.a,
            **_projection(first),
            **_processing(card, notice),
            "eoray:tiles": [tile.id for tile in first.group.tiles],
            "eoray:synthetic": card.is_synthetic,
        },
        "links": [
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "root", "href": "../collection.json", "type": "application/json"},
            *_model_links(card, depth=1, kind=kind),
        ],
        "assets": {cog.role: _asset(cog, out_url, card) for cog in cogs},
    }


def _projection(cog: PublishedCog) -> dict[str, Any]:
    info = cog.info
    t = info.transform
    return {
        "proj:code": f"EPSG:{info.epsg}",
        "proj:shape": [info.height, info.width],
        "proj:transform": [t.a, t.b, t.c, t.d, t.e, t.f],
        "proj:bbox": [t.c, t.f + info.height * t.e, t.c + info.width * t.a, t.f],
    }


def _processing(card: CollectionCard, notice: str) -> dict[str, Any]:
    lineage = f"{notice}. {card.lineage}".strip() if card.lineage else notice
    found: dict[str, Any] = {"processing:level": "L4", "processing:lineage": lineage}
    if card.software:
        found["processing:software"] = dict(sorted(card.software.items()))
    return found


def _asset(cog: PublishedCog, out_url: str, card: CollectionCard) -> dict[str, Any]:
    _, title, roles = ROLES[cog.role]
    digest, size = sha256_of(cog.url)
    return {
        "href": _relative(cog.url, storage.join(out_url, "items")),
        "type": COG_TYPE,
        "title": title,
        "roles": roles,
        "data_type": cog.info.dtype,
        "nodata": cog.info.nodata,
        "raster:spatial_resolution": cog.info.transform.a,
        "bands": [_band(cog, number, card) for number in range(len(cog.info.bands))],
        "file:size": size,
        "file:checksum": f"1220{digest}",
    }


def _band(cog: PublishedCog, number: int, card: CollectionCard) -> dict[str, Any]:
    band = cog.info.bands[number]
    document: dict[str, Any] = {"name": band.name, "description": band.description}
    if band.unit:
        document["unit"] = band.unit
    if band.scale != 1.0:
        document["raster:scale"] = band.scale
        document["raster:offset"] = 0
    if cog.role == "class":
        document["classification:classes"] = [
            {"value": 0, "name": "not_mapped", "title": "not mapped", "nodata": True},
            *(_class(one) for one in card.legend),
        ]
    if band.name == "qa_flags":
        document["classification:bitfields"] = _bitfields(cog.info.tags)
    return document


def _class(one: LegendClass) -> dict[str, Any]:
    document = {
        "value": one.id,
        "name": one.name.replace(" ", "_"),
        "title": one.name,
        "color_hint": one.hex,
    }
    if one.description:
        document["description"] = one.description
    return document


def _bitfields(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    masks = [int(text) for text in tags["flag_masks"].split()]
    return [
        {
            "name": name,
            "offset": mask.bit_length() - 1,
            "length": 1,
            "classes": [
                {"value": 0, "name": "no", "description": f"not {name.replace('_', ' ')}"},
                {"value": 1, "name": "yes", "description": name.replace("_", " ")},
            ],
        }
        for mask, name in zip(masks, tags["flag_meanings"].split(), strict=True)
    ]


def _collection(items: Sequence[Mapping[str, Any]], card: CollectionCard) -> dict[str, Any]:
    notice = copernicus_notice(card.years, is_synthetic=card.is_synthetic)
    boxes = [item["bbox"] for item in items]
    starts = [item["properties"]["start_datetime"] for item in items]
    ends = [item["properties"]["end_datetime"] for item in items]
    document: dict[str, Any] = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EXTENSIONS[4]],
        "id": card.id,
        "title": card.title,
        "description": f"{card.description}\n\n{notice}.",
        "license": card.license,
        "keywords": ["Sentinel-2", "land cover", "change", *(["synthetic"] * card.is_synthetic)],
        "providers": _providers(card),
        "extent": {
            "spatial": {"bbox": [_hull(boxes), *boxes] if len(boxes) > 1 else boxes},
            "temporal": {"interval": [[min(starts), max(ends)]]},
        },
        "summaries": {
            "proj:code": sorted({item["properties"]["proj:code"] for item in items}),
            "gsd": sorted({item["properties"]["gsd"] for item in items}),
            **{
                key: [value] if isinstance(value, str) else value
                for key, value in _processing(card, notice).items()
                if isinstance(value, str)
            },
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *(
                {
                    "rel": "item",
                    "href": f"./items/{item['id']}.json",
                    "type": "application/geo+json",
                    "title": item["properties"]["title"],
                }
                for item in items
            ),
            {
                "rel": "license",
                "href": SENTINEL_TERMS,
                "title": "Terms of Copernicus Sentinel data",
            },
            *_model_links(card, depth=0, kind="map"),
        ],
    }
    if card.citation:
        document["sci:citation"] = card.citation
        document["stac_extensions"].append(
            "https://stac-extensions.github.io/scientific/v1.0.0/schema.json"
        )
    return document


def _providers(card: CollectionCard) -> list[dict[str, Any]]:
    source = [] if card.is_synthetic else [dict(COPERNICUS)]
    made = {
        "name": "eoray",
        "roles": ["processor"],
        "description": "Software that made the product",
    }
    return [*source, *(dict(one) for one in card.providers), made]


def _model_links(card: CollectionCard, *, depth: int, kind: str) -> list[dict[str, Any]]:
    if card.model_href is None or kind != "map":
        return []
    href = card.model_href
    if "://" not in href and not href.startswith("/"):
        href = "../" * depth + href
    common = {"href": href, "type": "application/geo+json", "title": "Model, a STAC MLM item"}
    return [{"rel": "derived_from", **common}, {"rel": "ml-model", **common}]


def _relative(url: str, folder: str) -> str:
    if storage.is_local(url) != storage.is_local(folder):
        return url
    if storage.is_local(url):
        return posixpath.relpath(
            storage.local_path(url).absolute().as_posix(),
            storage.local_path(folder).absolute().as_posix(),
        )
    if url.split("/")[:3] != folder.split("/")[:3]:
        return url
    return posixpath.relpath(url.split("://", 1)[1], folder.split("://", 1)[1])


def _hull(boxes: Sequence[Sequence[float]]) -> list[float]:
    if any(box[0] > box[2] for box in boxes):
        west, east = -180.0, 180.0
    else:
        west, east = min(box[0] for box in boxes), max(box[2] for box in boxes)
    return [west, min(box[1] for box in boxes), east, max(box[3] for box in boxes)]


def _runs_of(years: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for year in sorted(set(years)):
        if runs and year == runs[-1][-1] + 1:
            runs[-1].append(year)
        else:
            runs.append([year])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
