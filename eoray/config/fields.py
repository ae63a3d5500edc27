"""Types of single values in the run file, and what makes them valid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from eoray.errors import ConfigError
from eoray.grid import MAX_LAT, MIN_LAT, Tile
from eoray.sentinel2 import resolve_bands
from eoray.timeline import Calendar, DateRange, parse_month_day

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east crosses the antimeridian."""

SLUG_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
BASELINE_PATTERN = r"^\d\d\.\d\d$"


def is_url(text: str) -> bool:
    """Tell an address with a scheme (``https://``, ``s3://``) from a local path."""
    return "://" in text


def resolve_path(path: str, folder: str | Path) -> str:
    """Start a relative path at the run file's folder; URLs and absolute paths pass.

    Args:
        path: As written in the run file; ``~`` is the home folder.
        folder: Folder of the run file.
    """
    if is_url(path):
        return path
    return str((Path(folder) / Path(path).expanduser()).absolute())


def _check_days(text: str) -> str:
    return str(DateRange.parse(text))


def _check_day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ConfigError(f"{text!r} is no day; write it as '2021-06-30'") from error


def _check_period(text: str) -> str:
    return Calendar.parse(text).code


def _check_season(value: Any) -> str:
    month, day = parse_month_day(str(value))
    return f"{month:02d}-{day:02d}"


def _check_percentiles(values: tuple[int, ...]) -> tuple[int, ...]:
    if tuple(sorted(set(values))) != tuple(values):
        raise ConfigError(f"percentiles {list(values)} do not rise; write each once, in order")
    return values


def _check_path(text: str) -> str:
    if not text.strip():
        raise ConfigError(f"{text!r} names no file; write a path or a URL")
    return text


def _format_baseline(value: Any) -> Any:
    """Give back the text of a baseline that YAML read as a number (``05.10``)."""
    return f"{value:05.2f}" if isinstance(value, float) else value


def _check_aoi(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise ConfigError(
            f"{value!r} is no place; write the path of a vector file, [west, south, east, north] "
            "in degrees, or a list of tile ids"
        )
    if all(isinstance(part, str) for part in value):
        return tuple(Tile.from_id(part).id for part in value)
    return _check_box(value)


def _check_box(box: Sequence[Any]) -> Box:
    numbers = [v for v in box if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(box) != 4 or len(numbers) != 4:
        raise ConfigError(
            f"{list(box)!r} is no box; write four numbers, [west, south, east, north] in degrees"
        )
    west, south, east, north = (float(v) for v in numbers)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and south >= -90 and north <= 90):
        raise ConfigError(
            f"box {list(box)!r} lies outside the globe; write longitudes within -180..180 and "
            "latitudes within -90..90, in the order [west, south, east, north]"
        )
    if west == east or south >= north:
        raise ConfigError(
            f"box {list(box)!r} is empty; write south below north and west apart from east, in "
            "the order [west, south, east, north]"
        )
    if north <= MIN_LAT or south >= MAX_LAT:
        raise ConfigError(
            f"box {list(box)!r} lies beyond the UTM zones; Sentinel-2 tiles end at {MIN_LAT:g} and "
            f"{MAX_LAT:g} degrees"
        )
    return (west, south, east, north)


Slug = Annotated[str, Field(pattern=SLUG_PATTERN)]
"""Lower-case letters, digits and dashes: names folders and products."""

Days = Annotated[str, AfterValidator(_check_days)]
"""Two days, both included, UTC: ``2020-01-01/2023-12-31``."""

Day = Annotated[str, AfterValidator(_check_day)]
"""One day, UTC: ``2020-01-01``."""

PeriodCode = Annotated[str, AfterValidator(_check_period)]
"""ISO 8601 duration of a composite, such as ``P3M``, or ``dekad``."""

SeasonStart = Annotated[str, AfterValidator(_check_season)]
"""Month and day on which the first period of a year begins: ``12-01``."""

Percentiles = Annotated[
    tuple[Annotated[int, Field(ge=0, le=100)], ...],
    Field(min_length=1),
    AfterValidator(_check_percentiles),
]
"""Whole numbers from 0 to 100, rising."""

PathOrUrl = Annotated[str, AfterValidator(_check_path)]
"""A URL, or a path that starts at the run file's folder; see :func:`resolve_path`."""

Bands = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(resolve_bands)]
"""Band ids or common names; kept as ids in their order."""

Baseline = Annotated[
    str,
    Field(pattern=BASELINE_PATTERN),
    BeforeValidator(_format_baseline, json_schema_input_type=str),
]
"""Processing baseline, such as ``05.00``."""

Aoi = Annotated[PathOrUrl | Box | tuple[str, ...], BeforeValidator(_check_aoi)]
"""A vector file, a box, or tile ids."""

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
