"""What a cube holds after reads failed, and after it was healed, for each kind of failure.

    python benchmarks/read/faults.py                       # an archive of its own, all kinds
    python benchmarks/read/faults.py --kinds 503,corrupt --share 0.1 --out faults.json
    python benchmarks/read/faults.py --files jp2           # which GDAL reads

Files are eoray's own reader's (``cog``) or GDAL's: JPEG 2000, or COGs packed by Zstandard, whose
kinds are fewer: GDAL takes small files in one request, so that nothing behind the header can be
``corrupt`` by itself, and ``lie`` moves the header of a TIFF.

A server on loopback treats a share of an archive's files wrongly, each time they are asked for.
Every pixel of the cube is compared with that of an undisturbed run: one that differs and carries no
failed-read bit is an unflagged hole. Then the server recovers, and the run is healed.
Prints one JSON object for each kind.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "cog": ("503", "404", "truncate", "hang-up", "reset", "slow", "corrupt", "lie"),
    "jp2": ("503", "404", "truncate", "hang-up", "reset", "slow"),
    "zstd": ("503", "404", "truncate", "hang-up", "reset", "slow", "lie"),
}
BANDS = ("B02", "B04", "B8A", "B12")


def measure(
    archive: Path,
    folder: Path,
    kind: str,
    *,
    share: float = 0.05,
    days: str,
    seed: int = 1,
    files: str = "cog",
) -> dict[str, Any]:
    """Build a cube while a share of the files cannot be read, and heal it.

    Args:
        archive: Of ``eoray.testing.write_archive``.
        folder: For the cubes; the undisturbed one is made once and kept there.
        kind: One of ``KINDS[files]``.
        share: Of all files.
        days: First and last, as in a run file.
        seed: Chooses the files.
        files: One of ``KINDS``.

    Returns:
        Counts, ``unflagged`` (pixels that differ without a bit) and ``healed`` (whether the
        checksum is that of the undisturbed run) among them.
    """
    from eoray.cube.check import check_cube
    from eoray.reading.gdal import forget_answers
    from eoray.reading.requests import forget_gates
    from eoray.run import load_run
    from eoray.testing.http import archive_server

    forget_gates()
    archive = repack(archive, folder / files, files)
    with archive_server(archive) as server:
        clean = folder / "clean"
        if not clean.exists():
            # from the files themselves: headers of the server's are not known to this process
            load_run(_run_file(folder, "clean", str(archive), days)).execute(["cube"])
        wanted = _files(folder, archive, days)
        chosen = random.Random(seed).sample(wanted, max(1, round(share * len(wanted))))
        server.set_broken(dict.fromkeys(chosen, kind))
        run = load_run(_run_file(folder, f"faulty-{kind}", server.url, days))
        # GDAL knows no server of before: its port may be the same
        forget_answers()
        begun = server.n_get
        run.execute(["cube"])
        requests = server.n_get - begun
        store = str(folder / f"faulty-{kind}")
        holes = check_cube(store).holes
        differing, flagged, unflagged = compare(str(clean), store)
        server.set_broken({})
        forget_gates()
        healed = run.heal(["cube"])
        again = check_cube(store)
    return {
        "kind": kind,
        "packed": files,
        "files": len(wanted),
        "files_broken": len(chosen),
        "requests": requests,
        "holes": len(holes),
        "reasons": dict(Counter(letter.reason for letter in holes)),
        "pixels_that_differ": differing,
        "pixels_flagged": flagged,
        "unflagged": unflagged,
        "tasks_healed": healed.stages.get("cube", {}).get("tasks", 0),
        "healed": again.ok and again.checksum == check_cube(str(clean)).checksum,
    }


def repack(archive: Path, folder: Path, files: str) -> Path:
    """Copy an archive with its bands packed in another way, if not done before; without loss."""
    import rasterio.shutil

    if files == "cog" or folder.exists():
        return archive if files == "cog" else folder
    shutil.copytree(archive, folder)
    options = {"compress": "zstd", "tiled": True, "blockxsize": 256, "blockysize": 256}
    if files == "jp2":
        options = {"QUALITY": "100", "REVERSIBLE": "YES"}
    driver, suffix = ("JP2OpenJPEG", ".jp2") if files == "jp2" else ("GTiff", ".tif")
    for path in sorted(folder.glob("sentinel-2-*/*/*.tif")):
        packed = path.with_name(f"packed{suffix}")
        rasterio.shutil.copy(str(path), str(packed), driver=driver, **options)
        path.unlink()
        packed.rename(path.with_suffix(suffix))
    if files == "jp2":
        for item in folder.glob("sentinel-2-*/*/*.json"):
            item.write_text(item.read_text().replace('.tif"', '.jp2"'))
    return folder


def _run_file(folder: Path, name: str, url: str, days: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"""\
version: 1
name: run
aoi: {url}/aoi.geojson
time: {days}
task: cube
source:
  catalog: {url}/catalog.json
  lineage: {{baseline_min: "02.00", mixed: true}}
