"""Stop when asked: SIGTERM ends a run as Ctrl-C does, within a minute.

Ray's job stop, ``kill``, a service manager and the preStop hook of a head's pod all ask by SIGTERM.
What is finished is committed on the way out, the lease is given back, the process leaves with 5.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT_S = 50.0
"""From the request to the end by force: those who ask send SIGKILL after 60 s."""

_LAST_S = 5.0
"""For the last word of what is ended by force."""

EXIT_CODE = 5
"""Of a process that was asked to stop, as the command line has it."""


class StopRequest(KeyboardInterrupt):
    """Somebody asked this process to stop; handled wherever Ctrl-C is."""

    def __str__(self) -> str:
        """For records and logs."""
        return "asked to stop (SIGTERM)"


@contextmanager
def stoppable(
    *, limit_s: float = LIMIT_S, at_limit: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Raise StopRequest in the main thread at SIGTERM; further requests change nothing.

    Args:
        limit_s: What has not ended this many seconds after the request is ended by force; the
            wave at hand is then lost, the last commit stands.
        at_limit: Called before that, in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    timers: list[threading.Timer] = []

    def force() -> None:
        # the store may be what hangs
        last = threading.Thread(target=at_limit, daemon=True)
        last.start()
        last.join(_LAST_S)
        os._exit(EXIT_CODE)

    def stop(*_: object) -> None:
        # a second request must not cut off the commit that the first one leads to
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        timer = threading.Timer(limit_s, force)
        timer.daemon = True
        timer.start()
        timers.append(timer)
        raise StopRequest

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        signal.signal(signal.SIGTERM, before)
