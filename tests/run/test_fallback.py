"""A provider that fails: the same product elsewhere gives the same cube, other data never does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eoray import load_run
from eoray.cube.check import check_cube
from eoray.errors import ReadError
from eoray.reading import window
from eoray.reading.requests import forget_gates
from tests.file_server import FileServer, serve_files

TIME = "2021-05-01/2021-06-20"
BANDS = {"red": "B04", "nir08": "B8A", "scl": "SCL"}
Change = Callable[[dict[str, Any]], None]


@dataclass
class Providers:
    """Two servers of the same files, and what their catalogues say of them."""

    archive: Path
    folder: Path
    first: FileServer
    second: FileServer

    def first_catalog(self) -> Path:
        """As the archive has it, with files behind the first server."""
        return self._write("first.json", [self._at(d, self.first) for d in self._documents()])

    def second_catalog(self, change: Change = lambda item: None) -> Path:
        """As Planetary Computer would list them: other ids, names and offset rule."""
        items = [_renamed(self._at(document, self.second)) for document in self._documents()]
        for item in items:
            change(item)
        return self._write("second.json", items)

    def run(self, name: str, *, fallback: Path | None = None, errors: str = "record") -> Any:
        """Run the cube stage; a fallback is named in the run file."""
        path = self.folder / f"{name}.yaml"
        there = f"fallback: [{{catalog: {fallback}}}]" if fallback else ""
        path.write_text(f"""\
version: 1
name: run
aoi: {self.archive / "aoi.geojson"}
time: {TIME}
task: cube
source:
  catalog: {self.first_catalog()}
  collection: sentinel-2-c1-l2a
  lineage: {{baseline_min: "02.00", mixed: true}}
  {there}
cube: {{bands: [B04, B8A], composite: {{method: none}}, max_failed_share: 1}}
run: {{retries: 0, read_seconds: 20, errors: {errors}, executor: threads, workers: 2}}
store: {self.folder / name}
""")
        run = load_run(path)
        return run, run.execute()

    def checksum(self, name: str) -> str:
        """Of the cube of a run."""
        found = check_cube(str(self.folder / name))
        assert found.ok, found.problems
        return found.products["s2"]

    def _documents(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.archive.glob("sentinel-2-c1-l2a/*/*.json")):
            document = json.loads(path.read_text())
            if "2021-05-01" <= document["properties"]["datetime"] < "2021-06-21":
                yield document

    def _at(self, document: dict[str, Any], server: FileServer) -> dict[str, Any]:
        place = f"{server.url}/sentinel-2-c1-l2a/{document['id']}"
        assets = {
            key: {**document["assets"][key], "href": f"{place}/{band}.tif"}
            for key, band in BANDS.items()
        }
        return {**document, "assets": assets, "links": []}

    def _write(self, name: str, items: list[dict[str, Any]]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return path


def _renamed(item: dict[str, Any]) -> dict[str, Any]:
    parts = item["properties"]["s2:product_uri"].removesuffix(".SAFE").split("_")
    properties = {k: v for k, v in item["properties"].items() if not k.startswith("earthsearch:")}
    assets = {}
    for key, band in BANDS.items():
        kept = {k: v for k, v in item["assets"][key].items() if k != "raster:bands"}
        assets[band] = kept
    return {
        **item,
        "id": "_".join([*parts[:3], *parts[4:]]),
        "collection": "sentinel-2-l2a",
        "properties": {**properties, "s2:mgrs_tile": parts[5][1:]},
        "assets": assets,
    }


def another_baseline(item: dict[str, Any]) -> None:
    properties = item["properties"]
    properties["s2:processing_baseline"] = "05.11"
    properties["s2:product_uri"] = "_".join(
        "N0511" if part.startswith("N0") else part
        for part in properties["s2:product_uri"].split("_")
    )


@pytest.fixture
def providers(archive: Path, tmp_path: Path) -> Iterator[Providers]:
    forget_gates()
    window._tell.cache_clear()
    with serve_files(archive) as first, serve_files(archive) as second:
        yield Providers(archive, tmp_path, first, second)
    forget_gates()


def test_a_provider_that_fails_is_replaced_by_the_same_product(providers: Providers) -> None:
    _, calm = providers.run("calm")
    assert calm.stages["cube"]["failed_reads"] == 0
    providers.second_catalog()
    providers.first.refuse = lambda number, path: (503, {}) if "/B04.tif" in path else None
    run, report = providers.run("disturbed", fallback=providers.folder / "second.json")
    cube = report.stages["cube"]
    assert cube["failed_reads"] == 0
    assert cube["reads"]["failovers"] > 0
    assert cube["reads"]["throttled"] > 0
    assert providers.checksum("disturbed") == providers.checksum("calm")
    (providers.folder / "second.json").unlink()  # later attempts read what was frozen
    assert all(scene.elsewhere for scene in run.plan_cube(freeze=False).scenes)
    assert providers.second.asked


def test_the_fallback_is_no_part_of_the_run(providers: Providers) -> None:
    run, _ = providers.run("plain")
    same, again = providers.run("plain", fallback=providers.second_catalog())
    assert same.paths.key == run.paths.key
    assert again.stages["cube"]["tasks"] == 0  # all of it was done, and stays done
    assert not providers.second.asked


def test_another_processing_is_never_taken(providers: Providers) -> None:
    other = providers.second_catalog(another_baseline)
    providers.first.refuse = lambda number, path: (503, {}) if "/B8A.tif" in path else None
    run, report = providers.run("other", fallback=other)
    assert report.stages["cube"]["failed_reads"] > 0
    assert report.stages["cube"]["reads"]["failovers"] == 0
    assert not providers.second.asked
    scenes = run.plan_cube(freeze=False).scenes
    assert {scene.elsewhere for scene in scenes} == {()}
    assert all("another processing of it (baseline 05.11" in s.not_elsewhere for s in scenes)


def test_the_hole_says_why_nobody_stood_in(providers: Providers) -> None:
    providers.first.refuse = lambda number, path: (503, {}) if "/SCL.tif" in path else None
    with pytest.raises(
        ReadError,
        match=r"SCL of item \S+ cannot be read \(503 .* after 1 request\) .*nor elsewhere: "
        r"source\.fallback\[0\] .* has another processing of it \(baseline 05\.11",
    ):
        providers.run("why", fallback=providers.second_catalog(another_baseline), errors="raise")


def test_a_catalogue_that_cannot_be_asked_is_left_out(providers: Providers) -> None:
    run, report = providers.run("gone", fallback=providers.folder / "nowhere.json")
    assert report.stages["cube"]["failed_reads"] == 0
    (note,) = [n for n in run.plan().details["notes"] if n.startswith("source.fallback[0]")]
    assert "is left out: catalogue" in note


def test_a_server_that_is_down_is_passed_over(providers: Providers) -> None:
    other = providers.second_catalog()
    providers.first.refuse = lambda number, path: (500, {})
    _, report = providers.run("down", fallback=other)
    assert report.stages["cube"]["failed_reads"] == 0
    # three reads found out, those that were under way beside them too; the rest asked elsewhere
    assert len(providers.first.asked) < len(providers.second.asked)
