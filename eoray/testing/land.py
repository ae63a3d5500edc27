"""The ground: what lies in each cell of 2.5 m, as segments that behave alike.

A segment is a field, a stand of trees, a roof, a reach of river: an id per cell, and a row of a
table that says its material and its name, from which its traits are drawn. Rendering a date then
means computing a spectrum per segment and mixing them by their share in each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from eoray.testing.frame import Frame
from eoray.testing.noise import enlarge, generator, hash_unit, rough_field, smooth_field

_STEP = 8
"""Ground cells between two nodes of the smooth fields: 20 m."""

_STRIP = 64
"""Rows of ground drawn at once, so that the temporaries stay in the processor's cache."""

_MOST_CELLS = 4096
"""Bricks on either side of the origin that a name has room for."""

# Families of segments keep their names apart.
_TRACK, _HEDGE, _FOREST, _PIT, _VILLAGE, _SINGLE = (family << 40 for family in range(1, 7))


class Material(IntEnum):
    """What a segment is made of."""

    RIVER = 0
    LAKE = 1
    POND = 2
    SPRUCE = 3
    PINE = 4
    BEECH = 5
    OAK = 6
    YOUNG = 7
    CROP = 8
    MEADOW = 9
    HAY = 10
    PASTURE = 11
    ASPHALT = 12
    GREY_ROOF = 13
    RED_ROOF = 14
    BRIGHT_ROOF = 15
    GARDEN = 16
    LIMESTONE = 17
    GRAVEL = 18
    DARK_SOIL = 19


CLASS_OF = np.array([1, 1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7], np.uint8)
"""Class id of each material: position in ``options.CLASSES``, counted from 1."""


@dataclass(frozen=True, slots=True)
class Land:
    """The ground of one site."""

    frame: Frame
    segment: np.ndarray
    """Dims (y, x), uint16 or uint32: row of the tables in each cell."""
    material: np.ndarray
    """Dims (segment), uint8: ``Material``."""
    key: np.ndarray
    """Dims (segment), int64: name of the segment, from which its traits are drawn."""
    wetness_m: np.ndarray
    """Dims (y, x) at 20 m, float32: height above the river's normal level in metres."""

    @property
    def classes(self) -> np.ndarray:
        """Class id of each segment, uint8."""
        return np.asarray(CLASS_OF[self.material])


