"""Files that need a right to be read: fetched in time, renewed, and never shown."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioIOError

from eoray.buckets import Bucket, use_buckets
from eoray.catalog.providers import PLANETARY_COMPUTER
from eoray.catalog.signing import token_url, without_signature
from eoray.errors import ReadError
from eoray.grid import PixelWindow
from eoray.log import configure_logging
from eoray.reading import sign
from eoray.reading.cog import CogFile
from eoray.reading.gdal import GdalFile, gdal_place
from eoray.reading.ranges import open_ranges
from eoray.reading.requests import Pace, Patience, UnreachableError, forget_gates
from eoray.reading.window import AssetWindow, read_asset
from tests.file_server import FileServer, serve_files

BLOB = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/13/T/DE/B02_10m.tif"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Gives files of the folder ``box`` to whoever has a token."""
    (tmp_path / "box").mkdir()
    monkeypatch.setattr(sign, "_rights", {})
    forget_gates()
    with serve_files(tmp_path) as made:
        made.life_s = 3600.0
        use_buckets({made.url: Bucket(tokens=made.tokens)})
        yield made
    use_buckets({})


@pytest.fixture
def href(server: FileServer, tmp_path: Path) -> str:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    profile: dict[str, Any] = {"driver": "GTiff", "height": 64, "width": 64, "count": 1}
    profile |= {"dtype": "uint16", "crs": "EPSG:32632", "tiled": True, "compress": "deflate"}
    profile |= {"blockxsize": 16, "blockysize": 16}
    profile["transform"] = rasterio.Affine(20, 0, 600_000, 0, -20, 5_000_000)
    with rasterio.open(tmp_path / "box" / "a.tif", "w", **profile) as file:
        file.write(values, 1)
    return f"{server.url}/box/a.tif"


def read(href: str) -> np.ndarray:
    return CogFile(href).read(slice(0, 64), slice(0, 64))


def test_the_provider_or_the_run_file_says_who_signs() -> None:
    assert token_url(BLOB) == (
        "https://planetarycomputer.microsoft.com/api/sas/v1/token/sentinel2l2a01/sentinel2-l2"
    )
    use_buckets(
        {
            "https://sentinel2l2a01.blob.core.windows.net": Bucket(
                tokens="https://proxy.example/{container}"
            )
        }
    )
    try:
        assert token_url(BLOB) == "https://proxy.example/sentinel2-l2"
    finally:
        use_buckets({})
    assert token_url("https://mine.blob.core.windows.net/box/a.tif") == ""
    assert token_url("s3://eodata/a.jp2") == token_url("/data/a.tif") == ""
    assert PLANETARY_COMPUTER.tokens.startswith("https://planetarycomputer.microsoft.com/")


def test_only_signatures_that_can_be_made_anew_are_cut_off() -> None:
    assert without_signature(f"{BLOB}?sv=1&sig=aB%3D") == BLOB
    for other in ("https://files.example/a.tif?sig=aB", BLOB, "/data/a?b.tif"):
        assert without_signature(other) == other


def test_one_token_serves_all_files_of_a_container(server: FileServer, href: str) -> None:
    for _ in range(3):
        assert read(href)[63, 63] == 64 * 64 - 1
    assert server.n_tokens == 1
    assert set(server.statuses) == {206}


def test_a_token_is_renewed_before_it_ends(
    server: FileServer, href: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(href)
    now = time.time()
    for later, n_tokens in ((3500.0, 1), (3545.0, 2)):
        monkeypatch.setattr(time, "time", lambda at=now + later: at)
        read(href)
        assert server.n_tokens == n_tokens
    assert 403 not in server.statuses


def test_a_token_that_is_refused_is_replaced_once(server: FileServer, href: str) -> None:
    read(href)
    server.revoke()
    assert read(href)[0, 1] == 1
    assert server.n_tokens == 2
    assert server.statuses.count(403) >= 1


def test_a_right_that_is_always_refused_ends_the_read(server: FileServer, href: str) -> None:
    server.refuse = lambda number, path: (403, {})
    with pytest.raises(UnreachableError, match=r"403 .* after 1 request"):
        read(href)
    assert (server.n_tokens, len(server.asked)) == (2, 2)


def test_a_link_that_is_signed_already_is_read_as_it_is(server: FileServer, href: str) -> None:
    signed = f"{href}?{sign.signature(token_url(href), Patience())}"
    use_buckets({})  # nobody here knows who signed it
    assert read(signed)[0, 5] == 5
    with pytest.raises(UnreachableError, match="403") as refused:
        read(href)
    assert "secret" not in str(refused.value)


def test_gdal_gets_the_right_too(server: FileServer, tmp_path: Path) -> None:
    place, options = gdal_place(f"{server.url}/box/a.jp2")
    assert place.startswith(f"{server.url}/box/a.jp2?se=")
    assert options == {}
    assert gdal_place("/data/a.jp2") == ("/data/a.jp2", {})


def test_gdal_asks_for_another_right_after_a_failure(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def refuse(link: str) -> None:
        opened.append(link)
        raise RasterioIOError("HTTP response code: 403")

    monkeypatch.setattr(rasterio, "open", refuse)
    for _ in range(2):
        with pytest.raises(RasterioIOError):
            GdalFile(f"{server.url}/box/a.jp2")
    assert server.n_tokens == 2
    assert opened[0] != opened[1]


def test_a_service_that_gives_no_tokens_is_named(
    server: FileServer, href: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    patience = Patience(2, pace=Pace(sleep=pauses.append))
    monkeypatch.setattr(server, "give_token", lambda: b'{"token": "sig=secret"}')
    with pytest.raises(UnreachableError, match=r"/token/127/box' is no token") as failed:
        open_ranges(href, patience).head(10)
    assert "secret" not in str(failed.value)
    use_buckets({server.url: Bucket(tokens=f"{server.url}/box/none")})
    with pytest.raises(UnreachableError, match=r"/box/none' gives no right to read it: 403 "):
        open_ranges(href, patience).head(10)


def test_no_token_stands_in_errors_or_logs(
    server: FileServer, href: str, granules: Any, corner: tuple[int, int]
) -> None:
    stream = io.StringIO()
    configure_logging(level="DEBUG", stream=stream)
    scene = granules.write("32TQS_a", row=corner[0], col=corner[1], height=20, width=20)
    signed = f"{href}?{sign.signature(token_url(href), Patience())}"
    asset = replace(scene.asset("B8A"), href=signed)
    server.revoke()
    window = PixelWindow(corner[0], corner[1], 20, 20)
    use_buckets({})
    with pytest.raises(ReadError, match=r"B8A of item 32TQS_a .*403 .*sig=\*\*\*") as failed:
        read_asset(AssetWindow(scene, asset, zone=32, window=window, resolution_m=20, retries=0))
    assert "secret" not in str(failed.value) + stream.getvalue()
