"""Find items: an API through pystac-client, a static catalogue on disk or over HTTP, a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eoray.catalog.api import search_api
from eoray.catalog.footprint import BBox, bbox_of, item_footprint
from eoray.catalog.providers import default_collection
from eoray.catalog.snapshot import read_snapshot
from eoray.catalog.static import Found, Transport, load_document, walk_static
from eoray.errors import CatalogError, ConfigError
from eoray.grid import split_antimeridian

if TYPE_CHECKING:
    import pystac
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a search may go on."""

    max_items: int = 200_000
    """More are refused: the aoi or time is a mistake, or the service never ends."""
    timeout_s: float = 60.0
    """For each request."""
    retries: int = 4
    """Further attempts after a request that failed, or was answered by 429 or 5xx."""


@dataclass(frozen=True, slots=True)
class _Query:
    aoi: BaseGeometry
    start: datetime
    end: datetime
    max_cloud_pct: float
    properties: Mapping[str, Any]


def search_items(
    url: str,
    *,
    aoi: BaseGeometry,
    start: datetime,
    end: datetime,
    collection: str = "",
    max_cloud_pct: float = 100.0,
    query: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> list[pystac.Item]:
    """Find the items of a collection that touch a place in a period.

    Args:
        url: Landing page of a STAC API, a static catalogue, collection or item (local path,
            file://, http(s):// or object store), a folder that holds one, or a stac-geoparquet.
        aoi: Lon/lat in degrees; cut at the antimeridian or running beyond 180.
        start: First instant, UTC.
        end: First instant after the period, UTC.
        collection: Collection id; "" takes the one that there is, or the provider's default.
        max_cloud_pct: Items that state more cloud are left out; those that state none stay.
        query: Conditions on properties, ``{"s2:nodata_pixel_percentage": {"lt": 50}}``, or plain
            values for equality.
        limits: How long to go on; the defaults of ``Limits`` if absent.

    Returns:
        Items sorted by time, collection and id, each once. Nothing is validated against schemas.

    Raises:
        CatalogError: The catalogue cannot be reached or read, has no such collection, pages
            without end, or holds no scene for this place and time.
        ConfigError: The place is empty, the period reversed, or the query cannot be read.
    """
    wanted = _Query(split_antimeridian(aoi), _utc(start), _utc(end), max_cloud_pct, query or {})
    _check(wanted)
    bounds = limits or Limits()
    transport = Transport(timeout_s=bounds.timeout_s, retries=bounds.retries)
    asked = collection or default_collection(url) or ""
    if url.endswith((".parquet", ".geoparquet")):
        items, _ = read_snapshot(url)
        found = Found(items, (), asked)
    else:
        root, place = load_document(url, transport)
        if _is_api(root):
            period = (wanted.start, wanted.end)
            found = search_api(
                root,
                place,
                transport,
                asked,
                wanted.aoi,
                period,
                wanted.properties,
                bounds.max_items,
            )
        else:
            found = walk_static(root, place, transport, asked, bounds.max_items)
    return _select(found, wanted, url)


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def _check(wanted: _Query) -> None:
    if wanted.aoi.is_empty:
        raise ConfigError("aoi is empty; give a polygon, [west, south, east, north] or tile ids")
    if wanted.end <= wanted.start:
        raise ConfigError(
            f"time {wanted.start.isoformat()}/{wanted.end.isoformat()} ends before it starts; "
            "write the earlier instant first"
        )
    for name, condition in wanted.properties.items():
        for operator in condition if isinstance(condition, Mapping) else ():
            if operator not in _OPERATORS:
                raise ConfigError(
                    f"source.query.{name} uses {operator!r}; use one of {', '.join(_OPERATORS)}"
                )


def _is_api(root: Mapping[str, Any]) -> bool:
    return root.get("type") in (None, "Catalog") and any(
        link.get("rel") == "search" for link in root.get("links", ())
    )


def _select(found: Found, wanted: _Query, url: str) -> list[pystac.Item]:
    """Filter by place, time, cloud and query; say which of them left nothing."""
    import shapely

    shapely.prepare(wanted.aoi)
    steps: tuple[tuple[str, Callable[[pystac.Item], bool]], ...] = (
        ("in the collection", lambda item: _in_collection(item, found.collection)),
        ("touch the aoi", lambda item: _touches(item, wanted.aoi)),
        ("lie in time", lambda item: _is_within(item, wanted.start, wanted.end)),
        ("have no more cloud", lambda item: _is_clear(item, wanted.max_cloud_pct)),
        ("meet source.query", lambda item: _meets(item, wanted.properties)),
    )
    items = found.items
    counts = [f"{len(items)} items read"]
    for words, keep in steps:
        items = [item for item in items if keep(item)]
        counts.append(f"{len(items)} {words}")
    if not items:
        raise CatalogError(_explain_none(found, wanted, url, ", ".join(counts)))
    return sorted(items, key=_order)


def _order(item: pystac.Item) -> tuple[datetime, str, str]:
    return _time_of(item) or datetime.min.replace(tzinfo=UTC), item.collection_id or "", item.id


def _in_collection(item: pystac.Item, collection: str) -> bool:
    return not collection or item.collection_id in (None, collection)


def _touches(item: pystac.Item, aoi: BaseGeometry) -> bool:
    """Items whose outline cannot be read stay: resolving them names what is wrong."""
    try:
        outline = item_footprint({"geometry": item.geometry, "bbox": item.bbox}, item.id)
    except CatalogError:
        return True
    return bool(aoi.intersects(outline))


def _time_of(item: pystac.Item) -> datetime | None:
    instant = item.datetime or item.common_metadata.start_datetime
    return None if instant is None else _utc(instant)


def _is_within(item: pystac.Item, start: datetime, end: datetime) -> bool:
    instant = _time_of(item)
    return instant is None or start <= instant < end


def _is_clear(item: pystac.Item, max_cloud_pct: float) -> bool:
    cloud = item.properties.get("eo:cloud_cover")
    return cloud is None or float(cloud) <= max_cloud_pct


def _meets(item: pystac.Item, properties: Mapping[str, Any]) -> bool:
    return all(_holds(item.properties.get(name), c) for name, c in properties.items())


def _holds(value: Any, condition: Any) -> bool:
    pairs = condition.items() if isinstance(condition, Mapping) else [("eq", condition)]
    return all(_OPERATORS[operator](value, bound) for operator, bound in pairs)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, bound: bool(value == bound),
    "neq": lambda value, bound: bool(value != bound),
    "lt": lambda value, bound: value is not None and bool(value < bound),
    "lte": lambda value, bound: value is not None and bool(value <= bound),
    "gt": lambda value, bound: value is not None and bool(value > bound),
    "gte": lambda value, bound: value is not None and bool(value >= bound),
    "in": lambda value, bound: value in bound,
    "startsWith": lambda value, bound: str(value).startswith(str(bound)),
    "endsWith": lambda value, bound: str(value).endswith(str(bound)),
    "contains": lambda value, bound: str(bound) in str(value),
}
"""Operators of the STAC API query extension."""


def _explain_none(found: Found, wanted: _Query, url: str, counts: str) -> str:
    where = f"collection {found.collection!r} of {url!r}" if found.collection else repr(url)
    days = f"{wanted.start:%Y-%m-%d}/{wanted.end:%Y-%m-%d}"
    for boxes, interval in found.extents:
        if boxes and not any(_overlaps(box, wanted.aoi) for box in boxes):
            return (
                f"aoi {_rounded(bbox_of(wanted.aoi))} lies outside the extent of {where}, which is "
                f"{_rounded(boxes[0])} (west, south, east, north); choose another aoi or catalogue"
            )
        first, last = interval
        if (first and wanted.end <= first) or (last and wanted.start > last):
            span = " to ".join(f"{t:%Y-%m-%d}" if t else "now" for t in interval)
            return f"time {days} lies outside the extent of {where}, which is {span}; change time"
    return f"no scenes in {where} for {days} ({counts}); widen aoi or time, or allow more cloud"


def _overlaps(box: BBox, aoi: BaseGeometry) -> bool:
    import shapely

    west, south, east, north = box
    return bool(
        split_antimeridian(shapely.box(west, south, east + 360 * (east < west), north)).intersects(
            aoi
        )
    )


def _rounded(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in box) + "]"
