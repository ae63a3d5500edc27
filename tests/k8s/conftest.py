"""A run file for a cluster, and a cluster that is a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eoray.config import RunConfig, parse_config
from eoray.k8s.client import Cluster
from eoray.k8s.forecast import Forecast
from tests.k8s.fake_api import FakeApi, serve
from tests.k8s.fake_head import Dashboard, serve_dashboard

RUN_FILE = """\
version: 1
name: slovenia
aoi: [14.0, 46.0, 14.2, 46.2]
time: 2024-01-01/2024-12-31
task: cube
store: s3://maps/slovenia
cluster:
  image: registry.example/eoray@sha256:0123
  ray_version: 2.60.0
"""

ReadConfig = Callable[..., RunConfig]


@pytest.fixture
def config() -> RunConfig:
    return parse_config(RUN_FILE)


@pytest.fixture
def read_config() -> ReadConfig:
    """Read the run file with some settings changed."""
    return lambda *overrides: parse_config(RUN_FILE, overrides=overrides)


@pytest.fixture(autouse=True)
def _nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores and catalogues of these run files are made up: nobody asks for them."""
    monkeypatch.setattr("eoray.run.lease.check_free", lambda *_, **__: "")
    monkeypatch.setattr("eoray.k8s.forecast.forecast", lambda *_, **__: Forecast([]))
    monkeypatch.setattr("eoray.run.last_seen.keep_view", lambda *_, **__: "")
    monkeypatch.setattr("eoray.k8s.submit.find_recorded", lambda *_: None)


@pytest.fixture(autouse=True)
def _no_operator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests set the status themselves, where they need one."""
    monkeypatch.setattr("eoray.k8s.follow._VERDICT_S", 0.0)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serve(FakeApi()) as fake:
        yield fake


@pytest.fixture
def waits() -> list[float]:
    """Seconds that the client waited, without waiting."""
    return []


@pytest.fixture
def cluster(api: FakeApi, waits: list[float]) -> Cluster:
    from kubernetes.client import ApiClient, Configuration

    def connect() -> Any:
        configuration = Configuration(host=api.url)
        configuration.retries = False
        return ApiClient(configuration)

    return Cluster(connect, "maps", wait=waits.append)


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    """What answers at the dashboard's port of a head."""
    with serve_dashboard() as told:
        yield told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
