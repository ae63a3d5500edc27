"""The ``s2`` product: one time entry per datatake, surface reflectance as observed."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from eoray.cube.layout import (
    DONE,
    DONE_WITH_HOLES,
    NO_SCENE,
    ArraySpec,
    GroupSpec,
    Hole,
    ProductSpec,
    TileResult,
    tile_px,
)
from eoray.cube.mask import (
    LEARNED_HALO_PX,
    CloudClassifier,
    MaskRecipe,
    count_pixels,
    mask_learned,
    mask_scl,
)
from eoray.cube.plan import SceneRow, scenes_over
from eoray.cube.terrain import TerrainRecipe, mark_terrain
from eoray.errors import GridError
from eoray.grid import (
    Block,
    Lattice,
    PixelWindow,
    Tile,
    lattice_of,
)
from eoray.reading.choice import Choice, choose
from eoray.reading.cog import BlockMemory
from eoray.reading.mosaic import FailedRead, Mosaic, ReadOptions, read_chosen
from eoray.reading.requests import Patience
from eoray.sentinel2 import FILL, SCALE, WAVELENGTHS_UM, Mask, Quality, Scl, native_resolution_m

PRODUCT = "s2"

PART_COLS = 2
"""Tiles that are held at once: memory is then the same for any size of area."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What is read at once."""

    row: SceneRow
    block: Block
    tiles: Mapping[Tile, str]
    """With their sources."""
    memory: BlockMemory
    """Of the row's bands."""
    is_last: bool
    """Of its row."""


@dataclass(frozen=True, slots=True)
class CubeRecipe:
    """What makes two cubes comparable; stored as the product's parameters."""

    bands: tuple[str, ...]
    mask: MaskRecipe
    lineage: Mapping[str, Any]
    collection: str
    warp: bool = False
    grid: Lattice | None = None
    """The user's grid; None for the world grid. No parameter: the store knows it by itself."""
    terrain: TerrainRecipe | None = None
    """The DEM that terrain is flagged by."""
    overviews: bool = False
    """The grid is so coarse that overviews of files are read, where they have any."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Resolutions that are stored, the finest first."""
        return (self.grid or lattice_of(1)).levels

    def level(self, band: str) -> int:
        """Resolution at which a band is stored."""
        return (self.grid or lattice_of(1)).level(native_resolution_m(band))

    def parameters(self) -> dict[str, Any]:
        """The recipe as stored attributes."""
        return {
            "bands": list(self.bands),
            "mask": self.mask.name,
            "lineage": dict(self.lineage),
            "collection": self.collection,
            "warp": self.warp,
            **(self.terrain.parameters() if self.terrain else {}),
            **({"overviews": True} if self.overviews else {}),
        }


def scene_product(recipe: CubeRecipe) -> ProductSpec:
    """Arrays of the ``s2`` product for a recipe."""
    groups = []
    for resolution_m in recipe.levels:
        bands = tuple(b for b in recipe.bands if recipe.level(b) == resolution_m)
        arrays = [_quality_spec()]
        coords = {}
        if bands:
            arrays.insert(0, reflectance_spec(bands))
            coords["band"] = bands
        if resolution_m == recipe.levels[-1]:
            arrays += [_scl_spec(), _mask_spec(recipe.mask)]
        groups.append(GroupSpec(resolution_m, tuple(arrays), coords))
    return ProductSpec(
        PRODUCT,
        tuple(groups),
        recipe.parameters(),
        title="Sentinel-2 L2A surface reflectance, one entry per datatake",
    )


def reflectance_spec(bands: Sequence[str], name: str = "reflectance") -> ArraySpec:
    """The stored reflectance array of some bands."""
    return ArraySpec(
        name,
        "int16",
        (("band", len(bands)),),
        FILL,
        {
            "long_name": "surface reflectance",
            "units": "1",
            "scale_factor": SCALE,
            "wavelength_um": [WAVELENGTHS_UM[b] for b in bands],
        },
    )


