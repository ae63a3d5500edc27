"""Phases: stages of a run that need the same worker groups, a RayJob each, one after another.

An autoscaled job of all stages needs none of this. Fixed groups do: GPUs would idle while scenes
are read, which is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eoray.config import STAGES
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.config import ClusterSection, RunConfig


@dataclass(frozen=True, slots=True)
class Phase:
    """Stages that run on the same worker groups."""

    stages: tuple[str, ...]
    config: RunConfig
    """The run with the groups of this phase alone."""


def check_idle_gpus(config: RunConfig, stages: Sequence[str] = ()) -> None:
    """Refuse GPUs of a fixed number that wait in a job while scenes are read.

    Args:
        config: The run.
        stages: Those of the job; () for all.

    Raises:
        ConfigError: There are some, in a group whose own stages do not say that cube uses them.
    """
    cluster = config.cluster
    is_fixed = cluster.ray_cluster is None and not cluster.autoscale
    if not is_fixed or "cube" not in (stages or config.stages()):
        return
    for group in cluster.workers:
        if group.gpus and "cube" not in group.stages:
            raise ConfigError(
                f"cluster.workers: group {group.name!r} would hold {group.gpus * group.max} GPUs "
                "while cube reads scenes, because cluster.autoscale is false; give each group its "
                "stages and submit with --phases, or let groups grow (cluster.autoscale: true). A "
                "group whose stages name cube is taken as it is"
            )


def to_phases(
    config: RunConfig, stages: Sequence[str] = (), *, phases: bool = False
) -> list[Phase]:
    """The jobs of a submission: its phases, or one of all that was asked for.

    Raises:
        ConfigError: As :func:`split_phases`.
    """
    return split_phases(config, stages) if phases else [Phase(tuple(stages), config)]


def split_phases(config: RunConfig, stages: Sequence[str] = ()) -> list[Phase]:
    """Divide a run by the stages that its worker groups serve (``cluster.workers[].stages``).

    Args:
        config: The run.
        stages: Some of its stages; () for all. Their order is always that of a run.

    Raises:
        ConfigError: No group serves the first stage, a stage is unknown, or the run has no
            cluster of its own.
    """
    cluster = config.cluster
    if cluster.ray_cluster is not None:
        raise ConfigError(
            f"phases and cluster.ray_cluster exclude each other, because RayCluster "
            f"{cluster.ray_cluster!r} has the groups that it has; leave one out"
        )
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ConfigError(f"stage {unknown[0]!r} is unknown; stages are {', '.join(STAGES)}")
    wanted = set(stages or (*config.stages(), "report"))
    found: list[tuple[list[str], tuple[str, ...]]] = []
    for stage in (stage for stage in STAGES if stage in wanted):
        groups = _groups(cluster, stage)
        if found and groups in ((), found[-1][1]):
            found[-1][0].append(stage)  # what no group names needs little more than the driver
        elif groups:
            found.append(([stage], groups))
        else:
            raise ConfigError(
                f"cluster.workers: no group serves stage {stage!r}, the first one; add it to the "
                "stages of a group, or leave them out of one, which then serves all"
            )
    return [Phase(tuple(names), _with_groups(config, groups)) for names, groups in found]


def _groups(cluster: ClusterSection, stage: str) -> tuple[str, ...]:
    """Names of the groups that serve a stage; one without stages serves all."""
    return tuple(g.name for g in cluster.workers if not g.stages or stage in g.stages)


def _with_groups(config: RunConfig, names: Sequence[str]) -> RunConfig:
    kept = tuple(group for group in config.cluster.workers if group.name in names)
    cluster = config.cluster.model_copy(update={"workers": kept})
    return config.model_copy(update={"cluster": cluster})
