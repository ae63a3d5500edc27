"""One datatake over a block of tiles: every pixel from one granule, holes marked, no blending.

Overlapping granules of a datatake hold the same observation, processed granule by granule. A
pixel takes its own zone's granule whose centre is nearest, then the next one that is valid
there, then a neighbour zone's granule, warped. The choice is made per pixel, so it does not
depend on how tiles are grouped into blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from eoray.errors import ReadError
from eoray.grid import Block, Lattice, PixelWindow, Tile
from eoray.reading.choice import Choice, centre_of, choose, without_halo
from eoray.reading.gdal import io_pool
from eoray.reading.harmonise import Share, mark_empty, mark_saturated, place_band
from eoray.reading.survey import Survey, double, survey
from eoray.reading.window import AssetWindow, Engine, is_congruent, place_asset
from eoray.sentinel2 import FILL, Quality, Scl, native_resolution_m

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene
    from eoray.reading.cog import BlockMemory


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a block is read."""

    bands: tuple[str, ...]
    halo_px: int = 0
    """20 m pixels of SCL around the block, for masks that grow."""
    warp: bool = False
    """Resample granules whose grid does not fit; otherwise they are refused."""
    raise_errors: bool = True
    """Raise the first failed read; otherwise it is recorded, and its pixels are marked."""
    retries: int = 2
    seconds: float = 120.0
    """Of one read of a file; no further attempt begins later."""
    read: tuple[str, ...] | None = None
    """Those of ``bands`` whose files are read, and that quality speaks of; None: all."""
    engine: Engine | None = None
    """Opens the files in place of our own reader."""
    context: tuple[str, ...] = ()
    """Bands that a learned mask looks at: read with the halo, at the pixel of SCL."""


@dataclass(frozen=True, slots=True)
class FailedRead:
    """One asset that could not be read, and the tiles that miss it."""

    item_id: str
    band: str
    message: str
    tiles: tuple[Tile, ...]
    reason: str = "other"
    """As ``ReadError`` has it, like what follows."""
    detail: str = ""
    host: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The pixels of one datatake over a block; outside of ``frame`` there are none."""

    frame: PixelWindow
    """Part of the block that the scenes' files can reach, in pixels of SCL."""
    scl: np.ndarray
    """Dims (y, x), uint8, 20 m, with the halo around the frame."""
    reflectance: dict[int, np.ndarray]
    """Resolution in m -> dims (band, y, x), int16, over the frame."""
    quality: dict[int, np.ndarray]
    """Resolution in m -> dims (y, x), uint8 of ``Quality`` bits, over the frame."""
    failed: tuple[FailedRead, ...] = ()
    used: tuple[str, ...] = ()
    """Ids of the items that pixels come from."""
    reads: Mapping[Tile, int] = field(default_factory=dict)
    """Files that each tile needed, those that failed included."""
    context: np.ndarray | None = None
    """Dims (band, y, x), int16, at the pixel of SCL, with its halo; fill where unknown."""


def read_mosaic(
    scenes: Sequence[Scene],
    block: Block,
    options: ReadOptions,
    memory: BlockMemory | None = None,
    window: PixelWindow | None = None,
) -> Mosaic:
    """Read all granules of a datatake over a block, each internal block of a COG once.

    Args:
        scenes: Items of one datatake, any order.
        block: Tiles of one zone.
        options: Bands, halo, warping, error handling.
        memory: Keeps decoded tiles of the files for the strip below this one.
        window: Pixels of SCL within the block: bands are read there only. What a pixel holds does
            not depend on it.

    Returns:
        Reflectance, quality and SCL; failed reads are fill with the ``FAILED_READ`` bit.

    Raises:
        GridError: A granule of this zone does not fit the lattice and ``warp`` is off.
        ReadError: A read failed and ``raise_errors`` is on.
    """
    return read_chosen(choose(scenes, block, options, memory), options, memory, window)


