"""What the catalogue lacks: every pass that the satellites' plan has over a place, named by date.

The expected passes follow from the orbits alone (``catalog.orbit``), so that a collection without
a single scene of an orbit is noticed as well. Nothing is said about why a pass is missing: the
satellite may not have sensed, the product may not have been made, the catalogue may not list it,
or the run's own filters left it out. ``ask_elsewhere`` tells the last three apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.catalog.facts import UNKNOWN_SATELLITE, ItemFacts, read_facts
from eoray.catalog.orbit import (
    DARK_DEG,
    SATELLITES,
    Satellite,
    look_from,
    orbits_seeing,
    pass_time,
    passes,
    sun_position,
)
from eoray.grid import Tiles, to_lonlat

if TYPE_CHECKING:
    import pystac
    from shapely.geometry.base import BaseGeometry

    from eoray.catalog.scene import Scene
    from eoray.grid import Tile

MAX_PLACES = 64
"""Tiles that are looked at; of more, so many are taken evenly."""

NOWHERE = "nowhere"
"""``Gap.found_in`` of a pass that nothing that was asked has."""

_SAME_PASS = timedelta(hours=6)
"""A datatake starts at most 40 minutes before it passes a place."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tile, as an audit sees it."""

    name: str
    """Id of the tile."""
    lon: float
    """Of its middle, or of a point of the area in it, degrees."""
    lat: float


@dataclass(frozen=True, slots=True)
class Cadence:
    """Passes of one satellite on one relative orbit over one place."""

    place: str
    relative_orbit: int
    satellite: str
    n_expected: int
    """Passes of the nominal plan in daylight, inside the swath."""
    n_found: int
    """Of these, passes of which the catalogue gave a scene over the place."""
    n_extra: int
    """Further passes that it gave: before or after the nominal service, at the edge of the swath,
    under a low sun, or on an orbit that this place is not known to be seen from."""
    missing: tuple[str, ...]
    """Days of the passes that it did not give, UTC, ISO."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A pass that the catalogue lacks over some places."""

    day: str
    """UTC, ISO."""
    satellite: str
    relative_orbit: int
    places: tuple[str, ...]
    """Where it is missing."""
    n_expected: int
    """Places that it passes over."""
    found_in: str = ""
    """Where else it was found, in words; "" when nobody asked."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from other passes."""
        return self.day, self.satellite, self.relative_orbit


@dataclass(frozen=True, slots=True)
class Audit:
    """The catalogue held against the plan of the satellites."""

    cadences: tuple[Cadence, ...]
    """Sorted by place, orbit and satellite."""
    gaps: tuple[Gap, ...]
    """Missing passes, sorted by day, satellite and orbit."""
    n_places: int
    n_tiles: int
    """Tiles of the run, of which ``n_places`` were looked at."""
    by_year: Mapping[int, tuple[int, int]]
    """Year -> (found, expected) passes, summed over places."""
    n_unnamed: int = 0
    """Scenes without satellite or orbit: they cannot be held against the plan."""

    @property
    def n_expected(self) -> int:
        """Expected passes, summed over places."""
        return sum(c.n_expected for c in self.cadences)

    @property
    def n_found(self) -> int:
        """Found ones of these."""
        return sum(c.n_found for c in self.cadences)

    @property
    def missing_share(self) -> float | None:
        """Share of the expected passes that the catalogue lacks; None where none is expected."""
        return 1.0 - self.n_found / self.n_expected if self.n_expected else None

    def by_orbit(self) -> dict[tuple[int, str], tuple[int, int]]:
        """(orbit, satellite) -> (found, expected), summed over places."""
        found: Counter[tuple[int, str]] = Counter()
        expected: Counter[tuple[int, str]] = Counter()
        for c in self.cadences:
            found[c.relative_orbit, c.satellite] += c.n_found
            expected[c.relative_orbit, c.satellite] += c.n_expected
        return {key: (found[key], n) for key, n in sorted(expected.items()) if n}

    def lines(self, *, worst: int = 5) -> list[str]:
        """The audit as a few lines of text for a terminal."""
        if self.missing_share is None:
            return ["archive   no pass is expected here (dark, or before the satellites)"]
        share = f"{100 * self.missing_share:.0f} % of {self.n_expected} expected passes missing"
        out = [f"archive   {share} (summed over {self.n_places} of {self.n_tiles} tiles)"]
        ranked = sorted(self.by_orbit().items(), key=lambda item: item[1][0] / item[1][1])
        for (orbit, satellite), (found, expected) in ranked[:worst]:
            if found < expected:
                out.append(f"          orbit {orbit:03d}, {satellite}: {found} of {expected}")
        out += [f"          {line}" for line in _longest(self.gaps, worst)]
        if self.n_unnamed:
            out.append(f"          {self.n_unnamed} scenes name no satellite or orbit")
        return out

    def summary(self) -> dict[str, Any]:
        """What a report says of the audit, as JSON values."""
        share = self.missing_share
        return {
            "missing_share": None if share is None else round(share, 4),
            "n_expected": self.n_expected,
            "n_found": self.n_found,
            "n_places": self.n_places,
            "n_tiles": self.n_tiles,
            "n_unnamed": self.n_unnamed,
            "by_year": {
                str(year): {"found": found, "expected": expected}
                for year, (found, expected) in self.by_year.items()
            },
            "by_orbit": [
                {
                    "relative_orbit": orbit,
                    "satellite": satellite,
                    "found": found,
                    "expected": expected,
                }
                for (orbit, satellite), (found, expected) in self.by_orbit().items()
            ],
            "longest": _longest(self.gaps, 10),
        }

    def to_dict(self) -> dict[str, Any]:
        """The whole audit as JSON values."""
        return {
            **self.summary(),
            "cadences": [
                {
                    "tile": c.place,
                    "relative_orbit": c.relative_orbit,
                    "satellite": c.satellite,
                    "found": c.n_found,
                    "expected": c.n_expected,
                    "extra": c.n_extra,
                    "missing": list(c.missing),
                }
                for c in self.cadences
            ],
            "gaps": [
                {
                    "day": g.day,
                    "satellite": g.satellite,
                    "relative_orbit": g.relative_orbit,
                    "tiles": list(g.places),
                    "of_tiles": g.n_expected,
                    **({"found_in": g.found_in} if g.found_in else {}),
                }
                for g in self.gaps
            ],
        }


