"""A run on a Ray cluster that stays, cancelled and submitted again: Ray's own Jobs API at work."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from eoray.config import load_config
from eoray.cube.check import check_cube
from eoray.k8s.client import Cluster
from eoray.k8s.end import cancel_attempt
from eoray.k8s.head import DASHBOARD_PORT
from eoray.k8s.submit import submit_run
from tests.k8s.fake_api import FakeApi, serve
from tests.k8s.fake_head import TOKEN, put_cluster
from tests.run.conftest import RunFileWriter
from tests.run.test_jobs import Jobs, kill, start_head, wait_for
from tests.run.test_runs import make_reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HEAD = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    # of a busy machine
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
}
DAYS = "2020-01-01/2022-12-31"
COMMAND = f"{sys.executable} -c 'from eoray.cli import main; main()'"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """A head that knows nothing of any run."""
    for name in [name for name in os.environ if name.startswith("EORAY_")]:
        if name != "EORAY_SHARED_DATA":
            monkeypatch.delenv(name)
    for name, value in HEAD.items():
        monkeypatch.setenv(name, value)
    with TemporaryDirectory(prefix="eoray-jobs-", dir="/tmp") as folder:  # sockets: a short path
        head, found = start_head(Path(folder), TOKEN)
        try:
            yield found
        finally:
            kill(head)


class Operator:
    """What KubeRay does for a job that selects a cluster: submit it, and tell its status."""

    def __init__(self, api: FakeApi, jobs: Jobs) -> None:
        self._api, self._jobs = api, jobs

    def submit(self, name: str) -> None:
        spec = self._api.objects["rayjobs", "maps", name]["spec"]
        job = f"{name}-x7k2p"
        order = {
            "submission_id": job,
            "entrypoint": spec["entrypoint"].replace("eoray", COMMAND, 1),
            "runtime_env": yaml.safe_load(spec["runtimeEnvYAML"]),
        }
        self._jobs.ask("POST", "/api/jobs/", order)
        self._api.set_status(name, jobDeploymentStatus="Running", jobId=job)

    def look(self, name: str) -> str:
        job = f"{name}-x7k2p"
        word = self._jobs.status(job)
        ended = word in ("STOPPED", "FAILED", "SUCCEEDED")
        deployment = "Complete" if ended else "Running"
        self._api.set_status(name, jobDeploymentStatus=deployment, jobStatus=word, jobId=job)
        return word


def test_cancelled_run_leaves_its_record_and_the_next_attempt_goes_on(
    jobs: Jobs, archive: Path, write_run: RunFileWriter, tmp_path: Path
) -> None:
    from kubernetes.client import ApiClient, Configuration

    expected = make_reference(archive, tmp_path, DAYS)["checksum"]
    stays = f"""\
cube: {{composite: {{method: none}}}}
cluster:
  ray_cluster: eoray
  claims: [{{claim: disk, path: {tmp_path}}}, {{claim: archive, path: {archive}}}]
  env: {{EORAY_LOG_COPY: "", PYTHONPATH: "{os.environ.get("PYTHONPATH", "")}"}}
"""
    path = write_run(store="stays", more=stays)
    config = load_config(path, [f"time={DAYS}", "run.executor=inline", "run.wave_shards=1"])
    with serve(FakeApi()) as api:
        put_cluster(api, {DASHBOARD_PORT: int(jobs.url.rpartition(":")[2])})
        cluster = Cluster(lambda: ApiClient(Configuration(host=api.url)), "maps")
        operator = Operator(api, jobs)

        def record(attempt: str) -> dict[str, Any]:
            found = list(tmp_path.glob(f"stays/_eoray/runs/*/attempts/{attempt}/record.json"))
            return dict(json.loads(found[0].read_text())) if found else {}

        first = submit_run(cluster, config, tmp_path).name
        operator.submit(first)
        wait_for(lambda: record(first).get("status") == "running", "the driver")
        commits = tmp_path / "stays" / "cube.icechunk" / "snapshots"
        wait_for(lambda: commits.is_dir() and len(list(commits.iterdir())) > 5, "some commits")

        def pass_time(seconds: float) -> None:
            time.sleep(min(seconds, 0.2))
            operator.look(first)

        state = cancel_attempt(cluster, api.objects["rayjobs", "maps", first], wait=pass_time)
        assert (state.word, state.exit_code) == ("cancelled", 5)
        assert record(first)["status"] == "stopped"

        second = submit_run(cluster, config, tmp_path)
        assert (second.what, second.name) == ("created", f"{second.key}-2")
        operator.submit(second.name)
        wait_for(
            lambda: operator.look(second.name) not in ("PENDING", "RUNNING"), "the second attempt"
        )
    assert record(second.name)["status"] == "succeeded"
    (whole,) = tmp_path.glob("stays/_eoray/runs/*/record.json")
    assert json.loads(whole.read_text())["stages"]["cube"]["skipped"] > 0
    assert check_cube(str(tmp_path / "stays")).checksum == expected
