"""Read a window that fits no tile of its files: eoray against rasterio, odc-stac and stackstac.

    python benchmarks/read/bench_window.py                 # 4 dates x 4 bands, 3072 px, local files
    python benchmarks/read/bench_window.py --out results.json

Every reader runs in a process of its own, with imports and one small read before the clock starts,
and its pixels are compared with the source. Prints one JSON object per reader and the ratios.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

EDGE, BLOCK = 4096, 1024
BANDS = ("B02", "B03", "B04", "B08")
X0, Y0 = 499_980.0, 5_200_020.0
READERS = ("eoray", "rasterio", "odc-stac", "odc-stac-dask", "stackstac")

Read = Callable[[], np.ndarray]


def pixels(date: int, band: int) -> np.ndarray:
    """Texture that compresses as reflectance does (about 1.7), with a corner of no data."""
    rng = np.random.default_rng([date, band])
    coarse = np.kron(rng.normal(0, 300, (EDGE // 64, EDGE // 64)), np.ones((64, 64)))
    values = 2500 + 200 * band + coarse + rng.normal(0, 60, (EDGE, EDGE))
    values = np.clip(values, 1, 20_000).astype(np.uint16)
    values[:500, :700] = 0
    return values


def write_archive(folder: Path, n_dates: int) -> None:
    from eoray.testing.cog import CogLayout, write_cog

    for date in range(n_dates):
        for number, band in enumerate(BANDS):
            write_cog(
                folder / f"{date}-{band}.tif",
                pixels(date, number),
                origin=(X0, Y0),
                resolution_m=10,
                epsg=32632,
                layout=CogLayout(block_px=BLOCK),
            )


def read_by_eoray(folder: Path, n_dates: int, offset: int, size: int) -> Read:
    from eoray.catalog.scene import BandAsset
    from eoray.grid import TOP_M, PixelWindow
    from eoray.reading.gdal import io_pool
    from eoray.reading.window import read_asset

    window = PixelWindow(round((TOP_M - Y0) / 10) + offset, round(X0 / 10) + offset, size, size)
    transform = (10.0, 0.0, X0, 0.0, -10.0, Y0)
    scene = _Scene()

    def one(date: int, band: str) -> np.ndarray:
        asset = BandAsset(band, str(folder / f"{date}-{band}.tif"), transform, (EDGE, EDGE), 0)
        return read_asset(scene, asset, zone=32, window=window, resolution_m=10)  # type: ignore[arg-type]

    return lambda: _stack(io_pool(), one, n_dates)


class _Scene:
    """What reading asks of a scene."""

    item_id, zone = "bench", 32


def _stack(
    pool: ThreadPoolExecutor, one: Callable[[int, str], np.ndarray], n_dates: int
) -> np.ndarray:
    jobs = [(date, band) for date in range(n_dates) for band in BANDS]
    found = list(pool.map(lambda job: one(*job), jobs))
    return np.stack(found).reshape(n_dates, len(BANDS), *found[0].shape)


def read_by_rasterio(folder: Path, n_dates: int, offset: int, size: int) -> Read:
    from eoray.reading.gdal import GdalFile, io_pool

    part = slice(offset, offset + size)

    def one(date: int, band: str) -> np.ndarray:
        with GdalFile(str(folder / f"{date}-{band}.tif")) as file:
            return file.read(part, part)

    return lambda: _stack(io_pool(), one, n_dates)


def items_of(folder: Path, n_dates: int) -> list[Any]:
    import pystac
    from pyproj import Transformer

    corners = np.array([[X0, Y0], [X0 + EDGE * 10, Y0], [X0 + EDGE * 10, Y0 - EDGE * 10]])
    corners = np.vstack([corners, [[X0, Y0 - EDGE * 10], [X0, Y0]]])
    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    ring = np.stack(to_degrees.transform(*corners.T), axis=1)
    items = []
    for date in range(n_dates):
        when = datetime(2023, 6, 1, tzinfo=UTC) + timedelta(days=5 * date)
        bbox = [*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist()]
        shape = {"type": "Polygon", "coordinates": [ring.tolist()]}
        item = pystac.Item(f"d{date}", shape, bbox, when, {"proj:epsg": 32632})
        for band in BANDS:
            item.add_asset(
                band,
                pystac.Asset(
                    str(folder / f"{date}-{band}.tif"),
                    media_type="image/tiff; application=geotiff; profile=cloud-optimized",
                    roles=["data"],
                    extra_fields={
                        "proj:shape": [EDGE, EDGE],
                        "proj:transform": [10.0, 0.0, X0, 0.0, -10.0, Y0],
                        "raster:bands": [{"data_type": "uint16", "nodata": 0}],
                    },
                ),
            )
        items.append(item)
    return items


def read_by_odc(folder: Path, n_dates: int, offset: int, size: int, *, dask: bool) -> Read:
    import odc.stac
    from affine import Affine
    from odc.geo.geobox import GeoBox

    place = Affine(10, 0, X0 + offset * 10, 0, -10, Y0 - offset * 10)
    geobox = GeoBox((size, size), place, "EPSG:32632")
    items = items_of(folder, n_dates)

    def read() -> np.ndarray:
        options: dict[str, Any] = {"chunks": {"x": 1024, "y": 1024}} if dask else {"pool": 4}
        loaded = odc.stac.load(items, bands=list(BANDS), geobox=geobox, **options)
        if dask:
            loaded = loaded.compute(scheduler="threads", num_workers=4)
        return np.stack([loaded[band].values for band in BANDS], axis=1)

    return read


def read_by_stackstac(folder: Path, n_dates: int, offset: int, size: int) -> Read:
    import stackstac

    left, top = X0 + offset * 10, Y0 - offset * 10
    items = []
    for item in items_of(folder, n_dates):
        plain = item.to_dict()
        plain["properties"]["proj:epsg"] = 32632  # pystac moves it, stackstac wants it here
        items.append(plain)

    def read() -> np.ndarray:
        stack = stackstac.stack(
            items,
            assets=list(BANDS),
            epsg=32632,
            resolution=10,
            bounds=(left, top - size * 10, left + size * 10, top),
            dtype="uint16",
            fill_value=np.uint16(0),
            rescale=False,
            snap_bounds=False,
        )
        return np.asarray(stack.compute(scheduler="threads", num_workers=4).values)

    return read


def run_one(name: str, folder: Path, n_dates: int, offset: int, size: int) -> None:
    """Read once and say what it took: the child process."""
    makers: dict[str, Callable[..., Read]] = {
        "eoray": read_by_eoray,
        "rasterio": read_by_rasterio,
        "odc-stac": lambda *a: read_by_odc(*a, dask=False),
        "odc-stac-dask": lambda *a: read_by_odc(*a, dask=True),
        "stackstac": read_by_stackstac,
    }
    makers[name](folder, 1, offset, 64)()
    read = makers[name](folder, n_dates, offset, size)
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun, cpu = time.perf_counter(), time.process_time()
    values = read()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF)
    part = slice(offset, offset + size)
    differ = sum(
        int((values[date, number] != pixels(date, number)[part, part]).sum())
        for date in range(n_dates)
        for number in range(len(BANDS))
    )
    row = {
        "reader": name,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "mb_per_s": round(values.size * 2 / 1e6 / seconds, 1),
        "peak_mb": after.ru_maxrss // 1024,
        "start_mb": before.ru_maxrss // 1024,
        "values_differ": differ,
        "digest": hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=8).hexdigest(),
    }
    sys.stdout.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dates", type=int, default=4)
    parser.add_argument("--size", type=int, default=3072)
    parser.add_argument("--offset", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shape = arguments.dates, arguments.offset, arguments.size
    if arguments.child:
        run_one(arguments.child[0], Path(arguments.child[1]), *shape)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="eoray-read-") as folder:
        write_archive(Path(folder), arguments.dates)
        for _ in range(arguments.rounds):  # in turn, so that the machine's moods are shared
            for reader in READERS:
                command = [sys.executable, __file__, *sys.argv[1:], "--child", reader, folder]
                done = subprocess.run(command, check=True, capture_output=True, env=os.environ)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(rows[-1]), flush=True)
    result = summarise(rows)
    print(json.dumps(result))
    if arguments.out:
        arguments.out.write_text(json.dumps({"rows": rows, **result}, indent=1) + "\n")


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of medians: how much longer the others take."""

    def median(reader: str, what: str) -> float:
        return float(np.median([row[what] for row in rows if row["reader"] == reader]))

    found: dict[str, Any] = {"values_differ": sum(row["values_differ"] for row in rows)}
    for reader in READERS[1:]:
        name = reader.replace("-", "_")
        for what in ("seconds", "cpu_seconds"):
            ratio = median(reader, what) / median("eoray", what)
            found[f"{what}_{name}_over_eoray"] = round(ratio, 2)
    return found


if __name__ == "__main__":
    main()
