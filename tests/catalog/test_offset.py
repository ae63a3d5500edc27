"""The offset table: on every real answer, then row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pystac
import pytest

from eoray.catalog.lineage import Lineage
from eoray.catalog.offset import OffsetFacts, OffsetRule, resolve_offset
from eoray.catalog.scene import resolve_scenes
from eoray.errors import CatalogError, ConfigError

ANY = Lineage(baseline_min=None, mixed=True)

MAJORTOM = "S2B_MSIL2A_20200223T032739_N9999_R018_T48QUE_20230924T183543"

REAL = [
    ("stac/cdse/issue1043_20200322.json", "05.00", -1000, "cdse-declared"),
    ("stac/cdse/search_202007_4items.json", "05.00", -1000, "cdse-declared"),
    ("stac/earth-search-v0/S2A_28QCH_20200714_0_L2A.json", "02.14", 0, "es0-before-0400"),
    ("stac/earth-search-v0/S2A_33UWP_20220405_0_L2A.json", "04.00", 0, "es0-flag-applied"),
    ("stac/earth-search-v0/S2A_33UXP_20220402_0_L2A.json", "04.00", 0, "es0-flag-applied"),
    ("stac/earth-search-v0/raster-ext_item-sentinel2.json", "02.14", 0, "es0-before-0400"),
    ("stac/earth-search-v1/S2B_33TWL_20230810_0_L2A.json", "05.09", 0, "es-flag-applied"),
    ("stac/earth-search-v1/S2B_33TWM_20230810_0_L2A.json", "05.09", 0, "es-flag-applied"),
    ("stac/earth-search-v1/S2B_33TWL_20230813_0_L2A.json", "05.09", 0, "es-flag-applied"),
    ("stac/earth-search-v1/search_point_s2_landsat_20231008.json", "05.09", 0, "es-flag-applied"),
    ("stac/earth-search-v1/c1_item-collection.json", "05.10", -1000, "c1-declared"),
    (
        "stac/planetary-computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json",
        "02.12",
        0,
        "pc-baseline",
    ),
    (
        "stac/planetary-computer/search_20190101_antimeridian_33items.json",
        "02.12",
        0,
        "pc-baseline",
    ),
    ("stac/planetary-computer/site1-20200606-tall-strip-africa.geojson", "02.12", 0, "pc-baseline"),
    ("stac/planetary-computer/site2-2020_jun_jul-35MNM.geojson", "02.12", 0, "pc-baseline"),
    ("stac/planetary-computer/two-sentinel-2-items_2024.json", "05.11", -1000, "pc-baseline"),
    (
        "stac/stactools/S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE.json",
        "02.12",
        0,
        "declared",
    ),
    (
        "stac/stactools/S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.SAFE.json",
        "04.00",
        -1000,
        "declared",
    ),
    (
        "stac/stactools/S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE.json",
        "05.09",
        -1000,
        "declared",
    ),
    (
        "sentinel2/worldcereal_31UDS/S2_31UDS_20180519T110334_0/S2_31UDS_20180519T110334_0.json",
        "",
        0,
        "declared",
    ),
    (
        f"sentinel2/majortom_48QUE/{MAJORTOM}/{MAJORTOM}.json",
        "99.99",
        0,
        "declared",
    ),
    (
        "sentinel2/earthsearch_33TWL_33TWM/S2A_33TWL_20230815_0_L2A/S2A_33TWL_20230815_0_L2A.json",
        "05.09",
        0,
        "es-flag-applied",
    ),
]


@pytest.mark.parametrize(("name", "baseline", "dn_offset", "rule"), REAL)
def test_real_answers_follow_the_table(
    load: Callable[[str], list[pystac.Item]], name: str, baseline: str, dn_offset: int, rule: str
) -> None:
    found = resolve_scenes(load(name), lineage=ANY, bands=["B04"], require_scl=False)
    got = {(s.baseline, s.dn_offset, s.offset_rule, s.clipped_at_source) for s in found.scenes}
    assert got == {(baseline, dn_offset, rule, dn_offset == 0)}


def test_hundred_items_of_planetary_computer_carry_the_offset(
    load: Callable[[str], list[pystac.Item]],
) -> None:
    items = load("stac/planetary-computer/100-sentinel-2-items.parquet")
    scenes = resolve_scenes(items, lineage=Lineage(), bands=["B04"]).scenes
    assert {s.baseline for s in scenes} == {"05.10", "05.11"}
    assert {(s.dn_offset, s.offset_rule) for s in scenes} == {(-1000, "pc-baseline")}


def test_a_real_item_read_as_jpeg_2000_keeps_the_offset(
    load: Callable[[str], list[pystac.Item]],
) -> None:
    items = load("stac/earth-search-v1/S2B_33TWL_20230810_0_L2A.json")
    scene = resolve_scenes(items, lineage=Lineage(), bands=["B04"], jp2=True).scenes[0]
    assert scene.asset("B04").href.endswith("B04.jp2")
    assert (scene.dn_offset, scene.offset_rule) == (-1000, "es-jp2-baseline")


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        (OffsetFacts("planetary-computer", "03.01"), OffsetRule(0, "pc-baseline")),
        (OffsetFacts("planetary-computer", "04.00"), OffsetRule(-1000, "pc-baseline")),
        (
            OffsetFacts("earth-search-v1", "05.09", applied_flag=True, declared=-1000),
            OffsetRule(0, "es-flag-applied"),
        ),
        (
            OffsetFacts("earth-search-v1", "02.14", applied_flag=False, declared=-1000),
            OffsetRule(0, "es-before-0400"),
        ),
        (OffsetFacts("earth-search-v1", "03.01"), OffsetRule(0, "es-before-0400")),
        (
            OffsetFacts("earth-search-v1", "05.09", applied_flag=True, jp2=True),
            OffsetRule(-1000, "es-jp2-baseline"),
        ),
        (OffsetFacts("earth-search-v1", "02.14", jp2=True), OffsetRule(0, "es-jp2-baseline")),
        (OffsetFacts("earth-search-c1", "05.11", declared=-1000), OffsetRule(-1000, "c1-declared")),
        (
            OffsetFacts("earth-search-c1", "02.14", applied_flag=False, declared=0),
            OffsetRule(0, "c1-declared"),
        ),
        (OffsetFacts("cdse", "99.99", declared=-1000), OffsetRule(-1000, "cdse-declared")),
        (OffsetFacts("cdse", "99.99", declared=0), OffsetRule(0, "cdse-declared")),
        (OffsetFacts("generic", "", declared=0), OffsetRule(0, "declared")),
        (OffsetFacts("generic", "02.07"), OffsetRule(0, "before-0400")),
        (OffsetFacts("generic", "05.11", applied_flag=True), OffsetRule(0, "flag-applied")),
    ],
)
def test_each_row_of_the_table(facts: OffsetFacts, rule: OffsetRule) -> None:
    assert resolve_offset(facts, item_id="one") == rule


DOUBTFUL = [
    (OffsetFacts("earth-search-v1", "04.00", applied_flag=False), "flag|applied is false"),
    (OffsetFacts("earth-search-v1", "05.10"), "applied is absent"),
    (OffsetFacts("earth-search-v0", "04.00"), "applied is absent"),
    (OffsetFacts("planetary-computer", "99.99"), "baseline does not tell"),
    (OffsetFacts("earth-search-c1", "05.10", declared=0), "which its baseline denies"),
    (OffsetFacts("cdse", "02.14", declared=-1000), "which its baseline denies"),
    (OffsetFacts("cdse", "99.99"), "declare no offset"),
    (OffsetFacts("generic", "05.10"), "declare no offset"),
    (OffsetFacts("generic", ""), "declare no offset"),
]


@pytest.mark.parametrize(("facts", "words"), DOUBTFUL)
def test_a_doubtful_item_is_refused_and_says_how_to_go_on(facts: OffsetFacts, words: str) -> None:
    with pytest.raises(CatalogError, match=words) as caught:
        resolve_offset(facts, item_id="S2B_X")
    assert "S2B_X" in str(caught.value)
    assert "source.offset" in str(caught.value)


@pytest.mark.parametrize(("facts", "words"), DOUBTFUL)
def test_the_user_may_say_that_it_is_applied(facts: OffsetFacts, words: str) -> None:
    assert resolve_offset(facts, item_id="x", said="applied") == OffsetRule(0, "said-applied")


@pytest.mark.parametrize(("baseline", "dn_offset"), [("04.00", -1000), ("05.10", -1000)])
def test_raw_lets_the_baseline_decide(baseline: str, dn_offset: int) -> None:
    facts = OffsetFacts("earth-search-v1", baseline, applied_flag=False)
    assert resolve_offset(facts, item_id="x", said="raw") == OffsetRule(dn_offset, "said-raw")


@pytest.mark.parametrize("baseline", ["99.99", ""])
def test_raw_does_not_help_without_a_baseline(baseline: str) -> None:
    with pytest.raises(CatalogError, match=r"doubtful"):
        resolve_offset(OffsetFacts("generic", baseline), item_id="x", said="raw")


@pytest.mark.parametrize("said", ["applied", "raw"])
def test_the_users_word_changes_no_item_that_is_clear(said: str) -> None:
    applied = OffsetFacts("earth-search-v1", "05.09", applied_flag=True)
    carried = OffsetFacts("planetary-computer", "05.11")
    assert resolve_offset(applied, item_id="x", said=said).dn_offset == 0
    assert resolve_offset(carried, item_id="x", said=said).dn_offset == -1000


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"source.offset is 'maybe'"):
        resolve_offset(OffsetFacts("cdse", "05.00"), item_id="x", said="maybe")


def test_a_doubtful_item_stops_even_when_errors_are_recorded(make: Callable[..., Any]) -> None:
    item = make(collection="sentinel-2-l2a", **{"earthsearch:boa_offset_applied": False})
    with pytest.raises(CatalogError, match=r"doubtful"):
        resolve_scenes([item], lineage=Lineage(), bands=["B04"], errors="record")
