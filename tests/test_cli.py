"""Every verb with the work behind it replaced: arguments in, output and exit code out."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import eoray.cube.check
import eoray.publish.export
import eoray.run
from eoray.cli import main
from eoray.cli.outcome import Exit, resolve_exit
from eoray.cli.progress import ProgressPrinter
from eoray.config import load_config
from eoray.errors import CatalogError, ClusterError, ConfigError, EorayError, ReadError
from eoray.timeline import DateRange

REPORT = {
    "stages": {
        "cube": {"outputs": ["out/cube.icechunk"], "tasks": 8, "skipped": 2, "failed_reads": 1}
    }
}


@dataclass
class FakePlan:
    def to_dict(self) -> dict[str, Any]:
        return {"scenes": 3, "tasks": 8}

    def text(self) -> str:
        return "scenes    3"


@dataclass
class FakeReport:
    def to_dict(self) -> dict[str, Any]:
        return REPORT


@dataclass
class FakeRun:
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    error: BaseException | None = None

    def load(self, path: str, overrides: list[str]) -> FakeRun:
        self.calls.append(("load", path, overrides))
        return self

    def plan(self, stages: list[str] | None = None, *, probe: int, **rest: Any) -> FakePlan:
        assert probe == 3
        assert rest == {"audit": False, "also": [], "nodes": None}
        self.calls.append(("plan", stages))
        return FakePlan()

    def execute(
        self,
        stages: list[str] | None = None,
        *,
        address: str | None,
        executor: str | None,
        attempt: str,
        errors: str | None,
        progress: Callable[[str, int, int], None],
    ) -> FakeReport:
        assert attempt == ""  # of no pod
        self.calls.append(("execute", stages, address, executor))
        progress("cube", 8, 8)
        if self.error is not None:
            raise self.error
        return FakeReport()


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setattr(eoray.run, "load_run", fake.load)
    return fake


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else 0


def last_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_run_hands_over_what_was_asked(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--stage", "cube", "--stage", "fit", "--address", "auto", "--executor", "ray")
    assert call("run", "run.yaml", "cube.bands=[B02]", "name=x", *options) == 0
    assert fake_run.calls == [
        ("load", "run.yaml", ["cube.bands=[B02]", "name=x"]),
        ("execute", ["cube", "fit"], "auto", "ray"),
    ]
    shown = capsys.readouterr()
    assert "8 tasks, 2 done before, 1 failed reads" in shown.out
    assert "out/cube.icechunk" in shown.out
    assert "cube       8/8 (100 %)" in shown.err


def test_run_without_options_leaves_all_choices_to_the_run_file(fake_run: FakeRun) -> None:
    assert call("run", "run.yaml") == 0
    assert fake_run.calls == [("load", "run.yaml", []), ("execute", None, None, None)]


def test_json_is_the_last_line_of_stdout(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "run.yaml", "--json") == 0
    assert last_json(capsys) == REPORT


@pytest.mark.parametrize(
    "stage", ["cube", "fit", "predict", "change", "assess", "publish", "report"]
)
def test_each_stage_has_its_verb(fake_run: FakeRun, stage: str) -> None:
    assert call(stage, "run.yaml", "name=x") == 0
    assert fake_run.calls == [("load", "run.yaml", ["name=x"]), ("execute", [stage], None, None)]


def test_plan_prints_its_text_or_its_figures(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "run.yaml", "--stage", "cube") == 0
    assert capsys.readouterr().out == "scenes    3\n"
    assert call("plan", "run.yaml", "--json") == 0
    assert last_json(capsys) == {"scenes": 3, "tasks": 8}
    assert [c for c in fake_run.calls if c[0] == "plan"] == [("plan", ["cube"]), ("plan", None)]


def test_ctrl_c_says_that_state_is_kept(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.error = KeyboardInterrupt()
    assert call("run", "run.yaml") == 5
    assert capsys.readouterr().err.endswith(
        "stopped; state kept; run the same command again to go on\n"
    )


def test_an_error_is_one_line_without_traceback(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.error = CatalogError("no scenes in the aoi; widen time")
    assert call("run", "run.yaml") == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == "error: CatalogError: no scenes in the aoi; widen time"
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_debug_shows_the_traceback(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run.error = CatalogError("no scenes")
    assert call("run", "run.yaml", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_defect_shows_its_traceback_unasked(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.error = KeyError("tile")
    assert call("run", "run.yaml") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1] == "error: KeyError: 'tile'"


def test_an_error_is_json_too_when_json_is_asked_for(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.error = ReadError("B04 is truncated", item_id="a", asset="B04")
    assert call("run", "run.yaml", "--json") == 1
    error = {"type": "ReadError", "kind": "read", "message": "B04 is truncated"}
    assert last_json(capsys) == {"error": error}


class RequestsLikeError(OSError):
    """What an HTTP client raises: an OSError from a module of its own."""


RequestsLikeError.__module__ = "requests.exceptions"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EorayError("x"), Exit.FAILED),
        (ValueError("x"), Exit.FAILED),
        (ConfigError("x"), Exit.USAGE),
        (ClusterError("x"), Exit.UNREACHABLE),
        (TimeoutError("x"), Exit.TIMEOUT),
        (CatalogError("no scenes"), Exit.FAILED),
        (caused(CatalogError("x"), ConnectionRefusedError()), Exit.UNREACHABLE),
        (caused(CatalogError("x"), TimeoutError()), Exit.TIMEOUT),
        (caused(CatalogError("x"), RequestsLikeError("no route")), Exit.UNREACHABLE),
        (caused(ReadError("x"), FileNotFoundError()), Exit.FAILED),
        (caused(ConfigError("x"), ConnectionError()), Exit.USAGE),
    ],
)
def test_the_exit_code_says_what_to_do(error: Exception, code: int) -> None:
    assert resolve_exit(error) == code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan",), "Missing argument 'RUN_FILE'"),
        (("frob",), "No such command 'frob'"),
        (("run", "run.yaml", "--frob"), "No such option"),
        (("export", "c", "o.tif"), "Missing option '--bbox'"),
    ],
)
def test_wrong_usage_is_exit_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert words in capsys.readouterr().err


def test_a_bad_run_file_is_exit_2_with_every_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("version: 1\nname: a\naoi: []\ntime: 2020\ntask: change\n")
    assert call("plan", str(path)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: ConfigError: {path}: aoi: [] is no place")
    assert f"\n{path}: time: got 2020" in shown


def test_init_writes_a_file_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fields.yaml"
    assert call("init", str(path), "--task", "land-cover") == 0
    assert capsys.readouterr().out.endswith(f"then: eoray plan {path}\n")
    assert load_config(path).task == "land-cover"
    assert call("init", str(path)) == 2
    assert "--force" in capsys.readouterr().err
    assert call("init", str(path), "--force", "--json") == 0
    assert last_json(capsys) == {"run_file": str(path)}


@dataclass
class FakeCheck:
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        problems = [] if self.ok else ["s2 z32r0457c048: digest differs"]
        figures = {"tiles": 4, "dates": 2, "failed_reads": 0, "checksum": "abc"}
        return {"ok": self.ok, **figures, "problems": problems}


def test_check_prints_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, bool]] = []

    def fake(url: str, *, quick: bool) -> FakeCheck:
        seen.append((url, quick))
        return FakeCheck(ok=True)

    monkeypatch.setattr(eoray.cube.check, "check_cube", fake)
    assert call("check", "out", "--quick") == 0
    assert seen == [("out", True)]
    assert "checksum      abc" in capsys.readouterr().out


def test_check_fails_when_the_cube_is_faulty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(eoray.cube.check, "check_cube", lambda *_, **__: FakeCheck(ok=False))
    assert call("check", "out") == 1
    shown = capsys.readouterr().out
    assert "FAULTY" in shown
    assert "- s2 z32r0457c048: digest differs" in shown
    assert call("check", "out", "--json") == 1
    assert last_json(capsys)["ok"] is False


def test_export_reads_its_box_dates_and_bands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def fake(*args: Any, **kwargs: Any) -> str:
        seen.append((args, kwargs))
        return "a.tif"

    monkeypatch.setattr(eoray.publish.export, "export_window", fake)
    options = ("--time", "2021-01-01/2021-02-01", "--bands", "B04,B03", "--product", "s2-P3M")
    assert call("export", "out", "a.tif", "--bbox", "11.5,48,11.6,48.1", *options) == 0
    ((args, kwargs),) = seen
    assert args == ("out", "s2-P3M", "a.tif")
    assert kwargs == {
        "bbox": (11.5, 48.0, 11.6, 48.1),
        "zone": None,
        "time": DateRange.parse("2021-01-01/2021-02-01"),
        "bands": ["B04", "B03"],
        "resolution_m": None,
    }
    assert capsys.readouterr().out == "a.tif\n"
    assert call("export", "out", "a.tif", "--bbox", "11.5,48,11.6") == 2
    assert "write west,south,east,north" in capsys.readouterr().err


def test_demo_says_where_everything_lies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[Path, bool]] = []

    def fake(out: Path, *, ray: bool, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
        seen.append((out, ray))
        progress("archive", 1, 1)
        return {"cube": "c", "report": "r.html", "seconds": 1.5}

    module = types.ModuleType("eoray.run.demo")
    module.run_demo = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "eoray.run.demo", module)
    assert call("demo", "--ray", "--out", str(tmp_path)) == 0
    assert "report             r.html" in capsys.readouterr().out
    assert call("demo", "--out", str(tmp_path), "--json") == 0
    assert last_json(capsys) == {"cube": "c", "report": "r.html", "seconds": 1.5}
    assert seen == [(tmp_path, True), (tmp_path, False)]


def test_schema_is_json_in_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("schema") == 0
    readable = json.loads(capsys.readouterr().out)
    assert call("schema", "--json") == 0
    assert last_json(capsys) == readable
    assert readable["additionalProperties"] is False


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("version") == 0
    assert capsys.readouterr().out == f"eoray {eoray.__version__}\n"


def test_version_tells_what_a_cluster_must_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("version", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ray"] == metadata.version("ray")
    assert told["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert told["version"] == eoray.__version__


def test_help_lists_every_verb_and_the_exit_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eoray", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.startswith("Usage: eoray [OPTIONS]")
    verbs = "demo init plan run cube fit predict change assess publish check report export schema"
    assert all(f"\n  {verb} " in done.stdout for verb in verbs.split())
    assert "0 done, 1 failed, 2 usage" in done.stdout
    assert done.stderr == ""


class Terminal:
    def __init__(self, *, moves: bool) -> None:
        self.text, self._moves = "", moves

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return self._moves


def test_progress_in_a_log_is_a_line_per_quarter() -> None:
    stream = Terminal(moves=False)
    progress = ProgressPrinter(stream)  # type: ignore[arg-type]
    for done in range(101):
        progress("cube", done, 100)
    progress("fit", 1, 1)
    progress.close()
    shown = [line.split()[:2] for line in stream.text.splitlines()]
    quarters = [["cube", f"{done}/100"] for done in (0, 25, 50, 75, 100)]
    assert shown == [*quarters, ["fit", "1/1"]]


def test_progress_on_a_terminal_is_a_line_that_moves() -> None:
    stream = Terminal(moves=True)
    progress = ProgressPrinter(stream)  # type: ignore[arg-type]
    progress("cube", 1, 2)
    progress("cube", 2, 2)
    progress("fit", 0, 0)
    progress.close()
    assert stream.text.count("\n") == 2
    assert stream.text.count("\r") == 3
    assert "fit        0/0 (100 %)" in stream.text


def test_run_file_of_the_environment_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EORAY_RUN_FILE", "{version: 1, name: here}")
    with pytest.raises(SystemExit) as ended:
        main(["run", "env:EORAY_RUN_FILE"])
    assert ended.value.code == 2
    assert "run file: aoi: missing" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["run", "env:EORAY_NONE"])
    assert ended.value.code == 2
    assert "the environment has no EORAY_NONE" in capsys.readouterr().err
