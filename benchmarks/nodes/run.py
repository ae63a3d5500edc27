"""The driver against many nodes: planning, scheduling, commits and memory without any pixel work.

    python benchmarks/nodes/run.py                    # 8 and 32 nodes
    python benchmarks/nodes/run.py --nodes 100        # 20 GB; on two cores a task of 60 s or more

The planner, the driver and the committer are eoray's own, the nodes are Ray's test cluster: a
raylet and one worker each, all on this machine. A node's agents (metrics, dashboard, runtime
environments), which nothing here asks, are a shell script that waits (``agent.sh``). A task sleeps
for a fixed time and then writes what a block of the cube stage writes: six shards for each of 72
tiles, nearly empty, so that the machine under the nodes is not what is measured. Prints one JSON
object a line:

- ``plan_s``: from scenes to rows
- ``start_s``: until the last worker began its first task (a property of this machine)
- ``overhead_ms``: between two tasks of a worker, median and 95 of 100
- ``share_of_linear``: of the time between a worker's first and last task that it spent in tasks
- ``driver_mb``, ``driver_own_mb``, ``driver_cpu_s``: largest resident size of the driver, what of
  it is no page shared with Ray's object store, and its processor time
- ``commit_s_per_1000_tiles``: merge, ledger and commit, and processor time of the driver meanwhile
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from fixed_time import FixedTime

from eoray.catalog.scene import BandAsset, Scene
from eoray.cube import store
from eoray.cube.mask import MaskRecipe
from eoray.cube.plan import BLOCK_COLS, BLOCK_ROWS, plan_scenes
from eoray.cube.scenes import CubeRecipe, scene_product
from eoray.execute import Executor
from eoray.grid import TILE_M, TOP_M, Tile
from eoray.run.driver import Driver, StagePlan, Wave
from eoray.run.lease import hold_store
from eoray.sentinel2 import BANDS
from eoray.testing.scenes import make_scene

ZONE, TOP_ROW, LEFT_COL = 32, 400, 28
BLOCKS_ACROSS = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--tasks", type=int, default=10, help="of each node")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each task")
    parser.add_argument("--wave", type=int, default=2048, help="shards of a commit")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments)), flush=True)
        return
    for nodes in arguments.nodes:
        given = ["--tasks", arguments.tasks, "--seconds", arguments.seconds]
        given += ["--wave", arguments.wave, "--nodes", nodes, "--child"]
        subprocess.run([sys.executable, __file__, *map(str, given)], check=True)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one stage on that many nodes; a process of its own, so that memory is its own."""
    (nodes,) = arguments.nodes
    begun = time.monotonic()
    entries, rows = plan_scenes(scenes(arguments.tasks), tiles(nodes))
    planned = time.monotonic() - begun
    with tempfile.TemporaryDirectory(prefix="eoray-nodes-") as name, ray_nodes(nodes):
        spans = Path(name) / "spans"
        spans.mkdir()
        worker = FixedTime(arguments.seconds, str(spans), scene_product(RECIPE))
        plan = StagePlan("cube", worker.spec, entries, rows, worker)
        repository = store.open_repository(f"{name}/out", create=True)
        with hold_store(f"{name}/out", "nodes") as holder:
            wave = Wave(shards=arguments.wave)
            driver = TimedDriver(repository, holder, Executor("ray", nodes), wave)
            began, report = time.time(), driver.run(plan)
        found = read_spans(spans)
    assert report.tasks == len(rows) == sum(len(spans) for spans in found)
    n_tiles = sum(len(row.tiles) for row in rows)
    return {
        "nodes": nodes,
        "workers": len(found),
        "tasks": report.tasks,
        "tiles": n_tiles,
        "plan_s": round(planned, 2),
        "start_s": round(max(spans[0][0] for spans in found) - began, 1),
        "wall_s": round(report.seconds, 1),
        **shares(found),
        "commits": len(driver.commits),
        "commit_s_per_1000_tiles": round(sum(driver.commits) / n_tiles * 1000, 2),
        "commit_cpu_s_per_1000_tiles": round(driver.commit_cpu / n_tiles * 1000, 2),
        "longest_commit_s": round(max(driver.commits), 2),
        "driver_mb": round(driver.peak / 1e6),
        "driver_own_mb": round(driver.own_peak / 1e6),
        "driver_cpu_s": round(time.process_time(), 1),
    }


