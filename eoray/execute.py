"""One task list, three ways to run it: here, in threads, on Ray Data actors.

A task is any small picklable callable that turns a row into a small receipt. What comes back is
an :class:`Outcome` per row, in the order of finishing; a task that fails is an outcome too, so
that the driver can commit what is done before it stops.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Literal
from urllib.parse import urlsplit

from eoray.buckets import Bucket, known_buckets, use_buckets
from eoray.errors import ClusterError, ConfigError, EorayError
from eoray.log import get_logger

ExecutorName = Literal["inline", "threads", "ray"]

SMALL_TASKS = 400
"""Below this many tasks a local Ray costs more (15 s to start) than it brings on one machine."""


@dataclass(frozen=True, slots=True)
class Executor:
    """Where tasks run."""

    name: ExecutorName = "inline"
    workers: int = 1
    """Threads, or the largest number of Ray actors."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished row: its receipt, or the error that ended it."""

    key: str
    receipt: Any = None
    error: BaseException | None = None


def resolve_executor(
    name: str, workers: int | None, n_tasks: int, address: str | None, cpus: int
) -> Executor:
    """Choose where tasks run, unless the user said so.

    Args:
        name: ``auto``, ``inline``, ``threads`` or ``ray``.
        workers: Threads or actors; None takes one per CPU.
        n_tasks: Tasks of the largest stage.
        address: A Ray cluster; set, it decides for Ray.
        cpus: CPUs of this machine.
    """
    count = workers or max(1, cpus)
    if name == "auto":
        if address is not None or n_tasks > SMALL_TASKS * 50:
            return Executor("ray", count)
        return Executor("threads" if count > 1 and n_tasks > 1 else "inline", count)
    if name not in ("inline", "threads", "ray"):
        raise ConfigError(
            f"executor {name!r} is unknown; say run.executor: auto, inline, threads or ray"
        )
    return Executor(name, 1 if name == "inline" else count)  # type: ignore[arg-type]


def run_tasks(
    task: Callable[[Any], Any], rows: Sequence[Any], executor: Executor
) -> Iterator[Outcome]:
    """Run a task over rows.

    Args:
        task: Picklable; called once per row, again if its worker dies. One with a method
            ``stream(rows)``, a generator of the rows' receipts in their order, is given rows while
            it works on others, except on Ray.
        rows: Each with a ``key``.
        executor: Where to run.

    Yields:
        Outcomes as they finish. Closing the iterator cancels what has not begun.
    """
    if not rows:
        return
    if executor.name == "inline":
        yield from _run_inline(task, rows)
    elif executor.name == "threads":
        yield from _run_threads(task, rows, executor.workers)
    else:
        yield from _run_ray(task, rows, executor.workers)


def _serve(task: Callable[[Any], Any], shared: _SharedRows) -> Generator[Outcome]:
    """Outcomes of rows in their order; a task with a stream takes rows before it ends others."""
    begun: deque[Any] = deque()
    while todo := list(begun) or shared.take():
        begun.clear()
        failed = None
        with closing(_stream_of(task)(_noted(chain(todo, shared.spare()), begun))) as stream:
            try:
                for receipt in stream:
                    yield Outcome(begun.popleft().key, receipt)
            except Exception as error:
                if not begun:
                    raise
                # kept for the driver, which raises it
                failed = Outcome(begun.popleft().key, error=error)
        if failed is not None:
            yield failed
        elif begun:
            raise EorayError(f"the stream of {type(task).__name__} left out {len(begun)} rows")


def _stream_of(task: Any) -> Callable[[Iterator[Any]], Generator[Any]]:
    """What turns rows into receipts, one by one."""

    def one_by_one(rows: Iterator[Any]) -> Generator[Any]:
        for row in rows:
            yield task(row)

    return getattr(task, "stream", one_by_one)


def _noted(rows: Iterable[Any], begun: deque[Any]) -> Iterator[Any]:
    for row in rows:
        begun.append(row)
        yield row


class _SharedRows:
    """Rows that workers take one by one; those in flight are bounded, and with them memory."""

    def __init__(self, rows: Sequence[Any], workers: int) -> None:
        self._rows = rows
        self._workers = workers
        self._next = 0
        self._free = 4 * workers
        self._changed = threading.Condition()
        self.stopped = False

    def take(self) -> list[Any]:
        """The next row, as soon as one more may be in flight; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopped or not self._left or self._free)
            return [] if self.stopped or not self._left else [self._taken()]

    def spare(self) -> Iterator[Any]:
        """Rows that may be taken ahead now: every worker finds one without them."""
        while True:
            with self._changed:
                if self.stopped or not self._free or self._left < self._workers:
                    return
                row = self._taken()
            yield row

    def _taken(self) -> Any:
        self._next += 1
        self._free -= 1
        return self._rows[self._next - 1]

    @property
    def _left(self) -> int:
        return len(self._rows) - self._next

    def release(self) -> None:
        """Allow one more row in flight."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Give out no further row."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()


