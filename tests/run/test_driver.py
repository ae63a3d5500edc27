"""The only committer: same content however it runs, and nothing lost when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

from eoray.cube import store
from eoray.cube.check import check_cube
from eoray.cube.layout import DONE, ArraySpec, GroupSpec, ProductSpec, TileResult, TimeEntry
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import ConflictError, EorayError, ReadError, StoreError
from eoray.execute import Executor, ExecutorName
from eoray.grid import Tile, Zone
from eoray.run import driver as driver_module
from eoray.run.driver import Driver, StagePlan, Wave, fence_store
from eoray.run.lease import Holder, Watch
from tests.s3_server import serve_s3

PX = 16
"""Pixels of 640 m along a tile."""

DAYS, COLS = 4, 6


@dataclass(frozen=True, slots=True)
class BlockRow:
    """Two tiles of one date."""

    key: str
    entry: str
    tiles: tuple[Tile, ...]
    sources: tuple[str, ...]

    def only(self, tiles: Sequence[Tile]) -> BlockRow:
        kept = [(t, s) for t, s in zip(self.tiles, self.sources, strict=True) if t in tiles]
        return replace(self, tiles=tuple(t for t, _ in kept), sources=tuple(s for _, s in kept))


@dataclass(slots=True)
class PositionWorker:
    """Values from the position and the source; it can be told to end badly."""

    stop_after: int = -1
    """Rows after which ``how`` happens; never when negative."""
    how: str = "interrupt"
    seen: list[str] = field(default_factory=list)

    def __call__(self, row: BlockRow) -> Iterator[TileResult]:
        if len(self.seen) == self.stop_after:
            self._end(row)
        self.seen.append(row.key)
        for tile, source in zip(row.tiles, row.sources, strict=True):
            number = int(row.entry[-1]) * 1000 + tile.row * 37 + tile.col * 5 + len(source)
            plane = np.arange(PX * PX).reshape(PX, PX) + number
            arrays = {"640m/value": plane.astype(np.int16)}
            yield TileResult(tile, row.entry, arrays, DONE, PX * PX, 0, source)

    def _end(self, row: BlockRow) -> None:
        if self.how == "kill":
            os._exit(9)
        if self.how == "read":
            raise ReadError("B04 of item X cannot be read", item_id="X", asset="B04")
        if self.how == "bug":
            raise ZeroDivisionError("of the worker")
        if self.how == "disk":
            raise OSError(28, "No space left on device")
        raise KeyboardInterrupt


def make_plan(worker: PositionWorker | None = None, source: str = "scene") -> StagePlan:
    group = GroupSpec(640, (ArraySpec("value", "int16", fill=-32768),))
    entries = [TimeEntry(f"take-{d}", f"2021-01-0{d + 1}T00:00:00.000Z", {}) for d in range(DAYS)]
    rows = [
        BlockRow(
            key=f"{entry.key}/{col}",
            entry=entry.key,
            tiles=(Tile(32, 400, 40 + col), Tile(32, 401, 40 + col)),
            sources=(f"{source} {entry.key}", f"{source} {entry.key}"),
        )
        for entry in entries
        for col in range(COLS)
    ]
    spec = ProductSpec("s2", (group,), {"bands": ["B02"]})
    return StagePlan("cube", spec, {32: entries}, rows, worker or PositionWorker())


def make_driver(
    url: str, *, epoch: int = 1, name: ExecutorName = "inline", shards: int = 8
) -> Driver:
    repository = store.open_repository(url, create=True)
    holder = Holder("run", "host", 1, epoch)
    return Driver(repository, holder, Executor(name, 3), Wave(shards, 1e9))


def n_done(url: str) -> int:
    ledger = CubeReader(CubeSource(url)).ledger("s2", 32)
    return sum(len(ledger.receipts(entry)) for entry in ledger.entries)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "cube.icechunk")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checksum of the uninterrupted run."""
    url = str(tmp_path_factory.mktemp("reference") / "cube.icechunk")
    report = make_driver(url).run(make_plan())
    assert (report.tasks, report.skipped, report.commits) == (24, 0, 6)
    checked = check_cube(url)
    assert checked.ok
    assert (checked.tiles, checked.dates) == (12, 4)
    return checked.checksum


