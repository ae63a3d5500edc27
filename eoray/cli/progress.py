"""Progress on stderr: one line that moves on a terminal, few lines elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

_STEP_PCT = 25
"""Lines of one stage in a log: every quarter tells a run that moves from one that hangs."""


class ProgressPrinter:
    """Prints ``stage done/total``; call it with (stage, done, total) as work finishes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Print to a stream; None takes stderr."""
        self._stream = sys.stderr if stream is None else stream
        self._moves = self._stream.isatty()
        self._stage = ""
        self._shown_pct = -_STEP_PCT

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage != self._stage:
            self.close()
            self._stage, self._shown_pct = stage, -_STEP_PCT
        pct = 100 * done // total if total else 100
        if self._moves:
            self._stream.write(f"\r{stage:<10} {done}/{total} ({pct} %)\x1b[K")
        elif pct >= self._shown_pct + _STEP_PCT or (done >= total and self._shown_pct < 100):
            self._shown_pct = pct
            self._stream.write(f"{stage:<10} {done}/{total} ({pct} %)\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the moving line, so that what follows stands on its own."""
        if self._moves and self._stage:
            self._stream.write("\n")
            self._stream.flush()
        self._stage = ""
