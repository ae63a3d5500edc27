"""What a place needs, from the orbits alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eoray.cli.app import app
from eoray.config import parse_config
from eoray.cube.plan import plan_scenes
from eoray.grid import Tile, tiles_of_geometry
from eoray.grid.place import box_lonlat
from eoray.run.estimate import estimate_reads, human_hours
from eoray.run.scale import cluster_lines, on_cluster, size_up
from tests.cube.test_plan import scene_over

JUNE = datetime(2021, 6, 1, tzinfo=UTC), datetime(2021, 7, 1, tzinfo=UTC)
RUN_FILE = """
version: 1
name: country
aoi: [14.0, 46.0, 14.6, 46.4]
time: 2021-01-01/2021-12-31
task: cube
source: {catalog: "http://127.0.0.1:9/nobody-is-here"}
store: out
"""
PRICED = """
cluster:
  image: eoray.test/eoray:1
  head: {price_per_hour: 0.5}
  workers:
    - {name: gpus, gpus: 1, price_per_hour: 3}
    - {name: readers, cpu: 4, max: 6, price_per_hour: 0.25}
"""


@pytest.mark.parametrize(("lat", "fewest", "most"), [(0.5, 6, 9), (46.0, 9, 14), (60.0, 12, 20)])
def test_places_nearer_to_the_poles_are_seen_more_often(
    lat: float, fewest: float, most: float
) -> None:
    """Two satellites in thirty days: six passes of one orbit, and more where swaths overlap."""
    tiles = tiles_of_geometry(box_lonlat(10.0, lat, 20.0, lat + 0.2))
    assert fewest <= size_up(tiles, ("B02",), *JUNE).passes <= most


def test_one_pass_takes_what_a_row_that_its_scene_covers_takes() -> None:
    """The plan of the catalogue is the oracle."""
    tiles = [Tile(32, row, col) for row in range(400, 404) for col in range(68, 72)]
    scale = size_up(tiles, (), *JUNE)
    _, rows = plan_scenes([scene_over("32TQS_1", 1, 398, 66, edge=9)], tiles)
    requests, size, _ = estimate_reads(rows, (), 1)
    assert scale.tasks == round(scale.passes)  # one block of sixteen tiles
    assert scale.bytes == pytest.approx(scale.passes * size)
    assert scale.requests == pytest.approx(scale.passes * requests, abs=1)


def test_bands_of_ten_metres_weigh_four_times_as_much() -> None:
    tiles = [Tile(32, 400, 70)]
    none, fine, coarse = (size_up(tiles, bands, *JUNE).bytes for bands in ((), ("B02",), ("B11",)))
    assert (fine - none) == pytest.approx(4 * (coarse - none), rel=1e-6)


def test_hours_and_cost_of_a_cluster() -> None:
    cluster = parse_config(RUN_FILE + PRICED).cluster
    small, own, large = on_cluster(96.0, cluster, (1, 24))
    assert (small.nodes, own.nodes, large.nodes) == (1, 6, 24)
    assert own.group == "readers"  # the first without GPUs
    assert small.hours - 24.0 == pytest.approx(large.hours - 1.0)  # what starting takes
    assert large.hours == pytest.approx(1.0, abs=0.1)
    assert large.cost == pytest.approx(large.hours * (0.5 + 24 * 0.25))


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0.0, "0.0 s"), (0.0141, "50.8 s"), (0.5, "30.0 min"), (1.0, "1.0 h"), (72.0, "3.0 days")],
)
def test_a_time_is_told_in_its_own_unit(hours: float, said: str) -> None:
    assert human_hours(hours) == said


def test_cost_is_not_guessed_where_a_price_is_missing() -> None:
    cluster = parse_config(RUN_FILE).cluster
    assert {size.cost for size in on_cluster(10.0, cluster)} == {None}


def test_plan_from_orbits_asks_no_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE + PRICED)
    words = ["plan", str(path), "--from-orbits", "--nodes", "12", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["tiles"] > 20
    assert 70 < answer["passes"] < 150  # one orbit has 73, two have 146
    assert [row["nodes"] for row in answer["cluster"]] == [6, 12]
    assert not (tmp_path / "out").exists()


def test_plan_from_orbits_tells_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE)
    said = CliRunner().invoke(app, ["plan", str(path), "--from-orbits", "--nodes", "8"]).stdout
    assert "no catalogue was asked" in said
    head, first, own = said.splitlines()[-3:]
    assert head.split() == ["cluster", "nodes", "of", "time"]
    assert [first.split()[:4], own.split()[:1]] == [["4", "readers,", "4", "CPUs"], ["8"]]
    assert len(head) == len(first) == len(own)


def test_table_of_clusters_tells_cost_where_prices_are_given() -> None:
    sizes = on_cluster(96_000.0, parse_config(RUN_FILE + PRICED).cluster, (100,))
    lines = cluster_lines(sizes)
    assert lines[0].endswith("time  cost by its prices")
    assert lines[2].split() == ["100", "readers,", "4", "CPUs", "10.0", "days", "6,120.51"]
    assert cluster_lines([]) == []