def read_chosen(
    choice: Choice,
    options: ReadOptions,
    memory: BlockMemory | None = None,
    window: PixelWindow | None = None,
) -> Mosaic:
    """Read the bands where their scenes were chosen; see ``read_mosaic``."""
    block, halo = choice.block, options.halo_px
    choice.memory = memory
    core = np.ascontiguousarray(without_halo(choice.index, halo))
    parts = _survey_tiles(choice, core)
    bits = _known_bits(choice, core, parts, options.bands)
    failed = [
        _failure(choice, lost.number, lost.error, lost.where(choice)) for lost in choice.unread
    ]
    context, more = _read_context(choice, options) if options.context else (None, [])
    if window is not None:
        inside = _narrow(choice, halo, window)
        core, bits = np.ascontiguousarray(core[inside]), np.ascontiguousarray(bits[inside])
        parts = _survey_tiles(choice, core)
    found = survey(core, len(choice.scenes))
    layers, lost = _read_layers(choice, core, found, bits, options, options.bands)
    failed += lost
    for resolution_m, values in layers.reflectance.items():
        # without a band of this pixel the scene classification alone tells
        factor = block.lattice.coarse // resolution_m
        if len(values):
            mark_empty(values, layers.quality[resolution_m])
        else:
            layers.quality[resolution_m][_upsample(core < 0, factor)] |= np.uint8(Quality.NO_DATA)
    reads = _count_reads(choice, parts, failed, len(options.bands))
    failed += _only_new(more, failed)
    used = sorted(choice.scenes[number].item_id for number in found.present)
    return Mosaic(
        choice.frame,
        choice.scl,
        layers.reflectance,
        layers.quality,
        tuple(failure for failure in failed if failure.tiles),
        tuple(used),
        reads,
        context,
    )


type _Parts = list[tuple[Tile, slice, slice, Survey]]
"""Tiles with their rows and columns in a frame, and the scenes that have pixels there."""


def _survey_tiles(choice: Choice, core: np.ndarray) -> _Parts:
    """Count the pixels of each scene in each tile."""
    return [
        (tile, rows, cols, survey(core[rows, cols], len(choice.scenes)))
        for tile, rows, cols in _tile_slices(choice.block, choice.frame)
    ]


