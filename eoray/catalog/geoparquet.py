"""Lay items out as a stac-geoparquet table with Arrow alone.

The table follows stac-geoparquet 1.1 over GeoParquet 1.1: WKB ``geometry``, ``bbox`` struct,
properties as columns. It is built here since the `stac_geoparquet` package takes seconds to import
and refuses item sets whose properties differ in type; a column exists where every item that has
the property holds the same kind of scalar.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ITEM_COLUMN = "eoray:item"
"""Each item's JSON as it was."""

Boxes = tuple[tuple[float, float, float, float], ...]
"""(west, south, east, north) each, none across the antimeridian."""

Wanted = tuple[Boxes, tuple[datetime, datetime]]
"""Place and half-open period, UTC."""

_CORE = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets")
_ASSET_FIELDS = ("href", "type", "title")
_TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated")
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "string"),
    (bool, "bool"),
    (int, "int64"),
    ((int, float), "float64"),
)


def items_table(documents: Sequence[dict[str, Any]]) -> pa.Table:
    """Turn items into a table, one row each, in their order.

    Args:
        documents: STAC items as JSON values; at least one.

    Returns:
        Columns of stac-geoparquet, and ``eoray:item`` with the JSON of each item.
    """
    import pyarrow as pa

    columns: dict[str, pa.Array] = {
        "type": pa.array(["Feature"] * len(documents)),
        "stac_version": pa.array([d["stac_version"] for d in documents]),
        "stac_extensions": pa.array(
            [d.get("stac_extensions") or [] for d in documents], pa.list_(pa.string())
        ),
        "id": pa.array([d["id"] for d in documents]),
        "geometry": pa.array([_wkb(d) for d in documents], pa.binary()),
        "bbox": pa.array([_bbox(d) for d in documents], _bbox_type()),
        "links": pa.array([_links(d) for d in documents], _links_type()),
        "assets": _assets(documents),
        "collection": pa.array([d.get("collection") for d in documents], pa.string()),
    }
    for name in sorted({name for d in documents for name in d["properties"]}):
        array = _property(name, [d["properties"].get(name) for d in documents])
        if array is not None and name not in columns:
            columns[name] = array
    text = [json.dumps(d, sort_keys=True, ensure_ascii=False) for d in documents]
    columns[ITEM_COLUMN] = pa.array(text, pa.large_string())
    return pa.table(columns).replace_schema_metadata(_metadata())


def _metadata() -> dict[bytes, bytes]:
    corners = {corner: ["bbox", corner] for corner in ("xmin", "ymin", "xmax", "ymax")}
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": [],
                "edges": "planar",
                "covering": {"bbox": corners},
            }
        },
    }
    return {
        b"geo": json.dumps(geo).encode(),
        b"stac-geoparquet": json.dumps({"version": "1.1.0"}).encode(),
    }


def _wkb(document: dict[str, Any]) -> bytes | None:
    import shapely
    from shapely.geometry import shape

    geometry = document.get("geometry")
    return shapely.to_wkb(shape(geometry)) if geometry else None


def _bbox_type() -> pa.StructType:
    import pyarrow as pa

    return pa.struct([(corner, pa.float64()) for corner in ("xmin", "ymin", "xmax", "ymax")])


def _bbox(document: dict[str, Any]) -> dict[str, float] | None:
    box = document.get("bbox")
    if not box:
        return None
    half = len(box) // 2
    return {"xmin": box[0], "ymin": box[1], "xmax": box[half], "ymax": box[half + 1]}


def _links_type() -> pa.ListType:
    import pyarrow as pa

    return pa.list_(pa.struct([(name, pa.string()) for name in ("href", "rel", "type")]))


def _links(document: dict[str, Any]) -> list[dict[str, str | None]]:
    return [
        {name: link.get(name) for name in ("href", "rel", "type")} for link in document["links"]
    ]


