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
from eoray.reading.gdal import io_pool
from eoray.reading.harmonise import Share, place_band
from eoray.reading.warp import transformer
from eoray.reading.window import (
    Engine,
    asset_resolution_m,
    check_congruent,
    is_congruent,
    read_asset,
)
from eoray.sentinel2 import FILL, Quality, Scl, native_resolution_m

if TYPE_CHECKING:
    from pyproj import Transformer

    from eoray.catalog.scene import BandAsset, Scene
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
    choice = _choose(scenes, block, options, memory)
    halo = options.halo_px
    core = np.ascontiguousarray(_core(choice.index, halo))
    bits = _known_bits(choice, core, options.bands)
    failed = [
        _failure(choice, lost.number, lost.error, lost.where(choice)) for lost in choice.unread
    ]
    context, more = _read_context(choice, options) if options.context else (None, [])
    if window is not None:
        inside = _narrow(choice, halo, window)
        core, bits = np.ascontiguousarray(core[inside]), bits[inside]
    layers, lost = _read_layers(choice, core, bits, options, options.bands)
    failed += lost
    for resolution_m, values in layers.reflectance.items():
        # without a band of this pixel the scene classification alone tells
        factor = block.lattice.coarse // resolution_m
        nothing = (values == FILL).all(axis=0) if len(values) else _upsample(core < 0, factor)
        layers.quality[resolution_m][nothing] |= np.uint8(Quality.NO_DATA)
    reads = dict(_count_reads(choice, core, failed, len(options.bands)))
    failed += _only_new(more, failed)
    used = sorted({choice.scenes[n].item_id for n in np.unique(core) if n >= 0})
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


def _read_layers(
    choice: _Choice,
    core: np.ndarray,
    bits: np.ndarray,
    options: ReadOptions,
    bands: Sequence[str],
    reach: int = 0,
) -> tuple[_Layers, list[FailedRead]]:
    """Read bands where their scenes were chosen; ``reach`` pixels around a tile are its own."""
    layers = _layers(bits, bands, choice.block.lattice)
    jobs = [
        (number, band)
        for number in range(len(choice.scenes))
        if (core == number).any()
        for band in bands
        if options.read is None or band in options.read
    ]
    results = io_pool().map(_reader(choice, core, options), jobs)
    failed = []
    for (number, band), result in zip(jobs, results, strict=True):
        _place(layers, choice, core, number, band, result, bands)
        if isinstance(result, ReadError):
            failed.append(_failure(choice, number, result, core == number, reach))
    return layers, failed


def _read_context(choice: _Choice, options: ReadOptions) -> tuple[np.ndarray, list[FailedRead]]:
    """Bands with the halo of SCL, brought to its pixel."""
    halo, lattice = options.halo_px, choice.block.lattice
    wide = replace(choice, frame=choice.frame.buffered(halo))
    bits = np.zeros(choice.index.shape, np.uint8)
    layers, failed = _read_layers(wide, choice.index, bits, options, options.context, halo)
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
    choice: _Choice, core: np.ndarray, failed: Sequence[FailedRead], n_bands: int
) -> Iterable[tuple[Tile, int]]:
    """SCL and bands of the scenes that a tile takes pixels of, and each SCL that it misses."""
    unread = failed[: len(choice.unread)]
    for tile, rows, cols in _tile_slices(choice.block, choice.frame):
        part = core[rows, cols]
        n_scenes = sum(bool((part == n).any()) for n in range(len(choice.scenes)))
        n_unread = sum(tile in failure.tiles for failure in unread)
        yield tile, n_scenes * (n_bands + 1) + n_unread


@dataclass(slots=True)
class _Choice:
    """Which scene each 20 m pixel takes, halo included."""

    scenes: list[Scene]
    block: Block
    frame: PixelWindow
    index: np.ndarray
    scl: np.ndarray
    edge: np.ndarray
    distance: np.ndarray
    memory: BlockMemory | None = None
    halo_px: int = 0
    unread: list[_Unread] = field(default_factory=list)


@dataclass(slots=True)
class _Unread:
    """A scene whose SCL could not be read: nobody knows which pixels it would have held."""

    number: int
    error: ReadError
    claim: np.ndarray
    """Squared distance where the scene would have come first when it was offered, else inf."""
    lost: np.ndarray | None = None
    """True where it would have come first among all; set once all scenes were offered."""

    def settle(self, choice: _Choice) -> None:
        """Compare with those that were offered later."""
        self.lost = np.isfinite(self.claim) & (self.claim <= choice.distance)

    def where(self, choice: _Choice) -> np.ndarray:
        """True where pixels miss it, dims (y, x) of the frame.

        That is where it would have come first, and beside it as far as masks grow: whether its
        clouds reach there is not known either.
        """
        if self.lost is None:
            return np.zeros_like(_core(choice.index, choice.halo_px), bool)
        near = _grown(self.lost, choice.halo_px) & (choice.index >= 0)
        return _core(self.lost | near, choice.halo_px)


