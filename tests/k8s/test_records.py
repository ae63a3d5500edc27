"""A store tells which attempts of a run there were, where it can be read from here."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eoray.buckets import use_buckets
from eoray.config import RunConfig, config_key
from eoray.k8s.records import Recorded, find_recorded
from eoray.k8s.submit import plan_attempt
from eoray.run.attempt import AttemptInfo, hold_attempt
from eoray.run.record import RunPaths
from tests.s3_server import FakeS3, serve_s3


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with serve_s3(monkeypatch) as fake:
        yield fake
    use_buckets({})


@pytest.fixture
def key(config: RunConfig) -> str:
    return plan_attempt(config, Path("/")).key


def leave(config: RunConfig, name: str, error: BaseException | None = None) -> None:
    """Leave the record of an attempt, as its driver does."""
    paths = RunPaths(config.store, config.name, config_key(config))
    with suppress(BaseException), hold_attempt(paths, AttemptInfo(name)):
        if error is not None:
            raise error


def test_last_attempt_of_the_run_is_found_with_its_end(
    s3: FakeS3, config: RunConfig, key: str
) -> None:
    assert find_recorded(config, key) is None
    leave(config, f"{key}-2")
    leave(config, f"{key}-10", ValueError("bad"))
    leave(config, f"{key}-11.0123abcd")  # of a deleted attempt, set aside
    leave(config, "slovenia-89abcdef-12")  # of another image
    assert find_recorded(config, key) == Recorded(10, is_done=False)
    leave(config, f"{key}-11")
    assert find_recorded(config, key) == Recorded(11, is_done=True)


def test_attempt_whose_driver_never_started_counts(s3: FakeS3, config: RunConfig, key: str) -> None:
    folder = f"maps/slovenia/_eoray/runs/{config_key(config)}/attempts/{key}-3"
    s3.put(f"{folder}/cluster.json", b"{}")
    assert find_recorded(config, key) == Recorded(3, is_done=False)


def test_bucket_is_reached_as_the_run_file_says(
    s3: FakeS3, read_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = read_config(f'storage={{"s3://maps": {{"endpoint": "{s3.url}"}}}}')
    key = plan_attempt(described, Path("/")).key
    leave(described, f"{key}-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert find_recorded(described, key) == Recorded(1, is_done=True)


@pytest.mark.parametrize("why", ["no right", "no obstore", "a folder of the pods", "no answer"])
def test_what_cannot_be_seen_is_passed_over(
    s3: FakeS3, config: RunConfig, read_config: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    key = plan_attempt(config, Path("/")).key
    leave(config, f"{key}-1")
    if why == "no right":
        s3.refuse["GET"] = (403, "AccessDenied")
    elif why == "no obstore":
        monkeypatch.setitem(sys.modules, "obstore.store", None)
    elif why == "no answer":
        monkeypatch.setattr("eoray.k8s.records._last_of", lambda *_: time.sleep(1.0))
    else:
        config = read_config("cluster.claims=[{claim: data, path: /data}]", "store=/data/out")
    assert find_recorded(config, key, timeout_s=0.1 if why == "no answer" else 3.0) is None
