"""Open a product as an ordinary xarray Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.layout import group_path
from eoray.cube.read import CubeReader, CubeSource
from eoray.cube.scenes import PRODUCT
from eoray.errors import ConfigError, StoreError
from eoray.grid import (
    Lattice,
    PixelWindow,
    Zone,
    box_lonlat,
    from_lonlat,
    lattice_of,
    tiles_of_geometry,
)
from eoray.sentinel2 import resolve_bands
from eoray.timeline import DateRange

if TYPE_CHECKING:
    import xarray as xr
    from shapely.geometry.base import BaseGeometry


def open_cube(  # noqa: PLR0913 - the one door to a cube, and every selection has a name
    url: str,
    resolution_m: int | None = None,
    *,
    product: str = PRODUCT,
    zone: Zone | None = None,
    aoi: Sequence[float] | BaseGeometry | None = None,
    time: str | None = None,
    bands: Sequence[str] | None = None,
    decode: bool = False,
    snapshot: str | None = None,
) -> xr.Dataset:
    """Open a cube lazily.

    Args:
        url: The repository (``.../cube.icechunk``) or the store folder around it.
        resolution_m: 10 (where none is given) or 20: the lattice, and which bands come when none
            are named. A user's grid has one pixel, which need not be named.
        product: ``s2`` (one entry per datatake), a composite, a map or a change product.
        zone: UTM zone; needed where the store holds several there. On a user's grid there is none.
        aoi: [west, south, east, north] in degrees (west > east crosses the antimeridian) or a
            geometry in lon/lat: the rectangle of pixels around it is kept.
        time: Days such as ``2021-03-01/2021-05-31``, both included.
        bands: Bands by id or common name, in the order wanted. Those of the other native pixel
            are resampled when they are read: 20 to 10 m bilinear over valid pixels, 10 to 20 m
            the mean of at least three.
        decode: Turn stored integers into float32 reflectance with NaN.
        snapshot: An earlier state of the store.

    Returns:
        ``reflectance`` with dims (time, band, y, x), sorted by time, cut to the tiles that hold
        data; as stored (int16, ``_FillValue`` and ``scale_factor`` in attrs) unless decoded.
        Composites of other kinds hold ``p10`` ... ``p90`` or counts alone, and ``time_bnds``
        (time, bnds) from the first day of each period to the day after its last.
        Nothing is read before it is used; ``.chunk()`` after a selection makes it a dask array.
        Quality and masks stay those of ``resolution_m``.

    Raises:
        StoreError: No such cube, product or resolution.
        ConfigError: Several zones and none named, a band that is not stored, or an ``aoi`` or
            ``time`` that holds nothing of the product.
    """
    import xarray as xr

    reader = CubeReader(CubeSource(url, snapshot))
    geometry = _geometry(aoi)
    found = _resolve_zone(reader, product, zone, geometry)
    lattice = lattice_of(found)
    resolution_m = lattice.levels[0] if resolution_m is None else resolution_m
    if resolution_m not in reader.resolutions(product, found):
        raise StoreError(
            f"product {product!r} in zone {found} is stored at "
            f"{reader.resolutions(product, found)} m, not at {resolution_m}; name one of these"
        )
    dataset = xr.open_zarr(
        reader.root.store,
        group=group_path(product, found, resolution_m),
        chunks=None,
        consolidated=False,
        mask_and_scale=False,
    )
    window = _window(reader, product, found, resolution_m, geometry)
    dataset = _cut(dataset, window, lattice, resolution_m)
    positions = None
    if "time" in dataset.dims:
        positions = np.argsort(dataset.time.values, kind="stable")
        positions = positions[_during(dataset.time.values[positions], time)]
        dataset = dataset.isel(time=positions)
    elif time is not None:
        raise ConfigError(f"product {product!r} has no time; open it without time=")
    for name, variable in dataset.variables.items():
        if variable.dims == ("time",) and name != "time":
            dataset = dataset.set_coords(name)
    if "period_end" in dataset.coords and product != PRODUCT:
        dataset = _with_bounds(dataset)
    if bands is not None:
        view = _View(reader, product, found, resolution_m, window, positions)
        dataset = _select_bands(dataset, resolve_bands(bands), view)
    return _decode(dataset) if decode else dataset


def _with_bounds(dataset: xr.Dataset) -> xr.Dataset:
    """Say by CF's rule where each period begins and ends; the end is no part of it."""
    ends = np.array(dataset.period_end.values, "datetime64[D]").astype(dataset.time.dtype)
    dataset.time.attrs["bounds"] = "time_bnds"
    bounds = np.stack([dataset.time.values, ends], axis=-1)
    return dataset.assign_coords(time_bnds=(("time", "bnds"), bounds))


