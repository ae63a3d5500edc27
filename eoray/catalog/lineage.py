"""The collection of record: which processings a cube may hold, and what the archive lacks of them.

Two processings of one acquisition are different data (geometry, SCL, aerosol and DEM differ, not
the offset alone), so a cube keeps to one family of baselines and one provider unless told to mix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from eoray.catalog.offset import FIRST_WITH_OFFSET, NON_OPERATIONAL
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene

COLLECTION_1 = "05.00"
"""First baseline of Collection 1, which reprocessed 2015-2021 and goes on with 05.09 and later."""

_BASELINE = re.compile(r"\d{2}\.\d{2}")

_REPEAT_DAYS = 10

_NOMINAL = (date(2015, 7, 1), date(2017, 7, 1))
"""Days from which one, then two satellites fly the nominal plan: S2A alone, then S2A and S2B.

From 2025 on S2C flies in S2A's place; S2A's later campaigns repeat in 20 days and come on top, so
the expected cadence stays that of two."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What may stand in one cube."""

    baseline_min: str | None = COLLECTION_1
    """Lowest processing baseline; None takes any one family of baselines."""
    mixed: bool = False
    """Let families of baselines, or providers, stand side by side."""
    provider: str = ""
    """Keep to this provider's items; "" takes the one that the items are from."""

    def parameters(self) -> dict[str, Any]:
        """The lineage as stored attributes."""
        return {
            "baseline_min": self.baseline_min,
            "mixed": self.mixed,
            "provider": self.provider,
        }

    def includes(self, baseline: str) -> bool:
        """Tell whether a baseline belongs to the lineage, mixing apart."""
        if self.baseline_min is None:
            return True
        return baseline >= self.baseline_min and not (
            baseline == NON_OPERATIONAL != self.baseline_min
        )


def baseline_family(baseline: str) -> str:
    """Name the family of processings that a baseline belongs to.

    Args:
        baseline: Such as ``05.10``; a date of several reads ``05.10+05.11``.

    Returns:
        The family; of several, all of them joined by " + ".
    """
    return " + ".join(sorted({_family(part) for part in baseline.split("+")}))


def _family(baseline: str) -> str:
    if not _BASELINE.fullmatch(baseline):
        return "unknown"
    if baseline == NON_OPERATIONAL:
        return NON_OPERATIONAL
    if baseline < FIRST_WITH_OFFSET:
        return f"before {FIRST_WITH_OFFSET}"
    return "04" if baseline < COLLECTION_1 else f"collection 1 ({COLLECTION_1} or later)"


def check_lineage(scenes: Sequence[Scene], lineage: Lineage) -> None:
    """Refuse scenes that do not belong together.

    Raises:
        ConfigError: Baselines below the lineage's, several families of baselines, or several
            providers, and the lineage is not mixed. The message counts what was found.
    """
    if lineage.mixed or not scenes:
        return
    baselines = _counted(s.baseline or "unknown" for s in scenes)
    outside = [s for s in scenes if not lineage.includes(s.baseline)]
    if outside:
        raise ConfigError(
            f"{len(outside)} of {len(scenes)} scenes have a processing baseline outside the "
            f"lineage ({lineage.baseline_min} or later), such as item {outside[0].item_id}; found "
            f"{baselines}; set source.lineage.baseline_min lower, choose another collection, or "
            "say source.lineage.mixed: true"
        )
    families = {baseline_family(s.baseline) for s in scenes}
    if len(families) > 1:
        raise ConfigError(
            f"the scenes mix processing baselines ({', '.join(sorted(families))}); found "
            f"{baselines}; set source.lineage.baseline_min, shorten time, or say "
            "source.lineage.mixed: true"
        )
    providers = {s.provider for s in scenes}
    if len(providers) > 1:
        raise ConfigError(
            f"the scenes come from {len(providers)} providers "
            f"({_counted(s.provider for s in scenes)}); choose one catalogue, or say "
            "source.lineage.mixed: true"
        )


@dataclass(frozen=True, slots=True)
class OrbitCadence:
    """Passes of one relative orbit against what the satellites in service would give."""

    relative_orbit: int
    n_found: int
    """Datatakes found."""
    n_expected: int
    """Passes of the nominal plan in the period: 10 days apart with one satellite, 5 with two."""

    @property
    def lacking_pct(self) -> float:
        """Share of the expected passes that the archive lacks, 0..100."""
        if not self.n_expected:
            return 0.0
        return 100.0 * max(0.0, 1.0 - self.n_found / self.n_expected)


