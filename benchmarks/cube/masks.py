"""Omission and commission of masks: SCL alone, with dilation, and with the temporal screen.

    python benchmarks/cube/masks.py --out masks.json
    python benchmarks/cube/masks.py --seeds 1 2 3 4        # thresholds were chosen on the first

Draws a synthetic archive, makes its cube with ``cube.mask.screen: temporal`` and compares each
mask with what truly stood between ground and sensor. The figures are counts: they do not depend on
the machine. A pixel of 20 m is obstructed when more than 4 % of its blue light comes from the sky
or more than 15 % of its direct light is missing, free when less than 1 % and 3 %; those between
are not judged. On the one real picture with a reference mask (``shared/data/clouds``: no SCL, one
date) only the measure of haze can be looked at.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from eoray.cube.composite import reduce_scenes
from eoray.cube.read import SCREEN, CubeReader, CubeSource, PixelWindow
from eoray.cube.screening import ScreenRule
from eoray.run import load_run
from eoray.sentinel2 import FILL, Screen
from eoray.testing import CLASSES, ArchiveOptions, write_archive
from eoray.testing.archive import Studio
from eoray.testing.passes import Job
from eoray.testing.weather import snow_depth

RUN_FILE = """\
version: 1
name: masks
aoi: archive/aoi.geojson
time: {time}
task: cube
source:
  catalog: archive/catalog.json
  lineage: {{baseline_min: "02.00", mixed: true}}
store: out
cube:
  bands: [B02, B03, B04, B08]
  mask: {{screen: temporal}}
  composite: {{method: none}}
"""
ZONE = 32
CLEAR_CLASSES = (4, 5, 6)
OBSTRUCTED, FREE = (0.04, 0.15), (0.01, 0.03)
"""(share of blue light from the sky, share of direct light missing)."""
METHODS = ("scl", "scl+dilation", "scl+screen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="kept between calls; else temporary")
    parser.add_argument("--size", type=int, default=256, help="edge of the granules, 10 m pixels")
    parser.add_argument("--dates", type=int, default=24, help="a year")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one archive each")
    parser.add_argument("--clouds", type=Path, help="shared/data/clouds")
    parser.add_argument("--out", type=Path, help="JSON of all figures")
    arguments = parser.parse_args()
    by_seed = {}
    for seed in arguments.seeds:
        options = ArchiveOptions(
            seed=seed,
            size_px=arguments.size,
            dates_per_year=arguments.dates,
            southern=False,
            neighbour_zone=False,
        )
        with tempfile.TemporaryDirectory(prefix="eoray-masks-") as name:
            folder = (arguments.folder or Path(name)) / str(seed)
            found = measure(folder, options)
        by_seed[str(seed)] = {**found, "archive": options.to_dict()}
        print(f"\nseed {seed}")
        show(found)
    if arguments.clouds:
        haze = measure_haze(arguments.clouds / "ukis_csmask_sentinel2.npz")
        by_seed["real haze"] = haze
        print(f"\nreal haze   {haze}")
    if arguments.out:
        arguments.out.write_text(json.dumps(by_seed, indent=1))


def measure(folder: Path, options: ArchiveOptions) -> dict[str, Any]:
    """Make archive and cube, and compare."""
    folder.mkdir(parents=True, exist_ok=True)
    write_archive(folder / "archive", options, workers=1)
    run_file = folder / "run.yaml"
    span = f"{options.years[0]}-01-01/{options.years[-1]}-12-31"
    run_file.write_text(RUN_FILE.format(time=span))
    load_run(run_file).execute(["cube"], executor="inline")
    studio = Studio(folder / "archive", options)
    reader = CubeReader(CubeSource(str(folder / "out")))
    granule = studio.granules[0]
    jobs = {entry_key(j): j for j in studio.jobs if j.granule == granule and not j.cut}
    table = reader.entries("s2", ZONE)
    kept = np.array([str(key) in jobs for key in table.key])
    table = table.where(kept)
    top = (9_400_320 - granule.y0) // 20
    window = PixelWindow(top, granule.x0 // 20, granule.size_px // 2, granule.size_px // 2)
    stack = read_stack(reader, table, window)
    truth = read_truth(studio, [jobs[str(key)] for key in table.key])
    land = read_land(folder / "archive" / "truth" / "land_cover_32632.tif", window)
    return compare(stack, truth, land, table.time)


def entry_key(job: Job) -> str:
    """Key of an item's datatake in the store."""
    taken = job.taken
    return f"S2{taken.satellite}_{taken.start:%Y%m%dT%H%M%S}_R{taken.relative_orbit:03d}"