def _choose(
    scenes: Sequence[Scene], block: Block, options: ReadOptions, memory: BlockMemory | None
) -> _Choice:
    frame = _frame(scenes, block)
    window = frame.buffered(options.halo_px)
    shape = (window.height, window.width)
    ordered = sorted(scenes, key=lambda s: s.item_id)
    own = [s for s in ordered if block.lattice.is_home(s.grid_epsg)]
    foreign = [s for s in ordered if not block.lattice.is_home(s.grid_epsg)]
    choice = _Choice(
        scenes=[*own, *foreign],
        block=block,
        frame=frame,
        index=np.full(shape, -1, np.int16),
        scl=np.zeros(shape, np.uint8),
        edge=np.zeros(shape, bool),
        distance=np.full(shape, np.inf, np.float32),
        memory=memory,
        halo_px=options.halo_px,
    )
    for scene in own:
        if not options.warp:
            _check_grid(scene, (*options.bands, *options.context), block.lattice)
        _offer(choice, scene, window, options)
    for unread in choice.unread:
        unread.settle(choice)
    n_own = len(choice.unread)
    if foreign and (choice.index < 0).any():
        choice.distance[choice.index >= 0] = -1.0  # a granule of the own zone keeps its pixels
        for scene in foreign:
            _offer(choice, scene, window, options)
        for unread in choice.unread[n_own:]:
            unread.settle(choice)
    return choice


def _narrow(choice: _Choice, halo: int, window: PixelWindow) -> tuple[slice, slice]:
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


