"""Overlapping windows whose weights sum to one, on one lattice for the whole zone.

Windows are cores of ``core_px`` grown by ``halo_px``. Cores tile the zone from its upper left, so
a pixel lies in the same windows whichever tile is being predicted: neighbouring tiles compute the
same values along their common edge, and no seam can appear there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eoray.errors import ConfigError
from eoray.grid import PixelWindow


@dataclass(frozen=True, slots=True)
class Blend:
    """Geometry of the windows."""

    core_px: int = 128
    """Step between windows."""
    halo_px: int = 32
    """Margin on every side; neighbours share twice as much, in which their weights cross over."""

    def __post_init__(self) -> None:
        """Refuse windows that would overlap more than one neighbour."""
        if self.core_px < 1 or not 0 <= 2 * self.halo_px <= self.core_px:
            raise ConfigError(
                f"windows with a core of {self.core_px} px and a halo of {self.halo_px} px cannot "
                "be blended; the halo must be 0 to half of the core"
            )

    @property
    def window_px(self) -> int:
        """Edge of a window."""
        return self.core_px + 2 * self.halo_px

    def weights(self) -> np.ndarray:
        """Weights along one edge of a window, dims (position,), float64.

        A squared sine (Hann) over the shared margin, 1 in between: ``sin(a)^2 + cos(a)^2 = 1``,
        so those of neighbouring windows sum to one.
        """
        shared = 2 * self.halo_px
        up = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / max(shared, 1)) ** 2
        return np.concatenate([up, np.ones(self.core_px - shared), up[::-1]])

    def windows(self, target: PixelWindow) -> Iterator[PixelWindow]:
        """Windows that give weight to a pixel of the target, row by row."""
        first_row, last_row = self._range(target.row_off, target.height)
        first_col, last_col = self._range(target.col_off, target.width)
        for row in range(first_row, last_row + 1):
            for col in range(first_col, last_col + 1):
                core = PixelWindow(
                    row * self.core_px, col * self.core_px, self.core_px, self.core_px
                )
                yield core.buffered(self.halo_px)

    def cover(self, target: PixelWindow) -> PixelWindow:
        """All pixels that the windows of a target read; may leave the zone."""
        first_row, last_row = self._range(target.row_off, target.height)
        first_col, last_col = self._range(target.col_off, target.width)
        return PixelWindow(
            first_row * self.core_px,
            first_col * self.core_px,
            (last_row - first_row + 1) * self.core_px,
            (last_col - first_col + 1) * self.core_px,
        ).buffered(self.halo_px)

    def _range(self, start: int, length: int) -> tuple[int, int]:
        """First and last window along one axis: those whose grown core meets the target."""
        first = (start - self.halo_px) // self.core_px
        last = (start + length - 1 + self.halo_px) // self.core_px
        return first, last


def shared_part(a: PixelWindow, b: PixelWindow) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the common pixels within ``a`` and within ``b``; empty where there are none."""
    r0, c0 = max(a.row_off, b.row_off), max(a.col_off, b.col_off)
    r1 = max(r0, min(a.row_off + a.height, b.row_off + b.height))
    c1 = max(c0, min(a.col_off + a.width, b.col_off + b.width))
    return (
        (slice(r0 - a.row_off, r1 - a.row_off), slice(c0 - a.col_off, c1 - a.col_off)),
        (slice(r0 - b.row_off, r1 - b.row_off), slice(c0 - b.col_off, c1 - b.col_off)),
    )
