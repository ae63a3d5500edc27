from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eoray.cube import store
from eoray.cube.check import check_cube
from eoray.errors import CatalogError, ConflictError, StoreError
from eoray.run import load_run
from eoray.run.lease import hold_store
from tests.run.processes import ray_workers, start, wait_for

NO_COMPOSITE = "cube: {composite: {method: none}}"
ONE_YEAR = ["time=2021-01-01/2021-12-31", "run.wave_shards=30"]
ENOUGH_COMMITS = 4


def commits(folder: Path) -> int:
    if not (folder / "cube.icechunk" / "repo").exists():
        return 0
    repository = store.open_repository(str(folder / "cube.icechunk"))
    return len(list(repository.ancestry(branch=store.BRANCH)))


def has_commits(folder: Path, wanted: int) -> bool:
    return commits(folder) >= wanted


def make_reference(archive: Path, folder: Path, time: str) -> dict[str, Any]:
    path = folder / "run.yaml"
    path.write_text(f"""\
version: 1
name: run
aoi: {archive / "aoi.geojson"}
time: {time}
task: cube
source:
  catalog: {archive / "catalog.json"}
  lineage: {{baseline_min: "02.00", mixed: true}}
store: {folder / "out"}
cube: {{composite: {{method: none}}}}
""")
    load_run(path).execute(["cube"], executor="inline")
    return check_cube(str(folder / "out")).to_dict()


