"""The demo: the whole path on a synthetic archive, offline. Stop it anywhere and run it again."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.errors import StoreError
from eoray.run.beside import start_beside
from eoray.run.record import merge_record
from eoray.run.session import Run, load_run
from eoray.run.usage import measure_peak

if TYPE_CHECKING:
    import numpy as np

    from eoray.change.score import ChangeTruth
    from eoray.grid import PixelWindow
    from eoray.testing.options import ArchiveOptions

Progress = Callable[[str, int, int], None]

_RUN_FILE = """\
# The demo's run file. Change it and go on: `eoray run {name}`.
version: 1
name: demo
aoi: archive/aoi.geojson
time: {time}
task: land-cover-change
source:
  catalog: archive/catalog.json
  collection: sentinel-2-c1-l2a
  # The synthetic archive holds baselines from both sides of 04.00, as old archives do.
  lineage: {{baseline_min: "02.00", mixed: true}}
store: {store}
cube:
  composite: {{method: geomedian, period: P3M, min_obs: 3}}
fit:
  labels: archive/labels.geojson
  classes: [{classes}]
  time: {fit_time}
  encoder: tu-mobilenetv3_small_050
  steps: {steps}
  batch_size: 8
  learning_rate: 8.0e-3
  workers: {workers}
predict:
  time: {predict_time}
change:
  resolution_m: 10
  allow_mixed: true
assess:
  reference: archive/truth/land_cover_end_32632.tif
publish:
  license: CC0-1.0
  keywords: [synthetic]
"""

_QUIET_RUN_FILE = """\
# The same place and difficulties with no change at all: every break found here is a false alarm.
version: 1
name: quiet
aoi: quiet-archive/aoi.geojson
time: {time}
task: change
source:
  catalog: quiet-archive/catalog.json
  collection: sentinel-2-c1-l2a
  lineage: {{baseline_min: "02.00", mixed: true}}
store: quiet
cube:
  composite: {{method: none}}
change:
  resolution_m: 10
  allow_mixed: true
"""

ZONE = 32
"""UTM zone of the demo's place."""

FIT_STEPS = 160
"""Steps of training: about 20 s of one core."""

QUIET_PX = 192
"""Edge of the granules of the archive without change: small, since it is only counted."""


