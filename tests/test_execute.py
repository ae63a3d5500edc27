"""One task list, run here, in threads or on Ray: the same outcomes."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import pytest

from eoray.errors import ClusterError, ConfigError, EorayError, ReadError
from eoray.execute import (
    Executor,
    Outcome,
    _dump,
    _kept_sigterm,
    _RayTask,
    check_reachable,
    cluster_ray,
    local_ray,
    resolve_executor,
    run_tasks,
)


@dataclass(frozen=True, slots=True)
class NumberRow:
    number: int

    @property
    def key(self) -> str:
        return f"row-{self.number}"


ROWS = [NumberRow(number) for number in range(12)]


def square(row: NumberRow) -> int:
    if row.number % 5 == 4:
        raise ReadError(f"row {row.number} is torn", item_id="S2", asset="B04", window=(0, 1, 2, 3))
    return row.number**2


def summary(outcomes: list[Outcome]) -> list[tuple[str, object, str]]:
    return sorted((o.key, o.receipt, repr(o.error)) for o in outcomes)


def test_threads_and_inline_have_the_same_outcomes() -> None:
    inline = list(run_tasks(square, ROWS, Executor()))
    threads = list(run_tasks(square, ROWS, Executor("threads", 3)))
    assert [o.key for o in inline] == [row.key for row in ROWS]
    assert summary(inline) == summary(threads)
    assert len(threads) == 12


@pytest.mark.parametrize("executor", [Executor(), Executor("threads", 2)])
def test_a_failed_task_is_an_outcome_and_the_others_go_on(executor: Executor) -> None:
    outcomes = {o.key: o for o in run_tasks(square, ROWS, executor)}
    error = outcomes["row-4"].error
    assert isinstance(error, ReadError)
    assert error.window == (0, 1, 2, 3)
    assert outcomes["row-11"].receipt == 121


@pytest.mark.parametrize("name", ["inline", "threads", "ray"])
def test_no_rows_need_no_executor(name: str) -> None:
    assert list(run_tasks(square, [], Executor(name, 2))) == []  # type: ignore[arg-type]


def test_threads_keep_a_bounded_number_of_tasks_in_flight() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def note(row: NumberRow) -> None:
        with lock:
            begun.append(row.number)

    outcomes = run_tasks(note, [NumberRow(n) for n in range(100)], Executor("threads", 2))
    next(outcomes)
    time.sleep(0.05)
    assert len(begun) <= 8
    cast("Generator[Outcome]", outcomes).close()
    assert len(begun) <= 8


class Streamed:
    """Takes a row before it ends the one before, as a reader does that reads ahead."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.calls = threading.Lock()

    def __call__(self, row: NumberRow) -> int:
        raise AssertionError(f"row {row.number} came alone")

    def stream(self, rows: Iterator[NumberRow]) -> Generator[int]:
        coming = self._next(rows)
        while coming is not None:
            row, coming = coming, self._next(rows)
            yield square(row)

    def _next(self, rows: Iterator[NumberRow]) -> NumberRow | None:
        row = next(rows, None)
        if row is not None:
            with self.calls:
                self.begun.append(row.number)
        return row


@pytest.mark.parametrize("executor", [Executor(), Executor("threads", 1), Executor("threads", 3)])
def test_stream_that_takes_rows_ahead_has_the_outcomes_of_single_tasks(executor: Executor) -> None:
    found = list(run_tasks(Streamed(), ROWS, executor))
    assert summary(found) == summary(list(run_tasks(square, ROWS, Executor())))


def test_stream_takes_the_next_row_before_the_first_outcome() -> None:
    task = Streamed()
    outcomes = run_tasks(task, ROWS, Executor())
    assert next(outcomes).key == "row-0"
    assert task.begun == [0, 1]
    cast("Generator[Outcome]", outcomes).close()
    assert task.begun == [0, 1]


def test_rows_taken_ahead_of_one_that_failed_are_begun_again() -> None:
    task = Streamed()
    outcomes = list(run_tasks(task, ROWS[:7], Executor()))
    assert [o.key for o in outcomes] == [row.key for row in ROWS[:7]]
    assert task.begun == [0, 1, 2, 3, 4, 5, 5, 6]


def test_no_row_is_taken_ahead_that_leaves_another_worker_idle() -> None:
    """Three rows and three workers: none has two, however long the others need to begin."""
    together = threading.Barrier(3)

    class Meeting(Streamed):
        def stream(self, rows: Iterator[NumberRow]) -> Generator[int]:
            for receipt in super().stream(rows):
                together.wait(10)
                yield receipt

    assert len(list(run_tasks(Meeting(), ROWS[:3], Executor("threads", 3)))) == 3


def test_stream_that_leaves_out_a_row_is_refused() -> None:
    class Forgetful(Streamed):
        def stream(self, rows: Iterator[NumberRow]) -> Generator[int]:
            yield from (row.number for row in rows if row.number != 2)

    with pytest.raises(EorayError, match="Forgetful left out 1 rows"):
        list(run_tasks(Forgetful(), ROWS, Executor()))


def test_interrupt_of_an_inline_task_leaves_the_loop() -> None:
    def interrupt(row: NumberRow) -> int:
        if row.number == 2:
            raise KeyboardInterrupt
        return row.number

    outcomes = run_tasks(interrupt, ROWS, Executor())
    assert [next(outcomes).receipt, next(outcomes).receipt] == [0, 1]
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)


