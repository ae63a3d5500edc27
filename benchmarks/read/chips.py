"""Random training chips out of a cube over HTTP: eoray, and zarr-python on the same store.

    python benchmarks/read/chips.py

A cube of 16 dates and 4 bands over 2 x 2 tiles is made, then served from a folder; each request is
answered after 30 ms. A chip is 8 dates x 4 bands x 256 x 256 px at a random place; every chip is
compared with the same window read from the folder. Prints one JSON object for each reader:

- ``eoray``: 16 chips in flight, each wherever it happens to lie; nothing is cached before
- ``eoray-again``: other places of the same cube; where chunks lie within shards is known by now
- ``eoray-one-by-one``, ``zarr-one-by-one``: what a single chip waits for
- ``zarr``: zarr-python, 16 in flight
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from scenery import BANDS_10M, Scenery
from server import forget_traffic, read_traffic, serve

from eoray.cube import store
from eoray.cube.read import CubeReader, CubeSource
from eoray.grid import TILE_M, TOP_M, PixelWindow

ZONE, EDGE_TILES, N_DATES, DATES, SIZE = 31, 3, 16, 8, 256
IN_FLIGHT, N_CHIPS = 16, 160

Chip = tuple[PixelWindow, list[int]]
Read = Callable[[Chip], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="kept between calls; else temporary")
    parser.add_argument("--latency-ms", type=int, default=30)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="eoray-chips-"))
        )
        url = make_cube(folder)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eoray-nginx-")))
        server = stack.enter_context(serve(folder.resolve(), place, arguments.latency_ms))
        compare(url, f"{server.url(arguments.latency_ms)}/{Path(url).name}", server.log)


def make_cube(folder: Path) -> str:
    """A cube of some dates of the scenery."""
    from readers import Job, by_eoray

    scenery = Scenery(folder / "archive-1024")
    scenery.make()
    out = folder / "chips-cube"
    if not (out / "run.done").exists():
        job = Job(scenery, str(scenery.folder), out, BANDS_10M, N_DATES, whole=False, threads=1)
        read, _ = by_eoray(job, ExitStack())
        read()
        (out / "run.done").touch()
    return str(out)


def compare(local: str, remote: str, log: Path) -> None:
    """Read the same chips by all, each from a store opened anew."""
    rng = np.random.default_rng(5)
    truth = CubeReader(CubeSource(local))
    (tile, *_) = truth.tiles("s2")
    origin = round((TOP_M - tile.bounds[3]) / 10), round(tile.bounds[0] / 10)
    chips = [draw(rng, origin) for _ in range(2 * N_CHIPS)]
    first, second = chips[:N_CHIPS], chips[N_CHIPS:]
    ours = CubeReader(CubeSource(remote))
    read_ours = partial(read_by_eoray, ours)
    read_zarr = reader_of_zarr(remote)
    runs: list[tuple[str, Read, list[Chip], int]] = [
        ("eoray", read_ours, first, IN_FLIGHT),
        ("eoray-again", read_ours, second, IN_FLIGHT),
        ("eoray-one-by-one", read_ours, first[:24], 1),
        ("zarr", read_zarr, first[:64], IN_FLIGHT),
        ("zarr-one-by-one", read_zarr, second[:24], 1),
    ]
    for name, read, wanted, in_flight in runs:
        forget_traffic(log)
        began, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(in_flight) as pool:
            found = list(pool.map(read, wanted))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        traffic = read_traffic(log)
        differ = sum(
            int((values != read_by_eoray(truth, chip)).sum())
            for chip, values in zip(wanted, found, strict=True)
        )
        row = {
            "reader": name,
            "in_flight": in_flight,
            "ms_each": round(seconds * 1000 / len(wanted), 2),
            "cpu_ms_each": round(cpu * 1000 / len(wanted), 2),
            "requests_each": round(traffic.requests / len(wanted), 1),
            "mb_each": round(traffic.mb / len(wanted), 2),
            "values_differ": differ,
        }
        sys.stdout.write(json.dumps(row) + "\n")


def draw(rng: np.random.Generator, origin: tuple[int, int]) -> Chip:
    """A place within the cube, and eight dates in a row."""
    span = EDGE_TILES * TILE_M // 10 - SIZE
    row, col = (int(start + rng.integers(span)) for start in origin)
    first = int(rng.integers(N_DATES - DATES + 1))
    return PixelWindow(row, col, SIZE, SIZE), list(range(first, first + DATES))


def read_by_eoray(reader: CubeReader, chip: Chip) -> np.ndarray:
    window, index = chip
    return reader.read("s2", ZONE, window=window, resolution_m=10, index=index)


def reader_of_zarr(url: str) -> Read:
    import zarr

    repository = store.open_repository(store.repository_url(url))
    root = zarr.open_group(repository.readonly_session(store.BRANCH).store, mode="r")
    array = root[f"s2/z{ZONE}/10m/reflectance"]

    def read(chip: Chip) -> np.ndarray:
        window, index = chip
        rows = slice(window.row_off, window.row_off + window.height)
        cols = slice(window.col_off, window.col_off + window.width)
        return np.asarray(array[index[0] : index[-1] + 1, :, rows, cols])

    return read


if __name__ == "__main__":
    main()
