"""The window of a scheduled run: it ends with the minute that was scheduled, not with now.

A pod that starts late, or again, then asks for the same window and so for the same run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from eoray.config import dump_config, parse_config
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.config import RunConfig

_MINUTES = re.compile(r".*-(?P<minutes>\d{8})")
"""A CronJob names its Jobs after itself and the scheduled minute since 1970."""


def scheduled_minute(job: str) -> datetime:
    """The minute for which a CronJob made a Job.

    Args:
        job: Name of the Job, ``<schedule>-<minutes since 1970>``.

    Raises:
        ConfigError: The Job was made by hand: its name holds no minute.
    """
    found = _MINUTES.fullmatch(job)
    if found is None:
        raise ConfigError(
            f"Job {job!r} has no scheduled minute in its name, as one made by hand has not; say "
            "which one is meant: --scheduled-time 2026-01-31T03:00"
        )
    return datetime.fromtimestamp(int(found["minutes"]) * 60, UTC)


def parse_moment(text: str) -> datetime:
    """A time that a user wrote; UTC where it names no zone.

    Raises:
        ConfigError: It is no time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time; write it as 2026-01-31T03:00") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """Days up to a scheduled minute."""

    moment: datetime
    """UTC."""
    lookback_days: int | None = None
    """Length; None keeps the first day of the run, so that the record grows. What the store holds
    already is not read again."""


def move_window(config: RunConfig, window: Window) -> RunConfig:
    """Let the days of a run end before a scheduled minute.

    Returns:
        The run with ``time`` up to the last whole day before the minute.

    Raises:
        ConfigError: The window is empty, or does not fit other sections.
    """
    last, first = window.moment.date() - timedelta(days=1), config.days.start
    if window.lookback_days is not None:
        first = last - timedelta(days=window.lookback_days - 1)
    if last < first:
        raise ConfigError(
            f"the window up to {window.moment:%Y-%m-%dT%H:%MZ} is empty, because `time` begins on "
            f"{first}; schedule later, or begin earlier"
        )
    moved = config.model_copy(update={"time": f"{first}/{last}"})
    return parse_config(dump_config(moved))  # sections that no longer fit are told