def run_demo(
    out: str | Path,
    *,
    ray: bool = False,
    options: ArchiveOptions | None = None,
    steps: int = FIT_STEPS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make an archive, a cube, a model, a map, a change map and a report.

    Args:
        out: Folder of everything; the demo that was stopped in it goes on.
        ray: Take the plan through local Ray: Ray Data for cube, map and change, Ray Train with
            two workers.
        options: Another archive than the demo's own.
        steps: Of training.
        progress: Called with (stage, done, total).

    Returns:
        Paths ``cube, model, map, change, report``; ``seconds, peak_memory_bytes``, ``accuracy``
        (estimated from a probability sample) and ``change_f1``, None where nothing changed and
        nothing was found.
    """
    from eoray.testing import demo_options

    begun = time.monotonic()
    folder = Path(out).absolute()
    options = options or demo_options()
    quiet = replace(options, size_px=min(QUIET_PX, options.size_px), change=False)
    quiet = replace(quiet, southern=False, neighbour_zone=False)
    with measure_peak() as peak:
        # a thread would hold the interpreter's lock against the planning of the cube
        folder.mkdir(parents=True, exist_ok=True)
        compiling = start_beside(__name__, "compile_kernels", {}, folder / "compile.log")
        _write_archive(folder / "archive", options, progress)
        _write_run_files(folder, options, workers=2 if ray else 1, steps=steps)
        # training keeps one core busy: the archive without change is judged beside it
        alarms = _QuietRun(folder, quiet)
        run = load_run(folder / "run.yaml")
        executor = "ray" if ray else None
        stages = [s for s in run.resolve_stages(None) if s != "report"]
        report = run.execute(
            stages, executor=executor, progress=alarms.after("composite", progress)
        )
        compiling.communicate()
        scores = _score_change(run, folder)
        measured = {
            **scores,
            "false_alarms": alarms.result(),
            "peak_memory_bytes": peak.bytes,
        }
        merge_record(run.paths, demo=measured)
        page = run.execute(["report"], progress=progress)
    accuracy = report.stages["assess"]["overall_accuracy"]
    paths = run.paths
    return {
        "cube": paths.repository,
        "model": paths.model,
        "map": storage.join(paths.outputs, "map"),
        "change": storage.join(paths.outputs, "change"),
        "report": page.stages["report"]["outputs"][0],
        "seconds": round(time.monotonic() - begun, 1),
        "peak_memory_bytes": peak.bytes,
        "accuracy": round(float(accuracy["value"]), 4),
        "change_f1": _rounded(scores["change_scores"].get("f1")),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


class _QuietRun:
    """The archive without change, drawn and judged by a process of its own beside training.

    The process ends with this one, however that ends.
    """

    def __init__(self, folder: Path, options: ArchiveOptions) -> None:
        self._order = {"folder": str(folder), "options": options.to_dict()}
        self._child: subprocess.Popen[str] | None = None
        self._log = folder / "quiet.log"

    def after(self, last: str, progress: Progress | None) -> Progress:
        """Give a listener that starts the run when a stage is done, or one behind it begins."""

        def show(stage: str, done: int, total: int) -> None:
            if stage in ("fit", "predict") or (stage == last and done == total):
                self._start()
            if progress is not None:
                progress(stage, done, total)

        return show

    def result(self) -> dict[str, float]:
        """Wait for the counts; the run begins now if nothing started it before.

        Raises:
            StoreError: The process failed.
        """
        child = self._start()
        counted, _ = child.communicate()
        if child.returncode:
            complaint = self._log.read_text()
            raise StoreError(
                f"the run on the archive without change failed: {complaint.strip()[-500:]}; "
                "run the demo again: what is finished is kept"
            )
        return dict(json.loads(counted.splitlines()[-1]))

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None:
            self._child = start_beside(__name__, "count_false_alarms", self._order, self._log)
        return self._child


def count_false_alarms(folder: str, options: Mapping[str, Any]) -> dict[str, float]:
    """Draw the archive without change, run change on it, and count what it finds.

    Args:
        folder: Of the demo.
        options: Of the archive.
    """
    from eoray.change.score import score_no_change
    from eoray.testing import ArchiveOptions, write_archive

    drawn = ArchiveOptions.from_dict(options)
    write_archive(Path(folder) / "quiet-archive", drawn, workers=1)
    run = load_run(Path(folder) / "quiet.yaml")
    run.execute(["cube", "change"])
    counted = score_no_change(_stored_change(run)[0])
    return {
        "share": counted["flagged_share"],
        "share_per_year": counted["flagged_per_year"],
        "years": float(len(drawn.years)),
    }


def compile_kernels() -> None:
    """Compile what numba has not cached yet, in the order in which a run needs it.

    Images take their kernels from the demo: what it does not need itself comes last.
    """
    from eoray.change import detect
    from eoray.cube import composite, mads, mask, nbar, ranks, resample, screen, shard, terrain
    from eoray.reading import choice, harmonise, survey, warp

    for module in (
        choice,
        survey,
        harmonise,
        mask,
        shard,
        warp,
        terrain,
        screen,
        nbar,
        composite,
        resample,
        ranks,
        detect,
        mads,
    ):
        module.warm_up()


def _write_archive(folder: Path, options: ArchiveOptions, progress: Progress | None) -> None:
    from eoray.testing import write_archive

    def show(done: int, total: int) -> None:
        if progress is not None:
            progress("archive", done, total)

    write_archive(folder, options, workers=2, progress=show)


def _write_run_files(folder: Path, options: ArchiveOptions, *, workers: int, steps: int) -> None:
    """Write the run files; what a user changed in them is put back, the outputs are kept."""
    from eoray.testing import CLASSES

    first, last = options.years[0], options.years[-1]
    span = f"{first}-01-01/{last}-12-31"
    text = _RUN_FILE.format(
        name="run.yaml",
        time=span,
        classes=", ".join(CLASSES),
        # weather differs from year to year: the model learns from all but the one it maps
        fit_time=f"{first}-01-01/{max(first, last - 1)}-12-31",
        predict_time=f"{last}-01-01/{last}-12-31",
        workers=workers,
        steps=steps,
        # two workers learn other weights than one, and a store holds one map of a name
        store="out" if workers == 1 else "out-ray",
    )
    storage.write_bytes(str(folder / "run.yaml"), text.encode())
    quiet = _QUIET_RUN_FILE.format(time=span)
    storage.write_bytes(str(folder / "quiet.yaml"), quiet.encode())


def _stored_change(run: Run) -> tuple[dict[str, np.ndarray], PixelWindow]:
    """Change arrays over the tiles of the demo's zone, side by side, and where they lie."""
    from eoray.cube.read import CubeReader, CubeSource
    from eoray.grid import PixelWindow

    product, resolution_m = f"change-{run.config.name}", run.config.change.resolution_m
    reader = CubeReader(CubeSource(run.paths.repository))
    windows = [t.window(resolution_m) for t in reader.tiles(product) if t.zone == ZONE]
    top, left = min(w.row_off for w in windows), min(w.col_off for w in windows)
    window = PixelWindow(
        top,
        left,
        max(w.row_off + w.height for w in windows) - top,
        max(w.col_off + w.width for w in windows) - left,
    )
    names = ("date_lo", "date_hi", "date_est", "n_breaks", "monitored_from", "monitored_to")
    arrays = {
        name: reader.read(product, ZONE, name, window=window, resolution_m=resolution_m)
        for name in names
    }
    return arrays, window


def _score_change(run: Run, folder: Path) -> dict[str, Any]:
    """Compare the breaks with what the archive knows."""
    from eoray.change.score import score_breaks

    arrays, window = _stored_change(run)
    truth = _read_truth(folder / "archive" / "truth" / "changes_32632.tif", window)
    score = score_breaks(arrays, truth, judged=arrays["monitored_from"] > 0).to_dict()
    by_patch = score.pop("recall_by_patch")
    plain = {
        k: float(v) for k, v in score.items() if isinstance(v, (int, float)) and math.isfinite(v)
    }
    return {"change_scores": plain, "recall_by_patch": by_patch}


def _read_truth(path: Path, place: PixelWindow) -> ChangeTruth:
    """Truth rasters over a window of 10 m pixels."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    from eoray.change.score import ChangeTruth
    from eoray.testing import CHANGE_KINDS

    with rasterio.open(path) as file:
        corner = place.transform(10)
        window = Window(
            round((corner.c - file.transform.c) / 10),
            round((file.transform.f - corner.f) / 10),
            place.width,
            place.height,
        )
        layers = file.read(window=window, boundless=True, fill_value=0)
    kind, start, _, fraction, patch = layers
    names = np.array(["", *CHANGE_KINDS])
    return ChangeTruth(
        date=start,
        gradual=names[kind] == "decline",
        patch=patch,
        fraction=fraction / 100.0,
        kind=names[kind],
    )
