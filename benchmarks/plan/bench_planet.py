"""Plan a million tiles: a place to tiles, a catalogue's items to tasks, and what they cost.

    python benchmarks/plan/bench_planet.py                # one million tiles
    python benchmarks/plan/bench_planet.py --tiles 100000

The items are synthetic: granules of 109.8 km on the 100 km lattice of each UTM zone, as Sentinel-2
has them, each seen once by the orbit that passes over it, which is one cycle of five days with two
satellites. Nothing is read. Prints one JSON object: processor seconds of each step (one thread)
and the largest resident size of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from eoray.catalog.scene import BandAsset, Scene
from eoray.cube.plan import plan_scenes
from eoray.grid import Tile, box_lonlat, tiles_of_geometry
from eoray.run.estimate import estimate_reads
from eoray.sentinel2 import BANDS, native_resolution_m
from eoray.testing.scenes import make_scene

STEP_M, EDGE_M = 100_000, 109_800
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
        "tiles of tasks": sum(len(row.tiles) for row in rows),
        "requests": requests,
        "terabytes": round(size / 1e12, 1),
        "cpu_s": {name: round(value, 1) for name, value in seconds.items()},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(answer, indent=2))


def place_of(n_tiles: int) -> Any:
    """A belt around the globe of about so many tiles, from 50 S upwards."""
    wanted_km2, south = n_tiles * 10.24**2, -50.0
    radius_km = 6371.0
    height = wanted_km2 / (2 * np.pi * radius_km**2)
    north = float(np.degrees(np.arcsin(np.sin(np.radians(south)) + height)))
    return box_lonlat(-180.0, south, 180.0, north)


def granules(tiles: list[Tile]) -> Iterator[Scene]:
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
