"""STAC items and COGs over HTTP into Zarr: eoray against odc-stac, stackstac and rasterio.

    make bench-read                                        # everything, results.json
    python benchmarks/read/bench_read.py --cases window    # one comparison
    python benchmarks/read/bench_read.py --cases long chips memory

Each reader runs in a process of its own, in turn, with imports and the first connection before the
clock starts; every value is compared with the source. Cases:

- ``product``: 3 x 3 tiles of the world grid within a granule, 8 dates, 4 bands, 30 ms and none;
  everybody finds the items and writes reflectance, classes, masks and flags
- ``window``: the same place; peers have their items and write bare pixels
- ``whole``: the whole granule, 4 dates, 4 bands; 30 ms and none
- ``20m``: two bands of 20 m; ``512``: files with tiles of 512 px
- ``long``: 24 dates of the whole granule, 3.2 GB: in process, through Ray on two actors, and the
  ceiling: what requesting, decoding, placing, encoding and writing cost, each alone, over all cores
- ``chips``: random chips of the cube over HTTP, 16 in flight
- ``memory``: peak of the cube stage over an area of 16 times the size
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scenery import BANDS_10M, BANDS_20M, Scenery
from server import forget_traffic, read_traffic, serve

LATENCY_MS = 30
PEERS = ("odc-stac-dask", "odc-stac-direct", "stackstac", "stackstac-float64", "rasterio")


@dataclass(frozen=True, slots=True)
class Case:
    """What is read, and by whom."""

    bands: tuple[str, ...] = BANDS_10M
    n_dates: int = 4
    whole: bool = False
    block_px: int = 1024
    latencies: tuple[int, ...] = (LATENCY_MS, 0)
    readers: tuple[str, ...] = ("eoray", *PEERS)
    rounds: int | None = None
    is_product: bool = False
    """Peers leave what eoray leaves; see ``products``."""


CASES = {
    "product": Case(
        n_dates=8,
        readers=("eoray", "odc-stac-dask", "stackstac", "stackstac-float64"),
        is_product=True,
    ),
    "window": Case(n_dates=8, rounds=2),
    "whole": Case(whole=True, rounds=1),
    "20m": Case(bands=BANDS_20M, n_dates=8, latencies=(LATENCY_MS,), rounds=1),
    "512": Case(block_px=512, latencies=(LATENCY_MS,), rounds=1),
    "long": Case(
        n_dates=24,
        whole=True,
        latencies=(LATENCY_MS,),
        readers=("ceiling", "eoray", "eoray-ray", "odc-stac-dask"),
        rounds=1,
    ),
}
OTHERS = ("chips", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=[*CASES, *OTHERS], default=[*CASES, *OTHERS])
    parser.add_argument("--readers", nargs="+", help="of those of the case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept between calls, 2.5 GB; else temporary")
    parser.add_argument("--out", type=Path, help="where rows and ratios are written")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(**json.loads(arguments.child))))
        return
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="eoray-read-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(serve(folder.resolve(), folder.resolve() / "server"))
        for name in arguments.cases:
            if name in OTHERS:
                rows += run_other(name, folder)
            else:
                rows += run_case(name, folder, server, arguments)
            print(json.dumps(summarise(rows)), flush=True)
    if arguments.out:
        known = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
        rows = [row for row in known if row["case"] not in arguments.cases] + rows
        arguments.out.write_text(json.dumps({**summarise(rows), "rows": rows}, indent=1) + "\n")


def run_case(
    name: str, folder: Path, server: Any, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """All readers of a case, in turn, each round another one first: moods are shared."""
    case = CASES[name]
    scenery = Scenery(folder / f"archive-{case.block_px}", block_px=case.block_px)
    scenery.make()
    rows = []
    readers = [r for r in case.readers if not arguments.readers or r in arguments.readers]
    read_all(scenery.folder)
    for number in range(min(arguments.rounds, case.rounds or arguments.rounds)):
        turn = number % len(readers)
        for latency in case.latencies:
            for reader in readers[turn:] + readers[:turn]:
                given = {
                    "reader": reader,
                    "case": name,
                    "folder": str(scenery.folder),
                    "root": f"{server.url(latency)}/{scenery.folder.name}",
                    "log": str(server.log),
                    "latency_ms": latency,
                }
                row = _in_child(given)
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def read_all(folder: Path) -> None:
    """Bring the archive into memory: the first reader is not to wait for the server's disk."""
    for path in folder.rglob("*.tif"):
        path.read_bytes()