def _run_inline(task: Callable[[Any], Any], rows: Sequence[Any]) -> Iterator[Outcome]:
    shared = _SharedRows(rows, 1)
    for outcome in _serve(task, shared):
        yield outcome
        shared.release()


def _run_threads(
    task: Callable[[Any], Any], rows: Sequence[Any], workers: int
) -> Iterator[Outcome]:
    """Serve rows in threads."""
    shared = _SharedRows(rows, workers)
    found: SimpleQueue[Outcome | None] = SimpleQueue()

    def work() -> None:
        try:
            with closing(_serve(task, shared)) as outcomes:
                for outcome in outcomes:
                    found.put(outcome)
                    if shared.stopped:
                        return
        finally:
            found.put(None)

    with ThreadPoolExecutor(workers, thread_name_prefix="eoray-task") as pool:
        threads = [pool.submit(work) for _ in range(workers)]
        try:
            working = workers
            while working:
                outcome = found.get()
                if outcome is None:
                    working -= 1
                else:
                    yield outcome
                    shared.release()
        finally:
            shared.stop()
        for thread in threads:
            thread.result()


def _attempt(task: Callable[[Any], Any], row: Any) -> Outcome:
    try:
        return Outcome(row.key, task(row))
    except Exception as error:  # noqa: BLE001 - handed to the driver, which raises it
        return Outcome(row.key, error=error)


class _RayTask:
    """The task inside a Ray Data actor: rows arrive pickled, outcomes leave pickled."""

    def __init__(self, task: bytes, buckets: Mapping[str, Bucket]) -> None:
        use_buckets(buckets)
        self._task = pickle.loads(task)  # noqa: S301 - the driver's own task

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = [pickle.loads(data) for data in batch["row"]]  # noqa: S301 - the driver's own rows
        return {"outcome": [_dump(_attempt(self._task, row)) for row in rows]}


def _dump(outcome: Outcome) -> bytes:
    try:
        data = pickle.dumps(outcome)
        pickle.loads(data)  # noqa: S301 - an error that cannot be rebuilt must not kill the driver
    except Exception:  # noqa: BLE001 - errors of other libraries often do not pickle
        error = EorayError(f"{type(outcome.error).__name__}: {outcome.error}")
        data = pickle.dumps(Outcome(outcome.key, error=error))
    return data


def _run_ray(task: Callable[[Any], Any], rows: Sequence[Any], workers: int) -> Iterator[Outcome]:
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    packed = [{"row": pickle.dumps(row)} for row in rows]
    count = min(workers, len(rows))
    dataset = ray.data.from_items(packed, override_num_blocks=len(packed)).map_batches(
        _RayTask,
        fn_constructor_args=(pickle.dumps(task), known_buckets()),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
        num_cpus=1,
    )
    for batch in dataset.iter_batches(batch_size=1, prefetch_batches=0):
        for data in batch["outcome"]:
            yield pickle.loads(data)  # noqa: S301 - our own actors made it


_LOCAL_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    # A slow start of a worker (torch takes 15 s to import on a busy machine) is no failure.
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # A process each that a machine of one's own has no use for (4 s of CPU to start one).
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray's own is 15: on a shared machine the run would wait for everybody else.
    "RAY_worker_niceness": "0",
    # Else each process without a GPU warns about how Ray hides GPUs.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment of a local Ray; what the user has set wins."""

_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, Ray takes 127.0.0.1 for its address, as on macOS; read when ray is imported."""

_OBJECT_STORE_BYTES = 256 * 2**20
"""Rows and receipts only: pixels never travel through it. Ray's own is 30 % of the memory."""