def read_stack(reader: CubeReader, table: Any, window: PixelWindow) -> dict[str, np.ndarray]:
    """Masks of all methods, dims (time, y, x), and the values that composites are made of."""
    where: dict[str, Any] = {"window": window, "resolution_m": 20, "index": table.index}
    mask = reader.read("s2", ZONE, "mask", **where)
    scl = reader.read("s2", ZONE, "scl", **where)
    quality = reader.read("s2", ZONE, "quality", **where)
    at = {key: i for i, key in enumerate(reader.ledger(SCREEN, ZONE).entries)}
    order = [at[str(key)] for key in table.key]
    bits = reader.read(SCREEN, ZONE, SCREEN, **{**where, "index": order})
    values = reader.read_bands("s2", ZONE, bands=("B02", "B04", "B08"), **where)
    valid = ((quality & 0b1011) == 0) & (values != FILL).all(axis=1)
    return {
        "values": values,
        "valid": valid,
        "called": np.isin(scl, (8, 9)),
        "bits": bits,
        "scl": np.isin(scl, CLEAR_CLASSES) & valid,
        "scl+dilation": (mask == 0) & valid,
        "scl+screen": reader.read_clear(ZONE, screen=True, **where) & valid,
    }


def read_truth(studio: Studio, jobs: list[Job]) -> dict[str, np.ndarray]:
    """What stood between ground and sensor, dims (time, y, x)."""
    found = [studio.renderer(job.granule).obstruction(job) for job in jobs]
    names = ("cloud", "cirrus", "haze", "shadow")
    stacks = {name: np.stack([getattr(one, name) for one in found]) for name in names}
    depth = [snow_depth(job.taken.day, studio.options, job.taken.site) for job in jobs]
    return {**stacks, "snow": np.array(depth)}


def read_land(path: Path, window: PixelWindow) -> np.ndarray:
    """Class of the ground at 20 m: that of the upper left of four pixels."""
    with rasterio.open(path) as file:
        corner = window.transform(20)
        col = round((corner.c - file.transform.c) / 10)
        row = round((file.transform.f - corner.f) / 10)
        size = 2 * window.height
        land = file.read(1, window=((row, row + size), (col, col + size)))
    return np.asarray(land[::2, ::2])


def compare(
    stack: dict[str, np.ndarray], truth: dict[str, np.ndarray], land: np.ndarray, time: np.ndarray
) -> dict[str, Any]:
    """Omission by what was in the way, commission by ground, composites, pixels without dates."""
    snow = truth["snow"] > 0  # of the day: snow is no obstruction, and not clear either
    veil = 1 - (1 - truth["cloud"]) * (1 - truth["cirrus"]) * (1 - truth["haze"])
    valid, shadow = stack["valid"], truth["shadow"]
    bad = valid & ((veil > OBSTRUCTED[0]) | (shadow > OBSTRUCTED[1]))
    free = valid & (veil < FREE[0]) & (shadow < FREE[1]) & ~snow[:, None, None]
    level = OBSTRUCTED[0]
    obstructed = {
        "thick cloud": bad & (truth["cloud"] > 0.3),
        "thin cloud": bad & (truth["cloud"] > level) & (truth["cloud"] <= 0.3),
        "cirrus": bad & (truth["cirrus"] > level) & (truth["cloud"] <= level),
        "haze alone": bad & (truth["haze"] > level) & (veil - truth["haze"] < 0.02),
        "shadow": bad & (shadow > OBSTRUCTED[1]) & (veil <= level),
        "all": bad,
    }
    always = (stack["called"] & free).sum(axis=0) > 0.5 * np.maximum(free.sum(axis=0), 1)
    grounds = {name: free & (land == i) for i, name in enumerate(CLASSES, start=1)}
    grounds |= {"mostly called cloud": free & always, "all": free}
    return {
        "omission": {m: _shares(stack[m], obstructed, valid) for m in METHODS},
        "commission": {m: _shares(~stack[m], grounds, valid) for m in METHODS},
        "screen": {
            bit.name: {
                "pixels": int(((stack["bits"] & bit) > 0).sum()),
                "of them obstructed": _part((stack["bits"] & bit) > 0, bad),
                "of them free": _part((stack["bits"] & bit) > 0, free),
            }
            for bit in Screen
        },
        "composites": _composites(stack, free, time),
        "pixels": {"obstructed": int(bad.sum()), "free": int(free.sum()), "all": int(valid.sum())},
    }


