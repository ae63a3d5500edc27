"""The run file: what loads, what is refused and with which words, what comes back unchanged."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eoray.config import (
    RunConfig,
    config_key,
    dump_config,
    load_config,
    local_paths,
    parse_config,
    resolve_path,
    run_file_schema,
    write_template,
)
from eoray.config.models import TASKS
from eoray.config.text import read_yaml, write_yaml
from eoray.errors import ConfigError
from eoray.sentinel2 import BANDS

MINIMAL = """\
version: 1
name: demo
aoi: [11.5, 48.1, 11.6, 48.2]
time: 2020-01-01/2023-12-31
task: change
"""

KEY_OF_MINIMAL = "demo-7ae6faf7"

LAND_COVER = MINIMAL.replace("task: change", "task: land-cover\nfit: {labels: labels.geojson}")


def refusal(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides=overrides)
    return str(caught.value).splitlines()


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def test_three_values_are_enough() -> None:
    config = parse_config(MINIMAL)
    assert config.aoi == (11.5, 48.1, 11.6, 48.2)
    assert str(config.days) == config.time == "2020-01-01/2023-12-31"
    assert config.cube.bands == BANDS
    assert config.source.lineage.baseline_min == "05.00"
    assert config.cube.composite.period == "P3M"


def test_a_config_cannot_be_changed() -> None:
    config = parse_config(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        config.cube.composite.min_obs = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("task", "stages"),
    [
        ("cube", ("cube",)),
        ("change", ("cube", "change", "assess", "publish", "report")),
        ("land-cover", ("cube", "fit", "predict", "assess", "publish", "report")),
        (
            "land-cover-change",
            ("cube", "fit", "predict", "change", "assess", "publish", "report"),
        ),
    ],
)
def test_a_task_turns_stages_on(task: str, stages: tuple[str, ...]) -> None:
    config = parse_config(MINIMAL, overrides=[f"task={task}", "fit.labels=labels.geojson"])
    assert config.stages() == stages


def test_a_given_model_needs_neither_fit_nor_labels() -> None:
    config = parse_config(MINIMAL, overrides=["task=land-cover", "predict.model=model"])
    assert config.stages() == ("cube", "predict", "assess", "publish", "report")


def test_common_band_names_become_ids() -> None:
    config = parse_config(
        MINIMAL, overrides=["cube.bands=[red, B08, swir16]", "change.bands=[nir]"]
    )
    assert config.cube.bands == ("B04", "B08", "B11")
    assert config.change.bands == ("B08",)


def test_a_section_without_content_means_its_defaults() -> None:
    text = f"{MINIMAL}cube:\n  mask:\nfit:\n"
    assert parse_config(text) == parse_config(MINIMAL)


@pytest.mark.parametrize("written", ["05.10", "'05.10'", '"05.10"'])
def test_a_baseline_may_be_quoted_or_not(written: str) -> None:
    config = parse_config(MINIMAL, overrides=[f"source.lineage.baseline_min={written}"])
    assert config.source.lineage.baseline_min == "05.10"


@pytest.mark.parametrize(("workers", "count"), [("auto", 6), ("2", 2)])
def test_workers_are_a_number_or_chosen_later(workers: str, count: int) -> None:
    config = parse_config(MINIMAL, overrides=[f"run.workers={workers}"])
    assert config.run.workers_or(6) == count


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("cube.composit={}", "cube.composit: unknown key; did you mean 'composite'?"),
        (
            "cube.composite.methd=median",
            "cube.composite.methd: unknown key; did you mean 'method'?",
        ),
        ("sorce={}", "sorce: unknown key; did you mean 'source'?"),
        ("includes=[]", "includes: unknown key; did you mean 'include'?"),
        ("stats.mean=true", "stats.mean: unknown key; this section has no keys"),
        ("publish.xyz=1", "publish.xyz: unknown key; valid here: license, keywords, stac"),
        ("fit.steps=many", "fit.steps: got 'many'; expected a whole number"),
        ("fit.steps=3.5", "fit.steps: got 3.5; expected a whole number"),
        ("fit.steps=true", "fit.steps: got True; expected a whole number"),
        ("fit.steps=0", "fit.steps: got 0; expected greater than or equal to 1"),
        ("fit.learning_rate='1e-3'", "fit.learning_rate: got '1e-3'; expected a number"),
        ("fit.chip_px=100", "fit.chip_px: got 100; expected a multiple of 32"),
        ("cube.warp=yes", "cube.warp: got 'yes'; expected true or false"),
        ("cube=5", "cube: got 5; expected keys and values"),
        ("cube.bands=B02", "cube.bands: got 'B02'; expected a list"),
        ("cube.bands=[]", "cube.bands: got []; expected at least 1 value(s)"),
        (
            "cube.mask.scl_clear=[4,12]",
            "cube.mask.scl_clear[1]: got 12; expected less than or equal to 11",
        ),
        ("cube.grid=EPSG:4326", "cube.grid: got 'EPSG:4326'; expected 'world'"),
        (
            "name=My Run",
            "name: got 'My Run'; expected 1 to 40 lower-case letters, digits and dashes",
        ),
        ("source.lineage.baseline_min=5", "source.lineage.baseline_min: got 5; expected text"),
        (
            "source.lineage.baseline_min='5.0'",
            "source.lineage.baseline_min: got '5.0'; expected a proc",
        ),
        ("task=landcover", "task: got 'landcover'; expected 'cube', 'land-cover', 'change' or"),
        ("run.workers=lots", "run.workers: got 'lots'; expected 'auto' or a whole number"),
        ("run.workers=0", "run.workers: got 0; expected 'auto' or greater than or equal to 1"),
        ("change.conse=1", "change.conse: got 1; expected 'auto' or greater than or equal to 2"),
        ("version=2", "version: got 2; expected 1"),
        ("store=' '", "store: ' ' names no file; write a path or a URL"),
        ("change.start=2021-02-30", "change.start: '2021-02-30' is no day; write it as"),
        (
            "time=2023-12-31/2020-01-01",
            "time: '2023-12-31/2020-01-01' ends before it starts; write it",
        ),
        ("time=2020", "time: got 2020; expected text"),
        ("time=last year", "time: 'last year' cannot be read; write two days"),
        (
            "cube.composite.period=P5M",
            "cube.composite.period: composite period 'P5M' cannot be used;",
        ),
        ("time=2013-01-01/2020-12-31", "time: 2013-01-01/2020-12-31 begins before 2015"),
        ("predict.halo_px=128", "predict: halo_px 128 leaves nothing of chip_px 256; take a halo"),
    ],
)
def test_a_bad_value_is_named_with_its_path_and_a_remedy(override: str, line: str) -> None:
    (found,) = refusal(MINIMAL, override)
    assert found.startswith(f"run file: {line}")


def test_an_unknown_band_names_the_nearest() -> None:
    (line,) = refusal(MINIMAL, "cube.bands=[B02, redd]")
    assert "cube.bands: unknown band 'redd'; did you mean 'red'?" in line


@pytest.mark.parametrize(
    ("aoi", "words"),
    [
        ("[]", "is no place"),
        ("null", "is no place"),
        ("5", "is no place"),
        ("{w: 1}", "is no place"),
        ("''", "names no file"),
        ("[11.5, 48.1, 11.6]", "is no box; write four numbers"),
        ("[11.5, 48.1, 11.6, north]", "is no box"),
        ("[11.5, 48.1, 11.6, true]", "is no box"),
        ("[11.5, 48.2, 11.6, 48.1]", "is empty"),
        ("[11.5, 48.1, 11.5, 48.2]", "is empty"),
        ("[48.1, 11.5, 200, 11.6]", "lies outside the globe"),
        ("[0, 85, 10, 89]", "lies beyond the UTM zones"),
        ("[z32r0457c48]", "tile id 'z32r0457c48' cannot be read; write it like"),
        ("[z61r0457c048]", "lies outside the world grid"),
    ],
)
def test_a_place_that_cannot_be_is_refused(aoi: str, words: str) -> None:
    (line,) = refusal(MINIMAL, f"aoi={aoi}")
    assert line.startswith("run file: aoi: ")
    assert words in line


@pytest.mark.parametrize(
    ("aoi", "value"),
    [
        ("fields.gpkg", "fields.gpkg"),
        ("[179.9, -17, -179.9, -16]", (179.9, -17.0, -179.9, -16.0)),
        ("[z32r0457c048, z32r0457c049]", ("z32r0457c048", "z32r0457c049")),
    ],
)
def test_a_place_is_a_file_a_box_or_tiles(aoi: str, value: Any) -> None:
    assert parse_config(MINIMAL, overrides=[f"aoi={aoi}"]).aoi == value


@pytest.mark.parametrize("key", ["name", "aoi", "time", "task"])
def test_a_missing_value_is_named(key: str) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(f"{key}:"))
    assert refusal(text) == [f"run file: {key}: missing; it has no default, so write it"]


def test_every_problem_gets_a_line() -> None:
    lines = refusal(MINIMAL, "cube.composit={}", "fit.steps=many", "time=2020")
    assert [line.split(": ")[1] for line in lines] == ["time", "cube.composit", "fit.steps"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["fit.labels=null"], "fit.labels: missing, but task 'land-cover' fits a model"),
        (
            ["cube.mask.screen=temporal", "cube.bands=[B04,B08]"],
            "cube.mask.screen: 'temporal' compares blue, red and nir, and cube.bands is B04, B08",
        ),
        (
            ["cube.mask.screen=temporal", "cube.mask.method=none"],
            "cube.mask.screen: 'temporal' joins a mask and cube.mask.method is 'none'",
        ),
        (["cube.bands=[B02]", "fit.bands=[B02,B08]"], "fit.bands: B08 not in cube.bands (B02)"),
        (["cube.composite.method=none"], "cube.composite.method: 'none', but fit and predict"),
        (
            ["fit.time=2019-01-01/2020-12-31"],
            "fit.time: '2019-01-01/2020-12-31' reaches beyond time",
        ),
        (["predict.time=2023-01-01/2024-01-01"], "predict.time: '2023-01-01/2024-01-01' reaches"),
        (
            ["task=change", "cube.bands=[B02]", "change.bands=[B12]"],
            "change.bands: B12 not in cube.bands (B02)",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_refused(overrides: list[str], line: str) -> None:
    (found,) = refusal(LAND_COVER, *overrides)
    assert found.startswith(f"run file: {line}")


def test_what_a_task_does_not_use_is_not_held_against_it() -> None:
    overrides = ["cube.composite.method=none", "fit.time=2000-01-01/2000-12-31"]
    assert parse_config(MINIMAL, overrides=overrides).stages()[:2] == ("cube", "change")


def test_includes_merge_deeply_and_the_file_wins(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.yaml").write_text(
        "include: ../deep.yaml\ncube: {warp: true, composite: {min_obs: 5, period: P1M}}\n"
    )
    (tmp_path / "deep.yaml").write_text("store: deep\nrun: {retries: 7}\ncube: {warp: false}\n")
    (tmp_path / "second.yaml").write_text("cube: {composite: {period: P6M}}\n")
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        f"include: [more/base.yaml, second.yaml]\n{MINIMAL}cube: {{composite: {{min_obs: 2}}}}\n"
    )
    config = load_config(run_file)
    assert (config.store, config.run.retries, config.cube.warp) == ("deep", 7, True)
    assert (config.cube.composite.min_obs, config.cube.composite.period) == (2, "P6M")


def test_an_include_that_goes_round_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: b.yaml\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\n")
    with pytest.raises(ConfigError, match=r"circle: a\.yaml -> b\.yaml -> a\.yaml"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("include: 5\n", "include: 5 is no path"),
        ("include: gone.yaml\n", r"no file '.*gone\.yaml'"),
        ("- a\n", "holds list, not keys and values"),
        ("name: a\nname: b\n", "line 2, column 1: key 'name' stands here twice"),
        ("5: a\n", "key 5 is no text"),
        ("name: [a\n", "line 2"),
        ("vars: 5\n", "vars: 5 is no mapping"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_a_missing_run_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*run\.yaml.*eoray init run\.yaml"):
        load_config(tmp_path / "run.yaml")


def test_variables_fill_texts_and_keep_their_type_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EORAY_TEST_BUCKET", "s3://maps")
    text = MINIMAL + (
        "vars: {year: 2021, count: 120, root: '${env:EORAY_TEST_BUCKET}/${year}', flag: true}\n"
        "store: ${root}/out\n"
        "fit: {steps: '${count}', class_property: '$${kept}', labels: 'l-${flag}.gpkg'}\n"
    )
    config = parse_config(text)
    assert config.store == "s3://maps/2021/out"
    assert config.fit.steps == 120
    assert config.fit.class_property == "${kept}"
    assert config.fit.labels == "l-true.gpkg"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "vars: {year: 1}\nstore: a/${yaer}\n",
            "store: unknown variable 'yaer'; did you mean 'year'?",
        ),
        ("store: ${gone}\n", "store: unknown variable 'gone'; add 'gone: ...' under vars"),
        ("store: ${env:EORAY_NOT_SET}\n", "store: environment variable 'EORAY_NOT_SET' is not set"),
        ("vars: {a: '${b}', b: '${a}'}\nstore: ${a}\n", "vars refer to each other: a -> b -> a"),
        ("vars: {a: [1]}\nstore: x/${a}\n", "store: variable 'a' holds [1], which cannot stand"),
    ],
)
def test_a_variable_that_cannot_be_filled_is_refused(text: str, words: str) -> None:
    (line,) = refusal(MINIMAL + text)
    assert words in line


def test_overrides_win_and_can_set_variables(run_file: Path) -> None:
    run_file.write_text(
        f"{MINIMAL}vars: {{period: P1M}}\ncube: {{composite: {{period: '${{period}}'}}}}\n"
    )
    overrides = ["vars.period=P6M", "cube.bands=[B02,B03]", "cube.composite.min_obs=1"]
    config = load_config(run_file, overrides)
    assert config.cube.composite.period == "P6M"
    assert config.cube.bands == ("B02", "B03")
    assert config.cube.composite.min_obs == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cube.bands", "override 'cube.bands' cannot be read; write key=value"),
        ("=5", "cannot be read"),
        ("cube..bands=5", "cannot be read"),
        ("cube.bands=[B02", "override 'cube.bands=[B02', line 1"),
        ("name.first=x", "name holds 'demo', which has no keys"),
    ],
)
def test_an_override_that_cannot_be_set_is_refused(override: str, words: str) -> None:
    (line,) = refusal(MINIMAL, override)
    assert words in line


def test_an_override_leaves_the_included_file_alone(run_file: Path) -> None:
    before = load_config(run_file)
    load_config(run_file, ["cube.composite.min_obs=1"])
    assert load_config(run_file) == before


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("labels.geojson", "/data/run/labels.geojson"),
        ("/elsewhere/a.tif", "/elsewhere/a.tif"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("~/a", str(Path.home() / "a")),
    ],
)
def test_relative_paths_start_at_the_run_files_folder(path: str, found: str) -> None:
    assert resolve_path(path, "/data/run") == found


def test_local_paths_are_listed_without_urls() -> None:
    config = parse_config(LAND_COVER, overrides=["store=s3://bucket/x", "aoi=here.geojson"])
    assert local_paths(config, "/data") == {
        "aoi": "/data/here.geojson",
        "fit.labels": "/data/labels.geojson",
    }


def test_the_key_is_the_same_wherever_and_however_it_runs(run_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "moved" / "run.yaml"
    other.parent.mkdir()
    other.write_text(MINIMAL)
    here = config_key(load_config(run_file))
    assert here == config_key(load_config(other, ["run.workers=7", "cluster.image=other:1"]))
    assert here == config_key(parse_config(dump_config(load_config(run_file))))


def test_keys_that_came_later_leave_the_names_of_earlier_runs(tmp_path: Path) -> None:
    text = "version: 1\nname: r\naoi: [11.5, 48.1, 11.6, 48.16]\ntime: 2021-01-01/2021-12-31\n"
    text += "task: change\n"
    assert config_key(parse_config(text, tmp_path)) == "r-d14e0208"  # of the first version
    others = {
        config_key(parse_config(text, tmp_path, [setting]))
        for setting in ("cube.nbar=true", "change.nbar=false", "cube.dem=/d.tif")
    }
    assert len(others | {"r-d14e0208"}) == 4


def test_keys_that_came_later_leave_older_runs_their_name() -> None:
    text = """\
