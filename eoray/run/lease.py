"""One writer per store: a lock on a local folder, a renewed object elsewhere.

The holder's epoch goes into every commit. A holder that died frees a local lock at once (the
kernel drops it) and an object lease when it expires. Who meets a live one refuses, waits, or takes
it over. Who takes an object lease that was not given back may have a living rival, and shuts it out
(``fence``) before reading what is done; the rival stops at its next commit, or renewal.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Literal

from eoray import storage
from eoray.errors import ConflictError, StoreError
from eoray.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEASE_S = 120.0
"""An object lease that was not renewed for this long is free."""

_RENEW_S = 30.0

_RELEASED = 1.0
"""Expiry of a lease whose holder gave it back: no commit of it is to come."""

_LOOK_S = 2.0
"""Between two looks at a lease that is waited for."""

FENCE = "eoray.fence"
"""Marks a commit that holds no work and only shuts earlier holders out."""

Manner = Literal["refuse", "wait", "take-over"]
"""What to do about a live lease of another driver."""

_RECORD_BYTES = 1024
"""Length of the local record, padded, so that a new one covers the old."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes a store."""

    run: str
    host: str
    pid: int
    epoch: int
    expires: float = 0.0
    """Unix seconds; 0 for a local lock, which ends with its process; 1 for one given back."""
    attempt: str = ""
    """Attempt on a cluster that it works for."""

    def describe(self) -> str:
        """Name the holder for an error message."""
        return f"run {self.run!r} (process {self.pid} on {self.host}, epoch {self.epoch})"

    def is_same(self, other: Holder | None) -> bool:
        """Whether both are one holder, renewed or not."""
        return other is not None and replace(other, expires=self.expires) == self


@dataclass(slots=True)
class Watch:
    """What the renewals of a lease find out while it is held."""

    taker: Holder | None = None
    """Who took the store over."""

    def check(self) -> None:
        """Refuse to go on in a store that is another's.

        Raises:
            ConflictError: It was taken over; by whom is said.
        """
        if self.taker is not None:
            raise ConflictError(
                f"{self.taker.describe()} has taken the store over; this run stops, its last "
                "commit stands: run it again when the other has ended"
            )


@contextmanager
def hold_store(
    url: str,
    run: str,
    *,
    attempt: str = "",
    manner: Manner = "refuse",
    fence: Callable[[Holder], None] = lambda _: None,
    watch: Watch | None = None,
    now: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Holder]:
    """Hold the only right to commit to a store.

    Args:
        url: The store folder.
        run: Key of the run.
        attempt: Attempt on a cluster that this process works for. It takes the lease of an earlier
            attempt, or start, of its own run: the cluster begins one only when the pod of the other
            is gone, and if that should live on, it stops at its next commit.
        manner: What to do while another driver holds it.
        fence: Called where an earlier holder may live still; lets its commits be refused.
        watch: Told when another driver takes the lease over.
        now: Clock, in Unix seconds.
        pause: Called with seconds between two looks at a lease that is waited for.

    Yields:
        The holder; its epoch is one above every earlier one.

    Raises:
        ConflictError: Another driver holds the store; its run is named. A folder cannot be taken
            over from a process that lives.
    """
    if storage.is_local(url):
        # no fence: whoever had the lock before has ended, or has given it back
        yield from _hold_folder(url, run, manner, pause)
    else:
        claim = _Claim(run, attempt, manner, pause)
        yield from _hold_object(url, claim, now, fence, watch or Watch())


def find_holder(url: str, *, now: Callable[[], float] = time.time) -> Holder | None:
    """Who holds a store in an object store now; None where nobody does.

    Raises:
        Exception: As obstore does, where the store cannot be read from here.
    """
    store = storage.object_store(storage.join(url, "_eoray"))
    holder, _ = _ObjectLease(store, now).read()
    return holder if holder is not None and holder.expires > now() else None