def _read_layers(
    choice: Choice,
    core: np.ndarray,
    found: Survey,
    bits: np.ndarray,
    options: ReadOptions,
    bands: Sequence[str],
    reach: int = 0,
) -> tuple[_Layers, list[FailedRead]]:
    """Read bands where their scenes were chosen; ``reach`` pixels around a tile are its own."""
    # every pixel is written by the one scene that it takes: no need to fill before
    covered = options.read is None and found.covered
    layers = _layers(bits, bands, choice.block.lattice, filled=not covered)
    jobs = [
        (number, band)
        for number in found.present
        for band in bands
        if options.read is None or band in options.read
    ]
    results = io_pool().map(_reader(choice, core, found, options, layers, bands), jobs)
    failed = []
    for (number, band), result in zip(jobs, results, strict=True):
        quality = layers.quality[_level(band, choice)]
        if isinstance(result, ReadError):
            _mark_lost(layers, choice, core, (number, band), bands)
            failed.append(_failure(choice, number, result, core == number, reach))
            continue
        share = Share(core, number, len(quality) // len(core))
        for dn, corner in result:
            mark_saturated(dn, share, corner, quality)
    return layers, failed


def _read_context(choice: Choice, options: ReadOptions) -> tuple[np.ndarray, list[FailedRead]]:
    """Bands with the halo of SCL, brought to its pixel."""
    halo, lattice = options.halo_px, choice.block.lattice
    wide = replace(choice, frame=choice.frame.buffered(halo))
    bits = np.zeros(choice.index.shape, np.uint8)
    found = survey(choice.index, len(choice.scenes))
    layers, failed = _read_layers(wide, choice.index, found, bits, options, options.context, halo)
    planes = []
    for band in options.context:
        level = lattice.level(native_resolution_m(band))
        position = _bands_at(options.context, level, lattice).index(band)
        planes.append(_thin(layers.reflectance[level][position], lattice.coarse // level))
    return np.stack(planes), failed


def _only_new(more: Iterable[FailedRead], known: Sequence[FailedRead]) -> list[FailedRead]:
    """Failed reads without the tiles that miss the same asset already."""
    found = []
    for one in more:
        same = [k.tiles for k in known if (k.item_id, k.band) == (one.item_id, one.band)]
        tiles = tuple(tile for tile in one.tiles if not any(tile in other for other in same))
        if tiles:
            found.append(replace(one, tiles=tiles))
    return found


def _thin(values: np.ndarray, factor: int) -> np.ndarray:
    """The mean of at least three of four pixels, int16."""
    if factor == 1:
        return values
    parts = values.reshape(values.shape[0] // factor, factor, -1, factor).astype(np.float32)
    valid = parts != FILL
    count = valid.sum(axis=(1, 3))
    total = np.where(valid, parts, 0).sum(axis=(1, 3))
    mean = np.rint(total / np.maximum(count, 1)).astype(np.int16)
    return np.where(count >= factor * factor - 1, mean, np.int16(FILL))


def _count_reads(
    choice: Choice, parts: _Parts, failed: Sequence[FailedRead], n_bands: int
) -> dict[Tile, int]:
    """SCL and bands of the scenes that a tile takes pixels of, and each SCL that it misses."""
    unread = failed[: len(choice.unread)]
    return {
        tile: len(found.present) * (n_bands + 1) + sum(tile in failure.tiles for failure in unread)
        for tile, _, _, found in parts
    }


def _narrow(choice: Choice, halo: int, window: PixelWindow) -> tuple[slice, slice]:
    """Cut the frame to a window; rows and columns of what is left, in the frame before."""
    frame = choice.frame
    rows = _overlap(window.row_off, window.height, frame.row_off, frame.height)
    cols = _overlap(window.col_off, window.width, frame.col_off, frame.width)
    choice.frame = PixelWindow(
        frame.row_off + rows.start,
        frame.col_off + cols.start,
        rows.stop - rows.start,
        cols.stop - cols.start,
    )
    choice.scl = choice.scl[rows.start : rows.stop + 2 * halo, cols.start : cols.stop + 2 * halo]
    return rows, cols


@dataclass(slots=True)
class _Layers:
    reflectance: dict[int, np.ndarray]
    quality: dict[int, np.ndarray]


def _known_bits(
    choice: Choice, core: np.ndarray, parts: _Parts, bands: Sequence[str]
) -> np.ndarray:
    """Quality that is known before any band is read, dims (y, x) of the frame in pixels of SCL."""
    halo = choice.halo_px
    edge, scl = without_halo(choice.edge, halo), without_halo(choice.scl, halo)
    bits = edge * np.uint8(Quality.GRANULE_EDGE)
    bits |= (scl == int(Scl.SATURATED)) * np.uint8(Quality.SATURATED)
    _mark_other_granules(choice, core, parts, bits)
    for number, scene in enumerate(choice.scenes):
        known = Quality(0)
        if _is_resampled(scene, bands, choice.block.lattice):
            known |= Quality.FOREIGN_ZONE
        if scene.clipped_at_source:
            known |= Quality.CLIPPED_AT_SOURCE
        if known:
            bits |= (core == number) * np.uint8(known)
    for unread in choice.unread:
        bits |= unread.where(choice) * np.uint8(Quality.FAILED_READ)
    return bits


def _layers(bits: np.ndarray, bands: Sequence[str], lattice: Lattice, *, filled: bool) -> _Layers:
    """Fill, or memory to be written, with the bits that are known before any band is read."""
    layers = _Layers({}, {})
    for resolution_m in lattice.levels:
        n_bands = len(_bands_at(bands, resolution_m, lattice))
        plane = _upsample(bits, lattice.coarse // resolution_m)
        layers.quality[resolution_m] = plane.copy() if plane is bits else plane
        layers.reflectance[resolution_m] = np.empty((n_bands, *plane.shape), np.int16)
        if filled:
            layers.reflectance[resolution_m].fill(FILL)
    return layers


def _is_resampled(scene: Scene, bands: Sequence[str], lattice: Lattice) -> bool:
    """True where pixels are not copied: another zone or CRS, another lattice or pixel."""
    if scene.grid_epsg != lattice.epsg:
        return True
    levels = [(scene.asset(band), lattice.level(native_resolution_m(band))) for band in bands]
    levels.append((scene.extent, lattice.coarse))
    return not all(is_congruent(asset, level, lattice) for asset, level in levels)


def _bands_at(bands: Sequence[str], resolution_m: int, lattice: Lattice) -> list[str]:
    """Bands that are stored at a level, in their order."""
    return [b for b in bands if lattice.level(native_resolution_m(b)) == resolution_m]


def _mark_other_granules(choice: Choice, core: np.ndarray, parts: _Parts, bits: np.ndarray) -> None:
    """Set the bit where a pixel does not come from the granule nearest to its tile's centre."""
    names = np.array([scene.granule for scene in choice.scenes] + [""], dtype=object)
    for tile, rows, cols, found in parts:
        if not found.present:
            continue
        # what they miss may be the nearest
        present = [*found.present, *_missed(choice, rows, cols)]
        if len(present) > 1:
            part = core[rows, cols]
            main = min(present, key=lambda n: _tile_distance(choice.scenes[n], tile))
            other = (part >= 0) & (names[part] != names[main])
            bits[rows, cols] |= other * np.uint8(Quality.OTHER_GRANULE)


def _missed(choice: Choice, rows: slice, cols: slice) -> list[int]:
    """Scenes that could not be read, and would have come first somewhere in a part of the frame."""
    halo = choice.halo_px
    return [
        unread.number
        for unread in choice.unread
        if unread.lost is not None and without_halo(unread.lost, halo)[rows, cols].any()
    ]


def _tile_distance(scene: Scene, tile: Tile) -> tuple[float, str]:
    x0, y0, x1, y1 = tile.bounds
    x, y = centre_of(scene, tile.lattice)
    dx, dy = x - (x0 + x1) / 2, y - (y0 + y1) / 2
    far = 0.0 if tile.lattice.is_home(scene.grid_epsg) else 1e18
    return far + dx * dx + dy * dy, scene.item_id


def _tile_slices(
    block: Block, frame: PixelWindow, reach: int = 0
) -> Iterable[tuple[Tile, slice, slice]]:
    """Each tile of a block with its rows and columns in the frame, where it has any."""
    for i in range(block.n_rows):
        for j in range(block.n_cols):
            tile = Tile(block.zone, block.row + i, block.col + j)
            window = tile.window(block.lattice.coarse).buffered(reach)
            rows = _overlap(window.row_off, window.height, frame.row_off, frame.height)
            cols = _overlap(window.col_off, window.width, frame.col_off, frame.width)
            if rows.start < rows.stop and cols.start < cols.stop:
                yield tile, rows, cols


def _overlap(start: int, length: int, origin: int, extent: int) -> slice:
    first = min(extent, max(0, start - origin))
    return slice(first, max(first, min(extent, start + length - origin)))


type _Saturated = list[tuple[np.ndarray, tuple[int, int]]]
"""Numbers, some of which are of a saturated detector, and where in the frame they begin."""


def _reader(
    choice: Choice,
    core: np.ndarray,
    found: Survey,
    options: ReadOptions,
    layers: _Layers,
    bands: Sequence[str],
) -> Callable[[tuple[int, str]], _Saturated | ReadError]:
    """What reads one band of one scene, and puts it where the scene was chosen."""

    def read(job: tuple[int, str]) -> _Saturated | ReadError:
        number, band = job
        scene, level = choice.scenes[number], _level(band, choice)
        factor = choice.block.lattice.coarse // level
        rows, cols = (slice(s.start * factor, s.stop * factor) for s in found.box(number))
        what = AssetWindow(
            scene,
            scene.asset(band),
            choice.block.zone,
            PixelWindow(
                choice.frame.row_off * factor + rows.start,
                choice.frame.col_off * factor + cols.start,
                rows.stop - rows.start,
                cols.stop - cols.start,
            ),
            level,
            options.retries,
            options.seconds,
            choice.memory,
            options.engine,
        )
        share, target = Share(core, number, factor), _plane(layers, choice, band, bands)
        saturated: _Saturated = []

        def put(dn: np.ndarray, of: slice, at: tuple[int, int]) -> None:
            corner = rows.start + at[0], cols.start + at[1]
            if place_band(dn, scene.dn_offset, share, corner, target, of):
                saturated.append((dn[:, of].copy(), corner))

        try:
            place_asset(what, put)
        except ReadError as error:
            if options.raise_errors:
                raise
            return error
        return saturated

    return read


def _level(band: str, choice: Choice) -> int:
    return choice.block.lattice.level(native_resolution_m(band))


def _plane(layers: _Layers, choice: Choice, band: str, bands: Sequence[str]) -> np.ndarray:
    """Reflectance of a band over the frame, dims (y, x)."""
    level = _level(band, choice)
    position = _bands_at(bands, level, choice.block.lattice).index(band)
    plane: np.ndarray = layers.reflectance[level][position]
    return plane


def _mark_lost(
    layers: _Layers,
    choice: Choice,
    core: np.ndarray,
    job: tuple[int, str],
    bands: Sequence[str],
) -> None:
    """Take out again what came of a band before its read failed."""
    number, band = job
    quality = layers.quality[_level(band, choice)]
    lost = _upsample(core == number, len(quality) // len(core))
    quality[lost] |= np.uint8(Quality.FAILED_READ)
    _plane(layers, choice, band, bands)[lost] = FILL


def _failure(
    choice: Choice, number: int, error: ReadError, where: np.ndarray, reach: int = 0
) -> FailedRead:
    tiles = tuple(
        tile
        for tile, rows, cols in _tile_slices(choice.block, choice.frame, reach)
        if where[rows, cols].any()
    )
    return FailedRead(
        choice.scenes[number].item_id,
        error.asset,
        str(error),
        tiles,
        error.reason,
        error.detail,
        error.host,
        error.attempts,
    )


def _upsample(values: np.ndarray, factor: int) -> np.ndarray:
    if factor == 2:
        return double(values)
    return values if factor == 1 else values.repeat(factor, axis=0).repeat(factor, axis=1)
