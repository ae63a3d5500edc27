"""How far granules of one datatake differ where they overlap, by band.

    python benchmarks/read/overlaps.py                                  # an archive of its own
    python benchmarks/read/overlaps.py --store build/demo/out
    python benchmarks/read/overlaps.py --real ../shared/data/sentinel2/earthsearch_33TWL_33TWM

The synthetic archive corrects the atmosphere granule by granule, with the spread that is published;
every datatake with clear ground in its overlap counts. The real pair is one datatake at 120 m, in
files whose pixels lie half a pixel apart and are compressed with loss: single pixels cannot be
compared, so means of squares of 600 m are, where both files call all of a square clear. Differences
are in units of 1e-4. The figures are counts: they do not depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from eoray.reading.overlaps import CLEAR, summarise_overlaps
from eoray.run import load_run
from eoray.run.overlaps import measure_overlaps
from eoray.testing import ArchiveOptions, write_archive

RUN_FILE = """\
version: 1
name: overlaps
aoi: archive/aoi.geojson
time: 2020-01-01/2022-12-31
task: cube
source:
  catalog: archive/catalog.json
  lineage: {baseline_min: "02.00", mixed: true}
store: out
cube: {composite: {method: none}}
"""
REAL = ("S2A_33TWL_20230815_0_L2A", "S2A_33TWM_20230815_0_L2A")
BANDS = ("B02", "B03", "B04", "B08")
SQUARE = 5
"""Pixels of 120 m along a square."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", help="a cube whose source can be read")
    parser.add_argument("--real", type=Path, help="folder of the two granules at 120 m")
    parser.add_argument("--size", type=int, default=256, help="edge of granules, 10 m pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON of all figures")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    if arguments.real:
        found["real"] = measure_real(arguments.real)
    if arguments.store:
        found["store"] = measure_store(arguments.store)
    elif not arguments.real:
        options = ArchiveOptions(
            seed=arguments.seed, size_px=arguments.size, southern=False, neighbour_zone=False
        )
        with tempfile.TemporaryDirectory(prefix="eoray-overlaps-") as name:
            found["synthetic"] = measure_synthetic(Path(name), options)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))
    for source, rows in found.items():
        for band, row in rows.items():
            print(f"{source:10} {band:12} {row}")


def measure_synthetic(folder: Path, options: ArchiveOptions) -> dict[str, Any]:
    """Draw an archive, make its cube, and compare."""
    write_archive(folder / "archive", options, workers=1)
    (folder / "run.yaml").write_text(RUN_FILE)
    load_run(folder / "run.yaml").execute(["cube"], executor="inline")
    return measure_store(str(folder / "out"))


def measure_store(url: str) -> dict[str, Any]:
    """All datatakes of a store, by band."""
    overlaps, unread = measure_overlaps(url, samples=100_000)
    return {
        **summarise_overlaps(overlaps),
        "classes": {
            "datatakes": len(overlaps),
            "pixels": sum(one.pixels for one in overlaps),
            "differ": round(float(np.average(
                [one.scl_differs for one in overlaps], weights=[one.pixels for one in overlaps]
            )), 4),
            "unread": len(unread),
        },
    }  # fmt: skip


def measure_real(folder: Path) -> dict[str, Any]:
    """Means of squares of both files, where they overlap and both are clear."""
    south, north = (folder / item for item in REAL)
    clear = squares(south, north, "SCL", share_clear)
    used = (clear[0] == 1) & (clear[1] == 1)
    rows: dict[str, Any] = {}
    for band in BANDS:
        first, second = squares(south, north, band, np.mean)
        difference = (second - first)[used]
        rows[band] = {
            "squares": int(used.sum()),
            "level": round(float(first[used].mean()), 1),
            "mean": round(float(difference.mean()), 1),
            "median": round(float(np.median(difference)), 1),
            "p95": round(float(np.quantile(np.abs(difference), 0.95)), 1),
        }
    return rows


def share_clear(scl: np.ndarray, axis: tuple[int, int]) -> np.ndarray:
    return np.asarray(np.isin(scl, CLEAR).mean(axis=axis))


def squares(south: Path, north: Path, band: str, reduce: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both files by squares of the same ground, but for half a pixel of 120 m.

    Rows of the northern file begin 833.5 pixels above the southern one's; the half is left.
    """
    with rasterio.open(south / f"{band}.tif") as low, rasterio.open(north / f"{band}.tif") as high:
        ahead = (high.transform.f - low.transform.f) / -low.transform.e
        first = int(np.floor(ahead))
        n = (high.height - first) // SQUARE
        cols = low.width // SQUARE
        parts = (low.read(1)[: n * SQUARE], high.read(1)[first : first + n * SQUARE])
    blocks = (p[:, : cols * SQUARE].reshape(n, SQUARE, cols, SQUARE) for p in parts)
    one, two = (np.asarray(reduce(block, axis=(1, 3))) for block in blocks)
    return one, two


if __name__ == "__main__":
    main()
