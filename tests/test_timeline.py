"""Dates and composite calendars: every day once, indices that never move."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.errors import ConfigError
from eoray.timeline import Calendar, DateRange, solar_day

CODES = ("P1M", "P2M", "P3M", "P4M", "P6M", "P1Y", "P5D", "P10D", "P16D", "P30D", "P183D")
FIRST, LAST = date(2015, 1, 1), date(2040, 12, 31)
DAYS = st.dates(FIRST, LAST)


@pytest.mark.parametrize("code", CODES)
def test_periods_cover_every_day_of_2015_to_2040_once(code: str) -> None:
    calendar = Calendar.parse(code)
    periods = calendar.periods(DateRange(FIRST, LAST))
    assert [p.index for p in periods] == list(range(26 * calendar.per_year))
    assert periods[0].start == FIRST
    assert periods[-1].end == date(2041, 1, 1)
    for period, following in itertools.pairwise(periods):
        assert period.start < period.end == following.start


@settings(deadline=None)
@given(DAYS, st.sampled_from(CODES))
def test_a_day_lies_in_the_period_of_its_index(day: date, code: str) -> None:
    calendar = Calendar.parse(code)
    period = calendar.period(calendar.index_of(day))
    assert period.start <= day < period.end


@settings(deadline=None)
@given(st.integers(2015, 2039), st.sampled_from(CODES))
def test_a_period_begins_on_each_first_of_january(year: int, code: str) -> None:
    calendar = Calendar.parse(code)
    index = calendar.index_of(date(year, 1, 1))
    assert index == (year - 2015) * calendar.per_year
    assert calendar.period(index).start == date(year, 1, 1)


def test_index_of_a_period_does_not_depend_on_the_range_asked() -> None:
    calendar = Calendar.parse("P3M")
    late = calendar.periods(DateRange.parse("2021-05-17/2021-07-01"))
    assert [(p.index, p.key) for p in late] == [
        (25, "2021-04-01/2021-07-01"),
        (26, "2021-07-01/2021-10-01"),
    ]


def test_leap_day_and_remainder_join_their_period() -> None:
    calendar = Calendar.parse("P10D")
    assert calendar.per_year == 36  # the five days left over join the last
    assert calendar.period(calendar.index_of(date(2015, 12, 31))).start == date(2015, 12, 17)
    common, leap = (calendar.period(calendar.index_of(date(year, 2, 28))) for year in (2019, 2020))
    assert common.start.month == leap.start.month
    assert (leap.end - leap.start) - (common.end - common.start) == timedelta(days=1)
    assert leap.start <= date(2020, 2, 29) < leap.end


@pytest.mark.parametrize(
    "code", ["P5M", "P0M", "P2Y", "P4D", "P184D", "1M", "P1W", "P-1M", "", "P1M "]
)
def test_code_that_does_not_divide_a_year_is_refused(code: str) -> None:
    with pytest.raises(ConfigError, match="take P1M, P2M"):
        Calendar.parse(code)


def test_time_before_the_first_period_is_refused() -> None:
    with pytest.raises(ConfigError, match="begin at 2015-01-01"):
        Calendar.parse("P1M").periods(DateRange.parse("2014-12-31/2015-02-01"))


@settings(deadline=None)
@given(DAYS, DAYS)
def test_date_range_reads_back_what_it_writes(a: date, b: date) -> None:
    days = DateRange(min(a, b), max(a, b))
    assert DateRange.parse(str(days)) == days


def test_both_days_of_a_range_are_inside_its_bounds() -> None:
    start, end = DateRange.parse("2020-02-28/2020-02-29").bounds
    assert start == datetime(2020, 2, 28, tzinfo=UTC)
    assert end == datetime(2020, 3, 1, tzinfo=UTC)


def test_reversed_time_is_refused_with_the_order_that_works() -> None:
    with pytest.raises(ConfigError, match="'2020-01-01/2021-01-01'"):
        DateRange.parse("2021-01-01/2020-01-01")


@pytest.mark.parametrize("text", ["2020-01-01", "2020-13-01/2021-01-01", "2020/2021/2022", ""])
def test_unreadable_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write two days"):
        DateRange.parse(text)


@pytest.mark.parametrize(
    ("lon", "day"), [(0.0, 31), (150.0, 1), (-160.0, 30), (15.1, 1), (14.9, 31)]
)
def test_solar_day_follows_the_sun(lon: float, day: int) -> None:
    instant = datetime(2023, 12, 31, 23, 0, tzinfo=UTC)
    if lon == -160.0:
        instant = datetime(2023, 12, 31, 10, 0, tzinfo=UTC)
    assert solar_day(instant, lon).day == day
