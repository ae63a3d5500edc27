"""Memory of a process and its children, sampled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
        peak.bytes = max(peak.bytes, _tree_bytes())
        if stop.wait(_EVERY_S):
            return


def _tree_bytes() -> int:
    import psutil

    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += _bytes_of(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it ended between listing and asking
    return total


def _bytes_of(process: object) -> int:
    info = process.memory_full_info()  # type: ignore[attr-defined]
    return int(getattr(info, "pss", 0) or info.rss)
