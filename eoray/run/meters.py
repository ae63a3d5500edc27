"""Numbers of a running stage for a cluster's Prometheus, handed out by Ray beside its own.

Ray puts ``ray_`` before the names. Without Ray nobody asks, and nothing is counted.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

METRICS = {
    "eoray_tasks": "Tasks of the stage, those done earlier included",
    "eoray_tasks_done": "Tasks that are finished or were found done",
    "eoray_commits": "Commits of this start of the driver",
    "eoray_commit_seconds": "Duration of the newest commit",
    "eoray_last_commit_time_seconds": "Unix time of the newest commit, or when the stage began",
    "eoray_tiles_committed": "Tiles in the commits of this start",
    "eoray_failed_reads": "Files that could not be read, of committed tiles",
}
"""Name and meaning of each; the labels are ``run`` and ``stage``."""


class StageMeter:
    """What a stage has done, as gauges of this process."""

    def __init__(self, run: str, stage: str, n_tasks: int) -> None:
        self._tags = {"run": run, "stage": stage}
        self._gauges = _gauges() if _has_ray() else {}
        self._commits = self._tiles = self._failed = 0
        self._set("eoray_tasks", n_tasks)
        self._set("eoray_last_commit_time_seconds", time.time())

    def done(self, n_tasks: int) -> None:
        """So many tasks of the stage are finished or were found done."""
        self._set("eoray_tasks_done", n_tasks)

    def committed(self, *, tiles: int, failed_reads: int, seconds: float) -> None:
        """A wave was committed."""
        self._commits += 1
        self._tiles += tiles
        self._failed += failed_reads
        self._set("eoray_commits", self._commits)
        self._set("eoray_tiles_committed", self._tiles)
        self._set("eoray_failed_reads", self._failed)
        self._set("eoray_commit_seconds", seconds)
        self._set("eoray_last_commit_time_seconds", time.time())

    def _set(self, name: str, value: float) -> None:
        if self._gauges:
            self._gauges[name].set(value, tags=self._tags)


def _has_ray() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@cache
def _gauges() -> dict[str, Any]:
    from ray.util.metrics import Gauge

    keys = ("run", "stage")
    return {name: Gauge(name, text, tag_keys=keys) for name, text in METRICS.items()}
