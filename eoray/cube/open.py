"""Open a product as an ordinary xarray Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eoray.cube.layout import group_path
from eoray.cube.read import CubeReader, CubeSource
from eoray.cube.scenes import PRODUCT
from eoray.errors import ConfigError, StoreError
from eoray.sentinel2 import resolve_bands

if TYPE_CHECKING:
    import xarray as xr


def open_cube(
    url: str,
    resolution_m: int = 10,
    *,
    product: str = PRODUCT,
    zone: int | None = None,
    bands: Sequence[str] | None = None,
    decode: bool = False,
    snapshot: str | None = None,
) -> xr.Dataset:
    """Open a cube lazily.

    Args:
        url: The repository (``.../cube.icechunk``) or the store folder around it.
        resolution_m: 10 or 20: the native bands of that pixel.
        product: ``s2`` (one entry per datatake), a composite, a map or a change product.
        zone: UTM zone; needed where the store holds several.
        bands: Some of the native bands, by id or common name.
        decode: Turn stored integers into float32 reflectance with NaN.
        snapshot: An earlier state of the store.

    Returns:
        ``reflectance`` with dims (time, band, y, x), sorted by time, cut to the tiles that hold
        data; as stored (int16, ``_FillValue`` and ``scale_factor`` in attrs) unless decoded.
        Nothing is read before it is used; ``.chunk()`` after a selection makes it a dask array.

    Raises:
        StoreError: No such cube, product or resolution.
        ConfigError: Several zones and none named, or a band that is not stored.
    """
    import xarray as xr

    reader = CubeReader(CubeSource(url, snapshot))
    found = _resolve_zone(reader, product, zone)
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
    dataset = _cut(reader, dataset, product, found, resolution_m)
    if "time" in dataset.dims:
        dataset = dataset.sortby("time")
    for name, variable in dataset.variables.items():
        if variable.dims == ("time",) and name != "time":
            dataset = dataset.set_coords(name)
    if decode:
        dataset = _decode(dataset)
    if bands is not None:
        dataset = _select_bands(dataset, resolve_bands(bands), resolution_m)
    return dataset


def _resolve_zone(reader: CubeReader, product: str, zone: int | None) -> int:
    zones = reader.zones(product)
    if not zones:
        reader.attrs(product)  # names what the store holds
    if zone is None and len(zones) == 1:
        return zones[0]
    if zone not in zones:
        named = f"zone {zone} is not among them" if zone is not None else "name one with zone="
        raise ConfigError(
            f"product {product!r} stands in UTM zones {', '.join(map(str, zones))}; {named}"
        )
    return zone


def _cut(
    reader: CubeReader, dataset: xr.Dataset, product: str, zone: int, resolution_m: int
) -> xr.Dataset:
    """Keep the rectangle around the tiles that hold data; a whole zone is 100 000 px wide."""
    tiles = [tile for tile in reader.tiles(product) if tile.zone == zone]
    if not tiles:
        return dataset.isel(y=slice(0, 0), x=slice(0, 0))
    windows = [tile.window(resolution_m) for tile in tiles]
    top, left = min(w.row_off for w in windows), min(w.col_off for w in windows)
    bottom = max(w.row_off + w.height for w in windows)
    right = max(w.col_off + w.width for w in windows)
    cut = dataset.isel(y=slice(top, bottom), x=slice(left, right))
    transform = f"{left * resolution_m} {resolution_m} 0 {float(cut.y[0]) + resolution_m / 2} 0 "
    cut.spatial_ref.attrs["GeoTransform"] = transform + str(-resolution_m)
    return cut


def _decode(dataset: xr.Dataset) -> xr.Dataset:
    """Decode lazily; a float32 scale keeps the result float32 (CF takes the type of the scale)."""
    import xarray as xr

    for variable in dataset.data_vars.values():
        if "scale_factor" in variable.attrs:
            variable.attrs["scale_factor"] = np.float32(variable.attrs["scale_factor"])
    return xr.decode_cf(dataset, decode_times=False, decode_coords=False)


def _select_bands(dataset: xr.Dataset, bands: Sequence[str], resolution_m: int) -> xr.Dataset:
    stored = [str(b) for b in dataset.band.values]
    missing = [b for b in bands if b not in stored]
    if missing:
        raise ConfigError(
            f"band {missing[0]} is not stored at {resolution_m} m, which holds "
            f"{', '.join(stored)}; open the other resolution"
        )
    return dataset.sel(band=list(bands))
