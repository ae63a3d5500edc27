"""Read one asset over a window of a lattice: copied where grids agree, else warped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eoray.errors import GridError, ReadError
from eoray.grid import Affine6, PixelWindow, Zone, lattice_of, relabel_south
from eoray.log import get_logger
from eoray.masking import mask
from eoray.reading.cog import BlockMemory, CogFile, Put
from eoray.reading.gdal import GdalFile, warp_by_gdal
from eoray.reading.overviews import (
    Step,
    covers_ground,
    factor_of,
    fitting_level,
    fitting_overview,
    level_asset,
    pixels_a_step,
    takes_overviews,
)
from eoray.reading.persist import GaveUpError, persist
from eoray.reading.ranges import UnsupportedFileError
from eoray.reading.reasons import MismatchError, detail_of, host_of, reason_of
from eoray.reading.requests import Pace, Patience, is_down, one_turn
from eoray.reading.usage import READS, ReadUsage
from eoray.reading.warp import can_warp, warp
from eoray.sentinel2 import BANDS, native_resolution_m

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene


def asset_resolution_m(asset: BandAsset) -> int:
    """Native pixel of a band; SCL has that of 20 m."""
    return 20 if asset.band == "SCL" else native_resolution_m(asset.band)


def is_congruent(asset: BandAsset, resolution_m: int, zone: Zone = 1) -> bool:
    """Tell whether an asset's pixels are pixels of a lattice of its CRS (southern relabelled)."""
    return lattice_of(zone).misfit_px(asset.transform, resolution_m) == (0.0, 0.0)


def is_copied(scene: Scene, zone: Zone) -> bool:
    """Tell whether all bands and SCL of a scene are copied to a lattice, none resampled."""
    lattice = lattice_of(zone)
    assets = [asset for asset in scene.assets if asset.band in (*BANDS, "SCL")]
    levels = [lattice.level(asset_resolution_m(asset)) for asset in assets]
    pairs = zip(assets, levels, strict=True)
    return scene.grid_epsg == lattice.epsg and all(is_congruent(a, m, zone) for a, m in pairs)


def check_congruent(
    scene: Scene, asset: BandAsset, resolution_m: int, zone: Zone | None = None
) -> None:
    """Refuse a file that would have to be resampled.

    Args:
        scene: The item, named in errors.
        asset: One of its files.
        resolution_m: Level of the lattice that it would be copied to.
        zone: The lattice; None for the world grid.

    Raises:
        GridError: Names the CRSs, the pixel sizes or the part of a pixel by which grids differ.
    """
    lattice = lattice_of(scene.zone or 1 if zone is None else zone)
    dx, dy = lattice.misfit_px(asset.transform, resolution_m)
    if scene.grid_epsg != lattice.epsg and zone is not None:
        what = f"lies in EPSG:{scene.epsg}, not in the EPSG:{lattice.epsg} of {lattice.label}"
    elif (dx, dy) == (0.0, 0.0):
        return
    elif math.isnan(dx):
        size = lattice.size_text(resolution_m)
        what = f"has pixels of {asset.transform[0]:g} m, not the {size} of {lattice.label}"
    else:
        what = f"lies {dx:.3f}, {dy:.3f} of a pixel (x, y) off {lattice.label}"
    raise GridError(
        f"{asset.band} of item {scene.item_id} {what}; say `cube.warp: true` to resample it, or "
        "leave the item out with source.query"
    )


