from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest

from eoray.log import Style, bind_context, configure_logging, get_logger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_values() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    get_logger(stage="cube").info("wave committed", tiles=3)
    (line,) = lines_of(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {"event": "wave committed", "level": "info", "stage": "cube", "tiles": 3}


def test_bound_context_is_added_inside_its_block_only() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    with bind_context(run="demo-1", tile="outer"):
        with bind_context(tile="z32r0457c048", worker=2):
            get_logger().info("inside")
        get_logger().info("between")
    get_logger().info("outside")
    inside, between, outside = lines_of(stream)
    assert (inside["run"], inside["tile"], inside["worker"]) == ("demo-1", "z32r0457c048", 2)
    assert (between["tile"], "worker" in between) == ("outer", False)
    assert "run" not in outside


def test_a_traceback_stays_in_its_json_line() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    try:
        raise ValueError("no such thing")
    except ValueError:
        get_logger().exception("failed")
    (line,) = lines_of(stream)
    assert "ValueError: no such thing" in line["exception"]


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    get_logger().info("seen", when=datetime(2021, 6, 30))  # noqa: DTZ001 - only its text counts
    assert lines_of(stream)[0]["when"] == "2021-06-30 00:00:00"


def test_events_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    configure_logging(level="WARNING", stream=stream)
    get_logger().info("quiet")
    get_logger().warning("loud")
    assert [line["event"] for line in lines_of(stream)] == ["loud"]


def test_plain_logging_below_the_name_gets_the_same_fields() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    with bind_context(run="demo-1"):
        logging.getLogger("eoray.elsewhere").info("read %s tiles", 3)
    (line,) = lines_of(stream)
    assert (line["event"], line["level"], line["run"]) == ("read 3 tiles", "info", "demo-1")


@pytest.mark.parametrize(("stream", "style"), [(Terminal(), "auto"), (io.StringIO(), "console")])
def test_a_person_gets_readable_lines(stream: io.StringIO, style: Style) -> None:
    configure_logging(stream=stream, style=style)
    get_logger().info("wave committed", tiles=3)
    text = stream.getvalue()
    assert "wave committed" in text
    assert not text.startswith("{")
    assert ("\x1b[" in text) is stream.isatty()


def test_a_readable_traceback_raises_no_warning() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, style="console")
    try:
        raise ValueError("no such thing")
    except ValueError:
        get_logger().exception("failed")
    assert "ValueError" in stream.getvalue()


def test_configuring_again_replaces_the_stream() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    configure_logging(stream=second)
    get_logger().info("once")
    assert first.getvalue() == ""
    assert len(lines_of(second)) == 1


def test_a_library_that_nobody_configured_never_writes_to_stdout() -> None:
    code = "from eoray.log import get_logger as g; g().info('hidden'); g().warning('shown')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == ""
    assert "shown" in done.stderr
    assert "hidden" not in done.stderr
