"""Cells of a lattice: tiles, and the blocks of them that tasks read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from eoray.errors import ConfigError, GridError
from eoray.grid.lattice import (
    ZONE_COLS,
    ZONE_ROWS,
    Bounds,
    Lattice,
    PixelWindow,
    Zone,
    lattice_of,
    zone_of_epsg,
)

if TYPE_CHECKING:
    from affine import Affine
    from odc.geo.geobox import GeoBox

_ORDER = attrgetter("zone", "row", "col")
"""As tiles compare, but in C."""

_TILE_ID = re.compile(r"z(\d{2})r(\d{4})c(\d{3})")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A cell of the world grid, or of a user's grid."""

    zone: Zone
    """UTM zone, 1 to 60, or the user's grid."""
    row: int
    """0 in the north."""
    col: int
    """0 in the west, at easting 0 of a zone."""

    def __post_init__(self) -> None:
        """Refuse a cell outside the lattice."""
        if isinstance(self.zone, Lattice):
            self._check(self.zone)
            return
        rows = 0 <= self.row < ZONE_ROWS
        if not (1 <= self.zone <= 60 and rows and 0 <= self.col < ZONE_COLS):
            raise GridError(
                f"tile z{self.zone}r{self.row}c{self.col} lies outside the world grid; "
                f"zones run 1..60, rows 0..{ZONE_ROWS - 1}, columns 0..{ZONE_COLS - 1}"
            )

    def _check(self, grid: Lattice) -> None:
        if not (0 <= self.row < grid.n_rows and 0 <= self.col < grid.n_cols):
            raise GridError(
                f"tile {self.id} lies outside grid {grid.name!r}; rows run 0..{grid.n_rows - 1}, "
                f"columns 0..{grid.n_cols - 1}"
            )

    @property
    def lattice(self) -> Lattice:
        """What the tile is a cell of."""
        return lattice_of(self.zone)

    @property
    def utm_zone(self) -> int:
        """Number of the zone.

        Raises:
            GridError: The tile is a cell of a user's grid, and who asks knows the world grid only.
        """
        if isinstance(self.zone, Lattice):
            raise GridError(
                f"tile {self.id} is a cell of {self.zone.label}, but models are fitted and applied "
                "on the world grid only; make the cube with cube.grid: world"
            )
        return self.zone

    @property
    def id(self) -> str:
        """Name of the tile, such as ``z32r0457c048``."""
        return f"{self.lattice.name}r{self.row:04d}c{self.col:03d}"

    @classmethod
    def from_id(cls, text: str) -> Tile:
        """Read a tile id.

        Raises:
            ConfigError: The text is no tile id, or names a cell outside the grid.
        """
        match = _TILE_ID.fullmatch(text)
        if match is None:
            raise ConfigError(f"tile id {text!r} cannot be read; write it like 'z32r0457c048'")
        return cls(*(int(part) for part in match.groups()))

    @property
    def epsg(self) -> int:
        """EPSG code of the CRS; of a zone the northern one."""
        return self.lattice.epsg

    @property
    def bounds(self) -> Bounds:
        """(x min, y min, x max, y max) in units of the CRS: metres in a zone."""
        return self.lattice.bounds(self.row, self.col)

    @property
    def is_south(self) -> bool:
        """True where a tile of a UTM CRS lies south of the equator; no tile of a zone crosses."""
        return zone_of_epsg(self.epsg) is not None and self.bounds[3] <= 0

    def transform(self, resolution_m: int) -> Affine:
        """Affine from (col, row) of a pixel corner to (x, y)."""
        return self.lattice.affine(self.window(resolution_m), resolution_m)

    def geobox(self, resolution_m: int) -> GeoBox:
        """Shape, affine and CRS of the tile at a resolution."""
        from odc.geo.geobox import GeoBox

        px = self.lattice.px(resolution_m)
        return GeoBox((px, px), self.transform(resolution_m), f"EPSG:{self.epsg}")

    def window(self, resolution_m: int) -> PixelWindow:
        """The tile's pixels in the zone-wide array of a resolution."""
        px = self.lattice.px(resolution_m)
        return PixelWindow(self.row * px, self.col * px, px, px)


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of tiles of one zone: what one task reads at once."""

    zone: Zone
    row: int
    col: int
    n_rows: int
    n_cols: int

    def window(self, resolution_m: int) -> PixelWindow:
        """The block's pixels in the zone-wide array of a resolution."""
        px = self.lattice.px(resolution_m)
        return PixelWindow(self.row * px, self.col * px, self.n_rows * px, self.n_cols * px)

    @property
    def lattice(self) -> Lattice:
        """What the tiles are cells of."""
        return lattice_of(self.zone)

    @property
    def bounds(self) -> Bounds:
        """(x min, y min, x max, y max) in units of the CRS: metres in a zone."""
        return self.lattice.bounds(self.row, self.col, self.n_rows, self.n_cols)


def blocks_of_tiles(tiles: list[Tile], edge: int) -> Iterator[tuple[Block, tuple[Tile, ...]]]:
    """Group tiles into blocks of up to ``edge`` x ``edge``, aligned to the grid.

    Yields:
        The smallest block that holds a group, and the group's tiles in order. Each tile comes
        once, and the grouping of a tile does not depend on the other tiles.
    """
    for zone, part in groupby(sorted(tiles, key=_ORDER), attrgetter("zone")):
        members = list(part)
        rows, cols = np.array([(tile.row, tile.col) for tile in members]).T
        for block, positions in blocks_of_cells(zone, rows, cols, edge):
            yield block, tuple(members[i] for i in positions)


def blocks_of_cells(
    zone: Zone, rows: np.ndarray, cols: np.ndarray, edge: int
) -> Iterator[tuple[Block, list[int]]]:
    """Group the cells of one zone as :func:`blocks_of_tiles` does, thousands at once.

    Args:
        zone: Where they lie.
        rows: Row of each cell, one dim.
        cols: Column of each.
        edge: Cells along a block.

    Yields:
        The smallest block that holds a group, and the positions of its cells, ascending.
    """
    if not len(rows):
        return
    home = rows // edge * (lattice_of(zone).n_cols // edge + 1) + cols // edge
    order = np.argsort(home, kind="stable")
    first = np.flatnonzero(np.diff(home[order], prepend=-1))
    top, bottom = (ends.reduceat(rows[order], first).tolist() for ends in (np.minimum, np.maximum))
    left, right = (ends.reduceat(cols[order], first).tolist() for ends in (np.minimum, np.maximum))
    positions, borders = order.tolist(), [*first.tolist(), len(order)]
    for i, (begin, end) in enumerate(pairwise(borders)):
        block = Block(zone, top[i], left[i], bottom[i] - top[i] + 1, right[i] - left[i] + 1)
        yield block, positions[begin:end]
