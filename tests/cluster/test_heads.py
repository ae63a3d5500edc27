"""Heads that run out of memory, vanish or fall silent, one attempt after another on one store.

Ray's own autoscaler starts the workers: until a stage needs them there is the head alone, which
makes these losses cheap. Each test goes on where the one before it left the store, and also passes
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eoray import storage
from eoray.cube.check import check_cube
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.machine import wait_until
from tests.cluster.operator.install import gives_up_silent_heads, impatient_operator
from tests.cluster.runs import (
    CUBE,
    START_S,
    attempt_path,
    commits,
    delete_pod,
    labels_of,
    left_of,
    living,
    n_starts,
    pods_of,
    rayjob,
    state,
    submit,
    wait_for,
)
from tests.cluster.site import BUCKET, Site

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("object_store"),
]

WAVES = {"wave_shards": 2, "wave_seconds": 1, "workers": 1, "retries": 20, "read_seconds": 1800}
"""Many commits, so that a head can be lost between two; what is not given out is awaited."""

SILENCE_S = 20


@pytest.fixture
def run_file(site: Site) -> Path:
    groups = [{"name": "readers", "cpu": 0.5, "memory_gi": 2.5, "max": 1}]
    return site.run_file("lost", **CUBE, run=WAVES, cluster={"autoscale": True, "workers": groups})


def test_a_head_out_of_memory_three_times_ends_its_attempt(site: Site, run_file: Path) -> None:
    name = submit(site, run_file)  # which asks the catalogue too
    with unanswered(site):
        for start in (1, 2, 3):
            wait_until(partial(has_started, name, start), START_S, f"start {start} of the driver")
            exhaust_memory(site, name)
        done = site.eoray("wait", name, exits=1)
    assert "AppFailed" in done.stdout
    record = storage.read_json(attempt_path("lost", name))
    assert (record["status"], len(record["starts"])) == ("failed", 4)
    assert "was started 3 times without a new commit" in record["reason"]
    assert "cluster.head.memory_gi" in record["reason"]
    site.eoray("delete", name)
    past = site.ask("status", name, "--store", f"{BUCKET}/lost")
    assert (past["state"], past["exit_code"]) == ("failed", 1)
    assert sum("OOMKilled" in why for why in past["why"]) == 3  # the events are the record's now


def test_a_head_that_vanishes_is_replaced_and_one_that_falls_silent_ends_its_attempt(
    site: Site, run_file: Path, kubernetes_cluster: Cluster
) -> None:
    store = f"{BUCKET}/lost"
    before = commits(store)
    with impatient_operator(kubernetes_cluster, SILENCE_S), last_unanswered(site):
        name = submit(site, run_file)
        earlier = n_starts("lost", name)  # of an attempt of this name that was deleted
        wait_for(site, name, "running")
        # a worker came because tasks waited for one
        wait_until(lambda: commits(store) > before + 2, START_S, "the first waves")
        (worker,) = site.pods(**labels_of(name), **{"ray.io/node-type": "worker"})
        began = rayjob(site, name)["status"]["rayJobInfo"]["startTime"]
        assert worker["metadata"]["creationTimestamp"] > began  # both ISO 8601, of UTC
        delete_pod(site, name, "head")
        wait_until(partial(has_started, name, earlier + 2), START_S, "the driver's second start")
        assert state(site, name)["state"] == "running"  # the same RayJob goes on
        if not gives_up_silent_heads():
            site.eoray("cancel", name)
            pytest.skip("this KubeRay asks a silent head until the deadline; its loss passed")
        silence(site, name)
        done = site.eoray("wait", name, exits=1)
    assert "failed: JobStatusCheckTimeoutExceeded" in done.stdout
    wait_until(lambda: not living(site, name), 120, "the end of all pods")
    # cut off from the operator only, the driver was asked to stop when its pod was taken
    assert storage.read_json(attempt_path("lost", name))["status"] == "stopped"
    assert (state(site, name)["state"], state(site, name)["exit_code"]) == ("failed", 1)


def test_the_next_attempt_ends_in_the_same_cube_and_leaves_its_record_alone(
    site: Site, run_file: Path, undisturbed: dict[str, Any]
) -> None:
    store = f"{BUCKET}/lost"
    before = commits(store)
    done = site.ask("submit", run_file)
    assert (done["what"], done["state"]) == ("created", "succeeded")
    assert commits(store) > before
    made = check_cube(store).products
    assert made == {product: undisturbed[product] for product in made}
    assert "s2" in made
    key, _, number = done["name"].rpartition("-")
    attempts = [f"{key}-{n}" for n in range(1, int(number) + 1)]
    for attempt in attempts:
        site.eoray("delete", attempt, exits=None)  # earlier ones may be gone
    assert left_of(site, done["name"]) == []
    past = site.ask("status", done["name"], "--store", store)
    assert (past["state"], past["exit_code"]) == ("succeeded", 0)


def has_started(name: str, times: int) -> bool:
    """Whether an attempt's driver has started so often."""
    return n_starts("lost", name) == times


@contextmanager
def unanswered(site: Site) -> Iterator[None]:
    """Let the catalogue be silent, so that no driver comes to a commit while the block lasts."""
    site.archive.set_broken({"/catalog.json": "slow"})
    try:
        yield
    finally:
        site.archive.set_broken({})


@contextmanager
def last_unanswered(site: Site) -> Iterator[None]:
    """Keep back the scene classification of the last date: until then, all but one tile is done.

    More files would hold up the others too: what a server leaves unanswered slows all that is asked
    of it.
    """
    folder = site.folder / "archive"
    last = max(folder.rglob("SCL.tif"), key=lambda path: path.parent.name.split("_")[2])
    site.archive.set_broken({f"/{last.relative_to(folder)}": "slow"})
    try:
        yield
    finally:
        site.archive.set_broken({})


def exhaust_memory(site: Site, name: str) -> None:
    """Let the kernel kill an attempt's head for lack of memory.

    Of a container's processes it chooses one; where the kubelet does not tell it to kill them all
    (cgroup v2 does), the first one has to be the preferred one. Ray prefers its workers and so the
    driver, whose end is the end of the job if anybody lives to tell of it, and has a watch over
    memory that kills them before the kernel does. So all others stand still meanwhile.
    """
    halt = "kill -STOP -1"
    prefer = "echo 1000 > /proc/1/oom_score_adj"
    # cut off by the death of its container
    with suppress(ClusterError):
        in_head(site, name, "sh", "-c", f"{halt} && {prefer} && head -c 16G /dev/zero | tail")


def silence(site: Site, name: str) -> None:
    """Let an attempt's dashboard, which the operator asks, answer nothing more."""
    in_head(site, name, "pkill", "-STOP", "--full", "dashboard/dashboard.py")


def in_head(site: Site, name: str, *words: str) -> None:
    (head,) = pods_of(site, name, "head")
    where = ("--namespace", site.namespace, "--container=ray-head")
    site.cluster.kubectl("exec", head, *where, "--", *words)
