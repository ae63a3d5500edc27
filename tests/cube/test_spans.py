"""Which dates a row writes, reads, and is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.cube.read import TimeTable
from eoray.cube.spans import choose_reference, plan_spans
from eoray.errors import GridError
from eoray.grid import Tile
from eoray.timeline import DateRange

TILE = Tile(32, 400, 50)


class FakeReader:
    """Dates of one tile, all observed."""

    def __init__(self, days: np.ndarray, *, refined: np.ndarray | None = None) -> None:
        order = np.random.default_rng(1).permutation(len(days))
        keys = np.array([f"k{i:04d}" for i in range(len(days))])
        columns = {"refined": np.ones(len(days), int) if refined is None else refined}
        self.table = TimeTable(days.astype("M8[D]").astype("M8[ms]"), keys, order, columns)

    def zones(self, product: str) -> list[int]:
        return [32]

    def entries(self, product: str, zone: int) -> TimeTable:
        return self.table

    def ledger(self, product: str, zone: int) -> FakeReader:
        return self

    def get(self, tile: Tile, key: str) -> Any:
        return type("Receipt", (), {"n_valid": 1})


def days_of(first: str, n: int, step: int = 5) -> np.ndarray:
    return np.datetime64(first) + np.arange(n) * step


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 120))
def test_every_date_is_written_once_and_read_with_its_neighbours(
    n: int, step: int, reach: int
) -> None:
    days = days_of("2020-05-17", n, step)
    reader: Any = FakeReader(days)
    entries, rows = plan_spans(reader, [TILE], reach_days=reach)
    written = [key for row in rows for key in row.written]
    assert written == reader.table.key.tolist()
    assert [e.key for e in entries[32]] == written
    for row in rows:
        assert row.entry == row.written[0]
        read = set(row.keys)
        for place in range(row.first, row.stop):
            away = np.abs(days.astype(int) - row.days[place])
            assert set(reader.table.key[away <= reach]) <= read
        at = {str(k): int(i) for k, i in zip(reader.table.key, reader.table.index, strict=True)}
        assert row.positions == tuple(at[key] for key in row.keys)


def test_days_choose_whole_half_years() -> None:
    reader: Any = FakeReader(days_of("2020-01-01", 146))
    _, rows = plan_spans(reader, [TILE], days=DateRange.parse("2020-08-01/2020-08-31"))
    assert [row.key for row in rows] == [f"2020-07-01/{TILE.id}"]
    assert len(rows[0].written) == 37
    assert rows[0].only([TILE]) is rows[0]
    with pytest.raises(GridError, match="spans have one tile a row"):
        rows[0].only([Tile(32, 1, 1)])


def test_reference_is_of_the_first_two_years_and_does_not_move() -> None:
    short, long = (FakeReader(days_of("2020-01-01", n)).table for n in (150, 700))
    first, later = choose_reference(short, 36), choose_reference(long, 36)
    assert len(later) == 36
    assert later.time.max() < np.datetime64("2022-01-01")
    np.testing.assert_array_equal(choose_reference(long, 36).key, later.key)
    assert len(first) == 36


def test_reference_prefers_refined_dates_where_there_are_a_dozen() -> None:
    days = days_of("2020-01-01", 40)
    many = FakeReader(days, refined=(np.arange(40) >= 20).astype(int)).table
    few = FakeReader(days, refined=(np.arange(40) >= 35).astype(int)).table
    assert choose_reference(many, 36).key[0] == "k0020"
    assert choose_reference(few, 40).key[0] == "k0000"