def _in_child(given: Mapping[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", json.dumps(dict(given))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(
    reader: str, case: str, folder: str, root: str, log: str, latency_ms: int
) -> dict[str, Any]:
    """One reader, once: the child process."""
    import products
    import readers
    from readers import Job

    from eoray.run.usage import measure_peak

    what = CASES[case]
    scenery = Scenery(Path(folder), block_px=what.block_px)
    threads = 16 if latency_ms else 2 * (os.cpu_count() or 1)
    given = {"case": case, "reader": reader, "latency_ms": latency_ms}
    if reader == "ceiling":
        from ceiling import measure_ceiling

        return {**given, **measure_ceiling(scenery, what.bands, what.n_dates, root)}
    by_name: Any = products.PRODUCTS if what.is_product else readers.READERS
    count: Any = products.count_differing if what.is_product else readers.count_differing
    with tempfile.TemporaryDirectory(prefix="eoray-out-") as place, ExitStack() as stack:
        wanted = Job(
            scenery, root, Path(place, "out"), what.bands, what.n_dates, what.whole, threads
        )
        warm, _ = by_name[reader](
            replace(wanted, out=Path(place, "warm"), n_dates=1, first=scenery.n_dates - 1), stack
        )
        warm()
        read, found = by_name[reader](wanted, stack)
        forget_traffic(Path(log))
        os.sync()  # what readers before wrote is not this one's to wait for
        with measure_peak() as peak:
            began, cpu = time.perf_counter(), _cpu_s()
            read()
            seconds, cpu = time.perf_counter() - began, _cpu_s() - cpu
        traffic = read_traffic(Path(log))
        dates = list(range(what.n_dates)) if what.n_dates <= 8 else [0, 1, what.n_dates - 1]
        differing = count(wanted, found, dates)
        written = sum(f.stat().st_size for f in wanted.out.rglob("*") if f.is_file())
    n_dates, n_bands, height, width = wanted.shape
    mb = n_dates * n_bands * height * width * 2 / 1e6
    return {
        **given,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 2),
        "mb": round(mb, 1),
        "mb_per_s": round(mb / seconds, 1),
        "peak_mb": round(peak.bytes / 1e6),
        "requests": traffic.requests,
        "heads": traffic.heads,
        "http_mb": traffic.mb,
        "written_mb": round(written / 1e6, 1),
        "dates_compared": len(dates),
        "values_differ": differing,
    }


def _cpu_s() -> float:
    """Processor time of this process and all that it started."""
    import psutil

    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def run_other(name: str, folder: Path) -> list[dict[str, Any]]:
    """The cases that have scripts of their own."""
    here = Path(__file__).resolve().parent
    script = {"chips": here / "chips.py", "memory": here.parent / "cube" / "bench_memory.py"}[name]
    given = ["--folder", str(folder)] if name == "chips" else []
    done = subprocess.run(
        [sys.executable, str(script), *given], stdout=subprocess.PIPE, text=True, check=True
    )
    rows = [{"case": name, **json.loads(line)} for line in done.stdout.splitlines()]
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ratios of medians; above 1, eoray is ahead.

    ``window_vs_...`` compares equal outputs (``product``), stackstac with the floats that it makes
    unless it is told otherwise; ``bare_window_vs_...`` eoray's product with bare pixels.
    """

    def median(case: str, reader: str, what: str, latency_ms: int = LATENCY_MS) -> float | None:
        found = [
            row[what]
            for row in rows
            if what in row
            and (row["case"], row.get("reader"), row.get("latency_ms"))
            == (case, reader, latency_ms)
        ]
        return statistics.median(found) if found else None

    def ratio(above: float | None, below: float | None) -> float | None:
        return None if above is None or not below else round(above / below, 3)

    result: dict[str, Any] = {
        "window_vs_odc_stac": ratio(
            median("product", "odc-stac-dask", "seconds"), median("product", "eoray", "seconds")
        ),
        "window_vs_stackstac": ratio(
            median("product", "stackstac-float64", "seconds"),
            median("product", "eoray", "seconds"),
        ),
        "bare_window_vs_odc_stac": ratio(
            median("window", "odc-stac-dask", "seconds"), median("window", "eoray", "seconds")
        ),
        "bare_window_vs_stackstac": ratio(
            median("window", "stackstac-float64", "seconds"), median("window", "eoray", "seconds")
        ),
        "share_of_ceiling": ratio(
            median("long", "eoray", "mb_per_s"), median("long", "ceiling", "mb_per_s")
        ),
        "share_of_decoding_and_encoding": ratio(
            median("long", "eoray", "mb_per_s"),
            median("long", "ceiling", "decode_and_encode_mb_per_s"),
        ),
        "ray_share_of_in_process": ratio(
            median("long", "eoray-ray", "mb_per_s"), median("long", "eoray", "mb_per_s")
        ),
        "memory_16x_over_1x": next((row["ratio"] for row in rows if "ratio" in row), None),
        "values_differ": sum(row.get("values_differ", 0) for row in rows),
    }
    for case, what in CASES.items():
        for latency in what.latencies:
            for reader in what.readers:
                for figure in ("seconds", "cpu_seconds", "peak_mb"):
                    found = ratio(
                        median(case, reader, figure, latency),
                        median(case, "eoray", figure, latency),
                    )
                    if found is not None and reader != "eoray":
                        key = f"{case}_{latency}ms_{reader}_over_eoray"
                        result.setdefault(key, {})[figure] = found
    for row in rows:
        if row["case"] == "chips":
            result[f"chips_{row['reader']}_ms"] = row["ms_each"]
    return result


if __name__ == "__main__":
    main()
