"""One task list, three ways to run it: here, in threads, on Ray Data actors.

A task is any small picklable callable that turns a row into a small receipt. What comes back is
an :class:`Outcome` per row, in the order of finishing; a task that fails is an outcome too, so
that the driver can commit what is done before it stops.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from eoray.errors import ClusterError, ConfigError, EorayError

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
        task: Picklable; called once per row, again if its worker dies.
        rows: Each with a ``key``.
        executor: Where to run.

    Yields:
        Outcomes as they finish. Closing the iterator cancels what has not begun.
    """
    if not rows:
        return
    if executor.name == "inline":
        yield from (_attempt(task, row) for row in rows)
    elif executor.name == "threads":
        yield from _run_threads(task, rows, executor.workers)
    else:
        yield from _run_ray(task, rows, executor.workers)


def _attempt(task: Callable[[Any], Any], row: Any) -> Outcome:
    try:
        return Outcome(row.key, task(row))
    except Exception as error:  # noqa: BLE001 - handed to the driver, which raises it
        return Outcome(row.key, error=error)


def _run_threads(
    task: Callable[[Any], Any], rows: Sequence[Any], workers: int
) -> Iterator[Outcome]:
    """Keep twice as many tasks in flight as threads, so memory stays bounded."""
    pending: set[Future[Outcome]] = set()
    queue = iter(rows)
    with ThreadPoolExecutor(workers, thread_name_prefix="eoray-task") as pool:
        try:
            for row in queue:
                pending.add(pool.submit(_attempt, task, row))
                if len(pending) >= 2 * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in pending:
                future.cancel()


class _RayTask:
    """The task inside a Ray Data actor: rows arrive pickled, outcomes leave pickled."""

    def __init__(self, task: bytes) -> None:
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
        fn_constructor_args=(pickle.dumps(task),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
        num_cpus=1,
    )
    for batch in dataset.iter_batches(batch_size=1, prefetch_batches=0):
        for data in batch["outcome"]:
            yield pickle.loads(data)  # noqa: S301 - our own actors made it


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Start a Ray of our own on this machine and stop it at the end.

    Always a fresh one: the Ray of a killed run may still be dying. A Ray that this process is
    already connected to is used as it is.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    import logging

    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
    )
    try:
        yield
    finally:
        ray.shutdown()


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
    try:
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
