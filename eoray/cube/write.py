"""The task side of writing: compute tiles, encode whole shards, set them in a forked session.

A task never commits and never writes part of a shard. It returns a receipt with the fork; the
driver merges forks and commits them together with the ledger.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from eoray.cube.layout import NO_SCENE, ProductSpec, TileResult, group_path, tile_px
from eoray.cube.ledger import TileReceipt, receipt_of
from eoray.cube.shard import encode_shard, shard_key
from eoray.errors import GridError
from eoray.grid import Tile, Zone
from eoray.reading.usage import READS, ReadUsage

if TYPE_CHECKING:
    from icechunk.store import IcechunkStore
    from zarr.core.buffer import Buffer


class Row(Protocol):
    """A plan row: small, frozen, picklable."""

    @property
    def key(self) -> str:
        """Unique within the stage; names the row in logs."""

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Tiles that the row writes."""

    @property
    def entry(self) -> str:
        """Time entry that the row writes."""


Worker = Callable[[Any], Iterable[TileResult]]
"""Turns a row into the results of its tiles. Small and picklable; never touches the store."""


@runtime_checkable
class StreamingWorker(Protocol):
    """A worker that can begin a row while the results of the one before are written."""

    def __call__(self, row: Any) -> Iterable[TileResult]:
        """Turn a row into the results of its tiles."""

    def stream(self, rows: Iterator[Any]) -> Generator[tuple[Any, Iterable[TileResult]]]:
        """Yield rows in their order with their results, which are used up before the next row."""


@dataclass(frozen=True, slots=True)
class RowReceipt:
    """What a finished task hands to the driver: a few hundred bytes a tile, no pixels."""

    key: str
    tiles: tuple[TileReceipt, ...]
    fork: bytes
    """The pickled session that holds the shards written."""
    n_shards: int
    reads: ReadUsage = field(default_factory=ReadUsage)
    """What this process read since the task that ended before this one."""


@dataclass(frozen=True, slots=True)
class WriteTask:
    """A worker together with the place where its results go."""

    spec: ProductSpec
    worker: Worker
    fork: bytes
    """A pickled fork of the driver's session; every row writes into a copy of its own."""
    positions: dict[tuple[Zone, str], int]
    """(zone, entry key) -> index on the stored time axis."""

    def __call__(self, row: Row) -> RowReceipt:
        """Compute a row, write its shards, and say what was written."""
        return self._write_row(row, self.worker(row))

    def stream(self, rows: Iterator[Row]) -> Generator[RowReceipt]:
        """Do so with rows in their order; a streaming worker reads ahead into the next one."""
        if not isinstance(self.worker, StreamingWorker):
            for row in rows:
                yield self(row)
            return
        with closing(self.worker.stream(rows)) as found:
            for row, results in found:
                yield self._write_row(row, results)

    def _write_row(self, row: Row, results: Iterable[TileResult]) -> RowReceipt:
        session = pickle.loads(self.fork)  # noqa: S301 - our own driver made it
        receipts, n_shards = [], 0
        for result in results:
            self._check(row, result)
            n_shards += self._write(session.store, result)
            fills = {path: self.spec.array(path).fill for path in result.arrays}
            receipts.append(receipt_of(result, fills))
        missing = set(row.tiles) - {receipt.tile for receipt in receipts}
        if missing:
            raise GridError(
                f"row {row.key} returned nothing for tile {min(missing).id}; a worker returns a "
                f"result for each tile of its row, {NO_SCENE} as the status where there is none"
            )
        fork = pickle.dumps(session)
        return RowReceipt(row.key, tuple(receipts), fork, n_shards, READS.drain())

    def _check(self, row: Row, result: TileResult) -> None:
        if result.tile not in row.tiles:
            raise GridError(
                f"row {row.key} returned tile {result.tile.id}, which it does not own "
                f"({', '.join(tile.id for tile in row.tiles)}); a worker writes its row's tiles"
            )

    def _write(self, target: IcechunkStore, result: TileResult) -> int:
        from zarr.core.sync import sync

        shards = dict(self._encode(result))
        sync(_store_all(target, shards))
        return sum(data is not None for data in shards.values())

    def _encode(self, result: TileResult) -> Iterator[tuple[str, bytes | None]]:
        """Keys of a tile's shards with their bytes; None for one of fill only."""
        for path, values in result.arrays.items():
            array = self.spec.array(path)
            resolution_m = int(path.split("/")[0].removesuffix("m"))
            px = tile_px(resolution_m, result.tile.zone)
            if values.shape != (*array.lead_shape, px, px) or values.dtype != array.dtype:
                raise GridError(
                    f"{path} of tile {result.tile.id} has shape {values.shape} and dtype "
                    f"{values.dtype}, but the store holds {(*array.lead_shape, px, px)} "
                    f"{array.dtype}; tasks write whole tiles"
                )
            key = self._key(result, resolution_m, array.name, len(array.lead))
            yield key, encode_shard(values, array.fill)

    def _key(self, result: TileResult, resolution_m: int, array: str, n_lead: int) -> str:
        tile = result.tile
        index = (0,) * n_lead + (tile.row, tile.col)
        if self.spec.has_time:
            index = (self.positions[tile.zone, result.entry], *index)
        return shard_key(group_path(self.spec.name, tile.zone, resolution_m), array, index)


async def _store_all(target: IcechunkStore, shards: Mapping[str, bytes | None]) -> None:
    """Set all shards of a tile at once: one wait for all requests."""

    async def store(key: str, data: bytes | None) -> None:
        if data is not None:
            await target.set(key, _held(data))
        elif await target.exists(key):  # an earlier state of this tile held values
            await target.delete(key)

    await asyncio.gather(*(store(key, data) for key, data in shards.items()))


def _held(data: bytes) -> Buffer:
    """Bytes as zarr wants them."""
    return _held_type()(data)


@lru_cache(maxsize=1)
def _held_type() -> Callable[[bytes], Buffer]:
    from zarr.core.buffer.cpu import Buffer

    class Held(Buffer):
        """A buffer that gives out the bytes that it was made of.

        Icechunk copies anything else while it holds the interpreter lock: 1.4 ms a MB.
        """

        def __init__(self, data: bytes) -> None:
            super().__init__(np.frombuffer(data, "B"))
            self._bytes = data

        def as_buffer_like(self) -> bytes:
            return self._bytes

    return Held
