"""Searching a static catalogue on disk and over HTTP, and a STAC API that pages."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely

from eoray.catalog.search import Limits, search_items
from eoray.catalog.snapshot import write_snapshot
from eoray.errors import CatalogError, ConfigError

Documents = Callable[..., dict[str, Any]]
AOI = shapely.box(11.2, 45.2, 11.4, 45.4)
YEAR: dict[str, Any] = {
    "start": datetime(2024, 1, 1, tzinfo=UTC),
    "end": datetime(2025, 1, 1, tzinfo=UTC),
}
QUICK = Limits(retries=0, timeout_s=5)
C1 = "sentinel-2-c1-l2a"
UDS = shapely.box(3.02, 50.813, 3.028, 50.818)
UDS_TIME: dict[str, Any] = {
    "start": datetime(2017, 8, 1, tzinfo=UTC),
    "end": datetime(2018, 12, 1, tzinfo=UTC),
}


def ids(items: list[pystac.Item]) -> list[str]:
    return [item.id for item in items]


def collection_document(name: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": "made for a test",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[5.0, 40.0, 20.0, 50.0]]},
            "temporal": {"interval": [["2017-01-01T00:00:00Z", "2024-12-31T00:00:00Z"]]},
        },
        "links": [],
    }


@pytest.fixture
def archive(tmp_path: Path, document: Documents) -> Path:
    """A catalogue of two collections, three items in the first."""
    links = []
    for name in (C1, "other"):
        links.append({"rel": "child", "href": f"./{name}/collection.json"})
        folder = tmp_path / name
        folder.mkdir()
        content = collection_document(name)
        for day in ("10", "20", "30") if name == C1 else ("05",):
            item = document(start=f"202405{day}T103021", name=f"day{day}", collection=name)
            for key, asset in item["assets"].items():
                asset["href"] = f"./{key}.tif"
            (folder / f"day{day}").mkdir()
            (folder / f"day{day}" / "item.json").write_text(json.dumps(item))
            content["links"].insert(0, {"rel": "item", "href": f"./day{day}/item.json"})
        (folder / "collection.json").write_text(json.dumps(content))
    root = {"type": "Catalog", "stac_version": "1.0.0", "id": "root", "description": "x"}
    (tmp_path / "catalog.json").write_text(json.dumps(root | {"links": links}))
    return tmp_path


@pytest.mark.parametrize("place", ["", "/catalog.json", f"/{C1}", f"/{C1}/collection.json"])
def test_a_static_catalogue_is_found_however_it_is_named(archive: Path, place: str) -> None:
    items = search_items(f"{archive}{place}", aoi=AOI, collection=C1, **YEAR)
    assert ids(items) == ["day10", "day20", "day30"]
    assert items[0].assets["red"].get_absolute_href() == str(archive / C1 / "day10" / "red.tif")


def test_a_file_url_and_a_single_item_are_read(archive: Path) -> None:
    url = (archive / C1 / "day20" / "item.json").as_uri()
    assert ids(search_items(url, aoi=AOI, **YEAR)) == ["day20"]


def test_an_item_collection_and_a_snapshot_are_read(
    archive: Path, document: Documents, tmp_path: Path
) -> None:
    features = [document(name="b", start="20240602T103021"), document(name="a")]
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    items = search_items(str(path), aoi=AOI, **YEAR)
    assert ids(items) == ["a", "b"]
    write_snapshot(items, str(tmp_path / "found.parquet"))
    assert ids(search_items(str(tmp_path / "found.parquet"), aoi=AOI, **YEAR)) == ["a", "b"]


def test_time_is_half_open(archive: Path) -> None:
    period: dict[str, Any] = {
        "start": datetime(2024, 5, 10, 10, 30, 30, tzinfo=UTC),
        "end": datetime(2024, 5, 20, 10, 30, 30, tzinfo=UTC),
    }
    assert ids(search_items(str(archive), aoi=AOI, collection=C1, **period)) == ["day10"]


def test_cloud_and_query_filter(archive: Path) -> None:
    options: dict[str, Any] = {"aoi": AOI, "collection": C1, **YEAR}
    query = {"s2:datatake_id": {"startsWith": "GS2B_20240520"}, "constellation": "sentinel-2"}
    assert ids(search_items(str(archive), query=query, **options)) == ["day20"]
    assert len(search_items(str(archive), max_cloud_pct=12.5, **options)) == 3
    with pytest.raises(CatalogError, match=r"3 lie in time, 0 have no more cloud"):
        search_items(str(archive), max_cloud_pct=12.4, **options)
    with pytest.raises(ConfigError, match=r"source.query.gsd uses 'near'; use one of eq, neq"):
        search_items(str(archive), query={"gsd": {"near": 10}}, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aoi": shapely.box(60, 10, 61, 11)}, r"aoi \[60.000, 10.000, .* outside the extent"),
        ({"aoi": shapely.box(6, 41, 7, 42)}, r"no scenes in .*3 items read, .*0 touch the aoi"),
        (
            {"start": datetime(2030, 1, 1, tzinfo=UTC), "end": datetime(2031, 1, 1, tzinfo=UTC)},
            r"time 2030-01-01/2031-01-01 lies outside .* 2017-01-01 to 2024-12-31",
        ),
        (
            {"start": datetime(2016, 1, 1, tzinfo=UTC), "end": datetime(2016, 6, 1, tzinfo=UTC)},
            "lies outside the extent",
        ),
        (
            {"start": datetime(2024, 5, 11, tzinfo=UTC), "end": datetime(2024, 5, 12, tzinfo=UTC)},
            r"no scenes in .*3 touch the aoi, 0 lie in time",
        ),
        ({"collection": "nope"}, r"no collection 'nope' .* it has other, sentinel-2-c1-l2a"),
        ({"collection": ""}, r"has 2 collections \(other, sentinel-2-c1-l2a\)"),
    ],
)
def test_what_was_not_found_is_explained(
    archive: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(CatalogError, match=words):
        search_items(str(archive), **{"aoi": AOI, "collection": C1, **YEAR, **options})


def test_an_empty_place_or_reversed_time_is_refused_before_reading() -> None:
    with pytest.raises(ConfigError, match=r"aoi is empty"):
        search_items("/nowhere", aoi=shapely.Polygon(), **YEAR)
    with pytest.raises(ConfigError, match=r"ends before it starts"):
        search_items("/nowhere", aoi=AOI, start=YEAR["end"], end=YEAR["start"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not json", "is no JSON"),
        ("[1, 2]", "holds a list, not a STAC document"),
        ('{"type": "Topology"}', "is of type 'Topology', not a STAC"),
        ('{"type": "Feature", "id": "half"}', "'half' in .* is no STAC item"),
    ],
)
def test_a_document_that_is_no_catalogue_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(content)
    with pytest.raises(CatalogError, match=words):
        search_items(str(path), aoi=AOI, **YEAR)


def test_a_missing_catalogue_or_item_cannot_be_reached(archive: Path) -> None:
    with pytest.raises(CatalogError, match=r"'/nowhere/catalog.json' cannot be reached"):
        search_items("/nowhere/catalog.json", aoi=AOI, **YEAR)
    (archive / C1 / "day20" / "item.json").unlink()
    with pytest.raises(CatalogError, match=r"day20/item.json' cannot be reached"):
        search_items(str(archive), aoi=AOI, collection=C1, **YEAR)


def test_links_in_a_circle_are_followed_once(archive: Path) -> None:
    path = archive / C1 / "collection.json"
    content = json.loads(path.read_text())
    content["links"].append({"rel": "child", "href": "../catalog.json"})
    path.write_text(json.dumps(content))
    assert len(search_items(str(archive), aoi=AOI, collection=C1, **YEAR)) == 3


def test_a_catalogue_without_end_is_refused(archive: Path) -> None:
    with pytest.raises(CatalogError, match=r"more than 2 documents"):
        search_items(str(archive), aoi=AOI, collection=C1, limits=Limits(max_items=2), **YEAR)


def test_the_real_series_is_found_in_full(shared_data: Path) -> None:
    items = search_items(
        str(shared_data / "sentinel2"), aoi=UDS, collection="worldcereal-31uds", **UDS_TIME
    )
    assert len(items) == 118
    times = [item.datetime for item in items if item.datetime]
    assert times == sorted(times)
    assert len(times) == 118


def test_a_place_over_the_antimeridian_finds_items_on_both_sides(
    tmp_path: Path, document: Documents
) -> None:
    west, east = document(name="west", box=(-180, 60, -178, 61)), document(box=(178, 60, 180, 61))
    across = document(name="across", box=(179, 60, 181, 61))
    across["geometry"]["coordinates"] = [
        [[179, 60], [-179, 60], [-179, 61], [179, 61], [179, 60]],
    ]
    path = tmp_path / "c.json"
    features = {"type": "FeatureCollection", "features": [west, east, across]}
    path.write_text(json.dumps(features))
    split = shapely.union_all(
        [shapely.box(179.5, 60.2, 180, 60.4), shapely.box(-180, 60.2, -179.5, 60.4)]
    )
    for aoi in (split, shapely.box(179.5, 60.2, 180.5, 60.4)):
        assert len(search_items(str(path), aoi=aoi, **YEAR)) == 3
    assert len(search_items(str(path), aoi=shapely.box(178.2, 60.2, 178.4, 60.4), **YEAR)) == 1


class Service:
    """A STAC API that keeps what it was asked and pages as it is told."""

    def __init__(self, documents: list[dict[str, Any]], *, page: int = 2) -> None:
        self.documents = documents
        self.page = page
        self.endless = False
        self.fail_first = 0
        self.posts = True
        self.asked: list[dict[str, Any]] = []
        self.url = ""

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        if self.fail_first > 0:
            self.fail_first -= 1
            return 503, {"code": "busy"}
        if path == "/":
            return 200, self._landing()
        if path == "/collections":
            return 200, {"collections": [collection_document(C1)], "links": []}
        if path.startswith("/collections/"):
            known = path == f"/collections/{C1}"
            return (200, collection_document(C1)) if known else (404, {"code": "NotFound"})
        self.asked.append(body or {})
        return 200, self._found(body or {})

    def _landing(self) -> dict[str, Any]:
        search = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json"}
        methods = ("GET", "POST") if self.posts else ("GET",)
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "fake",
            "description": "x",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/item-search#query"],
            "links": [
                {"rel": "data", "href": f"{self.url}/collections"},
                *(search | {"method": method} for method in methods),
            ],
        }

    def _found(self, body: dict[str, Any]) -> dict[str, Any]:
        first = 0 if self.endless else int(body.get("token", 0))
        features = self.documents[first : first + self.page]
        answer: dict[str, Any] = {"type": "FeatureCollection", "features": features, "links": []}
        if self.endless or first + self.page < len(self.documents):
            following = {**body, "token": first + self.page}
            link = {"rel": "next", "href": f"{self.url}/search"}
            answer["links"] = [link | {"method": "POST", "body": following}]
        return answer


@contextmanager
def serve(answer: Callable[[str, dict[str, Any] | None], tuple[int, Any]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(None)

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self._send(json.loads(self.rfile.read(size)))

        def _send(self, body: dict[str, Any] | None) -> None:
            status, content = answer(self.path.split("?")[0], body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_items_of_a_static_catalogue_are_fetched_sixteen_at_once(
    document: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(16, timeout=10)
    links = [{"rel": "item", "href": f"./{n}.json"} for n in range(32)]
    collection = {**collection_document(C1), "links": links}

    def answer(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if path.endswith("collection.json"):
            return 200, collection
        together.wait()  # broken where fewer come
        name = path.strip("/").removesuffix(".json")
        return 200, document(name=name, start=f"2024051{int(name) % 10}T103021")

    with serve(answer) as url:
        found = search_items(f"{url}/collection.json", aoi=AOI, collection=C1, **YEAR)
    assert sorted(ids(found), key=int) == [str(n) for n in range(32)]
    assert "pool is full" not in caplog.text


@pytest.fixture
def service(document: Documents) -> Iterator[Service]:
    days = [f"202405{day:02d}T103021" for day in (25, 5, 15, 10, 20)]
    made = Service([document(start=day, name=day) for day in days])
    with serve(made.answer) as url:
        made.url = url
        yield made


def test_an_api_is_paged_to_its_end(service: Service) -> None:
    items = search_items(service.url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)
    assert ids(items) == [f"202405{day:02d}T103021" for day in (5, 10, 15, 20, 25)]
    assert len(service.asked) == 3
    asked = service.asked[0]
    assert asked["collections"] == [C1]
    assert asked["datetime"] == "2024-01-01T00:00:00Z/2025-01-01T00:00:00Z"
    assert asked["intersects"]["type"] == "Polygon"


def test_an_api_that_only_takes_get_is_searched(service: Service) -> None:
    service.posts = False
    service.page = 9
    assert len(search_items(service.url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)) == 5


def test_the_only_collection_is_taken_when_none_is_named(service: Service) -> None:
    assert len(search_items(service.url, aoi=AOI, limits=QUICK, **YEAR)) == 5


def test_a_query_is_sent_and_kept_to(service: Service) -> None:
    query = {"s2:datatake_id": "GS2B_20240505T103021_037776_N05.10"}
    items = search_items(service.url, aoi=AOI, collection=C1, query=query, limits=QUICK, **YEAR)
    assert ids(items) == ["20240505T103021"]
    assert service.asked[0]["query"] == {"s2:datatake_id": {"eq": query["s2:datatake_id"]}}


def test_an_intricate_outline_is_sent_as_a_box_and_filtered_here(service: Service) -> None:
    ring = shapely.Point(11.3, 45.3).buffer(0.1, quad_segs=200)
    assert len(search_items(service.url, aoi=ring, collection=C1, limits=QUICK, **YEAR)) == 5
    assert len(service.asked[0]["intersects"]["coordinates"][0]) == 5
    far = shapely.Point(13.3, 45.3).buffer(0.1, quad_segs=200)
    with pytest.raises(CatalogError, match=r"0 touch the aoi"):
        search_items(service.url, aoi=far, collection=C1, limits=QUICK, **YEAR)


def test_a_service_that_pages_forever_is_stopped(service: Service) -> None:
    service.endless = True
    with pytest.raises(CatalogError, match=r"pages without end: page 2 repeats items of the 2"):
        search_items(service.url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)
    assert len(service.asked) == 2


def test_empty_pages_on_the_way_lose_nothing(service: Service) -> None:
    whole = service.answer

    def holey(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        status, content = whole(path, body)
        token = (body or {}).get("token", 0)
        if path == "/search" and token == 2 and not (body or {}).get("again"):
            following = {**(body or {}), "again": True}
            link = {"rel": "next", "href": f"{service.url}/search", "method": "POST"}
            return 200, {**content, "features": [], "links": [link | {"body": following}]}
        return status, content

    with serve(holey) as url:
        service.url = url
        items = search_items(url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)
    assert len(items) == 5


def test_empty_pages_without_end_are_stopped(service: Service) -> None:
    def endless(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if path != "/search":
            return service.answer(path, body)
        link = {"rel": "next", "href": f"{service.url}/search", "method": "POST"}
        following = {**(body or {}), "token": int((body or {}).get("token", 0)) + 1}
        return 200, {
            "type": "FeatureCollection",
            "features": [],
            "links": [link | {"body": following}],
        }

    with serve(endless) as url:
        service.url = url
        with pytest.raises(CatalogError, match=r"pages without end: page 4 is empty, as 3 before"):
            search_items(url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)


def test_an_answer_that_is_no_page_is_named(service: Service) -> None:
    def broken(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        return service.answer(path, body) if path != "/search" else (200, {"message": "sorry"})

    with serve(broken) as url:
        service.url = url
        with pytest.raises(CatalogError, match=r"page 1 .*the answer has no 'features'"):
            search_items(url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)


@pytest.mark.parametrize("status", [401, 403])
def test_an_expired_token_of_a_catalogue_is_an_error_of_the_catalogue(
    service: Service, status: int
) -> None:
    """Whether it is refused at once or between pages."""

    def expiring(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        late = (body or {}).get("token") == 4
        return (status, {"code": "ExpiredToken"}) if late else service.answer(path, body)

    with serve(expiring) as url:
        service.url = url
        with pytest.raises(CatalogError, match=r"page 3 of .* failed after 4 items .*ExpiredToken"):
            search_items(url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)
    with (
        serve(lambda path, body: (status, {"code": "ExpiredToken"})) as url,
        pytest.raises(CatalogError, match=r"cannot be reached .*ExpiredToken"),
    ):
        search_items(url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)


def test_too_many_items_are_refused(service: Service) -> None:
    limits = Limits(max_items=3, retries=0)
    with pytest.raises(CatalogError, match=r"more than 3 items in 2 pages"):
        search_items(service.url, aoi=AOI, collection=C1, limits=limits, **YEAR)


def test_a_collection_that_an_api_lacks_is_named_with_those_it_has(service: Service) -> None:
    with pytest.raises(CatalogError, match=rf"no collection 'nope' .* it has {C1}"):
        search_items(service.url, aoi=AOI, collection="nope", limits=QUICK, **YEAR)


def test_a_busy_service_is_asked_again(service: Service) -> None:
    service.fail_first = 1
    limits = Limits(retries=2, timeout_s=5)
    assert len(search_items(service.url, aoi=AOI, collection=C1, limits=limits, **YEAR)) == 5


def test_a_service_that_stays_broken_is_named(service: Service) -> None:
    service.fail_first = 99
    with pytest.raises(CatalogError, match=r"cannot be reached"):
        search_items(service.url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)


def test_nobody_listening_is_an_error_of_the_catalogue() -> None:
    with serve(lambda path, body: (200, {})) as url:
        gone = url
    with pytest.raises(CatalogError, match=r"cannot be reached"):
        search_items(gone, aoi=AOI, limits=QUICK, **YEAR)


def test_a_failure_between_pages_says_how_far_it_came(service: Service) -> None:
    whole = service.answer

    def breaking(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        return (500, {}) if (body or {}).get("token") == 4 else whole(path, body)

    with serve(breaking) as url:
        service.url = url
        with pytest.raises(CatalogError, match=r"page 3 of the search .* failed after 4 items"):
            search_items(url, aoi=AOI, collection=C1, limits=QUICK, **YEAR)


def test_an_api_over_the_antimeridian_is_asked_once_with_both_parts(service: Service) -> None:
    aoi = shapely.box(179.5, 60.2, 180.5, 60.4)
    with pytest.raises(CatalogError, match=r"lies outside the extent"):
        search_items(service.url, aoi=aoi, collection=C1, limits=QUICK, **YEAR)
    assert service.asked[0]["intersects"]["type"] == "MultiPolygon"


def test_a_static_catalogue_over_http_gives_the_same_items(archive: Path) -> None:
    def answer(path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        return 200, (archive / path.lstrip("/")).read_bytes()

    with serve(answer) as url:
        place = f"{url}/catalog.json"
        items = search_items(place, aoi=AOI, collection=C1, limits=QUICK, **YEAR)
    assert ids(items) == ids(search_items(str(archive), aoi=AOI, collection=C1, **YEAR))
    assert items[0].assets["red"].get_absolute_href() == f"{url}/{C1}/day10/red.tif"
