"""What a run may use at most, before anything is created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eoray.config import ClusterSection

EXCLUDED = (
    "not counted: waiting in a queue and starting again after preemption, storage, egress, "
    "requests, and an operator that is down, since it alone ends the pods"
)


@dataclass(frozen=True, slots=True)
class Bound:
    """Upper bound of a run that is admitted once."""

    hours: float
    """From its start to the last node given back."""
    pods: int
    cpus: float
    memory_gi: float
    gpus: int
    cost: float | None
    """In the currency of the run file's prices; None where a price is missing."""
    shared: str = ""
    """The cluster that stays and is used; "" for one of the run's own."""

    def lines(self) -> list[str]:
        """The bound for a reader."""
        if self.shared:
            return [f"at most {self.hours:.1f} h on RayCluster {self.shared!r}, which stays"]
        size = f"{self.pods} pods, {self.cpus:g} CPUs, {self.memory_gi:g} GiB"
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        cost = "no price given" if self.cost is None else f"at most {self.cost:.2f}"
        return [
            f"at most {self.hours:.1f} h x {size}{gpus} if admitted once; {cost}",
            EXCLUDED,
        ]


def bound_of(cluster: ClusterSection) -> Bound:
    """Bound what a run may use by its deadlines and the largest number of its pods."""
    work = cluster.start_minutes + cluster.deadline_minutes
    if cluster.ray_cluster is not None:
        return Bound(work / 60, 0, 0.0, 0.0, 0, None, cluster.ray_cluster)
    minutes = work + cluster.keep_seconds / 60 + cluster.node_linger_minutes
    hours = minutes / 60
    groups, head = cluster.workers, cluster.head
    prices = [head.price_per_hour, *(group.price_per_hour for group in groups)]
    counts = [1, *(group.max for group in groups)]
    known = [p * n for p, n in zip(prices, counts, strict=True) if p is not None]
    return Bound(
        hours=hours,
        pods=sum(counts),
        cpus=head.cpu + sum(group.cpu * group.max for group in groups),
        memory_gi=head.memory_gi + sum(group.memory_gi * group.max for group in groups),
        gpus=sum(group.gpus * group.max for group in groups),
        cost=hours * sum(known) if len(known) == len(counts) else None,
    )
