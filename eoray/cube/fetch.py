"""Read windows out of our own shards: few requests, decoded straight into place.

zarr-python schedules every inner chunk on its own; at 128 x 128 px that costs ten times the
decoding. Here a window needs one request per shard that it covers, or one for the index (cached)
and one for the rows of chunks that it touches, and all shards are asked for at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc

from eoray.cube.layout import ZarrArray
from eoray.cube.shard import ABSENT
from eoray.grid import PixelWindow

IN_FLIGHT = 32
"""Requests at once per window: hides latency without holding more than the window's bytes."""

DECODE_THREADS = 2
"""Blosc releases the interpreter lock; more than two gain nothing on small machines."""

_MAX_INDEXES = 65_536
"""Cached shard indexes per reader: 1 kB each."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a window needs of one shard."""

    key: str
    position: int
    """Place on the answer's time axis."""
    tile_row: int
    tile_col: int
    rows: range
    """Rows of inner chunks."""
    cols: range


class ShardReader:
    """Windows of the arrays of one store."""

    def __init__(self, store: Any) -> None:
        """Read from a Zarr store (an Icechunk session's)."""
        self._store = store
        self._indexes: dict[str, np.ndarray | None] = {}

    def read(
        self, array: ZarrArray, positions: Sequence[int] | None, window: PixelWindow
    ) -> np.ndarray:
        """Read a window.

        Args:
            array: A sharded array of ours; its last dims are (y, x).
            positions: Places on the stored time axis, in any order; None for arrays without time.
            window: Pixels of the zone, inside it or not; outside is fill.

        Returns:
            Dims (time, ..., y, x), or without time.
        """
        layout = _Layout.of(array, has_time=positions is not None)
        n_time = 1 if positions is None else len(positions)
        shape = (n_time, *layout.lead, window.height, window.width)
        out = np.full(shape, array.fill_value, array.dtype)
        parts = list(_parts(layout, positions, window))
        if parts:
            from zarr.core.sync import sync

            chunks = sync(self._fetch(parts, layout))
            jobs = [
                (part, slot, data)
                for part, found in zip(parts, chunks, strict=True)
                for slot, data in found
            ]
            place = _placer(out, layout, window)
            if len(jobs) > 8:
                list(_decoders().map(place, jobs))
            else:
                for job in jobs:
                    place(job)
        return out if positions is not None else out[0]

    async def _fetch(
        self, parts: Sequence[_Part], layout: _Layout
    ) -> list[list[tuple[tuple[int, int], memoryview]]]:
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(part: _Part) -> list[tuple[tuple[int, int], memoryview]]:
            async with gate:
                return await self._fetch_part(part, layout)

        return await asyncio.gather(*(one(part) for part in parts))

    async def _fetch_part(
        self, part: _Part, layout: _Layout
    ) -> list[tuple[tuple[int, int], memoryview]]:
        if len(part.rows) * 2 > layout.per_row:
            return await self._fetch_whole(part, layout)
        index = await self._index(part.key, layout)
        if index is None:
            return []
        wanted = [
            (row, col) for row in part.rows for col in part.cols if index[row, col, 0] != ABSENT
        ]
        if not wanted:
            return []
        spans = np.array([index[at] for at in wanted])
        start, end = int(spans[:, 0].min()), int((spans[:, 0] + spans[:, 1]).max())
        data = await self._get(part.key, start, end)
        if data is None:
            return []
        return [
            (at, data[int(offset) - start : int(offset + length) - start])
            for at, (offset, length) in zip(wanted, spans, strict=True)
        ]

    async def _fetch_whole(
        self, part: _Part, layout: _Layout
    ) -> list[tuple[tuple[int, int], memoryview]]:
        data = await self._get(part.key)
        if data is None:
            return []
        index = _parse_index(data[-layout.index_bytes :], layout)
        return [
            ((row, col), data[int(index[row, col, 0]) : int(index[row, col].sum())])
            for row in part.rows
            for col in part.cols
            if index[row, col, 0] != ABSENT
        ]

    async def _index(self, key: str, layout: _Layout) -> np.ndarray | None:
        """The table at a shard's end; None where there is no shard."""
        if key not in self._indexes:
            data = await self._get_suffix(key, layout.index_bytes)
            if len(self._indexes) >= _MAX_INDEXES:
                self._indexes.clear()
            self._indexes[key] = None if data is None else _parse_index(data, layout)
        return self._indexes[key]

    async def _get(self, key: str, start: int = 0, end: int | None = None) -> memoryview | None:
        from zarr.abc.store import RangeByteRequest
        from zarr.core.buffer import default_buffer_prototype

        asked = None if end is None else RangeByteRequest(start, end)
        return _view(await self._store.get(key, default_buffer_prototype(), asked))

    async def _get_suffix(self, key: str, size: int) -> memoryview | None:
        from zarr.abc.store import SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype

        asked = SuffixByteRequest(size)
        return _view(await self._store.get(key, default_buffer_prototype(), asked))


