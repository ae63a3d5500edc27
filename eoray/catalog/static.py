"""Read STAC documents, and walk a static catalogue with its items fetched side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlparse

from eoray import storage
from eoray.errors import CatalogError

if TYPE_CHECKING:
    import pystac
    from pystac_client.stac_api_io import StacApiIO

    from eoray.catalog.footprint import BBox

_THREADS = 16
_HOSTS = 10
"""Servers whose connections are kept."""

_MAX_DEPTH = 12
"""Levels of catalogues below the root; year/month/day/granule trees have five."""

_MALFORMED = (KeyError, ValueError, TypeError, AttributeError)

Document = dict[str, Any]
Interval = tuple[datetime | None, datetime | None]
Extent = tuple[tuple["BBox", ...], Interval]


@dataclass(frozen=True, slots=True)
class Found:
    """Items as a catalogue gave them, not yet filtered."""

    items: list[pystac.Item]
    extents: tuple[Extent, ...]
    """Boxes and interval of the collections looked into, as they state them."""
    collection: str
    """Collection that was looked into; "" for whatever there was."""


class Transport:
    """What sends requests; pystac-client is imported with the first one."""

    def __init__(self, *, timeout_s: float, retries: int) -> None:
        """Say how patient requests are; 429 and 5xx are tried again with growing pauses."""
        self.timeout_s = timeout_s
        self.retries = retries

    @cached_property
    def io(self) -> StacApiIO:
        """The session of pystac-client, shared by all requests."""
        from pystac_client.stac_api_io import StacApiIO
        from urllib3 import Retry

        again = Retry(
            total=self.retries,
            connect=min(self.retries, 2),
            backoff_factor=0.3,
            backoff_jitter=0.3,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
        )
        io = StacApiIO(timeout=self.timeout_s, max_retries=again)
        adapters: Iterable[Any] = io.session.adapters.values()
        for adapter in adapters:  # a connection for each thread, kept
            adapter.init_poolmanager(_HOSTS, _THREADS)
        return io

    def read_text(self, url: str) -> str:
        """Read a document over HTTP.

        Raises:
            CatalogError: It cannot be reached; the cause carries ``status_code``.
        """
        from pystac_client.exceptions import APIError

        try:
            return self.io.read_text(url)
        except (APIError, OSError) as error:
            raise CatalogError(_unreachable(url, error)) from error


def _unreachable(place: str, error: BaseException) -> str:
    return (
        f"catalogue {place!r} cannot be reached ({_short(error)}); check source.catalog, the "
        "network and the service's status"
    )


def load_document(url: str, transport: Transport) -> tuple[Document, str]:
    """Load the document that a URL, path or folder stands for, and its absolute place.

    Raises:
        CatalogError: It cannot be reached, or is no STAC document.
    """
    place = _absolute(url)
    if storage.is_local(place):
        path = storage.local_path(place)
        if path.is_dir():
            names = ("catalog.json", "collection.json")
            path = next((path / name for name in names if (path / name).is_file()), path / names[0])
        place = str(path)
    return load_json(place, transport), place


def load_json(place: str, transport: Transport) -> Document:
    """Load a JSON object from an absolute place.

    Raises:
        CatalogError: It cannot be reached, or is no JSON object.
    """
    try:
        if urlparse(place).scheme in ("http", "https"):
            text: str | bytes = transport.read_text(place)
        else:
            text = storage.read_bytes(place)
        document = json.loads(text)
    except OSError as error:
        raise CatalogError(_unreachable(place, error)) from error
    except ValueError as error:
        raise CatalogError(
            f"{place!r} is no JSON ({error}); source.catalog must name a STAC API or a catalogue"
        ) from error
    if not isinstance(document, dict):
        raise CatalogError(
            f"{place!r} holds a {type(document).__name__}, not a STAC document; check "
            "source.catalog"
        )
    return document


def walk_static(
    root: Document, place: str, transport: Transport, collection: str, max_items: int
) -> Found:
    """Collect the items of a static catalogue, collection, item or item collection.

    Args:
        root: Its first document.
        place: Where that lies.
        transport: Sends requests.
        collection: Collection id to look into; "" takes the only one.
        max_items: Refuse to read more.

    Raises:
        CatalogError: No such collection, several and none named, an unreadable document, or a
            tree without end.
    """
    tree = _Tree(transport, collection, max_items)
    tree.read([(root, place, "")])
    if collection and tree.seen and collection not in tree.seen:
        raise CatalogError(
            f"there is no collection {collection!r} in {place!r}; it has "
            f"{', '.join(sorted(tree.seen))}: set source.collection to one of them"
        )
    if not collection and len(tree.seen) > 1:
        raise CatalogError(
            f"{place!r} has {len(tree.seen)} collections ({', '.join(sorted(tree.seen))}); set "
            "source.collection to one of them"
        )
    return Found(tree.items(), tuple(tree.extents), collection)


class _Tree:
    """Documents of a static catalogue, level by level; order is that of the links."""

    def __init__(self, transport: Transport, collection: str, max_items: int) -> None:
        self.transport = transport
        self.collection = collection
        self.max_items = max_items
        self.seen: set[str] = set()
        self.extents: list[Extent] = []
        self._features: list[tuple[Document, str]] = []
        self._visited: set[str] = set()

    def items(self) -> list[pystac.Item]:
        return [to_item(document, place) for document, place in self._features]

    def read(self, level: list[tuple[Document, str, str]]) -> None:
        """Read a level of (document, place, id of the collection that it lies in) and below."""
        for _ in range(_MAX_DEPTH):
            below = [link for entry in level for link in self._open(*entry)]
            fresh = []
            for place, owner in below:
                if place not in self._visited:
                    self._visited.add(place)
                    fresh.append((place, owner))
            if not fresh:
                return
            if len(self._features) + len(fresh) > self.max_items:
                raise CatalogError(
                    f"static catalogue has more than {self.max_items} documents below "
                    f"{level[0][1]!r}; name a smaller collection in source.catalog"
                )
            with ThreadPoolExecutor(_THREADS) as pool:
                loaded = list(pool.map(self._load, fresh))
            level = [(doc, place, owner) for doc, (place, owner) in zip(loaded, fresh, strict=True)]
        raise CatalogError(
            f"static catalogue nests deeper than {_MAX_DEPTH} levels at {level[0][1]!r}; its child "
            "links may run in a circle"
        )

    def _load(self, link: tuple[str, str]) -> Document:
        return load_json(link[0], self.transport)

    def _open(self, document: Document, place: str, owner: str) -> list[tuple[str, str]]:
        """Take what a document holds and return the places that it links to."""
        kind = document.get("type")
        if kind == "Feature":
            self._take([document], place)
            return []
        if kind == "FeatureCollection":
            self._take(document.get("features", []), place)
            return []
        if kind not in ("Catalog", "Collection") and "links" not in document:
            raise CatalogError(
                f"{place!r} is of type {kind!r}, not a STAC catalogue, collection or item; check "
                "source.catalog"
            )
        if kind == "Collection" or "extent" in document:
            owner = str(document.get("id"))
            self.seen.add(owner)
            if owner in (self.collection, "") or not self.collection:
                self.extents.append(read_extent(document))
        wanted = not self.collection or owner in ("", self.collection)
        rels = ("child", "item", "items") if wanted else ("child",)
        return [
            (_join(place, str(link["href"])), owner)
            for link in document.get("links", ())
            if link.get("rel") in rels
        ]

    def _take(self, features: Sequence[Document], place: str) -> None:
        for feature in features:
            if feature.get("collection"):
                self.seen.add(str(feature["collection"]))
            self._features.append((feature, place))


def to_item(document: Mapping[str, Any], place: str) -> pystac.Item:
    """Build an item and tell it where it was read, so that relative hrefs resolve there.

    A self link that names another place is dropped: a copied catalogue keeps the old ones. Fields
    stay as they are, since pystac's migration would rewrite extensions, and warns while it does.

    Raises:
        CatalogError: The document is no STAC item.
    """
    import pystac

    try:
        links = [link for link in document.get("links", ()) if link.get("rel") != "self"]
        item = pystac.Item.from_dict(
            {**document, "links": links}, migrate=False, preserve_dict=False
        )
    except (pystac.STACError, pystac.STACTypeError, *_MALFORMED) as error:
        raise CatalogError(
            f"{document.get('id', 'a feature')!r} in {place!r} is no STAC item ({error!r}); mend "
            "or remove it"
        ) from error
    if place:
        item.set_self_href(place)
    return item


def read_extent(collection: Mapping[str, Any]) -> Extent:
    """Return the boxes and the interval that a collection states; empty where it states none."""
    extent = collection.get("extent") or {}
    boxes = (extent.get("spatial") or {}).get("bbox") or []
    intervals = (extent.get("temporal") or {}).get("interval") or [[None, None]]
    first, last = (*intervals[0], None, None)[:2]
    return tuple(_box(box) for box in boxes if len(box) in (4, 6)), (
        _instant(first),
        _instant(last),
    )


def listed_collections(documents: Iterable[Mapping[str, Any]]) -> str:
    """Write the ids of collections for an error message."""
    ids = sorted(str(document.get("id")) for document in documents)
    shown = ids if len(ids) <= 20 else [i for i in ids if "sentinel-2" in i.lower()] or ids[:20]
    return ", ".join(shown) or "none"


def _box(box: Sequence[float]) -> BBox:
    values = [float(v) for v in (box if len(box) == 4 else [box[0], box[1], box[3], box[4]])]
    west, south, east, north = values
    return west, south, east, north


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _absolute(url: str) -> str:
    if not storage.is_local(url):
        return url
    return str(Path(storage.local_path(url)).absolute())


def _join(place: str, href: str) -> str:
    parsed = urlparse(href)
    if parsed.scheme == "file":
        return str(storage.local_path(href))
    if parsed.scheme:
        return href
    if storage.is_local(place):
        return str((Path(place).parent / href).resolve())
    if parsed.path.startswith("/") or urlparse(place).scheme in ("http", "https"):
        return urljoin(place, href)
    folder = place.rsplit("/", 1)[0]
    return storage.join(folder, href.removeprefix("./"))


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
