"""Rows of products that look at many dates of a tile at once: half a year each, with its sides.

A row writes the dates of its span, all in one commit, and reads some days before and after it. So
a date that comes late redoes the spans that can see it, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from eoray.cube.layout import TimeEntry
from eoray.cube.scenes import PRODUCT
from eoray.errors import GridError
from eoray.grid import Tile, Zone
from eoray.timeline import DateRange

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader, TimeTable


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One task: the dates of half a year in one tile."""

    key: str
    entry: str
    """Key of the first date: the row is done when the ledger has its source there, since all of
    a row's dates are committed together."""
    tiles: tuple[Tile, ...]
    """The one tile."""
    keys: tuple[str, ...]
    """Entries of the ``s2`` product that are read, in order of time."""
    positions: tuple[int, ...]
    """Where they are stored on its time axis."""
    days: tuple[int, ...]
    """Their UTC days since 1970-01-01."""
    first: int
    """Place of the first date to write among ``keys``."""
    stop: int
    """Place behind the last one."""
    reference: tuple[int, ...] = ()
    """Stored positions of the dates that all spans are compared with."""
    reference_keys: tuple[str, ...] = ()
    """Their entries."""

    @property
    def written(self) -> tuple[str, ...]:
        """Entries that the row writes."""
        return self.keys[self.first : self.stop]

    def only(self, tiles: Sequence[Tile]) -> SpanRow:
        """The row itself: it has one tile."""
        if tuple(tiles) != self.tiles:
            raise GridError(
                f"row {self.key} owns {self.tiles[0].id} and cannot be cut to "
                f"{', '.join(t.id for t in tiles)}; spans have one tile a row"
            )
        return self


def plan_spans(
    reader: CubeReader,
    tiles: Sequence[Tile],
    *,
    days: DateRange | None = None,
    reach_days: int = 0,
    n_reference: int = 0,
) -> tuple[dict[Zone, list[TimeEntry]], list[SpanRow]]:
    """Plan one row per tile and half year in which the tile was seen.

    Args:
        reader: The store that holds the ``s2`` product.
        tiles: Tiles wanted.
        days: Half years that these touch are written, whole; None writes all.
        reach_days: Days before and after a span that are read too.
        n_reference: Dates of the reference, see :func:`choose_reference`.

    Returns:
        Time entries by zone, those of the ``s2`` product, and rows in order of tile and time.
    """
    entries: dict[Zone, list[TimeEntry]] = {}
    rows: list[SpanRow] = []
    for zone in sorted({tile.zone for tile in tiles} & set(reader.zones(PRODUCT))):
        table = reader.entries(PRODUCT, zone)
        entries[zone] = list(_entries(table))
        for tile in sorted(t for t in tiles if t.zone == zone):
            seen = _seen(reader, table, tile)
            reference = choose_reference(seen, n_reference) if n_reference else None
            rows += _rows(tile, seen, days, reach_days, reference)
    return entries, rows


def _entries(table: TimeTable) -> Iterator[TimeEntry]:
    for key, moment in zip(table.key, table.time, strict=True):
        yield TimeEntry(str(key), f"{np.datetime_as_string(moment, 'ms')}Z")


def _seen(reader: CubeReader, table: TimeTable, tile: Tile) -> TimeTable:
    """Dates on which anything of the tile was observed."""
    ledger = reader.ledger(PRODUCT, tile.zone)
    receipts = [ledger.get(tile, str(key)) for key in table.key]
    return table.where(np.array([r is not None and r.n_valid > 0 for r in receipts], bool))


def _rows(
    tile: Tile, seen: TimeTable, days: DateRange | None, reach: int, reference: TimeTable | None
) -> Iterator[SpanRow]:
    day = seen.time.astype("datetime64[D]")
    wanted = np.ones(len(seen), bool)
    if days is not None:
        wanted = (day >= np.datetime64(days.start)) & (day <= np.datetime64(days.end))
    half = day.astype("datetime64[M]").astype(int) // 6
    for number in np.unique(half[wanted]):
        begin, end = _half_year(int(number))
        low, high = begin - timedelta(days=reach), end + timedelta(days=reach)
        read = np.flatnonzero((day >= np.datetime64(low)) & (day < np.datetime64(high)))
        write = np.flatnonzero(half == number)  # whole: runs of other days then agree
        part = seen.where(np.isin(np.arange(len(seen)), read))
        compared = (
            [] if reference is None else list(zip(reference.index, reference.key, strict=True))
        )
        yield SpanRow(
            key=f"{begin.isoformat()}/{tile.id}",
            entry=str(seen.key[write[0]]),
            tiles=(tile,),
            keys=tuple(str(key) for key in part.key),
            positions=tuple(int(i) for i in part.index),
            days=tuple(int(d) for d in day[read].astype(int)),
            first=int(np.searchsorted(read, write[0])),
            stop=int(np.searchsorted(read, write[-1])) + 1,
            reference=tuple(int(i) for i, _ in compared),
            reference_keys=tuple(str(key) for _, key in compared),
        )


def _half_year(number: int) -> tuple[date, date]:
    """First day of a half year, counted from 1970, and the day after its last."""
    year, second = 1970 + number // 2, number % 2
    if second:
        return date(year, 7, 1), date(year + 1, 1, 1)
    return date(year, 1, 1), date(year, 7, 1)


REFERENCE_DAYS = 730
"""Length of the record's beginning that gives the reference: two of each season."""

_ENOUGH_REFINED = 12


def choose_reference(seen: TimeTable, n: int) -> TimeTable:
    """Choose the dates of a tile that its reference is made of.

    They come from the first two years, so that a date added at the end of the record changes no
    earlier result; from dates registered to the global reference image, where there are a dozen.

    Args:
        seen: Dates on which the tile was observed.
        n: Dates to take, evenly spread.
    """
    refined = seen.columns.get("refined", np.zeros(len(seen))) == 1
    pool = seen.where(refined) if refined.sum() >= _ENOUGH_REFINED else seen
    end = pool.time.min() + np.timedelta64(REFERENCE_DAYS, "D") if len(pool) else None
    pool = pool.where(pool.time < end) if len(pool) else pool
    if len(pool) <= n:
        return pool
    taken = np.unique(np.linspace(0, len(pool) - 1, n).round().astype(int))
    return pool.where(np.isin(np.arange(len(pool)), taken))
