"""The driver of a stage: plans against the ledger, runs tasks, commits waves. The only committer.

Tasks write shards into forks of one session; the driver merges what finished within a wave and
commits it together with the ledger, so pixels and the word that they are done become visible at
once. Kill it anywhere: the last commit stands, and the next run plans what is missing.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eoray.cube import store
from eoray.cube.holes import write_letters
from eoray.cube.layout import Hole, ProductSpec, TimeEntry
from eoray.cube.ledger import Ledger, write_receipts
from eoray.cube.write import RowReceipt, Worker, WriteTask
from eoray.errors import ConflictError, EorayError, StoreError
from eoray.execute import Executor, run_tasks
from eoray.grid import Tile, Zone
from eoray.log import get_logger
from eoray.reading.usage import READS, ReadUsage
from eoray.run.chosen import Chosen
from eoray.run.lease import FENCE, Watch
from eoray.run.meters import StageMeter

if TYPE_CHECKING:
    import icechunk

    from eoray.cube.ledger import TileReceipt
    from eoray.run.failures import FailureLimit
    from eoray.run.lease import Holder

_EPOCH, _RUN = "eoray.epoch", "eoray.run"
"""What commits carry: who made them."""

_FENCE_TRIES = 20
"""Commits of a rival that may come first; it makes one in seconds."""


@dataclass(frozen=True, slots=True)
class Wave:
    """When finished tasks are committed: whichever comes first."""

    shards: int = 2048
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Everything the driver needs to run one stage into the store."""

    name: str
    spec: ProductSpec
    entries: Mapping[Zone, Sequence[TimeEntry]]
    """Time entries by zone."""
    rows: Sequence[Any]
    """Each with ``key, entry, tiles, sources`` and ``only(tiles)``."""
    worker: Worker
    probe: Callable[[Sequence[Any]], None] | None = None
    """Called with the rows that are to be run, before any is; raises what would stop them all."""
    again: frozenset[tuple[Tile, str]] = frozenset()
    """(tile, entry) that are made again although the ledger calls them done: their holes."""
    limit: FailureLimit | None = None
    """Ends the stage where too many reads fail."""


