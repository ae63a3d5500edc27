"""Dead letters: which files could not be read, for which tiles and dates, and why.

They stand in a table beside the ledger, append-only, and become visible in the commit of the tiles
that they describe. They are no part of a cube's checksum: two runs that miss the same file for
another reason, or after more attempts, hold the same cube.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eoray.cube import store
from eoray.cube.layout import DONE_WITH_HOLES, ZarrGroup, ledger_path
from eoray.grid import Tile, Zone

if TYPE_CHECKING:
    from eoray.cube.ledger import TileReceipt
    from eoray.cube.read import CubeReader

_TABLE = "failures"
PRODUCT = "s2"

UNKNOWN = "unknown"
"""Reason of holes in cubes that were written before reasons were kept."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failed read that a tile of a date still misses."""

    tile: Tile
    entry: str
    """Key of the time entry."""
    item_id: str
    """"" where the reason is unknown."""
    band: str
    reason: str
    """An HTTP status such as ``503``, or a word of ``eoray.reading.reasons``."""
    detail: str
    attempts: int
    """Of all runs so far."""
    time: str = ""
    """Sensing time of the entry, ISO 8601, UTC."""

    def to_dict(self) -> dict[str, Any]:
        """The letter as plain JSON values."""
        return {
            "tile": self.tile.id,
            "entry": self.entry,
            "time": self.time,
            "item": self.item_id,
            "band": self.band,
            "reason": self.reason,
            "detail": self.detail,
            "attempts": self.attempts,
        }


def failed_reads(url: str) -> list[DeadLetter]:
    """List what could not be read and is missed in a cube, by date, item, band and tile.

    Args:
        url: The repository or the store folder around it.

    Returns:
        One row for each file that a tile of a date misses; empty where nothing is missed.

    Raises:
        StoreError: There is no cube.
    """
    from eoray.cube.read import CubeReader, CubeSource

    return read_letters(CubeReader(CubeSource(url)))


def read_letters(reader: CubeReader) -> list[DeadLetter]:
    """The dead letters of the scene product at a reader's snapshot."""
    letters: list[DeadLetter] = []
    for zone in reader.zones(PRODUCT):
        written = _Table.read(reader.root, zone)
        table = reader.entries(PRODUCT, zone)
        times = dict(zip(table.key.tolist(), table.time.astype(str).tolist(), strict=True))
        ledger = reader.ledger(PRODUCT, zone)
        for entry in ledger.entries:
            for receipt in ledger.receipts(entry):
                if receipt.status == DONE_WITH_HOLES:
                    letters += written.of(receipt, times[entry])
    return sorted(letters, key=lambda one: (one.time, one.item_id, one.band, one.tile))


class _Table:
    """Lines of one zone, by tile and entry."""

    def __init__(self, lines: Iterable[Sequence[Any]]) -> None:
        self._lines: dict[tuple[str, str], list[Sequence[Any]]] = {}
        for line in lines:
            self._lines.setdefault((line[1], line[2]), []).append(line)

    @classmethod
    def read(cls, root: ZarrGroup, zone: Zone) -> _Table:
        group = root[ledger_path(PRODUCT, zone)]
        return cls(json.loads(str(line)) for line in (group[_TABLE][:] if _TABLE in group else ()))

    def of(self, receipt: TileReceipt, time: str) -> Iterator[DeadLetter]:
        """Letters of the newest commit that wrote the tile; attempts are those of all."""
        lines = self._lines.get((receipt.tile.id, receipt.entry), [])
        if not lines:
            yield DeadLetter(receipt.tile, receipt.entry, "", "", UNKNOWN, "", 0, time)
        newest = max((line[0] for line in lines), default=0)
        for at, _, _, item, band, reason, detail, _ in lines:
            if at == newest:
                attempts = sum(line[7] for line in lines if (line[3], line[4]) == (item, band))
                yield DeadLetter(
                    receipt.tile, receipt.entry, item, band, reason, detail, attempts, time
                )


def write_letters(root: ZarrGroup, product: str, receipts: Iterable[TileReceipt]) -> None:
    """Append the holes of some tiles; the caller commits them together with the ledger."""
    by_zone: dict[Zone, list[TileReceipt]] = {}
    for receipt in receipts:
        if receipt.holes:
            by_zone.setdefault(receipt.tile.zone, []).append(receipt)
    for zone, found in by_zone.items():
        group = root[ledger_path(product, zone)]
        at = group[_TABLE].shape[0] if _TABLE in group else 0
        store.append_lines(group, _TABLE, list(_lines(at, found)))


def _lines(at: int, receipts: Iterable[TileReceipt]) -> Iterator[str]:
    """One line a hole; ``at``, the table's length before, tells one commit from another."""
    for receipt in receipts:
        for hole in receipt.holes:
            line = [at, receipt.tile.id, receipt.entry, hole.item_id, hole.band]
            yield json.dumps([*line, hole.reason, hole.detail, hole.attempts])
