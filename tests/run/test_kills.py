"""Killed at any moment and run again, every product is what an undisturbed run makes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eoray.cube.check import check_cube
from tests.run.killed import SMALL_PX, SMALL_STEPS, run_killed
from tests.run.processes import ray_workers, start, wait_for


def checksums(folder: Path) -> dict[str, str]:
    found = check_cube(str(folder))
    assert found.ok, found.problems
    return dict(found.products)


def run_to_end(what: str, *arguments: str) -> int:
    done = run_killed(0, what, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


def kill_five_times(what: str, *arguments: str, events: int, seed: int) -> None:
    """Five runs into one store, each killed, each within the events that five can share."""
    generator = np.random.default_rng(seed)
    for _ in range(5):
        last = int(generator.integers(1, max(3, events // 5), endpoint=True))
        killed = run_killed(last, what, *arguments)
        assert killed.returncode == -signal.SIGKILL, (last, killed.stderr[-3000:])


@dataclass(frozen=True, slots=True)
class Whole:
    """Cube, model and map that nobody disturbed."""

    store: Path
    fitted: Path
    """Copy of the store from before the map."""
    events: dict[str, int]
    """Of the stages cube and predict."""


RunStage = Callable[[str, Path], tuple[str, ...]]


@pytest.fixture(scope="module")
def stage_of(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> RunStage:
    """Give the arguments that run a stage into a store."""
    path = tmp_path_factory.mktemp("run") / "run.yaml"
    path.write_text(f"""\
version: 1
name: run
aoi: {archive / "aoi.geojson"}
time: 2021-01-01/2022-12-31
task: land-cover
source:
  catalog: {archive / "catalog.json"}
  lineage: {{baseline_min: "02.00", mixed: true}}
cube: {{composite: {{period: P3M}}}}
fit:
  labels: {archive / "labels.geojson"}
  time: 2021-01-01/2021-12-31
  steps: 2
  model: mlp
predict: {{time: 2021-01-01/2022-12-31}}
run: {{wave_shards: 10}}
""")
    return lambda stage, store: (stage, str(path), f"store={store}")


@pytest.fixture(scope="module")
def whole(stage_of: RunStage, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    store, fitted = folder / "out", folder / "fitted"
    events = {"cube": run_to_end(*stage_of("cube", store))}
    run_to_end(*stage_of("fit", store))
    shutil.copytree(store, fitted)
    events["predict"] = run_to_end(*stage_of("predict", store))
    return Whole(store, fitted, events)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cube_killed_five_times_is_that_of_an_undisturbed_run(
    whole: Whole, stage_of: RunStage, tmp_path: Path
) -> None:
    arguments = stage_of("cube", tmp_path / "out")
    kill_five_times(*arguments, events=whole.events["cube"], seed=1)
    run_to_end(*arguments)
    assert checksums(tmp_path / "out") == checksums(whole.fitted)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_map_killed_five_times_is_that_of_an_undisturbed_run(
    whole: Whole, stage_of: RunStage, tmp_path: Path
) -> None:
    shutil.copytree(whole.fitted, tmp_path / "out")
    arguments = stage_of("predict", tmp_path / "out")
    kill_five_times(*arguments, events=whole.events["predict"], seed=2)
    run_to_end(*arguments)
    found = checksums(tmp_path / "out")
    assert "map-run" in found
    assert found == checksums(whole.store)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_map_whose_ray_worker_is_killed_is_that_of_an_undisturbed_run(
    whole: Whole, stage_of: RunStage, tmp_path: Path
) -> None:
    shutil.copytree(whole.fitted, tmp_path / "out")
    log = tmp_path / "log"
    process = start(*stage_of("predict", tmp_path / "out"), "--executor", "ray", log=log)
    wait_for(lambda: bool(ray_workers(process)), process)
    workers = ray_workers(process)
    workers[0].kill()
    assert process.wait(timeout=280) == 0, log.read_text()[-3000:]
    assert checksums(tmp_path / "out") == checksums(whole.store)


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The small demo in process, undisturbed, and its number of events."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_to_end("demo", str(folder))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demo_killed_again_and_again_ends_as_if_it_had_not_been(
    small_demo: tuple[Path, int], tmp_path: Path
) -> None:
    whole, events = small_demo
    generator = np.random.default_rng(3)
    kills = 0
    while kills < 20:
        # three early ones, which no run can outlive; then anywhere, to get past the first wave
        first, end = (events // 20, events // 4) if kills < 3 else (events // 10, events)
        last = int(generator.integers(first, end))
        ended = run_killed(last, "demo", str(tmp_path))
        if ended.returncode != -signal.SIGKILL:
            break
        kills += 1
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert kills >= 3
    assert checksums(tmp_path / "out") == checksums(whole / "out")
    assert checksums(tmp_path / "quiet") == checksums(whole / "quiet")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demo_through_ray_has_the_cube_of_the_demo(small_demo: tuple[Path, int]) -> None:
    """In a process of its own: Ray and what it warns of stay out of this one."""
    whole, _ = small_demo
    done = run_ray_demo(whole)
    assert done["accuracy"] > 0
    assert Path(done["report"]).exists()
    found = check_cube(str(whole / "out-ray"))
    assert found.ok
    assert found.checksum == check_cube(str(whole / "out"), quick=True).checksum


def run_ray_demo(folder: Path) -> dict[str, Any]:
    script = (
        "import json, sys; from eoray.run.demo import run_demo\n"
        "from eoray.testing import ArchiveOptions\n"
        f"options = ArchiveOptions(size_px={SMALL_PX})\n"
        f"made = run_demo(sys.argv[1], ray=True, options=options, steps={SMALL_STEPS})\n"
        "print(json.dumps(made))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
