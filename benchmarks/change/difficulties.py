"""What each difficulty of the synthetic archive costs change detection, as a markdown table.

    python benchmarks/change/difficulties.py                    # the table of docs/change.md
    python benchmarks/change/difficulties.py --seeds 51 52 --size 256 --cases plain hard

    python benchmarks/change/difficulties.py --views as-seen nbar nbar-alone orbit-blind low-sun \
        --cases plain "only orbits" hard                # the table on views

Rows: the plain archive, each difficulty alone, all of them, and all but one. Three years of 24
datatakes at 10 m. Counts of all seeds are added up before a ratio is taken. ``monitored`` is the
F1 of changes that began between ``monitored_from`` and ``monitored_to`` of their pixel; ``alarms``
counts breaks on the same archive without change, per monitored pixel and year; ``P 1 %`` is the
precision if 1 % of the land had changed. ``--views``: reflectance as it was seen (the default);
taken to the nadir view (``nbar``); that without the engine's own gains of orbits (``nbar-alone``);
neither (``orbit-blind``); without dates whose sun zenith is above 70 degrees (``low-sun``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from archive import ArchiveRecord, drop_low_sun, make_archive_record, to_nadir
from detection import detect

from eoray.change import warm_up
from eoray.change.score import ChangeScore, reweight_precision, score_breaks, score_no_change
from eoray.testing import ArchiveOptions
from eoray.testing.options import DIFFICULTIES as ALL

DIFFICULTIES = tuple(name for name in ALL if name != "label_noise")
"""Labels play no part here."""
SIZES = ("1", "2-5", "6-20", "21-100", ">100")
_HEAD = ("archive", "F1", "monitored", "P", "R", *(f"R {s} px" for s in SIZES), "date error d")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=160, help="edge in pixels of 10 m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[41, 42])
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--cases", nargs="+", default=list(all_cases()))
    parser.add_argument("--views", nargs="+", choices=list(VIEWS), default=["as-seen"])
    arguments = parser.parse_args()
    warm_up()
    head = (*_HEAD, "alarms % / year", "P 1 %")
    print_row(head)
    print_row(["---"] * len(head))
    rows = partial(measure, views=arguments.views, seeds=arguments.seeds, size_px=arguments.size)
    with ProcessPoolExecutor(arguments.workers) as pool:
        for found in pool.map(rows, arguments.cases):
            for cells in found:
                print_row(cells)


def as_seen(record: ArchiveRecord) -> ArchiveRecord:
    return record


def low_sun(record: ArchiveRecord) -> ArchiveRecord:
    return drop_low_sun(record, 70.0)


VIEWS: dict[str, tuple[Callable[[ArchiveRecord], ArchiveRecord], bool]] = {
    "as-seen": (as_seen, True),
    "nbar": (to_nadir, True),
    "nbar-alone": (to_nadir, False),
    "orbit-blind": (as_seen, False),
    "low-sun": (low_sun, True),
}
"""Name -> what is done to a record, and whether the engine is told its orbits."""


def look(record: ArchiveRecord, view: str) -> ArchiveRecord:
    change, tells_orbits = VIEWS[view]
    changed = change(record)
    return changed if tells_orbits else replace(changed, orbit=np.zeros_like(changed.orbit))


def all_cases() -> Iterable[str]:
    yield "plain"
    yield from (f"only {name}" for name in DIFFICULTIES)
    yield "hard"
    yield from (f"without {name}" for name in DIFFICULTIES)


def options_of(case: str, seed: int, size_px: int) -> ArchiveOptions:
    hard = ArchiveOptions(seed=seed, size_px=size_px, southern=False)
    if case == "hard":
        return hard
    if case == "plain":
        return hard.with_only()
    how, _, name = case.partition(" ")
    if how == "only":
        return hard.with_only(name)
    return hard.with_only(*(other for other in (*DIFFICULTIES, "label_noise") if other != name))


@dataclass(slots=True)
class Sum:
    """Counts over seeds."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
    stable: float = 0.0
    flagged: float = 0.0
    days: list[float] = field(default_factory=list)
    by_patch: dict[str, list[float]] = field(default_factory=dict)

    def add(self, score: ChangeScore) -> None:
        """Add the counts of one record."""
        self.right += score.true_positives
        self.wrong += score.false_positives
        self.missed += score.false_negatives
        stable = score.n_pixels - score.n_changed
        self.stable += stable
        self.flagged += score.false_alarm_share * stable
        self.days.append(score.date_error_median_days)
        for name, recall in score.recall_by_patch.items():
            self.by_patch.setdefault(name, []).append(recall)

    @property
    def precision(self) -> float:
        """Share of detections that are right."""
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        """Share of changed pixels that are found."""
        return self.right / max(self.right + self.missed, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.right / max(2 * self.right + self.wrong + self.missed, 1)


@dataclass(slots=True)
class Tally:
    """What one view of a case comes to, over seeds."""

    total: Sum = field(default_factory=Sum)
    within: Sum = field(default_factory=Sum)
    breaks: float = 0.0
    years: float = 0.0

    def add(self, record: ArchiveRecord, quiet: ArchiveRecord) -> None:
        """Judge a record, and the same without change."""
        found = detect(record)
        first, last = found["monitored_from"], found["monitored_to"]
        self.total.add(score_breaks(found, record.truth, judged=first > 0))
        date = record.truth.date
        seen = (first > 0) & ((date == 0) | ((date >= first) & (date <= last)))
        self.within.add(score_breaks(found, record.truth, judged=seen))
        still = detect(quiet)
        watched = still["monitored_to"] - still["monitored_from"]
        watched = float(watched[still["monitored_from"] > 0].clip(0).sum()) / 365.25
        self.breaks += score_no_change(still)["flagged_per_year"] * watched
        self.years += watched

    def cells(self, label: str) -> list[str]:
        """Its row of the table."""
        total = self.total
        sizes = [f"{np.nanmean(total.by_patch.get(name, [np.nan])):.2f}" for name in SIZES]
        at_one = reweight_precision(total.recall, total.flagged / total.stable, prevalence=0.01)
        scores = (total.f1, self.within.f1, total.precision, total.recall)
        return [
            label,
            *(f"{v:.2f}" for v in scores),
            *sizes,
            f"{np.nanmedian(total.days):.0f}",
            f"{100 * self.breaks / self.years:.2f}",
            f"{at_one:.2f}",
        ]


def measure(case: str, views: Sequence[str], seeds: Sequence[int], size_px: int) -> list[list[str]]:
    """Cells of a row of the table for each view; records are drawn once."""
    tallies = {view: Tally() for view in views}
    for seed in seeds:
        options = options_of(case, seed, size_px)
        record = make_archive_record(options)
        quiet = make_archive_record(replace(options, change=False))
        for view, tally in tallies.items():
            tally.add(look(record, view), look(quiet, view))
    return [
        tally.cells(case if view == "as-seen" else f"{case}, {view}")
        for view, tally in tallies.items()
    ]


def print_row(cells: Iterable[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
