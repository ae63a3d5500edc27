"""Search a STAC API page by page, through pystac-client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eoray.catalog.static import (
    Document,
    Extent,
    Found,
    Transport,
    listed_collections,
    load_json,
    read_extent,
    to_item,
)
from eoray.errors import CatalogError
from eoray.masking import mask

if TYPE_CHECKING:
    import pystac
    from pystac_client import ItemSearch
    from shapely.geometry.base import BaseGeometry

_PAGE = 250

_EMPTY_PAGES = 3
"""In a row, each with a link to a further one: filters behind an index can leave some."""

_MAX_VERTICES = 500
"""Above this an outline is sent as its box: services refuse long bodies. Items are filtered
here anyway."""


def search_api(
    root: Document,
    place: str,
    transport: Transport,
    collection: str,
    aoi: BaseGeometry,
    period: tuple[datetime, datetime],
    properties: Mapping[str, Any],
    max_items: int,
) -> Found:
    """Collect what an API answers for a collection, place and period.

    Args:
        root: The landing page.
        place: Its URL.
        transport: Sends requests.
        collection: Collection id; "" takes the only one that the API has.
        aoi: Lon/lat, cut at the antimeridian.
        period: First instant and first instant after, UTC.
        properties: Conditions of the query extension, sent where the API conforms to it.
        max_items: Refuse to read more.

    Raises:
        CatalogError: The API cannot be reached, lacks the collection, or pages without end.
    """
    name, extent = _collection(root, place, transport, collection)
    search = _search(root, place, transport, name, aoi, period, properties)
    return Found(_collect(_pages(search, transport), place, max_items), (extent,), name)


def _collection(
    root: Document, place: str, transport: Transport, collection: str
) -> tuple[str, Extent]:
    """Look the collection up, so that a wrong id is named as such and its extent is known."""
    base = _link(root, place, "data") or f"{place.rstrip('/')}/collections"
    if collection:
        try:
            return collection, read_extent(load_json(f"{base}/{collection}", transport))
        except CatalogError as error:
            if getattr(error.__cause__, "status_code", None) != 404:
                raise
    listed = load_json(base, transport).get("collections", [])
    if not collection and len(listed) == 1:
        return str(listed[0].get("id")), read_extent(listed[0])
    what = f"there is no collection {collection!r}" if collection else "no collection is named"
    raise CatalogError(
        f"{what} at {place!r}; it has {listed_collections(listed)}: set source.collection to one "
        "of them"
    )


def _search(
    root: Document,
    place: str,
    transport: Transport,
    collection: str,
    aoi: BaseGeometry,
    period: tuple[datetime, datetime],
    properties: Mapping[str, Any],
) -> ItemSearch:
    from pystac_client import ItemSearch
    from shapely.geometry import mapping

    posts = any(
        link.get("rel") == "search" and str(link.get("method", "")).upper() == "POST"
        for link in root.get("links", ())
    )
    queryable = any("item-search#query" in str(c) for c in root.get("conformsTo", ()))
    conditions = {
        key: value if isinstance(value, Mapping) else {"eq": value}
        for key, value in properties.items()
    }
    start, end = (f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in period)
    return ItemSearch(
        url=_link(root, place, "search") or "",
        method="POST" if posts else "GET",
        stac_io=transport.io,
        limit=_PAGE,
        collections=[collection],
        intersects=mapping(_sendable(aoi)),
        datetime=f"{start}/{end}",
        query=conditions if queryable and conditions else None,
    )


def _pages(search: ItemSearch, transport: Transport) -> Iterator[Document]:
    """Follow the links from page to page; pystac-client would end at one without items."""
    from pystac import Link

    page: Document = transport.io.read_json(
        search.url, method=search.method, parameters=search.get_parameters()
    )
    yield page
    while following := next((k for k in page.get("links", ()) if k.get("rel") == "next"), None):
        link = Link.from_dict(following)
        page = transport.io.read_json(link, parameters=search.get_parameters())
        yield page


def _collect(pages: Iterator[Document], place: str, max_items: int) -> list[pystac.Item]:
    """Read pages until the last; those that bring nothing new mean that there is none."""
    from pystac_client.exceptions import APIError

    found: dict[tuple[str, str], Document] = {}
    number = empty = 0
    while True:
        try:
            page = next(pages, None)
            features = [] if page is None else list(page["features"])
        except (APIError, OSError, ValueError, KeyError, TypeError) as error:
            raise CatalogError(
                f"page {number + 1} of the search at {place!r} failed after {len(found)} items "
                f"({_told(error)}); try again later, or narrow aoi or time"
            ) from error
        if page is None:
            return [to_item(document, _self(document)) for document in found.values()]
        number += 1
        before = len(found)
        for feature in features:
            found.setdefault((str(feature.get("collection")), str(feature.get("id"))), feature)
        empty = 0 if features else empty + 1
        if (features and len(found) == before) or empty > _EMPTY_PAGES:
            brings = (
                "repeats items of" if features else f"is empty, as {empty - 1} before it, after"
            )
            raise CatalogError(
                f"the search at {place!r} pages without end: page {number} {brings} the "
                f"{before} before it; report it to the service, or use another catalogue"
            )
        if len(found) > max_items:
            raise CatalogError(
                f"the search at {place!r} gives more than {max_items} items in {number} pages; "
                "narrow aoi or time"
            )


def _told(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"the answer has no {error}"
    return mask(" ".join(str(error).split()))[:200]


def _self(document: Document) -> str:
    links = document.get("links", ())
    return next((str(link["href"]) for link in links if link.get("rel") == "self"), "")


def _link(root: Document, place: str, rel: str) -> str | None:
    from urllib.parse import urljoin

    for link in root.get("links", ()):
        if link.get("rel") == rel:
            return urljoin(f"{place.rstrip('/')}/", str(link["href"])).rstrip("/")
    return None


def _sendable(aoi: BaseGeometry) -> BaseGeometry:
    """Return the outline as it is sent: itself, or the boxes of its parts' hemispheres."""
    import shapely

    if shapely.get_num_coordinates(aoi) <= _MAX_VERTICES:
        return aoi
    west, south, east, north = aoi.bounds
    if east - west <= 180:
        return shapely.box(west, south, east, north)
    halves = [shapely.box(-180, south, 0, north), shapely.box(0, south, 180, north)]
    boxes = [shapely.box(*aoi.intersection(half).bounds) for half in halves if aoi.intersects(half)]
    return shapely.union_all(boxes)
