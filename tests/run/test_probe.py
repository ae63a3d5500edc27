"""Outputs and inputs are tried before any work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eoray.cli import main
from eoray.reading.ranges import _store
from eoray.run.probe import AccessError, probe_inputs, probe_store
from eoray.testing.http import archive_server
from eoray.testing.s3 import S3Handler, S3Object
from tests.run.conftest import RunFileWriter
from tests.s3_server import FakeS3, serve_s3

URL = "s3://maps/slovenia"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    _store.cache_clear()  # clients of buckets, which know another test's server
    with serve_s3(monkeypatch) as fake:
        yield fake


def test_folder_is_made_and_left_without_a_trace(tmp_path: Path) -> None:
    probe_store(str(tmp_path / "out"))
    assert list((tmp_path / "out" / "_eoray").iterdir()) == []


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(AccessError, match=r"out' cannot be written \(Not a directory\); choose"):
        probe_store(str(tmp_path / "out"))


def test_bucket_is_written_read_and_left_without_a_trace(s3: FakeS3) -> None:
    probe_store(URL)
    assert [method for method, _ in s3.requests] == ["PUT", "GET", "PUT", "PUT", "POST"]
    assert all(key.startswith("maps/slovenia/_eoray/probe-") for _, key in s3.requests[:4])
    assert s3.objects == {}


@pytest.mark.parametrize(
    ("method", "status", "code", "message"),
    [
        ("PUT", 403, "AccessDenied", "cannot be written: .*no right.*widen its policy"),
        ("PUT", 403, "SignatureDoesNotMatch", "cannot be written: its credentials are refused"),
        ("PUT", 401, "Unauthorized", "cannot be written: its credentials are refused"),
        ("GET", 403, "AccessDenied", "cannot be read: .*no right"),
        ("POST", 403, "AccessDenied", "cannot be deleted from: .*no right"),
        ("PUT", 404, "NoSuchBucket", "cannot be written: there is no such bucket"),
        ("PUT", 501, "NotImplemented", "cannot be written: its server knows no conditional put"),
    ],
)
def test_bucket_that_refuses_is_told_apart(
    s3: FakeS3, method: str, status: int, code: str, message: str
) -> None:
    s3.refuse[method] = (status, code)
    with pytest.raises(AccessError, match=message):
        probe_store(URL)


def test_bucket_that_puts_whatever_the_condition_is_refused(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As servers do that do not know the header: two drivers would hold one lease."""

    def put(handler: S3Handler, made: S3Object) -> S3Object:
        handler.store.objects[handler.name] = made
        return made

    monkeypatch.setattr(S3Handler, "_set", put)
    with pytest.raises(AccessError, match=r"If-None-Match\), so two runs could write at once"):
        probe_store(URL)
    assert s3.objects == {}


def test_bucket_whose_server_does_not_answer_is_told(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nothing listens
    with pytest.raises(AccessError, match=r"cannot be reached.*check `store`, endpoint, region"):
        probe_store(URL)


def test_run_with_a_read_only_store_ends_first_of_all_with_4(
    s3: FakeS3, write_run: RunFileWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.refuse["PUT"] = (403, "AccessDenied")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(write_run()), f"store={URL}", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 4
    assert '"kind": "access"' in said.out
    assert {method for method, _ in s3.requests} == {"PUT"}


def row(href: str) -> Any:
    asset = SimpleNamespace(href=href, band="B04")
    scene = SimpleNamespace(assets=(asset,), item_id="S2A_1", elsewhere=())
    return SimpleNamespace(scenes=(scene,))


def test_inputs_of_a_server_that_refuses_end_the_run(archive: Path) -> None:
    files = sorted(archive.rglob("*.tif"))[:3]
    with archive_server(archive) as server:
        hrefs = [f"{server.url}/{file.relative_to(archive)}" for file in files]
        probe_inputs([row(href) for href in hrefs])
        assert server.n_get == 1


def test_inputs_that_no_server_gives_out_are_refused(s3: FakeS3) -> None:
    s3.refuse["GET"] = (403, "AccessDenied")
    rows = [row(f"s3://maps/{number}.tif") for number in range(5)]
    with pytest.raises(AccessError, match=r"B04 of item S2A_1 at 's3://maps/0\.tif'"):
        probe_inputs(rows)
    assert [key for _, key in s3.requests] == ["maps/0.tif", "maps/2.tif", "maps/4.tif"]


def test_inputs_that_another_provider_gives_out_are_enough(archive: Path, s3: FakeS3) -> None:
    s3.refuse["GET"] = (403, "AccessDenied")
    place = SimpleNamespace(assets=(row(str(next(archive.rglob("*.tif")))).scenes[0].assets[0],))
    (scene,) = row("s3://maps/0.tif").scenes
    with pytest.raises(AccessError, match="inputs cannot be read"):
        probe_inputs([SimpleNamespace(scenes=(scene,))])
    scene.elsewhere = (place,)
    probe_inputs([SimpleNamespace(scenes=(scene,))])
    assert {key for _, key in s3.requests} == {"maps/0.tif"}


def test_missing_or_broken_file_is_left_to_the_tasks(s3: FakeS3) -> None:
    s3.put("maps/1.tif", b"no tif")
    probe_inputs([row("s3://maps/0.tif")])
    probe_inputs([row("s3://maps/1.tif")])
    assert {key for _, key in s3.requests} == {"maps/0.tif", "maps/1.tif"}


def test_refusal_hides_what_signs_a_link(s3: FakeS3) -> None:
    s3.refuse["PUT"] = (403, "AccessDenied")
    with pytest.raises(AccessError) as refused:
        probe_store(URL)
    assert re.search("AKIA|s3cret", str(refused.value)) is None
