"""Memory of the head, by cases computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from eoray.k8s.sizing import size_head

TEN = "cluster.workers=[{name: a, max: 8}, {name: gpu, gpus: 1, max: 2}]"
HUNDRED = "cluster.workers=[{name: a, max: 100}]"
EXPLICIT = "cluster.head={memory_gi: 4}"


@pytest.mark.parametrize(
    ("workers", "tasks", "needed"),
    [
        # 1.8 + 0.12 + 0.0165 + 0.27 = 2.2065 GB; / 0.7 = 3.1521 GB = 2.94 GiB
        (TEN, 300, 3),
        # 1.8 + 0.12 + 0.66 + 1.0 = 3.58 GB; / 0.7 = 5.1143 GB = 4.76 GiB
        (TEN, 12_000, 5),
        # 1.8 + 0.12 + 3.08 + 1.0 = 6.0 GB; / 0.7 = 8.5714 GB = 7.98 GiB
        (TEN, 56_000, 8),
        # 1.8 + 1.2 + 2.78718 + 1.0 = 6.78718 GB; / 0.7 = 9.696 GB = 9.03 GiB
        (HUNDRED, 50_676, 10),
        # 1.8 + 1.2 + 55.0 + 1.0 = 59.0 GB; / 0.7 = 84.2857 GB = 78.50 GiB
        (HUNDRED, 1_000_000, 79),
    ],
)
def test_need_follows_tasks_and_pods(
    read_config: Any, workers: str, tasks: int, needed: int
) -> None:
    size = size_head(read_config(workers).cluster, tasks)
    assert size.needed_gi == needed
    assert size.given_gi == max(8, needed)


def test_head_is_told_with_what_it_is_for(read_config: Any) -> None:
    line = size_head(read_config(TEN).cluster, 12_000).line()
    assert line == "head: 8 GiB for 12,000 tasks on at most 10 pods"


def test_what_the_run_file_says_holds(read_config: Any) -> None:
    size = size_head(read_config(TEN, EXPLICIT).cluster, 300)
    assert size.setting == "cluster.head.memory_gi=4"
    assert size.line() == ("head: 4 GiB, as the run file says, for 300 tasks on at most 10 pods")


def test_what_the_run_file_says_is_warned_of_where_it_is_too_small(read_config: Any) -> None:
    size = size_head(read_config(TEN, EXPLICIT).cluster, 12_000)
    assert size.given_gi == 4
    assert size.line() == (
        "head: 4 GiB, as the run file says, but 12,000 tasks on at most 10 pods may need 5 GiB; "
        "raise cluster.head.memory_gi, or leave it out"
    )
