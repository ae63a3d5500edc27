"""Numbers as people read them: one way to write areas, shares, times and intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eoray.report.markup import MISSING


def area(m2: float | None) -> str:
    """Write an area in the unit that keeps three digits: m2, ha or km2."""
    if m2 is None or not math.isfinite(m2):
        return MISSING
    if m2 >= 1e8:
        return f"{m2 / 1e6:,.0f} km²"
    if m2 >= 1e6:
        return f"{m2 / 1e6:.2f} km²" if m2 < 1e7 else f"{m2 / 1e6:.1f} km²"
    if m2 >= 1e4:
        return f"{m2 / 1e4:.1f} ha"
    return f"{m2:,.0f} m²"


def count(n: int, noun: str) -> str:
    """Write a number of things, in the plural where it needs one."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def hectares(m2: float | None) -> str:
    """Write an area in hectares, for columns that must share a unit."""
    if m2 is None or not math.isfinite(m2):
        return MISSING
    return f"{m2 / 1e4:,.1f}" if m2 < 1e8 else f"{m2 / 1e4:,.0f}"


def share(value: float | None, digits: int = 1) -> str:
    """Write a share as per cent."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.{digits}f} %"


def score(value: float | None) -> str:
    """Write a score between 0 and 1."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.3f}"


def with_interval(estimate: Mapping[str, Any]) -> str:
    """Write an estimated share with the half-width of its 95 % interval."""
    if estimate["value"] is None:
        return MISSING
    half = estimate["ci95_half_width"]
    text = f"{100 * estimate['value']:.1f}"
    return f"{text} ± {100 * half:.1f} %" if half is not None else f"{text} %"


def area_with_interval(estimate: Mapping[str, Any]) -> str:
    """Write an estimated area in hectares with the half-width of its 95 % interval."""
    if estimate["value"] is None:
        return MISSING
    return f"{hectares(estimate['value'])} ± {hectares(estimate['ci95_half_width'])}"


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def size(n: int | None) -> str:
    """Write a number of bytes with a decimal unit."""
    if n is None:
        return MISSING
    value, units = float(n), ("B", "kB", "MB", "GB", "TB", "PB")
    for unit in units:
        if value < 1000 or unit == units[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return MISSING
