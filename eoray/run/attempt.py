"""An attempt of a run on a cluster, as its driver sees it: starts, a deadline, an end, a record.

A lost head is started again by the cluster without bound, and a driver that dies of one wave would
die of it for ever. So each start is counted beside the outputs, with the commit that it found.
Run file, versions, log and end lie there too: pods and jobs vanish.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.cube import store
from eoray.errors import EorayError, StoreError
from eoray.log import get_logger
from eoray.masking import mask
from eoray.run.driver_log import LOG, OLDER_LOG, keep_log
from eoray.run.last_seen import VIEW
from eoray.run.lease import FENCE
from eoray.run.pod import Pod
from eoray.run.probe import probe_store
from eoray.run.record import read_record, versions
from eoray.run.stop import StopRequest, stoppable

if TYPE_CHECKING:
    from eoray.run.record import RunPaths

MAX_STARTS = 3
"""Starts that may find the same commit."""

RECORD, RUN_FILE = "record.json", "run.yaml"


class DeadlineError(EorayError, TimeoutError):
    """The attempt's time is over; what is finished is committed."""

    kind = "timeout"


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """What a driver knows of the attempt that it works for."""

    name: str
    ray_cluster: str = ""
    """Another one means that the attempt was begun anew under its name: starts count anew."""
    submission: str = ""
    """Another one means that an attempt had this name before and was deleted."""
    image: str = ""
    """As the cluster was told; by digest where the run file has it."""
    deadline_s: float | None = None
    """Seconds from the first start; needs the main thread."""
    pod: Pod | None = None
    """Where the driver and its pod's hooks meet."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Versions of who submitted: its own ``eoray``, and the ``ray`` that the cluster was told."""


@contextmanager
def hold_attempt(
    paths: RunPaths,
    attempt: AttemptInfo,
    *,
    run_file: str = "",
    secrets: Sequence[str] = (),
    now: Callable[[], float] = time.time,
) -> Iterator[None]:
    """Count a start of an attempt, end it in time or when asked, and record how it ended.

    Args:
        paths: Of the run.
        attempt: Which one.
        run_file: The resolved run file, for the record.
        secrets: Values that neither record nor log may hold.
        now: Clock, in Unix seconds.

    Raises:
        AccessError: The store cannot be reached or written; nothing was begun.
        StoreError: The attempt was started three times and has not come to a new commit.
        DeadlineError: Its time is over.
        StopRequest: The process was asked to stop.
    """
    record = _Record(paths, attempt, secrets, now)
    try:
        with _driver_of(attempt.pod), stoppable(at_limit=record.end_by_force):
            with _said(attempt.name, secrets):
                probe_store(paths.store)
                record.set_aside()
            with (
                keep_log(record.folder, secrets),
                _said(attempt.name, secrets),
                record.kept(run_file),
                _deadline(attempt.name, attempt.deadline_s, record.begun, now),
            ):
                _compare_versions(attempt.told)
                yield
    except StopRequest:
        if attempt.pod is not None and attempt.pod.is_ending():
            attempt.pod.wait_for_end()
        raise


def _driver_of(pod: Pod | None) -> Any:
    return nullcontext() if pod is None else pod.holds_driver()


@contextmanager
def _said(name: str, secrets: Sequence[str]) -> Iterator[None]:
    """Log what ended an attempt: the process's own last words do not reach the pod's log."""
    try:
        yield
    except BaseException as error:
        get_logger().error("attempt ended", attempt=name, reason=_reason(error, secrets))
        raise


def _reason(error: BaseException, secrets: Sequence[str]) -> str:
    return mask(f"{type(error).__name__}: {error}", secrets)[:1000]


_REMEDIES = {
    "eoray": "the run is carried out by the image's; use an image of the other one (cluster.image) "
    "or submit with that of the image",
    "ray": "Ray is the image's, and the operator makes its pods for the other one; set "
    "cluster.ray_version to that of the image",
}


def _compare_versions(told: Mapping[str, str]) -> None:
    """Say where the image is another one than its submitter took it for.

    Only the run file comes from there, with a version of its own and no unknown keys; so the
    difference is told, and ends nothing.
    """
    for package, theirs in told.items():
        ours = version(package)
        if ours != theirs:
            get_logger().warning(
                "versions differ", package=package, submitted=theirs, image=ours,
                remedy=_REMEDIES[package],
            )  # fmt: skip