def audit_scenes(
    scenes: Sequence[Scene],
    tiles: Sequence[Tile],
    *,
    start: datetime,
    end: datetime,
    aoi: BaseGeometry | None = None,
) -> Audit:
    """Hold the scenes of a run against the plan of the satellites.

    A pass is expected where the middle of a tile (or of the area in it) lies inside the swath and
    the sun stands high enough, and found where the outline of a scene of its satellite, orbit and
    day holds that point. So neither the swath's edge nor polar night counts as a gap.

    Args:
        scenes: Resolved scenes.
        tiles: Tiles of the run; of more than ``MAX_PLACES`` so many are taken evenly.
        start: Begin of the period, UTC.
        end: First instant after it, UTC.
        aoi: The area in lon/lat; None: all of the tiles.
    """
    places = _places(tiles, aoi)
    covering = _covering(scenes, places)
    cadences: list[Cadence] = []
    expected: dict[tuple[str, str, int], list[str]] = {}
    lacking: dict[tuple[str, str, int], list[str]] = {}
    years: dict[int, list[int]] = {}
    for place in places:
        for cadence, days in _cadences(place, covering[place.name], start, end):
            cadences.append(cadence)
            for day in days:
                key = (day, cadence.satellite, cadence.relative_orbit)
                is_missing = day in cadence.missing
                expected.setdefault(key, []).append(place.name)
                counts = years.setdefault(int(day[:4]), [0, 0])
                counts[0] += not is_missing
                counts[1] += 1
                if is_missing:
                    lacking.setdefault(key, []).append(place.name)
    gaps = [Gap(*key, tuple(lacking[key]), len(expected[key])) for key in sorted(lacking)]
    return Audit(
        tuple(cadences),
        tuple(gaps),
        len(places),
        len(tiles),
        {year: (n[0], n[1]) for year, n in sorted(years.items())},
        sum(not _is_named(scene) for scene in scenes),
    )


def ask_elsewhere(audit: Audit, found: Mapping[str, Iterable[pystac.Item]]) -> Audit:
    """Name for every gap where else the pass was found.

    Args:
        audit: What is missing.
        found: Words for what was asked -> its items; the first that has a pass is named.

    Returns:
        The audit with ``found_in`` set on every gap; ``nowhere`` where none has it.
    """
    where: dict[tuple[str, str, int], str] = {}
    for words, items in found.items():
        for item in items:
            facts = read_facts(item)
            if facts.relative_orbit and facts.satellite != UNKNOWN_SATELLITE and item.bbox:
                west, south, east, north = item.bbox[:2] + item.bbox[-2:]
                lon = (west + (east + 360 * (east < west))) / 2
                key = _pass_over(facts, (lon + 180) % 360 - 180, (south + north) / 2)
                where.setdefault(key, words)
    gaps = [replace(gap, found_in=where.get(gap.key, NOWHERE)) for gap in audit.gaps]
    return replace(audit, gaps=tuple(gaps))


def _is_named(scene: Scene) -> bool:
    return scene.relative_orbit > 0 and scene.satellite != UNKNOWN_SATELLITE


