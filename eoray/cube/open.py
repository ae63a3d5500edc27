"""Open a product as an ordinary xarray Dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.layout import group_path
from eoray.cube.plain import is_plain, open_plain
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
    split_antimeridian,
    tiles_of_geometry,
)
from eoray.sentinel2 import WAVELENGTHS_UM, resolve_bands
from eoray.timeline import DateRange

if TYPE_CHECKING:
    import xarray as xr
    from shapely.geometry.base import BaseGeometry

    from eoray.cube.lazy import BandsView


COARSE_LAYERS = ("scl", "mask")
"""What scenes have at the coarsest level only."""


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
    nbar: bool = False,
    snapshot: str | None = None,
) -> xr.Dataset:
    """Open a cube lazily.

    Args:
        url: The repository (``.../cube.icechunk``) or the store folder around it; or the plain
            Zarr of a window (``.zarr``, by ``eoray export``), which holds one product.
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
        nbar: Take reflectance of ``s2`` to the nadir view when it is read (c-factor).
        snapshot: An earlier state of the store.

    Returns:
        ``reflectance`` with dims (time, band, y, x), sorted by time, cut to the tiles that hold
        data; as stored (int16, ``_FillValue`` and ``scale_factor`` in attrs) unless decoded.
        Composites of other kinds hold ``p10`` ... ``p90`` or counts alone, and ``time_bnds``
        (time, bnds) from the first day of each period to the day after its last.
        Nothing is read before it is used; ``.chunk()`` after a selection makes it a dask array.
        Quality stays that of ``resolution_m``; scene classes and masks are repeated at 10 m.
        ``ds.eoray`` gives bands by name, reflectance, clear pixels and spectral indices.

    Raises:
        StoreError: No such cube, product or resolution.
        ConfigError: Several zones and none named, a band that is not stored, an ``aoi`` or
            ``time`` that holds nothing of the product, or ``nbar`` where it is not known how.
    """
    if is_plain(url):
        if nbar or snapshot is not None:
            raise ConfigError(
                f"{url!r} is a copy of a window, with neither angles nor history; open the cube "
                "itself with nbar or snapshot"
            )
        return _open_copy(url, resolution_m, to_geometry(aoi), time, bands, decode=decode)
    if nbar and product != PRODUCT:
        raise ConfigError(
            f"product {product!r} has no view of its own; open {PRODUCT!r} with nbar, or make "
            "composites of it with cube.nbar: true"
        )
    reader = CubeReader(CubeSource(url, snapshot))
    geometry = to_geometry(aoi)
    found = _resolve_zone(reader, product, zone, geometry)
    lattice = lattice_of(found)
    resolution_m = lattice.levels[0] if resolution_m is None else resolution_m
    if resolution_m not in reader.resolutions(product, found):
        raise StoreError(
            f"product {product!r} in zone {found} is stored at "
            f"{reader.resolutions(product, found)} m, not at {resolution_m}; name one of these"
        )
    window = _window(reader, product, found, resolution_m, geometry)
    dataset = open_arrays(reader.root.store, product, found, resolution_m, window)
    positions: np.ndarray = np.zeros(0, int)
    if "time" in dataset.dims:
        positions = np.argsort(dataset.time.values, kind="stable")
        positions = positions[during(dataset.time.values[positions], time)]
        dataset = dataset.isel(time=positions)
    elif time is not None:
        raise ConfigError(f"product {product!r} has no time; open it without time=")
    if "period_end" in dataset.coords and product != PRODUCT:
        dataset = _with_bounds(dataset)
    if "time" in dataset.dims:
        from eoray.cube.lazy import BandsView

        shown = tuple(int(i) for i in positions)
        view = BandsView(reader, product, found, (), resolution_m, shown, window)
        dataset = _repeat_layers(dataset, reader, view)
        if nbar:
            dataset = _to_nadir(dataset, bands, reader, view)
        elif bands is not None:
            dataset = _select_bands(dataset, resolve_bands(bands), reader, view)
    return decode_integers(dataset) if decode else dataset


def _open_copy(
    url: str,
    resolution_m: int | None,
    geometry: BaseGeometry | None,
    time: str | None,
    bands: Sequence[str] | None,
    *,
    decode: bool,
) -> xr.Dataset:
    """Open a plain Zarr as the window was that it was made of."""
    dataset = open_plain(url, geometry, resolution_m, resolve_bands(bands) if bands else None)
    if "time" in dataset.dims:
        dataset = dataset.isel(time=during(dataset.time.values, time, url))
    elif time is not None:
        raise ConfigError(f"{url!r} has no time; open it without time=")
    return decode_integers(dataset) if decode else dataset


def open_arrays(
    store: Any, product: str, zone: Zone, resolution_m: int, window: PixelWindow
) -> xr.Dataset:
    """Open the arrays of one group as they are stored, cut to a window, with all coordinates.

    Args:
        store: A Zarr store.
        product: Product name.
        zone: Zone of the group.
        resolution_m: Level of the group.
        window: Pixels of that level to keep.
    """
    import xarray as xr

    from eoray.cube import accessor

    accessor.register()
    dataset = xr.open_zarr(
        store,
        group=group_path(product, zone, resolution_m),
        chunks=None,
        consolidated=False,
        mask_and_scale=False,
    )
    dataset = _cut(dataset, window, lattice_of(zone), resolution_m)
    along_time = [n for n, v in dataset.data_vars.items() if v.dims == ("time",)]
    return dataset.set_coords(along_time)


def _with_bounds(dataset: xr.Dataset) -> xr.Dataset:
    """Say by CF's rule where each period begins and ends; the end is no part of it."""
    ends = np.array(dataset.period_end.values, "datetime64[D]").astype(dataset.time.dtype)
    dataset.time.attrs["bounds"] = "time_bnds"
    bounds = np.stack([dataset.time.values, ends], axis=-1)
    return dataset.assign_coords(time_bnds=(("time", "bnds"), bounds))


