"""What a run may use at most."""

from __future__ import annotations

from typing import Any

import pytest

from eoray.k8s.bound import bound_of

GROUPS = (
    "cluster.workers=[{name: a, cpu: 4, memory_gi: 16, max: 10, price_per_hour: 0.5}, "
    "{name: gpu, gpus: 2, cpu: 8, memory_gi: 64, max: 3, price_per_hour: 4}]"
)


def test_bound_counts_all_pods_from_the_start_to_the_last_node(read_config: Any) -> None:
    config = read_config(GROUPS, "cluster.deadline_minutes=79", "cluster.head={price_per_hour: 1}")
    bound = bound_of(config.cluster)
    # 30 min to start and 79 to work, 1 min that pods are kept, 10 until a node is given back
    assert bound.hours == pytest.approx(2.0)
    assert (bound.pods, bound.gpus) == (14, 6)
    assert bound.cpus == pytest.approx(2 + 40 + 24)
    assert bound.memory_gi == pytest.approx(8 + 160 + 192)
    assert bound.cost == pytest.approx(2.0 * (1 + 5 + 12))


def test_time_of_nodes_behind_their_last_pod_is_a_value(read_config: Any) -> None:
    hours = [
        bound_of(read_config(f"cluster.node_linger_minutes={minutes}").cluster).hours
        for minutes in (0, 10, 70)
    ]
    assert hours[2] - hours[0] == pytest.approx(70 / 60)
    assert hours[1] == bound_of(read_config().cluster).hours


def test_missing_price_leaves_the_cost_open(read_config: Any) -> None:
    bound = bound_of(read_config(GROUPS).cluster)
    assert bound.cost is None
    assert "no price given" in bound.lines()[0]
