"""Shards encoded by us, read by zarr-python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from eoray.cube.draft import Draft
from eoray.cube.layout import ArraySpec
from eoray.cube.shard import (
    ABSENT,
    _encode_chunk,
    _shuffle_row,
    chunk_shape,
    encode_shard,
    is_fill,
    shard_codecs,
    shard_key,
    shard_shape,
)

TILE_PX = 256
"""Two inner chunks a side."""


def read_back(
    array: ArraySpec, data: bytes | None, *, has_time: bool, px: int = TILE_PX
) -> np.ndarray:
    """Put a shard where zarr expects the second tile of a row, and read that tile."""
    memory = MemoryStore()
    lead = ((2,) if has_time else ()) + array.lead_shape
    draft = Draft()
    draft.add_array(
        "g/a",
        shape=(*lead, px, 2 * px),
        chunks=shard_shape(array, px, has_time=has_time),
        dtype=array.dtype,
        fill=array.fill,
        dims=["d"] * (len(lead) + 2),
        codecs=shard_codecs(array, px, has_time=has_time),
    )
    root: Any = zarr.open_group(memory, mode="a")
    draft.make(root)
    target = root["g/a"]
    if data is not None:
        index = ((1,) if has_time else ()) + (0,) * len(array.lead) + (0, 1)
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        sync(memory.set(shard_key("g", "a", index), buffer))
    whole: np.ndarray = np.asarray(target[:])
    assert is_fill(whole[..., :px], array.fill)
    if has_time:
        assert is_fill(whole[0], array.fill)
        return whole[1, ..., px:]
    return whole[..., px:]


@st.composite
def shards(draw: st.DrawFn) -> tuple[ArraySpec, np.ndarray]:
    """An array of one tile, of which some inner chunks are fill only."""
    dtype, fill = draw(
        st.sampled_from(
            [("int16", -32768), ("uint8", 0), ("uint8", 1), ("float32", np.nan), ("uint32", 0)]
        )
    )
    n_band = draw(st.integers(0, 3))
    lead = (("band", n_band),) if n_band else ()
    array = ArraySpec("a", dtype, lead, fill)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(0, 200, (*array.lead_shape, TILE_PX, TILE_PX)).astype(dtype)
    values[..., rng.random((TILE_PX, TILE_PX)) < 0.1] = fill
    for row in range(2):
        for col in range(2):
            if draw(st.booleans()):
                values[..., row * 128 : row * 128 + 128, col * 128 : col * 128 + 128] = fill
    return array, values


@settings(max_examples=25, deadline=None)
@given(shards(), st.booleans())
def test_zarr_reads_what_we_encode(case: tuple[ArraySpec, np.ndarray], has_time: bool) -> None:
    array, values = case
    data = encode_shard(values, array.fill)
    np.testing.assert_array_equal(read_back(array, data, has_time=has_time), values)
    assert (data is None) == is_fill(values, array.fill)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 128, 128), "int16"),  # one block
        ((6, 128, 128), "int16"),  # a block and a half
        ((1, 128, 128), "uint8"),
        ((30, 128, 128), "float32"),  # fifteen blocks
        ((3, 16, 16), "float64"),
        ((1, 5, 5), "uint8"),  # no whole number of bytes for a plane of bits
        ((5, 115, 121), "int16"),  # neither is the rest behind the first block
    ],
)
@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_blosc_reads_our_frames(shape: tuple[int, ...], dtype: str, kind: str) -> None:
    from numcodecs.blosc import Blosc

    rng = np.random.default_rng(7)
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    if kind == "noise":  # nothing of it can be made smaller
        values = np.frombuffer(rng.bytes(values.nbytes), dtype).reshape(shape)
    frame = b"".join(_encode_chunk(values))
    assert Blosc().decode(frame) == values.tobytes()
    assert len(frame) <= values.nbytes + 4096
    if kind == "smooth" and values.nbytes > 1000:
        assert len(frame) < values.nbytes / 2


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16"])
@pytest.mark.parametrize("n_planes", [1, 3, 4, 9, 17])
@pytest.mark.parametrize("edge", [16, 64, 128])
def test_bits_are_shuffled_as_by_bitshuffle(dtype: str, n_planes: int, edge: int) -> None:
    rng = np.random.default_rng(11)
    shape = 2, n_planes, edge, edge
    chunks = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype)
    chunks = chunks.reshape(shape)
    ours = _shuffle_row(chunks)
    assert ours is not None
    for chunk, shuffled in zip(chunks, ours.copy(), strict=True):
        assert shuffled.tobytes() == _shuffled_by_library(chunk)


def _shuffled_by_library(chunk: np.ndarray) -> bytes:
    """Block by block, of 128 KiB and what is left."""
    import imagecodecs

    flat, step = chunk.reshape(-1), 131_072 // chunk.itemsize
    blocks = [flat[i : i + step] for i in range(0, flat.size, step)]
    return b"".join(
        bytes(imagecodecs.bitshuffle_encode(b, itemsize=b.itemsize, blocksize=b.size))
        for b in blocks
    )


def test_chunks_of_fill_are_absent_from_the_index() -> None:
    values = np.full((2, TILE_PX, TILE_PX), -32768, np.int16)
    values[1, 200, 10] = 7  # in the third of four chunks
    data = encode_shard(values, -32768)
    assert data is not None
    index = np.frombuffer(data[-4 - 4 * 16 : -4], "<u8").reshape(4, 2)
    assert (index[[0, 1, 3]] == ABSENT).all()
    assert index[2].tolist() == [0, len(data) - 4 - 4 * 16]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float64", "float32"])
def test_chunks_of_one_value_and_nearly_so(dtype: str) -> None:
    array = ArraySpec("a", dtype, fill=3)
    values = np.full((TILE_PX, TILE_PX), 5, dtype)
    values[130:, :100] = 3  # the third chunk is neither
    values[255, 255] = 4  # the last pixel of the fourth
    frame = np.zeros((TILE_PX, 3 * TILE_PX), dtype)
    frame[:, TILE_PX : 2 * TILE_PX] = values
    for held in (values, frame[:, TILE_PX : 2 * TILE_PX], np.asfortranarray(values)):
        data = encode_shard(held, 3)
        np.testing.assert_array_equal(read_back(array, data, has_time=True), values)
    values[:128, :128] = 3
    data = encode_shard(values, 3)
    assert data is not None
    assert np.frombuffer(data[-4 - 4 * 16 : -4], "<u8")[0] == ABSENT
    np.testing.assert_array_equal(read_back(array, data, has_time=False), values)


def test_repeated_bytes_that_are_no_constant() -> None:
    """Eight bytes that come again and again hold four numbers."""
    values = np.tile(np.array([1, 2, 3, 4], np.int16), (TILE_PX, TILE_PX // 4))
    data = encode_shard(values, 0)
    np.testing.assert_array_equal(read_back(ArraySpec("a", "int16"), data, has_time=False), values)


def test_zeros_of_both_signs_are_fill() -> None:
    values = np.zeros((128, 128), np.float32)
    values[::2] = -0.0
    assert encode_shard(values, 0) is None
    assert encode_shard(np.full((128, 128), -0.0, np.float32), 0) is None
    faces = np.full((128, 128), np.nan, np.float32)
    faces.view(np.uint32)[5] += 1
    assert encode_shard(faces, np.nan) is None
    assert encode_shard(faces, 0) is not None


@pytest.mark.parametrize("px", [1, 3, 5])
def test_tiles_of_a_few_pixels_keep_every_bit(px: int) -> None:
    signs = np.zeros((px, px), np.float32)
    signs[0, -1] = -0.0
    for dtype in ("uint8", "float32"):
        values = np.zeros((px, px), dtype)
        assert encode_shard(values, 0) is None
        array = ArraySpec("a", dtype, fill=1)
        data = encode_shard(values, 1)
        assert read_back(array, data, has_time=False, px=px).tobytes() == values.tobytes()
    array = ArraySpec("a", "float32", fill=1)
    again = read_back(array, encode_shard(signs, 1), has_time=False, px=px)
    assert again.tobytes() == signs.tobytes()


def test_the_same_values_give_the_same_bytes_whatever_their_memory_order() -> None:
    values = np.arange(TILE_PX * TILE_PX, dtype=np.int16).reshape(TILE_PX, TILE_PX)
    turned: Any = np.asfortranarray(values)
    assert encode_shard(values, 0) == encode_shard(turned, 0)
    assert encode_shard(values, 0) == encode_shard(values.astype(">i2"), 0)


@pytest.mark.parametrize("px", [16, 128])
def test_tile_smaller_than_a_chunk_is_one_chunk(px: int) -> None:
    array = ArraySpec("a", "uint8")
    assert chunk_shape(array, px, has_time=True) == (1, px, px)
    values = np.ones((px, px), np.uint8)
    data = encode_shard(values, 0)
    assert data is not None
    assert np.frombuffer(data[-20:-4], "<u8").tolist() == [0, len(data) - 20]
