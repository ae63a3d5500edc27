"""Which granule of a datatake each pixel takes, and what misses it when one cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numba
import numpy as np

from eoray.errors import ReadError
from eoray.grid import Block, Lattice, PixelWindow
from eoray.reading.gdal import io_pool
from eoray.reading.warp import transformer
from eoray.reading.window import AssetWindow, asset_resolution_m, check_congruent, read_asset
from eoray.sentinel2 import Scl

if TYPE_CHECKING:
    from pyproj import Transformer

    from eoray.catalog.scene import BandAsset, Scene
    from eoray.reading.cog import BlockMemory
    from eoray.reading.mosaic import ReadOptions


_EMPTY = int(Scl.NO_DATA)


@dataclass(slots=True)
class Choice:
    """Which scene each 20 m pixel takes, halo included."""

    scenes: list[Scene]
    """In the order in which they were offered."""
    block: Block
    frame: PixelWindow
    """Part of the block that files can reach, in pixels of SCL, without the halo."""
    index: np.ndarray
    """Number of the scene, int16; -1 where none is valid."""
    scl: np.ndarray
    edge: np.ndarray
    """True beside no data of the scene that was taken."""
    distance: np.ndarray
    """Squared distance from the middle of that scene's file, m2; inf where none was taken."""
    memory: BlockMemory | None = None
    halo_px: int = 0
    unread: list[Unread] = field(default_factory=list)


@dataclass(slots=True)
class Unread:
    """A scene whose SCL could not be read: nobody knows which pixels it would have held."""

    number: int
    error: ReadError
    claim: np.ndarray
    """Squared distance where the scene would have come first when it was offered, else inf."""
    lost: np.ndarray | None = None
    """True where it would have come first among all; set once all scenes were offered."""

    def settle(self, choice: Choice) -> None:
        """Compare with those that were offered later."""
        self.lost = np.isfinite(self.claim) & (self.claim <= choice.distance)

    def where(self, choice: Choice) -> np.ndarray:
        """True where pixels miss it, dims (y, x) of the frame.

        That is where it would have come first, and beside it as far as masks grow: whether its
        clouds reach there is not known either.
        """
        if self.lost is None:
            return np.zeros_like(without_halo(choice.index, choice.halo_px), bool)
        near = _grown(self.lost, choice.halo_px) & (choice.index >= 0)
        return without_halo(self.lost | near, choice.halo_px)


