"""Cron expressions, compared with what Kubernetes' own library answers.

``cron.json`` was written by robfig/cron 3.0.1, the library of the CronJob controller: for each
expression, zone and moment the next six ticks, or its error; no ticks where it never fires.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.errors import ConfigError
from eoray.k8s.cron import last_tick, next_ticks, parse_cron, read_zone, summer_time_warnings

ANSWERS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("cron.json").read_text())
GOOD = [row for row in ANSWERS if "ticks" in row]
BAD = sorted({row["cron"] for row in ANSWERS if "ticks" not in row})
LJUBLJANA = read_zone("Europe/Ljubljana")
WINTER = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize("zone", sorted({row["zone"] for row in GOOD}))
def test_ticks_are_those_of_the_library_of_kubernetes(zone: str) -> None:
    for row in (row for row in GOOD if row["zone"] == zone):
        cron, after = parse_cron(row["cron"]), datetime.fromisoformat(row["after"])
        ticks = next_ticks(cron, read_zone(zone), after, len(row["ticks"]))
        assert [f"{tick:%Y-%m-%dT%H:%MZ}" for tick in ticks] == row["ticks"], row["cron"]


def test_what_that_library_refuses_or_never_fires_is_refused() -> None:
    assert len(BAD) > 20
    for text in BAD:
        with pytest.raises(ConfigError, match="cron expression"):
            parse_cron(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 30 2 *", "never fires: no month in it has that day"),
        ("0 3 * *", r"has 4 fields, not five; write 'minute hour"),
        ("0 25 * * *", r"hour 25 lies outside 0\.\.23"),
        ("0 3 * * 7", r"weekday 7 lies outside 0\.\.6 \(0 is Sunday\)"),
        ("0 3 * foo *", "'foo' is no month"),
        ("0 5-3 * * *", "hour '5-3' runs backwards"),
        ("*/0 * * * *", "step '0' of minute is no positive number"),
        ("TZ=Europe/Rome 0 3 * * *", "names a time zone; say it apart, with --time-zone"),
        ("@every 1h", "has 2 fields"),
        (" ", "has 0 fields"),
    ],
)
def test_wrong_expression_is_told_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_cron(text)


@given(
    st.sampled_from(["0 3 * * 1", "*/20 1-3 * * *", "30 2 1 * 5", "15 0 29 2 *"]),
    st.integers(0, 4 * 366 * 24 * 60).map(
        lambda m: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=m)
    ),
)
def test_last_tick_is_the_one_before_the_next(text: str, moment: datetime) -> None:
    cron = parse_cron(text)
    last = last_tick(cron, LJUBLJANA, moment)
    assert last is not None
    assert last <= moment
    (next_one,) = next_ticks(cron, LJUBLJANA, last, 1)
    assert next_one > moment


def test_moment_of_a_tick_is_its_own_last_tick() -> None:
    cron, tick = parse_cron("0 3 * * 1"), datetime(2026, 11, 2, 3, tzinfo=UTC)
    assert last_tick(cron, read_zone("Etc/UTC"), tick) == tick
    assert last_tick(cron, read_zone("Etc/UTC"), tick - timedelta(seconds=1)) == datetime(
        2026, 10, 26, 3, tzinfo=UTC
    )


def test_days_on_which_summer_time_skips_or_doubles_a_tick_are_named() -> None:
    skipped, doubled = summer_time_warnings(parse_cron("30 2 * * *"), LJUBLJANA, WINTER)
    assert skipped.startswith("2027-03-28 02:30 does not exist in Europe/Ljubljana")
    assert doubled.startswith("2027-10-31 02:30 comes twice in Europe/Ljubljana")


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("30 2 * * *", "Etc/UTC"),
        ("30 2 * * *", "Asia/Kolkata"),
        ("0 4 * * *", "Europe/Ljubljana"),
        ("30 2 * * 1", "Europe/Ljubljana"),
        ("30 * * * *", "Europe/Ljubljana"),
    ],
)
def test_hours_that_no_change_of_clocks_meets_give_no_warning(text: str, zone: str) -> None:
    assert summer_time_warnings(parse_cron(text), read_zone(zone), WINTER) == []


def test_many_skipped_ticks_are_counted() -> None:
    warnings = summer_time_warnings(parse_cron("*/5 2 * * *"), LJUBLJANA, WINTER)
    assert "02:10 and 9 more does not exist" in warnings[0]


def test_unknown_zone_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'Europe/Lubljana' is unknown; .*'Europe/Ljubljana'"):
        read_zone("Europe/Lubljana")
