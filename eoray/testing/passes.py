"""When satellites pass: real cadence, thinned, with the acquisitions that trip up readers.

Sentinel-2A and 2B pass every ten days on each orbit, five days apart. Around 12 E, 48.6 N two
relative orbits meet: 022 sees all granules, 065 ends with the edge of its swath inside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from eoray.testing.frame import Granule, east_edge_m, transformer
from eoray.testing.noise import generator
from eoray.testing.options import ArchiveOptions

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

REFINED_SINCE = date(2021, 3, 30)
"""Geometric refinement over Europe and Africa."""

OFFSET_SINCE = date(2022, 1, 25)
"""First day of processing baseline 04.00, which stores reflectance + 0.1."""

_BASELINES = (
    (date(2015, 1, 1), "02.14"),
    (REFINED_SINCE, "03.00"),
    (date(2021, 6, 30), "03.01"),
    (OFFSET_SINCE, "04.00"),
    (date(2022, 12, 6), "05.09"),
    (date(2023, 12, 13), "05.10"),
)

_CYCLE_D, _CYCLE_ORBITS = 10, 143
_EPOCH = datetime(2024, 4, 22, 17, 39, 11, tzinfo=UTC)
_EPOCH_ORBIT = 46_141
"""Sentinel-2A, relative orbit 098: fixes the phase of all passes."""

_NORTH_ORBITS = (22, 65)
_SOUTH_ORBITS = (36,)
_EXTRA_ORBIT = 122

_VIEW = {22: (104.0, 7.2), 65: (286.0, 9.1), 36: (105.0, 4.0), 122: (285.0, 3.0)}
"""Relative orbit: (azimuth, zenith) of the line of sight in degrees."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One datatake over one site."""

    satellite: str
    """``A`` or ``B``."""
    start: datetime
    """Start of the datatake, UTC."""
    relative_orbit: int
    absolute_orbit: int
    site: str
    cloud_share: float
    """Share of ground under cloud."""
    shift_px: tuple[float, float]
    """Misregistration in pixels of 10 m: (down, right)."""
    lat: float
    """Of the site, for the sun."""
    lon: float
    edge_x: float | None = None
    """Easting of the swath's eastern edge in zone 32, metres; none where it sees everything."""

    @property
    def day(self) -> date:
        """Day of acquisition."""
        return self.start.date()

    @property
    def key(self) -> str:
        """Name of the datatake, such as ``GS2A_20200105T101031``."""
        return f"GS2{self.satellite}_{self.start:%Y%m%dT%H%M%S}"

    @property
    def baseline(self) -> str:
        """Processing baseline of that day."""
        return [name for since, name in _BASELINES if self.day >= since][-1]

    @property
    def is_refined(self) -> bool:
        """Whether the geometry was refined with ground control."""
        return self.day >= REFINED_SINCE

    @property
    def view(self) -> tuple[float, float]:
        """(azimuth, zenith) of the line of sight in degrees."""
        return _VIEW[self.relative_orbit]

    @property
    def sun(self) -> tuple[float, float]:
        """(azimuth, elevation) of the sun in degrees."""
        return sun_angles(self.start, self.lat, self.lon)


@dataclass(frozen=True, slots=True)
class Job:
    """One item to write."""

    granule: Granule
    taken: Pass
    baseline: str
    cut: str = ""
    """``upper`` or ``lower`` for one of two datastrips of the granule; empty for the whole."""
    special: str = ""
    """Why the item is in the archive, if it is there to trip up readers."""

    @property
    def has_offset(self) -> bool:
        """Whether 1000 was added to the stored numbers."""
        return float(self.baseline) >= 4.0

    @property
    def sensed(self) -> datetime:
        """Start of the datastrip over the granule."""
        delay = {"lower": 251.0, "upper": 262.0}.get(self.cut, 251.0)
        # the satellite flies southwards at 6.7 km/s
        north = (5_400_000 - self.granule.y0) / 6_700 if self.granule.site == "north" else 600.0
        return self.taken.start + timedelta(seconds=round(delay + north + 0.024, 3))

    @property
    def generated(self) -> datetime:
        """When the product was made."""
        if self.special == "reprocessed":
            return datetime(2023, 2, 11, 4, 30, 17, tzinfo=UTC)
        return self.taken.start + timedelta(hours=3, minutes=37, seconds=12)

    @property
    def id(self) -> str:
        """Item id in the manner of Earth Search, unique within the archive."""
        day = self.taken.start + timedelta(seconds={"lower": 11, "upper": 0}.get(self.cut, 0))
        tail = f"_N{self.baseline.replace('.', '')}" if self.special == "reprocessed" else ""
        return f"S2{self.taken.satellite}_T{self.granule.mgrs}_{day:%Y%m%dT%H%M%S}{tail}_L2A"


