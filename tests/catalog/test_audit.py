"""The passes that a catalogue lacks are named, each and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pystac
import pytest
import shapely

from eoray.catalog.audit import NOWHERE, Audit, ask_elsewhere, audit_scenes
from eoray.catalog.lineage import Lineage
from eoray.catalog.orbit import SATELLITES, orbits_seeing, pass_time, passes, sun_position
from eoray.catalog.scene import Scene, resolve_scenes
from eoray.grid import Tile, box_lonlat, tiles_of_geometry

Make = Callable[..., pystac.Item]
Load = Callable[[str], list[pystac.Item]]

ANY = Lineage(baseline_min=None, mixed=True)
MUNICH = (11.97, 48.62)
BOX = (11.8, 48.5, 12.1, 48.7)
START, END = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)


def tiles_at(lon: float, lat: float) -> list[Tile]:
    return tiles_of_geometry(box_lonlat(lon - 1e-4, lat - 1e-4, lon + 1e-4, lat + 1e-4))[:1]


def items_of(
    make: Make,
    place: tuple[float, float] = MUNICH,
    period: tuple[datetime, datetime] = (START, END),
    box: tuple[float, float, float, float] = BOX,
    orbits: Iterable[int] | None = None,
) -> list[pystac.Item]:
    """One item for every pass of the plan, as a complete archive would have."""
    found = []
    for satellite in SATELLITES:
        for orbit in orbits or orbits_seeing(*place):
            for at in passes(satellite, orbit, *place, *period):
                # the datatake begins in the north, minutes before it passes the place
                start = f"{at - timedelta(minutes=9):%Y%m%dT%H%M%S}"
                found.append(make(satellite=satellite.name, start=start, orbit=orbit, box=box))
    return found


def audit(
    items: Iterable[pystac.Item],
    place: tuple[float, float] = MUNICH,
    period: tuple[datetime, datetime] = (START, END),
    tiles: list[Tile] | None = None,
    aoi: Any = None,
) -> Audit:
    scenes: tuple[Scene, ...] = ()
    unique = list(items)
    if unique:
        scenes = resolve_scenes(unique, lineage=ANY, bands=["B04"]).scenes
    chosen = tiles_at(*place) if tiles is None else tiles
    around = shapely.Point(place).buffer(1e-4) if aoi is None else aoi
    return audit_scenes(scenes, chosen, start=period[0], end=period[1], aoi=around)


@pytest.fixture(scope="module")
def complete(make: Make) -> list[pystac.Item]:
    return items_of(make)


def test_a_complete_archive_lacks_nothing(complete: list[pystac.Item]) -> None:
    found = audit(complete)
    assert found.missing_share == 0
    assert found.n_expected == len(complete) == 146
    assert (found.gaps, found.by_year) == ((), {2019: (146, 146)})
    assert {(c.relative_orbit, c.satellite, c.n_extra) for c in found.cadences} == {
        (orbit, name, 0) for orbit in (22, 65) for name in ("S2A", "S2B")
    }


def test_exactly_the_withheld_passes_are_named(complete: list[pystac.Item]) -> None:
    withheld = complete[3::17]
    rest = [item for item in complete if item not in withheld]
    found = audit(rest)
    wanted = {
        (str(item.datetime)[:10], f"S2{item.properties['platform'][-1].upper()}")
        for item in withheld
    }
    assert {(gap.day, gap.satellite) for gap in found.gaps} == wanted
    assert len(found.gaps) == len(withheld)
    assert found.missing_share == pytest.approx(len(withheld) / len(complete))


def test_an_orbit_without_a_single_scene_is_noticed(make: Make) -> None:
    found = audit(items_of(make, orbits=[22]))
    assert found.by_orbit() == {
        (22, "S2A"): (37, 37),
        (22, "S2B"): (36, 36),
        (65, "S2A"): (0, 36),
        (65, "S2B"): (0, 37),
    }
    assert "no scene from 2019-01-" in "\n".join(found.lines())
    assert "37 passes" in "\n".join(found.lines())


def test_an_empty_catalogue_lacks_everything_and_a_dark_place_nothing() -> None:
    assert audit([]).missing_share == 1
    winter = (datetime(2019, 12, 1, tzinfo=UTC), datetime(2020, 1, 15, tzinfo=UTC))
    night = audit([], place=(15.6, 78.2), period=winter)
    assert (night.n_expected, night.missing_share) == (0, None)
    assert "no pass is expected" in night.lines()[0]


def test_low_sun_at_the_end_of_polar_night_is_no_gap(make: Make) -> None:
    svalbard, spring = (
        (15.6, 78.2),
        (
            datetime(2019, 2, 1, tzinfo=UTC),
            datetime(2019, 4, 1, tzinfo=UTC),
        ),
    )
    orbit = orbits_seeing(*svalbard)[0]
    everything = items_of(make, svalbard, spring, (15.0, 78.0, 16.2, 78.4), [orbit])
    found = audit(everything, svalbard, spring)
    mine = [c for c in found.cadences if c.relative_orbit == orbit]
    assert sum(len(c.missing) for c in mine) == 0
    assert sum(c.n_extra for c in mine) > 0
    assert sum(c.n_expected + c.n_extra for c in mine) == len(everything)
    assert sun_position(pass_time(orbit, *svalbard, spring[0]), *svalbard)[0] > 82


def test_the_edge_of_a_swath_is_not_expected_but_counts(make: Make) -> None:
    """Between two places 40 km apart the swath of orbit 65 ends."""
    inside, outside = (12.2, 48.62), (12.95, 48.62)
    assert 65 in orbits_seeing(*inside)
    assert 65 not in orbits_seeing(*outside)
    scenes = items_of(make, inside, box=(11.0, 48.0, 12.5, 49.0), orbits=[65])
    there = {c.relative_orbit for c in audit(scenes, outside).cadences if c.n_expected}
    assert 65 not in there
    wide = items_of(make, inside, box=(11.0, 48.0, 13.5, 49.0), orbits=[65])
    at_edge = [c for c in audit(wide, outside).cadences if c.relative_orbit == 65]
    assert {(c.n_expected, c.n_found) for c in at_edge} == {(0, 0)}
    assert sum(c.n_extra for c in at_edge) == len(wide)


def test_a_scene_that_does_not_reach_the_place_is_no_find(make: Make) -> None:
    beside = items_of(make, box=(11.0, 47.0, 11.5, 48.0))
    assert audit(beside).missing_share == 1


def test_a_datatake_over_midnight_is_of_the_day_on_which_it_passes(make: Make) -> None:
    """Orbit 116 begins at 23:58 UTC and passes Kamchatka's north after midnight."""
    place, period = (
        (173.2, 58.0),
        (
            datetime(2019, 6, 1, tzinfo=UTC),
            datetime(2019, 7, 1, tzinfo=UTC),
        ),
    )
    items = items_of(make, place, period, (172.5, 57.5, 174.0, 58.5), [116])
    days = {str(item.datetime)[:10] for item in items}
    found = [c for c in audit(items, place, period).cadences if c.relative_orbit == 116]
    assert [c.missing for c in found] == [(), ()]
    assert sum(c.n_found for c in found) == len(items)
    assert all(day.startswith("2019-0") for day in days)


