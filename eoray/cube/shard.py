"""Encode whole Zarr v3 shards: inner chunks of 128 x 128 px, blosc zstd-1, index at the end.

Writing a shard in one piece skips zarr-python's read of the old one before an overwrite, and
costs one put. The bytes follow the ``sharding_indexed`` codec of the Zarr v3 specification, so
any reader of Zarr v3 opens them.

Inner chunks are Blosc frames that we lay out ourselves, since Blosc knows no level of zstd below
1: level -1 encodes and decodes in two thirds of the time and takes 1 to 2 % more room, for what the
bit shuffle leaves is either all alike or noise.
"""

from __future__ import annotations

import math
import struct
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import imagecodecs
import numba
import numpy as np
import zstandard
from google_crc32c import value as crc32c
from numcodecs.blosc import BITSHUFFLE
from numcodecs.blosc import Blosc as BloscEncoder

from eoray.cube.draft import bytes_codec
from eoray.cube.layout import CHUNK_PX, ArraySpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HEADER = struct.Struct("<BBBBIII")
_BIT_SHUFFLED, _NOT_SPLIT, _ZSTD = 0x04, 0x10, 4 << 5
_ZSTD_LEVEL = -1
_BLOCK_BYTES = 131_072
"""Shuffled at once: four bands of a chunk, which the second cache of a core holds."""

ABSENT = 2**64 - 1
"""Offset and length of an inner chunk that holds nothing but fill."""


def chunk_shape(array: ArraySpec, tile_px: int, *, has_time: bool) -> tuple[int, ...]:
    """Inner chunk: all leading labels of one date, 128 px square (or the tile, if smaller)."""
    edge = min(CHUNK_PX, tile_px)
    return ((1,) if has_time else ()) + array.lead_shape + (edge, edge)


def shard_shape(array: ArraySpec, tile_px: int, *, has_time: bool) -> tuple[int, ...]:
    """Shard: one tile of one date."""
    return ((1,) if has_time else ()) + array.lead_shape + (tile_px, tile_px)


