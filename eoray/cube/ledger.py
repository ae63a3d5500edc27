"""The ledger: which tile of which date is done, from what, and what it holds.

It lies beside the pixels in the same repository and becomes visible in the same commit, so a
run that was killed is planned again against it and goes on. There is no other bookkeeping.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from eoray.cube import store
from eoray.cube.layout import NEVER, Hole, TileResult, ZarrGroup, ledger_path
from eoray.cube.planes import read_planes, write_planes
from eoray.cube.shard import is_fill
from eoray.grid import Tile, Zone, lattice_of

BATCH = 64
"""Entries read at once: one round of requests instead of one for each entry."""


@dataclass(frozen=True, slots=True)
class TileReceipt:
    """What the ledger keeps of one tile at one time entry."""

    tile: Tile
    entry: str
    status: int
    n_valid: int
    n_failed: int
    digest: int
    """XXH3 of the decoded values, 64 bits; 0 for a tile of fill only."""
    source: str
    n_masked: int | None = None
    """Valid pixels that are not clear; None in products that do not count them."""
    n_reads: int = 0
    """Files that were needed; known to the run that wrote the tile, not stored."""
    holes: tuple[Hole, ...] = ()
    """Those that failed; stored in a table of their own, see ``cube.holes``."""


_ROWS_AT_ONCE = 64


def receipt_of(result: TileResult, fills: Mapping[str, float]) -> TileReceipt:
    """Digest a result before it is encoded.

    Args:
        result: Arrays of one tile.
        fills: Fill value per array path.
    """
    return TileReceipt(
        tile=result.tile,
        entry=result.entry,
        status=result.status,
        n_valid=int(result.n_valid),
        n_failed=int(result.n_failed),
        digest=digest_arrays(result.arrays, fills),
        source=result.source,
        n_masked=result.n_masked,
        n_reads=int(result.n_reads),
        holes=result.holes,
    )


def digest_arrays(arrays: Mapping[str, np.ndarray], fills: Mapping[str, float]) -> int:
    """Hash the decoded, little-endian, C-order values of all arrays of a (tile, time).

    Arrays of fill only count as absent, so what is not stored does not enter.
    """
    hasher = xxhash.xxh3_64()
    filled = True
    for path in sorted(arrays):
        values = arrays[path]
        if is_fill(values, fills[path]):
            continue
        filled = False
        hasher.update(path.encode())
        if values.dtype.kind == "f":
            values = _one_zero_one_nan(values)
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        for part in _in_order(little):
            hasher.update(np.ascontiguousarray(part).data)
    return 0 if filled else int(hasher.intdigest())


def _in_order(values: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces, dims (y, x), that make the array when laid end to end; copies of them stay small."""
    if values.flags.c_contiguous:
        yield values
        return
    for lead in np.ndindex(values.shape[:-2]):
        for row in range(0, values.shape[-2], _ROWS_AT_ONCE):
            yield values[(*lead, slice(row, row + _ROWS_AT_ONCE))]


def _one_zero_one_nan(values: np.ndarray) -> np.ndarray:
    """Equal numbers, equal bytes: a chunk of -0.0 is stored as fill and reads back as 0.0."""
    return np.where(np.isnan(values), values.dtype.type(np.nan), values + 0)


