"""Tie the rows of a stage to the state of what they read, so that new input is seen.

The ledger keeps one line of source per tile. Rows of scenes name their items; rows of later
stages name a digest over the ledger entries that they read. A row is done when that line is the
same; a scene that came late changes the digest of the tiles that it touched, and of no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eoray.cube.layout import TileResult
from eoray.errors import GridError
from eoray.grid import Tile, Zone

if TYPE_CHECKING:
    from eoray.cube.ledger import Ledger
    from eoray.cube.read import CubeReader
    from eoray.cube.write import Worker


@dataclass(frozen=True, slots=True)
class SourcedRow:
    """A row of one tile with the line that the ledger will keep."""

    row: Any
    sources: tuple[str, ...]

    @property
    def key(self) -> str:
        """Key of the row inside."""
        return str(self.row.key)

    @property
    def entry(self) -> str:
        """Time entry of the row inside."""
        return str(self.row.entry)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Tiles of the row inside."""
        tiles: tuple[Tile, ...] = self.row.tiles
        return tiles

    def only(self, tiles: Sequence[Tile]) -> SourcedRow:
        """The row itself: rows of these stages have one tile."""
        if tuple(tiles) != self.tiles:
            raise GridError(
                f"row {self.key} owns {', '.join(t.id for t in self.tiles)} and cannot be cut to "
                f"{', '.join(t.id for t in tiles)}; stages after the cube plan one tile a row"
            )
        return self


@dataclass(frozen=True, slots=True)
class SourcedWorker:
    """A worker whose results carry the planned line."""

    worker: Worker

    def __call__(self, row: SourcedRow) -> Iterator[TileResult]:
        """Run the worker on the row inside."""
        lines = dict(zip(row.tiles, row.sources, strict=True))
        for result in self.worker(row.row):
            yield replace(result, source=lines[result.tile])


def with_sources(rows: Iterable[Any], line: Callable[[Tile, Any], str]) -> list[SourcedRow]:
    """Attach the ledger line of each tile to rows."""
    return [SourcedRow(row, tuple(line(tile, row) for tile in row.tiles)) for row in rows]


class DigestLines:
    """Lines over what a product holds around a tile."""

    def __init__(self, reader: CubeReader, product: str, *, neighbours: bool) -> None:
        """Read ledgers of a product.

        Args:
            reader: The store.
            product: What the rows read.
            neighbours: Whether the eight tiles around count too (a halo is read).
        """
        self._ledgers: dict[Zone, Ledger] = {
            zone: reader.ledger(product, zone) for zone in reader.zones(product)
        }
        self._product = product
        self._reach = (-1, 0, 1) if neighbours else (0,)

    def line(self, tile: Tile, entries: Iterable[str], also: str = "") -> str:
        """Describe the state of some entries around a tile."""
        ledger = self._ledgers[tile.zone]
        known = sorted(set(entries))
        hasher = hashlib.sha256(also.encode())
        count = 0
        for place in self._around(tile):
            for entry in known:
                receipt = ledger.get(place, entry)
                if receipt is not None and receipt.digest:
                    count += place == tile
                    hasher.update(f"{place.id} {entry} {receipt.digest:016x}\n".encode())
        return f"{count} entries of {self._product} {hasher.hexdigest()[:16]}"

    def _around(self, tile: Tile) -> Iterator[Tile]:
        for i in self._reach:
            for j in self._reach:
                row, col = tile.row + i, tile.col + j
                if 0 <= row < tile.lattice.n_rows and 0 <= col < tile.lattice.n_cols:
                    yield Tile(tile.zone, row, col)