def _view(buffer: Any) -> memoryview | None:
    return None if buffer is None else memoryview(buffer.to_bytes())


@dataclass(frozen=True, slots=True)
class _Layout:
    """How an array is cut."""

    path: str
    lead: tuple[int, ...]
    """Dims between time and y."""
    tile: int
    edge: int
    per_row: int
    """Inner chunks along the edge of a shard."""
    dtype: np.dtype[Any]
    height: int
    width: int

    @property
    def index_bytes(self) -> int:
        """Offset and length of every inner chunk, and a CRC32C."""
        return self.per_row**2 * 16 + 4

    @classmethod
    def of(cls, array: ZarrArray, *, has_time: bool) -> _Layout:
        shards = array.shards or array.chunks
        tile, edge = shards[-1], array.chunks[-1]
        lead = array.shape[1 if has_time else 0 : -2]
        height, width = array.shape[-2:]
        path = array.path
        return cls(path, lead, tile, edge, tile // edge, array.dtype, height, width)


def _parse_index(data: memoryview, layout: _Layout) -> np.ndarray:
    table = np.frombuffer(data[:-4], "<u8")
    return table.reshape(layout.per_row, layout.per_row, 2)


def _parts(
    layout: _Layout, positions: Sequence[int] | None, window: PixelWindow
) -> Iterator[_Part]:
    r0, r1 = max(0, window.row_off), min(layout.height, window.row_off + window.height)
    c0, c1 = max(0, window.col_off), min(layout.width, window.col_off + window.width)
    if r0 >= r1 or c0 >= c1:
        return
    zeros = "/".join("0" for _ in layout.lead)
    middle = f"{zeros}/" if zeros else ""
    for row in range(r0 // layout.tile, (r1 - 1) // layout.tile + 1):
        for col in range(c0 // layout.tile, (c1 - 1) // layout.tile + 1):
            rows = _chunks(layout, row, r0, r1)
            cols = _chunks(layout, col, c0, c1)
            for place, position in enumerate([None] if positions is None else positions):
                time = "" if position is None else f"{position}/"
                key = f"{layout.path}/c/{time}{middle}{row}/{col}"
                yield _Part(key, place, row, col, rows, cols)


def _chunks(layout: _Layout, tile: int, start: int, stop: int) -> range:
    origin = tile * layout.tile
    first = max(start - origin, 0) // layout.edge
    last = (min(stop - origin, layout.tile) - 1) // layout.edge
    return range(first, last + 1)


@lru_cache(maxsize=1)
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODE_THREADS, "eoray-decode")


def _placer(out: np.ndarray, layout: _Layout, window: PixelWindow) -> Any:
    codec = Blosc()

    def place(job: tuple[_Part, tuple[int, int], memoryview]) -> None:
        part, (row, col), data = job
        values = np.frombuffer(codec.decode(data), layout.dtype)
        values = values.reshape(*layout.lead, layout.edge, layout.edge)
        top = part.tile_row * layout.tile + row * layout.edge - window.row_off
        left = part.tile_col * layout.tile + col * layout.edge - window.col_off
        r0, r1 = max(0, top), min(window.height, top + layout.edge)
        c0, c1 = max(0, left), min(window.width, left + layout.edge)
        out[part.position][..., r0:r1, c0:c1] = values[
            ..., r0 - top : r1 - top, c0 - left : c1 - left
        ]

    return place
