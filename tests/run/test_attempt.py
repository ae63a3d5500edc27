"""Starts of an attempt are counted, its time ends, its end is recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from eoray.errors import StoreError
from eoray.log import configure_logging, get_logger
from eoray.run.attempt import AttemptInfo, DeadlineError, hold_attempt
from eoray.run.driver import fence_store
from eoray.run.last_seen import VIEW
from eoray.run.lease import Holder
from eoray.run.pod import Pod
from eoray.run.record import RunPaths, merge_record, versions
from eoray.storage import join, write_json

FIRST = AttemptInfo("a-1")


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(str(tmp_path / "out"), "a", "a-01234567")


def folder_of(paths: RunPaths, name: str = "a-1") -> Path:
    return Path(paths.attempts) / name


def record_of(paths: RunPaths, name: str = "a-1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder_of(paths, name) / "record.json").read_text())
    return found


def commit(paths: RunPaths, message: str) -> None:
    import zarr

    from eoray.cube.store import BRANCH, open_repository

    session = open_repository(paths.repository, create=True).writable_session(BRANCH)
    zarr.open_group(session.store, mode="a").attrs["said"] = message
    session.commit(message)


def die(paths: RunPaths, attempt: AttemptInfo = FIRST) -> None:
    """A driver that is killed leaves its start and nothing else."""
    with pytest.raises(KeyboardInterrupt), hold_attempt(paths, attempt):
        raise KeyboardInterrupt


def test_success_is_recorded_with_its_start_and_what_made_it(paths: RunPaths) -> None:
    attempt = AttemptInfo("a-1", ray_cluster="a-1-x7k2p", image="eoray@sha256:01")
    with hold_attempt(paths, attempt, run_file="version: 1\n", now=lambda: 5.0):
        assert record_of(paths)["status"] == "running"
        merge_record(paths, plan={"items_hash": "ab12"})
        commit(paths, "one")
    record = record_of(paths)
    assert len(record.pop("commit")) > 8
    assert record == {
        "name": "a-1",
        "run": "a-01234567",
        "submission": "",
        "image": "eoray@sha256:01",
        "versions": versions(),
        "starts": [{"time": 5.0, "commit": "", "ray_cluster": "a-1-x7k2p"}],
        "status": "succeeded",
        "reason": "",
        "ended_at": 5.0,
        "items_hash": "ab12",
    }
    assert (folder_of(paths) / "run.yaml").read_text() == "version: 1\n"


def test_another_image_than_its_submitter_took_it_for_is_told(
    paths: RunPaths, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging()
    told = {"eoray": "0.0.7", "ray": version("ray")}
    with hold_attempt(paths, AttemptInfo("a-1", told=told)):
        pass
    assert record_of(paths)["submitted_with"] == told
    said = [line for line in capfd.readouterr().err.splitlines() if "versions differ" in line]
    (line,) = [line for line in said if "0.0.7" in line]
    assert version("eoray") in line
    assert "cluster.image" in line


def test_success_that_cannot_be_recorded_is_none(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), hold_attempt(paths, FIRST):
        monkeypatch.setattr("eoray.storage.write_json", refuse)
    assert record_of(paths)["status"] == "running"


def test_failure_is_recorded_and_raised(paths: RunPaths) -> None:
    with pytest.raises(ValueError, match="bad"), hold_attempt(paths, FIRST):
        raise ValueError("bad")
    record = record_of(paths)
    assert (record["status"], record["reason"]) == ("failed", "ValueError: bad")


def test_record_run_file_and_log_hold_no_secret(
    paths: RunPaths, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "kE7-of-the-store"
    configure_logging(secrets=(secret,))
    run_file = f"store: s3://maps?sig=abc\nkey: {secret}\n"
    link = "https://b/x?X-Amz-Signature=0af3"

    def fail() -> None:
        get_logger().info("read", href=link, key=secret)
        raise ValueError(f"refused {secret} at {link}")

    with (
        pytest.raises(ValueError, match="refused"),
        hold_attempt(paths, FIRST, run_file=run_file, secrets=(secret,)),
    ):
        fail()
    written = {path.name: path.read_text() for path in folder_of(paths).iterdir()}
    assert set(written) == {"record.json", "run.yaml", "driver.log"}
    for text in (*written.values(), capfd.readouterr().err):
        assert "***" in text
        assert not any(part in text for part in (secret, "0af3", "abc"))
    assert "attempt ended" in written["driver.log"]


def test_fourth_start_without_a_commit_ends_the_attempt(paths: RunPaths) -> None:
    for _ in range(3):
        die(paths)
    with (
        pytest.raises(StoreError, match=r"started 3 times without a new commit.*memory_gi"),
        hold_attempt(paths, FIRST),
    ):
        pytest.fail("the driver must not run again")
    assert len(record_of(paths)["starts"]) == 4
    assert record_of(paths)["reason"].startswith("StoreError: attempt 'a-1' was started 3 times")


@pytest.mark.parametrize("begun", [True, False])
def test_fences_are_no_commits_that_starts_came_to(paths: RunPaths, begun: bool) -> None:
    """Nor is the beginning of a repository, which the first of them makes."""
    if begun:
        commit(paths, "one")
    for number in range(3):
        die(paths)
        fence_store(paths.repository, Holder("a-01234567", "head", 1, number))
    with pytest.raises(StoreError, match=r"started 3 times"), hold_attempt(paths, FIRST):
        pytest.fail("the driver must not run again")


def test_commits_between_starts_let_it_go_on(paths: RunPaths) -> None:
    for number in range(5):
        die(paths)
        commit(paths, str(number))
    with hold_attempt(paths, FIRST):
        pass
    assert record_of(paths)["status"] == "succeeded"


def test_next_attempt_counts_anew(paths: RunPaths) -> None:
    for _ in range(3):
        die(paths)
    with hold_attempt(paths, AttemptInfo("a-2")):
        pass
    assert len(record_of(paths)["starts"]) == 3


def test_record_of_a_deleted_attempt_is_kept_beside_that_of_its_namesake(paths: RunPaths) -> None:
    configure_logging(level="INFO")
    old = AttemptInfo("a-1", ray_cluster="stays", submission="0ld00000", deadline_s=60)
    with hold_attempt(paths, old, run_file="version: 1\n", now=lambda: 0.0):
        get_logger().info("stage", stage="old")
    write_json(join(paths.attempt("a-1"), VIEW), {"finished": True})
    new = AttemptInfo("a-1", ray_cluster="stays", submission="0e700000", deadline_s=60)
    for _ in range(2):
        with hold_attempt(paths, new, run_file="version: 2\n", now=lambda: 1000.0):
            get_logger().info("stage", stage="new")
    assert [start["time"] for start in record_of(paths)["starts"]] == [1000.0, 1000.0]
    kept = record_of(paths, "a-1.0ld00000")
    assert (kept["status"], len(kept["starts"])) == ("succeeded", 1)
    texts = [(folder_of(paths, name) / "run.yaml").read_text() for name in ("a-1.0ld00000", "a-1")]
    assert texts == ["version: 1\n", "version: 2\n"]
    assert '"old"' not in (folder_of(paths) / "driver.log").read_text()
    assert (folder_of(paths, "a-1.0ld00000") / VIEW).exists()
    assert not (folder_of(paths) / VIEW).exists()


def test_attempt_begun_anew_under_its_old_name_counts_anew(paths: RunPaths) -> None:
    """Deleted from the cluster and submitted again: only the record remembers the old one."""
    old = AttemptInfo("a-1", ray_cluster="a-1-old00", deadline_s=60)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), hold_attempt(paths, old, now=lambda: 0.0):
            raise KeyboardInterrupt
    new = AttemptInfo("a-1", ray_cluster="a-1-new00", deadline_s=60)
    with hold_attempt(paths, new, now=lambda: 1000.0):
        pass
    assert record_of(paths)["status"] == "succeeded"
    assert len(record_of(paths)["starts"]) == 4


def deadline(paths: RunPaths, seconds: float, **options: Any) -> AbstractContextManager[None]:
    return hold_attempt(paths, AttemptInfo("a-1", deadline_s=seconds), **options)


def test_deadline_ends_the_work_where_it_is(paths: RunPaths) -> None:
    with (
        pytest.raises(DeadlineError, match=r"'a-1' has used its 0\.3 s; submit again"),
        deadline(paths, 0.3),
    ):
        time.sleep(20)
    assert record_of(paths)["reason"].startswith("DeadlineError")


def test_deadline_counts_from_the_first_start(paths: RunPaths) -> None:
    with deadline(paths, 60, now=lambda: 100.0):
        pass
    with pytest.raises(DeadlineError), deadline(paths, 60, now=lambda: 170.0):
        pytest.fail("the time is over")


def test_alarm_is_put_back(paths: RunPaths) -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGTERM)
    with deadline(paths, 60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGTERM)) == before


def test_pod_finds_its_driver_while_it_works(paths: RunPaths, tmp_path: Path) -> None:
    pod = Pod(tmp_path / "pod")
    with hold_attempt(paths, AttemptInfo("a-1", pod=pod)):
        assert (pod.folder / "driver.pid").read_text() == str(os.getpid())
    assert not (pod.folder / "driver.pid").exists()


RAY_WAITS = """
import sys, time
import ray
from eoray.execute import local_ray
from eoray.run.attempt import DeadlineError, _deadline
def lasts():
    time.sleep(600)
with local_ray(1):
    waiting = ray.remote(lasts).remote()
    try:
        with _deadline("run-1", 3.0, time.time(), time.time):
            ray.get(waiting)
    except DeadlineError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_deadline_ends_a_driver_that_waits_for_ray() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RAY_WAITS], capture_output=True, text=True, timeout=280, check=False
    )
    assert "attempt 'run-1' has used its 3 s" in done.stdout