def _quality_spec() -> ArraySpec:
    return ArraySpec(
        "quality",
        "uint8",
        fill=int(Quality.NO_DATA),
        attrs=_flags(Quality, "how the pixel came to be"),
    )


def _mask_spec(recipe: MaskRecipe) -> ArraySpec:
    attrs = {**_flags(Mask, "why the pixel is not clear; 0 is clear"), "recipe": recipe.name}
    return ArraySpec("mask", "uint8", fill=int(Mask.INVALID), attrs=attrs)


def _scl_spec() -> ArraySpec:
    attrs = {
        "long_name": "Sen2Cor scene classification",
        "flag_values": [int(c) for c in Scl],
        "flag_meanings": " ".join(c.name.lower() for c in Scl),
    }
    return ArraySpec("scl", "uint8", fill=0, attrs=attrs)


def _flags(bits: type[Quality | Mask], long_name: str) -> dict[str, Any]:
    return {
        "long_name": long_name,
        "flag_masks": [int(b) for b in bits],
        "flag_meanings": " ".join(str(b.name).lower() for b in bits),
    }


@dataclass(frozen=True, slots=True)
class SceneWorker:
    """Reads a row and returns its tiles."""

    recipe: CubeRecipe
    raise_errors: bool = False
    retries: int = 2
    seconds: float = 120.0
    clouds: CloudClassifier | None = None
    """What finds clouds beside SCL, or instead of it."""

    def __call__(self, row: SceneRow) -> Iterator[TileResult]:
        """Read the block part by part, each tile of its files once, and cut it into tiles."""
        with closing(self.stream(iter((row,)))) as found:
            for _, results in found:
                yield from results

    def stream(self, rows: Iterator[SceneRow]) -> Generator[tuple[SceneRow, Iterator[TileResult]]]:
        """Do so with rows, one after the other.

        While a part is encoded, the next one is read, and the scene classification of the one
        behind it: one wait for the server instead of three. The next row's first parts are read
        behind the last ones of a row.
        """
        first, second = _threads()
        with (
            closing(ahead(self._choose(rows), first)) as choices,
            closing(ahead(_read(choices), second)) as mosaics,
        ):
            for begun in mosaics:
                yield begun[0].row, self._cut_row(begun, mosaics)

    def _cut_row(
        self, found: tuple[_Part, Mosaic], mosaics: Iterator[tuple[_Part, Mosaic]]
    ) -> Iterator[TileResult]:
        """Cut a row's parts, of which the first one is given."""
        part, mosaic = found
        yield from self._cut(part, mosaic)
        while not part.is_last:
            part, mosaic = next(mosaics)
            yield from self._cut(part, mosaic)

    def _choose(self, rows: Iterator[SceneRow]) -> Iterator[tuple[_Part, Choice, ReadOptions]]:
        """Read the scene classification of each part."""
        options = ReadOptions(
            bands=self.recipe.bands,
            warp=self.recipe.warp,
            raise_errors=self.raise_errors,
            retries=self.retries,
            seconds=self.seconds,
            context=() if self.clouds is None else self.clouds.bands,
        )
        for row in rows:
            parts = list(parts_of(row))
            memory, bands = _memory_of(parts), _memory_of(parts)
            for number, (block, tiles) in enumerate(parts, start=1):
                given = replace(options, halo_px=self._halo(block, tiles))
                part = _Part(row, block, tiles, bands, is_last=number == len(parts))
                yield part, choose(row.scenes, block, given, memory), given
                memory.next_part()

    def _halo(self, part: Block, tiles: Iterable[Tile]) -> int:
        """Pixels of SCL around a part that its masks look at."""
        ground = {part.lattice.ground_m(tile.row, tile.col) for tile in tiles}
        halo = max(self.recipe.mask.halo_at(size) for size in ground)
        return halo if self.clouds is None else max(halo, LEARNED_HALO_PX)

    def _cut(self, part: _Part, mosaic: Mosaic) -> Iterator[TileResult]:
        """Mask a part and cut it into tiles."""
        row, tiles = part.row, part.tiles
        recipe, lattice = self.recipe.mask, part.block.lattice
        ground = {tile: lattice.ground_m(tile.row, tile.col) for tile in tiles}
        halo = self._halo(part.block, tiles)
        inside = np.s_[halo:-halo, halo:-halo]
        masks = {}
        if self.clouds is None:
            sizes = {*ground.values()}
            masks = {size: mask_scl(mosaic.scl, recipe, size)[inside] for size in sizes}
        layers = {f"{lattice.coarse}m/scl": (mosaic.scl[inside], 0)}
        for resolution_m in lattice.levels:
            layers[f"{resolution_m}m/quality"] = mosaic.quality[resolution_m], int(Quality.NO_DATA)
            if len(mosaic.reflectance[resolution_m]):
                layers[f"{resolution_m}m/reflectance"] = mosaic.reflectance[resolution_m], FILL
        for tile, source in tiles.items():
            whole: dict[str, np.ndarray] = {}
            if self.clouds is None:
                layers[f"{lattice.coarse}m/mask"] = masks[ground[tile]], int(Mask.INVALID)
            else:
                mask = _learned_mask(self.clouds, recipe, mosaic, tile, halo)
                whole[f"{lattice.coarse}m/mask"] = mask
            result = _cut(mosaic, layers, row.entry, tile, source, whole)
            if self.recipe.terrain is not None and result.n_valid:
                here = scenes_over(row.scenes, tile)
                patience = Patience(self.retries, self.seconds)
                mark_terrain(dict(result.arrays), tile, self.recipe.terrain, here, patience)
                result = replace(result, n_masked=count_tile(result.arrays, tile)[1])
            yield result


