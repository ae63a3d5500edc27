"""A driver under Ray's Jobs API, as KubeRay starts it: stopped jobs, pods that are taken away."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from eoray.k8s.hooks import DRIVER_STOP_S, stop_driver
from tests.run.conftest import RunFileWriter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Jobs:
    """The Jobs API of a head, with its token."""

    url: str
    token: str

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def takes_jobs(self) -> bool:
        order = {"entrypoint": "true", "submission_id": secrets.token_hex(4)}
        try:
            return bool(self.ask("POST", "/api/jobs/", order))
        except OSError:  # not there yet, or its agent is not
            return False

    def status(self, job: str) -> str:
        return str(self.ask("GET", f"/api/jobs/{job}")["status"])


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """A head on loopback with the environment of a head's pod."""
    token = secrets.token_hex(32)
    environment = {
        "EORAY_ATTEMPT": "run-1",
        "EORAY_POD_FOLDER": str(tmp_path / "pod"),
        "RAY_JOB_STOP_WAIT_TIME_S": str(DRIVER_STOP_S),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        # of a busy machine
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_worker_register_timeout_seconds": "300",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with TemporaryDirectory(prefix="eoray-jobs-", dir="/tmp") as folder:  # sockets: a short path
        head, found = start_head(Path(folder), token)
        try:
            yield found
        finally:
            kill(head)


def start_head(folder: Path, token: str) -> tuple[subprocess.Popen[bytes], Jobs]:
    """Start a head; its raylet gives helpers 15 s, so that on a busy machine some starts fail."""
    for attempt in range(4):
        gcs, dashboard, client = free_ports(3)
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
            f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
            "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--num-cpus=1",
            f"--object-store-memory={100 << 20}", f"--temp-dir={folder / str(attempt)}",
        ]  # fmt: skip
        head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = Jobs(f"http://127.0.0.1:{dashboard}", token)
        with suppress(TimeoutError):
            wait_for(lambda: head.poll() is not None or found.takes_jobs(), "a head", 120)  # noqa: B023 - called here
            if head.poll() is None:
                return head, found
        kill(head)
    raise TimeoutError("no head in four starts")


def kill(head: subprocess.Popen[bytes]) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(head.pid).children(recursive=True):
            child.kill()
    head.kill()
    head.wait()


def test_stopped_job_stops_its_driver_and_a_pod_that_ends_does_not_fail_it(
    jobs: Jobs, write_run: RunFileWriter, tmp_path: Path
) -> None:
    code = "from eoray.cli import main; main()"
    run = f"run {write_run()} --executor inline run.wave_shards=1"
    entrypoint = f"{sys.executable} -c '{code}' {run}"
    pod = tmp_path / "pod"

    def status_of_record() -> str:
        (path,) = (tmp_path / "out").glob("_eoray/runs/*/attempts/run-1/record.json")
        return str(json.loads(path.read_text())["status"])

    def begin(name: str) -> None:
        jobs.ask("POST", "/api/jobs/", {"entrypoint": entrypoint, "submission_id": name})
        wait_for(lambda: len(list(tmp_path.glob("out/**/record.json"))) > 0, "a record")
        wait_for((pod / "driver.pid").exists, "the driver")
        wait_for(lambda: status_of_record() == "running", "the driver to begin")

    begin("drained")
    hook = stop_driver()["preStop"]["exec"]["command"]
    assert subprocess.run(hook, env=dict(os.environ), check=False, timeout=90).returncode == 0
    assert status_of_record() == "stopped"
    # an operator that asks now must not take the run for failed: its next head goes on
    assert jobs.status("drained") == "RUNNING"
    jobs.ask("POST", "/api/jobs/drained/stop")
    wait_for(lambda: jobs.status("drained") == "STOPPED", "the old head's driver to end")
    (pod / "ending").unlink()  # the next head has a pod of its own
    begin("stopped")
    jobs.ask("POST", "/api/jobs/stopped/stop")
    wait_for(lambda: jobs.status("stopped") == "STOPPED", "the job to end")
    assert status_of_record() == "stopped"
    assert not (pod / "driver.pid").exists()
