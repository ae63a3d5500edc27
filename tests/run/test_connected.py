"""A run through ``eoray.connect``: a real Ray head behind an API server of our own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from eoray.cube import store
from eoray.cube.check import check_cube
from eoray.run import load_run
from tests.k8s.fake_api import FakeApi, serve
from tests.k8s.fake_head import TOKEN, put_cluster, serve_dashboard, write_kubeconfig
from tests.run.processes import wait_for

CLIENT = """
import json, sys, eoray
with eoray.connect("maps/eoray") as address:
    report = eoray.load_run(sys.argv[1]).execute(["cube"], address=address)
    print(json.dumps(report.to_dict()))
"""

HEAD = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    # on loopback alone, and with patience: this machine has few cores
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_niceness": "0",
}


@contextmanager
def ray_head(folder: str) -> Iterator[int]:
    """A head as a pod runs it, with token authentication and its client server on loopback.

    As :func:`eoray.execute.local_ray`, it is started again where a busy machine let it fail.
    """
    for attempt in range(4):
        port, place = free_port(), f"{folder}/{attempt}"
        Path(place).mkdir()
        process = _start_head(place, port)
        try:
            wait_for(lambda at=port: _listens(at), process)  # type: ignore[misc]
            if process.poll() is None:
                yield port
                return
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            _stop_processes(place)
    pytest.fail(Path(place, "head.log").read_text()[-3000:])


def _start_head(folder: str, port: int) -> subprocess.Popen[bytes]:
    options = [
        "--head", "--block", "--node-ip-address=127.0.0.1", "--port=0",
        f"--ray-client-server-port={port}", "--include-dashboard=false", "--num-cpus=2",
        "--object-store-memory=200000000", f"--temp-dir={folder}",
    ]  # fmt: skip
    with Path(folder, "head.log").open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
            stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **HEAD},
        )  # fmt: skip


def _stop_processes(folder: str) -> None:
    """End what a start that failed left running: each process of it names its folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(f"{folder}/" in argument for argument in process.cmdline()):
                process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def commits(folder: Path) -> int:
    if not (folder / "cube.icechunk" / "repo").exists():
        return 0
    repository = store.open_repository(str(folder / "cube.icechunk"))
    return len(list(repository.ancestry(branch=store.BRANCH)))


def start_client(path: Path, kubeconfig: Path) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**environment, "KUBECONFIG": str(kubeconfig)},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_run_outlives_its_connection_and_its_client_and_is_followed_again(
    write_run: Any, tmp_path: Path
) -> None:
    more = "cube: {composite: {method: none}}"
    path = write_run(more=more)
    path.write_text(path.read_text().replace("wave_shards: 90", "wave_shards: 6"))
    with (
        TemporaryDirectory(prefix="eoray-", dir=short_folder()) as folder,
        ray_head(folder) as port,
        serve_dashboard() as dashboard,
        serve(FakeApi()) as api,
    ):
        put_cluster(api, {10001: port, 8265: dashboard.port})
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", api.url)
        first = start_client(path, kubeconfig)
        wait_for(partial(has_commits, tmp_path / "out", 2), first)
        before = api.forwards.dialled
        api.forwards.cut()
        wait_for(lambda: api.forwards.dialled > before, first)
        assert first.poll() is None, first.communicate()[1][-3000:]
        first.kill()
        first.communicate()
        second = start_client(path, kubeconfig)
        out, err = second.communicate(timeout=240)
    assert second.returncode == 0, err[-3000:]
    stage = json.loads(out.splitlines()[-1])["stages"]["cube"]
    # one driver did all of it: a new one would have found the first waves done
    assert stage.get("skipped", 0) == 0
    assert stage["tasks"] >= 64
    assert check_cube(str(tmp_path / "out")).checksum == inline_checksum(write_run, tmp_path, more)


def has_commits(folder: Path, wanted: int) -> bool:
    return commits(folder) >= wanted


def inline_checksum(write_run: Any, tmp_path: Path, more: str) -> str:
    load_run(write_run(store="inline", more=more)).execute(["cube"], executor="inline")
    return str(check_cube(str(tmp_path / "inline")).checksum)


def short_folder() -> str:
    """Ray's sockets have paths of at most 107 characters."""
    return os.environ.get("TMPDIR") or "/tmp"