_START_ATTEMPTS = 4
"""The raylet gives its helpers 15 s each, a constant in it (ray-project/ray issue 65983). On a busy
machine they need longer, so that a start fails by chance; each try finds more files in memory."""


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Start a Ray of our own on this machine, on loopback, and stop it at the end.

    Always a fresh one: the Ray of a killed run may still be dying. A Ray that this process is
    already connected to is used as it is.

    Raises:
        ClusterError: Ray did not start in four attempts.
    """
    with _environment(_local_settings()):
        import ray

        if ray.is_initialized():
            yield
            return
        with (
            TemporaryDirectory(prefix="eoray-ray-", dir=_short_folder()) as folder,
            _only_cluster(folder),
        ):
            with _kept_sigterm():
                _start_ray(cpus, folder)
            try:
                _tell_address(folder, ray.get_runtime_context().gcs_address)
                yield
            finally:
                ray.shutdown()


def _local_settings() -> dict[str, str]:
    if "ray" in sys.modules:  # it has chosen its address already
        return _LOCAL_RAY
    return {**_LOCAL_RAY, _LOOPBACK_ONLY: "0"}


@contextmanager
def _environment(defaults: dict[str, str]) -> Iterator[None]:
    """Set environment variables that are not set yet, and remove them at the end."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _only_cluster(folder: str) -> Iterator[None]:
    """Hide every other Ray from the processes that start meanwhile.

    Ray Train's guard of placement groups asks the cluster that RAY_ADDRESS or the machine's last
    ``ray start`` names whether its run is alive, and removes the group where nobody knows it.
    """
    before = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "RAY_TMPDIR")}
    os.environ["RAY_TMPDIR"] = folder
    try:
        yield
    finally:
        del os.environ["RAY_TMPDIR"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _tell_address(folder: str, address: str) -> None:
    """Leave the address where Ray looks for the cluster of this machine."""
    path = _address_file(folder)
    path.parent.mkdir()
    path.write_text(address)


def _address_file(folder: str) -> Path:
    return Path(folder, "ray", "ray_current_cluster")


def _short_folder() -> str:
    """A folder for Ray's sockets, whose paths may have 107 characters."""
    folder = gettempdir()
    return folder if len(folder) <= 30 else "/tmp"  # noqa: S108 - a folder of its own is made in it


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Put a handler of SIGTERM back: ``ray.init`` replaces it by one that exits at once."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(ours) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


def _start_ray(cpus: int, folder: str) -> None:
    import ray

    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
            return
        except (TypeError, ValueError):
            raise
        except Exception as error:
            reason = _start_failure(folder) or str(error)
            _stop_processes(folder)
            if attempt == _START_ATTEMPTS:
                raise ClusterError(
                    f"local Ray did not start in {attempt} attempts ({reason[:300]}); this machine "
                    "is too busy or short of memory: run again when it is idle, or with "
                    "`--executor threads`"
                ) from error
            get_logger().warning("ray start failed", attempt=attempt, reason=reason[:300])


def _start_failure(folder: str) -> str:
    """What the raylet said last; Ray's own error is only that the start took too long."""
    lines = [
        line
        for path in Path(folder).glob("session_2*/logs/raylet.err")
        for line in path.read_text(errors="replace").splitlines()
        if "Check failed" in line
    ]
    return lines[-1].partition("Check failed: ")[2] if lines else ""


def _stop_processes(folder: str) -> None:
    """Stop what a failed start left running: each process of it names its folder."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(folder in argument for argument in child.cmdline()):
                child.kill()
                child.wait(10)


@contextmanager
def cluster_ray(address: str) -> Iterator[None]:
    """Connect this process to the cluster that it runs in (``auto``), or to a named one.

    Raises:
        ClusterError: Nothing answers there.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    known = _known_address(address)
    if known is not None:
        check_reachable(known)
    try:
        with _kept_sigterm():
            ray.init(address=address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray answers at {address!r} ({error}); check the address and that token "
            "authentication is set alike on both sides"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resolve_address(address: str | None) -> str | None:
    """Let ``auto`` lead to a Ray Client server that RAY_ADDRESS names; the rest stays as it is."""
    named = os.environ.get("RAY_ADDRESS", "")
    return named if address == "auto" and named.startswith("ray://") else address


def _known_address(address: str) -> str | None:
    """Where ``auto`` leads to, as Ray finds it; None where Ray knows of no cluster."""
    if address != "auto":
        return address
    named = os.environ.get("RAY_ADDRESS")
    if named:
        return named if named != "auto" else None
    folder = os.environ.get("RAY_TMPDIR") or "/tmp"  # noqa: S108 - where Ray itself writes it
    with suppress(OSError):
        return _address_file(folder).read_text().strip() or None
    return None


def check_reachable(address: str, *, timeout_s: float = 5.0) -> None:
    """Refuse an address where no port is open: Ray itself tries for minutes.

    Args:
        address: ``host:port`` of a cluster, or ``ray://host:port`` of its client server.
        timeout_s: To wait for the connection.

    Raises:
        ClusterError: The address has no port, or nothing answers at it.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise ClusterError(
            f"the Ray address {address!r} names no host and port; write ray://host:10001 for the "
            "client server of a cluster, or host:6379 on one of its own machines"
        )
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray answers at {address!r} ({error}); start it there with `ray start --head`, or "
            "correct host and port (client server 10001, cluster 6379) and see that a firewall "
            "lets it pass"
        ) from error
