"""Facts about each provider of Sentinel-2 L2A: one row per provider and collection family.

How to recognise it, its collections and asset names, where its files lie, who signs links to them
and how many requests at once they bear. What the pixels hold (the baseline offset) is decided in
``offset.py`` by a rule for each row; nothing else in eoray knows a provider by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

from eoray.errors import ConfigError
from eoray.sentinel2 import BANDS, COMMON_NAMES, native_resolution_m

SCL = "SCL"

AUTO = "auto"

EARTH_SEARCH = "earth-search"
"""Any of Earth Search's three collections; the item's collection tells which."""

STATIC = "static"
"""Another word for the generic row."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Where a family of items comes from."""

    name: str
    """Stable id, stored with every date of a cube."""
    hosts: tuple[str, ...] = ()
    """Hosts of its API; a default collection is chosen by them."""
    collections: tuple[str, ...] = ()
    """Collection ids with surface reflectance; the first is the default."""
    markers: tuple[str, ...] = ()
    """Property names or prefixes (ending in ``:``) that only its items carry."""
    asset_names: tuple[str, ...] = ("{common}", "{id}", "{id}_{resolution}m")
    """How asset keys are made of a band, the native resolution first."""
    file_servers: tuple[str, ...] = ()
    """Scheme and host, or bucket, of its files."""
    tokens: str = ""
    """Where rights to read its files are given out, by ``{account}`` and ``{container}`` of Azure;
    "" where links need no signature."""
    logins: str = ""
    """Where a user logs in for those of its files that HTTP serves: the token endpoint of OpenID
    Connect; "" where none is needed. No run file can name another: a password goes there."""
    at_once: int = 16
    """Requests for files that a process has in flight to begin with; it adapts to answers."""


EARTH_SEARCH_C1 = Provider(
    "earth-search-c1",
    hosts=("earth-search.aws.element84.com",),
    collections=("sentinel-2-c1-l2a",),
    asset_names=("{common}",),
    file_servers=("https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com",),
)
EARTH_SEARCH_V1 = Provider(
    "earth-search-v1",
    collections=("sentinel-2-l2a",),
    markers=("earthsearch:",),
    asset_names=("{common}",),
    file_servers=("https://sentinel-cogs.s3.us-west-2.amazonaws.com",),
)
EARTH_SEARCH_V0 = Provider(
    "earth-search-v0",
    collections=("sentinel-s2-l2a-cogs",),
    markers=("sentinel:",),
    asset_names=("{id}",),
    file_servers=("https://sentinel-cogs.s3.us-west-2.amazonaws.com",),
)
PLANETARY_COMPUTER = Provider(
    "planetary-computer",
    hosts=("planetarycomputer.microsoft.com",),
    collections=("sentinel-2-l2a",),
    markers=("s2:mgrs_tile",),
    asset_names=("{id}",),
    file_servers=("https://sentinel2l2a01.blob.core.windows.net",),
    tokens="https://planetarycomputer.microsoft.com/api/sas/v1/token/{account}/{container}",
)
CDSE = Provider(
    "cdse",
    hosts=("stac.dataspace.copernicus.eu",),
    collections=("sentinel-2-l2a",),
    markers=("eopf:",),
    asset_names=("{id}_{resolution}m",),
    file_servers=(
        "s3://eodata",
        "https://download.dataspace.copernicus.eu",
        "https://zipper.dataspace.copernicus.eu",
    ),
    logins="https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token",
    # four connections a user are what its quotas grant
    at_once=4,
)
GENERIC = Provider("generic")
"""Any other catalogue: common names or band ids as asset keys, the offset as declared."""

PROVIDERS = (
    EARTH_SEARCH_C1,
    PLANETARY_COMPUTER,
    CDSE,
    EARTH_SEARCH_V0,
    EARTH_SEARCH_V1,
    GENERIC,
)


