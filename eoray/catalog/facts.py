"""What an item says of itself, under whatever names: pass, granule, processing, angles."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eoray.errors import CatalogError

if TYPE_CHECKING:
    import pystac

UNKNOWN_SATELLITE = "S2X"

_DATATAKE = re.compile(r"GS(2[A-Z])_(\d{8}T\d{6})_(\d{6})_N(\d{2})\.(\d{2})")
_PRODUCT = re.compile(
    r"(S2[A-Z])_MSI(L\d[A-C])_(\d{8}T\d{6})_(?:N(\d{2})(\d{2})_)?R(\d{3})_T(\d{2}[A-Z]{3})_(\d{8}T\d{6})"
)
_PLATFORM = re.compile(r"sentinel-?2([a-z])", re.IGNORECASE)
_ID_GRANULE = re.compile(r"^S2[A-Z]?_T?(\d{1,2}[C-X][A-Z]{2})_")
_DATASTRIP = re.compile(r"_S(\d{8}T\d{6})_N")
_LEVEL_2A = ("S2MSI2A", "L2A")


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """Identity and circumstances of an item. "" and NaN mean that it does not say."""

    satellite: str
    start: datetime
    """Start of the datatake, UTC; the item's own time where no datatake is named."""
    relative_orbit: int
    """1..143, or 0."""
    granule: str
    """MGRS granule, five characters."""
    product_uri: str
    baseline: str
    generation_time: str
    datastrip_start: str
    """Start of the datastrip's sensing: the same in every processing of that datastrip."""
    nodata_pct: float
    refined: bool | None
    sun_zenith: float
    sun_azimuth: float
    view_zenith: float
    """From ``view:incidence_angle``; where only ``view:off_nadir`` is given, that (up to 1.5
    degrees smaller, since it is the angle at the satellite)."""
    view_azimuth: float
    cloud_pct: float

    @property
    def datatake(self) -> str:
        """Key of the pass: satellite, start, relative orbit."""
        return f"{self.satellite}_{self.start:%Y%m%dT%H%M%S}_R{self.relative_orbit:03d}"

    @property
    def sensing_time(self) -> str:
        """Start of the datatake, ISO 8601 to the millisecond."""
        return iso_ms(self.start)


def read_facts(item: pystac.Item) -> ItemFacts:
    """Collect what an item says under any of the names that providers use.

    Raises:
        CatalogError: It has neither a datatake, nor a product name, nor a time.
    """
    props = item.properties
    product = _product(item)
    take = _DATATAKE.fullmatch(str(_first(props, "s2:datatake_id", "eopf:datatake_id") or ""))
    stamp = take[2] if take else product[3] if product else ""
    view_azimuth = _number(props, "view:azimuth")
    return ItemFacts(
        satellite=_satellite(props, take, product),
        start=_compact(stamp) if stamp else _item_time(item),
        relative_orbit=int(_first(props, "sat:relative_orbit") or (product[6] if product else 0)),
        granule=_granule(item, product),
        product_uri=_product_uri(props, product),
        baseline=_baseline(props, take, product),
        generation_time=_generation(props, product),
        datastrip_start=_datastrip_start(props),
        nodata_pct=_nodata_pct(props),
        refined=_refined(props),
        sun_zenith=_sun_zenith(props),
        sun_azimuth=_number(props, "view:sun_azimuth", "s2:mean_solar_azimuth"),
        view_zenith=_view_zenith(props, view_azimuth),
        view_azimuth=view_azimuth,
        cloud_pct=_number(props, "eo:cloud_cover"),
    )


def why_not_level_2a(item: pystac.Item) -> str:
    """Return why an item is no Sentinel-2 L2A scene, or "" where nothing speaks against it."""
    props = item.properties
    craft = str(_first(props, "constellation", "platform") or "sentinel-2")
    if not craft.lower().replace(" ", "-").startswith("sentinel-2"):
        return f"it is of {craft}, not of Sentinel-2"
    level = str(_first(props, "s2:product_type", "product:type") or "")
    product = _product(item)
    if not level and product:
        level = product[2]
    if level and level not in _LEVEL_2A:
        return f"its product type is {level}, not S2MSI2A"
    return ""