def _assets(documents: Sequence[dict[str, Any]]) -> pa.Array:
    import pyarrow as pa

    keys = sorted({key for d in documents for key in d["assets"]}) or ["none"]
    fields = [(name, pa.string()) for name in _ASSET_FIELDS]
    one = pa.struct([*fields, ("roles", pa.list_(pa.string()))])
    rows = [{key: _asset(d["assets"].get(key)) for key in keys} for d in documents]
    return pa.array(rows, pa.struct([(key, one) for key in keys]))


def _asset(asset: dict[str, Any] | None) -> dict[str, Any] | None:
    if asset is None:
        return None
    return {**{name: asset.get(name) for name in _ASSET_FIELDS}, "roles": asset.get("roles")}


def _property(name: str, values: Sequence[Any]) -> pa.Array | None:
    """Make a column of a property, or None where its values are no scalars of one kind."""
    import pyarrow as pa

    present = [value for value in values if value is not None]
    if name in _CORE or not present:
        return None
    if name in _TIMES:
        return _instants(values)
    for kind, arrow in _KINDS:
        if all(isinstance(v, kind) and isinstance(v, bool) == (kind is bool) for v in present):
            return pa.array(values, pa.type_for_alias(arrow))
    return None


def _instants(values: Sequence[Any]) -> pa.Array | None:
    import pyarrow as pa

    try:
        instants = [None if v is None else datetime.fromisoformat(str(v)) for v in values]
    except ValueError:
        return None
    if any(instant is not None and instant.tzinfo is None for instant in instants):
        return None
    return pa.array(instants, pa.timestamp("us", tz="UTC"))


def matching_groups(metadata: pq.FileMetaData, wanted: Wanted) -> list[int]:
    """Numbers of the groups of rows whose statistics do not rule them out.

    Args:
        metadata: Of a stac-geoparquet with ``bbox`` as a struct; without statistics all match.
        wanted: Place and time.
    """
    return [n for n in range(metadata.num_row_groups) if _may_match(metadata.row_group(n), wanted)]


def _may_match(group: pq.RowGroupMetaData, wanted: Wanted) -> bool:
    boxes, (start, end) = wanted
    found = {}
    for number in range(group.num_columns):
        column = group.column(number)
        statistics = column.statistics
        if statistics is not None and statistics.has_min_max:
            found[column.path_in_schema] = statistics.min, statistics.max
    first, last = found.get("datetime", (None, None))
    if isinstance(first, datetime) and isinstance(last, datetime):
        first, last = (t if t.tzinfo else t.replace(tzinfo=UTC) for t in (first, last))
        if last < start or first >= end:
            return False
    corners = [found.get(f"bbox.{corner}") for corner in _CORNERS]
    if any(corner is None for corner in corners):
        return True
    (west, last_west), (south, _), (first_east, east), (_, north) = corners  # type: ignore[misc]
    if last_west - first_east > _HALF_TURN:  # some box may cross the antimeridian
        west, east = -_HALF_TURN, _HALF_TURN
    return any(w <= east and e >= west and s <= north and n >= south for w, s, e, n in boxes)


def rows_in(table: pa.Table, boxes: Boxes) -> pa.Table:
    """Rows whose box touches one of some boxes, or that have none."""
    import pyarrow.compute as pc

    if "bbox" not in table.schema.names or not table.num_rows:
        return table
    west, south, east, north = (pc.struct_field(table["bbox"], corner) for corner in _CORNERS)
    crosses = pc.greater(west, east)
    keep = pc.is_null(west)
    for w, s, e, n in boxes:
        beside = pc.and_(pc.less_equal(west, e), pc.greater_equal(east, w))
        across = pc.and_(crosses, pc.or_(pc.less_equal(west, e), pc.greater_equal(east, w)))
        level = pc.and_(pc.less_equal(south, n), pc.greater_equal(north, s))
        keep = pc.or_(keep, pc.fill_null(pc.and_(pc.or_(beside, across), level), False))  # noqa: FBT003
    return table.filter(keep)


_CORNERS = ("xmin", "ymin", "xmax", "ymax")

_HALF_TURN = 180.0
