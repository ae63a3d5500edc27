"""Runs of the CLI as processes that tests watch and disturb."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def start(*arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start the CLI; what it says goes to ``log``."""
    command = [sys.executable, "-c", "from eoray.cli import main; main()", *arguments]
    with (log or Path(os.devnull)).open("wb") as sink:
        return subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    limit = time.monotonic() + 240
    while not condition() and process.poll() is None:
        if time.monotonic() > limit:
            raise TimeoutError("the run did not get on")
        time.sleep(0.02)


def ray_workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Processes of a run's local Ray that work on its rows now."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            words = " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "ray::" in words and "_RayTask" in words:
            found.append(child)
    return found
