"""What a cluster said last lies beside the record, and answers when the cluster is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eoray import storage
from eoray.run.attempt import AttemptInfo, hold_attempt
from eoray.run.history import find_attempt
from eoray.run.last_seen import VIEW, keep_view
from eoray.run.record import RunPaths
from eoray.run.stop import StopRequest
from tests.s3_server import FakeS3, serve_s3

NAME = "slovenia-ce70ad52-1"
STORE = "s3://maps/atlas"
PATHS = RunPaths(STORE, "slovenia", "slovenia-01234567")
FOLDER = PATHS.attempt(NAME)
SILENT: dict[str, Any] = {
    "name": NAME,
    "state": "failed",
    "reason": "JobStatusCheckTimeoutExceeded",
    "message": "exceeded timeout of 300s",
    "finished": True,
    "exit_code": 1,
    "created": "2026-01-01T00:00:00Z",
    "ended": "2026-01-01T00:06:00Z",
    "warnings": ["2026-01-01T00:01:00Z Pod head-x: Unhealthy: readiness probe failed"],
}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with serve_s3(monkeypatch) as fake:
        yield fake


def drive(error: BaseException | None = None, at: float = 1.0) -> None:
    """Leave the record of a driver that ends so."""
    with suppress(BaseException), hold_attempt(PATHS, AttemptInfo(NAME), now=lambda: at):
        if error is not None:
            raise error


def row() -> dict[str, Any]:
    return find_attempt(STORE, NAME).summary()


def test_verdict_of_the_cluster_stands_before_what_the_driver_heard(s3: FakeS3) -> None:
    drive(StopRequest())
    assert (row()["state"], row()["exit_code"]) == ("stopped", 5)
    assert keep_view(FOLDER, SILENT, at=400.0) == ""
    found = row()
    assert (found["state"], found["exit_code"], found["finished"]) == ("failed", 1, True)
    assert found["line"] == (
        "failed (record): JobStatusCheckTimeoutExceeded: exceeded timeout of 300s; "
        "StopRequest: asked to stop (SIGTERM)"
    )
    assert find_attempt(STORE, NAME).warnings == SILENT["warnings"]


def test_attempt_whose_driver_never_started_has_a_record_too(s3: FakeS3) -> None:
    late = {**SILENT, "reason": "PreRunningDeadlineExceeded", "message": ""}
    keep_view(FOLDER, late, at=400.0)
    found = row()
    assert found["line"] == "failed (record): PreRunningDeadlineExceeded"
    assert (found["run"], found["key"], found["attempt"]) == ("slovenia", "slovenia-ce70ad52", 1)
    assert (found["created"], found["started"]) == ("2026-01-01T00:00:00Z", "")


def test_start_behind_the_last_look_is_another_life_of_that_name(s3: FakeS3) -> None:
    keep_view(FOLDER, SILENT, at=400.0)
    drive(at=500.0)
    assert (row()["state"], row()["exit_code"]) == ("succeeded", 0)


def test_warnings_outlive_the_events_and_an_equal_view_is_not_written_again(s3: FakeS3) -> None:
    keep_view(FOLDER, SILENT, at=400.0)
    later = "2026-01-01T00:07:00Z RayCluster x: DeletedHeadPod: OOMKilled"
    keep_view(FOLDER, {**SILENT, "warnings": [later]}, at=401.0)
    found = storage.read_json(storage.join(FOLDER, VIEW))
    assert found["warnings"] == [*SILENT["warnings"], later]
    before = dict(s3.objects)
    keep_view(FOLDER, SILENT | {"warnings": [later]}, at=500.0)
    assert s3.objects == before


def test_images_outlive_the_pods(s3: FakeS3) -> None:
    keep_view(FOLDER, {**SILENT, "images": ["eoray@sha256:02"]}, at=400.0)
    keep_view(FOLDER, {**SILENT, "images": ["eoray@sha256:01"]}, at=401.0)
    keep_view(FOLDER, {**SILENT, "images": []}, at=402.0)
    found = storage.read_json(storage.join(FOLDER, VIEW))
    assert found["images"] == ["eoray@sha256:01", "eoray@sha256:02"]


def test_secrets_are_masked(s3: FakeS3) -> None:
    told = "Pod x: Failed: GET https://maps.example/a?sig=c2VjcmV0 as hunter2hunter2"
    keep_view(FOLDER, {**SILENT, "warnings": [told]}, at=1.0, secrets=("hunter2hunter2",))
    written = storage.read_bytes(storage.join(FOLDER, VIEW)).decode()
    assert "sig=***" in written
    assert "hunter2" not in written


def test_where_nothing_can_be_written_it_is_said_and_nothing_fails(
    tmp_path: Path, s3: FakeS3
) -> None:
    assert "not seen from here" in keep_view(str(tmp_path), SILENT, at=1.0)
    assert list(tmp_path.iterdir()) == []
    s3.refuse["PUT"] = (403, "AccessDenied")
    assert "necessary privileges" in keep_view(FOLDER, SILENT, at=1.0)
    assert s3.objects == {}
