"""The detector as every benchmark of this folder runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from eoray.change import ChangeParameters, detect_breaks


class Observed(Protocol):
    """What a record holds, whoever drew it."""

    @property
    def reflectance(self) -> np.ndarray:
        """int16 (time, band, y, x), reflectance x 10000."""

    @property
    def clear(self) -> np.ndarray:
        """True where clear, dims (time, y, x)."""

    @property
    def day(self) -> np.ndarray:
        """int64 (time), days since 1970-01-01."""

    @property
    def orbit(self) -> np.ndarray:
        """int64 (time)."""


def detect(record: Observed) -> dict[str, np.ndarray]:
    """Find breaks with the defaults, noise kept by orbit."""
    return detect_breaks(
        record.reflectance,
        record.clear,
        record.day,
        parameters=ChangeParameters(),
        orbit=record.orbit,
    )