class Ledger:
    """One product's ledger in one zone, read entry by entry."""

    def __init__(self, root: ZarrGroup, product: str, zone: Zone) -> None:
        """Open the ledger; nothing but the entry keys and sources is read yet."""
        self.product = product
        self.zone = zone
        lattice = lattice_of(zone)
        self.shape = lattice.n_rows, lattice.n_cols
        self.entries = store.entry_keys(root, product, zone)
        self._index = {key: i for i, key in enumerate(self.entries)}
        path = ledger_path(product, zone)
        self._group: ZarrGroup | None = root.get(path)
        self._batches: dict[int, dict[str, _Cells]] = {}
        self._sources: list[str] | None = None
        self._fields: tuple[str, ...] | None = None

    @property
    def sources(self) -> list[str]:
        """The append-only table that ``source`` points into."""
        if self._sources is None:
            group = self._group
            self._sources = [] if group is None else [str(s) for s in group["sources"][:]]
        return self._sources

    def field(self, name: str, entry: str) -> np.ndarray:
        """One ledger array at one entry, dims (tile_y, tile_x)."""
        fill = store.LEDGER_FILLS.get(name, 0)
        plane = np.full(math.prod(self.shape), fill, store.LEDGER_ARRAYS[name])
        cells = self._cells(entry)
        plane[cells.place] = self._values(name, entry)
        return plane.reshape(self.shape)

    def get(self, tile: Tile, entry: str) -> TileReceipt | None:
        """What is known of a tile at an entry; None where nothing was ever done."""
        if entry not in self._index:
            return None
        cells = self._cells(entry)
        place = tile.row * self.shape[1] + tile.col
        at = int(np.searchsorted(cells.place, place))
        if at == len(cells.place) or cells.place[at] != place:
            return None
        return self._receipt(cells, at, entry)

    def column(self, name: str, tiles: Sequence[Tile], entry: str) -> np.ndarray:
        """One ledger array at some tiles of an entry; fill where nothing was ever done.

        Args:
            name: One of ``fields``; ``source`` counts into ``sources``, -1 where there is none.
            tiles: Of this zone.
            entry: Key of the time entry.
        """
        found = np.full(len(tiles), store.LEDGER_FILLS.get(name, 0), store.LEDGER_ARRAYS[name])
        cells = self._cells(entry) if entry in self._index else None
        if cells is not None and len(cells.place):
            wide = self.shape[1]
            places = np.fromiter((t.row * wide + t.col for t in tiles), np.int64, len(tiles))
            at = np.minimum(np.searchsorted(cells.place, places), len(cells.place) - 1)
            known = cells.place[at] == places
            found[known] = self._values(name, entry)[at[known]]
        return found

    def _receipt(self, cells: _Cells, at: int, entry: str) -> TileReceipt:
        row, col = divmod(int(cells.place[at]), self.shape[1])
        found = {name: int(self._values(name, entry)[at]) for name in self.fields}
        return TileReceipt(
            tile=Tile(self.zone, row, col),
            entry=entry,
            status=found["status"],
            n_valid=found["n_valid"],
            n_failed=found["n_failed"],
            digest=found["digest"],
            source=self.sources[found["source"]],
            n_masked=found.get("n_masked"),
        )

    def _cells(self, entry: str) -> _Cells:
        """What is done at an entry; its neighbours in the list are read with it."""
        batch = self._index[entry] // BATCH
        if batch not in self._batches:
            status = read_planes(self._group["status"], self._positions(batch))  # type: ignore[index]
            places = (np.flatnonzero(plane != NEVER) for plane in status)
            named = zip(self.entries[batch * BATCH :], places, strict=False)
            self._batches[batch] = {key: _Cells(place, {}) for key, place in named}
        return self._batches[batch][entry]

    def _values(self, name: str, entry: str) -> np.ndarray:
        """One array at the cells of an entry; a run that goes on asks for few of them."""
        cells = self._cells(entry)
        if name not in cells.values:
            batch = self._index[entry] // BATCH
            stored = read_planes(self._group[name], self._positions(batch))  # type: ignore[index]
            for beside, plane in zip(self._batches[batch].values(), stored, strict=True):
                beside.values[name] = plane.ravel()[beside.place]
        return cells.values[name]

    def _positions(self, batch: int) -> range:
        return range(batch * BATCH, min((batch + 1) * BATCH, len(self.entries)))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names for :meth:`field`."""
        if self._fields is None:
            self._fields = () if self._group is None else _stored(self._group)
        return self._fields

    def receipts(self, entry: str) -> list[TileReceipt]:
        """Every tile done at an entry, in order of row and column."""
        cells = self._cells(entry)
        return [self._receipt(cells, at, entry) for at in range(len(cells.place))]


@dataclass(frozen=True, slots=True)
class _Cells:
    """The tiles of one entry that are done: memory follows them, not the size of the zone."""

    place: np.ndarray
    """Row * columns of the zone + column, ascending."""
    values: dict[str, np.ndarray]


def write_receipts(root: ZarrGroup, product: str, receipts: Iterable[TileReceipt]) -> None:
    """Enter receipts; the caller commits them together with the shards."""
    by_zone: dict[Zone, dict[str, list[TileReceipt]]] = {}
    for receipt in receipts:
        by_zone.setdefault(receipt.tile.zone, {}).setdefault(receipt.entry, []).append(receipt)
    for zone, by_entry in by_zone.items():
        _write_zone(root, product, zone, by_entry)


def _write_zone(
    root: ZarrGroup, product: str, zone: Zone, by_entry: Mapping[str, list[TileReceipt]]
) -> None:
    group = root[ledger_path(product, zone)]
    index = {key: i for i, key in enumerate(store.entry_keys(root, product, zone))}
    rows = _source_rows(group, [r.source for rs in by_entry.values() for r in rs])
    entries = sorted(by_entry)
    for name in _stored(group):
        array = group[name]
        positions = [index[entry] for entry in entries]
        planes = {}
        for entry, plane in zip(entries, read_planes(array, positions), strict=True):
            for r in by_entry[entry]:
                plane[r.tile.row, r.tile.col] = (
                    rows[r.source] if name == "source" else getattr(r, name) or 0
                )
            planes[index[entry]] = plane
        write_planes(array, planes)


def _stored(group: ZarrGroup) -> tuple[str, ...]:
    """Arrays of a ledger: not every product counts what is masked, nor did the first cubes."""
    return tuple(name for name in store.LEDGER_ARRAYS if name in group)


def _source_rows(group: ZarrGroup, sources: Iterable[str]) -> dict[str, int]:
    rows = {str(text): i for i, text in enumerate(group["sources"][:])}
    new = sorted({text for text in sources if text not in rows})
    if new:
        for text in new:
            rows[text] = len(rows)
        store.extend_coord(group, "sources", new)
    return rows
