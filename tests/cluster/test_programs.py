from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.errors import UnavailableError
from tests.cluster.programs import PROGRAMS, build_programs, missing_programs


@pytest.fixture
def built(tmp_path: Path) -> Path:
    for program in PROGRAMS:
        (tmp_path / program.name).touch(mode=0o755)
    stamps = {program.name: program.stamp for program in PROGRAMS}
    (tmp_path / "versions.json").write_text(json.dumps(stamps))
    return tmp_path


def test_nothing_is_built_twice(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no Go: a build would fail
    assert build_programs(built) == built


def test_another_version_of_one_program_builds_that_one(built: Path) -> None:
    stamps = json.loads((built / "versions.json").read_text())
    (built / "versions.json").write_text(json.dumps({**stamps, "kwok": "kwok@v0.1.0"}))
    assert [program.name for program in missing_programs(built)] == ["kwok"]


def test_a_build_that_was_stopped_goes_on(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (built / "helm").unlink()
    done: list[str] = []
    monkeypatch.setattr(programs, "_check_tools", lambda folder: None)
    monkeypatch.setattr(programs, "_build", lambda program, folder: done.append(program.name))
    build_programs(built)
    assert done == ["helm"]


def test_absent_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match=r"needs Go >= 1\.25 on PATH"):
        build_programs(tmp_path)


def test_old_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.19.8\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"found go1\.19\.8"):
        build_programs(tmp_path)
