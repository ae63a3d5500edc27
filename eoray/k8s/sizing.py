"""How much memory the head needs: reckoned before a submission, from its tasks and its pods.

The head holds Ray's own processes, the driver, and in shared memory Ray's object store. Its limit
is a hard one: a head out of memory is started again, and loses the wave at hand each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eoray.k8s.pods import SHARED_SHARE

if TYPE_CHECKING:
    from eoray.config import ClusterSection

RAY_BYTES = 1.5e9
"""Ray 2.60 on a head: control service, raylet, agents, dashboard and Ray Data's own actors; 1.2 GB
resident in all after 20 000 tasks, the dashboard's modules not counted."""

DRIVER_BYTES = 0.3e9
"""The driver with eoray, Icechunk and Ray Data before its first task: 0.26 GB."""

TASK_BYTES = 55_000
"""What the driver keeps of each task until the stage ends: plan and ledger 25 kB (a million tiles
in 21 000 tasks: 0.54 GB) and the pickled row 17 kB (``benchmarks/plan/bench_planet.py``), entries
of Ray Data and the raylet 13 kB (20 000 empty tasks). Another 17 kB lie in the object store."""

CACHE_TASK_BYTES = 0.9e6
"""How Icechunk's cache of manifests grows with a task of 72 tiles, since each commit writes the
manifests anew that it touches: 0.29 GB after 320 tasks (4.2 million references)."""

CACHE_BYTES = 1.0e9
"""Where that ends: 15 million references, Icechunk's default, of 68 bytes."""

POD_BYTES = 12e6
"""What the driver holds for each pod of workers: 0.42 GB at 8 and 0.96 GB at 32 nodes
(``benchmarks/nodes/run.py``), less what the tasks account for."""


@dataclass(frozen=True, slots=True)
class HeadSize:
    """Memory of a head, and what it is for."""

    tasks: int
    pods: int
    needed_gi: int
    given_gi: float
    """What the head gets."""
    is_explicit: bool
    """The run file says so."""

    @property
    def setting(self) -> str:
        """The size as a setting of the run file."""
        return f"cluster.head.memory_gi={self.given_gi:g}"

    def line(self) -> str:
        """The size for a reader."""
        work = f"{self.tasks:,} tasks on at most {self.pods} pods"
        if not self.is_explicit:
            return f"head: {self.given_gi:g} GiB for {work}"
        if self.given_gi >= self.needed_gi:
            return f"head: {self.given_gi:g} GiB, as the run file says, for {work}"
        return (
            f"head: {self.given_gi:g} GiB, as the run file says, but {work} may need "
            f"{self.needed_gi} GiB; raise cluster.head.memory_gi, or leave it out"
        )


def size_head(cluster: ClusterSection, tasks: int) -> HeadSize:
    """Size the head of a run: never below the default where the run file says nothing.

    ``RAY + DRIVER + pods x POD + tasks x TASK + min(CACHE, tasks x CACHE_TASK)``, of which Ray's
    object store leaves 70 % of the pod, in whole GiB. Receipts that wait for a commit are not in
    it: 15 kB a task, for as many tasks as run at once.

    Args:
        cluster: The run's section, with a cluster of its own.
        tasks: Of its largest stage.
    """
    pods = sum(group.max for group in cluster.workers)
    cache = min(CACHE_BYTES, tasks * CACHE_TASK_BYTES)
    used = RAY_BYTES + DRIVER_BYTES + pods * POD_BYTES + tasks * TASK_BYTES + cache
    needed = math.ceil(used / (1 - SHARED_SHARE) / 2**30)
    said = cluster.head.memory_gi
    is_explicit = "memory_gi" in cluster.head.model_fields_set
    return HeadSize(tasks, pods, needed, said if is_explicit else max(said, needed), is_explicit)