def build_land(frame: Frame, seed: int) -> Land:
    """Draw a landscape: river and lakes, forests, fields, villages, roads, pits.

    Args:
        frame: Lattice of 2.5 m cells.
        seed: Another seed gives another landscape.
    """
    fields = _Fields(frame, seed)
    away, wetness = _lay_river(fields)
    names = np.empty(frame.shape, np.int64)
    for row in range(0, frame.rows, _STRIP):
        strip = _Strip(fields, row, min(row + _STRIP, frame.rows))
        names[row : row + _STRIP] = _draw_strip(strip, away)
    segment, unique = _number_segments(names)
    return Land(frame, segment, (unique % 32).astype(np.uint8), unique // 32, wetness)


class _Fields:
    """Smooth fields over the ground at 20 m, drawn when first asked for."""

    def __init__(self, frame: Frame, seed: int) -> None:
        self.frame, self.seed = frame, seed
        self.shape = (frame.rows // _STEP + 2, frame.cols // _STEP + 2)
        self.drawn: dict[str, np.ndarray] = {}

    def __call__(self, name: str, length_m: float, octaves: int = 1) -> np.ndarray:
        if name not in self.drawn:
            rng = generator(self.seed, "land", name)
            length_px = length_m / (self.frame.cell_m * _STEP)
            # long fields are drawn on fewer nodes: a wide kernel costs more than all the rest
            step = max(1, int(length_px / 2 ** (octaves - 1) // 6))
            shape = (-(-self.shape[0] // step) + 1, -(-self.shape[1] // step) + 1)
            field = rough_field(rng, shape, length_px / step, octaves)
            self.drawn[name] = enlarge(field, self.shape, step)
        return self.drawn[name]


class _Strip:
    """Some rows of the ground."""

    def __init__(self, fields: _Fields, start: int, stop: int) -> None:
        self.fields, self.start = fields, start
        self.shape = (stop - start, fields.frame.cols)
        cell = np.float32(fields.frame.cell_m)
        self.x = np.broadcast_to(np.arange(self.shape[1], dtype=np.float32) * cell, self.shape)
        rows = np.arange(start, stop, dtype=np.float32)[:, None] * cell
        self.y = np.broadcast_to(rows, self.shape)

    def __call__(self, name: str, length_m: float, octaves: int = 1) -> np.ndarray:
        return self.enlarge(self.fields(name, length_m, octaves))

    def enlarge(self, coarse: np.ndarray) -> np.ndarray:
        first = self.start // _STEP
        return enlarge(coarse[first : first + _STRIP // _STEP + 2], self.shape, _STEP)


@dataclass(frozen=True, slots=True)
class _Cells:
    """Some cells of a strip, as flat arrays."""

    strip: _Strip
    mask: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def __call__(self, name: str, length_m: float) -> np.ndarray:
        return np.asarray(self.strip(name, length_m)[self.mask])

    def turned(self, angle: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, s = np.cos(angle, dtype=np.float32), np.sin(angle, dtype=np.float32)
        return self.x * c + self.y * s, self.y * c - self.x * s


def _draw_strip(strip: _Strip, away: np.ndarray) -> np.ndarray:
    """Name what lies in each cell: 32 x key + material, int64; the later covers the earlier."""
    layers = _singles(strip, away)
    covered = np.zeros(strip.shape, bool)
    for mask, _, _ in layers:
        covered |= mask
    names = np.empty(strip.shape, np.int64)
    town = strip("town", 330) + strip("town-edge", 45) * np.float32(0.12) > 1.3
    pit = strip("pit", 130) + strip("pit-edge", 25) * np.float32(0.12) > 1.72
    forest = strip("forest", 620) + strip("ragged", 70, 2) * np.float32(0.16) > 0.42
    forest |= strip("copse", 55) > 2.05
    free = ~covered
    for wanted, draw in ((town, _villages), (pit, _pits), (forest, _forest), (free, _farmland)):
        mask = wanted & free
        free &= ~mask
        if mask.any():
            names[mask] = draw(_Cells(strip, mask, strip.x[mask], strip.y[mask]))
    for mask, material, key in layers:
        names[mask] = key * 32 + material
    return names


def _singles(strip: _Strip, away: np.ndarray) -> list[tuple[np.ndarray, Material, int]]:
    """List roads and waters as (mask, material, key), the later covering the earlier."""
    distance = strip.enlarge(away)
    lake = strip("lake", 240) + strip("shore", 30) * np.float32(0.03)
    main, lane = strip.enlarge(_road(strip.fields, 1300)), strip.enlarge(_road(strip.fields, 800))
    bank = (distance < 52.0) & (strip("gallery", 60) > -0.3)
    bars = (distance < 40.0) & (strip("bars", 45) > 1.1)
    return [
        (bank, Material.YOUNG, _SINGLE),
        (np.abs(lane) < 4.0, Material.ASPHALT, _SINGLE + 6),
        (np.abs(main) < 6.0, Material.ASPHALT, _SINGLE + 5),
        (bars, Material.GRAVEL, _SINGLE + 1),
        (distance < 24.0, Material.RIVER, _SINGLE + 2),
        (lake > 2.1, Material.LAKE, _SINGLE + 3),
        (strip("pond", 45) > 2.9, Material.POND, _SINGLE + 4),
    ]


def _road(fields: _Fields, length_m: int) -> np.ndarray:
    """Distance to a line that winds through the site: where a smooth field is zero. Metres."""
    name = f"road-distance-{length_m}"
    if name not in fields.drawn:
        field = fields(f"road-{length_m}", length_m)
        slope = np.hypot(*np.gradient(field, fields.frame.cell_m * _STEP))
        fields.drawn[name] = np.asarray(field / np.maximum(slope, 1e-5), np.float32)
    return fields.drawn[name]


def _lay_river(fields: _Fields) -> tuple[np.ndarray, np.ndarray]:
    """Lay a river from north to south: distance to its middle, and height above it, in metres."""
    frame, (rows, cols) = fields.frame, fields.shape
    node_m = frame.cell_m * _STEP
    bends = smooth_field(generator(fields.seed, "land", "bends"), (rows, 3), 45.0)[:, 0]
    bends = (
        bends + 0.25 * smooth_field(generator(fields.seed, "land", "turns"), (rows, 3), 12.0)[:, 0]
    )
    centre = frame.cols * frame.cell_m * (0.3 + 0.06 * bends)
    lean = np.hypot(1.0, np.gradient(centre, node_m))
    x = np.arange(cols) * node_m
    away = np.abs(x[None, :] - centre[:, None]) / lean[:, None] + 5 * fields("shoal", 120)
    wetness = np.maximum(away - 24.0, 0.0) * 0.022
    wetness += 0.5 * (1 + fields("terrace", 150)).clip(0)
    return away.astype(np.float32), wetness.astype(np.float32)


def _bricks(
    u: np.ndarray, v: np.ndarray, width: float, height: float, salt: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay bricks: rows of cells, each row shifted by its own length.

    Returns:
        Name of the brick (int64) and the place within it along u and v, in metres.
    """
    row = np.floor(v * np.float32(1 / height)).astype(np.int32)
    shifts = hash_unit(np.arange(2 * _MOST_CELLS), salt) * np.float32(width)
    along = u + shifts[row + _MOST_CELLS]
    col = np.floor(along * np.float32(1 / width)).astype(np.int32)
    name = (row + _MOST_CELLS).astype(np.int64) * (2 * _MOST_CELLS) + (col + _MOST_CELLS)
    return name, along - col * np.float32(width), v - row * np.float32(height)


def _farmland(cells: _Cells) -> np.ndarray:
    """Strips of crop, meadow, hay and pasture, bordered by tracks and hedges."""
    region = (cells("lay-a", 900) > 0) * np.int8(2) + (cells("lay-b", 1100) > 0)
    u, v = cells.turned(np.array([0.15, 0.75, -0.45, 1.2], np.float32)[region])
    bend = cells("bend", 260) * np.float32(14)
    brick, at_u, at_v = _bricks(u + bend, v + bend, 380.0, 210.0, 11)
    brick += region.astype(np.int64) * (2 * _MOST_CELLS) ** 2
    n_strips = 1 + (hash_unit(brick, 12) * 5).astype(np.int32)
    strip = np.minimum((at_u * np.float32(1 / 380.0) * n_strips).astype(np.int32), n_strips - 1)
    name = brick * 8 + strip
    lush = cells("lush", 700) * np.float32(0.11) + hash_unit(name, 13)
    pick = hash_unit(name, 14)
    material = np.full(name.shape, Material.MEADOW, np.int64)
    material[pick > 0.45] = Material.HAY
    material[pick > 0.75] = Material.PASTURE
    arable = lush < 0.56
    material[arable] = Material.CROP
    # tramlines: wheel tracks every 24 m along the strip, seen as texture of arable land alone
    key = name * 2 + (arable & (at_v % np.float32(24.0) < 5.0))
    track = (at_v < 5.0) | (at_u < 2.6)
    material[track] = Material.HAY
    key[track] = brick[track] % 64 + _TRACK
    hedge = (at_v > 202.0) & (hash_unit(brick, 15) > 0.72)
    material[hedge] = Material.YOUNG
    key[hedge] = brick[hedge] % 64 + _HEDGE
    return np.asarray(key * 32 + material)


def _forest(cells: _Cells) -> np.ndarray:
    """Stands of spruce, pine, beech, oak and young growth."""
    u, v = cells.turned(0.5)
    warp = cells("stand-warp", 90) * np.float32(28)
    name, _, _ = _bricks(u + warp, v - warp, 260.0, 190.0, 21)
    needles = hash_unit(name, 22) + cells("needles", 900) * np.float32(0.16) > 0.48
    pick = hash_unit(name, 23)
    leaves = np.where(pick > 0.66, Material.YOUNG, np.where(pick > 0.33, 6, 5))
    material = np.where(needles, np.where(pick > 0.6, Material.PINE, Material.SPRUCE), leaves)
    return np.asarray((name + _FOREST) * 32 + material)


def _pits(cells: _Cells) -> np.ndarray:
    """Quarries, gravel pits and heaps of dark soil."""
    name, _, _ = _bricks(*cells.turned(0.2), 90.0, 90.0, 31)
    kind = cells("pit-kind", 350)
    material = np.where(kind > -0.4, Material.GRAVEL, Material.DARK_SOIL)
    material[kind > 0.35] = Material.LIMESTONE
    return np.asarray((name + _PIT) * 32 + material)


def _villages(cells: _Cells) -> np.ndarray:
    """Blocks of houses and gardens between streets, and halls."""
    u, v = cells.turned(-0.25)
    block, block_u, block_v = _bricks(u, v, 92.0, 66.0, 41)
    lot, at_u, at_v = _bricks(u, v, 23.0, 22.0, 42)
    pick, use = hash_unit(lot, 43), hash_unit(block, 44)
    house = (at_u > 4.0) & (at_u < 17.0) & (at_v > 5.0) & (at_v < 16.0) & (pick > 0.2)
    hall = (use > 0.8) & (block_u > 12) & (block_u < 82) & (block_v > 10)
    material = np.full(block.shape, Material.GARDEN, np.int64)
    material[house] = np.where(pick > 0.62, Material.RED_ROOF, Material.GREY_ROOF)[house]
    material[hall] = np.where(use > 0.93, Material.BRIGHT_ROOF, Material.GREY_ROOF)[hall]
    material[(block_u < 7.0) | (block_v < 7.0)] = Material.ASPHALT
    # houses share a dozen roofs: a segment for each would make a table of thousands
    name = np.where(house & ~hall, (pick * 12).astype(np.int64), block % 1024 + 64)
    return np.asarray((name + _VILLAGE) * 32 + material)


def _number_segments(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace names by consecutive ids in their order; sorts runs along a row, not cells."""
    flat = names.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    unique, codes = np.unique(flat[starts], return_inverse=True)
    small = codes.astype(np.uint16 if len(unique) < 50_000 else np.uint32)
    lengths = np.diff(np.append(starts, flat.size))
    return np.repeat(small, lengths).reshape(names.shape), unique
