"""Records beside the outputs answer for what the cluster has forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from eoray import storage
from eoray.errors import StoreError
from eoray.log import configure_logging, get_logger
from eoray.run.attempt import AttemptInfo, hold_attempt
from eoray.run.history import find_attempt, list_attempts
from eoray.run.record import RunPaths
from eoray.run.stop import StopRequest
from tests.s3_server import FakeS3, serve_s3

KEY = "slovenia-ce70ad52"


def leave(store: str, name: str, error: BaseException | None = None, at: float = 0.0) -> None:
    """Leave the record of an attempt."""
    configure_logging(level="INFO")
    attempt = AttemptInfo(name, ray_cluster=f"{name}-x7k2p")
    paths = RunPaths(store, "slovenia", "slovenia-01234567")
    with suppress(BaseException), hold_attempt(paths, attempt, now=lambda: at):
        get_logger().info("stage", stage="cube")
        if error is not None:
            raise error


@pytest.fixture
def store(tmp_path: Path) -> str:
    found = str(tmp_path / "out")
    leave(found, f"{KEY}-2", StopRequest(), at=2.0)
    leave(found, f"{KEY}-1", ValueError("bad"), at=1.0)
    leave(found, f"{KEY}-10", at=3.0)
    return found


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with serve_s3(monkeypatch) as fake:
        yield fake


def test_attempts_are_listed_by_their_first_start(store: str) -> None:
    rows = [past.summary() for past in list_attempts(store)]
    assert [(row["attempt"], row["state"], row["exit_code"]) for row in rows] == [
        (1, "failed", 1),
        (2, "stopped", 5),
        (10, "succeeded", 0),
    ]
    assert rows[0]["created"] == "1970-01-01T00:00:01Z"
    assert rows[0]["line"] == "failed (record): ValueError: bad"
    assert rows[2]["line"] == "succeeded (record)"


@pytest.mark.parametrize(("name", "found"), [(f"{KEY}-2", 2), (KEY, 10), ("slovenia", 10)])
def test_attempt_is_found_by_its_name_or_the_latest_by_its_run(
    store: str, name: str, found: int
) -> None:
    assert find_attempt(store, name).summary()["attempt"] == found


def test_deleted_attempt_whose_name_was_taken_keeps_its_number(store: str) -> None:
    leave(store, f"{KEY}-2.0123abcd", at=4.0)
    row = find_attempt(store, f"{KEY}-2.0123abcd").summary()
    assert (row["key"], row["attempt"], row["state"]) == (KEY, 2, "succeeded")
    assert find_attempt(store, f"{KEY}-2").summary()["state"] == "stopped"


def test_driver_that_was_killed_left_no_end(store: str) -> None:
    past = find_attempt(store, f"{KEY}-1")
    record = {**past.record, "status": "running"}
    storage.write_json(storage.join(past.folder, "record.json"), record)
    row = find_attempt(store, f"{KEY}-1").summary()
    assert (row["state"], row["finished"]) == ("unknown", False)
    assert "no word of its end" in row["line"]


def test_log_is_kept_with_the_record(store: str) -> None:
    lines = list(find_attempt(store, f"{KEY}-1").log())
    assert [("stage" in line, "ValueError: bad" in line) for line in lines] == [
        (True, False),
        (False, True),
    ]


def test_unknown_run_and_empty_store_are_told(store: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no record of a run or attempt 'italy'.*--store"):
        find_attempt(store, "italy")
    assert list_attempts(str(tmp_path / "nothing")) == []


def test_records_in_a_bucket_are_read_alike(s3: FakeS3) -> None:
    store = "s3://maps/atlas"
    leave(store, f"{KEY}-1", ValueError("bad"))
    (past,) = list_attempts(store)
    assert past.summary()["line"] == "failed (record): ValueError: bad"
    assert len(list(past.log())) == 2
    assert {key.rpartition("/")[2] for key in s3.objects} == {
        "record.json",
        "run.yaml",
        "driver.log",
    }
