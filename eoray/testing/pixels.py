"""Pixels: mixing ground cells into them, blur and sub-pixel shifts, 10 m to 20 m and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def mixing_matrix(segment: np.ndarray, edge: int, n_segments: int, *, pure: bool) -> csr_array:
    """Share of each segment in each pixel.

    Args:
        segment: Dims (y, x) of cells.
        edge: Cells along the edge of a pixel.
        n_segments: Columns of the result.
        pure: Take the cell at the centre alone.

    Returns:
        Sparse, (pixel in row-major order, segment), float32; rows sum to 1.
    """
    from scipy.sparse import csr_array

    rows, cols = segment.shape[0] // edge, segment.shape[1] // edge
    blocks = segment[: rows * edge, : cols * edge].reshape(rows, edge, cols, edge)
    n = rows * cols
    if pure:
        centre = blocks[:, edge // 2, :, edge // 2].reshape(n).astype(np.int32)
        ones = np.ones(n, np.float32)
        return csr_array((ones, centre, np.arange(n + 1, dtype=np.int32)), shape=(n, n_segments))
    # one axis after the other: numpy is slow at reducing two short axes at once
    low = blocks.min(axis=1).min(axis=2).reshape(n)
    mixed = np.flatnonzero(low != blocks.max(axis=1).max(axis=2).reshape(n))
    inside = blocks.transpose(0, 2, 1, 3).reshape(n, edge * edge)[mixed]
    inside.sort(axis=1)
    first = np.ones(inside.shape, bool)
    first[:, 1:] = inside[:, 1:] != inside[:, :-1]
    counts = np.ones(n, np.int32)
    counts[mixed] = first.sum(axis=1)
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    columns = np.empty(pointers[-1], np.int32)
    shares = np.ones(pointers[-1], np.float32)
    is_mixed = np.repeat(np.isin(np.arange(n), mixed), counts)
    columns[~is_mixed] = np.delete(low, mixed)
    columns[is_mixed] = inside[first]
    flat = np.flatnonzero(first.ravel())
    runs = np.diff(np.append(flat, inside.size))
    shares[is_mixed] = runs / np.float32(edge * edge)
    return csr_array((shares, columns, pointers), shape=(n, n_segments))


def resample(
    bands: np.ndarray, down: float, right: float, margin: int, *, blur: bool
) -> np.ndarray:
    """Blur by the point spread and shift by parts of a pixel, in one pass per axis.

    The kernel is the quadratic B-spline (or its linear one without blur), whose width does not
    depend on the shift, so that dates differ in place and not in sharpness.

    Args:
        bands: Dims (band, y, x), float32, with a margin.
        down: Shift of the picture in rows, at most ``margin - 2``.
        right: Shift in columns.
        margin: Pixels to cut off each edge.
        blur: Without, a shift of 0 leaves the values as they are.

    Returns:
        Dims (band, y, x) without the margin, float32.
    """
    moved = []
    for band in bands:  # one at a time stays in the processor's cache
        rows = _slide(band, down, margin, blur=blur)
        moved.append(_slide(rows.T, right, margin, blur=blur).T)
    return np.stack(moved)


def _slide(band: np.ndarray, shift: float, margin: int, *, blur: bool) -> np.ndarray:
    whole = round(shift)
    part = shift - whole
    n = band.shape[0] - 2 * margin
    if blur:
        taps = (0.5 * (0.5 + part) ** 2, 0.75 - part**2, 0.5 * (0.5 - part) ** 2)
    else:
        taps = (max(part, 0.0), 1 - abs(part), max(-part, 0.0))
    first = margin - whole
    total = band[first - 1 : first - 1 + n] * np.float32(taps[0])
    spare = np.empty_like(total)
    for offset, tap in ((0, taps[1]), (1, taps[2])):
        np.multiply(band[first + offset : first + offset + n], np.float32(tap), out=spare)
        total += spare
    return np.asarray(total)


def halve(fine: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels; dims (y, x), float32."""
    tall = fine[::2] + fine[1::2]
    return np.asarray((tall[:, ::2] + tall[:, 1::2]) * np.float32(0.25))


def double(coarse: np.ndarray) -> np.ndarray:
    """Repeat each pixel 2 x 2; dims (y, x)."""
    return coarse.repeat(2, axis=0).repeat(2, axis=1)


def double_smooth(coarse: np.ndarray) -> np.ndarray:
    """Interpolate linearly to half the pixel; the outer rows are repeated."""
    rows, cols = coarse.shape
    tall = np.empty((2 * rows, cols), coarse.dtype)
    _fill_between(coarse, tall)
    wide = np.empty((2 * cols, 2 * rows), coarse.dtype)
    _fill_between(np.ascontiguousarray(tall.T), wide)
    return np.ascontiguousarray(wide.T)


def _fill_between(coarse: np.ndarray, fine: np.ndarray) -> None:
    """Put 3/4 of a row and 1/4 of its neighbour into each of its two halves."""
    quarter = coarse * np.float32(0.25)
    most = coarse * np.float32(0.75)
    np.add(most[1:], quarter[:-1], out=fine[2::2])
    np.add(most[:-1], quarter[1:], out=fine[1:-1:2])
    fine[0], fine[-1] = coarse[0], coarse[-1]
