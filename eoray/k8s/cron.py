"""Cron expressions as Kubernetes reads them, and the minutes at which they are due.

Its controller computes with robfig/cron, whose grammar and summer time are not those of cron: a
skipped hour is not made up for, a doubled one ticks twice, weekday 7 is refused. Packages for
Python follow cron, so this is a parser of its own; ``tests/k8s/cron.json`` holds what robfig/cron
answers.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from eoray.errors import ConfigError

_HOW = "write 'minute hour day month weekday', such as '0 3 * * 1'"

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_LONGEST_DAYS = 9 * 366
"""Beyond the rarest expression: 29 February around a year 2100 without one."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five parts of an expression."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    """Names of the values from ``low`` on."""


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 6, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression, taken apart."""

    text: str
    """As it was written."""
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either: bool
    """Day and weekday are both limited: one of them is enough."""

    def has_day(self, day: date) -> bool:
        """Whether it ticks on a day."""
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        fits = by_day or by_weekday if self.either else by_day and by_weekday
        return fits and day.month in self.months


def parse_cron(text: str) -> Cron:
    """Take a cron expression apart.

    Args:
        text: Five fields, or a word such as ``@daily``.

    Raises:
        ConfigError: It is wrong, or no day ever fits it.
    """
    fields = _NICKNAMES.get(text.strip(), text).split()
    if text.lstrip().startswith(("TZ=", "CRON_TZ=")):
        raise ConfigError(
            f"cron expression {text!r} names a time zone; say it apart, with --time-zone"
        )
    if len(fields) != len(_FIELDS):
        raise ConfigError(f"cron expression {text!r} has {len(fields)} fields, not five; {_HOW}")
    parsed = [_parse_field(text, part, field) for part, field in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = (frozenset(values) for values, _ in parsed)
    cron = Cron(
        text,
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        days,
        months,
        weekdays,
        either=not (parsed[2][1] or parsed[4][1]),
    )
    if not cron.either and not any(_day_exists(d, m) for d in days for m in months):
        raise ConfigError(
            f"cron expression {text!r} never fires: no month in it has that day; choose a day that "
            "exists"
        )
    return cron


def read_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name.

    Raises:
        ConfigError: There is none of this name.
    """
    known = available_timezones()
    if name in known:
        return ZoneInfo(name)
    if not known:
        raise ConfigError(
            f"time zone {name!r} cannot be looked up, because this machine has no time zone data; "
            "install tzdata"
        )
    near = difflib.get_close_matches(name, known, 1, 0.5) or ["Etc/UTC"]
    raise ConfigError(f"time zone {name!r} is unknown; did you mean {near[0]!r}?")


def next_ticks(cron: Cron, zone: ZoneInfo, after: datetime, count: int) -> list[datetime]:
    """The next minutes at which an expression is due.

    Args:
        cron: The expression.
        zone: Of its hours.
        after: They are later than this.
        count: How many.

    Returns:
        UTC, ascending.
    """
    first = after.astimezone(zone).date()
    days = (first + timedelta(days=n) for n in range(count * _LONGEST_DAYS))
    due = (tick for day in days for tick in _ticks_of(cron, zone, day) if tick > after)
    return list(islice(due, count))


def last_tick(cron: Cron, zone: ZoneInfo, until: datetime) -> datetime | None:
    """The latest minute, at or before a moment, at which an expression was due; UTC."""
    last = until.astimezone(zone).date()
    for n in range(_LONGEST_DAYS):
        due = [t for t in _ticks_of(cron, zone, last - timedelta(days=n)) if t <= until]
        if due:
            return due[-1]
    return None


