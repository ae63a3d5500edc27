"""The ``s2`` product: one time entry per datatake, surface reflectance as observed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.layout import (
    DONE,
    DONE_WITH_HOLES,
    NO_SCENE,
    ArraySpec,
    GroupSpec,
    ProductSpec,
    TileResult,
    TimeEntry,
    tile_px,
)
from eoray.cube.mask import (
    LEARNED_HALO_PX,
    CloudClassifier,
    MaskRecipe,
    mask_learned,
    mask_scl,
)
from eoray.errors import GridError
from eoray.grid import (
    TILE_M,
    Block,
    Lattice,
    PixelWindow,
    Tile,
    Zone,
    blocks_of_tiles,
    box_lonlat,
    lattice_of,
)
from eoray.reading.cog import BlockMemory
from eoray.reading.mosaic import Mosaic, ReadOptions, read_mosaic
from eoray.sentinel2 import FILL, SCALE, WAVELENGTHS_UM, Mask, Quality, Scl, native_resolution_m

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene

PRODUCT = "s2"

BLOCK_EDGE = 4
"""Tiles along a block: a 1024 px block of a COG is then decoded 1.4 to 1.6 times, not 3.9."""

PART_COLS = 2
"""Tiles that are held at once: memory is then the same for any size of area."""


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
        }


@dataclass(frozen=True, slots=True)
class SceneRow:
    """A datatake over a block of tiles: one task."""

    key: str
    entry: str
    block: Block
    tiles: tuple[Tile, ...]
    scenes: tuple[Scene, ...]
    sources: tuple[str, ...]
    """What each tile is made from, as the ledger keeps it."""

    def only(self, tiles: Sequence[Tile]) -> SceneRow:
        """The row reduced to some of its tiles."""
        kept = [(t, s) for t, s in zip(self.tiles, self.sources, strict=True) if t in tiles]
        ((block, members),) = blocks_of_tiles([t for t, _ in kept], BLOCK_EDGE)
        return replace(self, block=block, tiles=members, sources=tuple(s for _, s in sorted(kept)))


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


def plan_scenes(
    scenes: Sequence[Scene], tiles: Sequence[Tile]
) -> tuple[dict[Zone, list[TimeEntry]], list[SceneRow]]:
    """Group scenes and tiles into time entries and tasks.

    Args:
        scenes: Resolved scenes of one lineage, any order.
        tiles: Tiles of the AOI.

    Returns:
        Entries by zone, and rows sorted by zone, time and block. Each (tile, datatake) that a
        scene touches is in exactly one row, and no row depends on the others.
    """
    takes: dict[str, list[Scene]] = {}
    for scene in sorted(scenes, key=lambda s: (s.sensing_time, s.datatake, s.item_id)):
        takes.setdefault(scene.datatake, []).append(scene)
    outlines = {tile: _lonlat_outline(tile) for tile in tiles}
    entries: dict[Zone, list[TimeEntry]] = {}
    rows: list[SceneRow] = []
    for datatake, members in takes.items():
        touching = {tile: _touching(members, tile, outlines[tile]) for tile in sorted(tiles)}
        here = [tile for tile, found in touching.items() if found]
        for zone in sorted({tile.zone for tile in here}):
            used = {s for t in here if t.zone == zone for s in touching[t]}
            entries.setdefault(zone, []).append(_entry(datatake, sorted(used, key=_by_id)))
        rows += [
            _row(datatake, b, group, touching) for b, group in blocks_of_tiles(here, BLOCK_EDGE)
        ]
    rows.sort(key=lambda row: (row.block.zone, row.scenes[0].sensing_time, row.key))
    return entries, rows


def _by_id(scene: Scene) -> str:
    return scene.item_id


def _lonlat_outline(tile: Tile) -> Any:
    import shapely
    from pyproj import Transformer

    to_lonlat = Transformer.from_crs(tile.epsg, 4326, always_xy=True)
    half = tile.lattice.edge * 5_000 / TILE_M
    ring = shapely.segmentize(_with_margin(tile), half)
    lonlat = shapely.transform(ring, lambda xy: np.stack(to_lonlat.transform(*xy.T), axis=1))
    west, south, east, north = lonlat.bounds
    if east - west > 180:  # the outline crosses the antimeridian
        lon = shapely.get_coordinates(lonlat)[:, 0]
        return box_lonlat(lon[lon > 0].min(), south, lon[lon < 0].max(), north)
    return lonlat


def _with_margin(tile: Tile) -> Any:
    """A tile and what masks look at around it, in its CRS."""
    import shapely

    (y, x), box = tile.lattice.margin(tile.row, tile.col), shapely.box(*tile.bounds)
    if x == y:
        return box.buffer(x)
    x0, y0, x1, y1 = tile.bounds
    return shapely.box(x0 - x, y0 - y, x1 + x, y1 + y)


def _touching(scenes: Sequence[Scene], tile: Tile, outline: Any) -> tuple[Scene, ...]:
    """Scenes that may hold pixels of a tile, or of the margin that masks look at."""
    return tuple(s for s in scenes if _touches(s, tile, outline))


def _touches(scene: Scene, tile: Tile, outline: Any) -> bool:
    import shapely

    if scene.grid_epsg == tile.epsg:
        x0, y0, x1, y1 = tile.bounds
        margin_y, margin_x = tile.lattice.margin(tile.row, tile.col)
        asset = scene.extent
        a, _, c, _, e, f = asset.transform
        height, width = asset.shape
        in_x = c < x1 + margin_x and c + a * width > x0 - margin_x
        return in_x and f > y0 - margin_y and f + e * height < y1 + margin_y
    west, south, east, north = scene.bbox
    return bool(shapely.intersects(box_lonlat(west, south, east, north), outline))


def _row(
    datatake: str,
    block: Block,
    tiles: tuple[Tile, ...],
    touching: Mapping[Tile, tuple[Scene, ...]],
) -> SceneRow:
    scenes = sorted({s for tile in tiles for s in touching[tile]}, key=_by_id)
    return SceneRow(
        key=f"{datatake}/{tiles[0].id}x{len(tiles)}",
        entry=datatake,
        block=block,
        tiles=tiles,
        scenes=tuple(scenes),
        sources=tuple(_source(touching[tile]) for tile in tiles),
    )


def _source(scenes: Sequence[Scene]) -> str:
    """Ids with what decides their values; never hrefs, which may be signed."""
    return "; ".join(
        f"{s.item_id} baseline {s.baseline or '?'} offset {s.dn_offset:+d} ({s.offset_rule})"
        for s in sorted(scenes, key=_by_id)
    )


def _entry(datatake: str, scenes: Sequence[Scene]) -> TimeEntry:
    first = scenes[0]
    refined = {s.refined for s in scenes}
    columns: dict[str, str | float | int] = {
        "solar_day": min(s.solar_day for s in scenes),
        "satellite": first.satellite,
        "relative_orbit": first.relative_orbit,
        "provider": _joined(s.provider for s in scenes),
        "baseline": _joined(s.baseline for s in scenes),
        "offset_rule": _joined(s.offset_rule for s in scenes),
        "refined": -1 if None in refined or len(refined) > 1 else int(bool(refined.pop())),
    }
    for name in ("sun_zenith", "sun_azimuth", "view_zenith", "view_azimuth"):
        columns[name] = float(np.mean([getattr(s, name) for s in scenes]))
    return TimeEntry(datatake, first.sensing_time, columns)


def _joined(values: Iterator[str]) -> str:
    return "+".join(sorted({value or "?" for value in values}))


@dataclass(frozen=True, slots=True)
class SceneWorker:
    """Reads a row and returns its tiles."""

    recipe: CubeRecipe
    raise_errors: bool = False
    retries: int = 2
    clouds: CloudClassifier | None = None
    """What finds clouds beside SCL, or instead of it."""

    def __call__(self, row: SceneRow) -> Iterator[TileResult]:
        """Read the block part by part, each tile of its files once, and cut it into tiles."""
        options = ReadOptions(
            bands=self.recipe.bands,
            warp=self.recipe.warp,
            raise_errors=self.raise_errors,
            retries=self.retries,
            context=() if self.clouds is None else self.clouds.bands,
        )
        parts = list(_parts(row))
        memory = BlockMemory(reach=len({part.col for part, _ in parts}))
        for part, tiles in parts:
            yield from self._part(row, part, tiles, options, memory)
            memory.next_part()

    def _part(
        self,
        row: SceneRow,
        part: Block,
        tiles: Mapping[Tile, str],
        options: ReadOptions,
        memory: BlockMemory,
    ) -> Iterator[TileResult]:
        """Read a few tiles."""
        recipe, lattice = self.recipe.mask, part.lattice
        ground = {tile: lattice.ground_m(tile.row, tile.col) for tile in tiles}
        halo = max(recipe.halo_at(size) for size in ground.values())
        if self.clouds is not None:
            halo = max(halo, LEARNED_HALO_PX)
        mosaic = read_mosaic(row.scenes, part, replace(options, halo_px=halo), memory)
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
            yield _cut(mosaic, layers, row.entry, tile, source, whole)


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


def _parts(row: SceneRow) -> Iterator[tuple[Block, dict[Tile, str]]]:
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
    n_failed = sum(tile in failure.tiles for failure in mosaic.failed)
    levels = [m for m in tile.lattice.levels if f"{m}m/reflectance" in arrays]
    finest = levels[0] if levels else tile.lattice.coarse
    quality = arrays[f"{finest}m/quality"]
    n_valid = int(((quality & np.uint8(Quality.NO_DATA)) == 0).sum())
    status = DONE_WITH_HOLES if n_failed else DONE if n_valid else NO_SCENE
    return TileResult(tile, entry, arrays, status, n_valid, n_failed, source)


def _paste(
    values: np.ndarray, frame: PixelWindow, tile: Tile, resolution_m: int, fill: int
) -> np.ndarray:
    factor = tile.lattice.coarse // resolution_m
    px = tile_px(resolution_m, tile.zone)
    out = np.full((*values.shape[:-2], px, px), fill, values.dtype)
    window = tile.window(resolution_m)
    top, left = frame.row_off * factor, frame.col_off * factor
    r0, r1 = max(window.row_off, top), min(window.row_off + px, top + frame.height * factor)
    c0, c1 = max(window.col_off, left), min(window.col_off + px, left + frame.width * factor)
    if r0 < r1 and c0 < c1:
        out[
            ...,
            r0 - window.row_off : r1 - window.row_off,
            c0 - window.col_off : c1 - window.col_off,
        ] = values[..., r0 - top : r1 - top, c0 - left : c1 - left]
    return out
