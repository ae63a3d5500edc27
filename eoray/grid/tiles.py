"""Many tiles as numbers: a place may have millions, and few of them are looked at one by one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import attrgetter
from typing import overload

import numpy as np

from eoray.grid.lattice import Lattice, Zone, lattice_of
from eoray.grid.tile import Tile

_ORDER = attrgetter("zone", "row", "col")
"""As tiles compare, but in C."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Tiles of one zone, in order of row and column."""

    zone: Zone
    rows: np.ndarray
    """Row of each, int64."""
    cols: np.ndarray
    """Column of each, int64."""

    def __len__(self) -> int:
        """How many."""
        return len(self.rows)

    @property
    def lattice(self) -> Lattice:
        """What the tiles are cells of."""
        return lattice_of(self.zone)

    @property
    def places(self) -> np.ndarray:
        """Row times columns of the lattice plus column, ascending: one number for each."""
        return np.asarray(self.rows * self.lattice.n_cols + self.cols)

    def tile(self, position: int) -> Tile:
        """One of the tiles."""
        return Tile(self.zone, int(self.rows[position]), int(self.cols[position]))

    def __iter__(self) -> Iterator[Tile]:
        """Tiles in order, made as they are asked for."""
        for row, col in zip(self.rows.tolist(), self.cols.tolist(), strict=True):
            yield Tile(self.zone, row, col)


class Tiles(Sequence[Tile]):
    """Tiles of a place in order of zone, row and column, each once; made as they are asked for."""

    def __init__(self, parts: Iterable[Cells]) -> None:
        """Join zones.

        Args:
            parts: Each zone once, ascending.
        """
        self.parts = tuple(part for part in parts if len(part))
        self._ends = list(accumulate(len(part) for part in self.parts))

    @classmethod
    def of(cls, tiles: Iterable[Tile]) -> Tiles:
        """Bring tiles into order; those that are, are given back."""
        if isinstance(tiles, Tiles):
            return tiles
        parts = []
        for zone, group in groupby(sorted(set(tiles), key=_ORDER), attrgetter("zone")):
            rows, cols = np.array([(tile.row, tile.col) for tile in group]).T
            parts.append(Cells(zone, rows, cols))
        return cls(parts)

    def __len__(self) -> int:
        """How many."""
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Tile]:
        """Tiles in order."""
        for part in self.parts:
            yield from part

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tile]: ...
    def __getitem__(self, index: int | slice) -> Tile | list[Tile]:
        """One tile, or a list of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        at = bisect_right(self._ends, position)
        return self.parts[at].tile(position - (self._ends[at] - len(self.parts[at])))

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same tiles in the same order."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        """As of the tiles."""
        return hash(tuple(self))

    def __repr__(self) -> str:
        """How many, and where they begin and end."""
        ends = f": {self[0].id} to {self[-1].id}" if len(self) else ""
        return f"<{len(self)} tiles{ends}>"
