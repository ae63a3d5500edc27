"""Where Sentinel-2 flies: which orbits see a place, when, and at what angles.

The satellites keep one fixed ground track of 143 orbits in ten days, in a plane that follows the
mean sun. Relative orbit, place and day therefore tell the time of a pass to a quarter of a minute
and its view zenith to 0.2 degrees (against metadata of real products, ``tests/catalog/
test_orbit.py``), whatever a provider writes into its items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache

import numpy as np

N_ORBITS = 143
"""Relative orbits of a cycle, numbered from 1."""

CYCLE_DAYS = 10

SWATH_DEG = 11.6
"""View zenith on the ground at the edge of the swath, 20.6 degrees wide at the satellite."""

EDGE_DEG = 0.2
"""So much nearer to the track a place must lie to be seen for sure."""

DARK_DEG = 82.0
"""Sun zenith beyond which no pass is expected. The plan takes low sun (to 85 degrees) over Northern
Europe and the Arctic only, and since October 2019: ESA news of 2019-10-17."""

LOW_SUN_DEG = 70.0
"""Sun zenith beyond which Level-2A is not meant for analysis: ESA news of 2019-10-17, after the
Level-2A Data Quality Report."""

_PERIOD_S = CYCLE_DAYS * 86_400 / N_ORBITS
_INCLINATION = math.radians(98.5621)
_RADIUS_KM = 7_167.0
_NODE_LON = 1.02
"""Longitude of the ascending node of relative orbit 1, degrees east; fitted to products."""
_NODE_HOUR = 22.5
"""Mean local solar time of the ascending node; the descending one is at 10:30."""
_STEP_LON = 360.0 * CYCLE_DAYS / N_ORBITS
"""Westward step of the node from orbit to orbit, degrees."""

_REACH_DEG = 2.0
"""Angle at the middle of the Earth that no swath reaches: its half is 1.3 degrees wide."""

_EPOCH = datetime(2015, 6, 23, tzinfo=UTC)
_SEMI_AXIS_KM, _ECCENTRICITY2 = 6_378.137, 0.006694379990141


@dataclass(frozen=True, slots=True)
class Satellite:
    """When a satellite keeps the nominal plan."""

    name: str
    since: date
    """First day from which every pass of the plan is expected."""
    until: date | None
    """First day on which it no longer is; None: in service."""
    node_days: float
    """Day within the cycle, counted from 2015-06-23, at which orbit 1 begins."""
    source: str


SATELLITES = (
    Satellite(
        "S2A",
        date(2015, 7, 1),
        date(2025, 1, 21),
        9.9347,
        "launched 2015-06-23; until mid 2017 the plan itself leaves out passes outside of Europe "
        "and Africa. Since 2025-01-21 it flies an extra cycle (10 days over Europe, 20 elsewhere), "
        "of which nothing is expected",
    ),
    Satellite(
        "S2B",
        date(2017, 7, 1),
        None,
        4.9347,
        "launched 2017-03-07; its first months of data are extra",
    ),
    Satellite(
        "S2C",
        date(2025, 1, 21),
        None,
        9.9347,
        "launched 2024-09-05; took the place of S2A on 2025-01-21",
    ),
)
"""Sources: ESA mission pages; phases from product names of 2016 to 2025."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a place is seen from an orbit; angles in degrees."""

    view_zenith: float
    """At the ground; beyond ``SWATH_DEG`` the place is not seen."""
    view_azimuth: float
    """Direction towards the satellite, clockwise from north. Detectors look up to 2 degrees
    forward or backward besides, which is left out."""
    local_hour: float
    """Mean local solar time below the satellite."""
    sub_lon: float
    """Longitude below the satellite, degrees east."""
    argument: float
    """Angle flown since the ascending node."""

    @property
    def is_sure(self) -> bool:
        """Whether the place lies inside the swath, not at its edge."""
        return self.view_zenith <= SWATH_DEG - EDGE_DEG


@lru_cache(maxsize=65_536)
def look_from(relative_orbit: int, lon: float, lat: float) -> Look:
    """Tell how an orbit sees a place on its way south.

    Args:
        relative_orbit: 1 to 143.
        lon: Degrees east.
        lat: Degrees north, geodetic.
    """
    place = _ecef(lon, lat)
    turned = _about_axis(place, (relative_orbit - 1) * _STEP_LON)
    along, track = _track()
    nearness = track @ turned
    k = int(np.clip(np.argmax(nearness), 1, len(along) - 2))
    before, here, after = nearness[k - 1 : k + 2]
    bend = before - 2 * here + after
    argument = float(along[k] + (along[1] - along[0]) * 0.5 * (before - after) / bend)
    satellite = _about_axis(_position(np.array([argument]))[0], -(relative_orbit - 1) * _STEP_LON)
    line = satellite - place
    la, lo = math.radians(lat), math.radians(lon)
    up = np.array([math.cos(la) * math.cos(lo), math.cos(la) * math.sin(lo), math.sin(la)])
    east = np.array([-math.sin(lo), math.cos(lo), 0.0])
    e, n, u = (float(line @ axis) for axis in (east, np.cross(up, east), up))
    return Look(
        view_zenith=math.degrees(math.atan2(math.hypot(e, n), u)),
        view_azimuth=math.degrees(math.atan2(e, n)) % 360,
        local_hour=(_NODE_HOUR + math.degrees(_right_ascension(argument)) / 15) % 24,
        sub_lon=math.degrees(math.atan2(satellite[1], satellite[0])),
        argument=math.degrees(argument),
    )