@pytest.fixture(scope="session")
def reference(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Cube of three years, made inline without a disturbance."""
    return make_reference(archive, tmp_path_factory.mktemp("reference"), "2020-01-01/2022-12-31")


@pytest.fixture(scope="session")
def one_year(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Cube of one year, made inline without a disturbance."""
    return make_reference(archive, tmp_path_factory.mktemp("year"), "2021-01-01/2021-12-31")


def test_threads_give_the_checksum_of_inline_in_four_waves(
    write_run: Any, reference: dict[str, Any], tmp_path: Path
) -> None:
    run = load_run(write_run(more=NO_COMPOSITE), ["run.workers=2"])
    report = run.execute(["cube"], executor="threads")
    found = check_cube(str(tmp_path / "out"))
    assert report.stages["cube"]["tasks"] >= 64
    assert commits(tmp_path / "out") >= ENOUGH_COMMITS
    assert found.ok
    assert found.checksum == reference["checksum"]


def test_a_second_run_finds_everything_done(write_run: Any, tmp_path: Path) -> None:
    path = write_run(more=NO_COMPOSITE)
    first = load_run(path, ONE_YEAR).execute(["cube"])
    before = commits(tmp_path / "out")
    second = load_run(path, ONE_YEAR).execute(["cube"])
    assert second.stages["cube"]["tasks"] == 0
    assert second.stages["cube"]["skipped"] == first.stages["cube"]["tasks"]
    assert commits(tmp_path / "out") == before


def test_a_killed_driver_goes_on_to_the_same_checksum(
    write_run: Any, one_year: dict[str, Any], tmp_path: Path
) -> None:
    path = write_run(more=NO_COMPOSITE)
    for wanted in (2, 4):
        process = start("cube", str(path), *ONE_YEAR)
        wait_for(partial(has_commits, tmp_path / "out", wanted), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    report = load_run(path, ONE_YEAR).execute(["cube"])
    assert report.stages["cube"]["skipped"] > 0
    assert check_cube(str(tmp_path / "out")).checksum == one_year["checksum"]


def test_ctrl_c_keeps_what_is_done_and_leaves_with_5(write_run: Any, tmp_path: Path) -> None:
    process = start("cube", str(write_run(more=NO_COMPOSITE)))
    wait_for(partial(has_commits, tmp_path / "out", 2), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 5
    assert check_cube(str(tmp_path / "out")).ok


def test_a_truncated_file_leaves_a_recorded_hole(
    write_run: Any, archive: Path, tmp_path: Path
) -> None:
    catalog = tmp_path / "broken"
    subprocess.run(["cp", "-r", str(archive), str(catalog)], check=True)
    path = write_run(more=NO_COMPOSITE)
    path.write_text(path.read_text().replace(str(archive / "catalog"), str(catalog / "catalog")))
    files = sorted((catalog / "sentinel-2-c1-l2a").glob("*32UQU_2021*/B04.tif"))
    os.truncate(files[0], files[0].stat().st_size // 2)
    report = load_run(path, [*ONE_YEAR, "run.retries=0"]).execute(["cube"])
    found = check_cube(str(tmp_path / "out"))
    assert report.stages["cube"]["failed_reads"] == 1
    assert found.failed_reads == 1
    assert found.ok


def test_other_parameters_are_refused_before_anything_is_written(
    write_run: Any, tmp_path: Path
) -> None:
    load_run(write_run(more=NO_COMPOSITE), ONE_YEAR).execute(["cube"])
    before = commits(tmp_path / "out")
    other = load_run(write_run(more=NO_COMPOSITE), [*ONE_YEAR, "cube.mask.dilate_cloud_m=40"])
    with pytest.raises(StoreError, match=r"made with mask = .*cloud100m.*asks for .*cloud40m"):
        other.execute(["cube"])
    assert commits(tmp_path / "out") == before


def test_a_live_writer_is_named(write_run: Any, tmp_path: Path) -> None:
    run = load_run(write_run(more=NO_COMPOSITE))
    with (
        hold_store(str(tmp_path / "out"), "other-run"),
        pytest.raises(ConflictError, match="other-run"),
    ):
        run.execute(["cube"])


def test_a_place_without_scenes_is_named_before_anything_is_written(
    write_run: Any, tmp_path: Path
) -> None:
    run = load_run(write_run(more=NO_COMPOSITE), ["aoi=[100.0, 10.0, 100.1, 10.1]"])
    with pytest.raises(CatalogError, match="aoi"):
        run.execute(["cube"])
    assert not (tmp_path / "out" / "cube.icechunk").exists()


def test_plan_reads_no_pixel_and_writes_nothing(write_run: Any, tmp_path: Path) -> None:
    plan = load_run(write_run(more=NO_COMPOSITE)).plan().to_dict()
    assert plan["tasks"] >= 64
    assert {"scenes", "dates", "tiles", "requests", "bytes", "minutes"} <= set(plan)
    assert not (tmp_path / "out").exists()


def test_plan_names_missing_passes_and_asks_without_the_filters(write_run: Any) -> None:
    path = write_run(more=NO_COMPOSITE)
    whole = load_run(path).plan().to_dict()["audit"]
    assert whole["n_expected"] == 438  # three years of two orbits and two satellites
    assert 50 <= whole["n_found"] <= 72  # the archive keeps every sixth pass
    found = load_run(path, ["source.max_cloud_pct=20"]).plan(audit=True, also=["no-such"])
    gaps = found.to_dict()["audit"]["gaps"]
    filtered = [gap for gap in gaps if gap["found_in"].startswith("left out by the run's own")]
    assert len(filtered) == whole["n_found"] - found.to_dict()["audit"]["n_found"] > 0
    assert {gap["found_in"] for gap in gaps} == {"nowhere", filtered[0]["found_in"]}
    assert "asked     sentinel-2-c1-l2a, unfiltered: " in found.text()
    assert "asked     no-such, unfiltered: there is no collection" in found.text()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_checksum_of_inline(
    write_run: Any, reference: dict[str, Any], tmp_path: Path, workers: int
) -> None:
    path = write_run(more=NO_COMPOSITE)
    log = tmp_path / "log"
    process = start("cube", str(path), f"run.workers={workers}", "--executor", "ray", log=log)
    assert process.wait(timeout=280) == 0, log.read_text()[-3000:]
    assert commits(tmp_path / "out") >= ENOUGH_COMMITS
    assert check_cube(str(tmp_path / "out")).checksum == reference["checksum"]


@pytest.mark.slow
def test_a_killed_ray_worker_costs_no_pixel(
    write_run: Any, reference: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = start("cube", str(write_run(more=NO_COMPOSITE)), "--executor", "ray", log=log)
    # the second commit holds the axes, the third the first wave of workers that are at work
    wait_for(partial(has_commits, tmp_path / "out", 3), process)
    workers = ray_workers(process)
    if workers:
        workers[0].kill()
    assert process.wait(timeout=240) == 0, log.read_text()[-3000:]
    assert workers
    assert check_cube(str(tmp_path / "out")).checksum == reference["checksum"]


@pytest.mark.slow
def test_a_ray_client_gives_the_checksum_of_inline(
    write_run: Any, reference: dict[str, Any], tmp_path: Path
) -> None:
    script = (
        "import sys, json; from eoray.run import load_run\n"
        "report = load_run(sys.argv[1]).execute(['cube'], address=sys.argv[2])\n"
        "print(json.dumps(report.to_dict()))"
    )
    path = write_run(more=NO_COMPOSITE)
    with ray_head() as port:
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), f"ray://127.0.0.1:{port}"],
            capture_output=True,
            timeout=280,
            check=False,
            env={**os.environ, **TOKEN},
        )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["stages"]["cube"]["tasks"] >= 64
    assert check_cube(str(tmp_path / "out")).checksum == reference["checksum"]


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
"""Ray asks for a token by default, so both sides are given the same."""

HEAD = """
import sys
from ray.util.client.server import serve
from eoray.execute import local_ray
with local_ray(2):
    server = serve("127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(0)
"""


@contextmanager
def ray_head() -> Iterator[int]:
    """A Ray head with a client server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **TOKEN},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield port
    finally:
        process.communicate(timeout=60)
