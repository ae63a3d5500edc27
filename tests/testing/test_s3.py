from __future__ import annotations

from collections.abc import Iterator

import pytest

from eoray import storage
from eoray.cube import store as cube_store
from eoray.errors import ConflictError
from eoray.run.lease import hold_store
from eoray.testing.s3 import S3Server, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def test_an_object_is_read_as_it_was_put() -> None:
    storage.write_bytes("s3://b/read/a b.txt", b"\x00hello")
    assert storage.read_bytes("s3://b/read/a b.txt") == b"\x00hello"
    assert storage.exists("s3://b/read/a b.txt")
    assert not storage.exists("s3://b/read/other")


def test_a_range_is_a_part() -> None:
    storage.write_bytes("s3://b/range/x", bytes(range(100)))
    found = storage.object_store("s3://b/range").get_range("x", start=10, end=14)
    assert bytes(found) == bytes([10, 11, 12, 13])


def test_a_large_object_is_put_in_parts() -> None:
    data = bytes(range(256)) * (2**20 // 16)  # 16 MiB
    storage.write_bytes("s3://b/large/x", data)
    assert storage.read_bytes("s3://b/large/x") == data


def test_a_put_on_condition_is_refused_when_another_was_first() -> None:
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    folder = storage.object_store("s3://b/condition")
    tag = folder.put("x", b"1", mode="create")["e_tag"]
    with pytest.raises(AlreadyExistsError):
        folder.put("x", b"2", mode="create")
    folder.put("x", b"3", mode={"e_tag": tag})
    with pytest.raises(PreconditionError):
        folder.put("x", b"4", mode={"e_tag": tag})
    assert storage.read_bytes("s3://b/condition/x") == b"3"


def test_more_names_than_fit_a_page_are_listed() -> None:
    store = storage.object_store("s3://b/pages")
    for number in range(1003):
        store.put(f"{number:04d}", b"")
    storage.write_bytes("s3://b/pages/below/x", b"")
    # folders too, as on a disk
    names = [f"{n:04d}" for n in range(1003)]
    assert storage.list_names("s3://b/pages") == [*names, "below"]


def test_a_deleted_object_is_gone_and_none_is_fine() -> None:
    storage.write_bytes("s3://b/gone/x", b"")
    storage.delete("s3://b/gone/x")
    storage.delete("s3://b/gone/x")
    assert storage.list_names("s3://b/gone") == []


def test_one_lease_at_a_time() -> None:
    with hold_store("s3://b/lease", "one") as first:
        with (
            pytest.raises(ConflictError, match="is being written by run 'one'"),
            hold_store("s3://b/lease", "two"),
        ):
            pass
        assert first.epoch == 1
    with hold_store("s3://b/lease", "two") as second:
        assert second.epoch == 2


def test_icechunk_commits_and_reads_back() -> None:
    import zarr

    repository = cube_store.open_repository("s3://b/cube/cube.icechunk", create=True)
    session = repository.writable_session("main")
    zarr.open_group(session.store, mode="a").attrs["told"] = "yes"
    session.commit("first")
    again = cube_store.open_repository("s3://b/cube/cube.icechunk")
    assert zarr.open_group(again.readonly_session("main").store, mode="r").attrs["told"] == "yes"
