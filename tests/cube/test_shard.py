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

from eoray.cube.layout import ArraySpec
from eoray.cube.shard import ABSENT, array_options, encode_shard, is_fill, shard_key

TILE_PX = 256
"""Two inner chunks a side."""


def read_back(array: ArraySpec, data: bytes | None, *, has_time: bool) -> np.ndarray:
    """Put a shard where zarr expects the second tile of a row, and read that tile."""
    memory = MemoryStore()
    lead = ((2,) if has_time else ()) + array.lead_shape
    target = zarr.create_array(
        memory,
        name="g/a",
        shape=(*lead, TILE_PX, 2 * TILE_PX),
        **array_options(array, TILE_PX, has_time=has_time),
    )
    if data is not None:
        index = ((1,) if has_time else ()) + (0,) * len(array.lead) + (0, 1)
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        sync(memory.set(shard_key("g", "a", index), buffer))
    whole: np.ndarray = np.asarray(target[:])
    assert is_fill(whole[..., :TILE_PX], array.fill)
    if has_time:
        assert is_fill(whole[0], array.fill)
        return whole[1, ..., TILE_PX:]
    return whole[..., TILE_PX:]


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


def test_chunks_of_fill_are_absent_from_the_index() -> None:
    values = np.full((2, TILE_PX, TILE_PX), -32768, np.int16)
    values[1, 200, 10] = 7  # in the third of four chunks
    data = encode_shard(values, -32768)
    assert data is not None
    index = np.frombuffer(data[-4 - 4 * 16 : -4], "<u8").reshape(4, 2)
    assert (index[[0, 1, 3]] == ABSENT).all()
    assert index[2].tolist() == [0, len(data) - 4 - 4 * 16]


def test_the_same_values_give_the_same_bytes_whatever_their_memory_order() -> None:
    values = np.arange(TILE_PX * TILE_PX, dtype=np.int16).reshape(TILE_PX, TILE_PX)
    turned: Any = np.asfortranarray(values)
    assert encode_shard(values, 0) == encode_shard(turned, 0)
    assert encode_shard(values, 0) == encode_shard(values.astype(">i2"), 0)


@pytest.mark.parametrize("px", [16, 128])
def test_tile_smaller_than_a_chunk_is_one_chunk(px: int) -> None:
    array = ArraySpec("a", "uint8")
    assert array_options(array, px, has_time=True)["chunks"] == (1, px, px)
    values = np.ones((px, px), np.uint8)
    data = encode_shard(values, 0)
    assert data is not None
    assert np.frombuffer(data[-20:-4], "<u8").tolist() == [0, len(data) - 20]
