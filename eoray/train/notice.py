"""Word that a machine is about to be taken away, and a fit's answer to it.

The preStop hook of a worker's pod (``eoray.k8s.hooks``) leaves ``notice`` in a folder that it
shares with the processes of the pod, and waits while a fit is at work there. The fit looks at each
step, saves a checkpoint, and lets the hook go.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NOTICE, AT_WORK, SAVED = "notice", "fit", "saved"

_POLL_S = 0.2


class Notice:
    """The notice that a fit's process may get; without a folder it gets none."""

    def __init__(self, folder: Path | None = None) -> None:
        """Look for nothing yet.

        Args:
            folder: Shared with the hook; None where there is no hook.
        """
        self._folder = folder
        self._answered: float | None = None

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Let the hook wait for this process while the block lasts."""
        if self._folder is None:
            yield
            return
        for name in (AT_WORK, SAVED):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        own = _own(self._folder, AT_WORK)
        own.touch()
        try:
            yield
        finally:
            own.unlink(missing_ok=True)

    def is_given(self) -> bool:
        """Tell whether there is a notice that was not answered yet."""
        given = self._given_at()
        return given is not None and given != self._answered

    def answer(self) -> None:
        """Let the hook go once the checkpoint stands, and wait to be taken away.

        Steps done now would be lost. Where nothing happens within the time that the notice names,
        or it is withdrawn, work goes on, and the same notice is not heeded again.
        """
        folder, given = self._folder, self._given_at()
        if folder is None or not self.is_given():
            return
        until = time.monotonic() + _seconds(folder)
        at_work, saved = _own(folder, AT_WORK), _own(folder, SAVED)
        at_work.rename(saved)
        while time.monotonic() < until and self._given_at() == given:
            time.sleep(_POLL_S)
        self._answered = given
        saved.rename(at_work)

    def _given_at(self) -> float | None:
        if self._folder is None:
            return None
        try:
            return (self._folder / NOTICE).stat().st_mtime
        except FileNotFoundError:
            return None


def _own(folder: Path, state: str) -> Path:
    return folder / state / str(os.getpid())


def _seconds(folder: Path) -> float:
    """What is left until the pod ends, as its hook wrote it."""
    try:
        return float((folder / NOTICE).read_text())
    except (FileNotFoundError, ValueError):
        return 0.0


def notice_of(environment: Mapping[str, str]) -> Notice:
    """The notice of the pod that this process runs in, as its environment names it."""
    folder = environment.get("EORAY_POD_FOLDER")
    return Notice(Path(folder) if folder else None)
