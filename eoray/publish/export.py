"""Cut a window out of any product of the cube: a GeoTIFF that GDAL opens, or a plain Zarr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.layout import group_path
from eoray.cube.plain import write_plain
from eoray.cube.read import CubeSource, open_reader
from eoray.errors import ConfigError, StoreError
from eoray.grid import PixelWindow, Zone, from_lonlat, lattice_of
from eoray.publish.cog import BandInfo, Block, RasterInfo, write_cog
from eoray.publish.groups import published_grid
from eoray.sentinel2 import COMMON_NAMES, FILL, SCALE, resolve_bands
from eoray.timeline import DateRange

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader, TimeTable

STRIP_PX = 1024
"""Rows read at once: the height of one shard at 10 m."""


def export_window(
    source: CubeSource | str,
    product: str,
    out_url: str,
    *,
    bbox: tuple[float, float, float, float],
    zone: Zone | None = None,
    time: DateRange | None = None,
    bands: Sequence[str] | None = None,
    resolution_m: int | None = None,
) -> str:
    """Write a window of a product as one GeoTIFF.

    Reflectance (scenes, composites) becomes one band per date and spectral band; any other product
    one band per date and stored layer: name it in ``bands`` (``class``, ``date_est``), or the
    first is taken. The window is that of whole pixels which touch the box; pixels are copied,
    never warped, and a southern window is labelled EPSG:327zz.

    Args:
        source: Store, or its URL.
        product: Such as ``s2`` or ``map-demo``.
        out_url: File to write.
        bbox: (west, south, east, north) in degrees.
        zone: UTM zone; needed where the product stands in more than one.
        time: Days whose entries to take; all when left out.
        bands: Band ids or common names, or names of stored arrays.
        resolution_m: 10 or 20; the finest stored one when left out.

    Returns:
        ``out_url``.

    Raises:
        ConfigError: The box is empty or far from the zone, no entry lies in ``time``, the zone
            must be named, or a band is unknown.
        StoreError: The product is not there, or the file cannot be written.
    """
    reader = open_reader(CubeSource(source) if isinstance(source, str) else source)
    place = _resolve_place(reader, product, zone, resolution_m)
    window = _window_of(bbox, place.zone, place.resolution_m)
    table = _entries(place, time)
    if place.is_spectral and (bands is None or not set(bands) <= set(place.arrays())):
        default = reader.bands(product, place.zone, place.resolution_m)
        default = default or reader.bands(product, place.zone)
        layers = _spectral_layers(place, table, resolve_bands(bands or default))
    else:
        layers = _stored_layers(place, table, bands)
    epsg, transform = published_grid(place.zone, window, place.resolution_m)
    info = RasterInfo(
        epsg=epsg,
        transform=transform,
        height=window.height,
        width=window.width,
        dtype=layers.dtype,
        nodata=layers.nodata,
        bands=layers.infos,
        overviews="NEAREST",
        tags={"product": product, "entries": ",".join(str(key) for key in table.key)},
    )
    write_cog(out_url, info, _strips(layers, window))
    return out_url


def export_zarr(
    source: CubeSource | str,
    product: str,
    out_url: str,
    *,
    bbox: tuple[float, float, float, float],
    zone: Zone | None = None,
    time: DateRange | None = None,
    bands: Sequence[str] | None = None,
    resolution_m: int | None = None,
) -> str:
    """Write a window of a product as plain Zarr v3, with coordinates and all its arrays.

    Values are as stored. ``open_cube`` opens it as it opens the window itself, and so do xarray
    and GDAL, which need no Icechunk for it.

    Args:
        source: Store, or its URL.
        product: Such as ``s2`` or ``map-demo``.
        out_url: Folder or object-store prefix that ends with ``.zarr``.
        bbox: (west, south, east, north) in degrees: the pixels around it, where the product stands.
        zone: UTM zone; needed where the product stands in more than one.
        time: Days whose entries to take; all when left out.
        bands: Band ids or common names, or names of stored arrays.
        resolution_m: 10 or 20; the finest stored one when left out.

    Returns:
        ``out_url``.

    Raises:
        ConfigError: The box lies outside of the product, no entry lies in ``time``, the zone must
            be named, or a band is unknown.
        StoreError: The product is not there, ``out_url`` is, or it cannot be written.
    """
    from eoray.cube.open import open_cube

    source = CubeSource(source) if isinstance(source, str) else source
    place = _resolve_place(open_reader(source), product, zone, resolution_m)
    arrays = {*place.arrays()}
    named = None if bands is None or set(bands) <= arrays else bands
    dataset = open_cube(
        source.url,
        place.resolution_m,
        product=product,
        zone=place.zone,
        aoi=bbox,
        time=None if time is None else str(time),
        bands=named,
        snapshot=source.snapshot,
    )
    if bands is not None and named is None:
        dataset = dataset[[*bands]]
    about = {"product": product, "zone": place.zone, "resolution_m": place.resolution_m}
    return write_plain(
        dataset.assign_attrs({f"eoray:{key}": value for key, value in about.items()}), out_url
    )


@dataclass(frozen=True, slots=True)
class _Layers:
    """What is exported: what its bands mean, and how to read a window of them."""

    dtype: str
    nodata: float
    infos: tuple[BandInfo, ...]
    read: Callable[[PixelWindow], np.ndarray]
    """Pixels of a window, dims (band, y, x)."""


def _spectral_layers(place: _Place, table: TimeTable, bands: Sequence[str]) -> _Layers:
    def read(window: PixelWindow) -> np.ndarray:
        values = place.reader.read_bands(
            place.product,
            place.zone,
            bands=bands,
            window=window,
            resolution_m=place.resolution_m,
            index=table.index,
        )
        return values.reshape(-1, window.height, window.width)

    infos = tuple(
        BandInfo(f"{key} {band}", f"surface reflectance, {COMMON_NAMES[band]}, {key}", "1", SCALE)
        for key in table.key
        for band in bands
    )
    return _Layers("int16", FILL, infos, read)


def _stored_layers(place: _Place, table: TimeTable, names: Sequence[str] | None) -> _Layers:
    arrays = place.arrays()
    chosen = list(names) if names else [_first(arrays)]
    unknown = [name for name in chosen if name not in arrays]
    kinds = {arrays[name].dtype.name for name in chosen if name in arrays}
    if unknown or len(kinds) > 1:
        raise ConfigError(
            f"{chosen} of {place.product!r} at {place.resolution_m} m cannot share one file: "
            + (f"{unknown} is not stored" if unknown else f"their types are {sorted(kinds)}")
            + f"; export one of {', '.join(sorted(arrays))} at a time"
        )
    has_time = arrays[chosen[0]].metadata.dimension_names[0] == "time"

    def read(window: PixelWindow) -> np.ndarray:
        index = table.index if has_time else None
        parts = [
            place.reader.read(
                place.product,
                place.zone,
                name,
                window=window,
                resolution_m=place.resolution_m,
                index=index,
            ).reshape(-1, window.height, window.width)
            for name in chosen
        ]
        return np.concatenate(parts)

    infos = tuple(
        info for name in chosen for info in _infos(name, arrays[name], table, has_time=has_time)
    )
    nodata = np.asarray(arrays[chosen[0]].fill_value).item()  # not a number for deviations
    return _Layers(kinds.pop(), nodata, infos, read)


def _infos(name: str, array: Any, table: TimeTable, *, has_time: bool) -> list[BandInfo]:
    lead = array.metadata.dimension_names[1 if has_time else 0 : -2]
    sizes = array.shape[1 if has_time else 0 : -2]
    text = str(array.attrs.get("long_name", name))
    scale = float(array.attrs.get("scale_factor", 1.0))
    unit = str(array.attrs.get("units", ""))
    steps = [f"{key} " for key in table.key] if has_time else [""]
    return [
        BandInfo(
            step + " ".join([name, *(f"{dim} {i}" for dim, i in zip(lead, at, strict=True))]),
            text,
            unit,
            scale,
        )
        for step in steps
        for at in np.ndindex(*sizes)
    ]


def _first(arrays: Mapping[str, Any]) -> str:
    return next((name for name in ("class", "date_est") if name in arrays), min(arrays))


@dataclass(frozen=True, slots=True)
class _Place:
    """One product in one zone at one resolution."""

    reader: CubeReader
    product: str
    zone: Zone
    resolution_m: int

    @property
    def is_spectral(self) -> bool:
        """True for scenes and composites, whose bands can be read at any resolution."""
        levels = lattice_of(self.zone).levels
        paths = (group_path(self.product, self.zone, resolution_m) for resolution_m in levels)
        return any(f"{path}/reflectance" in self.reader.root for path in paths)

    def arrays(self) -> dict[str, Any]:
        """Stored arrays over (y, x), by name; none where the resolution is not stored."""
        path = group_path(self.product, self.zone, self.resolution_m)
        if path not in self.reader.root:
            return {}
        group: Any = self.reader.root[path]
        return {
            name: array
            for name, array in group.arrays()
            if tuple(array.metadata.dimension_names or ())[-2:] == ("y", "x")
        }


def _resolve_place(
    reader: CubeReader, product: str, zone: Zone | None, resolution_m: int | None
) -> _Place:
    zones = reader.zones(product)
    if not zones:
        raise StoreError(
            f"{reader.source.url!r} holds no product {product!r}, only "
            f"{', '.join(reader.products()) or 'nothing'}; name one of these"
        )
    if zone is None and len(zones) > 1:
        raise ConfigError(
            f"{product!r} stands in zones {zones}; say which with zone={zones[0]} "
            "(one GeoTIFF has one CRS)"
        )
    zone = zones[0] if zone is None else zone
    if zone not in zones:
        raise ConfigError(f"{product!r} does not stand in zone {zone}; take one of {zones}")
    stored = reader.resolutions(product, zone)
    place = _Place(reader, product, zone, resolution_m or stored[0])
    known = lattice_of(zone).levels if place.is_spectral else stored
    if place.resolution_m not in known:
        raise ConfigError(f"{product!r} is not stored at {resolution_m} m; take one of {stored}")
    return place


def _window_of(
    bbox: tuple[float, float, float, float], zone: Zone, resolution_m: int
) -> PixelWindow:
    """Pixels of a zone that a lon/lat box touches."""
    west, south, east, north = bbox
    if not (west < east and south < north):
        raise ConfigError(
            f"bbox {list(bbox)} is empty; write west, south, east, north in degrees, and cut a box "
            "at the antimeridian in two"
        )
    lattice = lattice_of(zone)
    bounds = from_lonlat(lattice.epsg).transform_bounds(west, south, east, north)
    left, _, right, _ = lattice.bounds(0, 0, lattice.n_rows, lattice.n_cols)
    if not (math.isfinite(sum(bounds)) and bounds[2] > left and bounds[0] < right):
        where = f"UTM zone {zone}; choose another zone" if lattice.overlaps else lattice.label
        raise ConfigError(f"bbox {list(bbox)} lies far from {where}")
    top, left, bottom, right = lattice.box(bounds, resolution_m)
    return PixelWindow(top, left, bottom - top, right - left)


def _entries(place: _Place, time: DateRange | None) -> TimeTable:
    table = place.reader.entries(place.product, place.zone)
    if time is not None:
        start, end = time.bounds
        table = table.between(start.replace(tzinfo=None), end.replace(tzinfo=None))
    if len(table) == 0:
        raise ConfigError(
            f"{place.product!r} has no entry in zone {place.zone}"
            + (f" within {time}" if time else "")
            + "; choose other days, or run the stage that makes it"
        )
    return table


def _strips(layers: _Layers, window: PixelWindow) -> Iterator[Block]:
    """Read the window in strips of whole shards, so that memory does not grow with its height."""
    first = window.row_off - window.row_off % STRIP_PX
    for top in range(first, window.row_off + window.height, STRIP_PX):
        begin = max(top, window.row_off)
        end = min(top + STRIP_PX, window.row_off + window.height)
        strip = PixelWindow(begin, window.col_off, end - begin, window.width)
        yield begin - window.row_off, 0, layers.read(strip)