def _learned_mask(
    clouds: CloudClassifier, recipe: MaskRecipe, mosaic: Mosaic, tile: Tile, halo: int
) -> np.ndarray:
    """The mask of one tile from its own pixels and its halo, whatever it was read with.

    A network's answer for a pixel depends on the whole picture (its means, its strides), so the
    picture is always the tile.
    """
    lattice, reach = tile.lattice, LEARNED_HALO_PX
    window = tile.window(lattice.coarse).buffered(reach)
    frame = mosaic.frame.buffered(halo)
    if mosaic.context is None:
        raise GridError(f"tile {tile.id} was read without the bands {clouds.bands} of its mask")
    reflectance = _fit(mosaic.context, frame, window, FILL)
    scl = _fit(mosaic.scl, frame, window, int(Scl.NO_DATA))
    classes = clouds(reflectance)
    mask = mask_learned(classes, scl, recipe, lattice.ground_m(tile.row, tile.col))
    return np.ascontiguousarray(mask[reach:-reach, reach:-reach])


def _fit(values: np.ndarray, frame: PixelWindow, window: PixelWindow, fill: int) -> np.ndarray:
    """Pixels of a window from those of a frame; fill beyond it."""
    out = np.full((*values.shape[:-2], window.height, window.width), fill, values.dtype)
    top, left = window.row_off - frame.row_off, window.col_off - frame.col_off
    r0, r1 = max(0, top), min(frame.height, top + window.height)
    c0, c1 = max(0, left), min(frame.width, left + window.width)
    if r0 < r1 and c0 < c1:
        out[..., r0 - top : r1 - top, c0 - left : c1 - left] = values[..., r0:r1, c0:c1]
    return out


def ahead[T](items: Iterator[T], pool: ThreadPoolExecutor) -> Generator[T]:
    """Yield items; while one is used, the next is made in a pool of one thread."""
    end = object()
    coming = pool.submit(next, items, end)
    try:
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield cast("T", item)
    finally:
        wait([coming])


_of_thread = threading.local()


def _threads() -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
    """Two threads of this thread's own, kept: each new one would hold on to memory of its own."""
    if not hasattr(_of_thread, "pools"):
        _of_thread.pools = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor] = _of_thread.pools
    return pools


