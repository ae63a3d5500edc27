"""Seeded random fields: the same key gives the same numbers, in any process and order."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """Make a generator that depends on the seed and the key alone."""
    words = [zlib.crc32(str(part).encode()) for part in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def hash_unit(values: np.ndarray, salt: int) -> np.ndarray:
    """Map integers to uniform numbers in [0, 1), each by itself.

    Args:
        values: Any shape, integer.
        salt: Another salt gives independent numbers.

    Returns:
        Same shape, float32.

    Source:
        Finaliser of MurmurHash3 (64 bit), public domain.
    """
    mixed = np.asarray(values).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt * 0x2545F491 + 0x632BE59B)
        for _ in range(2):
            mixed ^= mixed >> np.uint64(33)
            mixed *= np.uint64(0xFF51AFD7ED558CCD)
        mixed ^= mixed >> np.uint64(33)
    return ((mixed >> np.uint64(40)).astype(np.float32)) / np.float32(1 << 24)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], length_px: float) -> np.ndarray:
    """Draw a Gaussian field of one correlation length.

    Args:
        rng: Source of the numbers.
        shape: (rows, cols).
        length_px: Standard deviation of the smoothing kernel in pixels; 0 is white noise.

    Returns:
        Dims (y, x), float32, mean 0, standard deviation 1.
    """
    from scipy.ndimage import gaussian_filter

    field = rng.standard_normal(shape, dtype=np.float32)
    if length_px > 0:
        field = gaussian_filter(field, length_px, mode="wrap", truncate=3.0)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


def rough_field(
    rng: np.random.Generator, shape: tuple[int, int], length_px: float, octaves: int = 3
) -> np.ndarray:
    """Sum fields of falling size, each half as long and 0.55 as strong as the one before.

    Returns:
        Dims (y, x), float32, mean 0, standard deviation 1.
    """
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += np.float32(0.55**octave) * smooth_field(rng, shape, length_px / 2**octave)
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def enlarge(coarse: np.ndarray, shape: tuple[int, int], step: int) -> np.ndarray:
    """Interpolate a coarse field linearly to ``step`` times as many pixels.

    Args:
        coarse: Dims (y, x), floating; node (i, j) stands at fine pixel (i * step, j * step).
        shape: (rows, cols) wanted; the nodes must reach beyond it.
        step: Fine pixels between two nodes.

    Returns:
        Dims (y, x), dtype of ``coarse``.
    """
    return _stretch(_stretch(coarse, shape[0], step).T, shape[1], step).T


def _stretch(values: np.ndarray, n: int, step: int) -> np.ndarray:
    weight = (np.arange(step) / step).astype(values.dtype)[None, :, None]
    n_nodes = -(-n // step)
    low, high = values[:n_nodes, None, :], values[1 : n_nodes + 1, None, :]
    fine = low + (high - low) * weight
    return np.ascontiguousarray(fine.reshape(n_nodes * step, -1)[:n])
