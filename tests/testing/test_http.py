from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from eoray.testing import archive_server
from eoray.testing.http import Fault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.tif").write_bytes(bytes(range(200)))
    (tmp_path.parent / "secret.txt").write_text("no")
    return tmp_path


def _get(url: str, span: str = "") -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, headers={"Range": span} if span else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read(), dict(answer.headers)


@pytest.mark.parametrize(
    ("span", "first", "last"),
    [
        ("bytes=10-19", 10, 19),
        ("bytes=190-", 190, 199),
        ("bytes=-5", 195, 199),
        ("bytes=150-9999", 150, 199),
    ],
)
def test_ranges_are_served(folder: Path, span: str, first: int, last: int) -> None:
    with archive_server(folder) as server:
        status, body, headers = _get(f"{server.url}/sub/a.tif", span)
    assert (status, body) == (206, bytes(range(first, last + 1)))
    assert headers["Content-Range"] == f"bytes {first}-{last}/200"


def test_requests_and_bytes_are_counted(folder: Path) -> None:
    with archive_server(folder) as server:
        _get(f"{server.url}/sub/a.tif")
        _get(f"{server.url}/sub/a.tif", "bytes=0-9")
        assert server.n_get == 2
        assert server.n_bytes == 210
        assert [request.path for request in server.requests] == ["/sub/a.tif"] * 2


def test_faults_come_by_count(folder: Path) -> None:
    with archive_server(folder, faults={2: "503", 3: "truncate", 4: "hang-up"}) as server:
        url = f"{server.url}/sub/a.tif"
        assert _get(url)[0] == 200
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            _get(url)
        refused.value.close()
        with pytest.raises(http.client.IncompleteRead):
            _get(url)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            _get(url)
        assert _get(url)[1] == bytes(range(200))


def test_a_broken_file_refuses_its_headers_too(folder: Path) -> None:
    with archive_server(folder) as server:
        host = server.url.removeprefix("http://")
        answers: dict[Fault, int] = {"503": 503, "404": 404, "truncate": 200}
        for fault, status in answers.items():
            server.set_broken({"/sub/a.tif": fault})
            connection = http.client.HTTPConnection(host)
            connection.request("HEAD", "/sub/a.tif")
            assert connection.getresponse().status == status
            connection.close()
        server.set_broken({"/sub/a.tif": "hang-up"})
        connection = http.client.HTTPConnection(host)
        connection.request("HEAD", "/sub/a.tif")
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
        connection.close()


@pytest.mark.parametrize("path", ["/none.tif", "/../secret.txt", "/%2e%2e/secret.txt", "/sub"])
def test_nothing_outside_is_served(folder: Path, path: str) -> None:
    with archive_server(folder) as server:
        connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        connection.request("GET", path)
        assert connection.getresponse().status == 404
        connection.close()


def test_gdal_reads_over_it(small_archive: Path) -> None:
    import rasterio

    path = next((small_archive / "sentinel-2-c1-l2a").glob("*/B04.tif"))
    with archive_server(small_archive) as server, rasterio.open(path) as local:
        url = f"/vsicurl/{server.url}/{path.relative_to(small_archive)}"
        with rasterio.open(url) as remote:
            assert (remote.read(1) == local.read(1)).all()
        assert server.n_get > 0