@dataclass(frozen=True, slots=True)
class LineageReport:
    """What a set of scenes is made of. Counts are of datatakes (dates), not of items."""

    n_scenes: int
    n_datatakes: int
    by_baseline: tuple[tuple[str, int], ...]
    by_satellite: tuple[tuple[str, int], ...]
    by_refined: tuple[tuple[str, int], ...]
    by_provider: tuple[tuple[str, int], ...]
    by_offset_rule: tuple[tuple[str, int], ...]
    orbits: tuple[OrbitCadence, ...]
    """Known relative orbits in order; empty where no item names one."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        counts = {name: dict(getattr(self, name)) for name in _COUNTED}
        orbits = [
            {
                "relative_orbit": o.relative_orbit,
                "n_found": o.n_found,
                "n_expected": o.n_expected,
                "lacking_pct": round(o.lacking_pct, 1),
            }
            for o in self.orbits
        ]
        return {
            "n_scenes": self.n_scenes,
            "n_datatakes": self.n_datatakes,
            **counts,
            "orbits": orbits,
        }

    def lines(self) -> list[str]:
        """The report as lines of text for a terminal."""
        out = [f"{self.n_datatakes} datatakes in {self.n_scenes} items"]
        for name, label in _COUNTED.items():
            pairs = ", ".join(f"{value} x {n}" for value, n in getattr(self, name))
            out.append(f"{label}: {pairs}")
        out += [
            f"relative orbit {o.relative_orbit}: {o.n_found} of about {o.n_expected} passes, "
            f"{o.lacking_pct:.0f} % lacking"
            for o in self.orbits
        ]
        return out


_COUNTED = {
    "by_baseline": "baseline",
    "by_satellite": "satellite",
    "by_refined": "geometric refinement",
    "by_provider": "provider",
    "by_offset_rule": "offset rule",
}


def describe_lineage(
    scenes: Sequence[Scene], *, start: datetime | None = None, end: datetime | None = None
) -> LineageReport:
    """Count what the scenes are made of and hold them against the expected cadence.

    Args:
        scenes: Resolved scenes.
        start: Begin of the period asked for; the first scene's time if absent.
        end: End of the period, not included; the last scene's time if absent.

    Returns:
        A datatake whose items differ (two baselines, say) is counted under each value.
    """
    return LineageReport(
        n_scenes=len(scenes),
        n_datatakes=len({s.datatake for s in scenes}),
        by_baseline=_by_datatake(scenes, lambda s: s.baseline or "unknown"),
        by_satellite=_by_datatake(scenes, lambda s: s.satellite),
        by_refined=_by_datatake(scenes, _refinement),
        by_provider=_by_datatake(scenes, lambda s: s.provider),
        by_offset_rule=_by_datatake(scenes, lambda s: f"{s.offset_rule} {s.dn_offset:+d}"),
        orbits=_orbits(scenes, start, end),
    )


def _orbits(
    scenes: Sequence[Scene], start: datetime | None, end: datetime | None
) -> tuple[OrbitCadence, ...]:
    if not scenes:
        return ()
    times = sorted(_day(s.sensing_time) for s in scenes)
    first = start.date() if start else times[0]
    last = end.date() if end else date.fromordinal(times[-1].toordinal() + 1)
    expected = round(sum(_days_after(since, first, last) for since in _NOMINAL) / _REPEAT_DAYS)
    passes: dict[int, set[str]] = {}
    for scene in scenes:
        if scene.relative_orbit:
            passes.setdefault(scene.relative_orbit, set()).add(scene.datatake)
    return tuple(OrbitCadence(orbit, len(passes[orbit]), expected) for orbit in sorted(passes))


def _days_after(since: date, first: date, last: date) -> int:
    return max(0, (last - max(since, first)).days)


def _day(sensing_time: str) -> date:
    return date.fromisoformat(sensing_time[:10])


def _refinement(scene: Scene) -> str:
    return {True: "refined", False: "not refined", None: "not stated"}[scene.refined]


def _by_datatake(
    scenes: Sequence[Scene], value: Callable[[Scene], str]
) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(v for _, v in {(s.datatake, value(s)) for s in scenes}).items()))


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({n})" for value, n in sorted(Counter(values).items()))
