"""Files of an item: hrefs, CRS, transforms, no-data values and declared offsets."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from eoray.catalog.providers import SCL, asset_keys, bands_present
from eoray.catalog.signing import login_fields, login_url, without_signature
from eoray.errors import CatalogError

if TYPE_CHECKING:
    import pystac

Affine6 = tuple[float, float, float, float, float, float]

FALSE_NORTHING_M = 10_000_000.0
"""Northing of the equator in southern UTM CRSs; 327xx minus this is 326xx."""

_SCALE = 1e-4


@dataclass(frozen=True, slots=True)
class AssetFile:
    """One file with its place in the northern CRS of its zone."""

    band: str
    key: str
    """Asset key within the item."""
    href: str
    transform: Affine6
    shape: tuple[int, int]
    nodata: int
    alternates: tuple[tuple[str, str], ...] = ()
    """(name, href) of further places of the same file, as ``alternate-assets`` lists them."""


@dataclass(frozen=True, slots=True)
class ItemAssets:
    """The files of an item that were asked for."""

    files: tuple[AssetFile, ...]
    epsg: int
    """CRS of the files as they are."""
    zone: int | None
    declared_offset: int | None
    """DN offset that the reflectance bands declare (offset / scale); None where silent."""


def read_assets(
    item: pystac.Item, bands: Sequence[str], *, jp2: bool, require_scl: bool
) -> ItemAssets:
    """Find the files of some bands, and SCL, in an item.

    Args:
        item: STAC 1.0 or 1.1; ``proj`` fields of the item or of its assets.
        bands: Band ids, all of them needed.
        jp2: Prefer Earth Search's JPEG 2000 originals.
        require_scl: Refuse an item without SCL.

    Raises:
        CatalogError: An asset is missing, its place is not stated, files lie in different CRSs or
            cover different ground, or their declared offsets differ.
    """
    needed = [*bands, SCL]
    if not require_scl and SCL not in bands_present(item.assets):
        needed.remove(SCL)
    found = {band: _find(item, band, jp2=jp2) for band in needed}
    codes = {band: _epsg(item, key) for band, key in found.items()}
    if len(set(codes.values())) != 1:
        listed = ", ".join(f"{found[band]} EPSG:{code}" for band, code in codes.items())
        raise CatalogError(
            f"assets of item {item.id} lie in different CRSs ({listed}); a scene has one: mend "
            "proj:code in the catalogue"
        )
    epsg = codes[needed[0]]
    zone = _zone(epsg)
    south_m = FALSE_NORTHING_M if zone is not None and epsg // 100 == 327 else 0.0
    files = tuple(_file(item, band, found[band], south_m) for band in needed)
    _check_extents(item, files)
    reflectance = [key for band, key in found.items() if band != SCL]
    return ItemAssets(files, epsg, zone, _declared_offset(item, reflectance))


def _find(item: pystac.Item, band: str, *, jp2: bool) -> str:
    for key in asset_keys(band, jp2=jp2):
        if key in item.assets:
            return key
    raise CatalogError(
        f"item {item.id} of collection {item.collection_id!r} has no asset for {band} (looked for "
        f"{', '.join(asset_keys(band, jp2=jp2))}; it has {', '.join(sorted(item.assets))}); take "
        "the band out of bands, or say errors: record to go on without the item"
    )


def _field(item: pystac.Item, key: str, *names: str) -> Any:
    """Look a field up in the asset, then in the item."""
    extra, props = item.assets[key].extra_fields, item.properties
    for source in (extra, props):
        for name in names:
            if source.get(name) is not None:
                return source[name]
    return None


def _epsg(item: pystac.Item, key: str) -> int:
    value = _field(item, key, "proj:code", "proj:epsg")
    match = re.fullmatch(r"(?:EPSG:)?(\d+)", str(value), re.IGNORECASE)
    if match is None:
        raise CatalogError(
            f"asset {key!r} of item {item.id} states no EPSG code (proj:code {value!r}); file "
            "headers are not read while planning, so use a catalogue that states proj:code or "
            "proj:epsg"
        )
    return int(match[1])


def _zone(epsg: int) -> int | None:
    if epsg // 100 in (326, 327) and 1 <= epsg % 100 <= 60:
        return epsg % 100
    return None


def _file(item: pystac.Item, band: str, key: str, south_m: float) -> AssetFile:
    shape = _shape(item, key)
    if min(shape) < 1:
        raise CatalogError(_unplaced(item, key, "proj:shape", shape))
    a, b, c, d, e, f = _transform(item, key, shape)
    if not all(map(math.isfinite, (a, b, c, d, e, f))) or a * e == b * d:
        raise CatalogError(_unplaced(item, key, "proj:transform", (a, b, c, d, e, f)))
    href, *others = _places(item, key)
    return AssetFile(
        band,
        key,
        href[1],
        (a, b, c, d, e, f - south_m),
        shape,
        _nodata(item, key),
        tuple(others),
    )


def _shape(item: pystac.Item, key: str) -> tuple[int, int]:
    shape = _field(item, key, "proj:shape")
    if shape is None or len(shape) != 2:
        raise CatalogError(_unplaced(item, key, "proj:shape", shape))
    return int(shape[0]), int(shape[1])


def _transform(item: pystac.Item, key: str, shape: tuple[int, int]) -> Affine6:
    values = _field(item, key, "proj:transform")
    if values is None:
        box = _field(item, key, "proj:bbox")
        if box is None or len(box) != 4:
            raise CatalogError(_unplaced(item, key, "proj:transform", values))
        west, south, east, north = (float(v) for v in box)
        height, width = shape
        return (east - west) / width, 0.0, west, 0.0, (south - north) / height, north
    if len(values) not in (6, 9):
        raise CatalogError(_unplaced(item, key, "proj:transform", values))
    a, b, c, d, e, f = (float(v) for v in values[:6])
    return a, b, c, d, e, f


def _unplaced(item: pystac.Item, key: str, name: str, value: Any) -> str:
    return (
        f"asset {key!r} of item {item.id} has {name} {value!r}; file headers are not read while "
        "planning, so use a catalogue that states proj:transform and proj:shape"
    )


_UNREADABLE = ("openIdConnect", "oauth2")
"""Schemes of the extension ``authentication`` that ask for a person's login."""