def orbits_seeing(lon: float, lat: float, *, within_deg: float = SWATH_DEG) -> tuple[int, ...]:
    """List the relative orbits whose swath reaches a place, in order."""
    place = _ecef(lon, lat)
    turned = np.stack([_about_axis(place, i * _STEP_LON) for i in range(N_ORBITS)], axis=1)
    near = (_track()[1] @ turned).max(axis=0) / _RADIUS_KM / np.linalg.norm(place)
    likely = np.flatnonzero(near > math.cos(math.radians(_REACH_DEG))) + 1
    return tuple(
        int(orbit) for orbit in likely if look_from(int(orbit), lon, lat).view_zenith <= within_deg
    )


def pass_time(relative_orbit: int, lon: float, lat: float, near: datetime) -> datetime:
    """Tell when an orbit passes a place, on the day that lies nearest.

    Args:
        relative_orbit: 1 to 143.
        lon: Degrees east.
        lat: Degrees north.
        near: Any instant within twelve hours, such as the start of the datatake, UTC.
    """
    look = look_from(relative_orbit, lon, lat)
    hour = (look.local_hour - look.sub_lon / 15) % 24
    midnight = near.replace(hour=0, minute=0, second=0, microsecond=0)
    days = (timedelta(hours=hour + 24 * k) for k in (-1, 0, 1))
    return min((midnight + day for day in days), key=lambda t: abs(t - near))


def passes(
    satellite: Satellite,
    relative_orbit: int,
    lon: float,
    lat: float,
    start: datetime,
    end: datetime,
) -> list[datetime]:
    """List the passes of the nominal plan over a place, ``start <= time < end``.

    Args:
        satellite: Which; passes outside its service are left out.
        relative_orbit: 1 to 143.
        lon: Degrees east.
        lat: Degrees north.
        start: First instant, UTC.
        end: First instant after the period, UTC.
    """
    look = look_from(relative_orbit, lon, lat)
    orbits = relative_orbit - 1 + look.argument / 360
    first = _EPOCH + timedelta(days=satellite.node_days, seconds=orbits * _PERIOD_S)
    begin = max(start, _midnight(satellite.since))
    stop = end if satellite.until is None else min(end, _midnight(satellite.until))
    first = pass_time(relative_orbit, lon, lat, first)
    n = math.ceil((begin - first) / timedelta(days=CYCLE_DAYS))
    n_passes = max(0, math.ceil((stop - first) / timedelta(days=CYCLE_DAYS)) - n)
    return [first + timedelta(days=CYCLE_DAYS * (n + i)) for i in range(n_passes)]


def sun_position(when: datetime, lon: float, lat: float) -> tuple[float, float]:
    """Tell where the sun stands: (zenith, azimuth clockwise from north), degrees.

    Refraction is left out, as in the products.

    Source:
        Astronomical Almanac, low precision formulas: 0.01 degrees from 1950 to 2050.
    """
    days = (when - datetime(2000, 1, 1, 12, tzinfo=UTC)) / timedelta(days=1)
    mean = math.radians((280.460 + 0.9856474 * days) % 360)
    anomaly = math.radians((357.528 + 0.9856003 * days) % 360)
    ecliptic = mean + math.radians(1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly))
    tilt = math.radians(23.439 - 4e-7 * days)
    ascension = math.atan2(math.cos(tilt) * math.sin(ecliptic), math.cos(ecliptic))
    declination = math.asin(math.sin(tilt) * math.sin(ecliptic))
    sidereal = math.radians((18.697374558 + 24.06570982441908 * days) % 24 * 15)
    hour, phi = sidereal + math.radians(lon) - ascension, math.radians(lat)
    up = math.sin(phi) * math.sin(declination) + (
        math.cos(phi) * math.cos(declination) * math.cos(hour)
    )
    east = -math.sin(hour) * math.cos(declination)
    north = math.cos(phi) * math.sin(declination) - (
        math.sin(phi) * math.cos(declination) * math.cos(hour)
    )
    return math.degrees(math.acos(up)), math.degrees(math.atan2(east, north)) % 360


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@cache
def _track() -> tuple[np.ndarray, np.ndarray]:
    """Descending half of orbit 1: radians since the ascending node, and positions in km."""
    along = np.radians(np.arange(88.0, 272.001, 0.25))
    return along, _position(along)


def _position(argument: np.ndarray) -> np.ndarray:
    """Places of the satellite on orbit 1, fixed to the Earth, km, dims (n, 3)."""
    sine = math.sin(_INCLINATION) * np.sin(argument)
    lon = (
        math.radians(_NODE_LON)
        + np.arctan2(math.cos(_INCLINATION) * np.sin(argument), np.cos(argument))
        - argument * _PERIOD_S / 86_400
    )
    flat = np.sqrt(1 - sine**2)
    return _RADIUS_KM * np.stack([flat * np.cos(lon), flat * np.sin(lon), sine], axis=-1)


def _right_ascension(argument: float) -> float:
    """From the ascending node, in the plane of the equator, radians."""
    return math.atan2(math.cos(_INCLINATION) * math.sin(argument), math.cos(argument))


def _ecef(lon: float, lat: float) -> np.ndarray:
    """A place on the ellipsoid in km from the middle of the Earth."""
    lo, la = math.radians(lon), math.radians(lat)
    n = _SEMI_AXIS_KM / math.sqrt(1 - _ECCENTRICITY2 * math.sin(la) ** 2)
    flat = n * math.cos(la)
    return np.array(
        [flat * math.cos(lo), flat * math.sin(lo), n * (1 - _ECCENTRICITY2) * math.sin(la)]
    )


def _about_axis(place: np.ndarray, degrees: float) -> np.ndarray:
    """Turn a place eastwards."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, z = place
    return np.array([c * x - s * y, s * x + c * y, z])
