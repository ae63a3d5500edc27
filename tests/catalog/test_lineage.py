"""What a cube may hold, and what the archive lacks of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pystac
import pytest

from eoray.catalog.lineage import (
    Lineage,
    baseline_family,
    check_lineage,
    describe_lineage,
)
from eoray.catalog.scene import Scene, resolve_scenes
from eoray.errors import ConfigError

Make = Callable[..., pystac.Item]
Resolve = Callable[..., Scene]


@pytest.fixture
def scene(make: Make) -> Resolve:
    def build(**changes: Any) -> Scene:
        anything = Lineage(baseline_min=None, mixed=True)
        return resolve_scenes([make(**changes)], lineage=anything, bands=["B04"]).scenes[0]

    return build


@pytest.mark.parametrize(
    ("baseline", "family"),
    [
        ("02.14", "before 04.00"),
        ("04.00", "04"),
        ("05.00", "collection 1 (05.00 or later)"),
        ("05.11", "collection 1 (05.00 or later)"),
        ("05.10+05.11", "collection 1 (05.00 or later)"),
        ("03.01+05.11", "before 04.00 + collection 1 (05.00 or later)"),
        ("99.99", "99.99"),
        ("", "unknown"),
        ("?", "unknown"),
    ],
)
def test_baselines_have_families(baseline: str, family: str) -> None:
    assert baseline_family(baseline) == family


def test_collection_1_is_one_lineage(scene: Resolve) -> None:
    scenes = [scene(baseline=b) for b in ("05.00", "05.09", "05.11")]
    check_lineage(scenes, Lineage())
    assert Lineage().includes("05.00")
    assert not Lineage().includes("99.99")
    assert Lineage(baseline_min="99.99").includes("99.99")


@pytest.mark.parametrize("baseline", ["04.00", "02.14", "99.99"])
def test_a_baseline_outside_the_lineage_is_refused(scene: Resolve, baseline: str) -> None:
    strange = scene(baseline=baseline, offset=-0.1 if baseline == "99.99" else None)
    with pytest.raises(ConfigError, match=rf"1 of 2 scenes .*{baseline} \(1\)"):
        check_lineage([scene(), strange], Lineage())
    check_lineage([scene(), strange], Lineage(mixed=True))


def test_without_a_floor_one_family_is_accepted_and_two_are_not(scene: Resolve) -> None:
    old, older, new = (scene(baseline=b) for b in ("02.14", "02.05", "05.10"))
    check_lineage([old, older], Lineage(baseline_min=None))
    with pytest.raises(ConfigError, match=r"mix processing baselines \(before 04.00, collection 1"):
        check_lineage([old, new], Lineage(baseline_min=None))


def test_two_providers_are_refused(scene: Resolve) -> None:
    other = scene(collection="sentinel-2-l2a", **{"s2:mgrs_tile": "32TQM"})
    with pytest.raises(ConfigError, match=r"2 providers \(earth-search-c1 \(1\), planetary"):
        check_lineage([scene(), other], Lineage())


def test_counts_are_of_dates_not_of_items(make: Make) -> None:
    items = [
        make(granule="32TQM", **{"eoray:refined": True}),
        make(granule="32TQN", **{"eoray:refined": True}),
        make(start="20240604T174909", satellite="S2A", **{"eoray:refined": False}),
    ]
    report = describe_lineage(resolve_scenes(items, lineage=Lineage(), bands=["B04"]).scenes)
    assert (report.n_scenes, report.n_datatakes) == (3, 2)
    assert report.by_baseline == (("05.10", 2),)
    assert report.by_satellite == (("S2A", 1), ("S2B", 1))
    assert report.by_refined == (("not refined", 1), ("refined", 1))
    assert report.by_offset_rule == (("c1-declared -1000", 2),)
    assert report.lines()[0] == "2 datatakes in 3 items"
    assert json.loads(json.dumps(report.to_dict()))["by_baseline"] == {"05.10": 2}


def test_nothing_gives_an_empty_report() -> None:
    report = describe_lineage([])
    assert (report.n_scenes, report.by_satellite) == (0, ())


def test_the_lineage_is_stored_as_plain_values() -> None:
    assert Lineage(mixed=True).parameters() == {
        "baseline_min": "05.00",
        "mixed": True,
        "provider": "",
    }
