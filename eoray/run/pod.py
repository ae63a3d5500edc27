"""The pod that a driver runs in: where its preStop hook finds it, and how they take leave.

The hook of the head's pod (``eoray.k8s.hooks``) runs in the driver's container before the pod is
taken away, whoever does it: ``cancel``, ``delete``, a drained node. It asks the process named in
``driver.pid`` to stop and waits until that file is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PID, ENDING = "driver.pid", "ending"

_TAKEN_S = 60.0
"""A pod whose hook has ended is gone after this time."""


@dataclass(frozen=True, slots=True)
class Pod:
    """The folder that a driver shares with its pod's hooks."""

    folder: Path

    @contextmanager
    def holds_driver(self) -> Iterator[None]:
        """Name this process as the driver while the block lasts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / PID).write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self.folder / PID).unlink(missing_ok=True)

    def is_ending(self) -> bool:
        """Tell whether the pod itself is being taken away."""
        return (self.folder / ENDING).exists()

    def wait_for_end(self, seconds: float = _TAKEN_S) -> None:
        """Wait to be killed with the pod.

        An exit would be read as the end of the run, while a head that vanishes is replaced and
        its driver started again.
        """
        time.sleep(seconds)
