"""When too many reads fail, the source is broken: end the stage before a night is wasted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eoray.errors import ReadError

if TYPE_CHECKING:
    from eoray.cube.layout import Hole
    from eoray.cube.ledger import TileReceipt

MIN_READS = 200
"""Fewer reads say nothing: one missing item is ten of them."""


class FailedShareError(ReadError):
    """More reads failed than ``cube.max_failed_share`` allows."""


@dataclass(slots=True)
class FailureLimit:
    """Counts the reads of a stage while it runs."""

    share: float
    """Highest part of the reads that may fail."""
    n_reads: int = 0
    """So far, as (file, tile) pairs."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(reason, host) of those that failed."""

    @property
    def n_failed(self) -> int:
        """Reads that failed so far."""
        return self.reasons.total()

    def check(self, tiles: Iterable[TileReceipt]) -> None:
        """Count some finished tiles.

        Raises:
            FailedShareError: The share of failed reads is above the limit.
        """
        for tile in tiles:
            self.n_reads += tile.n_reads
            self.reasons.update(_cause(hole) for hole in tile.holes)
        if self.n_reads >= MIN_READS and self.n_failed > self.share * self.n_reads:
            raise FailedShareError(self._message(), reason=self._most()[0], host=self._most()[1])

    def _most(self) -> tuple[str, str]:
        return self.reasons.most_common(1)[0][0]

    def _message(self) -> str:
        reason, host = self._most()
        count = self.reasons[reason, host]
        return (
            f"{self.n_failed} of the first {self.n_reads} reads failed "
            f"({self.n_failed / self.n_reads:.0%}), more than cube.max_failed_share = "
            f"{self.share:g}; most often ({count} times) for reason {reason!r} at "
            f"{host or 'local files'}. Nothing is lost: what was read is kept and the holes are "
            "recorded. Mend the source, then `eoray run` goes on and `eoray heal` reads the holes "
            "again; or raise the limit"
        )


def _cause(hole: Hole) -> tuple[str, str]:
    return hole.reason, hole.host
