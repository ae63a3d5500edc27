"""What a schedule did at its last tick, and when its next one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from eoray.errors import ConfigError
from eoray.k8s.cron import Cron, last_tick, next_ticks, parse_cron, read_zone


def describe_schedule(
    cronjob: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], now: datetime
) -> dict[str, Any]:
    """A schedule as plain values.

    Args:
        cronjob: The CronJob.
        jobs: Its Jobs, oldest first.
        now: The moment of the question.

    Returns:
        ``name, cron, time_zone, suspended, next, last, outcome, why``; times are UTC, "" where
        there is none. ``last`` is the tick that was due last, ``outcome`` one of ``succeeded,
        failed, running, missed, due, never, unknown``.
    """
    spec, due = cronjob["spec"], last_due(cronjob, now)
    outcome, why = _outcome(cronjob, jobs, due, now)
    suspended = bool(spec.get("suspend"))
    return {
        "name": cronjob["metadata"]["name"],
        "cron": spec["schedule"],
        "time_zone": spec.get("timeZone", ""),
        "suspended": suspended,
        "next": "" if suspended else _write(_next(cronjob, now)),
        "last": _write(due),
        "outcome": outcome,
        "why": why,
    }


def last_due(cronjob: Mapping[str, Any], now: datetime) -> datetime | None:
    """The latest tick since the schedule was made; None before its first."""
    cron = _cron_of(cronjob)
    due = None if cron is None else last_tick(cron, read_zone(_zone_of(cronjob)), now)
    made = _read(cronjob["metadata"].get("creationTimestamp"))
    return None if due is None or (made is not None and due < made) else due


def _next(cronjob: Mapping[str, Any], now: datetime) -> datetime | None:
    cron = _cron_of(cronjob)
    due = [] if cron is None else next_ticks(cron, read_zone(_zone_of(cronjob)), now, 1)
    return due[0] if due else None


def _outcome(
    cronjob: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    due: datetime | None,
    now: datetime,
) -> tuple[str, str]:
    status = cronjob.get("status") or {}
    word, why = _end_of(jobs[-1]) if jobs else ("", "")
    if word == "running":
        return word, why
    started = _read(status.get("lastScheduleTime"))
    if due is not None and (started is None or started < due) and not cronjob["spec"]["suspend"]:
        allowed = timedelta(seconds=cronjob["spec"].get("startingDeadlineSeconds", 10**8))
        if now - due <= allowed:
            return "due", ""
        return (
            "missed",
            f"the tick of {_write(due)} did not start within {allowed.total_seconds():g} s",
        )
    if word or started is None:
        return word or "never", why
    ended = _read(status.get("lastSuccessfulTime"))  # its Job is gone from the history
    return ("succeeded" if ended is not None and ended >= started else "unknown"), ""


def _end_of(job: Mapping[str, Any]) -> tuple[str, str]:
    """(word, why) of a Job."""
    for condition in (job.get("status") or {}).get("conditions", ()):
        if condition["status"] == "True" and condition["type"] == "Complete":
            return "succeeded", ""
        if condition["status"] == "True" and condition["type"] == "Failed":
            parts = (condition.get("reason"), condition.get("message"))
            return "failed", ": ".join(part for part in parts if part)
    return "running", str(job["metadata"]["name"])


def _cron_of(cronjob: Mapping[str, Any]) -> Cron | None:
    try:
        return parse_cron(cronjob["spec"]["schedule"])
    except ConfigError:  # made by other means: Kubernetes takes what never fires
        return None


def _zone_of(cronjob: Mapping[str, Any]) -> str:
    return str(cronjob["spec"].get("timeZone") or "Etc/UTC")


def _read(moment: Any) -> datetime | None:
    return None if not moment else datetime.fromisoformat(moment)


def _write(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%dT%H:%MZ}"