def resolve_provider(
    collection: str, properties: Mapping[str, Any], *, said: str = AUTO
) -> Provider:
    """Tell which provider an item is from.

    Collection ids are shared between providers (three serve ``sentinel-2-l2a``), so properties
    that only one of them writes decide; the collection decides where its id is unique.

    Args:
        collection: Collection id of the item, or "".
        properties: Properties of the item.
        said: A provider's name, "earth-search" for any of its collections, "static" for the
            generic row, or "auto".

    Raises:
        ConfigError: ``said`` names no provider.
    """
    if said not in (AUTO, EARTH_SEARCH):
        return provider_named(said)
    for provider in (EARTH_SEARCH_C1, EARTH_SEARCH_V0):
        if collection in provider.collections:
            return provider
    if said == EARTH_SEARCH:
        return EARTH_SEARCH_V1
    for provider in PROVIDERS:
        if any(_marked(marker, properties) for marker in provider.markers):
            return provider
    return GENERIC


def provider_named(name: str) -> Provider:
    """Return the row of a provider.

    Raises:
        ConfigError: There is none of that name.
    """
    if name == STATIC:
        return GENERIC
    for provider in PROVIDERS:
        if provider.name == name:
            return provider
    known = ", ".join([EARTH_SEARCH, STATIC, *(provider.name for provider in PROVIDERS)])
    raise ConfigError(f"unknown provider {name!r} in source.provider; say auto or one of {known}")


def default_collection(url: str) -> str | None:
    """Return the collection of record of a public API, known by its host; else None."""
    host = (urlparse(url).hostname or "").lower()
    for provider in PROVIDERS:
        if host in provider.hosts:
            return provider.collections[0]
    return None


def requests_at_once(server: str) -> int:
    """Requests that a server of files gets from a process to begin with.

    Args:
        server: Scheme and host, or bucket.
    """
    return _provider_at(server).at_once


def token_address(server: str) -> str:
    """Where rights to read the files of a server are given out; "" where none are needed.

    Args:
        server: Scheme and host, or bucket.
    """
    return _provider_at(server).tokens


def login_address(server: str) -> str:
    """Where a user logs in to read the files of a server; "" where nobody needs to.

    Args:
        server: Scheme and host, or bucket.
    """
    return _provider_at(server).logins if server.startswith("http") else ""


def _provider_at(server: str) -> Provider:
    return next((p for p in PROVIDERS if server.lower() in p.file_servers), GENERIC)


def sibling_collections(url: str, collection: str) -> tuple[str, ...]:
    """List the other collections in which a public API, known by its host, keeps Sentinel-2."""
    host = (urlparse(url).hostname or "").lower()
    if host not in EARTH_SEARCH_C1.hosts:
        return ()
    both = (*EARTH_SEARCH_C1.collections, *EARTH_SEARCH_V1.collections)
    return tuple(name for name in both if name != collection)


def asset_keys(band: str, *, jp2: bool = False) -> tuple[str, ...]:
    """List the keys under which providers keep a band at its native resolution, best first.

    Args:
        band: Band id, or "SCL".
        jp2: Take Earth Search's JPEG 2000 originals instead of its COGs.

    Returns:
        Common name (Earth Search v1, stactools), id (Planetary Computer, Earth Search v0), id
        with resolution (CDSE).
    """
    common = SCL.lower() if band == SCL else COMMON_NAMES[band]
    words = {"common": common, "id": band, "resolution": _resolution_m(band)}
    first, *others = (name.format(**words) for name in GENERIC.asset_names)
    return (f"{common}-jp2" if jp2 else first, *others)


def bands_present(assets: Mapping[str, Any]) -> tuple[str, ...]:
    """List the band ids (and SCL) that an item's assets hold, in eoray's order."""
    return tuple(band for band in (*BANDS, SCL) if any(key in assets for key in asset_keys(band)))


def _resolution_m(band: str) -> int:
    return 20 if band == SCL else native_resolution_m(band)


def _marked(marker: str, properties: Mapping[str, Any]) -> bool:
    if marker.endswith(":"):
        return any(name.startswith(marker) for name in properties)
    return marker in properties
