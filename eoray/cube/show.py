"""Scenes as the dataset that ``open_cube`` would give of them once they were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from eoray.cube.direct import SceneReader
from eoray.cube.layout import GroupSpec
from eoray.cube.lazy import BandsView, LazyBands, LazyLayer
from eoray.cube.open import COARSE_LAYERS, open_arrays
from eoray.cube.scenes import PRODUCT, reflectance_spec, scene_product
from eoray.cube.store import append_entries, create_product
from eoray.grid import PixelWindow

if TYPE_CHECKING:
    import xarray as xr

CHUNK_TILES = 2
"""Tiles along a chunk of dask: 2048 px of 10 m, 34 MB of four bands. With one tile a block of a
COG that lies across their edges is decoded 3.9 times, with two 2.3 times."""


def show_scenes(
    reader: SceneReader, bands: Sequence[str], resolution_m: int, window: PixelWindow
) -> xr.Dataset:
    """Make a lazy dataset of scenes; nothing is read.

    Args:
        reader: Scenes of one zone; all its entries are shown.
        bands: Bands of any native pixel, in the order wanted.
        resolution_m: Level of the lattice.
        window: Pixels of it.

    Returns:
        The arrays, coordinates and attributes that the cube would have, as dask arrays of one date
        and up to 2 x 2 tiles a chunk.
    """
    import xarray as xr
    from xarray.core.indexing import LazilyIndexedArray

    dataset = _schema(reader, bands, resolution_m, window)
    shown = tuple(range(len(reader.entries)))
    view = BandsView(reader, PRODUCT, reader.zone, tuple(bands), resolution_m, shown, window)
    edge = CHUNK_TILES * reader.lattice.px(resolution_m)
    chunks: dict[str, int | tuple[int, ...]] = {
        "time": 1,
        "band": -1,
        "y": _cuts(window.row_off, window.height, edge),
        "x": _cuts(window.col_off, window.width, edge),
    }
    arrays = {}
    for name, old in dataset.data_vars.items():
        level = reader.lattice.coarse if name in COARSE_LAYERS else resolution_m
        lazy = LazyBands(view) if name == "reflectance" else LazyLayer(view, str(name), level)
        data = xr.Variable(old.dims, LazilyIndexedArray(lazy), old.attrs)
        arrays[name] = data.chunk({dim: chunks[str(dim)] for dim in old.dims})
    return dataset.assign(arrays)


def _schema(
    reader: SceneReader, bands: Sequence[str], resolution_m: int, window: PixelWindow
) -> xr.Dataset:
    """An empty product in memory, opened as one of a store: so both look the same."""
    import zarr

    product = scene_product(reader.recipe)
    layers = {a.name: a for part in product.groups for a in part.arrays if a.name != "reflectance"}
    arrays = reflectance_spec(bands), *layers.values()
    group = GroupSpec(resolution_m, arrays, {"band": tuple(bands)})
    spec = replace(product, groups=(group,))
    root = zarr.open_group(zarr.storage.MemoryStore(), mode="a")
    create_product(root, spec, reader.zone)
    append_entries(root, spec, reader.zone, reader.entries)
    dataset = open_arrays(root.store, PRODUCT, reader.zone, resolution_m, window)
    return dataset.assign_coords({name: value.load() for name, value in dataset.coords.items()})


def _cuts(start: int, length: int, edge: int) -> tuple[int, ...]:
    """Sizes of chunks whose borders lie on multiples of an edge, which ``start`` counts in too."""
    first = (start // edge + 1) * edge
    marks = [start, *range(first, start + length, edge), start + length]
    return tuple(b - a for a, b in pairwise(marks))
