"""The driver's log is kept beside the outputs, in two parts of a known size."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from eoray import storage
from eoray.errors import StoreError
from eoray.log import configure_logging, get_logger
from eoray.run.driver_log import keep_log


@pytest.fixture(autouse=True)
def _level() -> None:
    configure_logging(level="INFO")


def events(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_lines_are_put_at_the_end_and_behind_earlier_ones(tmp_path: Path) -> None:
    for n in range(2):
        with keep_log(str(tmp_path)):
            get_logger().info("said", n=n)
    get_logger().info("outside", n=9)
    assert events(tmp_path / "driver.log") == [0, 1]


def test_full_part_is_kept_and_older_ones_are_dropped(tmp_path: Path) -> None:
    with keep_log(str(tmp_path), part_bytes=2000):
        for n in range(100):
            get_logger().info("said", n=n)
    parts = [tmp_path / "driver.1.log", tmp_path / "driver.log"]
    assert all(path.stat().st_size <= 2000 for path in parts)
    kept = [n for path in parts for n in events(path)]
    assert kept == list(range(kept[0], 100))
    assert 20 < len(kept) < 60


def test_lines_are_put_while_the_run_goes_on(tmp_path: Path) -> None:
    import time

    with keep_log(str(tmp_path), every_s=0.01):
        get_logger().info("said", n=1)
        limit = time.monotonic() + 60
        while not (tmp_path / "driver.log").exists():
            assert time.monotonic() < limit
            time.sleep(0.01)
        assert events(tmp_path / "driver.log") == [1]


def test_log_that_cannot_be_kept_ends_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(url: str, data: bytes) -> None:
        raise StoreError("no space left")

    configure_logging(level="INFO")
    monkeypatch.setattr(storage, "write_bytes", refuse)
    for _ in range(2):
        with keep_log(str(tmp_path), every_s=60):
            get_logger().info("said", n=1)
    said = capsys.readouterr().err
    assert said.count("no space left") == 2
    assert logging.getLogger("eoray").handlers[1:] == []
