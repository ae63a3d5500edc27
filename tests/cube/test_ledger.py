"""The ledger against a plain dict, with crashes between any two steps."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eoray.cube.check import check_cube
from eoray.cube.layout import DONE_WITH_HOLES, TileResult
from eoray.cube.ledger import Ledger, TileReceipt, digest_arrays, receipt_of
from eoray.grid import Tile

Make = Callable[..., Any]

FILLS = {"640m/value": -32768, "640m/flag": 0}


def test_receipts_read_back(coarse_store: Any, make_entry: Make, make_result: Make) -> None:
    from dataclasses import replace

    coarse_store.append([make_entry(1), make_entry(2)])
    first = make_result(Tile(32, 3, 4), "take-02", 5, "scene A; scene B")
    second = replace(
        make_result(Tile(32, 1785, 97), "take-02", 6, "scene B"),
        status=DONE_WITH_HOLES,
        n_failed=3,
        n_valid=2**20,
    )
    coarse_store.write(first, second)
    ledger = coarse_store.reader().ledger("coarse", 32)
    assert ledger.receipts("take-01") == []
    assert ledger.receipts("take-02") == [receipt_of(r, FILLS) for r in (first, second)]
    assert ledger.get(Tile(32, 3, 5), "take-02") is None
    assert ledger.get(Tile(32, 3, 4), "take-99") is None
    assert ledger.sources == ["scene A; scene B", "scene B"]


def test_column_of_some_tiles_is_what_each_receipt_says(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1), make_entry(2)])
    done = [Tile(32, 3, 4), Tile(32, 3, 6), Tile(32, 1785, 97)]
    coarse_store.write(*(make_result(t, "take-02", 5, f"scene {t.col}") for t in done))
    ledger = coarse_store.reader().ledger("coarse", 32)
    asked = [Tile(32, 1785, 97), Tile(32, 3, 5), Tile(32, 0, 0), Tile(32, 3, 4)]
    numbers = ledger.column("source", asked, "take-02").tolist()
    assert [ledger.sources[n] if n >= 0 else None for n in numbers] == [
        None if (found := ledger.get(tile, "take-02")) is None else found.source for tile in asked
    ]
    assert ledger.column("n_valid", asked, "take-02").tolist() == [
        256 if tile in done else 0 for tile in asked
    ]
    for entry in ("take-01", "take-99"):
        assert ledger.column("source", asked, entry).tolist() == [-1] * 4


def test_a_source_named_again_keeps_its_row(
    coarse_store: Any, make_entry: Make, make_result: Make
) -> None:
    coarse_store.append([make_entry(1)])
    coarse_store.write(make_result(Tile(32, 3, 4), "take-01", 1, "b"))
    coarse_store.write(make_result(Tile(32, 3, 5), "take-01", 1, "a"))
    coarse_store.write(make_result(Tile(32, 3, 6), "take-01", 1, "b"))
    ledger = coarse_store.reader().ledger("coarse", 32)
    assert ledger.sources == ["b", "a"]
    assert [r.source for r in ledger.receipts("take-01")] == ["b", "a", "b"]


def test_ledger_of_a_zone_that_is_not_there_is_empty(coarse_store: Any, make_entry: Make) -> None:
    coarse_store.append([make_entry(1)], 33)
    ledger = Ledger(coarse_store.root(), "coarse", 32)
    assert ledger.entries == []
    assert ledger.get(Tile(32, 1, 1), "take-01") is None


def test_digest_depends_on_values_and_names_alone() -> None:
    value = np.arange(512, dtype=np.int16).reshape(2, 16, 16)
    flag = np.ones((16, 16), np.uint8)
    both: dict[str, np.ndarray] = {"640m/value": value, "640m/flag": flag}
    digest = digest_arrays(both, FILLS)
    turned: dict[str, np.ndarray] = {
        "640m/flag": flag,
        "640m/value": np.asfortranarray(value).astype(">i2"),
    }
    assert digest_arrays(turned, FILLS) == digest
    assert digest_arrays({**both, "640m/value": value + 1}, FILLS) != digest
    assert 0 < digest < 2**64


def test_arrays_of_fill_count_as_absent() -> None:
    value = np.full((2, 16, 16), -32768, np.int16)
    flag = np.zeros((16, 16), np.uint8)
    assert digest_arrays({"640m/value": value, "640m/flag": flag}, FILLS) == 0
    flag[3, 4] = 1
    both = digest_arrays({"640m/value": value, "640m/flag": flag}, FILLS)
    assert both == digest_arrays({"640m/flag": flag}, FILLS)


@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_numbers_that_are_equal_hash_alike(fill: float) -> None:
    """A chunk of -0.0 is stored as fill 0.0; NaN may carry any payload."""
    payload = np.array([0x7FC00001, 0x7FC00000], np.uint32).view(np.float32)
    values = np.array([1.0, -0.0, payload[0]], np.float32)
    plain = np.array([1.0, 0.0, payload[1]], np.float32)
    fills = {"a": fill}
    assert digest_arrays({"a": values}, fills) == digest_arrays({"a": plain}, fills)
    nothing = np.full(3, fill, np.float32)
    assert digest_arrays({"a": nothing}, fills) == 0


TILES = [Tile(32, 100, 40), Tile(32, 100, 41), Tile(32, 101, 40)]


class StoreMachine(RuleBasedStateMachine):
    """Entries, tasks, waves and crashes; a dict of what was committed is the model."""

    maker: ModuleType

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="eoray-ledger-"))
        self.store: Any = None
        self.committed: dict[tuple[Tile, str], TileResult] = {}
        self.entries: list[str] = []
        self.pending: dict[tuple[Tile, str], tuple[TileResult, Any]] = {}

    @initialize()
    def open(self) -> None:
        url = str(self.folder / "cube.icechunk")
        self.store = self.maker.Store(url, self.maker.coarse_spec())
        self.append(3)

    @rule(day=st.integers(1, 6))
    def append(self, day: int) -> None:
        entry = self.maker.entry(day)
        self.store.append([entry])
        if entry.key not in self.entries:
            self.entries.append(entry.key)

    @rule(
        tile=st.sampled_from(TILES),
        value=st.integers(0, 500),
        pick=st.integers(0, 5),
        source=st.sampled_from(["scene A", "scene B"]),
    )
    def run_task(self, tile: Tile, value: int, pick: int, source: str) -> None:
        key = self.entries[pick % len(self.entries)]
        result = self.maker.coarse_result(tile, key, value, source)
        if (tile, key) not in self.pending:
            self.pending[tile, key] = (result, self.store.run([result]))

    @rule()
    def commit_wave(self) -> None:
        if self.pending:
            self.store.merge([receipt for _, receipt in self.pending.values()]).commit("wave")
            self.committed |= {at: result for at, (result, _) in self.pending.items()}
            self.pending = {}

    @rule(step=st.sampled_from(["tasks", "merge"]))
    def crash(self, step: str) -> None:
        """The process ends before its commit: what it wrote is nobody's."""
        if self.pending and step == "merge":
            self.store.merge([receipt for _, receipt in self.pending.values()])
        self.pending = {}
        self.store = self.maker.Store(self.store.url, self.store.spec)

    @invariant()
    def ledger_and_pixels_are_the_model(self) -> None:
        if self.store is None:
            return
        reader = self.store.reader()
        ledger = reader.ledger("coarse", 32)
        found: list[TileReceipt] = [r for e in ledger.entries for r in ledger.receipts(e)]
        expected = [receipt_of(result, FILLS) for result in self.committed.values()]
        order = [(r.tile, r.entry) for r in found]
        assert len(set(order)) == len(order)
        by_place = {(r.tile, r.entry): r for r in found}
        assert by_place == {(r.tile, r.entry): r for r in expected}
        assert sorted(ledger.entries) == sorted(self.entries)

    def teardown(self) -> None:
        if self.store is not None:
            report = check_cube(self.store.url)  # hashes every pixel again
            assert report.problems == ()
            assert report.ok
        shutil.rmtree(self.folder)


def test_ledger_follows_a_dict_through_crashes(request: pytest.FixtureRequest) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    plugin = request.config.pluginmanager
    conftest = next(
        module
        for module in plugin.get_plugins()
        if str(getattr(module, "__file__", "")).endswith("tests/cube/conftest.py")
    )
    machine = type("BoundMachine", (StoreMachine,), {"maker": conftest})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=4,
            stateful_step_count=10,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # a failing example is told as found: each step is disk work
            suppress_health_check=list(HealthCheck),
        ),
    )
