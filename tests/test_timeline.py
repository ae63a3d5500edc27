"""Dates and composite calendars: every day once, indices that never move."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.errors import ConfigError
from eoray.timeline import Calendar, DateRange, parse_month_day, solar_day

CODES = ("P1M", "P3M", "P6M", "P1Y", "P2D", "P10D", "P16D", "P183D", "P1W", "P2W", "dekad")
SEASONS = ((1, 1), (12, 1), (7, 1), (10, 1), (3, 1))
FIRST, LAST = date(2015, 1, 1), date(2040, 12, 31)
DAYS = st.dates(FIRST, LAST)


def boundaries(calendar: Calendar) -> list[date]:
    periods = calendar.periods(DateRange(FIRST, LAST))
    assert [p.index for p in periods] == list(range(periods[0].index, periods[-1].index + 1))
    for period, following in itertools.pairwise(periods):
        assert period.start < period.end == following.start
    return [periods[0].start, periods[-1].end]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("season", SEASONS)
def test_periods_partition_the_days_of_2015_to_2040(code: str, season: tuple[int, int]) -> None:
    calendar = Calendar.parse(code, season)
    first, last = boundaries(calendar)
    assert first <= FIRST < LAST < last
    assert calendar.periods(DateRange(FIRST, LAST))[0].index >= 0


def test_every_day_is_a_period_of_its_own() -> None:
    calendar = Calendar.parse("P1D")
    assert boundaries(calendar) == [FIRST, date(2041, 1, 1)]
    leap = calendar.period(calendar.index_of(date(2020, 2, 29)))
    assert leap.key == "2020-02-29/2020-03-01"


@settings(deadline=None)
@given(DAYS, st.sampled_from((*CODES, "P1D")), st.sampled_from(SEASONS))
def test_a_day_lies_in_the_period_of_its_index(
    day: date, code: str, season: tuple[int, int]
) -> None:
    calendar = Calendar.parse(code, season if code != "P1D" else (1, 1))
    period = calendar.period(calendar.index_of(day))
    assert period.start <= day < period.end


@settings(deadline=None)
@given(st.integers(2015, 2039), st.sampled_from(CODES), st.sampled_from(SEASONS))
def test_a_period_begins_on_each_start_of_a_season(
    year: int, code: str, season: tuple[int, int]
) -> None:
    calendar = Calendar.parse(code, season)
    index = calendar.index_of(date(year, *season))
    assert index % calendar.per_year == 0
    assert calendar.period(index).start == date(year, *season)


@pytest.mark.parametrize(
    ("code", "season", "day", "key"),
    [
        ("P3M", (12, 1), date(2021, 2, 28), "2020-12-01/2021-03-01"),  # winter in the north
        ("P1Y", (7, 1), date(2021, 3, 1), "2020-07-01/2021-07-01"),  # harvest in the south
        ("P6M", (10, 1), date(2021, 4, 1), "2021-04-01/2021-10-01"),  # the dry one of two
        ("P1M", (1, 15), date(2021, 1, 1), "2020-12-15/2021-01-15"),
        ("P1W", (1, 1), date(2021, 12, 31), "2021-12-24/2022-01-01"),  # the 365th day joins
        ("dekad", (1, 1), date(2020, 2, 29), "2020-02-21/2020-03-01"),
        ("P16D", (1, 1), date(2020, 1, 17), "2020-01-17/2020-02-02"),
    ],
)
def test_period_of_a_day(code: str, season: tuple[int, int], day: date, key: str) -> None:
    calendar = Calendar.parse(code, season)
    assert calendar.period(calendar.index_of(day)).key == key


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
    "code", ["P5M", "P0M", "P2Y", "P0D", "P184D", "P27W", "1M", "P1Q", "P-1M", "", "P1M "]
)
def test_code_that_does_not_divide_a_year_is_refused(code: str) -> None:
    with pytest.raises(ConfigError, match="take P1M, P2M"):
        Calendar.parse(code)


@pytest.mark.parametrize(
    ("code", "season", "message"),
    [
        ("P3M", (2, 30), "season cannot start on 02-30; take a day from 1 to 28"),
        ("dekad", (7, 5), "'dekad' has no season that starts on 07-05; take the first of a"),
        ("P1D", (7, 1), "'P1D' has no season that starts on 07-01; take 01-01"),
    ],
)
def test_season_that_cannot_start_is_refused(
    code: str, season: tuple[int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Calendar.parse(code, season)


def test_month_and_day_are_read_from_text() -> None:
    assert parse_month_day("12-01") == (12, 1)
    for text in ("1201", "2020-12-01", "13-01", "02-29", ""):
        with pytest.raises(ConfigError, match=r"write it as '12-01'|take a day from 1 to 28"):
            parse_month_day(text)


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