def _read(
    choices: Iterable[tuple[_Part, Choice, ReadOptions]],
) -> Iterator[tuple[_Part, Mosaic]]:
    """Read the bands of each part."""
    for part, choice, options in choices:
        yield part, read_chosen(choice, options, part.memory)
        part.memory.next_part()


def _memory_of(parts: Sequence[tuple[Block, Mapping[Tile, str]]]) -> BlockMemory:
    return BlockMemory(reach=len({block.col for block, _ in parts}))


def row_parts(row: SceneRow) -> list[Block]:
    """What a row is read in, one after the other."""
    return [part for part, _ in parts_of(row)]


def parts_of(row: SceneRow) -> Iterator[tuple[Block, dict[Tile, str]]]:
    """Neighbours along the rows of a block, north to south, with the sources of their tiles."""
    sources = dict(zip(row.tiles, row.sources, strict=True))
    block = row.block
    for i in range(block.row, block.row + block.n_rows):
        for j in range(block.col, block.col + block.n_cols, PART_COLS):
            n_cols = min(PART_COLS, block.col + block.n_cols - j)
            tiles = {t: s for t, s in sources.items() if t.row == i and 0 <= t.col - j < n_cols}
            if tiles:
                yield Block(block.zone, i, j, 1, n_cols), tiles


def _cut(
    mosaic: Mosaic,
    layers: Mapping[str, tuple[np.ndarray, int]],
    entry: str,
    tile: Tile,
    source: str,
    whole: Mapping[str, np.ndarray],
) -> TileResult:
    """One whole tile: the frame's pixels where it reaches, fill elsewhere."""
    arrays = dict(whole)
    for path, (values, fill) in layers.items():
        resolution_m = int(path.split("m/", maxsplit=1)[0])
        arrays[path] = _paste(values, mosaic.frame, tile, resolution_m, fill)
    holes = tuple(_hole(failure) for failure in mosaic.failed if tile in failure.tiles)
    n_valid, n_masked = count_tile(arrays, tile)
    status = DONE_WITH_HOLES if holes else DONE if n_valid else NO_SCENE
    return TileResult(
        tile,
        entry,
        arrays,
        status,
        n_valid,
        len(holes),
        source,
        n_masked=n_masked,
        n_reads=mosaic.reads.get(tile, 0),
        holes=holes,
    )


def count_tile(arrays: Mapping[str, np.ndarray], tile: Tile) -> tuple[int, int]:
    """(valid pixels of the finest level with bands, those of them that are not clear)."""
    levels = [m for m in tile.lattice.levels if f"{m}m/reflectance" in arrays]
    finest = levels[0] if levels else tile.lattice.coarse
    return count_pixels(arrays[f"{finest}m/quality"], arrays[f"{tile.lattice.coarse}m/mask"])


def _hole(failure: FailedRead) -> Hole:
    return Hole(
        failure.item_id,
        failure.band,
        failure.reason,
        failure.detail,
        failure.attempts,
        failure.host,
    )


def _paste(
    values: np.ndarray, frame: PixelWindow, tile: Tile, resolution_m: int, fill: int
) -> np.ndarray:
    """The tile's part of a frame: a view where the frame holds all of it."""
    factor = tile.lattice.coarse // resolution_m
    px = tile_px(resolution_m, tile.zone)
    window = tile.window(resolution_m)
    top, left = frame.row_off * factor, frame.col_off * factor
    r0, r1 = max(window.row_off, top), min(window.row_off + px, top + frame.height * factor)
    c0, c1 = max(window.col_off, left), min(window.col_off + px, left + frame.width * factor)
    if (r1 - r0, c1 - c0) == (px, px):
        return values[..., r0 - top : r1 - top, c0 - left : c1 - left]
    out = np.full((*values.shape[:-2], px, px), fill, values.dtype)
    if r0 < r1 and c0 < c1:
        out[
            ...,
            r0 - window.row_off : r1 - window.row_off,
            c0 - window.col_off : c1 - window.col_off,
        ] = values[..., r0 - top : r1 - top, c0 - left : c1 - left]
    return out
