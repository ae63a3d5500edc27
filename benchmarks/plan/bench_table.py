"""Read the items of a country out of a stac-geoparquet table of the planet, and make them scenes.

    python benchmarks/plan/bench_table.py --items 1000000     # needs some GB of disk, and minutes
    python benchmarks/plan/bench_table.py --items 7000 --zones 2

The table is synthetic: granules of 109.8 km over sixty zones, sorted by place, dates of one granule
side by side, 2 000 items a group. ``read`` is what a run does with such a catalogue: the footer and
the groups that statistics do not rule out, items; ``scenes`` brings them to one form. Prints one
JSON object: processor seconds, bytes of the groups that were read, the largest resident size.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely

from eoray.catalog.geoparquet import items_table, matching_groups
from eoray.catalog.lineage import Lineage
from eoray.catalog.scene import resolve_scenes
from eoray.catalog.snapshot import find_in_snapshot
from eoray.cube.plan import plan_scenes
from eoray.grid import box_lonlat, lattice_of, tiles_of_geometry, to_lonlat
from eoray.sentinel2 import BANDS, COMMON_NAMES, native_resolution_m

STEP_M, EDGE_M, GROUP = 100_000, 109_800, 2_000
YEAR = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
PLACE = (2.0, 46.0, 6.0, 49.0)
"""A fair part of France, degrees."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--zones", type=int, default=60, help="From zone 31 on, eastwards.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eoray-table-") as folder:
        path = Path(folder) / "items.parquet"
        n_items = write_table(path, arguments.items, arguments.zones)
        print(json.dumps({"items in table": n_items, **measure(path)}, indent=2))


def measure(path: Path) -> dict[str, Any]:
    """Read and plan a place, the processor seconds of each step beside it."""
    place = box_lonlat(*PLACE)
    metadata = pq.ParquetFile(path).metadata
    groups = matching_groups(metadata, ((PLACE,), YEAR))
    before, seconds, begun = peak_mb(), {}, time.process_time()
    items = find_in_snapshot(str(path), place, YEAR)
    seconds["read"] = time.process_time() - begun
    begun = time.process_time()
    scenes = resolve_scenes(items, lineage=Lineage(), bands=BANDS).scenes
    seconds["scenes"] = time.process_time() - begun
    begun = time.process_time()
    _, rows = plan_scenes(scenes, tiles_of_geometry(place))
    seconds["tasks"] = time.process_time() - begun
    return {
        "table_mb": round(path.stat().st_size / 1e6),
        "groups": metadata.num_row_groups,
        "groups read": len(groups),
        "mb read": round(sum(metadata.row_group(n).total_byte_size for n in groups) / 1e6, 1),
        "items": len(items),
        "tasks": len(rows),
        "cpu_s": {name: round(value, 2) for name, value in seconds.items()},
        "peak_mb": {"before": before, "after": peak_mb()},
    }


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_table(path: Path, n_items: int, n_zones: int) -> int:
    """Write the table group by group; return how many items it has."""
    zones = sorted((30 + n) % 60 + 1 for n in range(n_zones))
    places = [(zone, x, y) for zone in zones for x in range(2, 8) for y in range(-45, 70)]
    n_dates = max(1, round(n_items / len(places)))
    items = (item(*place, n, n_dates) for place in places for n in range(n_dates))
    written, writer = 0, None
    for batch in batched(items, GROUP):
        table = items_table(batch)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        written += len(batch)
    if writer is not None:
        writer.close()
    return written


def item(zone: int, column: int, row: int, number: int, n_dates: int) -> dict[str, Any]:
    """One granule of one date, in the words of Earth Search's Collection 1."""
    x, y = float(column * STEP_M - 20), float((row + 1) * STEP_M + 20)
    at = YEAR[0] + timedelta(days=365 * number / n_dates, minutes=zone)
    stamp, orbit = f"{at:%Y%m%dT%H%M%S}", zone + number % 80
    outline = shapely.box(x, y - EDGE_M, x + EDGE_M, y)
    ring = np.stack(to_lonlat(lattice_of(zone), *shapely.get_coordinates(outline).T), axis=1)
    (west, south), (east, north) = ring.min(0).tolist(), ring.max(0).tolist()
    granule = f"{zone:02d}{'CDEFGHJKLMNPQRSTUVWX'[row % 20]}{chr(65 + column)}{chr(65 + row % 20)}"
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": f"S2A_T{granule}_{stamp}_{row:+03d}_L2A",
        "collection": "sentinel-2-c1-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "platform": "sentinel-2a",
            "grid:code": f"MGRS-{granule}",
            "proj:code": f"EPSG:{32600 + zone}",
            "sat:relative_orbit": orbit,
            "eo:cloud_cover": 20.0,
            "view:sun_azimuth": 150.0,
            "view:sun_elevation": 50.0,
            "s2:processing_baseline": "05.10",
            "s2:product_type": "S2MSI2A",
            "s2:product_uri": f"S2A_MSIL2A_{stamp}_N0510_R{orbit:03d}_T{granule}_{stamp}.SAFE",
            "s2:generation_time": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "s2:datatake_id": f"GS2A_{stamp}_{number:06d}_N05.10",
        },
        "links": [],
        "assets": {
            name: asset(f"https://nowhere.test/{granule}/{stamp}/{name}.tif", band, x, y)
            for band, name in {"SCL": "scl", **{b: COMMON_NAMES[b] for b in BANDS}}.items()
        },
    }


def asset(href: str, band: str, x: float, y: float) -> dict[str, Any]:
    pixel = 20 if band == "SCL" else native_resolution_m(band)
    declared = {"nodata": 0, "scale": 0.0001, "offset": -0.1}
    return {
        "href": href,
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:shape": [EDGE_M // pixel] * 2,
        "proj:transform": [pixel, 0, x, 0, -pixel, y],
        "raster:bands": [{"nodata": 0} if band == "SCL" else declared],
    }


if __name__ == "__main__":
    main()
