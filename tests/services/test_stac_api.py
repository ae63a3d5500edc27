"""A real STAC API, stac-fastapi on PostgreSQL: pages, filters, and a cube as the catalogue's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely

from eoray import load_run
from eoray.catalog import api
from eoray.catalog.search import search_items
from eoray.catalog.snapshot import hash_items
from eoray.cube.check import check_cube
from eoray.errors import CatalogError
from eoray.testing import ArchiveOptions, write_archive
from tests.services.stac_api import postgres_folder, python_of_services, stac_api

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        python_of_services() is None or postgres_folder() is None,
        reason="no STAC API here: `make services` installs PostgreSQL, PostGIS and the API",
    ),
]
C1 = "sentinel-2-c1-l2a"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, ArchiveOptions(size_px=64, dates_per_year=10), workers=1)
    return folder


def documents(archive: Path) -> Iterator[dict[str, Any]]:
    """Items with absolute places of their files, as an API has them."""
    for path in sorted((archive / C1).glob("*/*.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = (path.parent / asset["href"]).resolve().as_uri()
        yield {**item, "links": []}


@pytest.fixture(scope="module")
def url(archive: Path) -> Iterator[str]:
    collection = json.loads((archive / C1 / "collection.json").read_text())
    with stac_api([{**collection, "links": []}], list(documents(archive))) as address:
        yield address


def place(archive: Path) -> Any:
    feature = json.loads((archive / "aoi.geojson").read_text())["features"][0]
    return shapely.from_geojson(json.dumps(feature["geometry"]))


def found(url: str, archive: Path, **more: Any) -> list[Any]:
    period = {"start": datetime(2020, 1, 1, tzinfo=UTC), "end": datetime(2023, 1, 1, tzinfo=UTC)}
    return search_items(url, aoi=place(archive), **{"collection": C1, **period, **more})


def test_the_api_gives_the_items_of_the_catalogue(
    url: str, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = found(str(archive), archive)
    assert [item.id for item in found(url, archive)] == [item.id for item in static]
    monkeypatch.setattr(api, "_PAGE", 7)
    paged = found(url, archive)
    assert [item.id for item in paged] == [item.id for item in static]
    assert len(paged) > 3 * 7
    assert hash_items(paged) == hash_items(found(url, archive))


def test_conditions_and_time_are_kept_to(url: str, archive: Path) -> None:
    year = {"start": datetime(2021, 1, 1, tzinfo=UTC), "end": datetime(2022, 1, 1, tzinfo=UTC)}
    query = {"platform": "sentinel-2a", "eo:cloud_cover": {"lt": 60}}
    ours = found(url, archive, query=query, **year)
    assert [i.id for i in ours] == [i.id for i in found(str(archive), archive, query=query, **year)]
    assert {item.properties["platform"] for item in ours} == {"sentinel-2a"}


def test_a_wrong_collection_is_named_with_the_right_one(url: str, archive: Path) -> None:
    with pytest.raises(CatalogError, match=rf"no collection 'nope' .* it has {C1}"):
        found(url, archive, collection="nope")


def test_its_cube_is_that_of_the_static_catalogue(url: str, archive: Path, tmp_path: Path) -> None:
    sums = []
    for name, catalog in (("static", str(archive / "catalog.json")), ("api", url)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"""\
version: 1
name: run
aoi: {archive / "aoi.geojson"}
time: 2021-04-01/2021-08-31
task: cube
source:
  catalog: {catalog}
  lineage: {{baseline_min: "02.00", mixed: true}}
cube: {{composite: {{method: none}}}}
store: {tmp_path / name}
""")
        report = load_run(path).execute()
        assert report.stages["cube"]["tasks"] > 3
        assert report.stages["cube"]["failed_reads"] == 0
        checked = check_cube(str(tmp_path / name))
        assert checked.ok, checked.problems
        sums.append(checked.products)
    assert sums[0] == sums[1]
