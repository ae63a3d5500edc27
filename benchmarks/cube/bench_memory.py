"""Peak memory of the cube stage against the size of the area.

    python benchmarks/cube/bench_memory.py            # 4 x 4 and 16 x 16 tiles

Each area is an archive whose pixels are their own position, read by a process of its own with two
threads. Prints one JSON object per area and the ratio of the last to the first: it should be 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from eoray.testing.positions import PositionOptions, write_position_archive

RUN_FILE = """\
version: 1
name: memory
aoi: archive/aoi.geojson
time: 2023-01-01/2023-01-31
task: cube
source: {catalog: archive/catalog.json, collection: sentinel-2-c1-l2a}
store: out
cube:
  bands: [B04, B11]
  composite: {method: none}
"""

CHILD = """
import json, sys
from eoray.run import load_run
from eoray.run.usage import measure_peak
with measure_peak() as peak:
    report = load_run(sys.argv[1]).execute(["cube"], executor="threads")
stage = report.stages["cube"]
print(json.dumps({"peak_bytes": peak.bytes, "tasks": stage["tasks"], "seconds": stage["seconds"]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=[4, 16], help="tiles along an edge")
    parser.add_argument("--dates", type=int, default=2)
    arguments = parser.parse_args()
    peaks = [measure(edge, arguments.dates) for edge in arguments.edges]
    print(json.dumps({"ratio": round(peaks[-1] / peaks[0], 3)}))


def measure(edge: int, n_dates: int) -> int:
    """Peak bytes of the process that makes the cube of edge x edge tiles."""
    options = PositionOptions(tiles=(edge, edge), n_dates=n_dates, bands=("B04", "B11"))
    with tempfile.TemporaryDirectory(prefix="eoray-memory-") as name:
        folder = Path(name)
        write_position_archive(folder / "archive", options)
        run_file = folder / "run.yaml"
        run_file.write_text(RUN_FILE)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(run_file)], check=True, capture_output=True, text=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({"tiles": edge * edge, **found}), flush=True)
    return int(found["peak_bytes"])


if __name__ == "__main__":
    main()