version: 1
name: older
aoi: [11.5, 48.1, 11.6, 48.2]
time: 2021-01-01/2021-12-31
task: change
"""
    assert config_key(parse_config(text)) == "older-8d4c2401"  # as before these keys
    for override in ("cube.mask.screen=temporal", "change.max_shift_px=none"):
        assert config_key(parse_config(text, overrides=[override])) != "older-8d4c2401"


def test_the_key_follows_what_decides_results(run_file: Path) -> None:
    keys = {
        config_key(load_config(run_file, [override]))
        for override in ("version=1", "cube.composite.min_obs=2", "time=2020-01-01/2020-12-31")
    }
    assert len(keys) == 3
    assert all(len(key) == len("demo-") + 8 and key.startswith("demo-") for key in keys)


def test_keys_that_came_later_leave_the_key_of_older_runs() -> None:
    """A run of 0.1.0, as it was named then; a value that changes results renames it."""
    whole = dump_config(parse_config(MINIMAL))
    assert config_key(parse_config(MINIMAL)) == config_key(parse_config(whole)) == KEY_OF_MINIMAL
    for override in ('cube.composite.season_start="12-01"', "cube.composite.group=solar-day"):
        assert config_key(parse_config(MINIMAL, overrides=[override])) != KEY_OF_MINIMAL


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cube.composite.method=percentiles", "'percentiles', but predict read"),
        ("cube.composite.method=count", "take 'geomedian', 'geomad', 'median' or 'best-pixel'"),
        ("cube.composite.method=none", "'none', but predict read"),
    ],
)
def test_models_read_composites_of_one_spectrum(override: str, message: str) -> None:
    text = MINIMAL.replace("task: change", "task: land-cover\npredict: {model: model}")
    (line,) = refusal(text, override)
    assert line.startswith("run file: cube.composite.method: ")
    assert message in line
    for method in ("geomad", "best-pixel"):
        parse_config(text, overrides=[f"cube.composite.method={method}"])
    parse_config(MINIMAL, overrides=[override])


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["cube.composite.period=dekad", 'cube.composite.season_start="07-05"'],
            "cube.composite.season_start: composite period 'dekad' has no season that starts on",
        ),
        (['cube.composite.season_start="30-02"'], "season cannot start on 30-02; take a day"),
        (["cube.composite.season_start=July"], "'July' cannot be read; write it as '12-01'"),
        (["cube.composite.percentiles=[50,25]"], "percentiles [50, 25] do not rise"),
        (["cube.composite.period=P1Q"], "dekad, weeks such as P1W or days such as P10D"),
    ],
)
def test_calendar_that_cannot_be_is_refused(overrides: list[str], line: str) -> None:
    assert line in refusal(MINIMAL, *overrides)[0]


WEIGHTS = f"{{path: a.safetensors, sha256: {'a' * 64}, encoder: tu-regnety_004}}"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["cube.mask.method=omnicloudmask"],
            "cube.mask.weights: missing, but method 'omnicloudmask' needs a network; give path,",
        ),
        (
            [f"cube.mask.weights=[{WEIGHTS}]"],
            "cube.mask.weights: given, but method 'scl' reads none",
        ),
        (
            [
                "cube.mask.method=scl+omnicloudmask",
                f"cube.mask.weights=[{WEIGHTS}]",
                'cube.grid={name: eu, crs: "EPSG:3035", origin: [0, 0], resolution: 20}',
            ],
            "cube.mask.method: 'scl+omnicloudmask' was trained on pixels of 10 to 50 m",
        ),
        (
            ["cube.mask.weights=[{path: a, sha256: 12, encoder: b}]"],
            "cube.mask.weights[0].sha256",
        ),
    ],
)
def test_learned_masks_need_weights_and_the_world_grid(overrides: list[str], line: str) -> None:
    assert line in refusal(MINIMAL, *overrides)[0]


def test_weights_are_paths_of_this_machine() -> None:
    overrides = ["cube.mask.method=omnicloudmask", f"cube.mask.weights=[{WEIGHTS}]"]
    config = parse_config(MINIMAL, overrides=overrides)
    assert local_paths(config, "/data")["cube.mask.weights[0].path"] == "/data/a.safetensors"
    assert config_key(config) != KEY_OF_MINIMAL


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
days = st.dates(date(2015, 1, 1), date(2040, 12, 31))
sections = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True),
        "aoi": st.sampled_from(["a.gpkg", [1.0, 2.0, 3.0, 4.0], ["z32r0457c048"]]),
        "time": st.tuples(days, days).map(lambda two: "/".join(d.isoformat() for d in sorted(two))),
        "task": st.sampled_from(["cube", "change"]),
        "store": texts.filter(str.strip),
        "source": st.fixed_dictionaries(
            {
                "query": st.dictionaries(texts, texts | st.integers(), max_size=2),
                "max_cloud_pct": st.floats(0, 100),
            }
        ),
        "cube": st.fixed_dictionaries(
            {"bands": st.lists(st.sampled_from(BANDS), min_size=1, unique=True)}
        ),
        "fit": st.fixed_dictionaries(
            {
                "learning_rate": st.floats(1e-9, 1),
                "class_property": texts,
                "classes": st.lists(texts, max_size=3),
            }
        ),
        "run": st.fixed_dictionaries({"workers": st.just("auto") | st.integers(1, 64)}),
    }
)


@given(sections)
def test_json_comes_back_equal(content: dict[str, Any]) -> None:
    config = parse_config(write_yaml(content).replace("${", "$${"))
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@given(sections)
def test_a_dumped_run_file_loads_equal(content: dict[str, Any]) -> None:
    config = parse_config(write_yaml(content).replace("${", "$${"))
    again = parse_config(dump_config(config))
    assert again == config
    assert config_key(again) == config_key(config)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(plain)
def test_yaml_comes_back_equal(value: Any) -> None:
    again = read_yaml(write_yaml(value), "here")
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("010", 10),
        ("1:30", "1:30"),
        ("2021-01-01", "2021-01-01"),
        ("1_000", "1_000"),
        ("~", None),
        ("true", True),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert read_yaml(f"a: {text}", "here") == {"a": value}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_template_loads_and_fits_the_schema(tmp_path: Path, task: str) -> None:
    path = write_template(tmp_path / "My Map.yaml", task=task)
    config = load_config(path)
    assert (config.name, config.task) == ("my-map", task)
    jsonschema.Draft202012Validator(run_file_schema()).validate(read_yaml(path.read_text(), "here"))


def test_the_template_with_every_comment_taken_off_still_loads(tmp_path: Path) -> None:
    path = write_template(tmp_path / "run.yaml", task="land-cover-change")
    lines = path.read_text().splitlines()
    keys = [line[2:] if line.startswith(("# ", "  # ")) and ":" in line else line for line in lines]
    opened = [k.replace("  # ", "  ", 1) if k.startswith("  # ") else k for k in keys[3:]]
    path.write_text("\n".join(line for line in opened if not line.startswith(("1.", "2.", "3."))))
    assert load_config(path).predict.model == "model/"


def test_the_templates_comments_show_the_defaults(tmp_path: Path) -> None:
    text = write_template(tmp_path / "run.yaml").read_text()
    config = load_config(tmp_path / "run.yaml")
    assert f"catalog: {config.source.catalog}" in text
    assert f"collection: {config.source.collection}" in text
    assert f"probability: {config.change.probability}" in text
    assert f"steps: {config.fit.steps}" in text
    assert f"period: {config.cube.composite.period}" in text
    assert f"n_samples: {config.assess.n_samples}" in text


def test_an_existing_run_file_is_not_replaced_unasked(run_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"exists already; .*--force"):
        write_template(run_file)
    assert run_file.read_text() == MINIMAL
    write_template(run_file, overwrite=True)
    assert load_config(run_file).name == "run"


def test_a_template_needs_a_folder_and_a_known_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder .* does not exist"):
        write_template(tmp_path / "none" / "run.yaml")
    with pytest.raises(ConfigError, match="unknown task 'landcover'; take one of cube"):
        write_template(tmp_path / "run.yaml", task="landcover")


@pytest.mark.parametrize(
    "bad",
    [{"cubes": {}}, {"cube": {"composit": {}}}, {"aoi": 5}, {"task": "x"}, {"run": {"workers": 0}}],
)
def test_the_schema_refuses_what_the_loader_refuses(bad: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(run_file_schema())
    good = read_yaml(MINIMAL, "here")
    validator.validate(good)
    assert list(validator.iter_errors({**good, **bad}))


def test_the_schema_knows_includes_variables_and_empty_sections() -> None:
    content = read_yaml(MINIMAL, "here")
    content |= {"include": ["a.yaml"], "vars": {"a": 1}, "fit": None, "cube": {"mask": None}}
    jsonschema.Draft202012Validator(run_file_schema()).validate(content)


def test_every_key_of_the_schema_says_what_it_means() -> None:
    schema = run_file_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    silent = [
        f"{name}.{key}"
        for name, section in schema["$defs"].items()
        for key, field in section["properties"].items()
        if "description" not in field and "$ref" not in field and "default" not in field
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "storage: {s3://maps: {regoin: r1}}",
            "storage.s3://maps.regoin: unknown key; did you mean",
        ),
        ("storage: {s3://maps/x: {}}", "storage.s3://maps/x: 's3://maps/x' is no bucket"),
        (
            "storage: {s3://maps: {tokens: 'https://a.example/t'}}",
            "storage['s3://maps']: tokens belongs to a server, but this is a bucket",
        ),
        (
            "storage: {'https://a.example': {region: eu-1}}",
            "storage['https://a.example']: region belongs to a bucket, but this is a server",
        ),
        (
            "storage: {'https://a.example': {tokens: 'https://me:secret@a.example/t'}}",
            "is no address of tokens",
        ),
    ],
)
def test_a_problem_inside_a_mapping_is_named_by_its_place(more: str, said: str) -> None:
    (line,) = refusal(f"{MINIMAL}{more}\n")
    assert said in line


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "cluster.namespace=Maps_",
            r"cluster\.namespace: got 'Maps_'; expected 1 to 63 lower-case",
        ),
        (
            "cluster.workers=[{name: a}, {name: b, cpu: -1}]",
            r"cluster\.workers\[1\]\.cpu: got -1; expected greater than 0",
        ),
        (
            "cluster.workers=[{name: a, cpus: 2}]",
            r"cluster\.workers\[0\]\.cpus: unknown key; did you mean 'cpu'",
        ),
        (
            "cluster.claims=[{claim: a, path: b}]",
            r"claims\[0\]\.path: got 'b'; expected an absolute",
        ),
        (
            "cluster.workers=[{name: a, priority_class: Low}]",
            r"workers\[0\]\.priority_class: got 'Low'; expected",
        ),
        ("cluster.priority=high", r"cluster: priority is that of a queue .* name queue, or give"),
        ("cluster.workers=[]", r"cluster\.workers: got \[\]; expected at least 1 value"),
    ],
)
def test_problem_inside_a_list_of_sections_is_one_line_with_its_key(
    override: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        parse_config(LAND_COVER, overrides=[override])
    assert "\n" not in str(raised.value)


def test_a_fallback_is_no_part_of_the_runs_key() -> None:
    plain = parse_config(MINIMAL)
    more = parse_config(f"{MINIMAL}source: {{fallback: [{{catalog: 'https://b.example'}}]}}\n")
    assert more.source.fallback[0].collection == ""
    assert config_key(more) == config_key(plain)
    other = parse_config(f"{MINIMAL}source: {{catalog: 'https://b.example'}}\n")
    assert config_key(other) != config_key(plain)
