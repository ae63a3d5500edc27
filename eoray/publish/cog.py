"""Write a Cloud Optimized GeoTIFF block by block: whole or not at all, always the same bytes."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eoray import storage
from eoray.errors import StoreError
from eoray.publish.legend import Rgb

if TYPE_CHECKING:
    from affine import Affine

BLOCK_PX = 256
"""Edge of an internal tile: a single world tile (1024 px) then has tiled overviews too."""


@dataclass(frozen=True, slots=True)
class BandInfo:
    """What one band of a raster means."""

    name: str
    """Short id, unique within the raster."""
    description: str
    unit: str = ""
    scale: float = 1.0
    """Physical value = stored x scale."""


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """Everything about a raster but its pixels."""

    epsg: int
    transform: Affine
    """From pixel corners (col, row) to metres of ``epsg``."""
    height: int
    width: int
    dtype: str
    nodata: float
    bands: tuple[BandInfo, ...]
    overviews: Literal["MODE", "AVERAGE", "NEAREST"]
    """How levels are reduced. MODE never invents a class; AVERAGE suits measured values."""
    colors: Mapping[int, Rgb] = field(default_factory=dict)
    """Colour table of a single uint8 band; nodata is transparent."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the file."""


Block = tuple[int, int, np.ndarray]
"""(row offset, column offset, pixels with dims (band, y, x))."""


def write_cog(url: str, info: RasterInfo, blocks: Iterable[Block]) -> None:
    """Write a COG with internal overviews.

    Blocks go to a temporary file first, so memory stays at one block. Parts
    that no block covers stay sparse and read as nodata.

    Args:
        url: Local path or object store URL of the file.
        info: Grid, bands and metadata.
        blocks: Disjoint parts of the raster, in any order.

    Raises:
        StoreError: The place cannot be written, or the disk is full.
    """
    from rasterio.errors import RasterioError

    with _workplace(url) as folder:
        raw, cog = folder / "raw", folder / "cog"
        try:
            _write_raw(raw, info, blocks)
            _optimise(raw, cog, info)
            _put(cog, url)
        except (RasterioError, OSError) as error:
            raise StoreError(
                f"cannot write {url!r} ({error}); free space or choose another place"
            ) from error


def sha256_of(url: str) -> tuple[str, int]:
    """Return the SHA-256 (hex) and the size in bytes of a stored file."""
    if not storage.is_local(url):
        data = storage.read_bytes(url)
        return hashlib.sha256(data).hexdigest(), len(data)
    path = storage.local_path(url)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


@contextmanager
def _workplace(url: str) -> Iterator[Path]:
    """Give a hidden folder beside the target, or in the system's place for an object store.

    Its name depends on the target alone, so that what a killed run left is swept away by the next.
    """
    name = url.rstrip("/").rsplit("/", 1)[1]
    if storage.is_local(url):
        parent = storage.local_path(url).parent
    else:
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        parent = Path(tempfile.gettempdir()) / f"eoray-{digest}"
    folder = parent / f".{name}.part"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise StoreError(
            f"cannot make {str(folder)!r} ({error}); choose a folder that can be written"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_raw(path: Path, info: RasterInfo, blocks: Iterable[Block]) -> None:
    import rasterio
    from rasterio.windows import Window

    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": info.dtype,
        "count": len(info.bands),
        "height": info.height,
        "width": info.width,
        "crs": f"EPSG:{info.epsg}",
        "transform": info.transform,
        "nodata": info.nodata,
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "compress": "ZSTD",
        "zstd_level": 1,
        "interleave": "band",
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
    }
    with rasterio.open(path, "w", **profile) as target:
        for row, col, pixels in blocks:
            height, width = pixels.shape[-2:]
            target.write(
                pixels.astype(info.dtype, copy=False), window=Window(col, row, width, height)
            )
        if info.colors:
            table = {value: (*rgb, 255) for value, rgb in sorted(info.colors.items())}
            target.write_colormap(1, {**table, int(info.nodata): (0, 0, 0, 0)})
        for number, band in enumerate(info.bands, start=1):
            target.set_band_description(number, band.name)
            target.update_tags(number, long_name=band.description)
        target.scales = tuple(band.scale for band in info.bands)
        target.units = tuple(band.unit for band in info.bands)
        target.update_tags(**dict(sorted(info.tags.items())))


def _optimise(raw: Path, cog: Path, info: RasterInfo) -> None:
    import rasterio.shutil

    # one thread: the order of blocks in the file, and so its bytes, must not depend on luck
    rasterio.shutil.copy(
        raw,
        cog,
        driver="COG",
        blocksize=BLOCK_PX,
        compress="DEFLATE",
        level=6,
        predictor="YES",
        overview_resampling=info.overviews,
        interleave="band",
        sparse_ok=True,
        bigtiff="IF_SAFER",
        num_threads=1,
    )


def _put(path: Path, url: str) -> None:
    if storage.is_local(url):
        path.replace(storage.local_path(url))
        return
    parent, name = url.rstrip("/").rsplit("/", 1)
    storage.object_store(parent).put(name, path)
