"""How far a picture lies from another one of the same ground, to parts of a pixel.

Pictures of different seasons share edges, not values, and even an edge may change its sign. So the
direction of the gradient is compared, doubled in angle, which makes it the same on both signs.

Sources:
    Fitch, Kadyrov, Christmas, Kittler 2002, BMVC, for orientation correlation; Guizar-Sicairos,
    Thurman, Fienup 2008, Optics Letters 33(2), for the peak between pixels by a local DFT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW_PX = 128
"""Edge of the squares that are matched one by one."""

STEP_PX = 64
"""Least distance of their corners: each place lies in four."""

MAX_PER_EDGE = 8
"""Squares along an edge: a tile of 1024 px is covered once."""

REACH_PX = 3
"""Largest shift looked for; Sentinel-2 was never further off than 1.2 pixels of 10 m."""

MIN_USABLE = 0.5
"""Part of a square that must be clear in both pictures."""

MIN_PEAK = 2.0
"""Height of the peak over the highest value around: what repeats, such as rows of trees, has
several peaks."""

MIN_WINDOWS = 3
"""Squares that must agree before a shift is believed."""

_UP = 50
"""Steps a pixel of the refined peak."""

_AROUND_PX = 6
"""Beyond this distance from the peak nothing of the peak itself is left."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Place of a picture relative to a reference."""

    down: float
    """Pixels; NaN where it could not be measured."""
    right: float
    error: float
    """Standard error of either, in pixels, from the spread over the squares."""
    n_windows: int
    """Squares that were matched."""

    @property
    def is_measured(self) -> bool:
        """Whether enough squares agree."""
        return self.n_windows >= MIN_WINDOWS


def measure_shift(picture: np.ndarray, reference: np.ndarray, usable: np.ndarray) -> Shift:
    """Measure how far a picture lies below and to the right of a reference.

    Args:
        picture: Dims (y, x), any numbers; values where not usable do not matter.
        reference: The same shape.
        usable: True where both may be compared, bool.

    Returns:
        The robust mean over squares of ``WINDOW_PX``; not measured where fewer than
        ``MIN_WINDOWS`` of them have clear ground with edges.
    """
    inner = _inside(usable)
    fields = [_orientation(image, inner) for image in (picture, reference)]
    found = []
    for top, left in _corners(picture.shape):
        cut = np.s_[top : top + WINDOW_PX, left : left + WINDOW_PX]
        if inner[cut].mean() >= MIN_USABLE:
            place = _match(fields[0][cut], fields[1][cut], inner[cut])
            if place is not None:
                found.append(place)
    return _agree(np.array(found).reshape(-1, 2))


def _corners(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    rows, cols = (_starts(size) for size in shape)
    return [(row, col) for row in rows for col in cols]


def _starts(size: int) -> list[int]:
    """Evenly from the first to the last square that fits."""
    room = size - WINDOW_PX
    if room < 0:
        return []
    n = min(room // STEP_PX + 1, MAX_PER_EDGE)
    return [round(room * i / max(n - 1, 1)) for i in range(n)]


def _inside(usable: np.ndarray) -> np.ndarray:
    """Pixels whose gradient, after the blur, sees usable ones only: three pixels each way."""
    from scipy.ndimage import binary_erosion

    return np.asarray(binary_erosion(usable, np.ones((3, 3), bool), iterations=3))


def _orientation(image: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Squared gradient, its length bounded; complex64, 0 where not inside."""
    field = np.zeros(image.shape, np.complex64)
    if not inner.any():
        return field
    # squaring doubles the frequencies: without the blur they fold back and pull to whole pixels
    values = _blur(_blur(image.astype(np.float32)).T).T
    gradient = np.zeros(image.shape, np.complex64)
    gradient.real[1:-1, 1:-1] = values[1:-1, 2:] - values[1:-1, :-2]
    gradient.imag[1:-1, 1:-1] = values[2:, 1:-1] - values[:-2, 1:-1]
    strength = gradient.real**2 + gradient.imag**2
    typical = float(np.median(strength[inner])) + 1e-6
    field[inner] = gradient[inner] ** 2 / (strength[inner] + typical)
    return field


def _blur(image: np.ndarray) -> np.ndarray:
    """Binomial blur along the rows' axis, twice [1 2 1] / 4; the border stays."""
    out = image.copy()
    for _ in range(2):
        out[1:-1] = (out[:-2] + 2 * out[1:-1] + out[2:]) / 4
    return out


def _match(one: np.ndarray, other: np.ndarray, inner: np.ndarray) -> tuple[float, float] | None:
    """(down, right) of the peak of the correlation; None where none stands out."""
    from scipy.fft import fft2, ifft2  # of single precision, unlike numpy's

    taper = np.hanning(WINDOW_PX + 2)[1:-1].astype(np.float32)
    weight = taper[:, None] * taper[None, :] * inner
    cross = fft2(one * weight) * np.conj(fft2(other * weight))
    surface = np.fft.fftshift(ifft2(cross).real)
    middle = WINDOW_PX // 2
    near = np.s_[middle - REACH_PX : middle + REACH_PX + 1]
    row, col = divmod(int(surface[near, near].argmax()), 2 * REACH_PX + 1)
    peak = float(surface[near, near][row, col])
    rows, cols = np.ogrid[-middle:middle, -middle:middle]
    down, right = row - REACH_PX, col - REACH_PX
    away = np.hypot(rows - down, cols - right)
    others = surface[(away > _AROUND_PX) & (away < 4 * _AROUND_PX)]
    if peak <= 0 or peak < MIN_PEAK * float(others.max()):
        return None
    return _refine(cross, down, right)


def _refine(cross: np.ndarray, down: int, right: int) -> tuple[float, float] | None:
    """The peak within a pixel around, by the inverse DFT at fractions of pixels."""
    steps = np.arange(-_UP, _UP + 1) / _UP
    wave = 2j * np.pi * np.fft.fftfreq(WINDOW_PX)
    rows = np.exp(np.multiply.outer(down + steps, wave))
    cols = np.exp(np.multiply.outer(wave, right + steps))
    fine = (rows @ cross @ cols).real
    row, col = divmod(int(fine.argmax()), len(steps))
    return float(down + steps[row]), float(right + steps[col])


def _agree(places: np.ndarray) -> Shift:
    """Mean of the places that lie near their median, dims (window, 2)."""
    if len(places) < MIN_WINDOWS:
        return Shift(np.nan, np.nan, np.nan, len(places))
    middle = np.median(places, axis=0)
    away = np.hypot(*(places - middle).T)
    limit = 3 * 1.4826 * float(np.median(away)) + 1 / _UP
    kept = places[away <= limit]
    if len(kept) < MIN_WINDOWS:
        return Shift(np.nan, np.nan, np.nan, len(kept))
    mean = kept.mean(axis=0)
    spread = float(np.sqrt(((kept - mean) ** 2).mean()))
    # neighbouring squares share three quarters of their ground or half: count a quarter of them
    error = max(spread, 1 / _UP) / np.sqrt(max(len(kept) / 4, 1))
    return Shift(float(mean[0]), float(mean[1]), float(error), len(kept))