def check_free(url: str, run: str, *, timeout_s: float = 5.0) -> str:
    """Refuse a store that another run writes, as far as that is seen from here.

    Args:
        url: The store folder.
        run: Key of the run that wants it; its own drivers are no others.
        timeout_s: Credentials and routes of pods are often missing here, which takes minutes to
            find out; after this time the look is given up.

    Returns:
        Why nothing could be seen; "" where the store is free.

    Raises:
        ConflictError: Another run holds it.
    """
    if storage.is_local(url):
        return "a folder of the pods is not seen from here"
    seen: list[Holder | None] = []
    failed: list[str] = []

    def look() -> None:
        try:
            seen.append(find_holder(url))
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver looks again
            failed.append(" ".join(str(error).split())[:160] or type(error).__name__)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not seen:
        return failed[0] if failed else f"no answer within {timeout_s:g} s"
    holder = seen[0]
    if holder is not None and holder.run != run:
        raise ConflictError(
            f"store {url!r} is being written by {holder.describe()}; submit with --wait-for-lease "
            "to wait for its end in the cluster, or with --take-over to make it stop"
        )
    return ""


def _hold_folder(
    url: str, run: str, manner: Manner, pause: Callable[[float], None]
) -> Iterator[Holder]:
    folder = storage.local_path(storage.join(url, "_eoray"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(folder / "lease.lock", os.O_RDWR | os.O_CREAT, 0o644), "r+")
    except OSError as error:
        raise StoreError(
            f"store {url!r} cannot be written ({error.strerror}); choose another folder or its "
            "permissions"
        ) from error
    with file:
        _lock(file, url, manner, pause)
        previous = _read_holder(file)
        holder = Holder(run, socket.gethostname(), os.getpid(), _epoch_after(previous))
        file.seek(0)
        # one write over the old record: a kill between truncation and text would lose the epoch
        file.write(json.dumps(asdict(holder)).ljust(_RECORD_BYTES))
        file.flush()
        yield holder


def _lock(file: IO[str], url: str, manner: Manner, pause: Callable[[float], None]) -> None:
    told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            other = _read_holder(file)
            if manner == "refuse":
                raise ConflictError(_held_by(url, other)) from error
            if manner == "take-over":
                raise ConflictError(
                    f"store {url!r} is being written by {_name(other)}, and the lock of a folder "
                    "ends with its process only; end that process, or say run.lease: wait"
                ) from error
            told = _tell_waiting(url, other, told=told)
            pause(_LOOK_S)


def _tell_waiting(url: str, other: Holder | None, *, told: bool) -> bool:
    if not told:
        get_logger().warning("waiting for the lease", store=url, held_by=_name(other))
    return True


def _read_holder(file: IO[str]) -> Holder | None:
    file.seek(0)
    text = file.read()
    return Holder(**json.loads(text)) if text.strip() else None


def _epoch_after(previous: Holder | None) -> int:
    return 1 if previous is None else previous.epoch + 1


def _name(holder: Holder | None) -> str:
    return "another process" if holder is None else holder.describe()


def _held_by(url: str, holder: Holder | None) -> str:
    return (
        f"store {url!r} is being written by {_name(holder)}; wait for it to end (run.lease: wait "
        "does), or stop it first"
    )


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who wants a store, and how much."""

    run: str
    attempt: str = ""
    manner: Manner = "refuse"
    pause: Callable[[float], None] = time.sleep

    def inherits(self, current: Holder) -> bool:
        """Whether a lease is that of an earlier driver in the place of which this one stands."""
        return bool(self.attempt and current.attempt) and current.run == self.run


def _hold_object(
    url: str,
    claim: _Claim,
    now: Callable[[], float],
    fence: Callable[[Holder], None],
    watch: Watch,
) -> Iterator[Holder]:
    lease = _ObjectLease(storage.object_store(storage.join(url, "_eoray")), now)
    holder = lease.take(url, claim)
    stop = threading.Event()
    renewer = threading.Thread(
        target=lease.keep, args=(stop, watch), daemon=True, name="eoray-lease"
    )
    renewer.start()
    try:
        if not lease.is_alone:
            fence(holder)
            lease.is_alone = True
        yield holder
    finally:
        stop.set()
        renewer.join()
        lease.release()


class _ObjectLease:
    """A small object, replaced only by conditional put."""

    _NAME = "lease.json"

    def __init__(self, store: Any, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._tag: _Tag | None = None
        self._holder: Holder | None = None
        self.is_alone = True
        """No earlier holder can commit."""

    def take(self, url: str, claim: _Claim) -> Holder:
        """Create the object, or replace one that has expired, is inherited or taken over."""
        told = False
        while True:
            current, tag = self.read()
            is_live = current is not None and current.expires > self._now()
            manner = "take-over" if current and claim.inherits(current) else claim.manner
            if is_live and manner == "wait":
                told = _tell_waiting(url, current, told=told)
                claim.pause(_LOOK_S)
                continue
            if is_live and manner == "refuse":
                raise ConflictError(_held_by(url, current))
            host, pid, expires = socket.gethostname(), os.getpid(), self._now() + LEASE_S
            epoch = _epoch_after(current)
            holder = Holder(claim.run, host, pid, epoch, expires, claim.attempt)
            try:
                self._put(holder, tag)
            except _taken_errors() as error:
                if manner != "refuse":
                    continue  # renewed, or taken by a third one, since our look
                other, _ = self.read()
                raise ConflictError(_held_by(url, other)) from error
            if is_live:
                get_logger().warning("lease taken over", store=url, held_by=_name(current))
            self.is_alone = current is None or current.expires == _RELEASED
            return holder

    def keep(self, stop: threading.Event, watch: Watch) -> None:
        """Renew until stopped, or until another holder is found."""
        from obstore.exceptions import BaseError

        while watch.taker is None and not stop.wait(_RENEW_S):
            # away for a moment: three more renewals fit in a lease
            with suppress(BaseError, OSError):
                watch.taker = self._renew()

    def _renew(self) -> Holder | None:
        """Prolong the lease; gives the holder that it has now, where that is another one."""
        try:
            self._expire_at(self._now() + LEASE_S)
        except _taken_errors():
            other, tag = self.read()
            if other is not None and not other.is_same(self._holder):
                return other
            self._tag = tag  # our own put had come through, only its answer was lost
        return None

    def release(self) -> None:
        """Let the lease expire now, keeping its epoch, and whether rivals were shut out."""
        from obstore.exceptions import BaseError

        # taken over meanwhile, or out of reach: then it expires by itself
        with suppress(BaseError, OSError):
            self._expire_at(_RELEASED if self.is_alone else self._now())

    def _expire_at(self, instant: float) -> None:
        if self._holder is not None:
            self._put(replace(self._holder, expires=instant), self._tag)

    def read(self) -> tuple[Holder | None, _Tag | None]:
        """The holder that is written, expired or not, and the object's tag."""
        try:
            answer = self._store.get(self._NAME)
        except FileNotFoundError:
            return None, None
        return Holder(**json.loads(bytes(answer.bytes()))), _tag_of(answer.meta)

    def _put(self, holder: Holder, tag: _Tag | None) -> None:
        mode: Any = "create" if tag is None else tag
        result = self._store.put(self._NAME, json.dumps(asdict(holder)).encode(), mode=mode)
        self._tag, self._holder = _tag_of(result), holder


type _Tag = dict[str, str]
"""What tells one state of an object from the next: S3 and Azure go by the tag, GCS by a version."""


def _tag_of(answer: Mapping[str, Any]) -> _Tag:
    known = ((key, answer.get(key)) for key in ("e_tag", "version"))
    return {key: str(value) for key, value in known if value}


def _taken_errors() -> tuple[type[BaseException], ...]:
    """What a conditional put raises when somebody else was first; it differs by store."""
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    return (AlreadyExistsError, PreconditionError)
