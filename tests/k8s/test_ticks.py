"""What is said of a schedule: its last tick, what came of it, its next one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from eoray.k8s.ticks import describe_schedule, last_due

TICK = "2026-11-16T03:00:00Z"
MONDAY = datetime(2026, 11, 16, 3, 30, tzinfo=UTC)
NOON = datetime(2026, 11, 16, 12, tzinfo=UTC)


def _cronjob(*, made: str = "2026-01-01T00:00:00Z", cron: str = "0 3 * * 1", **more: Any) -> Any:
    spec = {"schedule": cron, "timeZone": "Etc/UTC", "suspend": False} | more.pop("spec", {})
    spec.setdefault("startingDeadlineSeconds", 3600)
    return {"metadata": {"name": "weekly", "creationTimestamp": made}, "spec": spec, **more}


def _job(*conditions: dict[str, str]) -> Any:
    return {"metadata": {"name": "weekly-29920382"}, "status": {"conditions": list(conditions)}}


STARTED = {"lastScheduleTime": TICK}
COMPLETE = _job({"type": "Complete", "status": "True"})
FAILED = _job(
    {"type": "FailureTarget", "status": "True"},
    {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 1"},
)
RUNNING = _job({"type": "Complete", "status": "False"})
LATE = "the tick of 2026-11-16T03:00Z did not start within 3600 s"


@pytest.mark.parametrize(
    ("cronjob", "jobs", "now", "outcome", "why"),
    [
        (_cronjob(status=STARTED), [FAILED, COMPLETE], NOON, "succeeded", ""),
        (_cronjob(status=STARTED), [FAILED], NOON, "failed", "PodFailurePolicy: exit code 1"),
        (_cronjob(status=STARTED), [RUNNING], NOON, "running", "weekly-29920382"),
        (_cronjob(), [], MONDAY, "due", ""),
        (_cronjob(), [], NOON, "missed", LATE),
        (_cronjob(status={"lastScheduleTime": "2026-11-09T03:00:00Z"}), [COMPLETE], NOON, "missed",
         LATE),
        (_cronjob(), [RUNNING], NOON, "running", "weekly-29920382"),
        (_cronjob(made="2026-11-16T11:00:00Z"), [], NOON, "never", ""),
        (_cronjob(spec={"suspend": True}), [], NOON, "never", ""),
        (_cronjob(spec={"suspend": True}, status=STARTED), [FAILED], NOON, "failed",
         "PodFailurePolicy: exit code 1"),
        (_cronjob(status={**STARTED, "lastSuccessfulTime": "2026-11-16T05:00:00Z"}), [], NOON,
         "succeeded", ""),
        (_cronjob(status=STARTED), [], NOON, "unknown", ""),
        (_cronjob(cron="0 3 30 2 *"), [], NOON, "never", ""),
    ],
)  # fmt: skip
def test_outcome_of_the_last_tick(
    cronjob: Any, jobs: list[Any], now: datetime, outcome: str, why: str
) -> None:
    row = describe_schedule(cronjob, jobs, now)
    assert (row["outcome"], row["why"]) == (outcome, why)


def test_next_and_last_tick_are_told_in_utc() -> None:
    spec = {"timeZone": "Europe/Ljubljana"}
    row = describe_schedule(_cronjob(spec=spec), [], NOON)
    assert (row["last"], row["next"]) == ("2026-11-16T02:00Z", "2026-11-23T02:00Z")


def test_suspended_schedule_has_no_next_tick() -> None:
    row = describe_schedule(_cronjob(spec={"suspend": True}), [], NOON)
    assert (row["suspended"], row["next"]) == (True, "")


def test_tick_before_the_schedule_was_made_was_not_due() -> None:
    assert last_due(_cronjob(made="2026-11-16T03:00:01Z"), NOON) is None
    assert last_due(_cronjob(made=TICK), NOON) == datetime(2026, 11, 16, 3, tzinfo=UTC)