def _shares(
    called: np.ndarray, groups: dict[str, np.ndarray], valid: np.ndarray
) -> dict[str, float | None]:
    return {name: _part(group & valid, called) for name, group in groups.items()}


def _part(of: np.ndarray, which: np.ndarray) -> float | None:
    return round(float((of & which).sum() / of.sum()), 4) if of.any() else None


def _composites(stack: dict[str, np.ndarray], free: np.ndarray, time: np.ndarray) -> dict[str, Any]:
    """Medians of quarters, where three dates are clear, against those of the dates truly free."""
    quarter = time.astype("datetime64[M]").astype(int) // 3
    found: dict[str, Any] = {}
    for method in METHODS:
        errors, n_few, n_none, n_all = [], 0, 0, 0
        for number in np.unique(quarter):
            part = quarter == number
            values = np.ascontiguousarray(stack["values"][part])
            best, used = free[part], stack[method][part]
            reference = reduce_scenes(values, best, "median")
            composite = reduce_scenes(values, used, "median")
            known = (best.sum(axis=0) >= 3) & (used.sum(axis=0) >= 3)
            errors.append((composite.astype(int) - reference)[:, known])
            n_few += int((used.sum(axis=0) < 3).sum())
            n_none += int((used.sum(axis=0) == 0).sum())
            n_all += known.size
        error = np.concatenate(errors, axis=1)
        found[method] = {
            "rmse": [round(float(np.sqrt((band**2.0).mean())), 1) for band in error],
            "p99": [round(float(np.quantile(np.abs(band), 0.99)), 1) for band in error],
            "fewer than 3": round(n_few / n_all, 4),
            "none": round(n_none / n_all, 4),
        }
    return found


def measure_haze(path: Path) -> dict[str, float]:
    """Share of real cloud and of clear land that rises above the land's own median."""
    with np.load(path) as data:
        image, mask = data["img"] * 1e4, data["msk"][..., 0]
    rise = image[..., 0] - 0.5 * image[..., 2]
    cloud, land = mask == 4, mask == 3
    limit = np.median(rise[land]) + ScreenRule().haze
    return {
        "cloud above": round(float((rise[cloud] > limit).mean()), 4),
        "land above": round(float((rise[land] > limit).mean()), 4),
    }


def show(found: dict[str, Any]) -> None:
    """Print tables."""
    for title in ("omission", "commission"):
        groups = list(found[title][METHODS[0]])
        print(f"\n{title:20}" + "".join(f"{m:>14}" for m in METHODS))
        for group in groups:
            row = [found[title][m][group] for m in METHODS]
            print(f"{group:20}" + "".join(f"{'-' if v is None else f'{v:.2%}':>14}" for v in row))
    print()
    for name in ("screen", "composites", "pixels"):
        for key, value in found[name].items():
            print(f"{name:12}{key:22}{value}")


if __name__ == "__main__":
    main()