def test_satellites_before_and_after_their_service_are_extra(make: Make) -> None:
    early = (datetime(2017, 4, 1, tzinfo=UTC), datetime(2017, 7, 1, tzinfo=UTC))
    (at, *_) = passes(SATELLITES[0], 22, *MUNICH, *early)
    sister = make(satellite="S2B", start=f"{at + timedelta(days=5):%Y%m%dT%H%M%S}", orbit=22)
    sister.geometry = shapely.geometry.mapping(shapely.box(*BOX))
    found = {(c.relative_orbit, c.satellite): c for c in audit([sister], period=early).cadences}
    assert (found[22, "S2B"].n_expected, found[22, "S2B"].n_extra) == (0, 1)
    late = (datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC))
    assert {c.satellite for c in audit([], period=late).cadences} == {"S2B", "S2C"}


def test_scenes_without_an_orbit_are_counted_apart(make: Make) -> None:
    item = make(box=BOX, name="nameless")
    for name in ("s2:datatake_id", "s2:product_uri", "s2:datastrip_id", "platform"):
        del item.properties[name]
    found = audit([item])
    assert (found.n_unnamed, found.missing_share) == (1, 1)
    assert "1 scenes name no satellite or orbit" in "\n".join(found.lines())


def test_what_was_found_elsewhere_is_named(complete: list[pystac.Item]) -> None:
    cloudy, other, lost = complete[5], complete[50], complete[90]
    rest = [item for item in complete if item not in (cloudy, other, lost)]
    found = ask_elsewhere(
        audit(rest), {"left out by a filter": [cloudy], "in collection b": [other, cloudy]}
    )
    assert sorted(gap.found_in for gap in found.gaps) == sorted(
        ["left out by a filter", "in collection b", NOWHERE]
    )
    assert NOWHERE in "\n".join(found.lines())


