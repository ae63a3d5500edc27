"""Two drivers on one store: one writes, the other waits or stops, and the content is right."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from eoray.cube.check import check_cube
from eoray.errors import ConflictError
from eoray.run import load_run
from eoray.run.driver import fence_store
from eoray.run.lease import Holder, hold_store
from tests.run.test_runs import make_reference
from tests.s3_server import serve_s3

MORE = "cube: {composite: {method: none}}"
YEAR = ["time=2021-01-01/2021-12-31", "run.wave_shards=8", "run.executor=inline"]


@pytest.fixture(scope="module")
def checksum(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the cube, made by one driver alone."""
    folder = tmp_path_factory.mktemp("alone")
    return str(make_reference(archive, folder, "2021-01-01/2021-12-31")["checksum"])


class Driver(threading.Thread):
    """Executes a run; stops after some rows until it is let go."""

    def __init__(self, path: Path, overrides: list[str], stop_after: int) -> None:
        super().__init__(daemon=True)
        self.run_file = load_run(path, overrides)
        self.stopped, self.go = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._stop_after = stop_after

    def run(self) -> None:
        try:
            self.run_file.execute(["cube"], progress=self._progress)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error
        self.stopped.set()

    def _progress(self, stage: str, done: int, total: int) -> None:
        if done >= self._stop_after and not self.stopped.is_set():
            self.stopped.set()
            self.go.wait(60)


def test_driver_whose_store_was_taken_over_stops_and_the_content_is_right(
    write_run: Any, checksum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3(monkeypatch):
        path = write_run(more=MORE)
        first = Driver(path, [*YEAR, "store=s3://maps/out"], stop_after=12)
        first.start()
        assert first.stopped.wait(60)
        second = load_run(path, [*YEAR, "store=s3://maps/out", "source.max_cloud_pct=99.5"])
        with pytest.raises(ConflictError, match=f"run {first.run_file.paths.key!r} .*run.lease"):
            second.execute(["cube"])
        taker = load_run(path, [*YEAR, "store=s3://maps/out", "run.lease=take-over"])
        report = taker.execute(["cube"])
        assert 0 < report.stages["cube"]["skipped"] < 12
        first.go.set()
        first.join(60)
        assert isinstance(first.error, ConflictError)
        assert f"(run {taker.paths.key!r}, epoch 2, ours is 1)" in str(first.error)
        assert check_cube("s3://maps/out").checksum == checksum


def test_driver_that_takes_over_wins_before_it_has_finished_anything(
    write_run: Any, checksum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_s3(monkeypatch):
        path = write_run(more=MORE)
        first = Driver(path, [*YEAR, "store=s3://maps/out"], stop_after=12)
        first.start()
        assert first.stopped.wait(60)
        taker = Driver(path, [*YEAR, "store=s3://maps/out", "run.lease=take-over"], stop_after=1)
        taker.start()
        assert taker.stopped.wait(60)
        first.go.set()
        first.join(60)
        assert isinstance(first.error, ConflictError)
        assert "epoch 2, ours is 1" in str(first.error)
        taker.go.set()
        taker.join(60)
        assert taker.error is None
        assert check_cube("s3://maps/out").checksum == checksum


def test_driver_begins_where_an_earlier_one_was_shut_out_before_its_first_commit(
    write_run: Any, checksum: str
) -> None:
    run = load_run(write_run(more=MORE), YEAR)
    fence_store(run.paths.repository, Holder("earlier", "host", 1, epoch=1))
    run.execute(["cube"])
    assert check_cube(run.paths.store).checksum == checksum


def test_driver_that_waits_goes_on_when_the_folder_is_free(
    write_run: Any, checksum: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eoray.run.lease._LOOK_S", 0.01)
    with hold_store(str(tmp_path / "out"), "other"):
        second = Driver(write_run(more=MORE), [*YEAR, "run.lease=wait"], stop_after=1)
        second.start()
        assert not second.stopped.wait(0.5)
    assert second.stopped.wait(60)
    second.go.set()
    second.join(60)
    assert second.error is None
    assert check_cube(str(tmp_path / "out")).checksum == checksum
