"""Write the small landscape into a real store, so that other processes can read it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eoray.cube import store
from eoray.cube.layout import DONE, GroupSpec, ProductSpec, TileResult, TimeEntry
from eoray.cube.ledger import write_receipts
from eoray.cube.read import CubeSource
from eoray.cube.scenes import reflectance_spec
from eoray.cube.write import WriteTask
from eoray.grid import Tile
from eoray.sentinel2 import FILL
from tests.chips.fake_reader import PARAMETERS, PRODUCT
from tests.chips.landscape import TILE, Landscape

BANDS = ("B02", "B03", "B04", "B08")


@dataclass(frozen=True)
class Period:
    """A plan row."""

    key: str
    entry: str
    tiles: tuple[Tile, ...]
    number: int


@dataclass(frozen=True)
class Painter:
    """A worker that paints the landscape."""

    land: Landscape

    def __call__(self, row: Period) -> list[TileResult]:
        values = self.land.reader.planes[32][2][row.number, :4]
        plane = np.full((4, 1024, 1024), FILL, np.int16)
        plane[:, : values.shape[1], : values.shape[2]] = values
        n_valid = int((values != FILL).all(axis=0).sum())
        arrays = {"10m/reflectance": plane}
        return [TileResult(TILE, row.entry, arrays, DONE, n_valid, 0, f"period {row.number}")]


def write_cube(folder: Path, land: Landscape) -> CubeSource:
    """Write the composites of the landscape and pin the snapshot."""
    import zarr

    group = GroupSpec(10, (reflectance_spec(BANDS),), {"band": BANDS})
    spec = ProductSpec(PRODUCT, (group,), PARAMETERS)
    periods = land.reader.periods
    entries = [
        TimeEntry(key, f"{key[:10]}T00:00:00.000Z", {"period_end": key[11:]}) for key in periods
    ]
    repository = store.open_repository(store.repository_url(str(folder)), create=True)
    session = repository.writable_session(store.BRANCH)
    root = zarr.open_group(session.store, mode="a")
    store.create_product(root, spec, TILE.zone)
    store.append_entries(root, spec, TILE.zone, entries)
    session.commit("axes")
    session = repository.writable_session(store.BRANCH)
    positions = {(TILE.zone, key): i for i, key in enumerate(periods)}
    task = WriteTask(spec, Painter(land), pickle.dumps(session.fork()), positions)
    receipts = [task(Period(key, key, (TILE,), i)) for i, key in enumerate(periods)]
    session = repository.writable_session(store.BRANCH)
    session.merge(*(pickle.loads(receipt.fork) for receipt in receipts))
    tiles = [tile for receipt in receipts for tile in receipt.tiles]
    write_receipts(zarr.open_group(session.store, mode="a"), PRODUCT, tiles)
    snapshot = session.commit("composites")
    return CubeSource(str(folder), snapshot)