class StubbornError(Exception):
    """An error of a library that pickles but cannot be rebuilt."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def test_error_that_cannot_be_rebuilt_crosses_as_text() -> None:
    import pickle

    outcome = pickle.loads(_dump(Outcome("row-1", error=StubbornError("to", "rn"))))
    assert isinstance(outcome.error, EorayError)
    assert str(outcome.error) == "StubbornError: torn"


def test_ray_actor_answers_with_pickled_outcomes() -> None:
    import pickle

    actor = _RayTask(pickle.dumps(square), {})
    batch = actor({"row": [pickle.dumps(ROWS[3]), pickle.dumps(ROWS[4])]})
    first, second = (pickle.loads(data) for data in batch["outcome"])
    assert first == Outcome("row-3", 9)
    assert isinstance(second.error, ReadError)
    assert second.error.item_id == "S2"


@pytest.mark.parametrize(
    ("name", "workers", "n_tasks", "address", "chosen"),
    [
        ("auto", None, 10, None, Executor("threads", 2)),
        ("auto", None, 1, None, Executor("inline", 2)),
        ("auto", 1, 10, None, Executor("inline", 1)),
        ("auto", None, 10, "ray://head:10001", Executor("ray", 2)),
        ("auto", None, 10**6, None, Executor("ray", 2)),
        ("inline", 8, 10, None, Executor("inline", 1)),
        ("threads", 8, 10, None, Executor("threads", 8)),
        ("ray", 3, 1, None, Executor("ray", 3)),
    ],
)
def test_executor_follows_the_user_then_the_size(
    name: str, workers: int | None, n_tasks: int, address: str | None, chosen: Executor
) -> None:
    assert resolve_executor(name, workers, n_tasks, address, cpus=2) == chosen


def test_unknown_executor_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto, inline, threads or ray"):
        resolve_executor("dask", None, 1, None, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own: sockets and files of its processes
def test_ray_has_the_outcomes_of_inline() -> None:
    """Rows and task are of modules that a worker can import; a text has no numerator."""
    rows = [Outcome(f"row-{n}", "torn" if n % 5 == 4 else n) for n in range(12)]
    task = attrgetter("receipt.numerator")
    with local_ray(2):
        outcomes = list(run_tasks(task, rows, Executor("ray", 2)))
    assert summary(outcomes) == summary(list(run_tasks(task, rows, Executor())))
    assert sum(o.error is not None for o in outcomes) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own: sockets and files of its processes
def test_processes_of_a_local_ray_know_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither the one of RAY_ADDRESS nor the machine's last one, which may be dead or another's."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("203.0.113.7:6379")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "203.0.113.8:6379")
    with local_ray(2):
        import ray

        asked = ray.remote(canonicalize_bootstrap_address_or_die).remote("auto")
        assert ray.get(asked) == ray.get_runtime_context().gcs_address
    assert os.environ["RAY_TMPDIR"] == str(tmp_path)
    assert os.environ["RAY_ADDRESS"] == "203.0.113.8:6379"


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_address_without_an_open_port_is_refused_at_once(closed_port: int, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{closed_port}"
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=rf"no Ray answers at '{address}'.*ray start --head"):
        check_reachable(address)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("address", ["ray://head", "head", "head:many", "ray://:10001"])
def test_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match="names no host and port; write ray://host:10001"):
        check_reachable(address)


def test_stale_address_of_auto_is_refused_at_once(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cluster that died leaves its address behind; Ray would try it for three minutes."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{closed_port}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClusterError, match=f"127.0.0.1:{closed_port}"), cluster_ray("auto"):
        pass


def test_local_ray_that_fails_is_tried_again_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    calls: list[str] = []

    def init(**options: object) -> None:
        folder = Path(str(options["_temp_dir"]))
        (folder / "session_2026/logs").mkdir(parents=True, exist_ok=True)
        (folder / "session_2026/logs/raylet.err").write_text("x\nCheck failed: no port file\ny")
        calls.append(str(folder))
        raise Exception("timed out")  # noqa: TRY002 - what Ray raises

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(ClusterError, match=r"not start in 4 attempts \(no port file\).*threads"),
        local_ray(2),
    ):
        pass
    assert len(calls) == 4
    assert not Path(calls[0]).exists()
    assert "RAY_worker_niceness" not in os.environ


@pytest.mark.parametrize("ours", [lambda *_: None, signal.SIG_DFL])
def test_handler_of_sigterm_outlives_the_start_of_ray(ours: Any) -> None:
    def rays(*_: object) -> None:
        """What ``ray.init`` sets: exits at once."""

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with _kept_sigterm():
            signal.signal(signal.SIGTERM, rays)
        assert signal.getsignal(signal.SIGTERM) is (rays if ours == signal.SIG_DFL else ours)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_wrong_settings_of_local_ray_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    calls: list[int] = []

    def init(**options: object) -> None:
        calls.append(1)
        raise ValueError("num_cpus")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="num_cpus"), local_ray(2):
        pass
    assert calls == [1]


def test_address_where_no_cluster_answers_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ray

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def refuse(**options: object) -> None:
        raise ConnectionError(f"nobody at {options['address']}")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ClusterError, match="no Ray answers at 'auto'"), cluster_ray("auto"):
        pass
