"""The window of a scheduled run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from eoray.config import RunConfig
from eoray.errors import ConfigError
from eoray.k8s.names import run_key
from eoray.k8s.window import Window, move_window, parse_moment, scheduled_minute

MONDAY = datetime(2024, 6, 3, 3, 0, tzinfo=UTC)


def test_job_of_a_cronjob_tells_its_scheduled_minute() -> None:
    minutes = int(MONDAY.timestamp()) // 60
    assert scheduled_minute(f"weekly-slovenia-{minutes}") == MONDAY


@pytest.mark.parametrize("job", ["weekly-slovenia-manual-x7k", "weekly", "weekly-1"])
def test_job_made_by_hand_is_refused_with_the_remedy(job: str) -> None:
    with pytest.raises(ConfigError, match=r"no scheduled minute .*--scheduled-time 2026"):
        scheduled_minute(job)


@pytest.mark.parametrize(
    ("text", "hour"), [("2024-06-03T03:00", 3), ("2024-06-03T03:00+02:00", 1), ("2024-06-03", 0)]
)
def test_time_without_zone_is_utc(text: str, hour: int) -> None:
    assert parse_moment(text) == datetime(2024, 6, 3, hour, tzinfo=UTC)


def test_word_that_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="'monday' is no time"):
        parse_moment("monday")


def test_record_grows_to_the_last_whole_day(config: RunConfig) -> None:
    assert move_window(config, Window(MONDAY)).time == "2024-01-01/2024-06-02"


def test_lookback_counts_whole_days(config: RunConfig) -> None:
    assert move_window(config, Window(MONDAY, 21)).time == "2024-05-13/2024-06-02"


def test_same_window_is_the_same_run_and_another_one_is_not(config: RunConfig) -> None:
    keys = [
        run_key(move_window(config, Window(moment)), "image:1")
        for moment in (MONDAY, MONDAY.replace(hour=9), MONDAY.replace(day=10))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_empty_window_is_refused(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"window up to 2024-01-01T05:00Z is empty"):
        move_window(config, Window(datetime(2024, 1, 1, 5, tzinfo=UTC)))


def test_window_that_leaves_other_sections_outside_is_refused(read_config: Any) -> None:
    config = read_config(
        "task=land-cover", "fit={labels: s3://maps/l.gpkg, time: 2024-07-01/2024-12-31}"
    )
    with pytest.raises(
        ConfigError, match=r"fit\.time: .* reaches beyond time .2024-01-01/2024-06-02"
    ):
        move_window(config, Window(MONDAY))