def plan_jobs(options: ArchiveOptions, granules: tuple[Granule, ...]) -> tuple[Job, ...]:
    """List all items of an archive in order of time and granule."""
    passes = _passes(options, "north")
    specials = _special_days(passes)
    passes = sorted([*passes, _same_day(passes[specials["same-day"]])], key=lambda p: p.start)
    names = {passes_key: name for name, passes_key in _named(passes, specials).items()}
    jobs: list[Job] = []
    for number, taken in enumerate(passes):
        special = names.get(taken.key, "")
        skips_neighbour = number % options.neighbour_every > 0 and not special
        for granule in granules:
            is_neighbour = granule.epsg == 32633
            if granule.site == "north" and not (is_neighbour and skips_neighbour):
                jobs += _jobs_of(granule, taken, special, granules)
    south = [granule for granule in granules if granule.site == "south"]
    for taken in _passes(options, "south") if south else []:
        jobs += [Job(granule, taken, taken.baseline) for granule in south]
    return tuple(job for job in jobs if footprint_share(job) > 0.005)


def _named(passes: list[Pass], specials: dict[str, int]) -> dict[str, str]:
    extra = [p for p in passes if p.relative_orbit == _EXTRA_ORBIT]
    plain = [p for p in passes if p.relative_orbit != _EXTRA_ORBIT]
    named = {name: plain[index].key for name, index in specials.items()}
    named["extra"] = extra[0].key
    return named


