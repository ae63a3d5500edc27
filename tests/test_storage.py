"""Small files beside the repository: put whole, named by URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from eoray import storage
from eoray.errors import StoreError
from eoray.testing.http import archive_server


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """One object store behind every URL of the scheme ``memory``."""
    store = MemoryStore()
    monkeypatch.setattr(storage, "object_store", lambda url: store)
    return store


@pytest.mark.parametrize("text", ["plain", "with space", "with#hash", "with?mark", "ümlaut"])
def test_local_names_stay_as_they_are(tmp_path: Path, text: str) -> None:
    url = storage.join(str(tmp_path), text, "file.bin")
    storage.write_bytes(url, b"1")
    assert (tmp_path / text / "file.bin").read_bytes() == b"1"
    assert storage.exists(url)


def test_file_url_names_the_decoded_path(tmp_path: Path) -> None:
    folder = tmp_path / "with space#1"
    assert storage.local_path(folder.as_uri()) == folder


def test_object_url_is_no_local_path() -> None:
    with pytest.raises(StoreError, match="no local folder"):
        storage.local_path("s3://bucket/cube")


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("s3://b/x/", "/y/", "z"), "s3://b/x/y/z"),
        (("/a", "b"), "/a/b"),
        (("a/",), "a"),
    ],
)
def test_join_keeps_one_slash(parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(*parts) == joined


def test_json_reads_back_with_keys_in_order(tmp_path: Path) -> None:
    url = str(tmp_path / "deep" / "record.json")
    storage.write_json(url, {"b": [1, None], "a": {"x": 0.5}})
    assert storage.read_json(url) == {"a": {"x": 0.5}, "b": [1, None]}
    assert Path(url).read_text().index('"a"') < Path(url).read_text().index('"b"')


def test_objects_behave_like_files(memory: MemoryStore) -> None:
    url = "memory://store/records/run.json"
    assert not storage.exists(url)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(url)
    storage.write_json(url, {"a": 1})
    storage.write_json(url, {"a": 2})
    assert storage.exists(url)
    assert storage.read_json(url) == {"a": 2}


def test_interrupted_write_leaves_the_old_file_and_no_scrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "record.json"
    storage.write_bytes(str(target), b"old")

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_says_so_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "record.json"
    storage.write_bytes(str(target), b"old")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device; free space"):
        storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"


def test_place_that_is_a_file_cannot_hold_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="choose another store"):
        storage.write_bytes(str(tmp_path / "file" / "record.json"), b"1")


def test_unknown_scheme_is_refused() -> None:
    url = "ftp://host/cube"
    with pytest.raises(StoreError, match="s3://"):
        storage.object_store(url)
    with pytest.raises(StoreError, match="s3://"):
        storage.icechunk_storage(url)


def test_azure_needs_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StoreError, match="needs AZURE_STORAGE_ACCOUNT_NAME"):
        storage.icechunk_storage("az://maps/cube")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "eoteam")
    assert "maps" in repr(storage.icechunk_storage("az://maps/cube"))


def test_names_of_a_folder_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert storage.list_names(str(tmp_path / "absent")) == []


def test_a_local_file_is_lent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text("{}")
    with storage.local_copy(str(path)) as lent:
        assert lent == path


def test_a_file_behind_http_is_lent_as_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a b.geojson").write_text("{}")
    with (
        archive_server(tmp_path) as server,
        storage.local_copy(f"{server.url}/a%20b.geojson") as lent,
    ):
        assert (lent.name, lent.read_text()) == ("a b.geojson", "{}")
    assert not lent.exists()


def test_an_absent_file_behind_http_is_named(tmp_path: Path) -> None:
    with (
        archive_server(tmp_path) as server,
        pytest.raises(FileNotFoundError, match=r"absent\.geojson"),
        storage.local_copy(f"{server.url}/absent.geojson"),
    ):
        pass