@dataclass(slots=True)
class StageReport:
    """What a stage did."""

    name: str
    product: str
    tasks: int = 0
    """Rows run."""
    skipped: int = 0
    """Rows found done in the ledger."""
    failed_reads: int = 0
    """Of all tiles of the plan, those done earlier included."""
    commits: int = 0
    seconds: float = 0.0
    reads: ReadUsage = field(default_factory=ReadUsage)
    """Requests, bytes and further attempts of the rows run."""
    extra: dict[str, Any] = field(default_factory=dict)


Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as rows finish."""


@dataclass(slots=True)
class Driver:
    """Commits to one repository under one lease."""

    repository: icechunk.Repository
    holder: Holder
    executor: Executor
    wave: Wave = field(default_factory=Wave)
    progress: Progress | None = None
    watch: Watch = field(default_factory=Watch)
    """Says when the lease is lost: between commits, too."""
    _base: str = ""
    """Newest commit when the stage began."""

    def run(self, plan: StagePlan) -> StageReport:
        """Run a stage to its end.

        Returns:
            Counts and seconds.

        Raises:
            StoreError: The product stands with other parameters.
            ConflictError: Another run commits to this store.
            EorayError: A task failed; what was finished before is committed.
        """
        begun = time.monotonic()
        self.watch.check()
        report = StageReport(plan.name, plan.spec.name)
        self._base = self.repository.lookup_branch(store.BRANCH)
        self._prepare(plan)
        todo = self._todo(plan, report)
        READS.drain()  # what planning read is no task's
        if todo and plan.probe is not None:
            plan.probe(todo)
        meter = StageMeter(self.holder.run, plan.name, len(plan.rows))
        meter.done(report.skipped)
        try:
            self._run_rows(plan, todo, report, meter)
        finally:
            report.seconds = time.monotonic() - begun
        report.failed_reads = self._failed_reads(plan)
        if report.reads.requests:
            get_logger().info("reads", stage=plan.name, **report.reads.to_dict())
        return report

    def _prepare(self, plan: StagePlan) -> None:
        """Create the product and lengthen its axes, in a commit before any fork."""
        import zarr

        session = self.repository.writable_session(store.BRANCH)
        root = zarr.open_group(session.store, mode="a")
        changed = False
        for zone, entries in sorted(plan.entries.items()):
            is_new = store.create_product(root, plan.spec, zone, entries)
            changed |= is_new or store.append_entries(root, plan.spec, zone, entries) > 0
        if changed:
            self._commit(session, f"{plan.name}: axes of {plan.spec.name}")

    def _todo(self, plan: StagePlan, report: StageReport) -> Chosen:
        """Rows, or the part of them, that the ledger does not call done from these sources."""
        root = self._read_root()
        ledgers = {zone: Ledger(root, plan.spec.name, zone) for zone in plan.entries}
        todo = Chosen(plan.rows)
        for number, row in enumerate(plan.rows):
            missing = _missing(ledgers[row.tiles[0].zone], row, plan.again)
            if not missing:
                report.skipped += 1
            else:
                todo.take(number, row.only(missing) if len(missing) < len(row.tiles) else None)
        return todo

    def _run_rows(
        self, plan: StagePlan, rows: Sequence[Any], report: StageReport, meter: StageMeter
    ) -> None:
        if not rows:
            return
        session = self.repository.writable_session(store.BRANCH)
        task = WriteTask(
            plan.spec, plan.worker, pickle.dumps(session.fork()), self._positions(plan)
        )
        pending: list[RowReceipt] = []
        last = time.monotonic()
        outcomes = run_tasks(task, rows, self.executor)
        try:
            for outcome in outcomes:
                if outcome.error is not None:
                    raise _explained(outcome.error, outcome.key)
                pending.append(outcome.receipt)
                report.tasks += 1
                report.reads += outcome.receipt.reads
                _log_holes(plan.name, outcome.receipt.tiles)
                meter.done(report.tasks + report.skipped)
                self.watch.check()
                if self.progress is not None:
                    self.progress(plan.name, report.tasks + report.skipped, len(plan.rows))
                if plan.limit is not None:
                    plan.limit.check(outcome.receipt.tiles)
                n_shards = sum(receipt.n_shards for receipt in pending)
                if n_shards >= self.wave.shards or time.monotonic() - last >= self.wave.seconds:
                    # taken out first: a commit that was refused is not tried again on a new tip
                    wave, pending = pending, []
                    self._commit_wave(plan, wave, report, meter)
                    last = time.monotonic()
        finally:
            # an interrupt or a failed task must not cost what is finished
            outcomes.close()  # type: ignore[attr-defined]
            if pending:
                self._commit_wave(plan, pending, report, meter)

    def _positions(self, plan: StagePlan) -> dict[tuple[Zone, str], int]:
        root = self._read_root()
        return {
            (zone, key): index
            for zone in plan.entries
            for index, key in enumerate(store.entry_keys(root, plan.spec.name, zone))
        }

    def _commit_wave(
        self,
        plan: StagePlan,
        receipts: Sequence[RowReceipt],
        report: StageReport,
        meter: StageMeter,
    ) -> None:
        import zarr

        begun = time.monotonic()
        tiles = [tile for receipt in receipts for tile in receipt.tiles]
        _check_disjoint([(tile.tile, tile.entry) for tile in tiles])
        session = self.repository.writable_session(store.BRANCH)
        forks = [pickle.loads(receipt.fork) for receipt in receipts]  # noqa: S301 - our tasks'
        session.merge(*forks)
        root = zarr.open_group(session.store, mode="a")
        write_receipts(root, plan.spec.name, tiles)
        write_letters(root, plan.spec.name, tiles)
        self._commit(session, f"{plan.name}: {len(tiles)} tiles of {plan.spec.name}")
        report.commits += 1
        meter.committed(
            tiles=len(tiles),
            failed_reads=sum(tile.n_failed for tile in tiles),
            seconds=time.monotonic() - begun,
        )
        get_logger().info(
            "commit", stage=plan.name, product=plan.spec.name, rows=len(receipts), tiles=len(tiles)
        )

    def _commit(self, session: icechunk.Session, message: str) -> None:
        import icechunk

        self._check_alone()
        try:
            _commit(session, message, self.holder)
        except icechunk.ConflictError as error:
            _check_newest(self.repository, self.holder)
            raise ConflictError(
                "somebody else committed to this store while it was held by "
                f"{self.holder.describe()}; stop the other writer and run again: the last commit "
                "stands"
            ) from error

    def _check_alone(self) -> None:
        """Refuse to build upon a commit that another run made since this stage began."""
        self.watch.check()
        newest = _check_newest(self.repository, self.holder)
        if _epoch(newest) < self.holder.epoch and newest.id != self._base:
            raise _foreign(newest, self.holder)

    def _read_root(self) -> Any:
        return store.read_root(self.repository)

    def _failed_reads(self, plan: StagePlan) -> int:
        root = self._read_root()
        ledgers = {zone: Ledger(root, plan.spec.name, zone) for zone in plan.entries}
        return sum(
            int(ledgers[row.tiles[0].zone].column("n_failed", row.tiles, row.entry).sum())
            for row in plan.rows
        )


def fence_store(url: str, holder: Holder) -> None:
    """Let the commits of earlier holders be refused from now on.

    An empty commit of ours at the tip does it: what they began before it no longer fits there, and
    what they begin behind it finds our epoch. Theirs that come first are part of what we build on.

    Args:
        url: The repository; made where there is none.
        holder: Who holds the store now.

    Raises:
        ConflictError: A later holder was faster.
        StoreError: The store cannot be written.
    """
    import icechunk

    repository = store.open_repository(url, create=True)
    for _ in range(_FENCE_TRIES):
        session = repository.writable_session(store.BRANCH)
        _check_newest(repository, holder)
        with suppress(icechunk.ConflictError):
            _commit(session, "earlier writers are shut out", holder, is_fence=True)
            return
    raise ConflictError(
        f"store {url!r} is committed to faster than {holder.describe()} can shut the other writer "
        "out; stop that one and run again"
    )


def _commit(
    session: icechunk.Session, message: str, holder: Holder, *, is_fence: bool = False
) -> None:
    import icechunk

    metadata: dict[str, Any] = {_EPOCH: holder.epoch, _RUN: holder.run}
    if is_fence:
        metadata[FENCE] = True
    try:
        session.commit(message, metadata=metadata, allow_empty=is_fence)
    except icechunk.ConflictError:
        raise
    except (icechunk.IcechunkError, OSError) as error:
        raise StoreError(
            f"the store refused a commit ({' '.join(str(error).split())[:200]}); free space "
            "or mend the storage and run again: the last commit stands"
        ) from error


def _check_newest(repository: icechunk.Repository, holder: Holder) -> icechunk.SnapshotInfo:
    """The newest commit; refused where it is a later holder's."""
    newest = next(iter(repository.ancestry(branch=store.BRANCH)))
    if _epoch(newest) > holder.epoch:
        raise _foreign(newest, holder)
    return newest


