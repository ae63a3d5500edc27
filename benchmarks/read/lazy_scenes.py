"""What opening scenes lazily asks of a file server: requests and bytes, by engine.

    python benchmarks/read/lazy_scenes.py [FOLDER]

Writes an archive of position-coded granules (2 x 2 tiles, two dates), serves it on loopback and
reads one window of two bands through every engine. Values are compared; counts do not depend on
the machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import eoray
from eoray.reading.engines import ENGINES
from eoray.testing import PositionOptions, write_position_archive
from eoray.testing.http import archive_server

BANDS = ["B04", "B08"]


def read(url: str, engine: str) -> np.ndarray:
    run_file = Path(tempfile.mkdtemp()) / "run.yaml"
    run_file.write_text(f"""\
version: 1
name: lazy
aoi: {url}/aoi.geojson
time: 2023-01-01/2023-12-31
task: cube
source: {{catalog: {url}/catalog.json}}
cube: {{bands: [{", ".join(BANDS)}]}}
store: out
""")
    scenes = eoray.open_scenes(run_file, engine=engine, bands=BANDS)
    window = scenes.reflectance.isel(y=slice(700, 1000), x=slice(800, 1100))
    return np.asarray(window.values)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    write_position_archive(folder, PositionOptions(tiles=(2, 2), bands=("B04", "B08")))
    first = None
    for engine in ENGINES:
        with archive_server(folder) as server:
            values = read(server.url, engine)
            asked = [r for r in server.requests if r.path.endswith(".tif")]
        first = values if first is None else first
        row = {
            "engine": engine,
            "window": list(values.shape),
            "requests": len(asked),
            "megabytes": round(sum(r.n_bytes for r in asked) / 1e6, 2),
            "values_differ": int((values != first).sum()),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
