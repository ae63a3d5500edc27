"""Encode whole Zarr v3 shards: inner chunks of 128 x 128 px, blosc zstd-1, index at the end.

Writing a shard in one piece skips zarr-python's read of the old one before an overwrite, and
costs one put. The bytes follow the ``sharding_indexed`` codec of the Zarr v3 specification, so
any reader of Zarr v3 opens them.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.blosc import BITSHUFFLE
from numcodecs.blosc import Blosc as BloscEncoder

from eoray.cube.layout import CHUNK_PX, ArraySpec

if TYPE_CHECKING:
    from collections.abc import Mapping

ABSENT = 2**64 - 1
"""Offset and length of an inner chunk that holds nothing but fill."""


def chunk_shape(array: ArraySpec, tile_px: int, *, has_time: bool) -> tuple[int, ...]:
    """Inner chunk: all leading labels of one date, 128 px square (or the tile, if smaller)."""
    edge = min(CHUNK_PX, tile_px)
    return ((1,) if has_time else ()) + array.lead_shape + (edge, edge)


def shard_shape(array: ArraySpec, tile_px: int, *, has_time: bool) -> tuple[int, ...]:
    """Shard: one tile of one date."""
    return ((1,) if has_time else ()) + array.lead_shape + (tile_px, tile_px)


def array_options(array: ArraySpec, tile_px: int, *, has_time: bool) -> Mapping[str, Any]:
    """Keywords of ``Group.create_array`` that match :func:`encode_shard`."""
    from zarr.codecs import BloscCodec

    return {
        "chunks": chunk_shape(array, tile_px, has_time=has_time),
        "shards": shard_shape(array, tile_px, has_time=has_time),
        "dtype": array.dtype,
        "fill_value": np.dtype(array.dtype).type(array.fill).item(),
        "compressors": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    }


def encode_shard(values: np.ndarray, fill: float) -> bytes | None:
    """Encode one tile.

    Args:
        values: Leading dims + (y, x) of a whole tile, contiguous or not.
        fill: Inner chunks of this value alone are left out.

    Returns:
        The shard, or None where the whole tile is fill (then nothing is stored).
    """
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    edge = min(CHUNK_PX, values.shape[-1])
    steps = range(0, values.shape[-2], edge), range(0, values.shape[-1], edge)
    encoder = BloscEncoder(cname="zstd", clevel=1, shuffle=BITSHUFFLE)
    index = np.full((math.prod(len(step) for step in steps), 2), ABSENT, "<u8")
    parts: list[bytes] = []
    offset = 0
    zeros = b""
    for slot, (row, col) in enumerate(product(*steps)):
        chunk = values[..., row : row + edge, col : col + edge]
        if is_fill(chunk, fill):
            continue
        if is_fill(chunk, 0):  # flags and masks are mostly zeros
            data = zeros = zeros or encoder.encode(np.ascontiguousarray(chunk))
        else:
            data = encoder.encode(np.ascontiguousarray(chunk))
        index[slot] = offset, len(data)
        offset += len(data)
        parts.append(data)
    if not parts:
        return None
    table = index.tobytes()
    return b"".join([*parts, table, crc32c(table).to_bytes(4, "little")])


def is_fill(values: np.ndarray, fill: float) -> bool:
    """True where every value is the fill value, NaN included."""
    first = values[(0,) * values.ndim] if values.size else fill
    if first != fill and not (math.isnan(fill) and np.isnan(first)):
        return False  # most tiles hold data from their first pixel on
    return bool((np.isnan(values) if math.isnan(fill) else values == fill).all())


def shard_key(group: str, array: str, index: tuple[int, ...]) -> str:
    """Key of a shard in the store, such as ``s2/z32/10m/reflectance/c/3/0/396/69``."""
    return f"{group}/{array}/c/" + "/".join(str(i) for i in index)