@dataclass(frozen=True, slots=True)
class _View:
    """What of a product a dataset shows."""

    reader: CubeReader
    product: str
    zone: Zone
    resolution_m: int
    window: PixelWindow
    positions: np.ndarray | None


def _geometry(aoi: Sequence[float] | BaseGeometry | None) -> BaseGeometry | None:
    if aoi is None or hasattr(aoi, "geom_type"):
        return aoi
    values = [float(value) for value in aoi]
    if len(values) != 4 or values[1] >= values[3]:
        raise ConfigError(
            f"aoi {values} is no box; give [west, south, east, north] in degrees or a geometry"
        )
    return box_lonlat(*values)


def _during(times: np.ndarray, days: str | None) -> np.ndarray:
    """True on the wanted days."""
    if days is None:
        return np.ones(len(times), bool)
    wanted = DateRange.parse(days)
    low, high = (np.datetime64(moment.replace(tzinfo=None), "ms") for moment in wanted.bounds)
    keep = (times >= low) & (times < high)
    if len(times) and not keep.any():
        first, last = (str(t.astype("datetime64[D]")) for t in (times.min(), times.max()))
        raise ConfigError(f"nothing in {days}; the product reaches from {first} to {last}")
    return np.asarray(keep)


def _resolve_zone(
    reader: CubeReader, product: str, zone: Zone | None, geometry: BaseGeometry | None
) -> Zone:
    zones = reader.zones(product)
    if not zones:
        reader.attrs(product)  # names what the store holds
    if zone is None and len(zones) > 1 and geometry is not None:
        there = {tile.zone for tile in tiles_of_geometry(geometry)} & set(zones)
        zones = sorted(there) or zones
    if zone is None and len(zones) == 1:
        return zones[0]
    if zone is None or zone not in zones:
        named = f"zone {zone} is not among them" if zone is not None else "name one with zone="
        where = "in UTM zones" if not zones or lattice_of(zones[0]).overlaps else "on grid"
        raise ConfigError(
            f"product {product!r} stands {where} {', '.join(map(str, zones))}; {named}"
        )
    return zone


def _window(
    reader: CubeReader, product: str, zone: Zone, resolution_m: int, geometry: BaseGeometry | None
) -> PixelWindow:
    """The rectangle around the tiles that hold data, and within it around a geometry."""
    tiles = [tile for tile in reader.tiles(product) if tile.zone == zone]
    windows = [tile.window(resolution_m) for tile in tiles]
    if not windows:
        return PixelWindow(0, 0, 0, 0)
    edges = [(w.row_off, w.col_off, w.row_off + w.height, w.col_off + w.width) for w in windows]
    top, left, bottom, right = (
        pick(side)
        for pick, side in zip((min, min, max, max), zip(*edges, strict=True), strict=True)
    )
    if geometry is not None:
        bounds = _bounds_in_zone(geometry, zone)
        box = lattice_of(zone).box(bounds, resolution_m)
        top, left = max(top, box[0]), max(left, box[1])
        bottom, right = min(bottom, box[2]), min(right, box[3])
        if top >= bottom or left >= right:
            raise ConfigError(
                f"the aoi lies outside of product {product!r} in zone {zone}, which holds "
                f"{len(tiles)} tiles from {tiles[0].id} to {tiles[-1].id}; choose another place "
                "or zone="
            )
    return PixelWindow(top, left, bottom - top, right - left)


