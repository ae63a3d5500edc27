"""Time: inclusive date ranges, composite periods with a fixed index, the solar day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from eoray.errors import ConfigError

FIRST_YEAR = 2015
"""Year of period 0: Sentinel-2's first. Period indices never move afterwards."""

_PERIOD = re.compile(r"P(\d+)([DMY])")
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
    """Steps since 2015-01-01."""
    start: date
    end: date
    """First day after the period."""

    @property
    def key(self) -> str:
        """Name of the period, such as ``2021-04-01/2021-07-01``."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Composite periods anchored to 1 January of every year."""

    code: str
    """ISO 8601 duration: P1M P2M P3M P4M P6M P1Y, or P<n>D with 5 <= n <= 183."""
    starts: tuple[tuple[int, int], ...]
    """(month, day) on which the periods of a year begin."""

    @classmethod
    def parse(cls, code: str) -> Calendar:
        """Read an ISO 8601 duration.

        Periods of days restart each 1 January and the last one runs to the end of the year, so
        a leap day joins it and a remainder shorter than half a period does not stand alone.

        Raises:
            ConfigError: The duration does not divide a year into periods.
        """
        match = _PERIOD.fullmatch(str(code))
        n = int(match[1]) if match else 0
        unit = match[2] if match else ""
        if unit == "Y" and n == 1:
            unit, n = "M", 12
        if unit == "M" and n in _MONTHS:
            return cls(code, tuple((month, 1) for month in range(1, 13, n)))
        if unit == "D" and 5 <= n <= 183:
            count = max(1, round(365 / n))
            days = [date(2015, 1, 1) + timedelta(days=n * i) for i in range(count)]
            return cls(code, tuple((day.month, day.day) for day in days))
        raise ConfigError(
            f"composite period {code!r} cannot be used; take P1M, P2M, P3M, P4M, P6M, P1Y "
            "or days such as P10D (5 to 183)"
        )

    @property
    def per_year(self) -> int:
        """Periods in a year."""
        return len(self.starts)

    def period(self, index: int) -> Period:
        """Return the period of an index (0 begins on 2015-01-01)."""
        year, step = divmod(index, self.per_year)
        start = date(FIRST_YEAR + year, *self.starts[step])
        next_year, next_step = divmod(index + 1, self.per_year)
        return Period(index, start, date(FIRST_YEAR + next_year, *self.starts[next_step]))

    def index_of(self, day: date) -> int:
        """Return the index of the period that holds a day; negative before 2015."""
        step = sum((day.month, day.day) >= start for start in self.starts) - 1
        return (day.year - FIRST_YEAR) * self.per_year + step

    def periods(self, days: DateRange) -> list[Period]:
        """List the periods that touch a range of days."""
        first, last = self.index_of(days.start), self.index_of(days.end)
        if first < 0:
            raise ConfigError(
                f"time {days} begins before {FIRST_YEAR}, where composite periods start; "
                f"begin at {FIRST_YEAR}-01-01 or later"
            )
        return [self.period(index) for index in range(first, last + 1)]


def solar_day(instant: datetime, lon: float) -> date:
    """Return the day of local mean solar time, 4 minutes per degree from UTC."""
    return (instant + timedelta(hours=lon / 15.0)).date()
