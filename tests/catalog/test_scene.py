"""Items become scenes: every provider, both hemispheres, splits, repetitions, errors."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable
from typing import Any

import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.catalog.lineage import Lineage
from eoray.catalog.scene import Resolution, Scene, resolve_scenes
from eoray.catalog.static import to_item
from eoray.errors import CatalogError, ConfigError
from eoray.sentinel2 import BANDS

Load = Callable[[str], list[pystac.Item]]
Make = Callable[..., pystac.Item]
ANY = Lineage(baseline_min=None, mixed=True)
PC = "stac/planetary-computer/"


def resolve(items: list[pystac.Item], **options: Any) -> Resolution:
    return resolve_scenes(items, **{"lineage": Lineage(), "bands": BANDS, **options})


@pytest.mark.parametrize(
    ("name", "datatake", "granule", "solar_day", "product"),
    [
        (
            "stac/cdse/issue1043_20200322.json",
            "S2B_20200322T074609_R135",
            "36NYH",
            "2020-03-22",
            "S2B_MSIL2A_20200322T074609_N0500_R135_T36NYH_20230612T214223.SAFE",
        ),
        (
            "stac/earth-search-v0/S2A_28QCH_20200714_0_L2A.json",
            "S2A_20200714T115221_R123",
            "28QCH",
            "2020-07-14",
            "S2A_MSIL2A_20200714T115221_N0214_R123_T28QCH_20200714T191310.SAFE",
        ),
        (
            "stac/earth-search-v1/search_point_s2_landsat_20231008.json",
            "S2A_20231008T175231_R141",
            "13TDE",
            "2023-10-08",
            "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154.SAFE",
        ),
        (
            f"{PC}S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json",
            "S2B_20190629T212529_R043",
            "06VVN",
            "2019-06-29",
            "S2B_MSIL2A_20190629T212529_N0212_R043_T06VVN_20201006T080531.SAFE",
        ),
        (
            "stac/stactools/S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE.json",
            "S2A_20230625T234621_R073",
            "01WCP",
            "2023-06-26",
            "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE",
        ),
    ],
)
def test_the_pass_is_known_for_every_provider(
    load: Load, name: str, datatake: str, granule: str, solar_day: str, product: str
) -> None:
    scene = resolve(load(name), lineage=ANY).scenes[0]
    assert scene.datatake == datatake
    assert scene.granule == granule
    assert scene.solar_day == solar_day
    assert scene.product_uri == product
    assert scene.sensing_time.replace("-", "").replace(":", "")[:15] == datatake[4:19]


def test_an_item_without_a_datatake_gets_its_own_time(load: Load) -> None:
    name = "S2_31UDS_20180519T110334_0"
    result = resolve(load(f"sentinel2/worldcereal_31UDS/{name}/{name}.json"), lineage=ANY)
    scene = result.scenes[0]
    assert scene.datatake == "S2X_20180519T110334_R000"
    assert scene.sensing_time == "2018-05-19T11:03:34.000Z"
    assert (scene.relative_orbit, scene.baseline, scene.product_uri) == (0, "", "")
    assert scene.sun_zenith == pytest.approx(90 - 57.8622)
    assert scene.view_zenith == pytest.approx(5.1459)
    assert any("state no processing baseline" in note for note in result.notes)


def test_the_real_split_of_13tde_keeps_both_halves(load: Load) -> None:
    result = resolve(load(f"{PC}100-sentinel-2-items.parquet"))
    halves = [s for s in result.scenes if s.datatake == "S2B_20240530T174909_R141"]
    assert len(result.scenes) == 100
    assert not result.skipped
    assert sorted(s.item_id[-15:] for s in halves) == ["20240530T231838", "20240531T000206"]
    whole = shapely.union_all([shapely.from_wkb(s.footprint) for s in halves]).area
    shares = sorted(shapely.from_wkb(s.footprint).area / whole for s in halves)
    assert shares == pytest.approx([0.51, 0.67], abs=0.01)
    assert len([n for n in result.notes if "13TDE of S2B_20240530T174909_R141 is split" in n]) == 1


def test_granules_of_one_pass_share_key_and_time_over_three_zones(load: Load) -> None:
    scenes = resolve(load(f"{PC}search_20190101_antimeridian_33items.json"), lineage=ANY).scenes
    assert len(scenes) == 33
    assert {s.datatake for s in scenes} == {"S2A_20190101T000001_R116"}
    assert {s.sensing_time for s in scenes} == {"2019-01-01T00:00:01.000Z"}
    assert {s.zone for s in scenes} == {58, 59, 60}


def test_a_granule_over_the_antimeridian_has_a_box_that_crosses(load: Load) -> None:
    name = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE.json"
    scene = resolve(load(f"stac/stactools/{name}")).scenes[0]
    west, _, east, _ = scene.bbox
    assert west == pytest.approx(178.474107)
    assert east == pytest.approx(-178.96619)
    assert shapely.from_wkb(scene.footprint).area < 3


def test_southern_files_are_relabelled_to_the_northern_crs(load: Load) -> None:
    scene = resolve(load(f"{PC}site2-2020_jun_jul-35MNM.geojson"), lineage=ANY).scenes[0]
    assert (scene.epsg, scene.zone) == (32735, 35)
    assert scene.asset("B04").transform == (10, 0, 499980, 0, -10, 9200020 - 10_000_000)
    assert scene.asset("SCL").transform == (20, 0, 499980, 0, -20, -799980)
    assert scene.asset("SCL").shape == (5490, 5490)


@pytest.mark.parametrize("key", ["proj:code", "proj:epsg"])
def test_both_spellings_of_the_crs_are_read(make: Make, key: str) -> None:
    item = make(**{"proj:code": None, key: "EPSG:32632" if key == "proj:code" else 32632})
    assert resolve([item]).scenes[0].epsg == 32632


def test_proj_of_each_asset_is_read_where_the_item_has_none(load: Load) -> None:
    item = load("stac/cdse/issue1043_20200322.json")[0]
    assert "proj:code" not in item.properties
    scene = resolve([item]).scenes[0]
    assert (scene.epsg, scene.zone) == (32636, 36)
    assert scene.asset("B04").transform == (10, 0, 699960, 0, -10, 300000)
    assert scene.asset("B04").href.endswith("R10m/T36NYH_20200322T074609_B04_10m.jp2")
    assert scene.asset("B05").shape == (5490, 5490)


def test_stac_1_1_bands_and_common_offset_fields_are_read(document: Callable[..., Any]) -> None:
    content = document()
    for key, asset in content["assets"].items():
        del asset["raster:bands"]
        if key != "scl":
            asset["bands"] = [{"name": key}]
            asset |= {"nodata": 0, "raster:scale": 0.0001, "raster:offset": -0.1}
    assert resolve([to_item(content, "")]).scenes[0].dn_offset == -1000


def test_a_box_and_shape_stand_in_for_a_transform(document: Callable[..., Any]) -> None:
    content = document()
    for asset in content["assets"].values():
        del asset["proj:transform"]
        asset["proj:bbox"] = [699960.0, 4990200.0, 809760.0, 5100000.0]
    scene = resolve([to_item(content, "")]).scenes[0]
    assert scene.asset("B02").transform == (10, 0, 699960, 0, -10, 5100000)
    assert scene.asset("B11").transform == (20, 0, 699960, 0, -20, 5100000)


def test_scenes_pickle_and_carry_angles(load: Load) -> None:
    scene = resolve(load("stac/earth-search-v1/c1_item-collection.json")).scenes[0]
    again: Scene = pickle.loads(pickle.dumps(scene))
    assert again == scene
    assert (scene.view_zenith, scene.view_azimuth) == pytest.approx((3.637, 233.693), abs=1e-3)
    assert scene.cloud_pct == pytest.approx(46.011618)
    assert scene.refined is None


def test_a_placeholder_view_angle_is_not_believed(load: Load) -> None:
    scene = resolve(load("stac/earth-search-v0/S2A_33UWP_20220405_0_L2A.json"), lineage=ANY).scenes[
        0
    ]
    assert math.isnan(scene.view_zenith)


@pytest.mark.parametrize(("value", "refined"), [(True, True), (False, False), (None, None)])
def test_the_refinement_flag_is_kept(make: Make, value: bool | None, refined: bool | None) -> None:
    assert resolve([make(**{"eoray:refined": value})]).scenes[0].refined is refined


def test_relative_hrefs_resolve_from_the_item(document: Callable[..., Any]) -> None:
    content = document()
    for key, asset in content["assets"].items():
        asset["href"] = f"./{key}.tif"
    local = resolve([to_item(content, "/archive/a/item.json")]).scenes[0]
    remote = resolve([to_item(content, "https://example.test/a/item.json")]).scenes[0]
    assert local.asset("B04").href == "/archive/a/red.tif"
    assert remote.asset("B04").href == "https://example.test/a/red.tif"
    with pytest.raises(CatalogError, match=r"'blue' of item .* has the relative href"):
        resolve([to_item(content, "")])


def test_the_lineages_baseline_beats_a_later_generation(make: Make) -> None:
    old = make(baseline="02.14", generated="20250101T000000", name="old")
    new = make(baseline="05.10", generated="20240531T000206", name="new")
    result = resolve([old, new])
    assert [s.item_id for s in result.scenes] == ["new"]
    assert result.skipped[0].item_id == "old"
    assert "another processing of new (baseline 05.10" in result.skipped[0].reason


def test_of_one_lineage_the_latest_generation_wins(make: Make) -> None:
    first = make(generated="20240531T000206", name="first")
    second = make(generated="20240901T000000", name="second")
    result = resolve([first, second])
    assert [s.item_id for s in result.scenes] == ["second"]


def test_one_datastrip_processed_twice_competes_whatever_its_outline(make: Make) -> None:
    one = make(strip="20240530T180249", generated="20240531T000206", name="one")
    two = make(
        strip="20240530T180249", generated="20240601T000206", box=(11, 45, 12, 45.5), name="two"
    )
    assert [s.item_id for s in resolve([one, two]).scenes] == ["two"]


def test_halves_drawn_as_whole_granules_are_told_by_their_no_data(make: Make) -> None:
    upper = make(strip="20240530T175011", nodata_pct=49.0, name="upper")
    lower = make(
        strip="20240530T180249", nodata_pct=33.0, generated="20240601T000000", name="lower"
    )
    assert len(resolve([upper, lower]).scenes) == 2


def test_halves_go_when_another_baseline_holds_the_whole(make: Make) -> None:
    upper = make(baseline="04.00", strip="20240530T175011", box=(11, 45.5, 12, 46), name="upper")
    lower = make(baseline="04.00", strip="20240530T180249", box=(11, 45, 12, 45.6), name="lower")
    whole = make(baseline="05.10", strip="20240530T180000", name="whole")
    result = resolve([upper, lower, whole])
    assert [s.item_id for s in result.scenes] == ["whole"]
    assert sorted(s.item_id for s in result.skipped) == ["lower", "upper"]


def test_granules_of_neighbouring_zones_never_compete(make: Make) -> None:
    own = make(granule="32TQM")
    other = make(granule="33TTG", epsg=32633)
    scenes = resolve([own, other]).scenes
    assert {s.granule for s in scenes} == {"32TQM", "33TTG"}
    assert len({s.datatake for s in scenes}) == 1


def test_two_datatakes_on_one_day_stay_apart(make: Make) -> None:
    scenes = resolve([make(), make(satellite="S2A", start="20240530T103021", orbit=55)]).scenes
    assert [s.datatake for s in scenes] == ["S2A_20240530T103021_R055", "S2B_20240530T174909_R098"]
    assert len({s.solar_day for s in scenes}) == 1


def test_an_item_listed_twice_counts_once(make: Make) -> None:
    result = resolve([make(name="one"), make(name="one", updated="2025-01-01T00:00:00Z")])
    assert len(result.scenes) == 1
    assert any("item one is listed 2 times" in note for note in result.notes)


_GRANULES = st.sampled_from(["32TQM", "33TTG"])
_BOXES = st.sampled_from([(11, 45, 12, 46), (11, 45, 12, 45.6), (11, 45.5, 12, 46)])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            _GRANULES,
            _BOXES,
            st.sampled_from(["04.00", "05.00", "05.10"]),
            st.sampled_from(["20240531T000000", "20240701T000000"]),
            st.sampled_from(["20240530T175011", "20240530T180249"]),
        ),
        min_size=1,
        max_size=7,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_items_does_not_change_the_resolution(
    make: Make, rows: list[tuple[Any, ...]], order: random.Random
) -> None:
    items = [
        make(granule=g, box=b, baseline=p, generated=t, strip=d, name=f"item{i}")
        for i, (g, b, p, t, d) in enumerate(rows)
    ]
    shuffled = list(items)
    order.shuffle(shuffled)
    options: dict[str, Any] = {"lineage": Lineage(mixed=True), "bands": ["B04"]}
    first = resolve(items, **options)
    assert resolve(shuffled, **options) == first
    assert len(first.scenes) + len(first.skipped) == len(items)


def test_other_satellites_and_levels_are_left_out(load: Load) -> None:
    result = resolve(load("stac/earth-search-v1/search_point_s2_landsat_20231008.json"))
    assert [s.item_id for s in result.skipped] == ["LC08_L2SP_033032_20231008_02_T1"]
    assert "landsat-8" in result.skipped[0].reason
    level_1 = "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE.json"
    with pytest.raises(CatalogError, match=r"all 1 items were left out.*S2MSI1C"):
        resolve(load(f"stac/stactools/{level_1}"))


def test_no_items_at_all_is_an_error() -> None:
    with pytest.raises(CatalogError, match=r"no scenes: the search gave no item"):
        resolve([])


def test_a_band_that_the_collection_lacks_is_named_with_those_it_has(load: Load) -> None:
    name = "S2A_33TWL_20230815_0_L2A"
    items = load(f"sentinel2/earthsearch_33TWL_33TWM/{name}/{name}.json")
    with pytest.raises(CatalogError, match=r"'?earthsearch-33t'? has no asset for B05") as caught:
        resolve(items, bands=["B04", "B05"])
    assert "it has B02, B03, B04, B08, SCL" in str(caught.value)


def test_one_item_that_lacks_a_band_raises_or_is_recorded(make: Make) -> None:
    whole, poor = make(name="whole"), make(name="poor", start="20240604T174909", drop=("nir",))
    with pytest.raises(CatalogError, match=r"item poor of collection .* has no asset for B08"):
        resolve([whole, poor])
    result = resolve([whole, poor], errors="record")
    assert [s.item_id for s in result.scenes] == ["whole"]
    assert "no asset for B08" in result.skipped[0].reason


def test_scl_may_be_done_without_when_the_caller_says_so(load: Load) -> None:
    name = "S2B_MSIL2A_20200223T032739_N9999_R018_T48QUE_20230924T183543"
    items = load(f"sentinel2/majortom_48QUE/{name}/{name}.json")
    with pytest.raises(CatalogError, match=r"no item of .* an asset for SCL.*mask.method"):
        resolve(items, lineage=ANY)
    result = resolve(items, lineage=ANY, require_scl=False)
    assert [a.band for a in result.scenes[0].assets] == list(BANDS)
    assert any("have no SCL" in note for note in result.notes)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("proj:shape", None, "has proj:shape None"),
        ("proj:transform", [1, 2, 3], r"has proj:transform \[1, 2, 3\]"),
        ("proj:transform", [0, 0, 699960, 0, 0, 5100000], r"has proj:transform \(0.0, 0.0"),
        ("proj:transform", [10, 0, float("nan"), 0, -10, 5100000], "has proj:transform"),
        ("proj:shape", [0, 10980], r"has proj:shape \(0, 10980\)"),
        ("proj:shape", [100, 100], "cover different ground"),
        ("proj:code", "EPSG:32633", "lie in different CRSs"),
        ("raster:bands", [{"scale": 0.0001, "offset": 0}], "declare different offsets"),
        ("raster:bands", [{"nodata": 65535}], "says nodata 65535; Sentinel-2 L2A writes 0"),
        ("raster:bands", [{"nodata": "nan"}], "says nodata 'nan'"),
    ],
)
def test_assets_that_cannot_be_placed_are_named(
    document: Callable[..., Any], field: str, value: Any, words: str
) -> None:
    content = document(name="bad")
    content["assets"]["red"][field] = value
    with pytest.raises(CatalogError, match=words) as caught:
        resolve([to_item(content, "")])
    assert "bad" in str(caught.value)


def test_an_item_without_crs_says_that_headers_are_not_read(make: Make) -> None:
    with pytest.raises(CatalogError, match=r"states no EPSG code .* headers are not read"):
        resolve([make(**{"proj:code": None})])


def test_a_value_of_the_wrong_type_is_named_with_its_item(make: Make) -> None:
    with pytest.raises(CatalogError, match=r"item odd of collection .* cannot be read"):
        resolve([make(name="odd", **{"eo:cloud_cover": "much"})])


def test_another_crs_than_utm_has_no_zone(make: Make) -> None:
    result = resolve([make(epsg=3035)])
    assert result.scenes[0].zone is None
    assert any("will be warped" in note for note in result.notes)


def test_asking_a_scene_for_a_band_that_it_was_not_resolved_with(make: Make) -> None:
    scene = resolve([make()], bands=["B04"]).scenes[0]
    assert [a.band for a in scene.assets] == ["B04", "SCL"]
    with pytest.raises(CatalogError, match=r"was resolved without 'B11'; it has B04, SCL"):
        scene.asset("B11")


def test_mixed_baselines_are_refused_with_counts_and_the_key(make: Make) -> None:
    old = make(baseline="02.14", start="20180530T174909")
    with pytest.raises(ConfigError, match=r"02.14 \(1\), 05.10 \(1\).*source.lineage"):
        resolve([old, make()])
    assert len(resolve([old, make()], lineage=Lineage(mixed=True)).scenes) == 2


def test_a_named_provider_leaves_the_others_out(make: Make) -> None:
    other = make(collection="sentinel-2-l2a", name="pc", **{"s2:mgrs_tile": "32TQM"})
    result = resolve([make(name="c1"), other], lineage=Lineage(provider="planetary-computer"))
    assert [s.item_id for s in result.scenes] == ["pc"]
    assert "of earth-search-c1" in result.skipped[0].reason