def to_geometry(aoi: Sequence[float] | BaseGeometry | None) -> BaseGeometry | None:
    """Bring an ``aoi`` of a Python call to a geometry within -180..180.

    Raises:
        ConfigError: It is neither a geometry nor [west, south, east, north].
    """
    if aoi is None:
        return None
    if hasattr(aoi, "geom_type"):
        return split_antimeridian(aoi)
    values = [float(value) for value in aoi]
    if len(values) != 4 or values[1] >= values[3]:
        raise ConfigError(
            f"aoi {values} is no box; give [west, south, east, north] in degrees or a geometry"
        )
    return box_lonlat(*values)


def during(times: np.ndarray, days: str | None, what: str = "the product") -> np.ndarray:
    """True on the wanted days.

    Raises:
        ConfigError: None of the times lies in them.
    """
    if days is None:
        return np.ones(len(times), bool)
    wanted = DateRange.parse(days)
    low, high = (np.datetime64(moment.replace(tzinfo=None), "ms") for moment in wanted.bounds)
    keep = (times >= low) & (times < high)
    if len(times) and not keep.any():
        first, last = (str(t.astype("datetime64[D]")) for t in (times.min(), times.max()))
        raise ConfigError(f"nothing in {days}; {what} reaches from {first} to {last}")
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
        box = pixels_around(geometry, zone, resolution_m)
        top, left = max(top, box[0]), max(left, box[1])
        bottom, right = min(bottom, box[2]), min(right, box[3])
        if top >= bottom or left >= right:
            raise ConfigError(
                f"the aoi lies outside of product {product!r} in zone {zone}, which holds "
                f"{len(tiles)} tiles from {tiles[0].id} to {tiles[-1].id}; choose another place "
                "or zone="
            )
    return PixelWindow(top, left, bottom - top, right - left)


