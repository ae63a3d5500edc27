"""Outputs, catalogue and scenes of a run file, tried from where it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eoray.buckets import use_buckets
from eoray.cli import main
from eoray.config import parse_config
from eoray.k8s.doctor import Finding
from eoray.reading.ranges import _store
from eoray.run.access import examine_access
from eoray.testing.http import archive_server
from tests.run.conftest import RunFileWriter
from tests.s3_server import FakeS3, serve_s3

STORE = "s3://maps/slovenia"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    _store.cache_clear()  # clients of buckets, which know another test's server
    with serve_s3(monkeypatch) as fake:
        yield fake
    use_buckets({})


def look(path: Path, *overrides: str) -> dict[str, Finding]:
    config = parse_config(path.read_text(), path.parent, overrides)
    return {found.what: found for found in examine_access(config, path.parent)}


def test_what_is_reached_is_said_in_a_line_each(
    s3: FakeS3, archive: Path, write_run: RunFileWriter
) -> None:
    with archive_server(archive) as server:
        catalog = f"source.catalog={server.url}/catalog.json"
        found = look(write_run(), f"store={STORE}", catalog)
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert list(found) == ["store", "catalogue", "scenes"]
    assert found["catalogue"].said.endswith("has 147 items over a point of the place")
    assert found["scenes"].said == f"{server.url} gives them out"
    assert s3.objects == {}


def test_store_that_refuses_is_bad_with_its_remedy(s3: FakeS3, write_run: RunFileWriter) -> None:
    s3.refuse["PUT"] = (403, "AccessDenied")
    found = look(write_run(), f"store={STORE}")["store"]
    assert found.verdict == "bad"
    assert "cannot be written: this identity has no right" in found.said
    assert found.remedy.endswith("widen its policy")


def test_folder_is_not_touched_because_pods_do_not_see_it(
    write_run: RunFileWriter, tmp_path: Path
) -> None:
    found = look(write_run())["store"]
    assert (found.verdict, found.remedy) == ("unknown", "the driver tries it before any work")
    assert not (tmp_path / "out").exists()


def test_catalogue_that_does_not_answer_is_bad_and_scenes_stay_unknown(
    write_run: RunFileWriter,
) -> None:
    found = look(write_run(), "source.catalog=http://127.0.0.1:9/catalog.json")
    assert found["catalogue"].verdict == "bad"
    assert "127.0.0.1:9" in found["catalogue"].said
    assert found["catalogue"].remedy
    assert (found["scenes"].verdict, found["scenes"].said) == ("unknown", "no items to look at")


def test_scenes_that_are_not_given_out_are_bad(
    archive: Path, write_run: RunFileWriter, tmp_path: Path
) -> None:
    """The items are here, their files behind a port where nothing listens."""
    for file in archive.rglob("*.json"):
        there = tmp_path / "moved" / file.relative_to(archive)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(_moved(json.loads(file.read_text())))
    found = look(write_run(), f"source.catalog={tmp_path / 'moved' / 'catalog.json'}")
    assert (found["catalogue"].verdict, found["scenes"].verdict) == ("ok", "bad")
    assert "inputs cannot be read" in found["scenes"].said
    assert found["scenes"].remedy.startswith("give the pods or this machine an identity")


def _moved(document: dict[str, object]) -> str:
    assets = document.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        asset["href"] = "http://127.0.0.1:9/" + str(asset["href"]).rpartition("/")[2]
    return json.dumps(document)


def test_doctor_asks_no_cluster_where_only_access_is_wanted(
    s3: FakeS3,
    write_run: RunFileWriter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EORAY_RUN_FILE", write_run().read_text())
    monkeypatch.setattr("eoray.k8s.client.connect", lambda *_, **__: pytest.fail("was asked"))
    s3.refuse["GET"] = (403, "AccessDenied")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "env:EORAY_RUN_FILE", f"store={STORE}", "--access", "--in-cluster"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1
    assert [line.split()[:2] for line in lines] == [
        ["bad", "store"], ["ok", "catalogue"], ["ok", "scenes"],
    ]  # fmt: skip


def test_access_without_a_run_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--access"])
    assert ended.value.code == 2
    assert "--access tries what a run file names, and none is given" in capsys.readouterr().err