class PixelFile(Protocol):
    """An open file: what its header says, and its pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""

    @property
    def transform(self) -> Affine6:
        """Affine a, b, c, d, e, f of the file."""

    @property
    def epsg(self) -> int | None:
        """Code of a projected CRS; None for others."""

    @property
    def nodata(self) -> float | None:
        """What it says is no data; None where it says nothing."""

    def read(self, rows: slice, cols: slice) -> np.ndarray:
        """Pixels within the file, dims (y, x)."""


type Engine = Callable[[BandAsset], PixelFile]
"""Opens a file in place of our own reader. Opening and reading raise OSError where they fail."""


@dataclass(frozen=True, slots=True)
class AssetWindow:
    """One file of a scene over a window of a lattice, and how hard it is tried."""

    scene: Scene
    """The item, named in errors; its zone decides between copy and warp."""
    asset: BandAsset
    """Band or SCL of the scene."""
    zone: Zone
    window: PixelWindow
    """Pixels of the zone at ``resolution_m``."""
    resolution_m: int
    """10 or 20, or the level of a user's grid."""
    retries: int = 2
    """Further attempts after a failed one."""
    seconds: float = 120.0
    """No attempt begins later than this after the first."""
    memory: BlockMemory | None = None
    """Keeps decoded tiles for the strip below."""
    engine: Engine | None = None
    """Opens the file in place of our own reader, which alone uses ``memory``."""
    wait: Callable[[float], None] = time.sleep
    """Called with seconds between attempts."""


def read_asset(what: AssetWindow) -> np.ndarray:
    """Read stored integers of an asset over a window.

    Returns:
        Dims (y, x), dtype of the file; ``asset.nodata`` outside of it. SCL is warped by
        nearest, reflectance by bilinear on valid pixels. Where the level's pixel is at least twice
        the file's, that is done from the overview that is just as fine; engines read the file.

    Raises:
        ReadError: Every attempt failed, at all providers of the product that the scene knows, or
            the file is not what the item says.
    """
    return _try_places(what, partial(_read, what))


def place_asset(what: AssetWindow, put: Put) -> None:
    """Hand over what :func:`read_asset` gives, tile by tile where the file is copied.

    Args:
        what: The file and the window.
        put: Gets pixels and where they lie in the window, each at least once: an attempt that
            fails in the middle is followed by one from the start.

    Raises:
        ReadError: As for :func:`read_asset`; some pixels may have been handed over.
    """

    def read(file: BandAsset, patience: Patience) -> None:
        if not _copy_to(what, file, patience, put):
            values = _read(what, file, patience)
            put(values, slice(0, values.shape[1]), (0, 0))

    _try_places(what, read)


def _try_places[T](what: AssetWindow, read: Callable[[BandAsset, Patience], T]) -> T:
    """Read at the scene's provider, else at the others that have the same product."""
    scene, asset, window = what.scene, what.asset, what.window
    places = _places(scene, asset)
    failures: list[tuple[str, BaseException]] = []
    attempts = 0
    for provider, file in places:
        patience = Patience(what.retries, what.seconds, Pace(sleep=what.wait))
        try:
            values = persist(partial(read, file), file.href, patience)
        except GaveUpError as gave_up:
            error = gave_up.__cause__ or gave_up
            failures.append((provider, error))
            attempts += gave_up.attempts
            if isinstance(error, MismatchError):
                break  # not what the item says: nobody knows what it is
            continue
        if file.href != asset.href:
            READS.add(ReadUsage(failovers=1))
            _tell(scene.item_id, scene.provider, provider)
        return values
    raise ReadError(
        f"{asset.band} of item {scene.item_id} cannot be read "
        f"({_reason(failures[0][1])}) from {mask(asset.href)!r}{_in_vain(scene, failures[1:])}; "
        "run again, or record the hole with errors: record",
        item_id=scene.item_id,
        asset=asset.band,
        window=(window.col_off, window.row_off, window.width, window.height),
        reason=reason_of(failures[0][1]),
        detail=detail_of(failures[0][1]),
        host=host_of(places[0][1].href),
        attempts=attempts,
    ) from failures[0][1]


def _places(scene: Scene, asset: BandAsset) -> list[tuple[str, BandAsset]]:
    """Where a file lies, with providers; one whose server is down comes last."""
    at = scene.assets.index(asset) if scene.elsewhere else 0
    found = [(scene.provider, asset)]
    found += [(place.provider, place.assets[at]) for place in scene.elsewhere]
    return sorted(found, key=lambda place: len(found) > 1 and is_down(place[1].href))


@lru_cache(maxsize=4096)
def _tell(item_id: str, provider: str, other: str) -> None:
    """Log, once an item, that another provider stood in."""
    get_logger().warning("read elsewhere", item=item_id, provider=provider, read_at=other)


