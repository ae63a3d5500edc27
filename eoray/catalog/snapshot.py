"""Frozen item sets: one stac-geoparquet object beside the store, and a hash of what it holds.

Any reader of stac-geoparquet can query a snapshot. One further column, ``eoray:item``, keeps each
item's JSON as it was: Arrow fills absent fields with nulls and cannot hold properties of mixed
types, and a snapshot must give back exactly the items that were found.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.catalog.geoparquet import ITEM_COLUMN, Wanted, items_table, matching_groups, rows_in
from eoray.catalog.signing import without_signature
from eoray.errors import CatalogError, StoreError
from eoray.masking import is_signed, mask

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq
    import pystac
    from shapely.geometry.base import BaseGeometry


def write_snapshot(items: Iterable[pystac.Item], url: str) -> str:
    """Freeze items as stac-geoparquet.

    Args:
        items: In any order; the object holds them sorted by collection and id.
        url: Where to put it (local path or object store); replaced whole.

    Returns:
        The hash of the items, as ``hash_items`` gives it.

    Raises:
        CatalogError: There are no items, or some carry signed links.
        StoreError: The place may not be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = _documents(items)
    if not documents:
        raise CatalogError(
            f"no items to freeze at {url!r}; widen aoi or time, or check source.collection"
        )
    _check_unsigned(documents)
    digest = _digest(documents)
    sink = pa.BufferOutputStream()
    pq.write_table(items_table(documents), sink, compression="zstd")
    storage.write_bytes(url, sink.getvalue().to_pybytes())
    return digest


def _check_unsigned(documents: Iterable[dict[str, Any]]) -> None:
    """Refuse links that give a right to whoever reads the snapshot, and that end within hours.

    Those that eoray can sign anew have lost their signature before.
    """
    for document in documents:
        for key, asset in document["assets"].items():
            hrefs = [asset["href"], *(other["href"] for other in _alternates(asset))]
            signed = next((href for href in hrefs if is_signed(href)), None)
            if signed is not None:
                raise CatalogError(
                    f"asset {key!r} of item {document['id']!r} has a signed link "
                    f"({mask(signed)!r}), which would stand in the store for all to read "
                    "and stop working within hours; take a catalogue with plain links, and give "
                    "this machine or the pods an identity that may read them"
                )


def _alternates(asset: dict[str, Any]) -> list[dict[str, Any]]:
    """Further places of a file, as the extension ``alternate-assets`` writes them."""
    found = asset.get("alternate")
    if not isinstance(found, dict):
        return []
    return [one for one in found.values() if isinstance(one, dict) and "href" in one]


def read_snapshot(url: str) -> tuple[list[pystac.Item], str]:
    """Read frozen items and their hash.

    Args:
        url: An object that ``write_snapshot`` wrote, or any other stac-geoparquet table.

    Returns:
        Items sorted by collection and id, and their hash.

    Raises:
        CatalogError: There is none, or it is no stac-geoparquet.
    """
    items = _load(url, None)
    return items, hash_items(items)


def find_in_snapshot(
    url: str, aoi: BaseGeometry, period: tuple[datetime, datetime]
) -> list[pystac.Item]:
    """Read the items of a stac-geoparquet table that may lie in a place and time.

    Groups of rows whose statistics rule them out are never read, so of a large remote table only
    its footer and the wanted groups travel.

    Args:
        url: Local path, file://, object store or http(s)://.
        aoi: Lon/lat, cut at the antimeridian.
        period: First instant and first instant after, UTC.

    Raises:
        CatalogError: There is none, or it is no stac-geoparquet.
    """
    boxes = tuple(part.bounds for part in getattr(aoi, "geoms", (aoi,)))
    return _load(url, (boxes, period))


def _load(url: str, wanted: Wanted | None) -> list[pystac.Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pystac

    try:
        with storage.open_ranged(url) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            table = parquet.read() if wanted is None else _wanted_rows(parquet, wanted)
            return [_item(document) for document in _sorted(_rows(table))]
    except FileNotFoundError as error:
        raise CatalogError(
            f"there is no item snapshot at {url!r}; run the plan again to search and freeze items"
        ) from error
    except StoreError as error:
        raise CatalogError(str(error)) from error
    except (
        pa.ArrowException,
        pystac.STACError,
        pystac.STACTypeError,
        ValueError,
        KeyError,
        TypeError,
        OSError,
    ) as error:
        raise CatalogError(
            f"{url!r} cannot be read as stac-geoparquet ({error}); delete it and run the plan "
            "again, or give another file"
        ) from error


def _wanted_rows(parquet: pq.ParquetFile, wanted: Wanted) -> pa.Table:
    columns = {ITEM_COLUMN, "bbox"}
    known = columns <= set(parquet.schema_arrow.names)
    groups = matching_groups(parquet.metadata, wanted)
    return rows_in(parquet.read_row_groups(groups, sorted(columns) if known else None), wanted[0])


def _item(document: dict[str, Any]) -> pystac.Item:
    import pystac

    return pystac.Item.from_dict(document, migrate=False, preserve_dict=False)


def hash_items(items: Iterable[pystac.Item]) -> str:
    """Return the SHA-256 of a set of items, as hexadecimal text.

    It is taken over canonical JSON (keys sorted, no spaces) of the items sorted by collection and
    id, each with absolute hrefs and without links: neither their order, nor the way they were
    found, nor how a file encodes them changes it.
    """
    return _digest(_documents(items))


def _documents(items: Iterable[pystac.Item]) -> list[dict[str, Any]]:
    """Items as JSON values with absolute hrefs; of their links only the item's own place stays."""
    return _sorted([_document(item) for item in items])


def _document(item: pystac.Item) -> dict[str, Any]:
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    document["links"] = []
    here = item.get_self_href()
    if here:
        document["links"] = [{"rel": "self", "href": here, "type": "application/geo+json"}]
    for key, asset in item.assets.items():
        href = asset.get_absolute_href() or asset.href
        described = document["assets"][key]
        described["href"] = without_signature(href)
        for other in _alternates(described):
            other["href"] = without_signature(str(other["href"]))
    return document


def _sorted(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort by collection and id; copies of one item, by their content."""
    ids = Counter((d.get("collection"), d["id"]) for d in documents)

    def order(document: dict[str, Any]) -> tuple[str, str, str]:
        collection, name = document.get("collection"), document["id"]
        tie = _canonical(document) if ids[collection, name] > 1 else ""
        return str(collection or ""), str(name), tie

    return sorted(documents, key=order)


def _canonical(document: dict[str, Any]) -> str:
    bare = {key: value for key, value in document.items() if key != "links"}
    return json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(documents: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(_canonical(document).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    if ITEM_COLUMN in table.schema.names:
        return [json.loads(text) for text in table.column(ITEM_COLUMN).to_pylist()]
    from stac_geoparquet.arrow import stac_table_to_items

    return list(stac_table_to_items(table))
