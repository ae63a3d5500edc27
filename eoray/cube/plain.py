"""Plain Zarr: a window of a product for programs that know neither Icechunk nor shards.

One group with the coordinates of the window, chunks of one date, and no commits: it is a copy to
hand on, and not where runs write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray import storage
from eoray.errors import ConfigError, StoreError
from eoray.grid import from_lonlat

if TYPE_CHECKING:
    import xarray as xr
    from shapely.geometry.base import BaseGeometry

SUFFIX = ".zarr"

_CHUNK_PX = 512
_META = "zarr.json"


def is_plain(url: str) -> bool:
    """Tell by its name whether a URL is a plain Zarr."""
    return url.rstrip("/").endswith(SUFFIX)


def write_plain(dataset: xr.Dataset, url: str) -> str:
    """Write what ``open_cube`` gave, values as stored, in Zarr v3 without shards.

    Args:
        dataset: Of ``open_cube``, not decoded; read chunk by chunk.
        url: Ends with ``.zarr``; a folder, s3://, gs:// or az://.

    Returns:
        ``url``.

    Raises:
        StoreError: Something stands there already, or it cannot be written.
    """
    from zarr.codecs import BloscCodec

    if storage.exists(storage.join(url, _META)):
        raise StoreError(f"{url!r} exists; delete it first, or name another place")
    dataset = dataset.copy()
    chunks = {d: min(_CHUNK_PX, n) if d in ("y", "x") else n for d, n in dataset.sizes.items()}
    chunks |= {"time": 1} if "time" in chunks else {}
    packed = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        kept = ("units", "calendar", "dtype", "fill_value")
        variable.encoding = {k: v for k, v in variable.encoding.items() if k in kept}
        if variable.dims[-2:] == ("y", "x"):
            shape = tuple(chunks[str(d)] for d in variable.dims)
            encoding[str(name)] = {"chunks": shape, "compressors": packed}
        elif variable.dtype.kind == "f":
            encoding[str(name)] = {"_FillValue": None}  # coordinates have no holes
    pixels = {str(d): chunks[str(d)] for d in dataset.dims if d in ("time", "y", "x")}
    try:
        dataset.chunk(pixels).to_zarr(
            _zarr_store(url), mode="w-", zarr_format=3, consolidated=False, encoding=encoding
        )
    except OSError as error:
        raise StoreError(
            f"{url!r} cannot be written ({' '.join(str(error).split())[:200]}); free space or mend "
            "the rights, delete what was begun, and export again"
        ) from error
    return url


def open_plain(
    url: str,
    geometry: BaseGeometry | None = None,
    resolution_m: int | None = None,
    bands: Sequence[str] | None = None,
) -> xr.Dataset:
    """Open what ``write_plain`` wrote; see ``open_cube``.

    Raises:
        StoreError: There is none, or it has another pixel.
        ConfigError: A band that it does not hold, or a place outside of it.
    """
    import xarray as xr

    from eoray.cube import accessor

    accessor.register()
    if not storage.exists(storage.join(url, _META)):
        raise StoreError(f"no Zarr at {url!r}; name the folder that holds its {_META}")
    dataset = xr.open_zarr(_zarr_store(url), chunks=None, consolidated=False, mask_and_scale=False)
    if "spatial_ref" not in dataset.variables or not {"y", "x"} <= {*dataset.dims}:
        raise StoreError(
            f"{url!r} is not of eoray's making: it lacks y, x or spatial_ref; open it with "
            "xarray.open_zarr"
        )
    beside = [n for n, v in dataset.data_vars.items() if v.dims[-2:] != ("y", "x")]
    dataset = dataset.set_coords(beside)
    step = dataset.attrs["spatial:transform"][0]
    if resolution_m is not None and resolution_m != dataset.attrs.get("eoray:resolution_m"):
        raise StoreError(f"{url!r} has pixels of {step:g}, not {resolution_m}; leave that out")
    if geometry is not None:
        dataset = _around(dataset, geometry, float(step), url)
    return dataset if bands is None else _with_bands(dataset, bands, url)


def _around(dataset: xr.Dataset, geometry: BaseGeometry, step: float, url: str) -> xr.Dataset:
    """Keep the pixels that touch the rectangle around a geometry in lon/lat."""
    import shapely

    project = from_lonlat(int(dataset.attrs["proj:code"].removeprefix("EPSG:"))).transform
    x, y = project(*shapely.get_coordinates(shapely.segmentize(geometry, 0.01)).T)
    near = step / 2
    keep_x = (dataset.x.values > np.min(x) - near) & (dataset.x.values < np.max(x) + near)
    keep_y = (dataset.y.values > np.min(y) - near) & (dataset.y.values < np.max(y) + near)
    if not (keep_x.any() and keep_y.any()):
        raise ConfigError(f"the aoi lies outside of {url!r}; choose another place")
    return dataset.isel(y=keep_y, x=keep_x)


def _with_bands(dataset: xr.Dataset, bands: Sequence[str], url: str) -> xr.Dataset:
    held = [str(b) for b in dataset.band.values] if "band" in dataset.coords else []
    missing = [b for b in bands if b not in held]
    if missing:
        raise ConfigError(
            f"band {missing[0]} is not in {url!r}, which holds {', '.join(held) or 'no bands'}"
        )
    return dataset.sel(band=list(bands))


def _zarr_store(url: str) -> Any:
    if storage.is_local(url):
        return str(storage.local_path(url))
    from zarr.storage import ObjectStore

    return ObjectStore(storage.object_store(url))
