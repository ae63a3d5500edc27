"""``eoray connect`` against an API server of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.fake_api import FakeApi
from tests.k8s.fake_head import TOKEN, put_cluster, serve_dashboard, write_kubeconfig

CLI = [sys.executable, "-c", "from eoray.cli import main; main()", "connect", "maps/eoray"]


@pytest.fixture
def environment(api: FakeApi, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a process that knows the cluster."""
    with serve_dashboard() as dashboard:
        put_cluster(api, {8265: dashboard.port})
        path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
        yield {**os.environ, "KUBECONFIG": str(path), "RAY_AUTH_TOKEN": "mine"}


def test_command_has_address_and_token_and_its_code_is_ours(environment: dict[str, str]) -> None:
    script = (
        "import os, sys, urllib.request as u\n"
        "place = os.environ['RAY_API_SERVER_ADDRESS'] + '/api/v0/cluster_metadata'\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['RAY_AUTH_TOKEN']}\n"
        "print(u.urlopen(u.Request(place, headers=headers)).status)\n"
        "print(os.environ['RAY_ADDRESS'].rpartition(':')[0], os.environ['RAY_AUTH_MODE'])\n"
        "sys.exit(7)"
    )
    done = subprocess.run(
        [*CLI, "--", sys.executable, "-c", script],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "200\nray://127.0.0.1 token\n", done.stderr
    assert done.returncode == 7


def test_addresses_are_told_without_the_token_until_an_interrupt(
    environment: dict[str, str],
) -> None:
    process = subprocess.Popen(
        CLI, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    # all of it line by line: `communicate` would not see what a read has taken beside a line
    said = "".join(process.stdout.readline() for _ in range(3))
    assert said.startswith("export RAY_ADDRESS=ray://127.0.0.1:")
    assert "reached until Ctrl-C" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "what runs there goes on" in err
    assert "kubectl get secret eoray -n maps" in said
    assert TOKEN not in said + out + err


def test_cluster_that_is_not_there_is_exit_4(environment: dict[str, str], api: FakeApi) -> None:
    del api.objects["rayclusters", "maps", "eoray"]
    done = subprocess.run(CLI, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "no RayCluster 'eoray'" in done.stderr
