"""Fixtures of publishing: one toy store for the session, and what was published from it."""

from __future__ import annotations

import pytest

from eoray.cube.read import CubeReader, CubeSource
from eoray.publish import PublishedCog, publish_change, publish_map
from tests.publish.toy import write_toy_store


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("store")
    write_toy_store(str(folder / "cube.icechunk"))
    return str(folder)


@pytest.fixture(scope="session")
def reader(store_url: str) -> CubeReader:
    return CubeReader(CubeSource(store_url))


@pytest.fixture(scope="session")
def out_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("out") / "toy")


@pytest.fixture(scope="session")
def map_cogs(reader: CubeReader, out_url: str) -> list[PublishedCog]:
    return publish_map(reader, "map-toy", out_url, name="toy", tags={"notice": "toy"})


@pytest.fixture(scope="session")
def change_cogs(reader: CubeReader, out_url: str) -> list[PublishedCog]:
    period = ("2019-01-01", "2022-12-31")
    return publish_change(reader, "change-toy", out_url, name="toy", period=period)
