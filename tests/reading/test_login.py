"""Files behind a login of OpenID Connect: tokens fetched, renewed, kept from everybody."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioIOError

from eoray.catalog import providers
from eoray.catalog.assets import read_assets
from eoray.catalog.signing import login_url
from eoray.catalog.static import to_item
from eoray.log import configure_logging
from eoray.reading import gdal, login
from eoray.reading.cog import CogFile
from eoray.reading.gdal import GdalFile
from eoray.reading.ranges import open_ranges
from eoray.reading.requests import Pace, Patience, UnreachableError, forget_gates

PASSWORD = "open-sesame-42"
JP2 = "odata/v1/Products(e7f0)/Nodes(T36NYH_B04_10m.jp2)/$value"


@dataclass
class Identity:
    """Serves files to those who bring a token, and tokens to those who log in."""

    folder: Path
    url: str = ""
    life_s: float = 600.0
    refresh_life_s: float = 3600.0
    grants: list[str] = field(default_factory=list)
    """Kinds of logins that were asked for, the refused ones with a minus."""
    statuses: list[int] = field(default_factory=list)
    """Of answers for files."""
    good: set[str] = field(default_factory=set)
    """Tokens that files are given for."""
    answer: bytes = b""
    """In place of a token."""

    @property
    def tokens(self) -> str:
        return f"{self.url}/token"

    def log_in(self, form: dict[str, str]) -> tuple[int, bytes]:
        kind = form["grant_type"]
        known = {
            "password": form.get("password") == PASSWORD and form.get("username") == "ada",
            "refresh_token": form.get("refresh_token") in ("given", f"again-{len(self.grants)}"),
        }
        if form["client_id"] != "cdse-public" or not known[kind]:
            self.grants.append(f"-{kind}")
            return 401, b'{"error": "invalid_grant"}'
        self.grants.append(kind)
        token = f"very-secret-{len(self.grants)}"
        self.good = {token}
        answer = {"access_token": token, "expires_in": self.life_s, "token_type": "Bearer"}
        answer |= {"refresh_token": f"again-{len(self.grants)}"}
        answer |= {"refresh_expires_in": self.refresh_life_s}
        return 200, self.answer or json.dumps(answer).encode()


class _Handler(BaseHTTPRequestHandler):
    state: Identity
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(text).items()}
        self._send(*self.state.log_in(form))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        place = self.state.folder / unquote(self.path).lstrip("/")
        status = 401 if token not in self.state.good else 200 if place.is_file() else 404
        self.state.statuses.append(status)
        if status != 200:
            self._send(status, b"")
            return
        data = place.read_bytes()
        if "Range" not in self.headers:
            self._send(200, data)
            return
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        body = data[int(first) : int(last) + 1 if last else None]
        span = f"bytes {first}-{int(first) + len(body) - 1}/{len(data)}"
        self._send(206, body, {"Content-Range": span})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Identity]:
    """The identity service and the files of a provider that is otherwise CDSE."""
    state = Identity(tmp_path)
    made = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    made.daemon_threads = True
    state.url = f"http://127.0.0.1:{made.server_port}"
    row = replace(providers.CDSE, file_servers=(state.url,), logins=state.tokens)
    monkeypatch.setattr(providers, "PROVIDERS", (row, providers.GENERIC))
    monkeypatch.setattr(login, "_logins", {})
    monkeypatch.setattr(login, "_refused", {})
    monkeypatch.delenv("CDSE_REFRESH_TOKEN", raising=False)
    monkeypatch.setenv("CDSE_USERNAME", "ada")
    monkeypatch.setenv("CDSE_PASSWORD", PASSWORD)
    forget_gates()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.fixture
def href(server: Identity) -> str:
    profile: dict[str, Any] = {"driver": "GTiff", "height": 64, "width": 64, "count": 1}
    profile |= {"dtype": "uint16", "crs": "EPSG:32632", "tiled": True, "compress": "deflate"}
    profile |= {"blockxsize": 16, "blockysize": 16}
    profile["transform"] = rasterio.Affine(20, 0, 600_000, 0, -20, 5_000_000)
    with rasterio.open(server.folder / "a.tif", "w", **profile) as file:
        file.write(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), 1)
    return f"{server.url}/a.tif"


@pytest.fixture
def jp2(server: Identity) -> Iterator[str]:
    place = server.folder / JP2
    place.parent.mkdir(parents=True)
    profile: dict[str, Any] = {"driver": "JP2OpenJPEG", "height": 64, "width": 64, "count": 1}
    profile |= {"dtype": "uint16", "crs": "EPSG:32636", "QUALITY": "100", "REVERSIBLE": "YES"}
    profile["transform"] = rasterio.Affine(10, 0, 699_960, 0, -10, 300_000)
    written = server.folder / "a.jp2"
    with rasterio.open(written, "w", **profile) as file:
        file.write(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), 1)
    written.rename(place)
    with rasterio.Env(**gdal._OPTIONS):  # as the threads that read have it
        yield f"{server.url}/{JP2}"


def read(href: str) -> np.ndarray:
    return CogFile(href).read(slice(0, 64), slice(0, 64))


def test_only_servers_of_a_providers_row_are_logged_in_at() -> None:
    place = providers.CDSE.logins
    assert place.startswith("https://identity.dataspace.copernicus.eu/")
    assert login_url("https://zipper.dataspace.copernicus.eu/odata/v1/x/$value") == place
    for other in ("s3://eodata/a.jp2", "/data/a.jp2", "https://files.example/a.jp2"):
        assert login_url(other) == ""


def test_one_login_serves_all_files(server: Identity, href: str) -> None:
    for _ in range(3):
        assert read(href)[63, 63] == 64 * 64 - 1
    assert server.grants == ["password"]
    assert set(server.statuses) == {200}


def test_a_token_is_renewed_before_it_ends_without_the_password(
    server: Identity, href: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    expected = ["password"]
    # the last one: after the end of the refresh token, too
    for later, kind in ((0, ""), (530, ""), (545, "refresh_token"), (5000, "password")):
        monkeypatch.setattr(time, "time", lambda at=now + later: at)
        read(href)
        expected += [kind] if kind else []
        assert server.grants == expected
    assert set(server.statuses) == {200}


def test_a_token_that_is_refused_is_replaced_once(server: Identity, href: str) -> None:
    read(href)
    server.good = set()
    assert read(href)[0, 1] == 1
    assert server.grants == ["password", "refresh_token"]
    assert server.statuses.count(401) >= 1


def test_a_refresh_token_alone_is_enough(
    server: Identity, href: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CDSE_PASSWORD")
    monkeypatch.setenv("CDSE_REFRESH_TOKEN", "given")
    assert read(href)[0, 5] == 5
    assert server.grants == ["refresh_token"]


def test_an_old_refresh_token_gives_way_to_the_password(
    server: Identity, href: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDSE_REFRESH_TOKEN", "ended-long-ago")
    assert read(href)[0, 5] == 5
    assert server.grants == ["-refresh_token", "password"]


def test_gdal_brings_the_token_too(server: Identity, jp2: str) -> None:
    for _ in range(2):
        with GdalFile(jp2) as file:
            assert file.read(slice(0, 2), slice(0, 3)).tolist() == [[0, 1, 2], [64, 65, 66]]
    assert server.grants == ["password"]
    assert 401 not in server.statuses


def test_gdal_fails_once_by_an_old_token(server: Identity, jp2: str) -> None:
    with GdalFile(jp2):
        pass
    server.good = set()
    with pytest.raises(RasterioIOError):
        GdalFile(jp2)
    with GdalFile(jp2) as file:
        assert file.shape == (64, 64)
    assert server.grants == ["password", "refresh_token"]


def test_a_wrong_password_is_sent_once(
    server: Identity, href: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDSE_PASSWORD", "open-barley-42")
    for _ in range(3):
        with pytest.raises(UnreachableError, match=r"refuses a login by password: 401") as failed:
            read(href)
        assert failed.value.status == 401
        assert "barley" not in str(failed.value)
    assert server.grants == ["-password"]
    assert server.statuses == []


def test_without_a_login_the_variables_are_named(
    server: Identity, href: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CDSE_USERNAME")
    with pytest.raises(UnreachableError, match="set CDSE_USERNAME and CDSE_PASSWORD"):
        read(href)
    assert (server.grants, server.statuses) == ([], [])


def test_an_answer_without_a_token_is_said_so_without_it(server: Identity, href: str) -> None:
    server.answer = b'{"access_token": "very-secret"}'
    patience = Patience(1, pace=Pace(sleep=lambda _: None))
    with pytest.raises(UnreachableError, match="/token' is no token with its expiry") as failed:
        open_ranges(href, patience).head(10)
    assert "secret" not in str(failed.value)


def test_neither_password_nor_token_is_logged(server: Identity, href: str, jp2: str) -> None:
    stream = io.StringIO()
    configure_logging(level="DEBUG", stream=stream)
    read(href)
    with GdalFile(jp2):
        pass
    server.good, server.answer = set(), b"[]"
    with pytest.raises(UnreachableError) as failed:
        read(href)
    told = stream.getvalue() + str(failed.value) + repr(login._logins)
    assert not [word for word in (PASSWORD, "very-secret", "again-") if word in told]


@pytest.mark.parametrize(
    ("environment", "first"),
    [({}, "https"), ({"AWS_ACCESS_KEY_ID": "AKIA"}, "s3"), ({"CDSE_PASSWORD": ""}, "s3")],
)
def test_where_a_file_is_read_follows_from_the_credentials(
    environment: dict[str, str], first: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    told = {"CDSE_USERNAME": "ada", "CDSE_PASSWORD": PASSWORD, **environment}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    answer = json.loads((shared_data / "stac/cdse/issue1043_20200322.json").read_text())
    item = to_item(answer["features"][0], "")
    files = read_assets(item, ["B04"], jp2=False, require_scl=True).files
    assert {file.href.partition(":")[0] for file in files} == {first}
    n_places = 1 if "CDSE_PASSWORD" in environment else 2
    assert {1 + len(file.alternates) for file in files} == {n_places}
