"""Whether any node could ever bear the GPU pods of a run: Kubernetes lets them wait for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eoray.errors import ConfigError
from eoray.k8s.pods import GPU
from eoray.k8s.refusals import ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from eoray.config import ClusterSection
    from eoray.config.cluster import WorkerGroup
    from eoray.k8s.client import Cluster

_FIXED = frozenset({"", "kind", "k3s"})
"""Whose nodes these are, as their ``providerID`` says; any other may add nodes when pods wait."""


def check_gpus(cluster: Cluster, section: ClusterSection, tell: Callable[[str], None]) -> None:
    """Refuse groups with more GPUs a pod than any node has, where nodes do not come by themselves.

    Who may not see nodes is not told; `eoray status` then explains why pods wait.

    Args:
        cluster: Where the run is to go.
        section: Its groups of workers.
        tell: Called with what does not hold yet, but may when a cloud adds nodes.

    Raises:
        ConfigError: With one line for each group that no node can bear.
    """
    groups = [group for group in section.workers if group.gpus]
    if not groups:
        return
    try:
        nodes: list[dict[str, Any]] = cluster.ask("list", "nodes", "/api/v1/nodes")["items"]
    except ForbiddenError:
        return
    problems = [problem for group in groups if (problem := _problem(group, nodes))]
    if not problems:
        return
    if all(_owner(node) in _FIXED for node in nodes):
        raise ConfigError("\n".join(problems))
    for problem in problems:
        tell(f"{problem}; pods wait until the cloud adds such a node")


def _gpus_of(node: Mapping[str, Any]) -> int:
    """GPUs of a node, those that are taken or not ready included."""
    return int(node.get("status", {}).get("capacity", {}).get(GPU, 0))


def _problem(group: WorkerGroup, nodes: Sequence[Mapping[str, Any]]) -> str | None:
    """What keeps a group's pods from every node; None where one could bear them."""
    wanted = group.node_selector.items()
    fitting = [n for n in nodes if wanted <= (n["metadata"].get("labels") or {}).items()]
    most = max(map(_gpus_of, fitting), default=0)
    if group.gpus <= most:
        return None
    labels = ", ".join(f"{key}={value}" for key, value in wanted)
    among = f"{len(fitting)} nodes" + (f" with {labels}" if labels else "")
    has = f"the largest of {among} has {most}" if most else f"none of {among} has one"
    return (
        f"cluster.workers, group {group.name}: pods ask for {group.gpus} GPUs each, but {has} "
        f"({GPU}); lower gpus, or add such a node with NVIDIA's device plugin (`eoray doctor` "
        "counts what nodes have)"
    )


def _owner(node: Mapping[str, Any]) -> str:
    provider: str = node.get("spec", {}).get("providerID", "")
    return provider.partition("://")[0]
