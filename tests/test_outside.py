"""A run behind a proxy, with certificates of an own authority, by the variables that pods get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eoray.config import parse_config
from eoray.k8s.network import CA_FILE, network_environment
from eoray.testing.http import archive_server
from eoray.testing.positions import PositionOptions, write_position_archive
from eoray.testing.s3 import s3_server
from tests.outside import Authority, Proxy, make_authority, run_proxy, serve_tls

pytestmark = pytest.mark.slow

RUN_FILE = """\
version: 1
name: run
aoi: {aoi}
time: 2021-01-01/2023-12-31
task: cube
source:
  catalog: https://archive.example/catalog.json
  lineage: {{baseline_min: "02.00", mixed: true}}
store: s3://maps/out
storage:
  s3://maps: {{endpoint: "https://store.example", region: eu-1}}
cube: {{bands: [B04], composite: {{method: none}}}}
run: {{executor: inline, retries: 0}}
cluster:
  network: {{proxy: "{proxy}", ca: {{config_map: corporate}}}}
"""

CLI = [sys.executable, "-c", "from eoray.cli import main; main()"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_position_archive(folder, PositionOptions(tiles=(1, 1), bands=("B04",)))
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    names = ["archive.example", "store.example"]
    return make_authority(tmp_path_factory.mktemp("authority"), names)


@pytest.fixture(scope="module")
def outside(archive: Path, authority: Authority) -> Iterator[Proxy]:
    """Archive and store, each behind TLS of its own, both behind a proxy."""
    with ExitStack() as stack:
        files = stack.enter_context(archive_server(archive))
        objects = stack.enter_context(s3_server())
        ports = {
            host: stack.enter_context(serve_tls(authority, int(url.rpartition(":")[2])))
            for host, url in (("archive.example", files.url), ("store.example", objects.url))
        }
        proxy = stack.enter_context(run_proxy(ports))
        proxy.hosts["plain.example"] = int(files.url.rpartition(":")[2])
        yield proxy


@pytest.fixture
def run_file(archive: Path, outside: Proxy, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE.format(aoi=archive / "aoi.geojson", proxy=outside.url))
    outside.asked.clear()
    return path


def as_in_a_pod(run_file: Path, bundle: Path | None) -> dict[str, str]:
    """The environment of a driver's pod, whose certificates lie elsewhere here."""
    network = parse_config(run_file.read_text()).cluster.network
    found = network_environment(network)
    told = {name: value.replace(CA_FILE, str(bundle)) for name, value in found.items()
            if bundle is not None or value != CA_FILE}  # fmt: skip
    told = {name: value.replace("$(KUBERNETES_SERVICE_HOST)", "10.96.0.1")
            for name, value in told.items()}  # fmt: skip
    kept = {name: value for name, value in os.environ.items()
            if "proxy" not in name.lower() and name not in found}  # fmt: skip
    credentials = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret"}
    return {**kept, **told, **credentials}


def eoray(environment: dict[str, str], *arguments: object) -> tuple[int, dict[str, object]]:
    """Exit code and JSON of a verb in a process with this environment."""
    done = subprocess.run(
        [*CLI, *map(str, arguments), "--json"],
        env=environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    last = done.stdout.strip().rpartition("\n")[2]
    assert last.startswith("{"), done.stderr[-3000:]
    return done.returncode, json.loads(last)


def test_catalogue_scenes_and_store_are_reached_through_the_proxy(
    run_file: Path, outside: Proxy, authority: Authority, archive: Path, tmp_path: Path
) -> None:
    code, result = eoray(as_in_a_pod(run_file, authority.bundle), "run", run_file)
    assert code == 0, result
    # obstore and Icechunk, pystac-client and the reader of COGs
    assert set(outside.asked) == {"CONNECT archive.example:443", "CONNECT store.example:443"}
    inside = as_in_a_pod(run_file, authority.bundle) | {"AWS_ENDPOINT_URL": "https://store.example"}
    code, through = eoray(inside, "check", "s3://maps/out")
    assert code == 0, through
    direct = [f"source.catalog={archive / 'catalog.json'}", f"store={tmp_path / 'here'}"]
    assert eoray(dict(os.environ), "run", run_file, *direct)[0] == 0
    code, here = eoray(dict(os.environ), "check", tmp_path / "here")
    assert code == 0, here
    assert through["checksum"] == here["checksum"]


def test_authority_that_is_not_trusted_ends_a_run_at_once(run_file: Path) -> None:
    code, result = eoray(as_in_a_pod(run_file, None), "run", run_file)
    assert code == 4
    assert "network policies, proxy and certificates of this place" in str(result["error"])


GDAL = """\
import rasterio, sys
with rasterio.open("/vsicurl/" + sys.argv[1]) as file:
    print(int(file.read(1)[600, 600]))
"""


@pytest.mark.parametrize("host", ["https://archive.example", "http://plain.example"])
def test_gdal_reads_the_same_through_the_proxy(
    run_file: Path, outside: Proxy, authority: Authority, archive: Path, host: str
) -> None:
    import rasterio

    file = next(archive.rglob("*B04*.tif"))
    with rasterio.open(file) as local:
        expected = int(local.read(1)[600, 600])
    command = [sys.executable, "-c", GDAL, f"{host}/{file.relative_to(archive)}"]
    done = subprocess.run(
        command, env=as_in_a_pod(run_file, authority.bundle),
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.stdout == f"{expected}\n", done.stderr[-2000:]
    scheme, _, name = host.partition("://")
    told = f"CONNECT {name}:443" if scheme == "https" else f"GET {host}/"
    assert any(asked.startswith(told) for asked in outside.asked)


@pytest.mark.parametrize(
    ("host", "asks"),
    [
        ("eoray-head-svc.maps.svc.cluster.local:8265", False),
        ("minio.storage.svc:9000", False),
        ("10.96.0.1:443", False),  # the API server
        ("169.254.169.254", False),  # the node's own word on who a pod is
        ("archive.example", True),
    ],
)
def test_names_of_the_cluster_are_not_asked_of_the_proxy(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, host: str, asks: bool
) -> None:
    from requests.utils import get_environ_proxies

    for name, value in as_in_a_pod(run_file, None).items():
        if "proxy" in name.lower():
            monkeypatch.setenv(name, value)
    assert bool(get_environ_proxies(f"https://{host}/")) is asks
