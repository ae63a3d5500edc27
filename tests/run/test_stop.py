"""A run that is asked to stop commits what is done, gives its lease back and leaves with 5."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eoray.k8s.hooks import stop_driver
from eoray.run.pod import Pod
from eoray.run.stop import StopRequest, stoppable
from tests.run.conftest import RunFileWriter
from tests.run.processes import start, wait_for

Driver = subprocess.Popen[bytes]


@pytest.fixture
def running(
    write_run: RunFileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Driver]]:
    """Begin an attempt as a head does; the driver that is given has committed a wave."""
    monkeypatch.setenv("EORAY_ATTEMPT", "run-1")
    monkeypatch.setenv("EORAY_POD_FOLDER", str(tmp_path / "pod"))
    run_file = str(write_run())
    begun: list[Driver] = []

    def begin(*settings: str) -> Driver:
        options = ("--executor", "inline", "time=2020-01-01/2020-12-31", *settings)
        process = start("run", run_file, *options, log=tmp_path / "said")
        begun.append(process)
        wait_for(lambda: b'"event": "commit"' in log_of(tmp_path), process)
        assert process.poll() is None, log_of(tmp_path).decode()
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def log_of(tmp_path: Path) -> bytes:
    return (tmp_path / "said").read_bytes()


def record_of(tmp_path: Path) -> dict[str, object]:
    (path,) = (tmp_path / "out").glob("_eoray/runs/*/attempts/run-1/record.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_driver_that_is_asked_to_stop_leaves_with_5_and_goes_on_later(
    running: Callable[..., Driver], tmp_path: Path
) -> None:
    driver = running("run.wave_shards=1")
    driver.send_signal(signal.SIGTERM)
    driver.send_signal(signal.SIGTERM)  # Ray asks shell and driver alike, and a hook may ask too
    assert driver.wait(60) == 5
    record = record_of(tmp_path)
    assert record["status"] == "stopped"
    assert record["reason"] == "StopRequest: asked to stop (SIGTERM)"
    assert record["commit"]
    assert b"run the same command again to go on" in log_of(tmp_path)
    assert not (tmp_path / "pod" / "driver.pid").exists()
    again = running()
    assert again.wait(240) == 0
    assert record_of(tmp_path)["status"] == "succeeded"
    assert b"done before" in log_of(tmp_path)


def hook(tmp_path: Path, seconds: int = 60) -> subprocess.Popen[bytes]:
    """The head's preStop hook, as the kubelet runs it."""
    command = stop_driver(seconds)["preStop"]["exec"]["command"]
    return subprocess.Popen(command, env={**os.environ, "EORAY_POD_FOLDER": str(tmp_path / "pod")})


def test_hook_of_the_head_waits_for_the_driver_which_stays_for_its_pod_to_end(
    running: Callable[..., Driver], tmp_path: Path
) -> None:
    driver = running("run.wave_shards=1")
    assert hook(tmp_path).wait(60) == 0
    assert record_of(tmp_path)["status"] == "stopped"
    assert driver.poll() is None  # an exit would be taken for the end of the run
    driver.kill()


def test_hook_without_a_driver_ends_at_once(tmp_path: Path) -> None:
    assert hook(tmp_path).wait(60) == 0
    (tmp_path / "pod").mkdir()
    assert hook(tmp_path).wait(60) == 0
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    (tmp_path / "pod" / "driver.pid").write_text(str(gone.pid))
    assert hook(tmp_path).wait(60) == 0


def test_hook_gives_up_on_a_driver_that_does_not_stop(tmp_path: Path) -> None:
    (tmp_path / "pod").mkdir()
    deaf = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; echo; exec sleep 300"], stdout=-1)
    try:
        assert deaf.stdout is not None
        deaf.stdout.read(1)  # it is deaf by now
        (tmp_path / "pod" / "driver.pid").write_text(str(deaf.pid))
        assert hook(tmp_path, seconds=1).wait(60) == 0
        assert deaf.poll() is None
    finally:
        deaf.kill()
        deaf.wait()
        deaf.stdout.close()  # type: ignore[union-attr]


@contextmanager
def asked_while_committing(said: list[str]) -> Iterator[None]:
    try:
        yield
    finally:
        signal.raise_signal(signal.SIGTERM)
        said.append("committed")


def test_second_request_does_not_cut_off_what_the_first_one_ends() -> None:
    before = signal.getsignal(signal.SIGTERM)
    said: list[str] = []
    with pytest.raises(StopRequest), stoppable(), asked_while_committing(said):
        signal.raise_signal(signal.SIGTERM)
    assert said == ["committed"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_does_not_stop_in_time_is_ended_by_force_with_a_last_word(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time
from pathlib import Path
from eoray.run.stop import stoppable
with stoppable(limit_s=0.2, at_limit=lambda: Path(sys.argv[1]).write_text("last")):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        time.sleep(60)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "said")]
    assert subprocess.run(command, timeout=50, check=False).returncode == 5
    assert (tmp_path / "said").read_text() == "last"


def test_pod_says_whether_it_is_ending(tmp_path: Path) -> None:
    pod = Pod(tmp_path)
    assert not pod.is_ending()
    (tmp_path / "ending").touch()
    assert pod.is_ending()
