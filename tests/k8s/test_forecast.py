"""The estimate that stands before a submission."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pystac
import pytest

from eoray.config import load_config
from eoray.k8s import forecast as module
from eoray.k8s.forecast import forecast
from eoray.testing import ArchiveOptions, write_archive
from tests.k8s.conftest import RUN_FILE

READERS = "{name: readers, cpu: 4, max: 10, price_per_hour: 0.5}"
PRICES = (
    "cluster.head={price_per_hour: 1.0}",
    f"cluster.workers=[{READERS}, {{name: gpu, gpus: 1, cpu: 8, max: 1}}]",
    "cluster.deadline_minutes=60",
)
PLAN = {"scenes": 120, "tasks": 30, "bytes": 12_340_000_000, "minutes": 90.0}


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        ({"bytes": 2_300_000, "minutes": 0.4}, "2.3 MB to read, about 1 min of reading"),
        ({"bytes": 4.2e12, "minutes": 59.4}, "4200.0 GB to read, about 60 min of reading"),
    ],
)
def test_small_plans_are_told_in_small_units(
    run_file: str, monkeypatch: pytest.MonkeyPatch, plan: dict[str, Any], text: str
) -> None:
    monkeypatch.setattr(module, "_plan", lambda *_: {**PLAN, **plan})
    assert text in told(run_file)[0]


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE)
    return str(path)


def told(run_file: str, overrides: Sequence[str] = (), **how: Any) -> list[str]:
    config = load_config(run_file, overrides)
    return list(forecast(run_file, overrides, config, **how).lines)


def test_estimate_says_what_it_is_and_what_it_leaves_out(
    run_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def plan(path: str, settings: Sequence[str], timeout_s: float) -> dict[str, Any]:
        asked.append(settings)
        return PLAN

    monkeypatch.setattr(module, "_plan", plan)
    first, second = told(run_file, PRICES)
    assert first == (
        "estimate, from the catalogue alone: 120 scenes, 30 tasks, 12.3 GB to read, about 1.5 h of "
        "reading on 48 CPUs, 9.00 by its prices"
    )
    assert second.startswith("not in it: what the store holds already")
    assert asked[0][-2:] == ["time=2024-01-01/2024-12-31", "run.workers=48"]


def test_cluster_that_stays_has_no_hours(run_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_plan", lambda *_: PLAN)
    assert told(run_file, ["cluster.ray_cluster=eoray"])[0].endswith("12.3 GB to read")


def test_stages_that_read_no_scene_have_none(run_file: str) -> None:
    assert told(run_file, stages=["predict"]) == []


def test_catalogue_that_is_slow_is_no_error(run_file: str) -> None:
    assert told(run_file, timeout_s=0.01) == [
        "no estimate from here: the catalogue needs more than 0.01 s"
    ]


def test_plan_that_fails_is_told_in_one_line(run_file: str) -> None:
    catalog = "source.catalog=/nowhere/catalog.json"
    (line,) = told(run_file, [catalog])
    assert line.startswith("no estimate from here: ")
    assert "/nowhere/catalog.json" in line


def test_environment_without_the_reading_packages_is_told(
    run_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PLAN", "import sys; sys.modules['numpy'] = None\n" + module._PLAN)
    (line,) = told(run_file)
    assert line.startswith("no estimate from here: ")
    assert "numpy" in line


def test_real_catalogue_is_planned_without_its_store(tmp_path: Path, run_file: str) -> None:
    folder = tmp_path / "archive"
    few = ArchiveOptions(
        size_px=64, years=(2021,), dates_per_year=4, southern=False, neighbour_zone=False
    )
    write_archive(folder, few, workers=1)
    settings = [
        f"source.catalog={folder / 'catalog.json'}",
        f"aoi={folder / 'aoi.geojson'}",
        "source.lineage={baseline_min: '02.00', mixed: true}",
        "time=2021-01-01/2021-12-31",
    ]
    first, _ = told(run_file, settings)
    items = list(pystac.Catalog.from_file(str(folder / "catalog.json")).get_items(recursive=True))
    n_scenes = int(first.removeprefix("estimate, from the catalogue alone: ").split(" ")[0])
    # one of them is an older processing of another
    assert n_scenes == len(items) - 1 > 0
    assert " MB to read, about 1 min " in first


@pytest.mark.parametrize(
    ("settings", "tasks"),
    [
        ([], 400),  # 100 tiles in the four quarters of a year
        (["cube.composite.period=P1Y"], 130),
        (["cube.composite.method=none"], 130),
    ],
)
def test_largest_stage_is_the_cube_s_or_that_of_its_periods(
    run_file: str, monkeypatch: pytest.MonkeyPatch, settings: list[str], tasks: int
) -> None:
    monkeypatch.setattr(module, "_plan", lambda *_: {**PLAN, "tasks": 130, "tiles": 100})
    assert forecast(run_file, settings, load_config(run_file, settings)).tasks == tasks


def test_without_an_estimate_nobody_knows_the_tasks(run_file: str) -> None:
    assert forecast(run_file, [], load_config(run_file), timeout_s=0.01).tasks == 0
