"""Tasks write whole shards of their own tiles; forks merge whatever snapshot they began at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from eoray.errors import GridError
from eoray.grid import Tile
from tests.cube.conftest import Row

Make = Callable[..., Any]

A, B, C = Tile(32, 457, 48), Tile(32, 457, 49), Tile(32, 458, 48)


def read_value(store: Any, tile: Tile, index: int) -> np.ndarray:
    values = store.reader().read(
        "coarse", tile.zone, "value", window=tile.window(640), resolution_m=640, index=[index]
    )
    found: np.ndarray = values[0]
    return found


def n_shards(store: Any) -> int:
    async def count() -> int:
        session = store.repository.readonly_session("main")
        keys = [key async for key in session.store.list_prefix("coarse/z32/640m/value")]
        return sum("/c/" in key for key in keys)

    import asyncio

    return asyncio.run(count())


def test_written_tiles_read_back_at_their_place(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1), make_entry(2)])
    results = [make_result(A, "take-02", 10), make_result(B, "take-01", 2000)]
    coarse_store.write(*results)
    for result, index in zip(results, (1, 0), strict=True):
        stored = read_value(coarse_store, result.tile, index)
        np.testing.assert_array_equal(stored, result.arrays["640m/value"])
    assert (read_value(coarse_store, A, 0) == -32768).all()
    assert n_shards(coarse_store) == 2


def test_receipt_counts_shards_and_carries_no_pixels(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1)])
    receipt = coarse_store.run([make_result(A, "take-01", 1), make_result(B, "take-01", 2)])
    assert receipt.n_shards == 4
    assert [t.tile for t in receipt.tiles] == [A, B]
    assert len(receipt.fork) < 100_000


def test_shard_of_a_tile_that_becomes_fill_is_deleted(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1)])
    result = make_result(A, "take-01", 1)
    coarse_store.write(result)
    assert n_shards(coarse_store) == 1
    empty = {
        "640m/value": np.full((2, 16, 16), -32768, np.int16),
        "640m/flag": np.zeros((16, 16), np.uint8),
    }
    coarse_store.write(replace(result, arrays=empty))
    assert n_shards(coarse_store) == 0
    assert (read_value(coarse_store, A, 0) == -32768).all()
    assert coarse_store.reader().ledger("coarse", 32).get(A, "take-01").digest == 0


def test_fill_on_fill_writes_nothing(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1)])
    empty = {"640m/flag": np.zeros((16, 16), np.uint8)}
    receipt = coarse_store.run([replace(make_result(A, "take-01", 1), arrays=empty)])
    assert receipt.n_shards == 0


def test_fork_of_an_older_snapshot_merges_beside_what_was_committed_since(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    """A pin on Icechunk: long tasks end after other waves were committed."""
    coarse_store.append([make_entry(1)])
    early = coarse_store.run([make_result(A, "take-01", 1)])
    late = coarse_store.run([make_result(B, "take-01", 2)])
    coarse_store.merge([late]).commit("first wave")
    coarse_store.write(make_result(C, "take-01", 3))
    coarse_store.merge([early]).commit("second wave")
    first = [int(read_value(coarse_store, tile, 0)[0, 0, 0]) for tile in (A, B, C)]
    assert first == [1, 2, 3]


def test_merging_two_forks_of_one_shard_keeps_the_last_without_a_word(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    """The reason why the driver refuses two receipts for one shard."""
    coarse_store.append([make_entry(1)])
    receipts = [coarse_store.run([make_result(A, "take-01", value)]) for value in (1, 2)]
    coarse_store.merge(receipts).commit("wave")
    assert int(read_value(coarse_store, A, 0)[0, 0, 0]) == 2


def test_tile_of_another_row_is_refused(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1)])
    stray = make_result(B, "take-01", 1)
    task = coarse_store.task(lambda row: [stray])
    row = coarse_store.run([make_result(A, "take-01", 1)])
    assert row.key == "row"

    class OneTile:
        key, entry, tiles = "mine", "take-01", (A,)

    with pytest.raises(GridError, match=r"row mine returned tile z32r0457c049"):
        task(OneTile())


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("640m/value", np.zeros((2, 16, 8), np.int16)),
        ("640m/value", np.zeros((1, 16, 16), np.int16)),
        ("640m/value", np.zeros((2, 16, 16), np.int32)),
        ("640m/flag", np.zeros((16, 16), bool)),
    ],
)
def test_part_of_a_tile_or_another_dtype_is_refused(
    coarse_store: Any, make_entry: Make, make_result: Make, path: str, values: np.ndarray
) -> None:
    coarse_store.append([make_entry(1)])
    wrong = replace(make_result(A, "take-01", 1), arrays={path: values})
    with pytest.raises(GridError, match="tasks write whole tiles"):
        coarse_store.run([wrong])


def test_row_that_forgets_a_tile_is_refused(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1)])
    task = coarse_store.task(lambda row: [make_result(A, "take-01", 1)])
    with pytest.raises(GridError, match=r"row two returned nothing for tile z32r0457c049"):
        task(Row("two", "take-01", (A, B)))
