"""When Sentinel-2 passes, and at what angle: against metadata of real products."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pystac
import pytest
from pyproj import Transformer
from shapely.geometry import shape

from eoray.catalog.facts import ItemFacts, read_facts
from eoray.catalog.orbit import (
    SATELLITES,
    SWATH_DEG,
    Satellite,
    look_from,
    orbits_seeing,
    pass_time,
    passes,
    sun_position,
)

Load = Callable[[str], list[pystac.Item]]

WITH_VIEW = (
    "stac/cdse/search_202007_4items.json",
    "stac/earth-search-v1/c1_item-collection.json",
    "stac/stactools/S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE.json",
    "stac/stactools/S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE.json",
)
SENSED = (
    "stac/earth-search-v1/c1_item-collection.json",
    "stac/earth-search-v1/S2B_33TWL_20230810_0_L2A.json",
    "stac/earth-search-v1/S2B_33TWL_20230813_0_L2A.json",
    "stac/earth-search-v0/S2A_28QCH_20200714_0_L2A.json",
    "stac/earth-search-v0/S2A_33UXP_20220402_0_L2A.json",
)
SUNLIT = (
    *WITH_VIEW[:2],
    "stac/planetary-computer/site1-20200606-tall-strip-africa.geojson",
    "stac/planetary-computer/site2-2020_jun_jul-35MNM.geojson",
)


def seen(load: Load, names: tuple[str, ...]) -> list[tuple[ItemFacts, pystac.Item, float, float]]:
    """Items with the middle of their outline."""
    found = []
    for name in names:
        for item in load(name):
            middle = shape(item.geometry).centroid
            found.append((read_facts(item), item, middle.x, middle.y))
    return found


def satellite(name: str) -> Satellite:
    return next(one for one in SATELLITES if one.name == name)


def test_view_angles_are_those_of_real_items(load: Load) -> None:
    oblique = 0
    for facts, _, lon, lat in seen(load, WITH_VIEW):
        look = look_from(facts.relative_orbit, lon, lat)
        if facts.view_zenith < 5:  # a granule's mean of angles on both sides of the track
            assert look.view_zenith < 5
            continue
        oblique += 1
        assert look.view_zenith == pytest.approx(facts.view_zenith, abs=0.2)
        assert (look.view_azimuth - facts.view_azimuth + 180) % 360 - 180 == pytest.approx(0, abs=6)
    assert oblique >= 8


def test_view_angles_are_those_of_the_metadata_of_a_granule(shared_data: Path) -> None:
    (path,) = (shared_data / "safe").glob("**/MTD_TL.xml")
    root = ET.parse(path).getroot()
    to_lonlat = Transformer.from_crs(32631, 4326, always_xy=True)
    corner = root.find('.//Geoposition[@resolution="10"]')
    assert corner is not None
    x0, y0 = (float(corner.findtext(name) or "nan") for name in ("ULX", "ULY"))
    errors = []
    for band in ("1", "7", "8", "11", "12"):  # blue to short-wave infrared, up to 2.5 s apart
        for i, j, zenith in _mean_zenith(root, band):
            lon, lat = to_lonlat.transform(x0 + 5000 * j, y0 - 5000 * i)
            errors.append(look_from(51, lon, lat).view_zenith - zenith)
    assert len(errors) > 500
    assert np.abs(errors).max() < 0.3
    assert abs(np.mean(errors)) < 0.15


def _mean_zenith(root: ET.Element, band: str) -> list[tuple[int, int, float]]:
    """Row, column and mean view zenith of all detectors on the 5 km grid."""
    grids = [
        np.array([[float(v) for v in (row.text or "").split()] for row in zenith.iter("VALUES")])
        for one in root.iter("Viewing_Incidence_Angles_Grids")
        if one.get("bandId") == band
        for zenith in one.iter("Zenith")
    ]
    stack = np.array(grids)
    rows, cols = np.nonzero(~np.isnan(stack).all(axis=0))
    return [
        (int(i), int(j), float(np.nanmean(stack[:, i, j]))) for i, j in zip(rows, cols, strict=True)
    ]


def test_passes_are_timed_to_the_sensing_of_real_items(load: Load) -> None:
    for facts, item, lon, lat in seen(load, SENSED):
        if item.datetime is None or not facts.satellite.startswith("S2"):
            continue
        at = pass_time(facts.relative_orbit, lon, lat, facts.start)
        assert abs((at - item.datetime).total_seconds()) < 30, item.id


def test_the_plan_has_the_passes_of_real_items(load: Load) -> None:
    for facts, item, lon, lat in seen(load, SENSED):
        day = facts.start.replace(hour=0, minute=0, second=0)
        found = passes(
            satellite(facts.satellite), facts.relative_orbit, lon, lat, day, day + timedelta(days=1)
        )
        assert [at.date() for at in found] == [day.date()], item.id


@pytest.mark.parametrize(
    ("name", "start", "orbit", "lon", "lat"),
    [
        ("S2C", "2025-05-27T10:56:41", 94, 2.0, 47.0),
        ("S2C", "2025-03-26T03:36:01", 61, 106.0, 18.0),
        ("S2C", "2025-06-26T13:03:11", 95, -44.0, -20.0),
        ("S2C", "2025-03-23T01:47:11", 17, 133.0, 34.0),
        ("S2B", "2025-05-22T10:56:19", 94, 2.0, 47.0),
        ("S2A", "2018-01-01T10:54:41", 51, 2.0, 47.0),
    ],
)
def test_the_plan_has_the_passes_of_product_names(
    name: str, start: str, orbit: int, lon: float, lat: float
) -> None:
    begun = datetime.fromisoformat(start).replace(tzinfo=UTC)
    around = (begun - timedelta(days=3), begun + timedelta(days=3))
    (at,) = passes(satellite(name), orbit, lon, lat, *around)
    assert timedelta(0) <= at - begun < timedelta(minutes=40)


def test_the_sun_stands_where_real_items_say(load: Load) -> None:
    whole = 0
    for facts, item, lon, lat in seen(load, SUNLIT):
        west, south, east, north = item.bbox or (0, 0, 0, 0)
        if math.isnan(facts.sun_zenith) or (east - west) * math.cos(math.radians(lat)) < 0.9:
            continue  # the mean of a granule is that of its middle, the outline may be a sliver
        at = pass_time(facts.relative_orbit, lon, lat, facts.start)
        zenith, azimuth = sun_position(at, lon, lat)
        assert zenith == pytest.approx(facts.sun_zenith, abs=0.1)
        assert azimuth == pytest.approx(facts.sun_azimuth, abs=0.3)
        assert north > south
        whole += 1
    assert whole >= 8


def test_two_orbits_see_upper_bavaria_one_the_equator_and_many_the_arctic() -> None:
    assert orbits_seeing(11.97, 48.62) == (22, 65)
    assert len(orbits_seeing(10.97, -9.5)) == 1
    assert len(orbits_seeing(15.9, 80.1)) > 12
    assert orbits_seeing(16.0, 84.0) == ()


@pytest.mark.parametrize("lat", [-56.0, -20.0, 0.0, 35.0, 60.0, 75.0])
def test_no_place_is_left_out(lat: float) -> None:
    for lon in np.arange(-180.0, 180.0, 7.3):
        found = orbits_seeing(float(lon), lat)
        assert found
        assert all(look_from(o, float(lon), lat).view_zenith <= SWATH_DEG for o in found)


def test_passes_repeat_in_ten_days_and_the_second_satellite_halves_them() -> None:
    start, end = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    one = passes(satellite("S2A"), 22, 11.97, 48.62, start, end)
    other = passes(satellite("S2B"), 22, 11.97, 48.62, start, end)
    assert {b - a for a, b in itertools.pairwise(one)} == {timedelta(days=10)}
    assert len(one) + len(other) == 73
    assert {abs(a - b) % timedelta(days=10) for a in one[:5] for b in other[:5]} == {
        timedelta(days=5)
    }


def test_passes_end_with_the_service_of_a_satellite() -> None:
    start, end = datetime(2015, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    for one in SATELLITES:
        found = passes(one, 22, 11.97, 48.62, start, end)
        assert one.since <= found[0].date() < one.since + timedelta(days=10)
        last = one.until or date(2026, 1, 1)
        assert last - timedelta(days=10) <= found[-1].date() < last
