"""The collection of record: which processings a cube may hold, and what they are.

Two processings of one acquisition are different data (geometry, SCL, aerosol and DEM differ, not
the offset alone), so a cube keeps to one family of baselines and one provider unless told to mix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eoray.catalog.offset import FIRST_WITH_OFFSET, NON_OPERATIONAL
from eoray.errors import ConfigError

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene

COLLECTION_1 = "05.00"
"""First baseline of Collection 1, which reprocessed 2015-2021 and goes on with 05.09 and later."""

_BASELINE = re.compile(r"\d{2}\.\d{2}")


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
class LineageReport:
    """What a set of scenes is made of. Counts are of datatakes (dates), not of items."""

    n_scenes: int
    n_datatakes: int
    by_baseline: tuple[tuple[str, int], ...]
    by_satellite: tuple[tuple[str, int], ...]
    by_refined: tuple[tuple[str, int], ...]
    by_provider: tuple[tuple[str, int], ...]
    by_offset_rule: tuple[tuple[str, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        counts = {name: dict(getattr(self, name)) for name in _COUNTED}
        return {
            "n_scenes": self.n_scenes,
            "n_datatakes": self.n_datatakes,
            **counts,
        }

    def lines(self) -> list[str]:
        """The report as lines of text for a terminal."""
        out = [f"{self.n_datatakes} datatakes in {self.n_scenes} items"]
        for name, label in _COUNTED.items():
            pairs = ", ".join(f"{value} x {n}" for value, n in getattr(self, name))
            out.append(f"{label}: {pairs}")
        return out


_COUNTED = {
    "by_baseline": "baseline",
    "by_satellite": "satellite",
    "by_refined": "geometric refinement",
    "by_provider": "provider",
    "by_offset_rule": "offset rule",
}


def describe_lineage(scenes: Sequence[Scene]) -> LineageReport:
    """Count what the scenes are made of; what is missing says ``catalog.audit``.

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
    )


def _refinement(scene: Scene) -> str:
    return {True: "refined", False: "not refined", None: "not stated"}[scene.refined]


def _by_datatake(
    scenes: Sequence[Scene], value: Callable[[Scene], str]
) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(v for _, v in {(s.datatake, value(s)) for s in scenes}).items()))


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({n})" for value, n in sorted(Counter(values).items()))
