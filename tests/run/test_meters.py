"""What a running stage tells Prometheus."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from eoray.run.meters import METRICS, StageMeter

SCRIPT = """
import json, os, re, time, urllib.request
os.environ["RAY_metrics_report_interval_ms"] = "500"
from eoray.execute import local_ray
with local_ray(1):
    import ray
    from eoray.run.meters import StageMeter
    meter = StageMeter("slovenia-0a1b2c3d", "cube", 40)
    meter.done(7)
    meter.committed(tiles=16, failed_reads=3, seconds=1.5)
    meter.committed(tiles=16, failed_reads=0, seconds=2.5)
    port = ray.nodes()[0]["MetricsExportPort"]
    found, limit = {}, time.monotonic() + 60
    while len(found) < 7 and time.monotonic() < limit:
        time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("ray_eoray_"):
                    assert 'run="slovenia-0a1b2c3d"' in line and 'stage="cube"' in line, line
                    found[re.match(r"ray_(\\w+)", line)[1]] = float(line.split()[-1])
    age = time.time() - found.pop("eoray_last_commit_time_seconds")
print(json.dumps([found, age]))
"""


def test_nothing_is_counted_without_ray() -> None:
    meter = StageMeter("run", "cube", 10)
    meter.done(3)
    meter.committed(tiles=1, failed_reads=0, seconds=0.1)
    assert meter._gauges == {}


@pytest.mark.slow
def test_ray_hands_out_every_number_with_its_run_and_stage() -> None:
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found, age = json.loads(ended.stdout.splitlines()[-1])
    assert found == {
        "eoray_tasks": 40,
        "eoray_tasks_done": 7,
        "eoray_commits": 2,
        "eoray_commit_seconds": 2.5,
        "eoray_tiles_committed": 32,
        "eoray_failed_reads": 3,
    }
    assert set(found) | {"eoray_last_commit_time_seconds"} == set(METRICS)
    assert 0 <= age < 60