store: {folder / name}
cube: {{bands: [{", ".join(BANDS)}], composite: {{method: none}}, max_failed_share: 1}}
run: {{executor: inline, retries: 0, read_seconds: 0.5}}
""")
    return path


def _files(folder: Path, archive: Path, days: str) -> list[str]:
    """Files that the run reads, as the server names them."""
    from urllib.parse import urlsplit

    from eoray.run import load_run

    run = load_run(_run_file(folder, "files", str(archive), days))
    rows = run.plan_cube(freeze=False).rows
    scenes = {scene.item_id: scene for row in rows for scene in row.scenes}
    hrefs = [a.href for s in scenes.values() for a in s.assets if a.band in (*BANDS, "SCL")]
    root = str(archive.resolve())
    return sorted(urlsplit(href).path.removeprefix(root) for href in hrefs)


def compare(clean: str, other: str) -> tuple[int, int, int]:
    """(pixels that differ, pixels flagged, pixels that differ unflagged) of the scene product."""
    from eoray.cube.read import CubeReader, CubeSource
    from eoray.sentinel2 import Quality

    first, second = CubeReader(CubeSource(clean)), CubeReader(CubeSource(other))
    totals = np.zeros(3, np.int64)
    for tile in first.tiles("s2"):
        keys = first.entries("s2", tile.zone).key
        for resolution_m in first.resolutions("s2", tile.zone):
            for key in keys:
                differs, flags = False, None
                for name, _ in first.arrays("s2", tile.zone, resolution_m):
                    a, b = (_read(r, tile, resolution_m, name, key) for r in (first, second))
                    if name == "quality":
                        flags = (b & np.uint8(Quality.FAILED_READ)) > 0
                        b = b & ~np.uint8(Quality.FAILED_READ)
                    plane = a != b
                    differs = differs | (plane.any(axis=0) if plane.ndim == 3 else plane)
                totals += [differs.sum(), flags.sum(), (differs & ~flags).sum()]
    return int(totals[0]), int(totals[1]), int(totals[2])


def _read(reader: Any, tile: Any, resolution_m: int, name: str, key: str) -> np.ndarray:
    table = reader.entries("s2", tile.zone)
    index = int(table.index[table.key == key][0])
    found: np.ndarray = reader.read(
        "s2", tile.zone, name, window=tile.window(resolution_m), resolution_m=resolution_m,
        index=[index],
    )[0]  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", choices=sorted(KINDS), default="cog")
    parser.add_argument("--kinds", help="some of them, with commas between; default: all")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--days", default="2021-01-01/2021-12-31")
    parser.add_argument("--out", type=Path, help="write the rows to this file, too")
    options = parser.parse_args()
    from eoray.testing import ArchiveOptions, write_archive

    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        archive = write_archive(folder / "archive", ArchiveOptions(size_px=64)).parent
        chosen = options.kinds.split(",") if options.kinds else KINDS[options.files]
        for kind in chosen:
            row = measure(
                archive, folder, kind, share=options.share, days=options.days, files=options.files
            )
            rows.append(row)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    if any(row["unflagged"] or not row["healed"] for row in rows):
        sys.exit("a hole was not flagged, or did not heal")


if __name__ == "__main__":
    main()
