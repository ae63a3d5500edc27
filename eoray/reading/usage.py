"""What reading cost: requests, bytes, further attempts, waits; counted by the process."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class ReadUsage:
    """Counts of the reads of files of scenes. What GDAL asks for on its own is not among them."""

    requests: int = 0
    """Ranges asked for, repeated ones included: requests of a server, or reads of a local file."""
    bytes: int = 0
    """Bytes that came."""
    retries: int = 0
    """Requests that were sent again after one that failed."""
    throttled: int = 0
    """Answers of 429 or 503, and requests that timed out."""
    waited_s: float = 0.0
    """Seconds that threads spent waiting: for a turn at a server, or before a further attempt."""
    gdal_files: int = 0
    """Files opened by GDAL, whose requests nobody counts."""
    failovers: int = 0
    """Reads that another provider of the same product answered."""

    def __add__(self, other: ReadUsage) -> ReadUsage:
        """Sum each count."""
        names = [field.name for field in fields(self)]
        return ReadUsage(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def to_dict(self) -> dict[str, int | float]:
        """The counts as JSON values."""
        return {**asdict(self), "waited_s": round(self.waited_s, 2)}


class UsageCounter:
    """Adds up over all threads of a process."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._lock = threading.Lock()
        self._total = self._drained = ReadUsage()

    def add(self, usage: ReadUsage) -> None:
        """Count something more."""
        with self._lock:
            self._total += usage

    def snapshot(self) -> ReadUsage:
        """Everything since the process began."""
        with self._lock:
            return self._total

    def drain(self) -> ReadUsage:
        """What came since it was drained last.

        Tasks drain it when they end, so that the sum over tasks is that of the process, however
        many of them ran side by side.
        """
        with self._lock:
            before, self._drained = self._drained, self._total
            names = [field.name for field in fields(before)]
            return ReadUsage(**{n: getattr(self._total, n) - getattr(before, n) for n in names})


READS = UsageCounter()
"""The counter of this process."""
