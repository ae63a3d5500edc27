"""Run something and die without a word at the n-th event, counted, so that it is the same again.

An event is a progress call, or the moment before or after a commit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL_PX = 64
SMALL_STEPS = 3


@dataclass(slots=True)
class Events:
    """Counts events and ends the process at one of them."""

    last: int
    """Number of the event that kills; 0 for none."""
    seen: int = 0

    def __call__(self, *_: object) -> None:
        self.seen += 1
        if self.seen == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def run_killed(last: int, what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own; it prints the number of events where it lives to the end."""
    return subprocess.run(
        [sys.executable, "-m", "tests.run.killed", str(last), what, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def _count_commits(events: Events) -> None:
    from eoray.run.driver import Driver

    plain = Driver._commit

    def commit(self: Driver, session: Any, message: str) -> None:
        events()
        plain(self, session, message)
        events()

    Driver._commit = commit  # type: ignore[method-assign]


def main(last: str, what: str, *arguments: str) -> None:
    """Run a stage of a run file (stage, path, overrides) or the small demo (folder)."""
    events = Events(int(last))
    _count_commits(events)
    if what == "demo":
        from eoray.run.demo import run_demo
        from eoray.testing import ArchiveOptions

        options = ArchiveOptions(size_px=SMALL_PX)
        run_demo(arguments[0], options=options, steps=SMALL_STEPS, progress=events)
    else:
        from eoray.run import load_run

        run = load_run(arguments[0], arguments[1:])
        run.execute([what], executor="inline", progress=events)
    sys.stdout.write(f"{events.seen}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