def _frame(scenes: Sequence[Scene], block: Block) -> PixelWindow:
    """Part of a block that files can reach, grown to whole inner chunks; the rest stays fill."""
    whole = block.window(block.lattice.coarse)
    boxes = [_file_box(scene, block.lattice) for scene in scenes]
    edge = 64  # an inner chunk of 128 px of 10 m
    top = max(whole.row_off, min(b[0] for b in boxes) // edge * edge)
    left = max(whole.col_off, min(b[1] for b in boxes) // edge * edge)
    bottom = min(whole.row_off + whole.height, -(-max(b[2] for b in boxes) // edge) * edge)
    right = min(whole.col_off + whole.width, -(-max(b[3] for b in boxes) // edge) * edge)
    return PixelWindow(top, left, max(edge, bottom - top), max(edge, right - left))


def _file_box(scene: Scene, lattice: Lattice) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a scene in pixels of SCL, rounded outwards."""
    asset = scene.extent
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    bounds = (c, f + e * height, c + a * width, f)
    slack = 0
    if scene.grid_epsg != lattice.epsg:
        bounds = _to_lattice(scene, lattice).transform_bounds(*bounds, densify_pts=21)
        slack = 2
    top, left, bottom, right = lattice.box(bounds, lattice.coarse)
    return top - slack, left - slack, bottom + slack, right + slack


def _to_lattice(scene: Scene, lattice: Lattice) -> Transformer:
    """From the CRS that a scene's files are placed in to that of a lattice."""
    return transformer(scene.grid_epsg, lattice.epsg)


def _check_grid(scene: Scene, bands: Iterable[str], lattice: Lattice) -> None:
    for asset in (*(scene.asset(band) for band in bands), scene.extent):
        check_congruent(scene, asset, lattice.level(asset_resolution_m(asset)), lattice)


def _offer(choice: _Choice, scene: Scene, window: PixelWindow, options: ReadOptions) -> None:
    """Give a scene the pixels where it is valid and nearer than the one that holds them."""
    asset, lattice = scene.extent, choice.block.lattice
    home, own = lattice.is_home(scene.grid_epsg), scene.grid_epsg == lattice.epsg
    if own and not _extent(asset, window, lattice).any():
        return
    try:
        scl = (
            io_pool()
            .submit(
                read_asset,
                scene,
                asset,
                zone=choice.block.zone,
                window=window,
                resolution_m=lattice.coarse,
                retries=options.retries,
                seconds=options.seconds,
                memory=choice.memory,
                engine=options.engine,
            )
            .result()
        )
    except ReadError as error:
        if options.raise_errors:
            raise
        hole = _extent(asset, window, lattice) if own else _foreign_extent(scene, window, lattice)
        far = _claim(scene, window, lattice, home=home)
        claim = np.where(hole & (far < choice.distance), far, np.inf)
        choice.unread.append(_Unread(choice.scenes.index(scene), error, claim))
        return
    if asset.band != "SCL":
        scl = np.where(scl == asset.nodata, Scl.NO_DATA, Scl.UNCLASSIFIED).astype(np.uint8)
    valid = scl != Scl.NO_DATA
    distance = _claim(scene, window, lattice, home=home)
    better = valid & (distance < choice.distance)
    choice.index[better] = choice.scenes.index(scene)
    choice.scl[better] = scl[better]
    choice.distance[better] = distance[better]
    inside = _extent(asset, window, lattice) if own else None
    choice.edge[better] = _near_nodata(valid, inside)[better]


def _extent(asset: BandAsset, window: PixelWindow, lattice: Lattice) -> np.ndarray:
    """True inside a file of the lattice's CRS, dims (y, x) of a window of SCL."""
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    x, y = lattice.centres(window, lattice.coarse)
    inside_x = (x > c) & (x < c + a * width)
    inside_y = (y < f) & (y > f + e * height)
    return np.asarray(inside_y[:, None] & inside_x[None, :])


def _foreign_extent(scene: Scene, window: PixelWindow, lattice: Lattice) -> np.ndarray:
    """True inside the SCL of a scene of another CRS, dims (y, x) of a window of SCL."""
    asset = scene.extent
    grid_x, grid_y = np.meshgrid(*lattice.centres(window, lattice.coarse))
    x, y = _to_lattice(scene, lattice).transform(grid_x, grid_y, direction="INVERSE")
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    return np.asarray((x > c) & (x < c + a * width) & (y < f) & (y > f + e * height))


def _claim(scene: Scene, window: PixelWindow, lattice: Lattice, *, home: bool) -> np.ndarray:
    """What decides between scenes, the least first: a foreign one takes what is left, in order."""
    if home:
        return _distance(scene, window, lattice)
    return np.zeros((window.height, window.width), np.float32)


def _distance(scene: Scene, window: PixelWindow, lattice: Lattice) -> np.ndarray:
    """Squared distance of pixel centres from the file's centre, in m2, float32."""
    x, y = lattice.centres(window, lattice.coarse)
    centre_x, centre_y = _centre(scene, lattice)
    dx, dy = x - centre_x, y - centre_y
    return (dx**2).astype(np.float32)[None, :] + (dy**2).astype(np.float32)[:, None]


def _centre(scene: Scene, lattice: Lattice) -> tuple[float, float]:
    """(x, y) of the middle of a scene's file; of a foreign granule in its own zone."""
    a, _, c, _, e, f = scene.extent.transform
    height, width = scene.extent.shape
    x, y = c + a * width / 2, f + e * height / 2
    if lattice.is_home(scene.grid_epsg) and scene.grid_epsg != lattice.epsg:
        x, y = _to_lattice(scene, lattice).transform(x, y)
    return x, y


def _grown(where: np.ndarray, by: int) -> np.ndarray:
    """A region grown by some pixels to all sides."""
    from scipy.ndimage import maximum_filter

    if by == 0 or not where.any():
        return where
    return np.asarray(maximum_filter(where, 2 * by + 1, mode="constant"))


def _near_nodata(valid: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """True beside no data within the file: slivers there carry spurious values."""
    near = ~valid if inside is None else ~valid & inside
    for axis in (0, 1):  # grown along rows, then columns: ten times faster than a square at once
        lines = np.moveaxis(near, axis, 0)
        grown = lines.copy()
        grown[1:] |= lines[:-1]
        grown[:-1] |= lines[1:]
        near = np.moveaxis(grown, 0, axis)
    return near


@dataclass(slots=True)
class _Layers:
    reflectance: dict[int, np.ndarray]
    quality: dict[int, np.ndarray]


def _known_bits(choice: _Choice, core: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Quality that is known before any band is read, dims (y, x) of the frame in pixels of SCL."""
    halo = (choice.index.shape[0] - core.shape[0]) // 2
    bits = np.zeros(core.shape, np.uint8)
    bits[_core(choice.edge, halo)] |= np.uint8(Quality.GRANULE_EDGE)
    bits[_core(choice.scl, halo) == Scl.SATURATED] |= np.uint8(Quality.SATURATED)
    bits[_other_granule(choice, core)] |= np.uint8(Quality.OTHER_GRANULE)
    for number, scene in enumerate(choice.scenes):
        here = core == number
        if _is_resampled(scene, bands, choice.block.lattice):
            bits[here] |= np.uint8(Quality.FOREIGN_ZONE)
        if scene.clipped_at_source:
            bits[here] |= np.uint8(Quality.CLIPPED_AT_SOURCE)
    for unread in choice.unread:
        bits[unread.where(choice)] |= np.uint8(Quality.FAILED_READ)
    return bits


def _layers(bits: np.ndarray, bands: Sequence[str], lattice: Lattice) -> _Layers:
    """Fill, with the bits that are known before any band is read."""
    layers = _Layers({}, {})
    for resolution_m in lattice.levels:
        n_bands = len(_bands_at(bands, resolution_m, lattice))
        plane = _upsample(bits, lattice.coarse // resolution_m)
        layers.quality[resolution_m] = plane.copy()
        layers.reflectance[resolution_m] = np.full((n_bands, *plane.shape), FILL, np.int16)
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


def _other_granule(choice: _Choice, core: np.ndarray) -> np.ndarray:
    """True where a tile's pixel does not come from the granule nearest to the tile's centre."""
    other = np.zeros(core.shape, bool)
    names = np.array([scene.granule for scene in choice.scenes] + [""], dtype=object)
    for tile, rows, cols in _tile_slices(choice.block, choice.frame):
        part = core[rows, cols]
        present = [n for n in np.unique(part) if n >= 0]
        if not present:
            continue
        present += _missed(choice, rows, cols)  # what they miss may be the nearest
        if len(present) > 1:
            main = min(present, key=lambda n: _tile_distance(choice.scenes[n], tile))
            other[rows, cols] = (part >= 0) & (names[part] != names[main])
    return other


def _missed(choice: _Choice, rows: slice, cols: slice) -> list[int]:
    """Scenes that could not be read, and would have come first somewhere in a part of the frame."""
    halo = choice.halo_px
    return [
        unread.number
        for unread in choice.unread
        if unread.lost is not None and _core(unread.lost, halo)[rows, cols].any()
    ]


def _tile_distance(scene: Scene, tile: Tile) -> tuple[float, str]:
    x0, y0, x1, y1 = tile.bounds
    x, y = _centre(scene, tile.lattice)
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


def _reader(
    choice: _Choice, core: np.ndarray, options: ReadOptions
) -> Callable[[tuple[int, str]], tuple[np.ndarray, tuple[slice, slice]] | ReadError]:
    boxes = {n: _bounding_box(core == n) for n in range(len(choice.scenes)) if (core == n).any()}

    def read(job: tuple[int, str]) -> tuple[np.ndarray, tuple[slice, slice]] | ReadError:
        number, band = job
        scene, lattice = choice.scenes[number], choice.block.lattice
        resolution_m = lattice.level(native_resolution_m(band))
        factor = lattice.coarse // resolution_m
        rows, cols = (slice(s.start * factor, s.stop * factor) for s in boxes[number])
        window = PixelWindow(
            choice.frame.row_off * factor + rows.start,
            choice.frame.col_off * factor + cols.start,
            rows.stop - rows.start,
            cols.stop - cols.start,
        )
        try:
            dn = read_asset(
                scene,
                scene.asset(band),
                zone=choice.block.zone,
                window=window,
                resolution_m=resolution_m,
                retries=options.retries,
                seconds=options.seconds,
                memory=choice.memory,
                engine=options.engine,
            )
        except ReadError as error:
            if options.raise_errors:
                raise
            return error
        return dn, (rows, cols)

    return read


def _place(
    layers: _Layers,
    choice: _Choice,
    core: np.ndarray,
    number: int,
    band: str,
    result: tuple[np.ndarray, tuple[slice, slice]] | ReadError,
    bands: Sequence[str],
) -> None:
    """Put one band of one scene where the scene was chosen."""
    lattice = choice.block.lattice
    resolution_m = lattice.level(native_resolution_m(band))
    factor = lattice.coarse // resolution_m
    quality = layers.quality[resolution_m]
    if isinstance(result, ReadError):
        quality[_upsample(core == number, factor)] |= np.uint8(Quality.FAILED_READ)
        return
    dn, (rows, cols) = result
    position = _bands_at(bands, resolution_m, lattice).index(band)
    share = Share(core, number, factor)
    offset = choice.scenes[number].dn_offset
    target = layers.reflectance[resolution_m][position]
    place_band(dn, offset, share, (rows.start, cols.start), target, quality)


def _failure(
    choice: _Choice, number: int, error: ReadError, where: np.ndarray, reach: int = 0
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


def _core(values: np.ndarray, halo: int) -> np.ndarray:
    return values[halo : values.shape[0] - halo, halo : values.shape[1] - halo]


def _upsample(values: np.ndarray, factor: int) -> np.ndarray:
    return values if factor == 1 else values.repeat(factor, axis=0).repeat(factor, axis=1)


def _bounding_box(where: np.ndarray) -> tuple[slice, slice]:
    rows, cols = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