def shares(found: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """What the workers' spans say of the scheduler."""
    busy = sum(end - begin for spans in found for begin, end in spans)
    held = sum(spans[-1][1] - spans[0][0] for spans in found)
    gaps = [b[0] - a[1] for spans in found for a, b in pairwise(spans)]
    return {
        "share_of_linear": round(busy / held, 4),
        "overhead_ms": {
            "median": round(statistics.median(gaps) * 1000),
            "p95": round(float(np.percentile(gaps, 95)) * 1000),
        },
    }


AGENTS = "_build_python_executable_command_memory_profileable"
"""Ray's function for the program of a node's agents."""

AGENT = str(Path(__file__).with_name("agent.sh"))

PATIENCE = {
    "worker_register_timeout_seconds": 900,
    "worker_niceness": 0,
    "enable_metrics_collection": False,
}
"""A hundred workers that begin at once on a few cores are slow, not broken."""

RECIPE = CubeRecipe(tuple(BANDS), MaskRecipe(), {}, "fixed-time")


class TimedDriver(Driver):
    """The driver, its commits timed and its memory looked at."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.commits: list[float] = []
        self.commit_cpu = 0.0
        self.peak = 0
        self.own_peak = 0

    def _commit_wave(self, *arguments: Any) -> None:
        begun, cpu = time.monotonic(), time.process_time()
        super()._commit_wave(*arguments)
        self.commits.append(time.monotonic() - begun)
        self.commit_cpu += time.process_time() - cpu
        memory = psutil.Process().memory_full_info()
        self.peak = max(self.peak, memory.rss)
        self.own_peak = max(self.own_peak, memory.uss)


def tiles(nodes: int) -> list[Tile]:
    """A block of tiles for each node."""
    places = [divmod(n, BLOCKS_ACROSS) for n in range(nodes)]
    return [
        Tile(ZONE, TOP_ROW + row * BLOCK_ROWS + i, LEFT_COL + col * BLOCK_COLS + j)
        for row, col in places
        for i in range(BLOCK_ROWS)
        for j in range(BLOCK_COLS)
    ]


def scenes(n_dates: int) -> list[Scene]:
    """One scene a date over all of the place."""
    x, y = LEFT_COL * TILE_M, TOP_M - TOP_ROW * TILE_M
    height, width = (BLOCKS_ACROSS * n * TILE_M // 20 for n in (BLOCK_ROWS, BLOCK_COLS))
    affine = (20.0, 0.0, float(x), 0.0, -20.0, float(y))
    asset = BandAsset("SCL", "none", affine, (height, width), 0)
    days = [f"2023-01-{day + 1:02d}" for day in range(n_dates)]
    return [
        make_scene(
            f"S2A_{day}",
            ZONE,
            (asset,),
            datatake=f"S2A_{day}",
            sensing_time=f"{day}T10:00:00.000Z",
            solar_day=day,
        )
        for day in days
    ]


def read_spans(folder: Path) -> list[list[tuple[float, float]]]:
    """(begin, end) of every task, by worker, in order."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            begin, end = map(float, line.split())
            found[file.name].append((begin, end))
    return [sorted(spans) for spans in found.values()]


@contextmanager
def ray_nodes(nodes: int) -> Iterator[None]:
    """A head that runs nothing and that many nodes with one CPU each."""
    import ray
    from ray._private import services
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 512 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": PATIENCE})
    # nodes as light as they can be: their agents take 130 MB and two seconds of CPU each
    vars(services)[AGENTS] = lambda *_, **__: [AGENT]
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, wait=False)
        cluster.wait_for_nodes(timeout=600)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