def test_a_large_area_is_audited_on_tiles_taken_evenly() -> None:
    tiles = list(tiles_of_geometry(box_lonlat(10.0, 47.5, 12.5, 49.0)))
    assert len(tiles) > 64
    week = (START, START + timedelta(days=10))
    found = audit([], tiles=tiles, period=week, aoi=box_lonlat(10.0, 47.5, 12.5, 49.0))
    assert (found.n_places, found.n_tiles) == (64, len(tiles))
    every = {len(gap.places) for gap in found.gaps}
    assert max(every) > 30
    assert all(len(gap.places) == gap.n_expected for gap in found.gaps)


def test_the_audit_is_plain_json(complete: list[pystac.Item]) -> None:
    told = json.loads(json.dumps(audit(complete[1:]).to_dict()))
    assert (told["n_expected"], told["n_found"]) == (146, 145)
    assert told["gaps"][0]["tiles"] == [tiles_at(*MUNICH)[0].id]
    assert told["by_year"] == {"2019": {"expected": 146, "found": 145}}
    assert sum(len(c["missing"]) for c in told["cadences"]) == 1


def test_real_items_are_passes_of_the_plan(load: Load) -> None:
    """Ten items of one granule in April 2024: nothing is extra, and gaps have the right phase."""
    items = load("stac/earth-search-v1/c1_item-collection.json")
    scenes = resolve_scenes(items, lineage=ANY, bands=["B04"]).scenes
    place = (-105.0, 40.2)
    days = {str(item.datetime)[:10] for item in items}
    start = datetime.fromisoformat(min(days)).replace(tzinfo=UTC)
    end = datetime.fromisoformat(max(days)).replace(tzinfo=UTC) + timedelta(days=1)
    found = audit_scenes(scenes, tiles_at(*place), start=start, end=end)
    assert sum(c.n_extra for c in found.cadences) == 0
    assert sum(c.n_found for c in found.cadences) >= 4
    assert not days & {gap.day for gap in found.gaps if gap.relative_orbit == 98}


def test_real_items_by_the_antimeridian_under_a_low_sun_are_found(load: Load) -> None:
    """33 items of one datatake of midwinter, whose sun stands 80 to 83 degrees from the zenith."""
    items = load("stac/planetary-computer/search_20190101_antimeridian_33items.json")
    scenes = resolve_scenes(items, lineage=ANY, bands=["B04"]).scenes
    day = (datetime(2019, 1, 1, tzinfo=UTC), datetime(2019, 1, 2, tzinfo=UTC))
    lower, higher = (
        audit_scenes(scenes, tiles_at(171.9, y), start=day[0], end=day[1]) for y in (57.2, 58.75)
    )
    assert [(c.n_found, c.missing) for c in lower.cadences if c.n_expected] == [(1, ())]
    assert [(c.n_expected, c.n_extra) for c in higher.cadences if c.relative_orbit == 116] == [
        (0, 1)
    ]
