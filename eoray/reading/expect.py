"""Where a task will read the files of its scenes, judged by their outlines instead of by SCL.

Of overlapping granules a pixel takes one, so their bands are read in parts (``reading.choice``).
Who is first is known without a pixel: by the middles of the files, where outlines say that
there is anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eoray.grid import Affine6, Block, Bounds, Zone, lattice_of
from eoray.reading.choice import centre_of
from eoray.reading.warp import transformer
from eoray.reading.window import asset_resolution_m

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from eoray.catalog.scene import Scene

_CELLS = 64, 512
"""Along the edge of a tile, least and most: 160 m of the world grid, a sixth of a block of 1024 px
of 10 m; 20 m for files of a kilometre."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a task reads of one scene over a part of its block."""

    scene: Scene
    classes: Bounds
    """Where it looks for pixels of the scene, in the lattice's CRS."""
    bands: Bounds | None
    """The box around those that it takes; None where others hold them all."""


def expect_reads(scenes: Sequence[Scene], part: Block, margin: float) -> Iterator[Expected]:
    """Say where each scene of a datatake is read.

    Args:
        scenes: Items of one datatake, any order.
        part: Tiles that are read together.
        margin: By which masks look beyond the part, in units of the lattice's CRS.
    """
    lattice = part.lattice
    x0, y0, x1, y1 = part.bounds
    around = x0 - margin, y0 - margin, x1 + margin, y1 + margin
    cells = _cells_of(scenes, part)
    shape = part.n_rows * cells, part.n_cols * cells
    x, y = _middles(x0, x1, shape[1]), _middles(y1, y0, shape[0])
    taken = np.full(shape, -1, np.int16)
    nearest = np.full(shape, np.inf)
    ordered = sorted(scenes, key=lambda s: (not lattice.is_home(s.grid_epsg), s.item_id))
    looked = []
    for number, scene in enumerate(ordered):
        home = lattice.is_home(scene.grid_epsg)
        if not home and (taken >= 0).all():
            continue
        valid = _cells(_outline(scene, part.zone), part.bounds, shape)
        looked.append(number)
        if home:
            cx, cy = centre_of(scene, lattice)
            distance = (x - cx)[None, :] ** 2 + (y - cy)[:, None] ** 2
        else:
            distance = np.where(taken >= 0, np.inf, 0.0)  # takes what is left
        better = valid & (distance < nearest)
        taken[better], nearest[better] = number, distance[better]
    for number in looked:
        yield Expected(ordered[number], around, _box(taken == number, x, y))


def _cells_of(scenes: Sequence[Scene], part: Block) -> int:
    """Cells along the edge of a tile: 64 along the smallest file, within limits."""
    tile_m = part.lattice.edge_m
    edges = [scene.extent.shape[1] * asset_resolution_m(scene.extent) for scene in scenes]
    low, high = _CELLS
    return min(high, max(low, -(-64 * tile_m // min(edges))))


def _outline(scene: Scene, zone: Zone) -> BaseGeometry:
    file = scene.extent
    return _outline_of(scene.footprint, file.transform, file.shape, scene.grid_epsg, zone)


@lru_cache(maxsize=4096)
def _outline_of(
    footprint: bytes, transform: Affine6, shape: tuple[int, int], epsg: int, zone: Zone
) -> BaseGeometry:
    """What a file holds, in the lattice's CRS: its rectangle where the satellite saw anything."""
    import shapely

    lattice = lattice_of(zone)
    a, _, left, _, e, top = transform
    box = shapely.box(left, top + e * shape[0], left + a * shape[1], top)
    if epsg != lattice.epsg:
        box = _moved(shapely.segmentize(box, shape[1] * a / 8), epsg, lattice.epsg)
    seen = _moved(shapely.from_wkb(footprint), 4326, lattice.epsg)
    return box.intersection(seen.buffer(0))


def _moved(geometry: BaseGeometry, source: int, target: int) -> BaseGeometry:
    import shapely

    to_target = transformer(source, target)

    def move(points: np.ndarray) -> np.ndarray:
        return np.column_stack(to_target.transform(*points.T))

    return shapely.transform(geometry, move)


def _cells(outline: BaseGeometry, bounds: Bounds, shape: tuple[int, int]) -> np.ndarray:
    """True for the cells of a rectangle whose middles an outline holds, dims (y, x)."""
    from affine import Affine
    from rasterio.features import rasterize

    x0, y0, x1, y1 = bounds
    if outline.is_empty:
        return np.zeros(shape, bool)
    cell = Affine((x1 - x0) / shape[1], 0, x0, 0, -(y1 - y0) / shape[0], y1)
    found = rasterize([outline], shape, transform=cell, dtype="uint8")
    return np.asarray(found, bool)


def _middles(start: float, stop: float, count: int) -> np.ndarray:
    return start + (np.arange(count) + 0.5) * (stop - start) / count


def _box(where: np.ndarray, x: np.ndarray, y: np.ndarray) -> Bounds | None:
    """Bounds of the cells that are True."""
    if not where.any():
        return None
    rows, cols = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    half = (x[1] - x[0]) / 2
    return (
        float(x[cols[0]] - half),
        float(y[rows[-1]] - half),
        float(x[cols[-1]] + half),
        float(y[rows[0]] + half),
    )