def test_pixels_of_a_run_are_the_workers(url: str) -> None:
    make_driver(url).run(make_plan())
    tile = Tile(32, 401, 43)
    values = CubeReader(CubeSource(url)).read(
        "s2", 32, "value", window=tile.window(640), resolution_m=640, index=[2]
    )
    expected = 2000 + 401 * 37 + 43 * 5 + len("scene take-2")
    assert int(values[0, 0, 0]) == expected
    assert int(values[0, -1, -1]) == expected + PX * PX - 1


@pytest.mark.parametrize("shards", [13, 10_000, pytest.param(1, marks=pytest.mark.slow)])
def test_threads_and_waves_do_not_change_the_checksum(
    url: str, reference: str, shards: int
) -> None:
    report = make_driver(url, name="threads", shards=shards).run(make_plan())
    assert report.tasks == 24
    assert check_cube(url).checksum == reference


def test_run_again_does_nothing(url: str, reference: str) -> None:
    make_driver(url).run(make_plan())
    driver = make_driver(url, epoch=2)
    before = driver.repository.lookup_branch("main")
    report = driver.run(make_plan())
    assert (report.tasks, report.skipped, report.commits) == (0, 24, 0)
    assert driver.repository.lookup_branch("main") == before


@pytest.mark.parametrize(("name", "after"), [("inline", 0), ("inline", 7), ("threads", 5)])
def test_interrupted_run_keeps_what_was_finished_and_goes_on(
    url: str, reference: str, name: ExecutorName, after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_driver(url, name=name).run(make_plan(PositionWorker(after)))
    done = n_done(url)
    if name == "inline":
        assert done == 2 * after
    report = make_driver(url, epoch=2).run(make_plan())
    assert report.tasks == 24 - done // 2
    assert check_cube(url).checksum == reference


@pytest.mark.parametrize("after", [6, pytest.param(11, marks=pytest.mark.slow)])
def test_killed_run_loses_at_most_one_wave(url: str, reference: str, after: int) -> None:
    code = (
        "import importlib.util, sys; "
        f"spec = importlib.util.spec_from_file_location('killed', {__file__!r}); "
        "module = importlib.util.module_from_spec(spec); sys.modules['killed'] = module; "
        "spec.loader.exec_module(module); module.run_and_die(sys.argv[1], int(sys.argv[2]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, url, str(after)],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 9, ended.stderr
    # four rows of two shards make a wave
    assert n_done(url) == after // 4 * 4 * 2
    report = make_driver(url, epoch=2).run(make_plan())
    assert report.tasks == 24 - after // 4 * 4
    assert check_cube(url).checksum == reference


def run_and_die(url: str, after: int) -> None:
    """Entry of the subprocess."""
    make_driver(url).run(make_plan(PositionWorker(after, "kill")))


def test_changed_source_recomputes_that_tile_alone(url: str) -> None:
    make_driver(url).run(make_plan())
    plan = make_plan()
    row = plan.rows[5]
    changed = replace(row, sources=(row.sources[0], "another scene"))
    worker = PositionWorker()
    rows = [changed if r.key == row.key else r for r in plan.rows]
    report = make_driver(url, epoch=2).run(replace(plan, rows=rows, worker=worker))
    assert (report.tasks, report.skipped) == (1, 23)
    ledger = CubeReader(CubeSource(url)).ledger("s2", 32)
    receipts = [ledger.get(tile, row.entry) for tile in row.tiles]
    assert [r.source for r in receipts if r] == ["scene take-0", "another scene"]
    assert check_cube(url).ok


def test_only_the_missing_tiles_of_a_row_are_handed_to_the_worker(url: str) -> None:
    make_driver(url).run(make_plan())
    plan = make_plan()
    row = plan.rows[0]
    seen: list[tuple[Tile, ...]] = []

    def worker(part: BlockRow) -> Iterator[TileResult]:
        seen.append(part.tiles)
        return PositionWorker()(part)

    changed = replace(row, sources=(row.sources[0], "late"))
    make_driver(url, epoch=2).run(replace(plan, rows=[changed], worker=worker))
    assert seen == [(row.tiles[1],)]


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("read", ReadError, "B04 of item X"),
        ("bug", EorayError, "task take-1/1 failed: ZeroDivisionError: of the worker"),
        ("disk", StoreError, r"disk is full \(task take-1/1\)"),
    ],
)
def test_failed_task_stops_the_run_and_commits_the_finished(
    url: str, reference: str, how: str, kind: type[EorayError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make_driver(url).run(make_plan(PositionWorker(7, how)))
    assert n_done(url) == 14
    make_driver(url, epoch=2).run(make_plan())
    assert check_cube(url).checksum == reference


def foreign_commit(url: str, epoch: int | None) -> None:
    repository = store.open_repository(url)
    session = repository.writable_session("main")
    zarr.open_group(session.store, mode="a").attrs["note"] = str(epoch)
    session.commit("foreign", metadata=None if epoch is None else {"eoray.epoch": epoch})


@pytest.mark.parametrize("epoch", [9, 2, None])
def test_commit_of_another_run_stops_the_driver(url: str, epoch: int | None) -> None:
    """A run that took over, one that should be dead, and a writer without a lease."""
    driver = make_driver(url, epoch=5)

    def progress(stage: str, done: int, total: int) -> None:
        if done == 6:
            foreign_commit(url, epoch)

    driver.progress = progress
    with pytest.raises(ConflictError, match=r"another run commits .* ours is 5"):
        driver.run(make_plan())
    assert n_done(url) == 8  # the first wave; nothing was built upon the foreign commit
    newest = next(iter(driver.repository.ancestry(branch="main")))
    assert newest.message == "foreign"


def test_branch_that_moves_during_a_commit_is_never_rebased(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_driver(url, epoch=5)
    plain = Driver._check_alone
    calls: list[int] = []

    def check_then_lose(self: Driver) -> None:
        plain(self)
        calls.append(1)
        if len(calls) == 3:
            foreign_commit(url, 5)

    monkeypatch.setattr(Driver, "_check_alone", check_then_lose)
    with pytest.raises(ConflictError, match=r"somebody else committed .* run 'run'"):
        driver.run(make_plan())
    assert len(calls) == 3  # not tried again upon the new tip
    assert n_done(url) == 8


TAKER = Holder("taker", "elsewhere", 2, 6)


@pytest.mark.parametrize("place", ["folder", "object store"])
def test_commit_that_was_checked_before_a_fence_is_refused(
    url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3(monkeypatch):
        where = url if place == "folder" else "s3://maps/cube.icechunk"
        driver = make_driver(where, epoch=5)
        plain = Driver._check_alone
        calls: list[int] = []

        def check_then_lose(self: Driver) -> None:
            plain(self)
            calls.append(1)
            if len(calls) == 3:
                fence_store(where, TAKER)

        monkeypatch.setattr(Driver, "_check_alone", check_then_lose)
        with pytest.raises(ConflictError, match=r"run 'taker', epoch 6, ours is 5"):
            driver.run(make_plan())
        assert n_done(where) == 8
        newest = next(iter(driver.repository.ancestry(branch="main")))
        assert newest.message == "earlier writers are shut out"


def test_commit_that_comes_before_the_fence_is_built_upon(
    url: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    plain = driver_module._check_newest
    calls: list[int] = []

    def check_then_late_commits(repository: Any, holder: Holder) -> Any:
        newest = plain(repository, holder)
        if holder is TAKER and not calls:
            calls.append(1)
            make_driver(url, epoch=5).run(replace(plan, rows=plan.rows[:8]))
        return newest

    monkeypatch.setattr(driver_module, "_check_newest", check_then_late_commits)
    fence_store(url, TAKER)
    report = make_driver(url, epoch=TAKER.epoch).run(plan)
    assert (report.tasks, report.skipped) == (16, 8)
    assert check_cube(url).checksum == reference


def test_of_two_that_take_over_the_later_wins(url: str) -> None:
    fence_store(url, TAKER)
    with pytest.raises(ConflictError, match="run 'taker', epoch 6, ours is 5"):
        fence_store(url, replace(TAKER, epoch=5))


def test_lost_lease_stops_the_driver_between_commits(url: str) -> None:
    watch = Watch()
    driver = replace(make_driver(url, epoch=5), watch=watch, wave=Wave(10_000, 1e9))
    worker = PositionWorker()

    def progress(stage: str, done: int, total: int) -> None:
        if done == 6:
            watch.taker = TAKER

    driver.progress = progress
    with pytest.raises(ConflictError, match=r"run 'taker' .* has taken the store over"):
        driver.run(make_plan(worker))
    assert len(worker.seen) == 7
    assert n_done(url) == 0


def test_a_later_epoch_in_the_store_stops_the_run_before_it_commits(
    url: str, reference: str
) -> None:
    make_driver(url, epoch=9).run(make_plan())
    with pytest.raises(ConflictError, match="epoch 9, ours is 3"):
        make_driver(url, epoch=3).run(make_plan(source="other"))
    assert check_cube(url).checksum == reference


def test_two_receipts_for_one_shard_are_refused(url: str) -> None:
    plan = make_plan()
    twice = [*plan.rows[:2], replace(plan.rows[1], key="again")]
    with pytest.raises(StoreError, match=r"two tasks wrote tile z32r0400c041 at take-0"):
        make_driver(url, shards=100).run(replace(plan, rows=twice))
    assert n_done(url) == 0


def test_other_parameters_are_refused_before_any_task(url: str) -> None:
    make_driver(url).run(make_plan())
    worker = PositionWorker()
    plan = make_plan(worker)
    other = replace(plan, spec=replace(plan.spec, parameters={"bands": ["B03"]}))
    with pytest.raises(StoreError, match="made with bands"):
        make_driver(url, epoch=2).run(other)
    assert worker.seen == []


def test_later_entries_join_without_a_rerun(url: str, reference: str) -> None:
    plan = make_plan()
    early = [r for r in plan.rows if r.entry in ("take-2", "take-3")]
    entries: dict[Zone, list[TimeEntry]] = {32: list(plan.entries[32])[2:]}
    make_driver(url).run(replace(plan, rows=early, entries=entries))
    report = make_driver(url, epoch=2).run(plan)
    assert (report.tasks, report.skipped) == (12, 12)
    assert check_cube(url).checksum == reference


def test_failed_reads_of_earlier_runs_are_counted(url: str) -> None:
    def holes(row: BlockRow) -> Iterator[TileResult]:
        for result in PositionWorker()(row):
            yield replace(result, status=2, n_failed=2)

    plan = replace(make_plan(), worker=holes)
    part = make_driver(url).run(replace(plan, rows=plan.rows[:2]))
    assert part.failed_reads == 8
    again = make_driver(url, epoch=2).run(make_plan())
    assert (again.failed_reads, again.skipped) == (8, 2)


def test_refused_commit_says_how_to_go_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make_driver(url)

    def refuse(message: str, **_: Any) -> None:
        raise icechunk.IcechunkError("object store error: no space left")

    session: Any = SimpleNamespace(commit=refuse)
    driver._base = driver.repository.lookup_branch("main")
    with pytest.raises(StoreError, match=r"refused a commit .*no space left.*run again"):
        driver._commit(session, "x")


def test_every_commit_carries_epoch_and_run(url: str) -> None:
    driver = make_driver(url, epoch=4)
    driver.run(make_plan())
    commits = list(driver.repository.ancestry(branch="main"))[:-1]  # the first is Icechunk's own
    assert len(commits) == 7
    assert {(c.metadata["eoray.epoch"], c.metadata["eoray.run"]) for c in commits} == {(4, "run")}
