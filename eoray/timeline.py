"""Time: inclusive date ranges, composite periods with a fixed index, the solar day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from eoray.errors import ConfigError

FIRST_YEAR = 2015
"""Sentinel-2's first; period indices never move afterwards."""

NEW_YEAR = (1, 1)
"""(month, day) on which periods begin unless a season is named."""

DEKAD = "dekad"
"""Code of the three parts of a month that agricultural monitoring uses; ISO 8601 has none."""

_PERIOD = re.compile(r"P(\d{1,3})([DWMY])")
_MONTH_DAY = re.compile(r"(\d{2})-(\d{2})")
_MONTHS = (1, 2, 3, 4, 6, 12)


@dataclass(frozen=True, slots=True)
class DateRange:
    """Days of a run, both included, in UTC."""

    start: date
    end: date

    @classmethod
    def parse(cls, text: str) -> DateRange:
        """Read ``2020-01-01/2023-12-31``.

        Raises:
            ConfigError: No two ISO dates, or the second lies before the first.
        """
        parts = str(text).split("/")
        try:
            start, end = (date.fromisoformat(part.strip()) for part in parts)
        except ValueError as error:
            raise ConfigError(
                f"time {text!r} cannot be read; write two days, such as '2020-01-01/2023-12-31'"
            ) from error
        if end < start:
            raise ConfigError(
                f"time {text!r} ends before it starts; write it as '{end.isoformat()}/"
                f"{start.isoformat()}'"
            )
        return cls(start, end)

    def __str__(self) -> str:
        """Write the range as ISO 8601."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}"

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """Half-open instants: start of the first day, start of the day after the last."""
        start = datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)
        end = datetime(self.end.year, self.end.month, self.end.day, tzinfo=UTC)
        return start, end + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """One half-open step of a composite calendar."""

    index: int
    """Steps since the calendar's first period; see ``Calendar.period``."""
    start: date
    end: date
    """First day after the period."""

    @property
    def key(self) -> str:
        """Name of the period, such as ``2021-04-01/2021-07-01``."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Composite periods that begin on the same days of every year."""

    code: str
    """As written; see ``parse``."""
    starts: tuple[tuple[int, int], ...]
    """(month, day) on which the periods of a year begin, the first one first; none for P1D."""

    @classmethod
    def parse(cls, code: str, season_start: tuple[int, int] = NEW_YEAR) -> Calendar:
        """Read an ISO 8601 duration, or ``dekad``.

        Periods of days and weeks restart at each season start, and the last one runs to the next,
        so that a remainder shorter than half a period does not stand alone. They begin on the
        same days in all years: 29 February joins the period of the day before, except in P1D,
        which has a period for each day. Weeks are seven days from the season start, not ISO
        weeks. Dekads begin on the 1st, 11th and 21st of each month.

        Args:
            code: P1M P2M P3M P4M P6M P1Y, P<n>D or P<n>W of at most 183 days, ``dekad``.
            season_start: (month, day) of the first period of a year: (12, 1) with P3M gives
                meteorological seasons, (7, 1) with P1Y the year of the southern harvest, (10, 1)
                with P6M a wet and a dry season.

        Raises:
            ConfigError: The duration does not divide a year into periods, or the season cannot
                start on that day.
        """
        match = _PERIOD.fullmatch(str(code))
        n = int(match[1]) if match else 0
        unit = match[2] if match else ""
        if unit == "Y" and n == 1:
            unit, n = "M", 12
        if unit == "W":
            unit, n = "D", 7 * n
        month, day = season_start
        first = _season_day(month, day)
        if unit == "M" and n in _MONTHS:
            months = [(month - 1 + step) % 12 + 1 for step in range(0, 12, n)]
            return cls(code, tuple((m, day) for m in months))
        if code == DEKAD and day == 1:
            months = [(month - 1 + step) % 12 + 1 for step in range(12)]
            return cls(code, tuple((m, d) for m in months for d in (1, 11, 21)))
        if unit == "D" and n == 1 and season_start == NEW_YEAR:
            return cls(code, ())
        if unit == "D" and 1 < n <= 183:
            count = max(1, round(365 / n))
            days = [first + timedelta(days=n * i) for i in range(count)]
            return cls(code, tuple((each.month, each.day) for each in days))
        if code in {DEKAD, "P1D"}:
            raise ConfigError(
                f"composite period {code!r} has no season that starts on {month:02d}-{day:02d}; "
                f"take {'the first of a month' if code == DEKAD else '01-01'}, or another period"
            )
        raise ConfigError(
            f"composite period {code!r} cannot be used; take P1M, P2M, P3M, P4M, P6M, P1Y, "
            f"{DEKAD}, weeks such as P1W or days such as P10D (1 to 183)"
        )

    @property
    def per_year(self) -> int:
        """Periods in a year; 0 where each day is one, which no number of them divides."""
        return len(self.starts)

    @property
    def _first_year(self) -> int:
        """Year in which period 0 begins: no later than 2015-01-01."""
        return FIRST_YEAR if self.starts[0] == NEW_YEAR else FIRST_YEAR - 1

    def period(self, index: int) -> Period:
        """Return the period of an index; 0 is the first of the year that holds 2015-01-01."""
        return Period(index, self._start(index), self._start(index + 1))

    def _start(self, index: int) -> date:
        if not self.starts:
            return date(FIRST_YEAR, 1, 1) + timedelta(days=index)
        year, step = divmod(index, self.per_year)
        wraps = self.starts[step] < self.starts[0]
        return date(self._first_year + year + wraps, *self.starts[step])

    def index_of(self, day: date) -> int:
        """Return the index of the period that holds a day; negative before the first."""
        if not self.starts:
            return (day - date(FIRST_YEAR, 1, 1)).days
        first, this = self.starts[0], (day.month, day.day)
        step = sum((s < first, s) <= (this < first, this) for s in self.starts) - 1
        return (day.year - (this < first) - self._first_year) * self.per_year + step

    def periods(self, days: DateRange) -> list[Period]:
        """List the periods that touch a range of days."""
        if days.start.year < FIRST_YEAR:
            raise ConfigError(
                f"time {days} begins before {FIRST_YEAR}, where composite periods start; "
                f"begin at {FIRST_YEAR}-01-01 or later"
            )
        first, last = self.index_of(days.start), self.index_of(days.end)
        return [self.period(index) for index in range(first, last + 1)]


def parse_month_day(text: str) -> tuple[int, int]:
    """Read ``12-01`` as (month, day).

    Raises:
        ConfigError: No such text, or a day that some month lacks.
    """
    match = _MONTH_DAY.fullmatch(str(text))
    if match is None:
        raise ConfigError(f"day of the year {text!r} cannot be read; write it as '12-01'")
    month, day = int(match[1]), int(match[2])
    _season_day(month, day)
    return month, day


def _season_day(month: int, day: int) -> date:
    """The day in a common year that another one follows."""
    if not (1 <= month <= 12 and 1 <= day <= 28):
        raise ConfigError(
            f"season cannot start on {month:02d}-{day:02d}; take a day from 1 to 28, which every "
            "month has"
        )
    return date(2017, month, day)


def solar_day(instant: datetime, lon: float) -> date:
    """Return the day of local mean solar time, 4 minutes per degree from UTC."""
    return (instant + timedelta(hours=lon / 15.0)).date()
