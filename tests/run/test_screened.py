"""Runs whose mask is joined by the temporal screen, and dates that registration leaves out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eoray.cube.check import check_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.cube.registration import read_registration
from eoray.errors import StoreError
from eoray.run import load_run
from eoray.sentinel2 import Screen

MEDIAN = "cube: {composite: {method: median, period: P3M}}"
SCREENED = "cube.mask.screen=temporal"
YEAR = "time=2021-01-01/2021-12-31"
EARLY = "time=2021-01-01/2021-09-30"

SIGNATURES = """\
import json, sys
from numba.core.dispatcher import Dispatcher
from eoray.run import load_run
from eoray.run.demo import compile_kernels

def signatures():
    modules = [m for name, m in list(sys.modules.items()) if name.startswith("eoray.")]
    found = {k for m in modules for k in vars(m).values() if isinstance(k, Dispatcher)}
    return {f"{k.__module__}.{k.__name__}{s}" for k in found for s in k.signatures}

compile_kernels()
known = signatures()
load_run(sys.argv[1], sys.argv[2:]).execute(["cube", "change"], executor="inline")
for method in ("geomad", "percentiles", "best-pixel", "geomedian"):
    more = [*sys.argv[2:], f"cube.composite.method={method}"]
    load_run(sys.argv[1], more).execute(["cube"], executor="inline")
print(json.dumps([sorted(known), sorted(signatures() - known)]))
"""


def reader_of(folder: Path) -> CubeReader:
    return CubeReader(CubeSource(str(folder)))


def test_screen_joins_the_mask_and_names_itself(write_run: Any, tmp_path: Path) -> None:
    run = load_run(write_run(more=MEDIAN), [YEAR, SCREENED])
    report = run.execute(["cube"])
    assert report.stages["cube"]["screen"] == "screen"
    reader = reader_of(tmp_path / "out")
    assert reader.attrs("s2-P3M-median")["mask"] == "scl+screen"
    (tile,) = (t for t in reader.tiles("screen") if t.zone == 32)
    where: dict[str, Any] = {"window": tile.window(20), "resolution_m": 20}
    table = reader.entries("s2", 32)
    where["index"] = table.index
    # entries are found by key: the axes need not be in the same order
    at = {k: i for i, k in enumerate(reader.ledger("screen", 32).entries)}
    order = [at[str(k)] for k in table.key]
    bits = reader.read("screen", 32, "screen", **{**where, "index": order})
    plain, joined = reader.read_clear(32, **where), reader.read_clear(32, screen=True, **where)
    lost = (bits & (Screen.CLOUD | Screen.SHADOW)) > 0
    assert (plain & ~joined == plain & lost).all()
    assert (joined & ~plain == ((bits & Screen.RESCUED) > 0) & ~lost & joined).all()
    assert (plain & lost).any()
    assert check_cube(str(tmp_path / "out")).ok
    again = run.execute(["cube"])
    assert again.stages["cube"]["tasks"] == 0


@pytest.mark.slow
def test_an_image_has_every_kernel_that_a_screened_run_needs(write_run: Any) -> None:
    """Kernels are compiled for types: a process of its own knows only what it was given."""
    path = write_run(task="change")
    bands = "cube.bands=[B02,B04,B08,B11]"
    more = ["time=2021-03-01/2021-09-30", SCREENED, bands, "change.allow_mixed=true"]
    done = subprocess.run(
        [sys.executable, "-c", SIGNATURES, str(path), *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    known, compiled = json.loads(done.stdout.splitlines()[-1])
    kernels = {signature.split("(")[0] for signature in known}
    assert "eoray.cube.screening.screen_dates" in kernels
    assert compiled == []


@pytest.mark.slow
def test_a_late_date_redoes_what_sees_it_and_gives_what_one_run_gives(
    write_run: Any, tmp_path: Path
) -> None:
    for store, times in (("once", [YEAR]), ("grown", [EARLY, YEAR])):
        path = write_run(store, store=store, more=MEDIAN)
        for time in times:
            report = load_run(path, [time, SCREENED]).execute(["cube"])
    once, grown = (check_cube(str(tmp_path / name)) for name in ("once", "grown"))
    assert report.stages["cube"]["skipped"] > 0
    assert grown.products["screen"] == once.products["screen"]
    assert grown.checksum == once.checksum


@pytest.mark.slow
def test_a_store_without_the_screen_stays_as_it_is(write_run: Any, tmp_path: Path) -> None:
    path = write_run(more=MEDIAN)
    run = load_run(path, [YEAR])
    run.execute(["cube"])
    before = check_cube(str(tmp_path / "out"))
    assert "screen" not in before.products
    with pytest.raises(StoreError, match=r"made with mask = None.*asks for 'scl\+screen'"):
        load_run(path, [YEAR, SCREENED]).execute(["cube"])
    assert run.execute(["cube"]).stages["cube"]["tasks"] == 0
    assert check_cube(str(tmp_path / "out")).checksum == before.checksum


@pytest.mark.slow
def test_dates_too_small_to_measure_are_kept(write_run: Any, tmp_path: Path) -> None:
    """640 m hold no three squares of 1280 m: nothing is known, so nothing is left out."""
    path = write_run(more="cube: {composite: {method: none}}", task="change")
    overrides = ["change.allow_mixed=true", YEAR]
    run = load_run(path, overrides)
    run.execute(["cube", "change"])
    reader = reader_of(tmp_path / "out")
    tile = reader.tiles("s2")[0]
    keys = [str(k) for k in reader.entries("s2", tile.zone).key]
    found = read_registration(reader, tile, keys)
    assert np.isnan(found.shift_m).all()
    assert not found.beyond(0.5).any()
    checked = check_cube(str(tmp_path / "out"))
    assert checked.ok
    other = load_run(path, [*overrides, "change.max_shift_px=none", f"store={tmp_path / 'other'}"])
    other.execute(["cube", "change"])
    without = check_cube(str(tmp_path / "other"))
    assert "registration" not in without.products