def _bounds_in_zone(geometry: BaseGeometry, zone: Zone) -> tuple[float, float, float, float]:
    """(x min, y min, x max, y max) in the CRS of the zone."""
    import shapely

    project = from_lonlat(lattice_of(zone).epsg).transform
    dense = shapely.segmentize(geometry, 0.01)
    moved = shapely.transform(dense, lambda xy: np.stack(project(*xy.T), axis=1))
    x0, y0, x1, y1 = shapely.bounds(moved)
    return float(x0), float(y0), float(x1), float(y1)


def _cut(
    dataset: xr.Dataset, window: PixelWindow, lattice: Lattice, resolution_m: int
) -> xr.Dataset:
    """Keep a window; a whole zone is 100 000 px wide."""
    top, left = window.row_off, window.col_off
    rows, cols = slice(top, top + window.height), slice(left, left + window.width)
    cut = dataset.isel(y=rows, x=cols)
    if not window.height:
        return cut
    pixel = lattice.pixel(resolution_m)
    transform = f"{lattice.x + left * pixel} {pixel} 0 {float(cut.y[0]) + pixel / 2} 0 {-pixel}"
    cut.spatial_ref.attrs["GeoTransform"] = transform
    return cut


def _decode(dataset: xr.Dataset) -> xr.Dataset:
    """Decode lazily; a float32 scale keeps the result float32 (CF takes the type of the scale)."""
    import xarray as xr

    for variable in dataset.data_vars.values():
        if "scale_factor" in variable.attrs:
            variable.attrs["scale_factor"] = np.float32(variable.attrs["scale_factor"])
    return xr.decode_cf(dataset, decode_times=False, decode_coords=False)


def _select_bands(dataset: xr.Dataset, bands: Sequence[str], view: _View) -> xr.Dataset:
    """Keep bands, resampling those of the other native pixel when they are read."""
    stored = [str(b) for b in dataset.band.values] if "band" in dataset.coords else []
    known = view.reader.bands(view.product, view.zone)
    missing = [b for b in bands if b not in known]
    if missing:
        raise ConfigError(
            f"band {missing[0]} is not stored; product {view.product!r} in zone {view.zone} "
            f"holds {', '.join(known) or 'no bands'}"
        )
    if set(bands) <= set(stored):
        return dataset.sel(band=list(bands))
    if "reflectance" not in dataset:
        raise ConfigError(
            f"product {view.product!r} holds no reflectance that could be resampled, and at "
            f"{view.resolution_m} m only {', '.join(stored)}; name bands of one native pixel, or "
            "open it at the other resolution"
        )
    return _join_resolutions(dataset, bands, view)


def _join_resolutions(dataset: xr.Dataset, bands: Sequence[str], view: _View) -> xr.Dataset:
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    from eoray.cube.lazy import BandsView, LazyBands

    positions = () if view.positions is None else tuple(int(i) for i in view.positions)
    lazy = LazyBands(
        BandsView(
            view.reader,
            view.product,
            view.zone,
            tuple(bands),
            view.resolution_m,
            positions,
            view.window,
        )
    )
    plain = dataset.drop_dims("band")
    old = dataset.reflectance
    data = xr.Variable(old.dims, LazilyIndexedArray(lazy), old.attrs, old.encoding)
    joined = plain.assign(reflectance=data)
    return joined.assign_coords(band=list(bands), **_band_coordinates(dataset, bands, view))


def _band_coordinates(dataset: xr.Dataset, bands: Sequence[str], view: _View) -> dict[str, Any]:
    """Coordinates along band, from the groups of both native pixels."""
    named: dict[str, dict[str, Any]] = {}
    for resolution_m in view.reader.resolutions(view.product, view.zone):
        group = view.reader.root[group_path(view.product, view.zone, resolution_m)]
        ids = [str(b) for b in group["band"][:]] if "band" in group else []
        for name, array in group.arrays():
            if array.metadata.dimension_names == ("band",) and name != "band":
                named.setdefault(name, {}).update(zip(ids, array[:], strict=True))
    return {
        name: ("band", np.array([values[b] for b in bands]), dataset[name].attrs)
        for name, values in named.items()
        if name in dataset.variables and set(bands) <= set(values)
    }
