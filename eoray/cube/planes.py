"""Read and write whole planes of the ledger, many at once.

A plane is one chunk: all tiles of a zone at one time entry, nearly all of them empty. Taking it
through zarr-python costs ten times the decoding, and a run looks at thousands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numcodecs.zstd import Zstd

from eoray.cube.layout import ZarrArray

IN_FLIGHT = 32
"""Requests at once."""


def read_planes(array: ZarrArray, positions: Sequence[int]) -> Iterator[np.ndarray]:
    """Read planes of an array of ours with dims (time, tile_y, tile_x), one chunk each.

    Yields:
        One array (tile_y, tile_x) for each position, decoded as it is asked for: a decoded plane
        is a thousand times its stored size. A plane that is not stored holds fill.
    """
    from zarr.core.sync import sync

    shape = array.shape[1:]
    codec, little = Zstd(), array.dtype.newbyteorder("<")
    for data in sync(_get_all([_key(array, i) for i in positions], array)):
        if data is None:
            yield np.full(shape, array.fill_value, array.dtype)
        else:
            values = np.frombuffer(codec.decode(data), little).reshape(shape)
            yield values.astype(array.dtype)


def write_planes(array: ZarrArray, planes: Mapping[int, np.ndarray]) -> None:
    """Write planes by position; one that holds only fill is removed."""
    from zarr.core.sync import sync

    codec, little = Zstd(level=0), array.dtype.newbyteorder("<")
    encoded = {
        _key(array, i): None
        if (plane == array.fill_value).all()
        else codec.encode(np.ascontiguousarray(plane, little))
        for i, plane in planes.items()
    }
    sync(_set_all(encoded, array))


def _key(array: ZarrArray, position: int) -> str:
    return f"{array.path}/c/{position}/0/0"


async def _get_all(keys: Sequence[str], array: ZarrArray) -> list[bytes | None]:
    from zarr.core.buffer import default_buffer_prototype

    gate, prototype = asyncio.Semaphore(IN_FLIGHT), default_buffer_prototype()

    async def one(key: str) -> bytes | None:
        async with gate:
            found = await array.store.get(key, prototype)
        return None if found is None else found.to_bytes()

    return await asyncio.gather(*(one(key) for key in keys))


async def _set_all(encoded: Mapping[str, bytes | None], array: ZarrArray) -> None:
    from zarr.core.buffer import default_buffer_prototype

    buffers, gate = default_buffer_prototype().buffer, asyncio.Semaphore(IN_FLIGHT)

    async def one(key: str, data: bytes | None) -> None:
        async with gate:
            if data is not None:
                await array.store.set(key, buffers.from_bytes(data))
            elif await array.store.exists(key):
                await array.store.delete(key)

    await asyncio.gather(*(one(key, data) for key, data in encoded.items()))
