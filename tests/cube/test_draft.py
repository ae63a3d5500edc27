"""Arrays made together: the documents that zarr-python writes for the same arrays."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from eoray.cube.draft import Draft
from eoray.cube.layout import ArraySpec
from eoray.cube.shard import chunk_shape, shard_codecs, shard_shape


def _documents(store: MemoryStore) -> dict[str, Any]:
    found = {}
    for key, value in store._store_dict.items():
        is_document = key.endswith("zarr.json")
        found[key] = json.loads(value.to_bytes()) if is_document else value.to_bytes()
    return found


def _root(store: MemoryStore) -> Any:
    return zarr.open_group(store, mode="a")


LINES = {
    "number": np.array([3, -1, 7], np.int64),
    "fraction": np.array([0.5, np.nan]),
    "small": np.array([1, 2], np.uint8),
    "text": np.array(["B02", "ü", ""], dtype=object),
    "nothing": np.empty(0, dtype=object),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_are_stored_as_zarr_stores_them(name: str) -> None:
    values, attributes = LINES[name], {"units": "1"}
    ours, theirs = MemoryStore(), MemoryStore()
    draft = Draft()
    draft.add_line(f"g/{name}", "time", values, attributes, chunk=16)
    draft.make(_root(ours))
    is_text = values.dtype.kind == "O"
    array = (
        _root(theirs)
        .create_group("g")
        .create_array(
            name,
            shape=values.shape,
            chunks=(16,),
            dtype=str if is_text else values.dtype,
            dimension_names=["time"],
            attributes=attributes,
        )
    )
    if len(values):
        array[:] = values
    assert _documents(ours) == _documents(theirs)


@pytest.mark.parametrize("has_time", [True, False])
@pytest.mark.parametrize(
    "spec",
    [
        ArraySpec("a", "int16", (("band", 3),), -32768),
        ArraySpec("a", "uint8", fill=32),
        ArraySpec("a", "float32", fill=float("nan")),
    ],
    ids=lambda spec: spec.dtype,
)
def test_sharded_arrays_have_the_documents_of_zarr(spec: ArraySpec, has_time: bool) -> None:
    ours, theirs = MemoryStore(), MemoryStore()
    shape = (*((2,) if has_time else ()), *spec.lead_shape, 512, 256)
    dims = [*(("time",) if has_time else ()), *(d for d, _ in spec.lead), "y", "x"]
    draft = Draft()
    draft.add_array(
        "g/a",
        shape=shape,
        chunks=shard_shape(spec, 256, has_time=has_time),
        dtype=spec.dtype,
        dims=dims,
        fill=spec.fill,
        codecs=shard_codecs(spec, 256, has_time=has_time),
    )
    draft.make(_root(ours))
    _root(theirs).create_group("g").create_array(
        "a",
        shape=shape,
        chunks=chunk_shape(spec, 256, has_time=has_time),
        shards=shard_shape(spec, 256, has_time=has_time),
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        dimension_names=dims,
    )
    assert _documents(ours) == _documents(theirs)


def test_what_stands_already_is_not_made_again() -> None:
    store = MemoryStore()
    draft = Draft()
    draft.add_group("g", {"title": "first"})
    draft.make(_root(store))
    with pytest.raises(zarr.errors.ContainsGroupError):
        draft.make(_root(store))