def _special_days(passes: list[Pass]) -> dict[str, int]:
    """Choose three passes of the orbit that sees everything, and spread them in time."""
    full = [i for i, taken in enumerate(passes) if taken.relative_orbit == _NORTH_ORBITS[0]]
    early = [i for i in full if passes[i].day < OFFSET_SINCE] or full
    return {
        "reprocessed": early[len(early) // 3],
        "split": full[len(full) // 2],
        "same-day": full[len(full) * 3 // 4],
    }


def _same_day(taken: Pass) -> Pass:
    """Add a second datatake on the solar day, as happens where three satellites fly."""
    other = "B" if taken.satellite == "A" else "A"
    start = taken.start - timedelta(minutes=41, seconds=7)
    orbit = _absolute_orbit(other, start, _EXTRA_ORBIT)
    return replace(
        taken,
        satellite=other,
        start=start,
        relative_orbit=_EXTRA_ORBIT,
        absolute_orbit=orbit,
    )


def _jobs_of(
    granule: Granule, taken: Pass, special: str, granules: tuple[Granule, ...]
) -> list[Job]:
    whole = Job(granule, taken, taken.baseline)
    if special == "reprocessed" and granule == granules[1]:
        return [
            replace(whole, special="original"),
            replace(whole, baseline="05.00", special=special),
        ]
    if special == "split" and granule == granules[0]:
        return [replace(whole, cut=cut, special="split") for cut in ("upper", "lower")]
    if special in ("same-day", "extra"):
        return [replace(whole, special="same-day")]
    return [whole]


def _passes(options: ArchiveOptions, site: str) -> list[Pass]:
    """Thin the cadence: of each equal part of a year, keep the clearest of some candidates."""
    south = site == "south"
    orbits = _SOUTH_ORBITS if south else _NORTH_ORBITS
    kept: list[Pass] = []
    for year in options.years:
        candidates = [_draw_pass(options, site, *slot) for slot in _cadence(year, orbits)]
        n = options.dates_per_year
        if south:
            per_year = -(-options.southern_dates // len(options.years))
            n = min(per_year, options.southern_dates - len(kept))
        bins = np.minimum(np.arange(len(candidates)) * n // len(candidates), n - 1)
        for part in range(n):
            some = [c for c, b in zip(candidates, bins, strict=True) if b == part]
            # providers and users filter cloudy scenes; two of three fall to that here
            pick = generator(options.seed, site, year, part).permutation(len(some))[:2]
            kept.append(min((some[i] for i in sorted(pick)), key=lambda p: p.cloud_share))
    return sorted(kept, key=lambda taken: taken.start)


def _cadence(year: int, orbits: tuple[int, ...]) -> list[tuple[str, datetime, int]]:
    """List all passes of a year: (satellite, start, relative orbit)."""
    first, last = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    found = []
    for orbit in orbits:
        ahead = (orbit - 98) % _CYCLE_ORBITS * _CYCLE_D / _CYCLE_ORBITS
        for number, satellite in enumerate("AB"):
            phase = _EPOCH + timedelta(days=ahead + 5 * number)
            n = math.ceil((first - phase) / timedelta(days=_CYCLE_D))
            at = phase + timedelta(days=n * _CYCLE_D)
            while at < last:
                found.append((satellite, at.replace(microsecond=0), orbit))
                at += timedelta(days=_CYCLE_D)
    return sorted(found, key=lambda slot: slot[1])


def _absolute_orbit(satellite: str, start: datetime, relative: int) -> int:
    """Count orbits since launch so that they agree with the relative orbit."""
    flown = round((start - _EPOCH) / timedelta(days=_CYCLE_D / _CYCLE_ORBITS))
    guess, phase = (_EPOCH_ORBIT + flown, 2) if satellite == "A" else (37_233 + flown, -27)
    off = (guess + phase - (relative - 1) + _CYCLE_ORBITS // 2) % _CYCLE_ORBITS
    return guess - (off - _CYCLE_ORBITS // 2)


def _draw_pass(
    options: ArchiveOptions, site: str, satellite: str, start: datetime, orbit: int
) -> Pass:
    rng = generator(options.seed, "pass", site, satellite, f"{start:%Y%m%d}", orbit)
    second = int(rng.integers(0, 9))
    mean = min(options.cloud_share * 1.6, 0.97)  # thinning prefers the clearer of two
    share = float(rng.beta(0.55 * mean / (1 - mean), 0.55)) if mean > 0 else 0.0
    lat, lon = (48.62, 11.97) if site == "north" else (-9.5, 10.97)
    return Pass(
        satellite=satellite,
        start=start.replace(second=0) + timedelta(seconds=31 + second),
        relative_orbit=orbit,
        absolute_orbit=_absolute_orbit(satellite, start, orbit),
        site=site,
        cloud_share=share if share > 0.02 else 0.0,
        shift_px=_draw_shift(options, rng, start.date(), orbit),
        lat=lat,
        lon=lon,
        edge_x=east_edge_m(options) - 62.0 if orbit == _NORTH_ORBITS[1] else None,
    )


def _draw_shift(
    options: ArchiveOptions, rng: np.random.Generator, day: date, orbit: int
) -> tuple[float, float]:
    """Draw a registration error in pixels, larger before refinement, with a bias per orbit."""
    down, right = rng.normal(0.0, 1.0, 2)
    if not options.registration:
        return 0.0, 0.0
    sd, bias = (0.14, 0.05) if day >= REFINED_SINCE else (0.35, 0.3)
    side = 1.0 if orbit == _NORTH_ORBITS[0] else -1.0
    return float(np.clip(sd * down, -1.5, 1.5)), float(np.clip(sd * right + side * bias, -1.5, 1.5))


def sun_angles(when: datetime, lat: float, lon: float) -> tuple[float, float]:
    """Azimuth (clockwise from north) and elevation of the sun, in degrees.

    Source:
        Spencer 1971, Search 2(5), for declination and the equation of time; good to 0.3 degrees.
    """
    day = when.timetuple().tm_yday - 1 + when.hour / 24
    g = 2 * math.pi * day / 365
    declination = 0.006918 - 0.399912 * math.cos(g) + 0.070257 * math.sin(g)
    declination += -0.006758 * math.cos(2 * g) + 0.000907 * math.sin(2 * g)
    late = 229.18 * (
        0.000075
        + 0.001868 * math.cos(g)
        - 0.032077 * math.sin(g)
        - 0.014615 * math.cos(2 * g)
        - 0.040849 * math.sin(2 * g)
    )
    minutes = when.hour * 60 + when.minute + when.second / 60 + late + 4 * lon
    hour = math.radians(minutes / 4 - 180)
    phi = math.radians(lat)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(
        hour
    )
    west = math.atan2(
        math.sin(hour), math.cos(hour) * math.sin(phi) - math.tan(declination) * math.cos(phi)
    )
    return (math.degrees(west) + 180) % 360, math.degrees(math.asin(sine))


_EDGE_Y, _EDGE_SLOPE = 5_391_380.0, 0.23
"""Northing where ``Pass.edge_x`` is given, top of the southern granule, and the edge's lean."""


def beyond_swath_m(taken: Pass, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance eastwards beyond the edge of a pass's swath, in metres; negative inside.

    Args:
        taken: The pass.
        x: Eastings in the site's CRS, metres.
        y: Northings.

    Returns:
        Broadcast shape of x and y, float32; -inf where the pass sees everything.
    """
    if taken.edge_x is None:
        return np.full(np.broadcast_shapes(np.shape(x), np.shape(y)), -np.inf, np.float32)
    return np.asarray(x - taken.edge_x - _EDGE_SLOPE * (y - _EDGE_Y), np.float32)


def is_inside_cut(cut: str, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Tell which rows a datastrip holds; the two share some rows at the cut."""
    middle, shared = n_rows * 0.55, n_rows * 0.02
    if cut == "upper":
        return np.asarray(rows < middle + shared)
    if cut == "lower":
        return np.asarray(rows >= middle - shared)
    return np.ones(np.shape(rows), bool)


def footprint_share(job: Job) -> float:
    """Share of a granule that an item covers, from 32 x 32 points."""
    points = (np.arange(32) + 0.5) / 32
    size = job.granule.size_px * 10
    x, y = np.meshgrid(job.granule.x0 + points * size, job.granule.y0 - points * size)
    if job.granule.epsg == 32633:
        x, y = transformer(32633, 32632).transform(x, y)
    rows = np.broadcast_to(points[:, None], x.shape)
    inside = beyond_swath_m(job.taken, x, y) < 0
    return float((inside & is_inside_cut(job.cut, rows, 1)).mean())


def outline(job: Job) -> BaseGeometry:
    """Footprint of an item in metres of its granule's CRS."""
    import shapely

    x_min, y_min, x_max, y_max = job.granule.bounds
    edge = y_max - y_min
    top = y_max if job.cut != "lower" else y_max - math.ceil(edge * 0.53)
    bottom = y_min if job.cut != "upper" else y_max - math.floor(edge * 0.57)
    box = shapely.box(x_min, bottom, x_max, top)
    if job.taken.edge_x is None:
        return box
    y = np.array([y_max + 2000.0, y_min - 2000.0])
    x = job.taken.edge_x + _EDGE_SLOPE * (y - _EDGE_Y)
    if job.granule.epsg == 32633:
        x, y = transformer(32632, 32633).transform(x, y)
    west = x_min - 50_000
    swath = shapely.Polygon([(west, y[0]), (x[0], y[0]), (x[1], y[1]), (west, y[1])])
    return box.intersection(swath)
