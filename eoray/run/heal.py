"""Holes of a run: which reads failed, which of them to try again, and the rows that do so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from eoray.cube.holes import DeadLetter, read_letters
from eoray.cube.layout import DONE_WITH_HOLES
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader
    from eoray.grid import Tile

STAGES = ("cube", "predict", "change", "publish", "report")
"""Stages that follow a mended cube. A model is not fitted again, a sample not drawn again."""


@dataclass(frozen=True, slots=True)
class HoleFilter:
    """Which failed reads to try again; all where nothing is said."""

    items: tuple[str, ...] = ()
    """STAC item ids."""
    reasons: tuple[str, ...] = ()
    """HTTP statuses or words of ``eoray.reading.reasons``."""
    since: str = ""
    """First sensing day, ISO."""

    def __post_init__(self) -> None:
        """Refuse what is no day.

        Raises:
            ConfigError: ``since`` cannot be read.
        """
        try:
            date.fromisoformat(self.since or "2015-01-01")
        except ValueError as error:
            raise ConfigError(
                f"since {self.since!r} is no day; write it like 2023-05-31"
            ) from error

    def takes(self, letter: DeadLetter) -> bool:
        """Tell whether a failed read is meant."""
        return (
            (not self.items or letter.item_id in self.items)
            and (not self.reasons or letter.reason in self.reasons)
            and letter.time[:10] >= self.since
        )


@dataclass(frozen=True, slots=True)
class Holes:
    """What a run misses, and what reading it again would take."""

    letters: tuple[DeadLetter, ...]
    rows: tuple[Any, ...]
    """Rows of the cube stage, reduced to the tiles with these holes."""

    @property
    def again(self) -> frozenset[tuple[Tile, str]]:
        """(tile, entry) that are made again."""
        return frozenset((tile, row.entry) for row in self.rows for tile in row.tiles)


def find_holes(reader: CubeReader, rows: Sequence[Any], wanted: HoleFilter) -> Holes:
    """Find holes of a run's rows in a store.

    Args:
        reader: The store.
        rows: Rows of the run's cube stage; holes of other runs are left out.
        wanted: Which of the holes.
    """
    letters = [letter for letter in read_letters(reader) if wanted.takes(letter)]
    found = tuple(_reduced(rows, {(letter.tile, letter.entry) for letter in letters}))
    owned = {(tile, row.entry) for row in found for tile in row.tiles}
    return Holes(tuple(one for one in letters if (one.tile, one.entry) in owned), found)


def _reduced(rows: Iterable[Any], places: set[tuple[Tile, str]]) -> Iterable[Any]:
    for row in rows:
        tiles = [tile for tile in row.tiles if (tile, row.entry) in places]
        if tiles:
            yield row if len(tiles) == len(row.tiles) else row.only(tiles)


def count_holes(reader: CubeReader, rows: Iterable[Any]) -> dict[str, int]:
    """Failed reads, and the (tile, date) pairs that miss them, of some rows."""
    ledgers = {zone: reader.ledger("s2", zone) for zone in reader.zones("s2")}
    tiles, reads = 0, 0
    for row in rows:
        ledger = ledgers[row.tiles[0].zone]
        holes = ledger.column("status", row.tiles, row.entry) == DONE_WITH_HOLES
        if holes.any():
            tiles += int(holes.sum())
            reads += int(ledger.column("n_failed", row.tiles, row.entry)[holes].sum())
    return {"tiles": tiles, "reads": reads}


def group_letters(letters: Iterable[DeadLetter]) -> list[dict[str, Any]]:
    """One row for each file: item, band, reasons, attempts of the most tried tile, tiles."""
    by_file: dict[tuple[str, str, str], list[DeadLetter]] = {}
    for letter in letters:
        by_file.setdefault((letter.time, letter.item_id, letter.band), []).append(letter)
    return [
        {
            "item": item,
            "band": band,
            "time": time,
            "reason": " ".join(sorted({one.reason for one in found})),
            "detail": found[0].detail,
            "attempts": max(one.attempts for one in found),
            "tiles": sorted({one.tile.id for one in found}),
        }
        for (time, item, band), found in sorted(by_file.items())
    ]
