"""A submission and a whole run where nothing but what the run file names can be reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eoray.testing import CLASSES, ArchiveOptions, write_archive
from tests import air_gap

pytestmark = pytest.mark.slow

RUN_FILE = """\
version: 1
name: run
aoi: {folder}/aoi.geojson
time: 2021-01-01/2021-12-31
task: land-cover
source:
  catalog: CATALOG/catalog.json
  lineage: {{baseline_min: "02.00", mixed: true}}
store: s3://maps/out
cube: {{bands: [B02, B03, B04, B08], composite: {{period: P6M}}}}
fit: {{labels: {folder}/labels.geojson, classes: [{classes}], steps: 2, batch_size: 2}}
predict: {{time: 2021-01-01/2021-12-31}}
assess: {{n_samples: 20, min_per_stratum: 2}}
run: {{executor: ray, workers: 1}}
cluster: {{image: registry.example/eoray@sha256:0123, ray_version: 2.60.0, namespace: maps}}
"""

INSIDE = """\
import os, subprocess, sys
from pathlib import Path
from eoray.testing.http import archive_server
from eoray.testing.s3 import s3_server
from tests.k8s.fake_api import FakeApi, serve
from tests.k8s.fake_head import write_kubeconfig

archive, folder = Path(sys.argv[1]), Path(sys.argv[2])

def eoray(*words):
    command = [sys.executable, "-c", "from eoray.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{words}: exit {done.returncode}: {done.stdout[-2000:]} {done.stderr[-4000:]}")

with archive_server(archive) as files, s3_server() as objects, serve(FakeApi()) as api:
    run_file = folder / "run.yaml"
    run_file.write_text(run_file.read_text().replace("CATALOG", files.url))
    kubeconfig = write_kubeconfig(folder / "kubeconfig", api.url)
    environment = {**os.environ, **objects.environment, "KUBECONFIG": str(kubeconfig)}
    eoray("submit", run_file, "--detach", *(f"{key}={files.url}/{name}" for key, name in
          (("aoi", "aoi.geojson"), ("fit.labels", "labels.geojson"))))
    assert api.names("rayjobs"), "nothing was submitted"
    eoray("run", run_file)
    eoray("check", "s3://maps/out")
"""

OF_RAY = {"169.254.169.254 port 80", "name metadata.google.internal"}
"""Ray asks the node which cloud it is when it starts, whatever RAY_USAGE_STATS_ENABLED says."""

REACHES_OUT = """\
import socket
for family, address in ((socket.AF_INET, "203.0.113.7"), (socket.AF_INET6, "2001:db8:9::7")):
    end = socket.socket(family)
    end.setblocking(False)
    end.connect_ex((address, 443))
try:
    socket.getaddrinfo("elsewhere.example", 80)
except OSError:
    pass
"""

Carry = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module", autouse=True)
def _network() -> None:
    why = air_gap.refusal()
    if why:
        pytest.skip(why)


@pytest.fixture
def carry_out(tmp_path: Path) -> Carry:
    """Carry out a script without a network: (exit code, where it wanted to, stderr)."""

    def carry(script: str, *arguments: object) -> tuple[int, list[str], str]:
        report = tmp_path / "report.json"
        inner = [sys.executable, "-c", script, *map(str, arguments)]
        kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        kept["RAY_TMPDIR"] = str(_dead_cluster(tmp_path))
        done = subprocess.run(
            air_gap.command_there(str(report), *inner),
            env=kept, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(report.read_text()), done.stderr

    return carry


def _dead_cluster(folder: Path) -> Path:
    """A folder of Ray whose last cluster was elsewhere."""
    told = folder / "ray" / "ray_current_cluster"
    told.parent.mkdir(exist_ok=True)
    told.write_text("203.0.113.7:6379")
    return folder


def test_what_reaches_out_is_seen(carry_out: Carry) -> None:
    code, asked, said = carry_out(REACHES_OUT)
    assert code == 0, said
    assert {"203.0.113.7 port 443", "2001:db8:9::7 port 443"} <= set(asked)
    assert "name elsewhere.example" in asked


@pytest.mark.timeout(600)
def test_submission_and_run_ask_nobody_else(carry_out: Carry, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    write_archive(archive, ArchiveOptions(size_px=64), workers=2)
    text = RUN_FILE.format(folder=archive, classes=", ".join(CLASSES))
    (tmp_path / "run.yaml").write_text(text)
    code, asked, said = carry_out(INSIDE, archive, tmp_path)
    assert code == 0, said
    # servers on loopback, the test's among them, ask what 127.0.0.1 is called
    assert set(asked) <= OF_RAY | {"name 1.0.0.127.in-addr.arpa"}