_OTHER_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Where one is set, S3 can be read: a login is the slower way."""


def _places(item: pystac.Item, key: str) -> list[tuple[str, str]]:
    """(name, href) of a file, best first; its own href is named "".

    Places behind a login are left out, unless the environment has what eoray logs in with.
    """
    extra = item.assets[key].extra_fields
    found = [("", _href(item, key), extra)]
    listed = extra.get("alternate")
    for name, other in sorted(listed.items()) if isinstance(listed, Mapping) else ():
        href = other.get("href") if isinstance(other, Mapping) else None
        if isinstance(href, str) and urlparse(href).scheme:
            found.append((name, without_signature(href), other))
    readable = [(name, href) for name, href, fields in found if not _needs_login(item, fields)]
    behind = [(name, href) for name, href, fields in found if _needs_login(item, fields)]
    known = [(name, href) for name, href in behind if login_fields() and login_url(href)]
    keyless = not any(os.environ.get(name) for name in _OTHER_KEYS)
    return ([*known, *readable] if keyless else [*readable, *known]) or [found[0][:2]]


def _needs_login(item: pystac.Item, fields: Mapping[str, Any]) -> bool:
    schemes = item.properties.get("auth:schemes") or {}
    types = [(schemes.get(ref) or {}).get("type") for ref in fields.get("auth:refs") or ()]
    return bool(types) and all(kind in _UNREADABLE for kind in types)


def _href(item: pystac.Item, key: str) -> str:
    href = item.assets[key].get_absolute_href()
    if href is None:
        raise CatalogError(
            f"asset {key!r} of item {item.id} has the relative href {item.assets[key].href!r}, and "
            "the item does not say where it lies; give it a self link or an absolute href"
        )
    parsed = urlparse(href)
    return unquote(parsed.path) if parsed.scheme == "file" else without_signature(href)


def _band_fields(item: pystac.Item, key: str) -> list[Mapping[str, Any]]:
    """Return where STAC 1.1 and the raster extension keep band metadata, most specific first."""
    extra = item.assets[key].extra_fields
    listed = [extra.get("bands"), extra.get("raster:bands")]
    first = [bands[0] for bands in listed if isinstance(bands, Sequence) and bands]
    return [*first, extra]


def _band_value(item: pystac.Item, key: str, *names: str) -> Any:
    for fields in _band_fields(item, key):
        for name in names:
            if fields.get(name) is not None:
                return fields[name]
    return None


def _nodata(item: pystac.Item, key: str) -> int:
    """0, which is no data in every band of Sentinel-2 and class 0 of SCL."""
    value = _band_value(item, key, "nodata")
    if value not in (None, 0, "0", 0.0):
        raise CatalogError(
            f"asset {key!r} of item {item.id} says nodata {value!r}; Sentinel-2 L2A writes 0, and "
            "takes other numbers for reflectance: mend it in the catalogue, or say errors: record "
            "to go on without the item"
        )
    return 0


def _declared_offset(item: pystac.Item, keys: Sequence[str]) -> int | None:
    """Return offset / scale in DN, the same in all bands, or None where none declares one."""
    declared = {key: _declared(item, key) for key in keys}
    values = set(declared.values())
    if len(values) > 1:
        raise CatalogError(
            f"assets of item {item.id} declare different offsets in DN ({declared}); Sentinel-2 "
            "has one for all bands: mend raster:offset in the catalogue"
        )
    return values.pop() if values else None


def _declared(item: pystac.Item, key: str) -> int | None:
    offset = _band_value(item, key, "offset", "raster:offset")
    if offset is None:
        return None
    scale = _band_value(item, key, "scale", "raster:scale")
    return round(float(offset) / (_SCALE if scale is None else float(scale)))


def _check_extents(item: pystac.Item, files: Sequence[AssetFile]) -> None:
    first = files[0]
    for other in files[1:]:
        tolerance_m = abs(first.transform[0]) / 2
        pairs = zip(_extent(first), _extent(other), strict=True)
        if any(abs(one - two) > tolerance_m for one, two in pairs):
            raise CatalogError(
                f"assets of item {item.id} cover different ground: {first.key} "
                f"{_extent(first)} in {first.shape[0]} x {first.shape[1]} pixels, {other.key} "
                f"{_extent(other)} in {other.shape[0]} x {other.shape[1]}; mend proj:shape and "
                "proj:transform in the catalogue, or say errors: record to go on without the item"
            )


def _extent(file: AssetFile) -> tuple[float, float, float, float]:
    a, _, c, _, e, f = file.transform
    height, width = file.shape
    return c, f + e * height, c + a * width, f
