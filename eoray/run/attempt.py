"""An attempt of a run on a cluster, as its driver sees it: counted starts, a deadline, an end.

A lost head is started again by the cluster without bound, and a driver that dies of one wave would
die of it for ever. So each start is counted beside the outputs, with the commit that it found.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.cube import store
from eoray.errors import EorayError, StoreError

if TYPE_CHECKING:
    from eoray.run.record import RunPaths

MAX_STARTS = 3
"""Starts that may find the same commit."""


class DeadlineError(EorayError, TimeoutError):
    """The attempt's time is over; what is finished is committed."""

    kind = "timeout"


@contextmanager
def hold_attempt(
    paths: RunPaths,
    name: str,
    *,
    deadline_s: float | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[None]:
    """Count a start of an attempt, end it in time, and record how it ended.

    Args:
        paths: Of the run.
        name: Of the attempt.
        deadline_s: Seconds from the first start of the attempt; needs the main thread.
        now: Clock, in Unix seconds.

    Raises:
        StoreError: The attempt was started three times and has not come to a new commit.
        DeadlineError: Its time is over.
    """
    path = storage.join(paths.attempts, f"{name}.json")
    record: dict[str, Any] = storage.read_json(path) if storage.exists(path) else {"starts": []}
    starts, commit = record["starts"], _newest_commit(paths)
    fruitless = [start for start in starts if start["commit"] == commit]
    starts.append({"time": now(), "commit": commit})
    storage.write_json(path, record)
    try:
        if len(fruitless) >= MAX_STARTS:
            raise StoreError(
                f"attempt {name!r} was started {len(fruitless)} times without a new commit: its "
                "driver dies of the same wave, most often for lack of memory; give the head more "
                "(cluster.head.memory_gi) or make waves smaller (run.wave_shards)"
            )
        with _deadline(name, deadline_s, starts[0]["time"], now):
            yield
    except BaseException as error:
        _end(path, record, f"{type(error).__name__}: {error}"[:1000], now)
        raise
    _end(path, record, "succeeded", now)


def _end(path: str, record: dict[str, Any], how: str, now: Callable[[], float]) -> None:
    storage.write_json(path, {**record, "ended": how, "ended_at": now()})


def _newest_commit(paths: RunPaths) -> str:
    """Id of the newest commit; "" before there is a repository."""
    try:
        repository = store.open_repository(paths.repository)
    except StoreError:
        return ""
    return str(repository.lookup_branch(store.BRANCH))


@contextmanager
def _deadline(
    name: str, seconds: float | None, begun: float, now: Callable[[], float]
) -> Iterator[None]:
    """Raise in the main thread when the time is over: what is finished is committed on the way."""
    if seconds is None:
        yield
        return
    text = (
        f"attempt {name!r} has used its {seconds:g} s; submit again to go on from the last commit, "
        "or raise cluster.deadline_minutes"
    )
    left = begun + seconds - now()
    if left <= 0:
        raise DeadlineError(text)

    def end(*_: object) -> None:
        raise DeadlineError(text)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
