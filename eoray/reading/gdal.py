"""Read through GDAL what the COG reader does not know: JPEG 2000, other compressions, links.

GDAL's warper serves sources that are finer than the target or lie in no projected CRS.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from eoray.buckets import gdal_options
from eoray.grid import Affine6, Lattice, PixelWindow, Zone, lattice_of
from eoray.reading.requests import Patience
from eoray.reading.rights import Right, forget_right, right_to_read
from eoray.reading.usage import READS, ReadUsage
from eoray.storage import is_local

if TYPE_CHECKING:
    from types import TracebackType

    from rasterio.io import DatasetReader

    from eoray.catalog.scene import BandAsset

IO_THREADS = 8
"""Reads in flight per process: hides latency, decoding is done outside the interpreter lock."""

_TIMEOUT_S = 60.0
"""Of one request, its bytes included."""

TIMEOUTS: dict[str, str] = {
    "GDAL_HTTP_TIMEOUT": f"{_TIMEOUT_S:g}",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
}
"""Options for files of servers; without, GDAL waits for ever."""

_EXTENSIONS = ".tif,.tiff,.jp2,.TIF"

# One small GET at open, merged ranges, no directory listing: 1.7 s instead of 5.9 for 302 MB
# at 30 ms latency.
_OPTIONS: dict[str, str | int] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": _EXTENSIONS,
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    **TIMEOUTS,
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
    "GDAL_CACHEMAX": 256,
    "GDAL_NUM_THREADS": "1",
}

_CELL_PX = 512
"""Edge of what is warped at once, aligned to the zone; it divides tiles at 10 and 20 m."""

_WARP_ERROR_PX = 0.001
"""Error of the interpolated transform: 1e-9 took 15 times as long for at most 5 DN of noise."""


@lru_cache(maxsize=1)
def io_pool() -> ThreadPoolExecutor:
    """Threads that read files, one pool a process.

    Each enters its GDAL environment once and keeps it: few requests, bounded memory. Doing so
    for every read cost more than the read of a small file.
    """
    return ThreadPoolExecutor(IO_THREADS, "eoray-read", initializer=_enter_gdal)


def _enter_gdal() -> None:
    import rasterio

    rasterio.Env(**_OPTIONS).__enter__()


def gdal_place(href: str, patience: Patience | None = None) -> tuple[str, dict[str, str]]:
    """What GDAL calls a file, with the right to read it, and the options that it needs."""
    if _is_object(href):
        # not by its URL: rasterio would bring boto3's session in, and one of its own for Azure
        return "/vsi{}/{}".format(*href.split("://", 1)), gdal_options(href)
    right = right_to_read(href, patience or Patience())
    if right.query:
        return f"{href}?{right.query}", {}
    if not right.header:
        return href, {}
    return href, {
        "GDAL_HTTP_HEADERS": f"Authorization: {right.header}",
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": f"{_EXTENSIONS},$value",  # odata's links end so
        # else a refusal is remembered by the link, whatever the header
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
    }


def _is_object(href: str) -> bool:
    return href.startswith(("s3://", "gs://", "az://"))


def _bucket(href: str) -> AbstractContextManager[object]:
    """How the bucket of an object is reached, for what GDAL does meanwhile."""
    import rasterio

    return rasterio.Env(**gdal_options(href)) if _is_object(href) else nullcontext()


def forget_answers(href: str | None = None) -> None:
    """Have GDAL ask a server anew.

    It remembers by the link, for the life of the process, that a server refused a file, and what
    came of a body that broke off or was wrong.

    Args:
        href: Path or URL, with its signature or without; None for all links.
    """
    from rasterio import cache

    if href is None:
        cache.invalidate_all()
    elif not is_local(href):
        # the link of an object is made from how its bucket is reached
        with _bucket(href):
            cache.invalidate(href)


class GdalFile:
    """An open file; a context manager, within which it is read.

    There a VRT finds its sources, and GDAL the next credentials.
    """

    def __init__(
        self, href: str, patience: Patience | None = None, *, overview: int | None = None
    ) -> None:
        """Open it.

        Args:
            href: Path or URL.
            patience: How long one request may take, and whoever gives the right to read it be
                asked.
            overview: Number of the overview that shall stand for the file.

        Raises:
            rasterio.errors.RasterioIOError: GDAL cannot.
            UnreachableError: Nobody gives the right to read it.
        """
        READS.add(ReadUsage(gdal_files=1))
        self.dataset = _open(href, patience, overview)
        self._bucket = _bucket(href)

    def __enter__(self) -> Self:
        """Give the open file."""
        self._bucket.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.dataset.close()
        self._bucket.__exit__(kind, error, trace)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.dataset.shape
        return int(height), int(width)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        kind: str = self.dataset.dtypes[0]
        return np.dtype(kind)

    @property
    def transform(self) -> Affine6:
        """Affine a, b, c, d, e, f of the file."""
        a, b, c, d, e, f = tuple(self.dataset.transform)[:6]
        return a, b, c, d, e, f

    @property
    def epsg(self) -> int | None:
        """Code of the CRS; None where it has none."""
        crs = self.dataset.crs
        return None if crs is None or not crs.is_projected else crs.to_epsg()

    @property
    def nodata(self) -> float | None:
        """What the file says; None where it says nothing."""
        value = self.dataset.nodata
        return None if value is None else float(value)

    @property
    def overview_factors(self) -> list[int]:
        """By how much each overview is smaller, the largest picture first."""
        factors: list[int] = self.dataset.overviews(1)
        return factors

    def read(self, rows: slice, cols: slice) -> np.ndarray:
        """Pixels within the file, dims (y, x)."""
        from rasterio.windows import Window

        window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        values: np.ndarray = self.dataset.read(1, window=window)
        return values


def _open(
    href: str, patience: Patience | None = None, overview: int | None = None
) -> DatasetReader:
    """Open a file; a right that it failed with is forgotten, and that it failed."""
    import rasterio
    from rasterio.errors import RasterioIOError

    level = {} if overview is None else {"overview_level": overview}
    place, options = gdal_place(href, patience)
    if patience is not None and patience.seconds < _TIMEOUT_S:
        options = {**options, "GDAL_HTTP_TIMEOUT": f"{patience.seconds:g}"}
    try:
        # options are kept by the handle
        with rasterio.Env(**options) if options else nullcontext():
            return rasterio.open(place, **level)
    except RasterioIOError:
        forget_answers(href)
        # GDAL does not say why: the next attempt shall not fail by an old right
        query = place.partition("?")[2] if place != href else ""
        header = options.get("GDAL_HTTP_HEADERS", "").removeprefix("Authorization: ")
        forget_right(href, Right(query, header))
        raise


def warp_by_gdal(
    href: str,
    asset: BandAsset,
    zone: Zone,
    window: PixelWindow,
    resolution_m: int,
    overview: int | None = None,
) -> np.ndarray:
    """Warp cell by cell of the zone, so that a pixel does not depend on the window it is in.

    Args:
        href: The file.
        asset: What it is; SCL is warped by nearest, else bilinear on valid pixels.
        zone: Zone of the window, or the user's grid.
        window: Wanted pixels.
        resolution_m: 10 or 20, or the level of the grid.
        overview: Number of the overview to warp; None for the picture itself.

    Returns:
        Dims (y, x), dtype of the file.
    """
    from rasterio.warp import transform_bounds

    lattice = lattice_of(zone)
    crs = f"EPSG:{lattice.epsg}"
    with _bucket(href), _open(href, overview=overview) as file:
        out = np.full((window.height, window.width), asset.nodata, file.dtypes[0])
        bounds = transform_bounds(file.crs, crs, *file.bounds, densify_pts=21)
        for cell in _warp_cells(window, lattice.box(bounds, resolution_m)):
            values = _warp_cell(file, asset, lattice, cell, resolution_m)
            row, col = cell.row_off - window.row_off, cell.col_off - window.col_off
            r0, c0 = max(0, row), max(0, col)
            part = values[r0 - row : window.height - row, c0 - col : window.width - col]
            out[r0 : r0 + part.shape[0], c0 : c0 + part.shape[1]] = part
    return out


def _warp_cells(window: PixelWindow, box: tuple[int, int, int, int]) -> Iterator[PixelWindow]:
    """Cells that a window and a file (its box of pixels) have in common."""
    top, left = max(window.row_off, box[0] - 2), max(window.col_off, box[1] - 2)
    bottom = min(window.row_off + window.height, box[2] + 2)
    right = min(window.col_off + window.width, box[3] + 2)
    for row in range(top // _CELL_PX * _CELL_PX, bottom, _CELL_PX):
        for col in range(left // _CELL_PX * _CELL_PX, right, _CELL_PX):
            yield PixelWindow(row, col, _CELL_PX, _CELL_PX)


def _warp_cell(
    file: DatasetReader,
    asset: BandAsset,
    lattice: Lattice,
    cell: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    method = Resampling.nearest if asset.band == "SCL" else Resampling.bilinear
    # target pixels per source pixel: GDAL's own estimate blurs, and differs between windows
    scale = abs(file.transform.a) / resolution_m if file.crs.is_projected else None
    extras = {} if scale is None else {"XSCALE": scale, "YSCALE": scale}
    with WarpedVRT(
        file,
        crs=f"EPSG:{lattice.epsg}",
        transform=lattice.affine(cell, resolution_m),
        width=cell.width,
        height=cell.height,
        resampling=method,
        src_nodata=asset.nodata,
        nodata=asset.nodata,
        tolerance=_WARP_ERROR_PX,
        **extras,
    ) as warped:
        values: np.ndarray = warped.read(1)
    return values