def summer_time_warnings(cron: Cron, zone: ZoneInfo, now: datetime) -> list[str]:
    """Ticks of the next 13 months that a change of the clocks skips or doubles, in words.

    An expression for every hour has none: each hour that there is has its tick.
    """
    if len(cron.hours) == 24:
        return []
    first = now.astimezone(zone).date()
    days = [first + timedelta(days=n) for n in range(400)]
    changing = [day for day in days if cron.has_day(day) and _changes_clock(zone, day)]
    walls = [wall for day in changing for wall in _walls(cron, day)]
    skipped = [f"{w:%Y-%m-%d %H:%M}" for w in walls if not _instants(zone, w)]
    doubled = [f"{w:%Y-%m-%d %H:%M}" for w in walls if len(_instants(zone, w)) == 2]
    warnings = []
    if skipped:
        warnings.append(
            f"{_some(skipped)} does not exist in {zone.key} (summer time begins): nothing starts "
            "then; choose another hour, or Etc/UTC"
        )
    if doubled:
        warnings.append(
            f"{_some(doubled)} comes twice in {zone.key} (summer time ends): the second tick asks "
            "for the same window, which is the same run"
        )
    return warnings


def _parse_field(text: str, part: str, field: _Field) -> tuple[set[int], bool]:
    """(values, whether they are all of them by a star)."""
    values: set[int] = set()
    is_star = False
    for piece in part.split(","):
        spread, slash, by = piece.partition("/")
        step = int(by) if by.isascii() and by.isdigit() else 0
        if slash and step < 1:
            raise _wrong(text, f"step {by!r} of {field.name} is no positive number")
        low, high = _parse_spread(text, spread, field, open_ended=bool(slash))
        values |= set(range(low, high + 1, step or 1))
        # as Kubernetes has it: a star with a step limits the days, one without does not
        is_star = is_star or (spread in ("*", "?") and step <= 1)
    return values, is_star


def _parse_spread(text: str, spread: str, field: _Field, *, open_ended: bool) -> tuple[int, int]:
    if spread in ("*", "?"):
        return field.low, field.high
    low_text, dash, high_text = spread.partition("-")
    low = _parse_value(text, low_text, field)
    if not dash:
        return low, field.high if open_ended else low
    high = _parse_value(text, high_text, field)
    if low > high:
        raise _wrong(text, f"{field.name} {spread!r} runs backwards")
    return low, high


def _parse_value(text: str, word: str, field: _Field) -> int:
    if word.lower() in field.words:
        return field.words.index(word.lower()) + field.low
    if not (word.isascii() and word.isdigit()):
        raise _wrong(text, f"{word!r} is no {field.name}")
    if not field.low <= int(word) <= field.high:
        sunday = " (0 is Sunday)" if field.name == "weekday" else ""
        raise _wrong(text, f"{field.name} {word} lies outside {field.low}..{field.high}{sunday}")
    return int(word)


def _wrong(text: str, what: str) -> ConfigError:
    return ConfigError(f"cron expression {text!r}: {what}; {_HOW}")


def _day_exists(day: int, month: int) -> bool:
    return day <= (29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31)


def _ticks_of(cron: Cron, zone: ZoneInfo, day: date) -> list[datetime]:
    """Ticks of a day by the zone's calendar, in UTC, ascending."""
    if not cron.has_day(day):
        return []
    return sorted(tick for wall in _walls(cron, day) for tick in _instants(zone, wall))


def _walls(cron: Cron, day: date) -> Iterator[datetime]:
    """What a clock on the wall shows at the ticks of a day."""
    times = (time(hour, minute) for hour in cron.hours for minute in cron.minutes)
    return (datetime.combine(day, at) for at in times)


def _instants(zone: ZoneInfo, wall: datetime) -> list[datetime]:
    """Moments at which a clock on the wall shows a time: one, none, or two, in UTC."""
    both = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(m for m in both if m.astimezone(zone).replace(tzinfo=None) == wall)


def _changes_clock(zone: ZoneInfo, day: date) -> bool:
    edges = (datetime.combine(day + timedelta(days=n), time(), zone) for n in (0, 1))
    return len({edge.utcoffset() for edge in edges}) == 2


def _some(moments: list[str]) -> str:
    """The first few of a list."""
    shown = ", ".join(moments[:3])
    return shown if len(moments) <= 3 else f"{shown} and {len(moments) - 3} more"
