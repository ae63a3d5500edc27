"""Which tiles share a file: those of one zone and hemisphere that touch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eoray.grid import SOUTH_M, PixelWindow, Tile, Zone, lattice_of, zone_of_epsg

if TYPE_CHECKING:
    from affine import Affine

MAX_EDGE = 64
"""Tiles along the edge of a file at most: 65 536 px of 10 m, which viewers and GDAL take well."""


@dataclass(frozen=True, slots=True)
class TileGroup:
    """Tiles that are published as one raster."""

    tiles: tuple[Tile, ...]
    """Sorted; all of one zone and one hemisphere."""

    @property
    def id(self) -> str:
        """Id of the first tile, unique among groups."""
        return self.tiles[0].id

    @property
    def zone(self) -> Zone:
        """UTM zone, or the user's grid."""
        return self.tiles[0].zone

    @property
    def pixel_m(self) -> int:
        """Resolution of the published raster: the finest of the grid."""
        return self.tiles[0].lattice.levels[0]

    @property
    def epsg(self) -> int:
        """Code of the published raster: 327zz in the south."""
        return self.tiles[0].epsg + (100 if self.tiles[0].is_south else 0)

    def window(self, resolution_m: int) -> PixelWindow:
        """Pixels of the zone that the raster covers."""
        rows, cols = [t.row for t in self.tiles], [t.col for t in self.tiles]
        px = self.tiles[0].lattice.px(resolution_m)
        return PixelWindow(
            min(rows) * px,
            min(cols) * px,
            (max(rows) - min(rows) + 1) * px,
            (max(cols) - min(cols) + 1) * px,
        )

    def transform(self, resolution_m: int) -> Affine:
        """Affine of the published raster, in its own hemisphere's CRS."""
        return published_grid(self.zone, self.window(resolution_m), resolution_m)[1]


def published_grid(zone: Zone, window: PixelWindow, resolution_m: int) -> tuple[int, Affine]:
    """Name a window of a zone in the CRS that it is published in.

    A window that lies south of the equator gets EPSG:327zz and exactly 10 000 000 m more of
    northing: the same pixels, so nothing is resampled. One that crosses the equator stays in the
    northern CRS.

    Returns:
        (EPSG code, affine from pixel corners to units of it).
    """
    from affine import Affine

    lattice = lattice_of(zone)
    pixel, _, x, _, _, y, *_ = lattice.affine(window, resolution_m)
    south = zone_of_epsg(lattice.epsg) is not None and y <= 0
    affine = Affine(pixel, 0, x, 0, -pixel, y + (SOUTH_M if south else 0))
    return lattice.epsg + (100 if south else 0), affine


def group_tiles(tiles: Iterable[Tile], *, max_edge: int = MAX_EDGE) -> list[TileGroup]:
    """Collect tiles that touch, corners included, into rasters of bounded size.

    Args:
        tiles: Tiles of any zones.
        max_edge: No raster spans more tiles in a row or column; larger areas are cut along
            multiples of it, so a tile's file does not depend on far tiles.

    Returns:
        Groups in order of their first tile; every tile once.
    """
    halves: dict[tuple[Zone, bool], set[Tile]] = {}
    for tile in tiles:
        halves.setdefault((tile.zone, tile.is_south), set()).add(tile)
    parts: list[tuple[Tile, ...]] = []
    for members in halves.values():
        for part in _connected(members):
            parts += [part] if _edge(part) <= max_edge else _cut(part, max_edge)
    return sorted((TileGroup(part) for part in parts), key=lambda group: group.tiles[0])


def _cut(tiles: tuple[Tile, ...], edge: int) -> list[tuple[Tile, ...]]:
    cells: dict[tuple[int, int], set[Tile]] = {}
    for tile in tiles:
        cells.setdefault((tile.row // edge, tile.col // edge), set()).add(tile)
    return [part for members in cells.values() for part in _connected(members)]


def _edge(tiles: tuple[Tile, ...]) -> int:
    rows, cols = [t.row for t in tiles], [t.col for t in tiles]
    return max(max(rows) - min(rows), max(cols) - min(cols)) + 1


def _connected(tiles: set[Tile]) -> list[tuple[Tile, ...]]:
    places = {(tile.row, tile.col): tile for tile in tiles}
    parts = []
    while places:
        stack, part = [min(places)], []
        while stack:
            at = stack.pop()
            tile = places.pop(at, None)
            if tile is None:
                continue
            part.append(tile)
            stack += [(at[0] + i, at[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        parts.append(tuple(sorted(part)))
    return parts
