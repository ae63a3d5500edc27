"""A reference record for change detection: years of Sentinel-2-like dates with known breaks.

Six bands (blue, green, red, narrow near infrared, two short-wave infrared) of a small landscape.
Seasons are double-logistic curves, so the record shares no model with the harmonic engine. What
makes it hard is switched on one by one: ``orbit`` (directional gain of two relative orbits),
``registration`` (shifts, larger in the first half), ``omission`` (undetected cloud in runs of
dates), ``rotation`` (another crop every year). Droughts, floods, mowing and single undetected
clouds are always there and are not change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter, shift

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
HARD = ("orbit", "registration", "omission", "rotation")
KINDS = ("none", "clear-cut", "building", "fire", "decline")
DECLINE = 4

# Reflectance x 1000 in winter and at the height of summer, start and end of season (day of year).
_COVERS = {
    "evergreen": ([24, 38, 27, 210, 105, 48], [26, 44, 29, 265, 118, 54], 110, 290),
    "deciduous": ([38, 52, 58, 165, 190, 115], [24, 50, 28, 400, 165, 70], 118, 285),
    "crop": ([70, 92, 118, 195, 270, 215], [38, 72, 45, 430, 200, 105], 95, 190),
    "grass": ([48, 72, 74, 230, 225, 140], [36, 72, 48, 380, 215, 110], 88, 300),
    "urban": ([100, 115, 130, 190, 215, 190], [108, 122, 138, 205, 225, 198], 100, 280),
    "water": ([46, 42, 30, 20, 12, 9], [38, 40, 26, 16, 9, 7], 100, 280),
}
_NAMES = tuple(_COVERS)
_BARE = np.array([75, 100, 130, 230, 310, 240]) / 1000
_BURNT = np.array([45, 50, 58, 95, 150, 165]) / 1000
_BUILT = np.array([120, 135, 150, 215, 240, 215]) / 1000
_NOISE = np.array([6, 6, 7, 13, 11, 9]) / 1000
_ORBIT = np.array([0.06, 0.07, 0.09, 0.08, 0.07, 0.08])
_CLOUD = np.array([1.0, 0.97, 0.95, 0.8, 0.6, 0.5])


@dataclass(frozen=True, slots=True)
class Options:
    """What the record is like."""

    seed: int = 1
    size_px: int = 128
    years: int = 10
    step_days: int = 5
    dates_per_year: int | None = None
    """Keep this many dates a year, drawn at random; None keeps all."""
    change: bool = True
    prevalence: float = 0.03
    hard: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Record:
    """A record and its truth."""

    reflectance: np.ndarray
    """int16 (time, band, y, x), reflectance x 10000."""
    clear: np.ndarray
    """bool (time, y, x)."""
    day: np.ndarray
    """int64 (time), days since 1970-01-01."""
    orbit: np.ndarray
    """int64 (time)."""
    kind: np.ndarray
    """uint8 (y, x), index into KINDS."""
    date: np.ndarray
    """int32 (y, x), day of the change or of its onset, 0 where none."""
    fraction: np.ndarray
    """float32 (y, x), share of the pixel that changes."""
    cover: np.ndarray
    """uint8 (y, x), land cover before the change."""


def make_record(options: Options) -> Record:
    """Render a record; the same options give the same bytes."""
    rng = np.random.default_rng(options.seed)
    n = options.size_px
    first = int(np.datetime64("2016-01-01").astype(int))
    day, orbit = _dates(options, first, rng)
    cover = np.stack([_field(rng, n, 6) for _ in _NAMES]).argmax(0).astype(np.uint8)
    kind, date, fraction = _changes(options, cover, first, rng)
    land = _Land(options, cover, first, rng)
    # Weather draws come from a stream of their own: the land is the same with any set of dates.
    rng = np.random.default_rng([options.seed, 1])
    omitted = _Omission("omission" in options.hard, n, rng)
    reflectance = np.empty((len(day), len(BANDS), n, n), np.int16)
    clear = np.empty((len(day), n, n), bool)
    for t, d in enumerate(day.tolist()):
        scene = land.at(d)
        if options.change:
            scene = _apply_change(scene, kind, date, fraction, d)
        scene = gaussian_filter(scene, (0, 0.5, 0.5))
        if "registration" in options.hard:
            spread = 0.35 if t < len(day) / 2 else 0.14
            move = np.clip(rng.normal(0, spread, 2), -1, 1) + (0.3 if t < len(day) / 2 else 0.0)
            scene = shift(scene, (0, *move), order=1, mode="nearest")
        if "orbit" in options.hard:
            sign = 1 if orbit[t] else -1
            scene = scene * (1 + sign * 0.5 * _ORBIT * (1 + 0.3 * land.season(d)))[:, None, None]
        haze = 0.004 * (rng.standard_normal() + _field(rng, n, 25))
        scene = scene + haze * _CLOUD[:, None, None]
        scene = scene + _NOISE[:, None, None] * rng.standard_normal(scene.shape)
        clear[t] = _clear(rng, n, d)
        scene = omitted.spoil(scene)
        reflectance[t] = np.clip(np.rint(scene * 1e4), -1000, 20000)
    return Record(reflectance, clear, day, orbit, kind, date, fraction, cover)


def _dates(options: Options, first: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    day = first + np.arange(0, int(options.years * 365.25), options.step_days)
    orbit = np.arange(len(day)) % 2
    if options.dates_per_year is not None:
        keep = options.dates_per_year * options.years
        chosen = np.sort(rng.choice(len(day), min(keep, len(day)), replace=False))
        day, orbit = day[chosen], orbit[chosen]
    return day.astype(np.int64), orbit.astype(np.int64)


def _field(rng: np.random.Generator, n: int, sigma: float) -> np.ndarray:
    values = gaussian_filter(rng.standard_normal((n, n)), sigma)
    return (values - values.mean()) / values.std()


def _changes(
    options: Options, cover: np.ndarray, first: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches of 1 to 500 pixels, log-uniform in size, on land where the kind makes sense."""
    n = cover.shape[0]
    kind = np.zeros((n, n), np.uint8)
    date = np.zeros((n, n), np.int32)
    fraction = np.zeros((n, n), np.float32)
    begin, end = first + 500, first + int(options.years * 365.25) - 200
    target = options.prevalence * n * n
    allowed = {1: (0, 1), 2: (2, 3), 3: (0, 1, 3), 4: (0, 1)}
    for _ in range(20_000):
        if (kind > 0).sum() >= target:
            break
        k = int(rng.integers(1, len(KINDS)))
        size = min(int(np.exp(rng.uniform(0, np.log(500)))), int(target - (kind > 0).sum()) + 1)
        y, x = rng.integers(0, n, 2)
        if cover[y, x] not in allowed[k]:
            continue
        yy, xx = np.mgrid[0:n, 0:n]
        rough = np.hypot(yy - y, xx - x) + 0.8 * rng.standard_normal((n, n))
        nearest = np.argsort(rough, axis=None, kind="stable")[:size]
        patch = np.zeros((n, n), bool)
        patch.flat[nearest] = True
        patch &= np.isin(cover, allowed[k])
        if (gaussian_filter((kind > 0).astype(float), 1.5)[patch] > 0.01).any():
            continue
        kind[patch] = k
        date[patch] = rng.integers(begin, end)
        fraction[patch] = np.clip(
            rng.beta(1.6, 1.0) + 0.1 * rng.standard_normal(patch.sum()), 0.12, 1
        )
    return kind, date, fraction