def _pass_over(one: Scene | ItemFacts, lon: float, lat: float) -> tuple[str, str, int]:
    """Day over the place, which may be the one after the datatake's start; satellite, orbit."""
    begun = datetime.fromisoformat(one.sensing_time)
    at = pass_time(one.relative_orbit, lon, lat, begun)
    if abs(at - begun) > _SAME_PASS:  # an orbit that does not pass here: its own word
        at = begun
    return at.date().isoformat(), one.satellite, one.relative_orbit


def _places(tiles: Sequence[Tile], aoi: BaseGeometry | None) -> list[Place]:
    chosen: Sequence[Tile] = Tiles.of(tiles)
    if len(chosen) > MAX_PLACES:
        at = np.linspace(0, len(chosen) - 1, MAX_PLACES).round().astype(int)
        chosen = [chosen[i] for i in at]
    return [_place(tile, aoi) for tile in chosen]


def _place(tile: Tile, aoi: BaseGeometry | None) -> Place:
    """The middle of a tile, or of the area's part in it."""
    import shapely

    x0, y0, x1, y1 = tile.bounds
    x, y = np.array([x0, x1, x1, x0, (x0 + x1) / 2]), np.array([y0, y0, y1, y1, (y0 + y1) / 2])
    lon, lat = to_lonlat(tile.lattice, x, y)
    middle = shapely.Point(lon[4], lat[4])
    if aoi is not None and np.ptp(lon) < 180 and not aoi.intersects(middle):
        part = shapely.Polygon(np.stack([lon[:4], lat[:4]], axis=1)).intersection(aoi)
        middle = middle if part.is_empty else part.point_on_surface()
    return Place(tile.id, float(middle.x), float(middle.y))


def _covering(scenes: Sequence[Scene], places: Sequence[Place]) -> dict[str, list[Scene]]:
    """Scenes whose outline holds the middle of each place."""
    import shapely

    named = [scene for scene in scenes if _is_named(scene)]
    outlines = shapely.from_wkb([scene.footprint for scene in named])
    tree = shapely.STRtree(outlines)
    points = shapely.points([(place.lon, place.lat) for place in places])
    covering: dict[str, list[Scene]] = {place.name: [] for place in places}
    for i, j in tree.query(points, predicate="intersects").T:
        covering[places[i].name].append(named[j])
    return covering


def _cadences(
    place: Place, scenes: Sequence[Scene], start: datetime, end: datetime
) -> Iterable[tuple[Cadence, list[str]]]:
    """Each orbit and satellite over a place, with the days that are expected."""
    seen: dict[tuple[int, str], set[str]] = {}
    for scene in scenes:
        day, satellite, orbit = _pass_over(scene, place.lon, place.lat)
        seen.setdefault((orbit, satellite), set()).add(day)
    wanted = {
        (orbit, satellite.name): _expected(satellite, orbit, place, start, end)
        for orbit in orbits_seeing(place.lon, place.lat)
        if look_from(orbit, place.lon, place.lat).is_sure
        for satellite in SATELLITES
    }
    for orbit, satellite in sorted({*seen, *wanted}):
        days = wanted.get((orbit, satellite), [])
        found = seen.get((orbit, satellite), set())
        missing = tuple(day for day in days if day not in found)
        if days or found:
            n_found = len(days) - len(missing)
            extra = len(found - set(days))
            yield (
                Cadence(place.name, orbit, satellite, len(days), n_found, extra, missing),
                days,
            )


def _expected(
    satellite: Satellite, orbit: int, place: Place, start: datetime, end: datetime
) -> list[str]:
    times = passes(satellite, orbit, place.lon, place.lat, start, end)
    return [
        at.date().isoformat()
        for at in times
        if sun_position(at, place.lon, place.lat)[0] <= DARK_DEG
    ]


def _longest(gaps: Sequence[Gap], worst: int) -> list[str]:
    """The longest runs of days on which every expected pass is missing everywhere."""
    lost = [gap for gap in gaps if len(gap.places) == gap.n_expected]
    runs: list[list[Gap]] = []
    last: dict[tuple[str, int], list[Gap]] = {}
    for gap in lost:
        key = (gap.satellite, gap.relative_orbit)
        run = last.get(key)
        if run and _days_between(run[-1].day, gap.day) <= 10:
            run.append(gap)
        else:
            last[key] = [gap]
            runs.append(last[key])
    runs.sort(key=lambda run: (-len(run), run[0].key))
    return [_described(run) for run in runs[:worst]]


def _described(run: Sequence[Gap]) -> str:
    first, final = run[0], run[-1]
    who = f"{first.satellite} on orbit {first.relative_orbit:03d}"
    found: Counter[str] = Counter(gap.found_in for gap in run if gap.found_in)
    where = "; ".join(f"{n} {words}" for words, n in found.most_common())
    what = (
        f"no scene of {first.day}"
        if len(run) == 1
        else f"no scene from {first.day} to {final.day}, {len(run)} passes"
    )
    return f"{who}: {what}" + (f" ({where})" if where else "")


def _days_between(first: str, second: str) -> int:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).days
