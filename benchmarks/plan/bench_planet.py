"""Plan a million tiles: a place to tiles, a catalogue's items to tasks, and what they cost.

    python benchmarks/plan/bench_planet.py                # one million tiles
    python benchmarks/plan/bench_planet.py --tiles 100000

The items are synthetic: granules of 109.8 km on the 100 km lattice of each UTM zone, as Sentinel-2
has them, each seen once by the orbit that passes over it, which is one cycle of five days with two
satellites. Nothing is read. Prints one JSON object: processor seconds of each step (one thread)
and the largest resident size of the process.

A plan holds numbers; ``cpu_s_of_a_run`` tells what comes on top when it is run: each task made as
an object, once (``tasks made``), and a run that is called again where a ledger of all these tiles
says what is done (``resumed, all done``, and ``resumed, half done``). ``task_bytes`` is what a
worker gets of one, pickled.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eoray.catalog.scene import BandAsset, Scene
from eoray.cube import store
from eoray.cube.layout import DONE, TimeEntry
from eoray.cube.ledger import TileReceipt, write_receipts
from eoray.cube.mask import MaskRecipe
from eoray.cube.plan import SceneRows, plan_scenes
from eoray.cube.scenes import CubeRecipe, scene_product
from eoray.execute import Executor
from eoray.grid import Tile, Zone, box_lonlat, tiles_of_geometry
from eoray.run.driver import Driver, StagePlan, StageReport
from eoray.run.estimate import estimate_reads
from eoray.run.lease import hold_store
from eoray.sentinel2 import BANDS, native_resolution_m
from eoray.testing.scenes import make_scene

STEP_M, EDGE_M = 100_000, 109_800
RECIPE = CubeRecipe(tuple(BANDS), MaskRecipe(), {}, "planet")
N_ORBITS = 143
"""Relative orbits; neighbours are 2.5 degrees apart at the equator."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=1_000_000)
    arguments = parser.parse_args()
    seconds: dict[str, float] = {}
    begun = time.process_time()
    tiles = tiles_of_geometry(place_of(arguments.tiles))
    seconds["aoi to tiles"] = time.process_time() - begun
    scenes = list(granules(tiles))
    begun = time.process_time()
    entries, rows = plan_scenes(scenes, tiles)
    seconds["scenes to tasks"] = time.process_time() - begun
    begun = time.process_time()
    requests, size, _ = estimate_reads(rows, BANDS, 1)
    seconds["estimate"] = time.process_time() - begun
    answer: dict[str, Any] = {
        "tiles": len(tiles),
        "scenes": len(scenes),
        "zones": len(entries),
        "tasks": len(rows),
        "tiles of tasks": rows.n_places,
        "requests": requests,
        "terabytes": round(size / 1e12, 1),
        "cpu_s": rounded(seconds),
        "cpu_s_all": round(sum(seconds.values()), 1),
        "peak_mb": peak_mb(),
        "cpu_s_of_a_run": rounded(of_a_run(entries, rows)),
        "task_bytes": task_bytes(rows),
        "peak_mb_of_a_run": peak_mb(),
    }
    print(json.dumps(answer, indent=2))


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in seconds.items()}


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def of_a_run(entries: dict[Zone, list[TimeEntry]], rows: SceneRows) -> dict[str, float]:
    """Processor seconds of what a run does with the plan beside its work."""
    begun = time.process_time()
    n_tiles = sum(len(row.tiles) for row in rows)
    seconds = {"tasks made": time.process_time() - begun}
    assert n_tiles == rows.n_places
    plan = StagePlan("cube", scene_product(RECIPE), entries, rows, no_worker)
    with tempfile.TemporaryDirectory(prefix="eoray-planet-") as folder:
        repository = store.open_repository(f"{folder}/out", create=True)
        with hold_store(f"{folder}/out", "planet") as holder:
            driver = Driver(repository, holder, Executor())
            driver._base = repository.lookup_branch(store.BRANCH)  # noqa: SLF001 - as run() does
            driver._prepare(plan)  # noqa: SLF001
            for name, part in (("half done", 2), ("all done", 1)):
                enter(repository, rows, part)
                begun = time.process_time()
                todo = driver._todo(plan, StageReport("cube", "s2"))  # noqa: SLF001
                seconds[f"resumed, {name}"] = time.process_time() - begun
                assert len(todo) == len(rows) - len(rows[::part])
    return seconds


def enter(repository: Any, rows: SceneRows, part: int) -> None:
    """Call every so-many-th task done."""
    import zarr

    session = repository.writable_session(store.BRANCH)
    receipts = [
        TileReceipt(tile, row.entry, DONE, 1, 0, 1, source)
        for row in rows[::part]
        for tile, source in zip(row.tiles, row.sources, strict=True)
    ]
    write_receipts(zarr.open_group(session.store, mode="a"), "s2", receipts)
    session.commit("all")


def no_worker(row: Any) -> Any:
    """Only plans are measured: a task that runs is a mistake."""
    raise AssertionError(f"{row.key} was to be planned, not run")


def task_bytes(rows: SceneRows) -> dict[str, int]:
    sizes = [len(pickle.dumps(row)) for row in rows[:: max(1, len(rows) // 1000)]]
    return {"median": int(np.median(sizes)), "largest": max(sizes)}


def place_of(n_tiles: int) -> Any:
    """A belt around the globe of about so many tiles, from 50 S upwards."""
    wanted_km2, south = n_tiles * 10.24**2, -50.0
    radius_km = 6371.0
    height = wanted_km2 / (2 * np.pi * radius_km**2)
    north = float(np.degrees(np.arcsin(np.sin(np.radians(south)) + height)))
    return box_lonlat(-180.0, south, 180.0, north)


def granules(tiles: Sequence[Tile]) -> Iterator[Scene]:
    """One item for each granule that meets a tile."""
    for zone in sorted({int(tile.zone) for tile in tiles}):  # type: ignore[arg-type]
        bounds = np.array([tile.bounds for tile in tiles if tile.zone == zone])
        cells = {
            (int(x), int(y))
            for corner in ((0, 1), (2, 3), (0, 3), (2, 1))
            for x, y in np.unique(bounds[:, corner] // STEP_M, axis=0)
        }
        for column, row in sorted(cells):
            yield granule(zone, column, row)


def granule(zone: int, column: int, row: int) -> Scene:
    x, y = column * STEP_M - 20, (row + 1) * STEP_M + 20
    name = f"S2A_{zone:02d}{column:02d}{row:+04d}"
    assets = tuple(_asset(name, band, x, y) for band in ("SCL", *BANDS))
    scene = make_scene(name, zone, assets, granule=name)
    orbit = int((scene.bbox[0] + 180) / 360 * N_ORBITS) % N_ORBITS + 1
    return replace(
        scene,
        datatake=f"S2A_20210601T{orbit:06d}_R{orbit:03d}",
        sensing_time=f"2021-06-0{orbit % 5 + 1}T10:{orbit % 60:02d}:00.000Z",
        relative_orbit=orbit,
    )


def _asset(name: str, band: str, x: float, y: float) -> BandAsset:
    pixel = 20 if band == "SCL" else native_resolution_m(band)
    px = EDGE_M // pixel
    where = (float(pixel), 0.0, float(x), 0.0, float(-pixel), float(y))
    return BandAsset(band, f"s3://nowhere/{name}/{band}.tif", where, (px, px), 0)


if __name__ == "__main__":
    main()
