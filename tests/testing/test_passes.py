from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from eoray.testing import ArchiveOptions
from eoray.testing.frame import list_granules
from eoray.testing.passes import REFINED_SINCE, Job, plan_jobs, sun_angles


@pytest.fixture(scope="module")
def jobs() -> tuple[Job, ...]:
    options = ArchiveOptions()
    return plan_jobs(options, list_granules(options))


def test_ids_are_unique_and_plans_repeat(jobs: tuple[Job, ...]) -> None:
    options = ArchiveOptions()
    assert len({job.id for job in jobs}) == len(jobs)
    assert plan_jobs(options, list_granules(options)) == jobs
    other = replace(options, seed=2)
    assert plan_jobs(other, list_granules(other)) != jobs


def test_each_year_has_its_dates_on_two_orbits(jobs: tuple[Job, ...]) -> None:
    north = {job.taken for job in jobs if job.taken.site == "north"}
    years = Counter(taken.start.year for taken in north if taken.relative_orbit != 122)
    assert years == {2020: 24, 2021: 24, 2022: 24}
    orbits = Counter(taken.relative_orbit for taken in north)
    assert min(orbits[22], orbits[65]) > 20
    assert len({taken.key for taken in north}) == len(north)


def test_orbits_repeat_after_ten_days_and_agree_with_the_absolute_orbit(
    jobs: tuple[Job, ...],
) -> None:
    for taken in {job.taken for job in jobs}:
        phase = 2 if taken.satellite == "A" else -27
        assert (taken.absolute_orbit + phase) % 143 + 1 == taken.relative_orbit
    of_a = sorted(
        job.taken.start.date()
        for job in jobs
        if (job.taken.satellite, job.taken.relative_orbit) == ("A", 22)
    )
    assert {(day - of_a[0]).days % 10 for day in of_a} == {0}


def test_registration_is_worse_before_refinement(jobs: tuple[Job, ...]) -> None:
    shifts: dict[bool, list[float]] = {True: [], False: []}
    for taken in {job.taken for job in jobs}:
        shifts[taken.day >= REFINED_SINCE].append(float(np.hypot(*taken.shift_px)))
    assert np.mean(shifts[False]) > 2 * np.mean(shifts[True])


def test_special_items_are_there(jobs: tuple[Job, ...]) -> None:
    special: dict[str, list[Job]] = {}
    for job in jobs:
        special.setdefault(job.special, []).append(job)
    (original,), (again,) = special["original"], special["reprocessed"]
    assert (original.taken, original.granule) == (again.taken, again.granule)
    assert original.baseline < again.baseline
    assert original.generated < again.generated
    upper, lower = special["split"]
    assert (upper.taken, upper.granule, upper.baseline) == (
        lower.taken,
        lower.granule,
        lower.baseline,
    )
    assert upper.sensed != lower.sensed
    day = {job.taken.key: job.taken for job in special["same-day"]}
    assert len(day) == 2
    assert len({taken.day for taken in day.values()}) == 1
    by_pass: dict[str, set[int]] = {}
    for job in jobs:
        by_pass.setdefault(job.taken.key, set()).add(job.granule.epsg)
    assert {32632, 32633} in by_pass.values()
    assert {32732} in by_pass.values()


def test_granules_of_a_zone_overlap_off_the_world_grid() -> None:
    south, north, neighbour, other = list_granules(ArchiveOptions())
    assert north.bounds[1] + 1000 == south.bounds[3]
    for granule in (south, north, neighbour, other):
        assert granule.x0 % 20 == 0
        assert granule.y0 % 20 == 0
        assert granule.x0 % 10_240
        assert (granule.y0 - (10_000_000 if granule.epsg > 32700 else 0)) % 10_240


def test_sun_stands_in_the_south_at_noon_and_lower_in_winter() -> None:
    noon = datetime(2021, 6, 21, 11, 14, tzinfo=UTC)
    azimuth, elevation = sun_angles(noon, 48.6, 11.97)
    assert azimuth == pytest.approx(180, abs=2)
    assert elevation == pytest.approx(90 - 48.6 + 23.44, abs=0.5)
    assert sun_angles(noon + timedelta(days=183), 48.6, 11.97)[1] == pytest.approx(18.0, abs=0.7)
