"""Starts of an attempt are counted, its time ends, its end is recorded."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from eoray.errors import StoreError
from eoray.run.attempt import DeadlineError, hold_attempt
from eoray.run.record import RunPaths


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(str(tmp_path / "out"), "a", "a-01234567")


def record_of(paths: RunPaths) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(paths.attempts) / "a-1.json").read_text())
    return found


def commit(paths: RunPaths, message: str) -> None:
    import zarr

    from eoray.cube.store import BRANCH, open_repository

    session = open_repository(paths.repository, create=True).writable_session(BRANCH)
    zarr.open_group(session.store, mode="a").attrs["said"] = message
    session.commit(message)


def die(paths: RunPaths) -> None:
    """A driver that is killed leaves its start and nothing else."""
    with pytest.raises(KeyboardInterrupt), hold_attempt(paths, "a-1"):
        raise KeyboardInterrupt


def test_success_is_recorded_with_its_start(paths: RunPaths) -> None:
    with hold_attempt(paths, "a-1", now=lambda: 5.0):
        pass
    assert record_of(paths) == {
        "starts": [{"time": 5.0, "commit": ""}],
        "ended": "succeeded",
        "ended_at": 5.0,
    }


def test_failure_is_recorded_and_raised(paths: RunPaths) -> None:
    with pytest.raises(ValueError, match="bad"), hold_attempt(paths, "a-1"):
        raise ValueError("bad")
    assert record_of(paths)["ended"] == "ValueError: bad"


def test_fourth_start_without_a_commit_ends_the_attempt(paths: RunPaths) -> None:
    for _ in range(3):
        die(paths)
    with (
        pytest.raises(StoreError, match=r"started 3 times without a new commit.*memory_gi"),
        hold_attempt(paths, "a-1"),
    ):
        pytest.fail("the driver must not run again")
    assert len(record_of(paths)["starts"]) == 4


def test_commits_between_starts_let_it_go_on(paths: RunPaths) -> None:
    for number in range(5):
        die(paths)
        commit(paths, str(number))
    with hold_attempt(paths, "a-1"):
        pass
    assert record_of(paths)["ended"] == "succeeded"


def test_next_attempt_counts_anew(paths: RunPaths) -> None:
    for _ in range(3):
        die(paths)
    with hold_attempt(paths, "a-2"):
        pass
    assert len(record_of(paths)["starts"]) == 3


def test_deadline_ends_the_work_where_it_is(paths: RunPaths) -> None:
    with (
        pytest.raises(DeadlineError, match=r"'a-1' has used its 0\.3 s; submit again"),
        hold_attempt(paths, "a-1", deadline_s=0.3),
    ):
        time.sleep(20)
    assert record_of(paths)["ended"].startswith("DeadlineError")


def test_deadline_counts_from_the_first_start(paths: RunPaths) -> None:
    clock = iter([100.0, 100.0, 100.0, 170.0, 170.0, 170.0])
    with hold_attempt(paths, "a-1", deadline_s=60, now=lambda: next(clock)):
        pass
    with (
        pytest.raises(DeadlineError),
        hold_attempt(paths, "a-1", deadline_s=60, now=lambda: next(clock)),
    ):
        pytest.fail("the time is over")


def test_alarm_is_put_back(paths: RunPaths) -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with hold_attempt(paths, "a-1", deadline_s=60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == before
