"""The driver on a cluster's head: begun once, followed by whoever asks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eoray.errors import ClusterError, StoreError
from eoray.run import client, session
from eoray.run.attempt import DeadlineError
from eoray.run.client import Begun, DriverActor, Status, _connect, execute_remote
from eoray.run.heal import HoleFilter
from eoray.run.record import RunReport
from eoray.run.stages import Manner


class Runs:
    """Stands for the run: each execution waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.go = threading.Event()
        self.error: BaseException | None = None

    def execute(
        self, stages: Any, *, address: str, progress: Any, errors: str | None = None
    ) -> RunReport:
        self.begun.append(stages if errors is None else (stages, errors))
        return self._go_on(progress)

    def heal(self, stages: Any, *, holes: Any, address: str, progress: Any) -> RunReport:
        self.begun.append((stages, holes))
        return self._go_on(progress)

    def _go_on(self, progress: Any) -> RunReport:
        progress("cube", 1, 2)
        self.go.wait(10)
        if self.error is not None:
            raise self.error
        return RunReport("run", "run-1", {"cube": {}})


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    made = Runs()
    monkeypatch.setattr(session, "run_from_text", lambda text, folder: made)
    yield made
    made.go.set()


def end(actor: DriverActor, runs: Runs) -> None:
    runs.go.set()
    assert actor._thread is not None
    actor._thread.join(10)
    runs.go.clear()


def test_second_call_attaches_and_hears_the_events_again(runs: Runs) -> None:
    actor = DriverActor()
    assert actor.start("", "/", ["cube"], {}).stages == ["cube"]
    assert actor.start("", "/", ["cube"], {}).stages == ["cube"]
    end(actor, runs)
    assert runs.begun == [["cube"]]
    status = actor.status(0)
    assert status.events == [("cube", 1, 2)]
    assert status.report is not None
    assert status.report["stages"] == {"cube": {}}


def test_other_stages_wait_for_those_that_run(runs: Runs) -> None:
    actor = DriverActor()
    actor.start("", "/", ["cube"], {})
    assert actor.start("", "/", None, {}).stages == ["cube"]
    assert runs.begun == [["cube"]]


def test_end_that_nobody_heard_is_heard_by_the_same_and_makes_way_for_others(runs: Runs) -> None:
    actor = DriverActor()
    runs.error = StoreError("the disk is full")
    actor.start("", "/", ["cube"], {})
    end(actor, runs)
    actor.start("", "/", ["cube"], {})
    assert isinstance(actor.status(0).error, StoreError)
    runs.error = None
    actor.start("", "/", None, {})
    assert actor.status(0).error is None
    end(actor, runs)
    assert runs.begun == [["cube"], None]


@pytest.mark.parametrize(
    ("manner", "begun"),
    [
        (Manner("raise"), (["cube"], "raise")),
        (Manner("record", HoleFilter(reasons=("503",))), (["cube"], HoleFilter(reasons=("503",)))),
    ],
)
def test_manner_of_a_client_is_that_of_its_driver(runs: Runs, manner: Manner, begun: Any) -> None:
    actor = DriverActor()
    actor.start("", "/", ["cube"], {}, manner)
    end(actor, runs)
    assert runs.begun == [begun]


def test_path_that_the_head_does_not_see_begins_nothing(runs: Runs, tmp_path: Path) -> None:
    actor = DriverActor()
    paths = {"store": str(tmp_path), "fit.labels": str(tmp_path / "absent")}
    assert actor.start("", "/", None, paths).absent == ["fit.labels"]
    assert runs.begun == []
    assert actor.start("", "/", None, {"store": str(tmp_path)}).absent == []
    assert actor._thread is not None


@pytest.mark.parametrize(
    ("failures", "tries"),
    [(["Starting Ray client server failed. See x.err"] * 2, 3), (["Version mismatch"], 1)],
)
def test_client_server_that_died_is_asked_for_again(
    failures: list[str], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def init(address: str, **how: Any) -> None:
        calls.append(address)
        if failures:
            raise ConnectionAbortedError(failures.pop(0))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    if tries == 1:
        with pytest.raises(ClusterError, match=r"no Ray answers at 'ray://h:1' .Version mismatch"):
            _connect("ray://h:1")
    else:
        _connect("ray://h:1")
    assert len(calls) == tries


class Remote:
    """An actor in this process: what Ray would send is there at once."""

    def __init__(self, status: Status | BaseException) -> None:
        self.start = SimpleNamespace(remote=lambda *a: Begun(a[2], []))
        self.status = SimpleNamespace(remote=lambda since: status)


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Follow a driver that gives one status."""

    def get(value: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    ray = SimpleNamespace(init=_nothing, get=get, kill=_nothing, shutdown=_nothing)
    monkeypatch.setitem(sys.modules, "ray", ray)
    lost = type("RayError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "ray.exceptions", SimpleNamespace(RayError=lost))
    monkeypatch.setattr(client, "check_reachable", _nothing)

    def run(status: Status | BaseException | str) -> dict[str, Any]:
        given = lost(status) if isinstance(status, str) else status
        monkeypatch.setattr(client, "_driver", lambda _: Remote(given))
        return execute_remote(
            "ray://h:1", key="a-1", run_file="", folder="/", local_paths={}, stages=None,
            progress=None,
        )  # fmt: skip

    return run


def _nothing(*_: Any, **__: Any) -> None:
    """Stand for a call that is not looked at."""


def test_end_of_the_run_is_its_own_whatever_it_looks_like(
    follow: Callable[..., dict[str, Any]],
) -> None:
    assert follow(Status([], {"name": "a"})) == {"name": "a"}
    with pytest.raises(DeadlineError, match="has used its 60 s"):
        follow(Status([], error=DeadlineError("attempt 'a-1' has used its 60 s")))


def test_lost_connection_and_lost_driver_are_told_apart(
    follow: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(ClusterError, match=r"connection to 'ray://h:1' was lost .*goes on there"):
        follow(ConnectionError("Client is shutting down"))
    with pytest.raises(ClusterError, match=r"driver of run 'a-1' .*was lost .*the last commit"):
        follow("the actor died")


def test_folder_of_the_run_file_need_not_be_there(tmp_path: Path) -> None:
    """A run file of a laptop whose paths are all in a bucket."""
    from eoray.config import parse_config

    config = parse_config(
        "{version: 1, name: a, aoi: [14.0, 46.0, 14.2, 46.2], time: 2024-01-01/2024-12-31, "
        "task: cube, store: s3://maps/a}"
    )
    assert session.Run(config, Path("/laptop"))._local_paths() == {}


def test_auto_leads_to_the_client_server_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[SimpleNamespace] = []

    def follow(address: str, **how: Any) -> dict[str, Any]:
        seen.append(SimpleNamespace(address=address))
        return {"name": "a", "key": "a-1", "stages": {}, "seconds": 0.0}

    monkeypatch.setattr(client, "execute_remote", follow)
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    from eoray.config import parse_config

    config = parse_config(
        "{version: 1, name: a, aoi: [14.0, 46.0, 14.2, 46.2], time: 2024-01-01/2024-12-31, "
        "task: cube, store: s3://maps/a}"
    )
    session.Run(config, Path("/laptop")).execute(address="auto")
    assert seen[0].address == "ray://127.0.0.1:10001"