def _epoch(commit: icechunk.SnapshotInfo) -> int:
    return int(commit.metadata.get(_EPOCH, 0))


def _foreign(commit: icechunk.SnapshotInfo, holder: Holder) -> ConflictError:
    who = f"run {commit.metadata[_RUN]!r}, " if _RUN in commit.metadata else ""
    return ConflictError(
        f"another run commits to this store ({who}epoch {_epoch(commit)}, ours is {holder.epoch}); "
        "this run stops, its last commit stands: run it again when the other has ended"
    )


def _log_holes(stage: str, tiles: Sequence[TileReceipt]) -> None:
    """Say when and where reads failed: the store keeps neither."""
    by_hole: dict[Hole, list[str]] = {}
    for tile in tiles:
        for hole in tile.holes:
            by_hole.setdefault(hole, []).append(tile.tile.id)
    for hole, ids in by_hole.items():
        get_logger().warning(
            "failed read",
            stage=stage,
            item=hole.item_id,
            band=hole.band,
            reason=hole.reason,
            detail=hole.detail,
            host=hole.host,
            attempts=hole.attempts,
            tiles=ids,
        )


def _missing(ledger: Ledger, row: Any, again: frozenset[tuple[Tile, str]]) -> list[Tile]:
    """Tiles of a row that are not done from its sources, or are to be made again."""
    sources, known = ledger.sources, ledger.column("source", row.tiles, row.entry).tolist()
    return [
        tile
        for tile, source, at in zip(row.tiles, row.sources, known, strict=True)
        if at < 0 or sources[at] != source or (tile, row.entry) in again
    ]


def _check_disjoint(written: Sequence[tuple[Tile, str]]) -> None:
    """Merging keeps the last of two equal shards without a word, so refuse them here."""
    seen: set[tuple[Tile, str]] = set()
    for tile, entry in written:
        if (tile, entry) in seen:
            raise StoreError(
                f"two tasks wrote tile {tile.id} at {entry}; nothing of this wave is committed, "
                "please report the run file: a plan must own each shard once"
            )
        seen.add((tile, entry))


def _explained(error: BaseException, key: str) -> BaseException:
    """Keep our own errors; name the task of any other."""
    if isinstance(error, EorayError):
        return error
    if isinstance(error, OSError) and error.errno == 28:
        return StoreError(
            f"the disk is full (task {key}); free space and run again: the last commit stands"
        )
    wrapped = EorayError(
        f"task {key} failed: {type(error).__name__}: {error}; run again with --debug"
    )
    wrapped.__cause__ = error
    return wrapped
