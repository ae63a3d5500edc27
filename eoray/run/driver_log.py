"""The driver's log beside the outputs: pods vanish, and their logs with them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from eoray import storage
from eoray.log import LOGGER_NAME, get_logger, json_formatter

LOG, OLDER_LOG = "driver.log", "driver.1.log"
"""The newest lines, and those before them; what was before these is dropped."""

PART_BYTES = 1 << 20
"""Of each of the two: a wave is a line, so this is a run of days."""

_EVERY_S = 30.0
"""An object store has no append: the newest part is put whole, this often at most."""


@contextmanager
def keep_log(
    folder: str,
    secrets: Sequence[str] = (),
    *,
    part_bytes: int = PART_BYTES,
    every_s: float = _EVERY_S,
) -> Iterator[None]:
    """Keep what eoray logs within the block in a folder of the store, behind what lies there.

    Args:
        folder: URL or path.
        secrets: Values that are masked; links and headers are in any case.
        part_bytes: Size at which a new part begins.
        every_s: Seconds between puts. The end of the block puts what is left.
    """
    handler = _StoredLog(folder, part_bytes)
    handler.setFormatter(json_formatter(secrets))
    logger, stop = logging.getLogger(LOGGER_NAME), threading.Event()
    thread = threading.Thread(
        target=handler.put_until, args=(stop, every_s), daemon=True, name="eoray-log"
    )
    logger.addHandler(handler)
    thread.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        stop.set()
        thread.join()
        handler.put()


class _StoredLog(logging.Handler):
    """Holds the newest part in memory and puts it where it changed."""

    def __init__(self, folder: str, part_bytes: int) -> None:
        super().__init__()
        self._current, self._older = (storage.join(folder, name) for name in (LOG, OLDER_LOG))
        self._part_bytes = part_bytes
        earlier = storage.exists(self._current)
        self._lines = storage.read_bytes(self._current) if earlier else b""
        self._full: bytes | None = None
        self._changed = False

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode() + b"\n"
        if self._lines and len(self._lines) + len(line) > self._part_bytes:
            self._full, self._lines = self._lines, b""
        self._lines += line
        self._changed = True

    def put_until(self, stop: threading.Event, every_s: float) -> None:
        """Put what changed, again and again."""
        while not stop.wait(every_s):
            self.put()

    def put(self) -> None:
        """Put what changed since the last time."""
        with self.lock or threading.Lock():
            full, lines, changed = self._full, self._lines, self._changed
            self._full, self._changed = None, False
        try:
            if full is not None:
                storage.write_bytes(self._older, full)
            if changed:
                storage.write_bytes(self._current, lines)
        except Exception as error:  # noqa: BLE001 - a log that cannot be kept must not end the run
            if not self._failed:
                self._failed = True
                get_logger().warning("log not kept", reason=str(error)[:200])

    _failed = False
