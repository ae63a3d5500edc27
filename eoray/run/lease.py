"""One writer per store: a lock on a local folder, a renewed object elsewhere.

The holder's epoch goes into every commit. A holder that died frees a local lock at once (the
kernel drops it) and an object lease when it expires.
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
from typing import IO, TYPE_CHECKING, Any

from eoray import storage
from eoray.errors import ConflictError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE_S = 120.0
"""An object lease that was not renewed for this long is free."""

_RENEW_S = 30.0

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
    """Unix seconds; 0 for a local lock, which ends with its process."""

    def describe(self) -> str:
        """Name the holder for an error message."""
        return f"run {self.run!r} (process {self.pid} on {self.host}, epoch {self.epoch})"


@contextmanager
def hold_store(url: str, run: str, *, now: Callable[[], float] = time.time) -> Iterator[Holder]:
    """Hold the only right to commit to a store.

    Args:
        url: The store folder.
        run: Key of the run.
        now: Clock, in Unix seconds.

    Yields:
        The holder; its epoch is one above every earlier one.

    Raises:
        ConflictError: Another run holds the store; it is named.
    """
    if storage.is_local(url):
        yield from _hold_folder(url, run)
    else:
        yield from _hold_object(url, run, now)


def _hold_folder(url: str, run: str) -> Iterator[Holder]:
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
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(_held_by(url, _read_holder(file))) from error
        previous = _read_holder(file)
        holder = Holder(run, socket.gethostname(), os.getpid(), _epoch_after(previous))
        file.seek(0)
        # one write over the old record: a kill between truncation and text would lose the epoch
        file.write(json.dumps(asdict(holder)).ljust(_RECORD_BYTES))
        file.flush()
        yield holder


def _read_holder(file: IO[str]) -> Holder | None:
    file.seek(0)
    text = file.read()
    return Holder(**json.loads(text)) if text.strip() else None


def _epoch_after(previous: Holder | None) -> int:
    return 1 if previous is None else previous.epoch + 1


def _held_by(url: str, holder: Holder | None) -> str:
    who = "another process" if holder is None else holder.describe()
    return f"store {url!r} is being written by {who}; wait for it to end, or stop it first"


def _hold_object(url: str, run: str, now: Callable[[], float]) -> Iterator[Holder]:
    lease = _ObjectLease(storage.object_store(storage.join(url, "_eoray")), now)
    holder = lease.take(url, run)
    stop = threading.Event()
    renewer = threading.Thread(target=lease.keep, args=(stop,), daemon=True, name="eoray-lease")
    renewer.start()
    try:
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
        self._tag: str | None = None
        self._holder: Holder | None = None

    def take(self, url: str, run: str) -> Holder:
        """Create the object, or replace one that has expired."""
        current, tag = self._read()
        if current is not None and current.expires > self._now():
            raise ConflictError(_held_by(url, current))
        holder = Holder(
            run, socket.gethostname(), os.getpid(), _epoch_after(current), self._now() + LEASE_S
        )
        try:
            self._put(holder, tag)
        except _taken_errors() as error:
            other, _ = self._read()
            raise ConflictError(_held_by(url, other)) from error
        return holder

    def keep(self, stop: threading.Event) -> None:
        """Renew until stopped; a lost lease shows in the next commit's epoch check."""
        from obstore.exceptions import BaseError

        while not stop.wait(_RENEW_S):
            try:
                self._expire_at(self._now() + LEASE_S)
            except _taken_errors():
                return
            except (BaseError, OSError):  # away for a moment: three more renewals fit in a lease
                continue

    def release(self) -> None:
        """Let the lease expire now, keeping its epoch."""
        from obstore.exceptions import BaseError

        # taken over meanwhile, or out of reach: then it expires by itself
        with suppress(BaseError, OSError):
            self._expire_at(1.0)

    def _expire_at(self, instant: float) -> None:
        if self._holder is not None:
            self._put(replace(self._holder, expires=instant), self._tag)

    def _read(self) -> tuple[Holder | None, str | None]:
        try:
            answer = self._store.get(self._NAME)
        except FileNotFoundError:
            return None, None
        return Holder(**json.loads(bytes(answer.bytes()))), answer.meta["e_tag"]

    def _put(self, holder: Holder, tag: str | None) -> None:
        mode: Any = "create" if tag is None else {"e_tag": tag}
        result = self._store.put(self._NAME, json.dumps(asdict(holder)).encode(), mode=mode)
        self._tag, self._holder = result["e_tag"], holder


def _taken_errors() -> tuple[type[BaseException], ...]:
    """What a conditional put raises when somebody else was first; it differs by store."""
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    return (AlreadyExistsError, PreconditionError)