def _in_vain(scene: Scene, failures: Sequence[tuple[str, BaseException]]) -> str:
    """What other providers said, for an error message."""
    told = [f"nor from {provider} ({_reason(error)})" for provider, error in failures]
    if scene.not_elsewhere:
        told.append(f"nor elsewhere: {scene.not_elsewhere}")
    return "".join(f", {text}" for text in told)


def file_offset(
    asset: BandAsset, window: PixelWindow, resolution_m: int, zone: Zone = 1
) -> tuple[int, int]:
    """(row, col) of a congruent file's first pixel within a window; may be negative."""
    lattice = lattice_of(zone)
    pixel, origin = lattice.pixel(resolution_m), lattice.affine(window, resolution_m)
    col = round((asset.transform[2] - origin.c) / pixel)
    row = round((origin.f - asset.transform[5]) / pixel)
    return row, col


def _step(what: AssetWindow) -> Step | None:
    """Pixels that a grid leaps over, where it is so coarse that overviews are read."""
    scene, asset = what.scene, what.asset
    if what.engine is None and takes_overviews(scene, asset, what.zone, what.resolution_m):
        return pixels_a_step(scene, asset, what.zone, what.resolution_m)
    return None


def _is_copied(what: AssetWindow) -> bool:
    same = what.scene.grid_epsg == lattice_of(what.zone).epsg
    return same and is_congruent(what.asset, what.resolution_m, what.zone)


def _copy_to(what: AssetWindow, asset: BandAsset, patience: Patience, put: Put) -> bool:
    """Hand over a window within a COG tile by tile; False where it has to be read another way."""
    if what.engine is not None or _is_jpeg2000(asset) or not _is_copied(what) or _step(what):
        return False
    window = what.window
    row, col = file_offset(asset, window, what.resolution_m, what.zone)
    top, left = -row, -col
    bottom, right = top + window.height, left + window.width
    if min(top, left) < 0 or bottom > asset.shape[0] or right > asset.shape[1]:
        return False
    try:
        file = CogFile(asset.href, what.memory, patience)
    except UnsupportedFileError:
        values = _read_by_gdal(what, asset, patience)
        put(values, slice(0, window.width), (0, 0))
        return True
    _check_header(file, asset, what.scene.grid_epsg)
    file.read_to(put, slice(top, bottom), slice(left, right))
    return True


def _is_jpeg2000(asset: BandAsset) -> bool:
    return asset.href.lower().endswith((".jp2", ".jp2)/$value"))


def _read(what: AssetWindow, asset: BandAsset, patience: Patience) -> np.ndarray:
    """Read by an engine, or by our own reader, or by GDAL where that one does not know the file."""
    place = what.zone, what.window, what.resolution_m
    step = _step(what)
    if step is not None:
        return _read_level(step, what.scene.grid_epsg, asset, *place, what.memory, patience)
    if what.engine is not None:
        return _read_from(what.engine(asset), what, asset)
    if not _is_jpeg2000(asset):
        try:
            return _read_from(CogFile(asset.href, what.memory, patience), what, asset)
        except UnsupportedFileError:
            pass
    return _read_by_gdal(what, asset, patience)


def _read_by_gdal(what: AssetWindow, asset: BandAsset, patience: Patience) -> np.ndarray:
    with one_turn(asset.href, patience), GdalFile(asset.href, patience) as file:
        return _read_from(file, what, asset)


def _read_from(file: PixelFile, what: AssetWindow, asset: BandAsset) -> np.ndarray:
    """Copy or warp a file whose header is held against its item before."""
    _check_header(file, asset, what.scene.grid_epsg)
    method = _copy if _is_copied(what) else _warp
    return method(asset, file, what.zone, what.window, what.resolution_m)