class _Record:
    """The document that an attempt leaves, written at each start and at its end."""

    def __init__(
        self,
        paths: RunPaths,
        attempt: AttemptInfo,
        secrets: Sequence[str],
        now: Callable[[], float],
    ) -> None:
        self.folder = paths.attempt(attempt.name)
        self.begun = 0.0
        """First start in this cluster, Unix seconds."""
        self._path = storage.join(self.folder, RECORD)
        self._paths, self._attempt, self._secrets, self._now = paths, attempt, secrets, now
        self._content: dict[str, Any] = {}

    def set_aside(self) -> None:
        """Keep what a deleted attempt of this name left, in a folder of its own.

        Who submits often cannot read the store, so the cluster's count may begin anew.
        """
        ours = self._attempt.submission
        earlier = storage.read_json(self._path) if ours and storage.exists(self._path) else {}
        theirs = earlier.get("submission", "")
        if not earlier or theirs == ours:
            return
        view = storage.join(self.folder, VIEW)
        # of an attempt that goes on it may be ours already: nothing starts in silence
        ended = storage.exists(view) and storage.read_json(view).get("finished", False)
        # the record last: a driver that dies here leaves the rest to the next
        for name in (RUN_FILE, LOG, OLDER_LOG, *([VIEW] if ended else []), RECORD):
            _move(self.folder, f"{self.folder}.{theirs or 'before'}", name)

    @contextmanager
    def kept(self, run_file: str) -> Iterator[None]:
        """Write the start, then the end, whatever it is."""
        fruitless = self._begin(run_file)
        try:
            if fruitless >= MAX_STARTS:
                raise StoreError(
                    f"attempt {self._attempt.name!r} was started {fruitless} times without a new "
                    "commit: its driver dies of the same wave, most often for lack of memory; "
                    "give the head more (cluster.head.memory_gi) or make waves smaller "
                    "(run.wave_shards)"
                )
            yield
        except BaseException as error:
            self._end(_status(error), _reason(error, self._secrets))
            raise
        self._end("succeeded", "")
        get_logger().info("attempt succeeded", attempt=self._attempt.name)

    def end_by_force(self) -> None:
        """Say that the driver did not stop in time."""
        if self._content:
            self._end("stopped", "asked to stop, and ended by force: its last wave is lost")

    def _begin(self, run_file: str) -> int:
        """Add this start; gives how many earlier ones found the same commit."""
        earlier = storage.read_json(self._path) if storage.exists(self._path) else {}
        cluster, commit = self._attempt.ray_cluster, _newest_commit(self._paths)
        starts = earlier.get("starts", [])
        ours = [start for start in starts if start.get("ray_cluster", "") == cluster]
        moment = self._now()
        this = {"time": moment, "commit": commit, "ray_cluster": cluster}
        self.begun = ours[0]["time"] if ours else moment
        self._content = {
            "name": self._attempt.name,
            "run": self._paths.key,
            "submission": self._attempt.submission,
            "image": self._attempt.image,
            "versions": versions(),
            **({"submitted_with": dict(self._attempt.told)} if self._attempt.told else {}),
            "starts": [*starts, this],
            "status": "running",
        }
        storage.write_json(self._path, self._content)
        text = mask(run_file, self._secrets)
        storage.write_bytes(storage.join(self.folder, RUN_FILE), text.encode())
        return sum(start["commit"] == commit for start in ours)

    def _end(self, status: str, reason: str) -> None:
        plan = read_record(self._paths).get("plan", {})
        self._content |= {
            "status": status,
            "reason": reason,
            "ended_at": self._now(),
            "commit": _newest_commit(self._paths),
            "items_hash": plan.get("items_hash", ""),
        }
        storage.write_json(self._path, self._content)


def _move(folder: str, to: str, name: str) -> None:
    url = storage.join(folder, name)
    if storage.exists(url):
        storage.write_bytes(storage.join(to, name), storage.read_bytes(url))
        storage.delete(url)


def _status(error: BaseException) -> str:
    return "stopped" if isinstance(error, KeyboardInterrupt) else "failed"


def _newest_commit(paths: RunPaths) -> str:
    """Id of the newest commit that holds work; "" before there is one."""
    try:
        repository = store.open_repository(paths.repository)
    except StoreError:
        return ""
    commits = repository.ancestry(branch=store.BRANCH)
    work = (c.id for c in commits if c.parent_id is not None and FENCE not in c.metadata)
    return next(work, "")


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

    passed = False

    def end(*_: object) -> None:
        nonlocal passed
        passed = True
        # Ray, while it waits for tasks, hands on no other exception than that of Ctrl-C
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    except KeyboardInterrupt as error:
        if passed:
            raise DeadlineError(text) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
