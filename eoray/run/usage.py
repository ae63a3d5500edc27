"""Memory of a process and its children, sampled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_EVERY_S = 0.5


@dataclass(slots=True)
class Peak:
    """Largest sum seen so far."""

    bytes: int = 0


@contextmanager
def measure_peak() -> Iterator[Peak]:
    """Sample the unique and proportional memory of this process tree while the block runs.

    Shared pages count once among their users (PSS) where the kernel tells, else resident size.
    """
    peak, stop = Peak(), threading.Event()
    thread = threading.Thread(target=_watch, args=(peak, stop), daemon=True, name="eoray-memory")
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _watch(peak: Peak, stop: threading.Event) -> None:
    while True:
        # asking for PSS walks all page tables, and PSS is never more than the resident size
        if _tree_bytes(_resident) > peak.bytes:
            peak.bytes = max(peak.bytes, _tree_bytes(_proportional))
        if stop.wait(_EVERY_S):
            return


def _tree_bytes(measure: Callable[[psutil.Process], int]) -> int:
    import psutil

    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += measure(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it ended between listing and asking
    return total


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _proportional(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", 0) or info.rss)
