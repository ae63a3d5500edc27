"""Leave a process whose libraries still work in threads of their own.

Ctrl-C, or an error, can leave requests of the store in flight. Their threads (Rust, without a
word to Python) then come back to an interpreter that is being taken down, and the process dies by
SIGSEGV or SIGABRT in place of its exit code (a third of the times with 400 writes in flight).
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def leave_whole() -> Iterator[None]:
    """End this process with its own exit code once the block is left, whatever threads do.

    Everything that libraries register for the end still happens: what is registered first comes
    last. Enter it before they are imported.
    """
    code = 1

    def end() -> None:
        os._exit(code if _flushed() else code or 1)

    atexit.register(end)
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise


def _flushed() -> bool:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any longer
        return False
    return True