def pixels_around(
    geometry: BaseGeometry, zone: Zone, resolution_m: int
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the pixels of a zone around a geometry in lon/lat."""
    import shapely

    project = from_lonlat(lattice_of(zone).epsg).transform
    x, y = project(*shapely.get_coordinates(shapely.segmentize(geometry, 0.01)).T)
    there = np.isfinite(x) & np.isfinite(y)  # not on the other side of the earth
    if not there.any():
        return 0, 0, 0, 0
    x, y = x[there], y[there]
    bounds = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    return lattice_of(zone).box(bounds, resolution_m)


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
    west, north = lattice.x + left * pixel, float(cut.y[0]) + pixel / 2
    cut.spatial_ref.attrs["GeoTransform"] = f"{west} {pixel} 0 {north} 0 {-pixel}"
    place = {
        "transform": [pixel, 0, west, 0, -pixel, north],
        "shape": [window.height, window.width],
    }
    return cut.assign_attrs({f"spatial:{key}": value for key, value in place.items()})


def decode_integers(dataset: xr.Dataset) -> xr.Dataset:
    """Decode lazily; a float32 scale keeps the result float32 (CF takes the type of the scale)."""
    import xarray as xr

    dataset = dataset.copy()
    for variable in dataset.data_vars.values():
        if "scale_factor" in variable.attrs:
            variable.attrs["scale_factor"] = np.float32(variable.attrs["scale_factor"])
    return xr.decode_cf(dataset, decode_times=False, decode_coords=False)


def _repeat_layers(dataset: xr.Dataset, reader: CubeReader, view: BandsView) -> xr.Dataset:
    """Add the layers that scenes have at the coarsest level only, repeated when they are read."""
    coarse = lattice_of(view.zone).coarse
    if coarse == view.resolution_m or coarse not in reader.resolutions(view.product, view.zone):
        return dataset
    group = reader.root[group_path(view.product, view.zone, coarse)]
    layers = {n: dict(group[n].attrs) for n in COARSE_LAYERS if n in group}
    return add_layers(dataset, view, layers, coarse)


def add_layers(
    dataset: xr.Dataset, view: BandsView, layers: Mapping[str, dict[str, Any]], level: int
) -> xr.Dataset:
    """Add arrays of dims (time, y, x) that are read when they are used.

    Args:
        dataset: Shows the same window.
        view: What it shows.
        layers: Names and attributes.
        level: Where they are stored; coarser than the view's, they are repeated.
    """
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    from eoray.cube.lazy import LazyLayer

    return dataset.assign(
        {
            name: xr.Variable(
                ("time", "y", "x"),
                LazilyIndexedArray(LazyLayer(view, name, level)),
                {key: value for key, value in attrs.items() if key != "coordinates"},
            )
            for name, attrs in layers.items()
        }
    )


def _select_bands(
    dataset: xr.Dataset, bands: tuple[str, ...], reader: CubeReader, view: BandsView
) -> xr.Dataset:
    """Keep bands, resampling those of the other native pixel when they are read."""
    stored = [str(b) for b in dataset.band.values] if "band" in dataset.coords else []
    known = reader.bands(view.product, view.zone)
    missing = [b for b in bands if b not in known]
    if missing:
        raise ConfigError(
            f"band {missing[0]} is not stored; product {view.product!r} in zone {view.zone} "
            f"holds {', '.join(known) or 'no bands'}"
        )
    if set(bands) <= set(stored):
        chosen = dataset.sel(band=list(bands))
        if "reflectance" in chosen:
            chosen.reflectance.attrs.update(_wavelengths(bands, chosen.reflectance.attrs))
        return chosen
    if "reflectance" not in dataset:
        raise ConfigError(
            f"product {view.product!r} holds no reflectance that could be resampled, and at "
            f"{view.resolution_m} m only {', '.join(stored)}; name bands of one native pixel, or "
            "open it at the other resolution"
        )
    coordinates = _band_coordinates(dataset, bands, reader, view)
    return show_bands(dataset, replace(view, bands=bands)).assign_coords(coordinates)


def _to_nadir(
    dataset: xr.Dataset, bands: Sequence[str] | None, reader: CubeReader, view: BandsView
) -> xr.Dataset:
    """Show bands as seen from straight above."""
    from eoray.cube.nbar import METHOD, check_views, read_views

    views = read_views(reader, view.product, view.zone, view.positions)
    for tile in reader.tiles(view.product):
        if tile.zone == view.zone:
            check_views(views, tile)
    named = tuple(map(str, dataset.band.values)) if bands is None else resolve_bands(bands)
    _select_bands(dataset, named, reader, view)  # names a band that is not stored
    coordinates = _band_coordinates(dataset, named, reader, view)
    shown = show_bands(dataset, replace(view, bands=named, views=views))
    shown.reflectance.attrs["nbar"] = METHOD
    return shown.assign_coords(coordinates)


def show_bands(dataset: xr.Dataset, view: BandsView) -> xr.Dataset:
    """Put the bands of a view, which are read when they are used, in place of those stored."""
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    from eoray.cube.lazy import LazyBands

    old = dataset.reflectance
    attrs = {**old.attrs, **_wavelengths(view.bands, old.attrs)}
    data = xr.Variable(old.dims, LazilyIndexedArray(LazyBands(view)), attrs, old.encoding)
    names = np.array(view.bands, dtype=dataset.band.dtype)
    shown = dataset.drop_dims("band").assign(reflectance=data)
    shown = shown.assign_coords(band=("band", names, dataset.band.attrs))
    return shown[["reflectance", *(name for name in shown.data_vars if name != "reflectance")]]


def _wavelengths(bands: Sequence[str], attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The attribute that follows the bands, where reflectance has it."""
    named = "wavelength_um" in attrs
    return {"wavelength_um": [WAVELENGTHS_UM[b] for b in bands]} if named else {}


def _band_coordinates(
    dataset: xr.Dataset, bands: Sequence[str], reader: CubeReader, view: BandsView
) -> dict[str, Any]:
    """Coordinates along band, from the groups of both native pixels."""
    named: dict[str, dict[str, Any]] = {}
    for resolution_m in reader.resolutions(view.product, view.zone):
        group = reader.root[group_path(view.product, view.zone, resolution_m)]
        ids = [str(b) for b in group["band"][:]] if "band" in group else []
        for name, array in group.arrays():
            if array.metadata.dimension_names == ("band",) and name != "band":
                named.setdefault(name, {}).update(zip(ids, array[:], strict=True))
    return {
        name: ("band", np.array([values[b] for b in bands]), dataset[name].attrs)
        for name, values in named.items()
        if name in dataset.variables and set(bands) <= set(values)
    }