def shard_codecs(array: ArraySpec, tile_px: int, *, has_time: bool) -> tuple[Mapping[str, Any]]:
    """Codecs of an array whose shards are those of :func:`encode_shard`, as Zarr v3 writes them."""
    inner = {
        "typesize": np.dtype(array.dtype).itemsize,
        "cname": "zstd",
        "clevel": 1,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    how = {
        "chunk_shape": chunk_shape(array, tile_px, has_time=has_time),
        "codecs": (bytes_codec(array.dtype), {"name": "blosc", "configuration": inner}),
        "index_codecs": (bytes_codec("u8"), {"name": "crc32c"}),
        "index_location": "end",
    }
    return ({"name": "sharding_indexed", "configuration": how},)


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
    is_float = values.dtype.kind == "f"
    index = np.full((values.shape[-2] // edge * (values.shape[-1] // edge), 2), ABSENT, "<u8")
    parts: list[bytes] = []
    offset = 0
    slot = -1
    for chunks, constant in _rows(values, edge):
        shuffled = None if all(constant) else _shuffle_row(chunks)
        for number, (chunk, is_constant) in enumerate(zip(chunks, constant, strict=True)):
            slot += 1
            if is_constant:  # flags and masks are mostly zeros
                first = chunk[0, 0, :1]
                if is_fill(first, fill):
                    continue
                data = _encode_constant(values.dtype, first.tobytes(), chunk.shape)
            elif is_float and is_fill(chunk, fill):
                continue  # in other bytes: zeros have a sign, and NaN has many faces
            else:
                data = _encode_chunk(chunk, None if shuffled is None else shuffled[number])
            size = sum(map(len, data))
            index[slot] = offset, size
            offset += size
            parts += data
    if not parts:
        return None
    table = index.tobytes()
    return b"".join([*parts, table, crc32c(table).to_bytes(4, "little")])


def _rows(values: np.ndarray, edge: int) -> Iterator[tuple[np.ndarray, list[bool]]]:
    """Rows of inner chunks, dims (chunk, plane, y, x), valid until the next; True for one value."""
    size = values.itemsize
    planes = values.reshape(-1, *values.shape[-2:])
    if edge * size % 8:  # a tile of a few pixels, such as a date's shift
        few = np.ascontiguousarray(planes)
        bits = few.view(f"u{size}")
        yield few[None], [bool((bits == bits[0, 0, 0]).all())]
        return
    words = (planes if planes.strides[-1] == size else np.ascontiguousarray(planes)).view(np.uint64)
    width = edge * size // words.itemsize
    turn = np.uint64(8 * size % 64)
    shape = words.shape[-1] // width, len(words), edge, width
    chunks = _scratch("chunks", 8 * math.prod(shape)).view(words.dtype).reshape(shape)
    for top in range(0, words.shape[1], edge):  # a row of chunks at once stays in the core's cache
        constant = _gather(words, top, turn, chunks)
        yield chunks.view(values.dtype), constant.tolist()


@numba.njit(nogil=True, cache=True)
def _gather(words: np.ndarray, top: int, turn: Any, chunks: np.ndarray) -> np.ndarray:
    """Copy a row of chunks, dims (chunk, plane, y, x); True for those of one value throughout.

    All words are then the first one, and that is itself when it is turned by a value's bits.
    """
    n_chunks, n_planes, height, width = chunks.shape
    constant = np.zeros(n_chunks, np.bool_)
    for number in range(n_chunks):
        left = number * width
        first = words[0, top, left]
        different = first ^ first
        for plane in range(n_planes):
            for r in range(height):
                for c in range(width):
                    word = words[plane, top + r, left + c]
                    chunks[number, plane, r, c] = word
                    different |= word ^ first
        turned = np.uint64(first) << turn | np.uint64(first) >> (np.uint64(64) - turn)
        constant[number] = different == 0 and (turn == 0 or turned == first)
    return constant


def _shuffle_row(chunks: np.ndarray) -> np.ndarray | None:
    """Shuffle the bits of several chunks, dims (chunk, byte); None where the library has to.

    Valid until the thread shuffles the next ones.

    Source:
        Masui et al. (2015), A compression scheme for radio data in high performance computing
        (bitshuffle): of each block bit 0 of all values, then bit 1 of all, and so on.
    """
    n_chunks, n_planes, edge, _ = chunks.shape
    size, plane_bytes = chunks.itemsize, edge * edge * chunks.itemsize
    if size > 2 or plane_bytes % (16 * size) or _BLOCK_BYTES % plane_bytes:
        return None
    words = chunks.reshape(n_chunks, n_planes, -1).view(np.uint64)
    shuffled = _scratch("shuffled", chunks.nbytes).reshape(n_chunks, n_planes * plane_bytes)
    _shuffle(words, size, _BLOCK_BYTES // plane_bytes, shuffled)
    return shuffled


@numba.njit(nogil=True, cache=True)
def _shuffle(words: np.ndarray, size: int, per_block: int, out: np.ndarray) -> None:
    """Planes of 8-byte words, dims (chunk, plane, word), of numbers of one or two bytes."""
    n_chunks, n_planes, n_words = words.shape
    lanes = np.empty((size, n_words // size), np.uint64)
    length = lanes.shape[1]
    for chunk in range(n_chunks):
        for plane in range(n_planes):
            first = plane // per_block * per_block
            row_bytes = min(per_block, n_planes - first) * length
            start = first * 8 * size * length + (plane - first) * length
            if size == 1:
                _turn_bytes(words[chunk, plane], lanes[0])
            else:
                _turn_pairs(words[chunk, plane], lanes[0], lanes[1])
            for byte in range(size):
                _spread(lanes[byte], out[chunk], start + byte * 8 * row_bytes, row_bytes)


@numba.njit(nogil=True, cache=True)
def _turn_bytes(words: np.ndarray, lanes: np.ndarray) -> None:
    for i in range(len(lanes)):
        lanes[i] = _turned(words[i])


@numba.njit(nogil=True, cache=True)
def _turn_pairs(words: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Eight numbers lie in two words: their low bytes, and their high ones."""
    eight, half = np.uint64(8), np.uint64(32)
    for i in range(len(low)):
        one, two = words[2 * i], words[2 * i + 1]
        low[i] = _turned(_even_bytes(one) | (_even_bytes(two) << half))
        high[i] = _turned(_even_bytes(one >> eight) | (_even_bytes(two >> eight) << half))


@numba.njit(nogil=True, cache=True)
def _even_bytes(word: Any) -> Any:
    """Bytes 0, 2, 4 and 6 side by side."""
    word &= np.uint64(0x00FF00FF00FF00FF)
    word = (word | (word >> np.uint64(8))) & np.uint64(0x0000FFFF0000FFFF)
    return (word | (word >> np.uint64(16))) & np.uint64(0xFFFFFFFF)


@numba.njit(nogil=True, cache=True)
def _turned(word: Any) -> Any:
    """Bit i of byte j becomes bit j of byte i.

    Source:
        Warren (2013), Hacker's Delight, 2nd edition, section 7-3: transposing an 8 x 8 matrix.
    """
    swap = (word ^ (word >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
    word = word ^ swap ^ (swap << np.uint64(7))
    swap = (word ^ (word >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
    word = word ^ swap ^ (swap << np.uint64(14))
    swap = (word ^ (word >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
    return word ^ swap ^ (swap << np.uint64(28))


@numba.njit(nogil=True, cache=True)
def _spread(lanes: np.ndarray, out: np.ndarray, start: int, row_bytes: int) -> None:
    """Put byte i of each lane into row i; one row at a time, so that the compiler makes vectors."""
    for i in range(8):
        shift = np.uint64(8 * i)
        row = out[start + i * row_bytes : start + i * row_bytes + len(lanes)]
        for lane in range(len(lanes)):
            row[lane] = np.uint8(lanes[lane] >> shift)


def _encode_chunk(values: np.ndarray, all_shuffled: np.ndarray | None = None) -> tuple[bytes, ...]:
    """A Blosc frame of zstd blocks, each shuffled bit by bit; from the library where that fails.

    Args:
        values: Contiguous.
        all_shuffled: Its bytes, each block shuffled already; None if they are not.

    Returns:
        The pieces of the frame, in order.

    Source:
        c-blosc, README_CHUNK_FORMAT.rst: header, offsets of the blocks, each with its length.
    """
    n_bytes, size = values.nbytes, values.itemsize
    block = min(n_bytes, _BLOCK_BYTES)
    if block % (8 * size) or n_bytes % block % (8 * size):
        return _encode_by_library(values)
    flat, step, compress = values.reshape(-1), block // size, _compressor().compress
    blocks = []
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        if all_shuffled is None:
            shuffled = imagecodecs.bitshuffle_encode(part, itemsize=size, blocksize=part.size)
        else:
            shuffled = all_shuffled[start * size : (start + step) * size]
        data = compress(shuffled)
        if len(data) >= part.nbytes:
            return _encode_by_library(values)
        blocks.append(data)
    start = _HEADER.size + 4 * len(blocks)
    starts, pieces = [], []
    for data in blocks:
        starts.append(start)
        pieces += [len(data).to_bytes(4, "little"), data]
        start += 4 + len(data)
    head = _HEADER.pack(2, 1, _BIT_SHUFFLED | _NOT_SPLIT | _ZSTD, size, n_bytes, block, start)
    return head, struct.pack(f"<{len(starts)}I", *starts), *pieces


_of_thread = threading.local()


def _scratch(name: str, size: int) -> np.ndarray:
    """Memory of this thread, used again for every shard: fresh pages cost more than the work."""
    buffer = getattr(_of_thread, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.uint8)
        setattr(_of_thread, name, buffer)
    found: np.ndarray = buffer[:size]
    return found


def _compressor() -> zstandard.ZstdCompressor:
    """This thread's own, kept: a new one for each chunk costs half as much as compressing it."""
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    found: zstandard.ZstdCompressor = _of_thread.compressor
    return found


def _encode_by_library(values: np.ndarray) -> tuple[bytes, ...]:
    return (BloscEncoder(cname="zstd", clevel=1, shuffle=BITSHUFFLE).encode(values),)


@lru_cache(maxsize=64)
def _encode_constant(
    dtype: np.dtype[Any], value: bytes, shape: tuple[int, ...]
) -> tuple[bytes, ...]:
    """A chunk of one value; most are flags of tiles where nothing is to be told."""
    return _encode_chunk(np.full(shape, np.frombuffer(value, dtype)[0]))


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache on disk."""
    values = np.arange(2 * 256 * 256, dtype=np.int16).reshape(2, 256, 256)
    encode_shard(values, -1)
    encode_shard(values[..., :128, :128], -1)


def is_fill(values: np.ndarray, fill: float) -> bool:
    """True where every value is the fill value, NaN included."""
    first = values[(0,) * values.ndim] if values.size else fill
    if first != fill and not (math.isnan(fill) and np.isnan(first)):
        return False  # most tiles hold data from their first pixel on
    return bool((np.isnan(values) if math.isnan(fill) else values == fill).all())


def shard_key(group: str, array: str, index: tuple[int, ...]) -> str:
    """Key of a shard in the store, such as ``s2/z32/10m/reflectance/c/3/0/396/69``."""
    return f"{group}/{array}/c/" + "/".join(str(i) for i in index)