def choose(
    scenes: Sequence[Scene], block: Block, options: ReadOptions, memory: BlockMemory | None
) -> Choice:
    """Offer each scene its pixels, those of the lattice's own CRS first.

    Args:
        scenes: Items of one datatake, any order.
        block: Tiles of one zone.
        options: Bands, halo, warping, error handling.
        memory: Keeps decoded tiles of the files.

    Raises:
        GridError: A granule of this zone does not fit the lattice and ``warp`` is off.
        ReadError: A scene classification could not be read and ``raise_errors`` is on.
    """
    frame = _frame(scenes, block)
    window = frame.buffered(options.halo_px)
    shape = (window.height, window.width)
    ordered = sorted(scenes, key=lambda s: s.item_id)
    own = [s for s in ordered if block.lattice.is_home(s.grid_epsg)]
    foreign = [s for s in ordered if not block.lattice.is_home(s.grid_epsg)]
    choice = Choice(
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


def without_halo(values: np.ndarray, halo: int) -> np.ndarray:
    """The inner part of an array, dims (y, x)."""
    return values[halo : values.shape[0] - halo, halo : values.shape[1] - halo]


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


def _offer(choice: Choice, scene: Scene, window: PixelWindow, options: ReadOptions) -> None:
    """Give a scene the pixels where it is valid and nearer than the one that holds them."""
    asset, lattice = scene.extent, choice.block.lattice
    home, own = lattice.is_home(scene.grid_epsg), scene.grid_epsg == lattice.epsg
    if own and not _extent(asset, window, lattice).any():
        return
    try:
        what = AssetWindow(
            scene,
            asset,
            choice.block.zone,
            window,
            lattice.coarse,
            options.retries,
            options.seconds,
            choice.memory,
            options.engine,
        )
        scl = io_pool().submit(read_asset, what).result()
    except ReadError as error:
        if options.raise_errors:
            raise
        hole = _extent(asset, window, lattice) if own else _foreign_extent(scene, window, lattice)
        far = _claim(scene, window, lattice, home=home)
        claim = np.where(hole & (far < choice.distance), far, np.inf)
        choice.unread.append(Unread(choice.scenes.index(scene), error, claim))
        return
    if asset.band != "SCL":
        scl = np.where(scl == asset.nodata, Scl.NO_DATA, Scl.UNCLASSIFIED).astype(np.uint8)
    away = _axes_distance(scene, window, lattice) if home else _nowhere(window)
    within = _axes_inside(asset, window, lattice) if own else (_all(away[0]), _all(away[1]))
    into = choice.index, choice.scl, choice.distance, choice.edge
    _take(scl, choice.scenes.index(scene), away, within, into)


@numba.njit(nogil=True, cache=True)
def _take(
    scl: np.ndarray,
    number: int,
    far: tuple[np.ndarray, np.ndarray],
    inside: tuple[np.ndarray, np.ndarray],
    into: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Write a scene's pixels where it is valid and nearer: index, SCL, distance, edge.

    An edge is a pixel with no data beside it within the file: slivers there carry spurious values.
    """
    index, classes, distance, edge = into
    height, width = scl.shape
    empty = np.zeros((height, width), np.bool_)
    has_empty = np.zeros(height + 2, np.bool_)
    for r in range(height):
        if inside[0][r]:
            for c in range(width):
                empty[r, c] = inside[1][c] and scl[r, c] == _EMPTY
            has_empty[r + 1] = empty[r].any()
    for r in range(height):
        look = has_empty[r : r + 3].any()
        for c in range(width):
            d = far[0][r] + far[1][c]
            if scl[r, c] != _EMPTY and d < distance[r, c]:
                index[r, c] = number
                classes[r, c] = scl[r, c]
                distance[r, c] = d
                edge[r, c] = look and _any_near(empty, r, c)


@numba.njit(nogil=True, cache=True)
def _any_near(where: np.ndarray, row: int, col: int) -> bool:
    """Tell whether one of nine pixels is marked."""
    height, width = where.shape
    for r in range(max(0, row - 1), min(height, row + 2)):
        for c in range(max(0, col - 1), min(width, col + 2)):
            if where[r, c]:
                return True
    return False


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache on disk."""
    line, yes = np.zeros(1, np.float32), np.ones(1, np.bool_)
    pixel = np.zeros((1, 1), np.uint8)
    into = pixel.astype(np.int16), pixel.copy(), np.ones((1, 1), np.float32), pixel > 0
    _take(pixel, 0, (line, line), (yes, yes), into)


def _extent(asset: BandAsset, window: PixelWindow, lattice: Lattice) -> np.ndarray:
    """True inside a file of the lattice's CRS, dims (y, x) of a window of SCL."""
    inside_y, inside_x = _axes_inside(asset, window, lattice)
    return np.asarray(inside_y[:, None] & inside_x[None, :])


def _axes_inside(
    asset: BandAsset, window: PixelWindow, lattice: Lattice
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a window of SCL within a file of the lattice's CRS."""
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    x, y = lattice.centres(window, lattice.coarse)
    return (y < f) & (y > f + e * height), (x > c) & (x < c + a * width)


def _nowhere(window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
    """Distances of foreign scenes: they take what is left, in order."""
    return np.zeros(window.height, np.float32), np.zeros(window.width, np.float32)


def _all(axis: np.ndarray) -> np.ndarray:
    return np.ones(axis.shape, np.bool_)


def _foreign_extent(scene: Scene, window: PixelWindow, lattice: Lattice) -> np.ndarray:
    """True inside the SCL of a scene of another CRS, dims (y, x) of a window of SCL."""
    asset = scene.extent
    grid_x, grid_y = np.meshgrid(*lattice.centres(window, lattice.coarse))
    x, y = _to_lattice(scene, lattice).transform(grid_x, grid_y, direction="INVERSE")
    a, _, c, _, e, f = asset.transform
    height, width = asset.shape
    return np.asarray((x > c) & (x < c + a * width) & (y < f) & (y > f + e * height))


def _claim(scene: Scene, window: PixelWindow, lattice: Lattice, *, home: bool) -> np.ndarray:
    """What decides between scenes, the least first, dims (y, x), float32."""
    y, x = _axes_distance(scene, window, lattice) if home else _nowhere(window)
    return np.asarray(y[:, None] + x[None, :])


def _axes_distance(
    scene: Scene, window: PixelWindow, lattice: Lattice
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance of rows and columns from the file's centre, in m2, float32."""
    x, y = lattice.centres(window, lattice.coarse)
    centre_x, centre_y = centre_of(scene, lattice)
    dx, dy = x - centre_x, y - centre_y
    return (dy**2).astype(np.float32), (dx**2).astype(np.float32)


def centre_of(scene: Scene, lattice: Lattice) -> tuple[float, float]:
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
