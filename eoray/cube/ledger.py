"""The ledger: which tile of which date is done, from what, and what it holds.

It lies beside the pixels in the same repository and becomes visible in the same commit, so a
run that was killed is planned again against it and goes on. There is no other bookkeeping.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from eoray.cube import store
from eoray.cube.layout import NEVER, TileResult, ZarrGroup, ledger_path
from eoray.cube.shard import is_fill
from eoray.grid import Tile


@dataclass(frozen=True, slots=True)
class TileReceipt:
    """What the ledger keeps of one tile at one time entry."""

    tile: Tile
    entry: str
    status: int
    n_valid: int
    n_failed: int
    digest: int
    """First 8 bytes of BLAKE2b over the decoded values; 0 for a tile of fill only."""
    source: str


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
    )


def digest_arrays(arrays: Mapping[str, np.ndarray], fills: Mapping[str, float]) -> int:
    """Hash the decoded, little-endian, C-order values of all arrays of a (tile, time).

    Arrays of fill only count as absent, so what is not stored does not enter.
    """
    hasher = hashlib.blake2b(digest_size=8)
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
        hasher.update(np.ascontiguousarray(little).data)
    return 0 if filled else int.from_bytes(hasher.digest(), "little")


def _one_zero_one_nan(values: np.ndarray) -> np.ndarray:
    """Equal numbers, equal bytes: a chunk of -0.0 is stored as fill and reads back as 0.0."""
    return np.where(np.isnan(values), values.dtype.type(np.nan), values + 0)


class Ledger:
    """One product's ledger in one zone, read entry by entry."""

    def __init__(self, root: ZarrGroup, product: str, zone: int) -> None:
        """Open the ledger; nothing but the entry keys and sources is read yet."""
        self.product = product
        self.zone = zone
        self.entries = store.entry_keys(root, product, zone)
        self._index = {key: i for i, key in enumerate(self.entries)}
        path = ledger_path(product, zone)
        self._group: ZarrGroup | None = root.get(path)
        self._cache: dict[tuple[str, int], np.ndarray] = {}
        self._sources: list[str] | None = None

    @property
    def sources(self) -> list[str]:
        """The append-only table that ``source`` points into."""
        if self._sources is None:
            group = self._group
            self._sources = [] if group is None else [str(s) for s in group["sources"][:]]
        return self._sources

    def field(self, name: str, entry: str) -> np.ndarray:
        """One ledger array at one entry, dims (tile_y, tile_x)."""
        index = self._index[entry]
        key = (name, index)
        if key not in self._cache:
            self._cache[key] = self._group[name][index]  # type: ignore[index]
        return self._cache[key]

    def get(self, tile: Tile, entry: str) -> TileReceipt | None:
        """What is known of a tile at an entry; None where nothing was ever done."""
        if entry not in self._index:
            return None
        at = (tile.row, tile.col)
        status = int(self.field("status", entry)[at])
        if status == NEVER:
            return None
        return TileReceipt(
            tile=tile,
            entry=entry,
            status=status,
            n_valid=int(self.field("n_valid", entry)[at]),
            n_failed=int(self.field("n_failed", entry)[at]),
            digest=int(self.field("digest", entry)[at]),
            source=self.sources[int(self.field("source", entry)[at])],
        )

    def receipts(self, entry: str) -> list[TileReceipt]:
        """Every tile done at an entry, in order of row and column."""
        found = np.argwhere(self.field("status", entry) != NEVER)
        tiles = [Tile(self.zone, int(row), int(col)) for row, col in found]
        return [r for r in (self.get(tile, entry) for tile in tiles) if r is not None]


def write_receipts(root: ZarrGroup, product: str, receipts: Iterable[TileReceipt]) -> None:
    """Enter receipts; the caller commits them together with the shards."""
    by_zone: dict[int, dict[str, list[TileReceipt]]] = {}
    for receipt in receipts:
        by_zone.setdefault(receipt.tile.zone, {}).setdefault(receipt.entry, []).append(receipt)
    for zone, by_entry in by_zone.items():
        _write_zone(root, product, zone, by_entry)


def _write_zone(
    root: ZarrGroup, product: str, zone: int, by_entry: Mapping[str, list[TileReceipt]]
) -> None:
    group = root[ledger_path(product, zone)]
    index = {key: i for i, key in enumerate(store.entry_keys(root, product, zone))}
    rows = _source_rows(group, [r.source for rs in by_entry.values() for r in rs])
    for entry, receipts in sorted(by_entry.items()):
        at = np.array([(r.tile.row, r.tile.col) for r in receipts]).T
        for name in store.LEDGER_ARRAYS:
            values = [rows[r.source] if name == "source" else getattr(r, name) for r in receipts]
            array = group[name]
            plane = array[index[entry]]
            plane[at[0], at[1]] = np.array(values, dtype=array.dtype)
            array[index[entry]] = plane


def _source_rows(group: ZarrGroup, sources: Iterable[str]) -> dict[str, int]:
    rows = {str(text): i for i, text in enumerate(group["sources"][:])}
    new = sorted({text for text in sources if text not in rows})
    if new:
        for text in new:
            rows[text] = len(rows)
        store.extend_coord(group, "sources", new)
    return rows