def _read_level(
    step: Step,
    grid_epsg: int,
    asset: BandAsset,
    zone: Zone,
    window: PixelWindow,
    resolution_m: int,
    memory: BlockMemory | None,
    patience: Patience,
) -> np.ndarray:
    """Read the overview that fits a coarser lattice, or the picture where none does."""
    what = zone, window, resolution_m
    same_crs = grid_epsg == lattice_of(zone).epsg
    try:
        cog = CogFile(asset.href, memory, patience, overviews=True)
        _check_header(cog, asset, grid_epsg)
        number = fitting_overview(cog, step)
        if number is None:
            return _warp(asset, cog, *what)
        return _shrink(asset, cog.overview(number), number, step, same_crs, *what)
    except UnsupportedFileError:
        pass
    with one_turn(asset.href, patience), GdalFile(asset.href, patience) as picture:
        _check_header(picture, asset, grid_epsg)
        number = fitting_level(picture.overview_factors, step)
        if number is None:
            return _warp(asset, picture, *what)
        with GdalFile(asset.href, patience, overview=number) as level:
            return _shrink(asset, level, number, step, same_crs, *what)


def _shrink(
    asset: BandAsset,
    level: PixelFile,
    number: int,
    step: Step,
    same_crs: bool,  # noqa: FBT001 - bound by position, as all of a read
    zone: Zone,
    window: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    """Copy an overview that lies on the lattice, else warp it."""
    shown = level_asset(asset, level.shape)
    if same_crs and is_congruent(shown, resolution_m, zone):
        return _copy(shown, level, zone, window, resolution_m)
    if level.epsg is None or not covers_ground(step, factor_of(asset.shape, level.shape)):
        return warp_by_gdal(asset.href, asset, zone, window, resolution_m, overview=number)
    return _warp_here(shown, level, level.epsg, zone, window, resolution_m)


def _copy(
    asset: BandAsset,
    file: PixelFile,
    zone: Zone,
    window: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    row, col = file_offset(asset, window, resolution_m, zone)
    height, width = asset.shape
    r0, r1 = max(0, row), min(window.height, row + height)
    c0, c1 = max(0, col), min(window.width, col + width)
    if (r0, r1, c0, c1) == (0, window.height, 0, window.width):
        return file.read(slice(-row, r1 - row), slice(-col, c1 - col))
    out = np.full((window.height, window.width), asset.nodata, file.dtype)
    if r0 < r1 and c0 < c1:
        out[r0:r1, c0:c1] = file.read(slice(r0 - row, r1 - row), slice(c0 - col, c1 - col))
    return out


def _warp(
    asset: BandAsset,
    file: PixelFile,
    zone: Zone,
    window: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    if file.epsg is None or not can_warp(file.transform, resolution_m):
        return warp_by_gdal(asset.href, asset, zone, window, resolution_m)
    return _warp_here(asset, file, file.epsg, zone, window, resolution_m)


def _warp_here(
    asset: BandAsset,
    file: PixelFile,
    epsg: int,
    zone: Zone,
    window: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    return warp(
        file,
        transform=file.transform,
        epsg=epsg,
        zone=zone,
        window=window,
        resolution_m=resolution_m,
        nodata=asset.nodata,
        nearest=asset.band == "SCL",
    )


def _check_header(file: PixelFile, asset: BandAsset, grid_epsg: int) -> None:
    """A header that contradicts the item would shift every pixel silently, or count no data."""
    if file.shape != tuple(asset.shape):
        raise MismatchError(f"the file has shape {file.shape}, its item says {tuple(asset.shape)}")
    actual, stated, epsg = file.transform, asset.transform, file.epsg
    if epsg is not None:
        epsg, actual = relabel_south(epsg, actual)
        if epsg != grid_epsg:
            raise MismatchError(
                f"the file lies in EPSG:{file.epsg}, its item says {_named(grid_epsg)}"
            )
    # 1e-6 m, and as little of a pixel where the unit is a degree
    if not np.allclose(actual, stated, rtol=0, atol=min(1e-6, abs(stated[0]) * 1e-6)):
        raise MismatchError(f"the file's transform is {file.transform}, its item says {stated}")
    if file.nodata not in (None, asset.nodata):
        raise MismatchError(f"the file's nodata is {file.nodata:g}, not {asset.nodata}")


def _named(grid_epsg: int) -> str:
    zone = grid_epsg - 32600
    return f"UTM zone {zone}" if 1 <= zone <= 60 else f"EPSG:{grid_epsg}"


def _reason(error: BaseException) -> str:
    text = mask(" ".join(str(error).split()))
    return text[:200] or type(error).__name__