def iso_ms(instant: datetime) -> str:
    """Write a UTC instant as ISO 8601 to the millisecond, such as 2024-05-30T17:49:09.000Z."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _product(item: pystac.Item) -> re.Match[str] | None:
    for text in (
        item.properties.get("s2:product_uri"),
        item.properties.get("sentinel:product_id"),
        item.id,
    ):
        match = _PRODUCT.match(str(text or ""))
        if match:
            return match
    return None


def _first(props: Mapping[str, Any], *names: str) -> Any:
    return next((props[name] for name in names if props.get(name) not in (None, "")), None)


def _number(props: Mapping[str, Any], *names: str) -> float:
    value = _first(props, *names)
    return math.nan if value is None else float(value)


def _less(whole: float, part: float) -> float:
    """Subtract, with one NaN for all unknowns: tuples with the same NaN object compare equal."""
    return math.nan if math.isnan(part) else whole - part


def _satellite(
    props: Mapping[str, Any], take: re.Match[str] | None, product: re.Match[str] | None
) -> str:
    if take:
        return f"S{take[1]}"
    if product:
        return product[1]
    match = _PLATFORM.search(str(props.get("platform") or "").replace(" ", "-"))
    return f"S2{match[1].upper()}" if match else UNKNOWN_SATELLITE


def _compact(stamp: str) -> datetime:
    return datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def _item_time(item: pystac.Item) -> datetime:
    instant = item.datetime or item.common_metadata.start_datetime
    if instant is None:
        raise CatalogError(
            f"item {item.id} has no datetime, no start_datetime and no datatake; it cannot be "
            "placed in time, so take it out of the catalogue"
        )
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _granule(item: pystac.Item, product: re.Match[str] | None) -> str:
    props = item.properties
    text = str(_first(props, "s2:mgrs_tile") or "")
    code = str(_first(props, "grid:code") or "")
    if not text and code.startswith("MGRS-"):
        text = code.removeprefix("MGRS-")
    if not text and product:
        text = product[7]
    if not text:
        match = _ID_GRANULE.match(item.id)
        text = match[1] if match else ""
    return text.zfill(5) if text else ""


def _product_uri(props: Mapping[str, Any], product: re.Match[str] | None) -> str:
    text = str(_first(props, "s2:product_uri", "sentinel:product_id") or "")
    if not text and product and product[4]:
        text = product[0]
    return f"{text.removesuffix('.SAFE')}.SAFE" if text else ""


def _baseline(
    props: Mapping[str, Any], take: re.Match[str] | None, product: re.Match[str] | None
) -> str:
    """Two digits, a point, two digits, so that baselines compare as text."""
    text = str(
        _first(
            props, "s2:processing_baseline", "sentinel:processing_baseline", "processing:version"
        )
        or ""
    )
    match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})", text)
    if match:
        return f"{int(match[1]):02d}.{match[2].ljust(2, '0')}"
    if product and product[4]:
        return f"{product[4]}.{product[5]}"
    return f"{take[4]}.{take[5]}" if take else ""


def _generation(props: Mapping[str, Any], product: re.Match[str] | None) -> str:
    text = _first(props, "s2:generation_time", "processing:datetime")
    if text is not None:
        return iso_ms(datetime.fromisoformat(str(text)))
    return iso_ms(_compact(product[8])) if product else ""


def _datastrip_start(props: Mapping[str, Any]) -> str:
    match = _DATASTRIP.search(str(_first(props, "s2:datastrip_id", "eopf:datastrip_id") or ""))
    return match[1] if match else ""


def _nodata_pct(props: Mapping[str, Any]) -> float:
    stated = _number(props, "s2:nodata_pixel_percentage")
    if not math.isnan(stated):
        return stated
    statistics = props.get("statistics")
    if isinstance(statistics, Mapping) and "nodata" in statistics:
        return float(statistics["nodata"])
    return _less(100.0, _number(props, "sentinel:data_coverage", "data_coverage"))


def _refined(props: Mapping[str, Any]) -> bool | None:
    value = _first(props, "eoray:refined", "s2:geometric_refinement")
    if isinstance(value, str):
        return {"REFINED": True, "NOT_REFINED": False}.get(value.upper())
    return None if value is None else bool(value)


def _sun_zenith(props: Mapping[str, Any]) -> float:
    stated = _number(props, "s2:mean_solar_zenith")
    return _less(90.0, _number(props, "view:sun_elevation")) if math.isnan(stated) else stated


def _view_zenith(props: Mapping[str, Any], azimuth: float) -> float:
    """Earth Search v0 writes ``view:off_nadir: 0`` everywhere: believed with an azimuth only."""
    stated = _number(props, "view:incidence_angle")
    if math.isnan(stated) and not math.isnan(azimuth):
        return _number(props, "view:off_nadir")
    return stated
