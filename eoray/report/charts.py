"""Charts as inline SVG: no script, no font of their own, readable in print and aloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
INK, MUTED, RULE, ACCENT, SOFT = "#18222c", "#5b6876", "#e1e6ea", "#0f6170", "#b9d3d6"


@dataclass(frozen=True, slots=True)
class Interval:
    """One row of an interval chart."""

    label: str
    value: float
    low: float
    high: float
    other: float | None = None
    """A second figure to compare with, drawn as an open diamond."""
    color: str = ACCENT


def bar_chart(values: Mapping[str, float], *, title: str, unit: str, form: str = ",.0f") -> str:
    """Draw upright bars, one per label, each with its figure.

    Args:
        values: Label -> value, not negative.
        title: What a screen reader says.
        unit: Written over the axis.
        form: Format of the figures.
    """
    height, base, top = 230, 190, 42
    peak = max(values.values(), default=0.0) or 1.0
    step = WIDTH / max(len(values), 1)
    bar = min(step * 0.62, 88)
    parts = [_text(0, 18, unit, MUTED, 12), _line(0, base, WIDTH, base)]
    for i, (label, value) in enumerate(values.items()):
        x = step * (i + 0.5)
        h = (base - top) * value / peak
        parts.append(_rect(x - bar / 2, base - h, bar, h, ACCENT))
        parts.append(_text(x, base - h - 7, format(value, form), INK, 13, "middle"))
        parts.append(_text(x, base + 20, label, MUTED, 12, "middle"))
    return _svg(height, title, parts)


def range_chart(rows: Mapping[str, tuple[float, float, float]], *, title: str, unit: str) -> str:
    """Draw upright ranges (low to high) with the middle marked, one per label."""
    height, base, top = 240, 196, 40
    peak = max((high for _, _, high in rows.values()), default=0.0) or 1.0
    step = (WIDTH - 36) / max(len(rows), 1)
    bar = min(step * 0.5, 64)
    parts = [_text(0, 18, unit, MUTED, 12)]
    for mark in _ticks(peak):
        y = base - (base - top) * mark / peak
        parts += [_line(36, y, WIDTH, y), _text(28, y + 4, f"{mark:g}", MUTED, 12, "end")]
    for i, (label, (low, middle, high)) in enumerate(rows.items()):
        x = 36 + step * (i + 0.5)
        y0, y1, y2 = (base - (base - top) * value / peak for value in (low, middle, high))
        parts.append(_rect(x - bar / 2, y2, bar, max(y0 - y2, 2), SOFT))
        parts.append(_rect(x - bar / 2, y1 - 2, bar, 4, ACCENT))
        parts.append(_text(x, y2 - 7, f"{middle:g}", INK, 13, "middle"))
        parts.append(_text(x, base + 20, label, MUTED, 12, "middle"))
    return _svg(height, title, parts)


def interval_chart(rows: Sequence[Interval], *, title: str, unit: str) -> str:
    """Draw a dot with its interval per row, and an open diamond for the figure to compare."""
    left, right, line = 170, WIDTH - 24, 36
    base = 30 + line * len(rows)
    peak = max((max(row.high, row.other or 0.0) for row in rows), default=0.0) or 1.0

    def at(value: float) -> float:
        return left + (right - left) * max(value, 0.0) / peak

    parts = []
    for mark in _ticks(peak):
        parts.append(_line(at(mark), 16, at(mark), base))
        parts.append(_text(at(mark), base + 18, f"{mark:,g}", MUTED, 12, "middle"))
    parts.append(_text(right, base + 38, unit, MUTED, 12, "end"))
    for i, row in enumerate(rows):
        y = 16 + line * (i + 0.5)
        parts.append(_rect(0, y - 6, 12, 12, row.color))
        parts.append(_text(20, y + 4.5, row.label, INK, 13))
        parts.append(_rect(at(row.low), y - 2, max(at(row.high) - at(row.low), 1), 4, SOFT))
        parts.append(f'<circle cx="{at(row.value):.1f}" cy="{y:.1f}" r="4.5" fill="{ACCENT}"/>')
        if row.other is not None:
            x = at(row.other)
            parts.append(
                f'<path d="M{x:.1f} {y - 8:.1f}l8 8-8 8-8-8z" fill="none" '
                f'stroke="{INK}" stroke-width="1.6"/>'
            )
    return _svg(base + 46, title, parts)


def strip_chart(values: Mapping[str, float], *, title: str, form: str = ",.1f") -> str:
    """Draw lying bars, one per label, with figures at their ends."""
    left, right, line = 90, WIDTH - 70, 30
    peak = max(values.values(), default=0.0) or 1.0
    parts = []
    for i, (label, value) in enumerate(values.items()):
        y, w = 8 + line * i, (right - left) * value / peak
        parts.append(_text(0, y + 15, label, INK, 13))
        parts.append(_rect(left, y, max(w, 1.5), 20, ACCENT))
        parts.append(_text(left + w + 8, y + 15, format(value, form), INK, 13))
    return _svg(14 + line * len(values), title, parts)


def _ticks(peak: float) -> list[float]:
    power = 1.0
    while peak / power >= 10:
        power *= 10
    while peak / power < 1:
        power /= 10
    step = next(s * power for s in (0.2, 0.5, 1.0, 2.0) if peak / (s * power) <= 6)
    return [round(step * i, 12) for i in range(int(peak / step + 1e-9) + 1)]


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, color: str, size: int, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" font-size="{size}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{RULE}" fill="none"/>'


def _rect(x: float, y: float, w: float, h: float, color: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="1.5" fill="{color}"/>'
    )
