"""A small store to write into without a driver, and a product of a few pixels."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from eoray.cube import store
from eoray.cube.layout import (
    DONE,
    ArraySpec,
    GroupSpec,
    ProductSpec,
    TileResult,
    TimeEntry,
    tile_px,
    zones_of,
)
from eoray.cube.ledger import write_receipts
from eoray.cube.read import CubeReader, CubeSource
from eoray.cube.write import RowReceipt, WriteTask
from eoray.grid import Tile

if TYPE_CHECKING:
    import icechunk

COARSE_M = 640
"""A pixel that makes a tile 16 px wide: stores of many tiles stay small."""


@dataclass(frozen=True, slots=True)
class Row:
    """A plan row as a driver sees it."""

    key: str
    entry: str
    tiles: tuple[Tile, ...]


@dataclass
class Store:
    """A repository, and the driver's steps one by one."""

    url: str
    spec: ProductSpec
    repository: icechunk.Repository = field(init=False)

    def __post_init__(self) -> None:
        self.repository = store.open_repository(self.url, create=True)

    def root(self) -> zarr.Group:
        session = self.repository.readonly_session(store.BRANCH)
        return zarr.open_group(session.store, mode="r")

    def append(self, entries: Sequence[TimeEntry], zone: int = 32) -> int:
        session = self.repository.writable_session(store.BRANCH)
        root = zarr.open_group(session.store, mode="a")
        made = store.create_product(root, self.spec, zone)
        added = store.append_entries(root, self.spec, zone, entries)
        if made or added:
            session.commit("axes")
        return added

    def task(self, worker: Callable[[Any], Any]) -> WriteTask:
        session = self.repository.writable_session(store.BRANCH)
        root: Any = zarr.open_group(session.store, mode="r")
        zones = zones_of(root[self.spec.name])
        positions = {
            (zone, key): i
            for zone in zones
            for i, key in enumerate(store.entry_keys(root, self.spec.name, zone))
        }
        return WriteTask(self.spec, worker, pickle.dumps(session.fork()), positions)

    def run(self, results: Sequence[TileResult]) -> RowReceipt:
        row = Row("row", results[0].entry, tuple(r.tile for r in results))
        return self.task(lambda row: list(results))(row)

    def merge(self, receipts: Sequence[RowReceipt]) -> icechunk.Session:
        """Everything of a commit but the commit."""
        session = self.repository.writable_session(store.BRANCH)
        session.merge(*(pickle.loads(r.fork) for r in receipts))
        tiles = [tile for r in receipts for tile in r.tiles]
        write_receipts(zarr.open_group(session.store, mode="a"), self.spec.name, tiles)
        return session

    def write(self, *results: TileResult) -> None:
        self.merge([self.run([result]) for result in results]).commit("wave")

    def reader(self) -> CubeReader:
        return CubeReader(CubeSource(self.url))


def coarse_spec(name: str = "coarse", **parameters: Any) -> ProductSpec:
    arrays = (
        ArraySpec("value", "int16", (("band", 2),), -32768, {"scale_factor": 1e-4}),
        ArraySpec("flag", "uint8", fill=0),
    )
    group = GroupSpec(COARSE_M, arrays, {"band": ("B02", "B8A")})
    return ProductSpec(name, (group,), {"bands": ["B02", "B8A"], **parameters})


def entry(day: int, **columns: Any) -> TimeEntry:
    stamp = f"2021-01-{day:02d}T10:00:00.123Z"
    return TimeEntry(f"take-{day:02d}", stamp, {"relative_orbit": 100 + day, **columns})


def coarse_result(tile: Tile, key: str, value: int, source: str = "scene") -> TileResult:
    px = tile_px(COARSE_M)
    ramp = np.arange(2 * px * px, dtype=np.int16).reshape(2, px, px)
    return TileResult(
        tile=tile,
        entry=key,
        arrays={
            f"{COARSE_M}m/value": (ramp + value).astype(np.int16),
            f"{COARSE_M}m/flag": np.full((px, px), value % 200 + 1, np.uint8),
        },
        status=DONE,
        n_valid=px * px,
        n_failed=0,
        source=source,
    )


@pytest.fixture
def coarse_store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cube.icechunk"), coarse_spec())


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[ProductSpec], Store]:
    return lambda spec: Store(str(tmp_path / "cube.icechunk"), spec)


