"""Groups and arrays of a store: written down first, then made together.

A product has half a hundred of them. Made one by one, each waits for the store several times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.layout import ZarrGroup

if TYPE_CHECKING:
    from zarr import AsyncArray

_ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
_TEXT = {"name": "vlen-utf8", "configuration": {}}


@dataclass(slots=True)
class Draft:
    """What is to be made below the root of a store."""

    nodes: dict[str, Any] = field(default_factory=dict)
    """Path -> metadata of a group or an array."""
    values: dict[str, np.ndarray] = field(default_factory=dict)
    """Path -> all that an array holds from the start."""

    def add_group(self, path: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Note a group; the groups above it come by themselves."""
        from zarr.core.group import GroupMetadata

        self.nodes[path] = GroupMetadata(attributes=dict(attributes or {}), zarr_format=3)

    def add_array(
        self,
        path: str,
        *,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: Any,
        dims: Sequence[str],
        fill: Any = 0,
        attributes: Mapping[str, Any] | None = None,
        codecs: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Note an array.

        Args:
            path: Where it lies, from the root of the store.
            shape: Of all of it.
            chunks: Of what is stored under one key: a chunk, or a shard.
            dtype: A number's, or ``str``.
            dims: Names of its dimensions.
            fill: What is not stored.
            attributes: CF's and ours.
            codecs: Documents of Zarr v3; None for those that zarr takes by itself.
        """
        from zarr.core.metadata import ArrayV3Metadata

        is_text = dtype is str
        first = _TEXT if is_text else bytes_codec(dtype)
        document: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": tuple(shape),
            "data_type": "string" if is_text else np.dtype(dtype).name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": tuple(chunks)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "" if is_text else np.dtype(dtype).type(fill).item(),
            "codecs": codecs or (first, _ZSTD),
            "attributes": dict(attributes or {}),
            "dimension_names": tuple(dims),
            "storage_transformers": (),
        }
        self.nodes[path] = ArrayV3Metadata.from_dict(document)

    def add_line(
        self, path: str, dim: str, values: np.ndarray, attributes: Mapping[str, Any], chunk: int
    ) -> None:
        """Note a one-dimensional array with its values; objects are texts."""
        dtype = str if values.dtype.kind == "O" else values.dtype
        self.add_array(
            path,
            shape=values.shape,
            chunks=(chunk,),
            dtype=dtype,
            dims=[dim],
            attributes=attributes,
        )
        if len(values):
            self.values[path] = values

    def make(self, root: ZarrGroup) -> None:
        """Make all of it.

        Raises:
            zarr.errors.ContainsArrayError: Something of it stands already; so for groups.
        """
        import zarr
        from zarr.core.sync import sync

        made: dict[str, Any] = dict(zarr.create_hierarchy(store=root.store, nodes=self.nodes))
        sync(_fill([(made[path].async_array, values) for path, values in self.values.items()]))


async def _fill(arrays: Sequence[tuple[AsyncArray[Any], np.ndarray]]) -> None:
    await asyncio.gather(*(array.setitem(slice(None), values) for array, values in arrays))


def bytes_codec(dtype: Any) -> Mapping[str, Any]:
    """The codec that every number goes through first."""
    if np.dtype(dtype).itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}