class _Land:
    """Clean reflectance of the unchanged landscape at any day."""

    def __init__(
        self, options: Options, cover: np.ndarray, first: int, rng: np.random.Generator
    ) -> None:
        n, years = options.size_px, options.years + 1
        self.first = first
        low = np.array([_COVERS[c][0] for c in _NAMES]) / 1000
        high = np.array([_COVERS[c][1] for c in _NAMES]) / 1000
        gain = 1 + 0.08 * rng.standard_normal((n, n))
        self.low = np.moveaxis(low[cover], -1, 0) * gain
        self.high = np.moveaxis(high[cover], -1, 0) * gain
        self.start = np.array([_COVERS[c][2] for c in _NAMES], float)[cover]
        self.end = np.array([_COVERS[c][3] for c in _NAMES], float)[cover]
        self.start = self.start + 6 * _field(rng, n, 10)
        self.shift = 7 * rng.standard_normal(years)
        self.vigour = 1 + 0.08 * rng.standard_normal(years)
        fields = rng.integers(0, 2, (years, n // 8 + 1, n // 8 + 1))
        self.summer = fields.repeat(8, 1).repeat(8, 2)[:, :n, :n] * (cover == 2)
        if "rotation" not in options.hard:
            self.summer = np.zeros_like(self.summer)
        blocks = (6, n // 8 + 1, n // 8 + 1)
        span = int(options.years * 365.25)
        self.pulse_on = self._blocks(rng.integers(first, first + span, blocks), n)
        self.pulse_days = self._blocks(rng.integers(40, 150, blocks), n)
        depth = np.where(rng.random(blocks) < 0.12, rng.uniform(0.1, 0.6, blocks), 0)
        self.pulse = self._blocks(depth, n) * (cover != 4) * (cover != 5)
        self.mown = self._blocks(rng.integers(130, 260, (years, *blocks[1:])), n) * (cover == 3)

    @staticmethod
    def _blocks(values: np.ndarray, n: int) -> np.ndarray:
        return values.repeat(8, 1).repeat(8, 2)[:, :n, :n]

    def season(self, day: int) -> float:
        """Height of the sun's year, -1 in winter to 1 in summer."""
        return float(-np.cos(2 * np.pi * ((day - self.first) % 365.25) / 365.25))

    def at(self, day: int) -> np.ndarray:
        """Reflectance (band, y, x)."""
        year = int((day - self.first) / 365.25)
        doy = (day - self.first) % 365.25 - self.shift[year]
        late = 70 * self.summer[year]
        rise = 1 / (1 + np.exp(-(doy - self.start - late) / 9))
        fall = 1 / (1 + np.exp(-(doy - self.end - late) / 11))
        green = np.clip((rise - fall) * self.vigour[year], 0, 1.2)
        since = doy - self.mown[year]
        cut = np.where((self.mown[year] > 0) & (since > 0), 0.7 * np.exp(-since / 20), 0)
        green = green * (1 - cut)
        u = (day - self.pulse_on) / self.pulse_days
        wave = np.where((u > 0) & (u < 1), np.sin(np.pi * np.clip(u, 0, 1)), 0)
        dry = (wave * self.pulse).max(0)
        scene = self.low + (self.high - self.low) * green
        return np.asarray(scene * (1 - dry) + _BARE[:, None, None] * dry)


class _Omission:
    """Cloud and shadow that the mask misses: 3 % of pixels, singly or in runs of dates."""

    def __init__(self, runs: bool, n: int, rng: np.random.Generator) -> None:  # noqa: FBT001
        self.runs, self.n, self.rng = runs, n, rng
        self.left = np.zeros((n, n), int)

    def spoil(self, scene: np.ndarray) -> np.ndarray:
        rng, n = self.rng, self.n
        if self.runs:
            chosen = _field(rng, n, 3) > 2.57
            self.left = np.where(chosen & (self.left == 0), 6, np.maximum(self.left - 1, 0))
            hit = self.left > 0
        else:
            hit = rng.random((n, n)) < 0.03
        shadow = hit & (rng.random((n, n)) < 0.33)
        bright = rng.uniform(0.06, 0.35, (n, n)) * (hit & ~shadow)
        scene = scene + bright * _CLOUD[:, None, None]
        return np.asarray(np.where(shadow, scene * rng.uniform(0.35, 0.65, (n, n)), scene))


def _clear(rng: np.random.Generator, n: int, day: int) -> np.ndarray:
    cloudiness = np.clip(rng.beta(0.55, 0.8) + 0.12 * np.cos(2 * np.pi * (day - 15) / 365.25), 0, 1)
    sky = gaussian_filter(rng.standard_normal((n, n)), 12)
    return np.asarray(sky <= np.quantile(sky, 1 - cloudiness))


def _apply_change(
    scene: np.ndarray, kind: np.ndarray, date: np.ndarray, fraction: np.ndarray, day: int
) -> np.ndarray:
    age = (day - date) / 365.25
    on = (kind > 0) & (age >= 0)
    weight = np.where(on, fraction, 0.0)
    weight = np.where(kind == 1, weight * np.exp(-np.maximum(age, 0) / 6), weight)
    weight = np.where(kind == 3, 0.8 * weight * np.exp(-np.maximum(age, 0) / 2.5), weight)
    weight = np.where(kind == DECLINE, weight * np.clip(age / 1.5, 0, 1), weight)
    after = np.stack([_BARE, _BARE, _BUILT, _BURNT, _BARE])[kind]
    return np.asarray(scene * (1 - weight) + np.moveaxis(after, -1, 0) * weight)
