"""Scenes: STAC items brought to one form, whatever the provider, STAC version or hemisphere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from eoray.catalog.assets import AssetFile, ItemAssets, read_assets
from eoray.catalog.compete import Candidate, choose_processings
from eoray.catalog.facts import ItemFacts, read_facts, why_not_level_2a
from eoray.catalog.footprint import bbox_of, centre_lon, item_footprint
from eoray.catalog.lineage import Lineage, check_lineage
from eoray.catalog.offset import OffsetFacts, OffsetRule, resolve_offset
from eoray.catalog.providers import AUTO, SCL, bands_present, resolve_provider
from eoray.errors import CatalogError
from eoray.sentinel2 import native_resolution_m
from eoray.timeline import solar_day

if TYPE_CHECKING:
    import pystac
    from shapely.geometry.base import BaseGeometry

_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


@dataclass(frozen=True, slots=True)
class BandAsset:
    """One file of a scene and where its pixels lie."""

    band: str
    """Band id, or "SCL"."""
    href: str
    """Absolute URL or local path."""
    transform: tuple[float, float, float, float, float, float]
    """Affine a, b, c, d, e, f in metres; southern UTM is relabelled to the zone's northern CRS."""
    shape: tuple[int, int]
    """(height, width) in pixels."""
    nodata: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The same product in another place: the same integers, under other names."""

    provider: str
    item_id: str
    assets: tuple[BandAsset, ...]
    """In the order of the scene's own."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One item: the part of a datatake that one granule and datastrip hold."""

    item_id: str
    collection: str
    provider: str
    datatake: str
    """Key of the pass, such as ``S2B_20240530T174909_R098``; the time key of a cube. Items that
    name no datatake get their own time, and S2X and R000 where satellite or orbit is unknown."""
    sensing_time: str
    """Start of the datatake, ISO 8601 UTC to the millisecond: the same for all its granules."""
    solar_day: str
    """Day of local mean solar time at the granule's centre."""
    satellite: str
    relative_orbit: int
    """1..143; 0 where unknown."""
    granule: str
    """MGRS granule such as ``13TDE``; "" where unknown."""
    product_uri: str
    baseline: str
    """Processing baseline such as ``05.10``; "" where the item says none."""
    generation_time: str
    dn_offset: int
    """To add to every DN above 0 of the reflectance bands; SCL has none."""
    offset_rule: str
    """Name of the rule that gave ``dn_offset``."""
    clipped_at_source: bool
    """Reflectance below 0 was lost before eoray: unsigned DN without the baseline offset."""
    refined: bool | None
    """Geometric refinement of the datastrip; None where not stated."""
    sun_zenith: float
    sun_azimuth: float
    view_zenith: float
    view_azimuth: float
    """Angles in degrees, means of the granule; NaN where unknown."""
    cloud_pct: float
    epsg: int
    """CRS of the files as they are (327xx stays 327xx; ``assets`` are relabelled)."""
    zone: int | None
    """UTM zone 1..60, or None for another CRS."""
    bbox: tuple[float, float, float, float]
    """(west, south, east, north) in degrees; west > east across the antimeridian."""
    footprint: bytes
    """Outline of the data in lon/lat, WKB, cut at the antimeridian."""
    assets: tuple[BandAsset, ...]
    elsewhere: tuple[Elsewhere, ...] = ()
    """Where else its files lie, best first."""
    not_elsewhere: str = ""
    """Why other providers cannot stand in for it; "" where none was asked, or one can."""

    @property
    def grid_epsg(self) -> int:
        """CRS that ``assets`` are placed in: the zone's northern one, or that of the files."""
        return self.epsg if self.zone is None else 32600 + self.zone

    @property
    def extent(self) -> BandAsset:
        """The file that says where pixels are: SCL, or a band of 20 m where there is none.

        Raises:
            CatalogError: There is neither.
        """
        coarse = (a for a in self.assets if a.band == SCL or native_resolution_m(a.band) == 20)
        found = sorted(coarse, key=lambda a: (a.band != SCL, a.band))
        if not found:
            raise CatalogError(
                f"item {self.item_id} has no SCL, and the run reads no band of 20 m that could "
                "say where its pixels are; add one to cube.bands"
            )
        return found[0]

    def asset(self, band: str) -> BandAsset:
        """Return the file of a band.

        Raises:
            CatalogError: The scene was resolved without it.
        """
        for asset in self.assets:
            if asset.band == band:
                return asset
        raise CatalogError(
            f"item {self.item_id} of collection {self.collection!r} was resolved without {band!r}; "
            f"it has {', '.join(a.band for a in self.assets)}: name the band in bands"
        )


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item that is no scene of the run."""

    item_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a set of items comes to."""

    scenes: tuple[Scene, ...]
    """Sorted by time, datatake, granule and id."""
    skipped: tuple[Skipped, ...]
    """Sorted by id."""
    notes: tuple[str, ...]
    """Things worth knowing that are no reason to stop, one line each."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    bands: tuple[str, ...]
    provider: str
    offset: str
    jp2: bool
    require_scl: bool


def resolve_scenes(
    items: Iterable[pystac.Item],
    *,
    lineage: Lineage,
    bands: Sequence[str],
    provider: str = AUTO,
    offset: str = "auto",
    jp2: bool = False,
    require_scl: bool = True,
    errors: Literal["raise", "record"] = "raise",
) -> Resolution:
    """Turn items into scenes of one lineage.

    No file is opened: CRS, transform and shape come from the items (``proj``, STAC 1.0 or 1.1, of
    the item or its assets). Whether files agree is checked by whoever reads them.

    Args:
        items: Any order; the result does not depend on it.
        lineage: What may stand in one cube.
        bands: Band ids that every scene must have; SCL comes with them.
        provider: A provider's name, or "auto" to tell from each item.
        offset: "applied" or "raw": the user's word on items whose offset is doubtful.
        jp2: Read Earth Search's JPEG 2000 originals instead of its COGs.
        require_scl: Refuse items without SCL; else they come without it.
        errors: "raise" stops at an item that cannot be used, "record" puts it among ``skipped``.
            A doubtful offset, a band that no item has, and mixed lineages always stop.

    Returns:
        Scenes, the items left out with the reason, and notes.

    Raises:
        CatalogError: Nothing is left, no item has a band, or an item cannot be used.
        ConfigError: Baselines or providers do not belong together and may not be mixed.
    """
    wanted = _Wanted(tuple(bands), provider, offset, jp2, require_scl)
    unique, skipped, notes = _distinct(items)
    usable = []
    for item in unique:
        reason = why_not_level_2a(item)
        if reason:
            skipped.append(Skipped(item.id, reason))
        else:
            usable.append(item)
    if not usable:
        raise CatalogError(_nothing_left(skipped))
    _check_bands(usable, wanted)
    candidates = []
    for item in usable:
        try:
            candidates.append(_candidate(item, wanted))
        except _UnusableError as error:
            if errors == "raise":
                raise CatalogError(str(error)) from error
            skipped.append(Skipped(item.id, str(error)))
    candidates = _of_provider(candidates, lineage, skipped)
    kept, repeated = choose_processings(candidates, lineage)
    skipped += [_repetition(one.scene, winner.scene) for one, winner in repeated]
    if not kept:
        raise CatalogError(_nothing_left(skipped))
    scenes = tuple(sorted((one.scene for one in kept), key=_order))
    check_lineage(scenes, lineage)
    return Resolution(
        scenes,
        tuple(sorted(skipped, key=lambda s: (s.item_id, s.reason))),
        (*notes, *_notes(scenes)),
    )


def resolve_products(
    items: Iterable[pystac.Item],
    *,
    bands: Sequence[str],
    provider: str = AUTO,
    require_scl: bool = True,
) -> tuple[Scene, ...]:
    """Turn items into scenes one by one: no lineage, none preferred to another.

    Args:
        items: Any order.
        bands: Band ids that a scene needs.
        provider: A provider's name, or "auto" to tell from each item.
        require_scl: Leave out items without SCL.

    Returns:
        Scenes of the items that can be used, sorted as in :class:`Resolution`.
    """
    wanted = _Wanted(tuple(bands), provider, "auto", jp2=False, require_scl=require_scl)
    scenes = []
    for item in _distinct(items)[0]:
        if why_not_level_2a(item):
            continue
        try:
            scenes.append(_candidate(item, wanted).scene)
        except (_UnusableError, CatalogError):
            continue
    return tuple(sorted(scenes, key=_order))


class _UnusableError(Exception):
    """One item cannot become a scene; the message is complete."""


def _order(scene: Scene) -> tuple[str, str, str, str, str]:
    return (
        scene.sensing_time,
        scene.datatake,
        scene.granule,
        scene.item_id,
        scene.collection,
    )


def _distinct(
    items: Iterable[pystac.Item],
) -> tuple[list[pystac.Item], list[Skipped], list[str]]:
    """Drop items that a catalogue lists twice; of differing copies the last updated stays."""
    copies: dict[tuple[str, str], list[pystac.Item]] = {}
    for item in items:
        copies.setdefault((item.collection_id or "", item.id), []).append(item)
    unique, notes = [], []
    for key in sorted(copies):
        same = copies[key]
        if len(same) > 1:
            same = sorted(same, key=_copy_rank)
            notes.append(f"item {key[1]} is listed {len(same)} times in collection {key[0]!r}")
        unique.append(same[-1])
    return unique, [], notes


def _copy_rank(item: pystac.Item) -> tuple[str, str]:
    content = {key: asset.to_dict() for key, asset in item.assets.items()}
    text = json.dumps([item.properties, content], sort_keys=True, default=str)
    return str(item.properties.get("updated") or ""), text


def _nothing_left(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return "no scenes: the search gave no item; widen aoi or time, or check source.collection"
    first = min(skipped, key=lambda s: s.item_id)
    return (
        f"no scenes: all {len(skipped)} items were left out, such as {first.item_id} "
        f"({first.reason}); check source.collection and source.lineage"
    )


def _check_bands(items: Sequence[pystac.Item], wanted: _Wanted) -> None:
    """Refuse bands that no item has, before anything else is looked at."""
    present = {band for item in items for band in bands_present(item.assets)}
    needed = (*wanted.bands, SCL) if wanted.require_scl else wanted.bands
    lacking = [band for band in needed if band not in present]
    if lacking == [SCL]:
        raise CatalogError(
            f"no item of collection {', '.join(sorted({i.collection_id or '?' for i in items}))} "
            "has an asset for SCL, which tells clear pixels from cloud; use another collection, or "
            "say cube.mask.method: none to take every pixel as clear"
        )
    if lacking:
        collections = sorted({item.collection_id or "?" for item in items})
        there = [band for band in bands_present(items[0].assets) if band in present]
        raise CatalogError(
            f"collection {', '.join(collections)} has no asset for {', '.join(lacking)} in any of "
            f"{len(items)} items; it has {', '.join(there) or 'no known band'} (assets of item "
            f"{items[0].id}: {', '.join(sorted(items[0].assets))}): take these out of bands, or "
            "use another collection"
        )


def _candidate(item: pystac.Item, wanted: _Wanted) -> Candidate:
    provider = resolve_provider(
        item.collection_id or "", item.properties, said=wanted.provider
    ).name
    try:
        facts = read_facts(item)
        outline = item_footprint({"geometry": item.geometry, "bbox": item.bbox}, item.id)
        files = read_assets(item, wanted.bands, jp2=wanted.jp2, require_scl=wanted.require_scl)
    except (CatalogError, ValueError, TypeError) as error:
        raise _UnusableError(_described(item, error)) from error
    rule = resolve_offset(
        OffsetFacts(
            provider,
            facts.baseline,
            _applied_flag(item.properties),
            files.declared_offset,
            jp2=wanted.jp2,
        ),
        item_id=item.id,
        said=wanted.offset,
    )
    scene = _scene(item, provider, facts, rule, files, outline)
    return Candidate(scene, outline, facts.datastrip_start, facts.nodata_pct)


def _described(item: pystac.Item, error: Exception) -> str:
    if isinstance(error, CatalogError):
        return str(error)
    return (
        f"item {item.id} of collection {item.collection_id!r} holds a value that cannot be read "
        f"({error}); mend it in the catalogue, or say errors: record to go on without the item"
    )


def _applied_flag(props: Mapping[str, Any]) -> bool | None:
    value = next((props[name] for name in _FLAGS if name in props), None)
    return None if value is None else bool(value)


def _scene(
    item: pystac.Item,
    provider: str,
    facts: ItemFacts,
    rule: OffsetRule,
    files: ItemAssets,
    outline: BaseGeometry,
) -> Scene:
    import shapely

    bbox = bbox_of(outline)
    return Scene(
        item_id=item.id,
        collection=item.collection_id or "",
        provider=provider,
        datatake=facts.datatake,
        sensing_time=facts.sensing_time,
        solar_day=solar_day(_naive(facts.start), centre_lon(bbox)).isoformat(),
        satellite=facts.satellite,
        relative_orbit=facts.relative_orbit,
        granule=facts.granule,
        product_uri=facts.product_uri,
        baseline=facts.baseline,
        generation_time=facts.generation_time,
        dn_offset=rule.dn_offset,
        offset_rule=rule.name,
        clipped_at_source=rule.dn_offset == 0,
        refined=facts.refined,
        sun_zenith=facts.sun_zenith,
        sun_azimuth=facts.sun_azimuth,
        view_zenith=facts.view_zenith,
        view_azimuth=facts.view_azimuth,
        cloud_pct=facts.cloud_pct,
        epsg=files.epsg,
        zone=files.zone,
        bbox=bbox,
        footprint=shapely.to_wkb(shapely.normalize(outline)),
        assets=tuple(_asset(file, file.href) for file in files.files),
        elsewhere=_alternates(item.id, provider, files),
    )


def _asset(file: AssetFile, href: str) -> BandAsset:
    return BandAsset(file.band, href, file.transform, file.shape, file.nodata)


def _alternates(item_id: str, provider: str, files: ItemAssets) -> tuple[Elsewhere, ...]:
    """Further places that hold all files of an item."""
    listed = [dict(file.alternates) for file in files.files]
    names = sorted(set.intersection(*(set(places) for places in listed)))
    return tuple(
        Elsewhere(
            f"{provider} ({name or 'href'})",
            item_id,
            tuple(
                _asset(file, places[name]) for file, places in zip(files.files, listed, strict=True)
            ),
        )
        for name in names
    )


def _naive(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)


def _of_provider(
    candidates: list[Candidate], lineage: Lineage, skipped: list[Skipped]
) -> list[Candidate]:
    if not lineage.provider:
        return candidates
    others = [c for c in candidates if c.scene.provider != lineage.provider]
    skipped += [
        Skipped(c.scene.item_id, f"of {c.scene.provider}; the lineage is {lineage.provider}'s")
        for c in others
    ]
    return [c for c in candidates if c.scene.provider == lineage.provider]


def _repetition(scene: Scene, winner: Scene) -> Skipped:
    def processing(one: Scene) -> str:
        return f"baseline {one.baseline or '?'}, generated {one.generation_time or '?'}"

    return Skipped(
        scene.item_id,
        f"another processing of {winner.item_id} ({processing(winner)}; this one "
        f"{processing(scene)})",
    )


def _notes(scenes: Sequence[Scene]) -> list[str]:
    parts: dict[tuple[str, str], list[str]] = {}
    for scene in scenes:
        if scene.granule:
            parts.setdefault((scene.datatake, scene.granule), []).append(scene.item_id)
    notes = [
        f"granule {granule} of {datatake} is split into {len(ids)} items, to be mosaicked: "
        f"{', '.join(ids)}"
        for (datatake, granule), ids in sorted(parts.items())
        if len(ids) > 1
    ]
    checks: tuple[tuple[str, Callable[[Scene], bool]], ...] = (
        (
            "name no datatake's satellite or orbit",
            lambda s: "S2X" in s.datatake or not s.relative_orbit,
        ),
        ("state no processing baseline", lambda s: not s.baseline),
        ("have no SCL", lambda s: all(a.band != SCL for a in s.assets)),
        ("are not in UTM and will be warped", lambda s: s.zone is None),
    )
    for words, is_so in checks:
        found = [scene for scene in scenes if is_so(scene)]
        if found:
            notes.append(f"{len(found)} of {len(scenes)} items {words}, such as {found[0].item_id}")
    return notes