@pytest.fixture(scope="session")
def store_at() -> Callable[[Path, ProductSpec], Store]:
    """For stores that all tests of a module share."""
    return lambda folder, spec: Store(str(folder / "cube.icechunk"), spec)


@pytest.fixture(scope="session")
def make_entry() -> Callable[..., TimeEntry]:
    return entry


@pytest.fixture
def make_result() -> Callable[..., TileResult]:
    return coarse_result


@pytest.fixture
def make_spec() -> Callable[..., ProductSpec]:
    return coarse_spec


SCENE_BANDS = ("B03", "B08", "B8A", "B12")
SCENE_TILES = (Tile(32, 400, 50), Tile(32, 400, 51))


@dataclass(frozen=True)
class SceneCube:
    """An ``s2`` product of two tiles and four dates, and the arrays that went in."""

    url: str
    tiles: tuple[Tile, ...]
    bands: tuple[str, ...]
    keys: tuple[str, ...]
    """In order of the stored axis, which is not that of time."""
    arrays: dict[tuple[str, str], np.ndarray]
    """(array path, entry key) -> values over both tiles side by side."""


def scene_arrays(seed: int) -> dict[str, np.ndarray]:
    """One date over two tiles: values, holes of every kind, clouds."""
    from eoray.sentinel2 import FILL, Mask, Quality

    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for resolution_m, px in ((10, 1024), (20, 512)):
        shape = (px, 2 * px)
        small = rng.integers(-500, 9000, (2, px // 8, px // 4), dtype=np.int16)
        values = np.kron(small, np.ones((8, 8), np.int16))
        values = values + np.arange(2 * px, dtype=np.int16)[None, None, :] % 7
        values[0][rng.random(shape) < 0.02] = FILL
        values[:, :40, :] = FILL
        quality = np.zeros(shape, np.uint8)
        quality[:40] = int(Quality.NO_DATA)
        quality[rng.random(shape) < 0.02] |= int(Quality.SATURATED)
        quality[rng.random(shape) < 0.02] |= int(Quality.FAILED_READ)
        quality[rng.random(shape) < 0.02] |= int(Quality.GRANULE_EDGE)
        out[f"{resolution_m}m/reflectance"] = values.astype(np.int16)
        out[f"{resolution_m}m/quality"] = quality
    mask = np.zeros((512, 1024), np.uint8)
    mask[rng.random(mask.shape) < 0.2] = int(Mask.CLOUD)
    out["20m/mask"] = mask
    out["20m/scl"] = np.where(mask > 0, 9, 4).astype(np.uint8)
    return out


def build_scene_cube(folder: Path) -> SceneCube:
    from eoray.cube.mask import MaskRecipe
    from eoray.cube.scenes import CubeRecipe, scene_product

    recipe = CubeRecipe(SCENE_BANDS, MaskRecipe(), {"mixed": False}, "sentinel-2-c1-l2a")
    target = Store(str(folder / "cube.icechunk"), scene_product(recipe))
    dates = [
        entry(
            day,
            satellite="S2A",
            period_end="x",
            solar_day=f"2021-01-{day:02d}",
            view_zenith=day / 4,
            sun_zenith=70.0 - day,
        )
        for day in (3, 20, 9, 28)
    ]
    target.append(dates[:2])
    target.append(dates[2:3])
    target.append(dates[3:])
    arrays: dict[tuple[str, str], np.ndarray] = {}
    for number, date in enumerate(dates[:3]):  # the last date was never observed
        whole = scene_arrays(number)
        arrays.update({(path, date.key): values for path, values in whole.items()})
        results = []
        for side, tile in enumerate(SCENE_TILES):
            part = {path: np.split(v, 2, axis=-1)[side] for path, v in whole.items()}
            n_valid = int((part["10m/quality"] & 1 == 0).sum())
            results.append(TileResult(tile, date.key, part, DONE, n_valid, 0, f"scene {number}"))
        target.write(*results)
    keys = tuple(date.key for date in (dates[0], dates[1], dates[2], dates[3]))
    return SceneCube(target.url, SCENE_TILES, SCENE_BANDS, keys, arrays)


@pytest.fixture(scope="session")
def scene_cube(tmp_path_factory: pytest.TempPathFactory) -> SceneCube:
    """Read it only: all tests share it."""
    return build_scene_cube(tmp_path_factory.mktemp("scenes"))
