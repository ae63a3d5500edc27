"""Weather that covers the ground for some days: floods and snow."""

from __future__ import annotations

from datetime import date

from eoray.testing.noise import generator
from eoray.testing.options import ArchiveOptions


def flood_level_m(day: date, options: ArchiveOptions, site: str) -> float:
    """Height of the river above normal: one or two floods of some weeks a year, or none."""
    if not options.disturbances:
        return 0.0
    rng = generator(options.seed, "flood", site, day.year)
    level = 0.0
    for _ in range(int(rng.integers(1, 3))):
        peak, length, height = rng.integers(30, 340), rng.uniform(8, 22), rng.uniform(0.6, 2.2)
        away = abs(day.timetuple().tm_yday - peak)
        level = max(level, float(height * max(0.0, 1 - away / length)))
    return level


def snow_depth(day: date, options: ArchiveOptions, site: str) -> float:
    """How well snow covers open ground, 0 to 1.2: episodes of some weeks from December to March."""
    if not options.snow or site == "south":
        return 0.0
    winter = day.year if day.month <= 6 else day.year + 1
    rng = generator(options.seed, "snow", site, winter)
    since = (day - date(winter - 1, 12, 1)).days
    depth = 0.0
    for _ in range(int(rng.integers(2, 4))):
        start, length, most = rng.integers(5, 95), rng.uniform(14, 34), rng.uniform(0.7, 1.2)
        age = since - start
        if 0 <= age < length:
            depth = max(depth, float(most * (1 - 0.8 * age / length)))
    return depth
