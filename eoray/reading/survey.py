"""How many pixels of a mosaic each scene has, and where: one pass over what was chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at a part of a mosaic finds."""

    counts: np.ndarray
    """Pixels of each scene, int64; the last one counts those that no scene has."""
    boxes: np.ndarray
    """(first row, end, first column, end) of each scene's pixels; only where it has any."""

    @property
    def present(self) -> list[int]:
        """Numbers of the scenes that have pixels, in order."""
        found: list[int] = np.flatnonzero(self.counts[:-1]).tolist()
        return found

    @property
    def covered(self) -> bool:
        """True where every pixel has a scene."""
        return not self.counts[-1]

    def box(self, number: int) -> tuple[slice, slice]:
        """Rows and columns that a scene's pixels lie in."""
        top, bottom, left, right = self.boxes[number].tolist()
        return slice(top, bottom), slice(left, right)


def survey(index: np.ndarray, n_scenes: int) -> Survey:
    """Count the pixels of each scene.

    Args:
        index: Number of the scene that each pixel takes, dims (y, x), int16; -1 for none.
        n_scenes: Of the mosaic.
    """
    counts = np.zeros(n_scenes + 1, np.int64)
    boxes = np.empty((n_scenes + 1, 4), np.int64)
    boxes[:, ::2], boxes[:, 1::2] = max(index.shape), 0
    _survey(index, counts, boxes)
    return Survey(counts, boxes)


def double(values: np.ndarray) -> np.ndarray:
    """Each pixel as two by two.

    Args:
        values: Dims (y, x), of one byte.

    Returns:
        Dims (2 y, 2 x), same dtype.
    """
    height, width = values.shape
    pairs = values.view(np.uint8) * np.uint16(257)  # both bytes of a number are the pixel
    out = np.empty((height, 2, width), np.uint16)
    out[:] = pairs[:, None]
    return out.reshape(2 * height, width).view(values.dtype)


def warm_up() -> None:
    """Compile the kernel, or load it from numba's cache on disk."""
    index = np.zeros((2, 2), np.int16)
    survey(index, 1)
    survey(index[:, 1:], 1)


@numba.njit(nogil=True, cache=True)
def _survey(index: np.ndarray, counts: np.ndarray, boxes: np.ndarray) -> None:
    """Run by run along the rows; -1 counts in the last place."""
    height, width = index.shape
    for r in range(height):
        c = 0
        while c < width:
            number = index[r, c]
            end = c + 1
            while end < width and index[r, end] == number:
                end += 1
            counts[number] += end - c
            boxes[number, 0] = min(boxes[number, 0], r)
            boxes[number, 1] = max(boxes[number, 1], r + 1)
            boxes[number, 2] = min(boxes[number, 2], c)
            boxes[number, 3] = max(boxes[number, 3], end)
            c = end
