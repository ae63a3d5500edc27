"""What a report says, as plain values; whoever ran the stages fills it in.

Every part may be missing: the page then says *not assessed*, *not run* or *not measured* in words,
never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eoray.publish.legend import LegendClass


@dataclass(frozen=True, slots=True)
class ReportView:
    """One part of the area, as pictures see it: a rectangle of one zone, north up."""

    title: str
    """Such as ``UTM zone 32 north``."""
    pixel_m: float
    """Ground size of a picture pixel, in metres; the arrays below share one shape."""
    true_color: np.ndarray | None = None
    """Reflectance x 10 000 of red, green and blue, dims (band, y, x), int16, fill -32768."""
    true_color_label: str = ""
    """What the picture shows, such as ``geomedian of 2023-07-01 to 2023-09-30``."""
    classes: np.ndarray | None = None
    """Class ids, dims (y, x), uint8, 0 not mapped."""
    probability: np.ndarray | None = None
    """Probability of the class, dims (y, x), float32, NaN where not mapped."""
    change_date: np.ndarray | None = None
    """Days since 1970-01-01 of the last break, dims (y, x), int32, 0 none, -1 outside."""
    monitored: np.ndarray | None = None
    """True where a break could have been found, dims (y, x), bool."""
    clear_per_year: np.ndarray | None = None
    """Mean number of clear observations in a year, dims (y, x), float32, NaN outside."""


@dataclass(frozen=True, slots=True)
class LineageRow:
    """Dates that share one processing history."""

    satellite: str
    baseline: str
    refined: str
    """``yes``, ``no`` or ``unknown``: registered to the global reference image."""
    provider: str
    n_dates: int
    first: str
    """Day of the first date, ISO."""
    last: str


@dataclass(frozen=True, slots=True)
class CadenceRow:
    """Passes of one satellite on one relative orbit, summed over tiles."""

    relative_orbit: int
    satellite: str
    n_found: int
    n_expected: int


@dataclass(frozen=True, slots=True)
class ArchiveAudit:
    """The catalogue held against the plan of the satellites."""

    rows: tuple[CadenceRow, ...]
    by_year: Mapping[int, tuple[int, int]]
    """Year -> (found, expected) passes, summed over tiles."""
    longest: tuple[str, ...] = ()
    """The longest runs of missing passes, in words."""


@dataclass(frozen=True, slots=True)
class InputSummary:
    """What went in."""

    collection: str
    n_scenes: int
    """Items of the catalogue."""
    n_dates: int
    """Datatakes, over all zones."""
    n_tiles: int
    """Tiles of the cube."""
    area_m2: float
    """True ground area of the owned pixels of those tiles."""
    tile_km: float = 10.24
    """Edge of a tile."""
    bytes_read: int = 0
    bands: tuple[str, ...] = ()
    lineage: tuple[LineageRow, ...] = ()
    missing_share: float | None = None
    """Share of the expected cadence that the archive lacks; None where not known."""
    audit: ArchiveAudit | None = None
    """What it lacks; None where not known."""
    clear_by_year: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    """Year -> (10 %, median, 90 %) over pixels of the number of clear observations."""


@dataclass(frozen=True, slots=True)
class ValidationScore:
    """How well a model reproduces held-out labels. No accuracy of the map, and named so."""

    overall: float
    """Share of held-out labelled pixels that are right."""
    mean_iou: float
    per_class: Mapping[str, Mapping[str, float]]
    """Class name -> ``precision``, ``recall``, ``f1``, ``n`` (labelled pixels)."""
    baseline_overall: float | None
    """The same score of a per-pixel nearest-mean classifier on the same split."""
    n_pixels: int
    """Held-out labelled pixels."""
    n_polygons: int
    """Held-out polygons: the number of independent places is nearer to this."""
    split: str
    """How labels were kept apart, in words."""


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Breaks reported on an archive in which nothing changed."""

    share: float
    """Share of monitored pixels with at least one break."""
    share_per_year: float
    years: float
    """Length of the record."""


@dataclass(frozen=True, slots=True)
class ChangeSummary:
    """What the change stage found."""

    monitored_m2: float
    """Area where a break could have been found at some time."""
    not_monitored_m2: float
    """Observed, but never long or often enough."""
    never_observed_m2: float
    changed_m2: float
    """Area of pixels with at least one break: mapped, hence biased."""
    by_year: Mapping[int, float] = field(default_factory=dict)
    """Year -> m2 whose last break is dated in it: mapped, hence biased."""
    median_bracket_days: float | None = None
    """Median width of (date_lo, date_hi]."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Against a known truth: ``f1``, ``precision``, ``recall``, ``median_date_error_days``,
    ``precision_at_1pct`` ... as far as measured."""
    recall_by_patch: Mapping[str, float] = field(default_factory=dict)
    """Patch size class -> recall."""
    false_alarms: FalseAlarms | None = None


@dataclass(frozen=True, slots=True)
class AlwaysCloud:
    """Bright targets of a tile that the mask calls cloud on nearly all dates."""

    tile: str
    n_px: int
    area_m2: float


@dataclass(frozen=True, slots=True)
class ScreenSummary:
    """What the temporal screen changed in the mask."""

    by_year: Mapping[int, Mapping[str, float]]
    """Year -> shares of the observed pixels: ``missed_cloud, missed_shadow, rescued, unjudged,
    clear`` (by the mask) and ``clear_with_screen``."""
    always_cloud: tuple[AlwaysCloud, ...] = ()


@dataclass(frozen=True, slots=True)
class DisplacedRow:
    """A date of a tile that lies far from the reference."""

    day: str
    tile: str
    shift_px: float
    error_px: float
    left_out: bool
    """Whether change did without it."""


@dataclass(frozen=True, slots=True)
class RegistrationSummary:
    """How far the dates of tiles lie from their reference; pixels of 10 m."""

    limit_px: float | None
    """Dates surely beyond are left out of change; None leaves out none."""
    n_measured: int
    n_unknown: int
    n_beyond: int
    by_year: Mapping[int, tuple[int, float, float] | None]
    """Year -> (dates, median, 95th percentile)."""
    before: tuple[int, float, float] | None
    """The same before the global reference image came into use everywhere."""
    since: tuple[int, float, float] | None
    histogram: Mapping[str, int]
    """Lower edge of a bin -> dates."""
    worst: tuple[DisplacedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the run."""

    name: str
    seconds: float
    tasks: int = 0
    skipped: int = 0
    """Tasks found done in the ledger."""
    failed_reads: int = 0


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """What the plan forecast of the reading, and what it was."""

    what: str
    forecast: float | None
    actual: float | None
    unit: str = ""
    """``B`` for bytes, ``min``, or nothing for a count."""


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """Something that was left out, and why."""

    what: str
    why: str
    count: int


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report says."""

    name: str
    title: str
    period: tuple[str, str]
    """First and last day of the run, ISO."""
    place: str
    """The area in words."""
    is_synthetic: bool
    """Made from a synthetic archive: said at the top and inside every picture."""
    input: InputSummary
    notice: str
    """The Copernicus notice, from ``publish.copernicus_notice``."""
    legend: tuple[LegendClass, ...] = ()
    views: tuple[ReportView, ...] = ()
    validation: ValidationScore | None = None
    assessment: Mapping[str, Any] | None = None
    """``Assessment.to_dict()``; None is printed as *not assessed*."""
    mapped_m2: Mapping[int, float] = field(default_factory=dict)
    """Class id -> mapped area (biased), for a map that was not assessed."""
    change: ChangeSummary | None = None
    screen: ScreenSummary | None = None
    """None: the mask is that of the scene classification alone."""
    registration: RegistrationSummary | None = None
    stages: tuple[StageRow, ...] = ()
    forecast: tuple[ForecastRow, ...] = ()
    """Of the cube stage's newest execution."""
    skipped: tuple[SkippedRow, ...] = ()
    limits: tuple[str, ...] = ()
    """Sentences that the stages add to those derived from the figures here."""
    licenses: Mapping[str, str] = field(default_factory=dict)
    """What -> licence, for labels, weights and products."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Versions and hashes: code, snapshot, plan, model, recipe, seeds."""
    peak_memory_bytes: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> path of an output, relative to the report's folder where possible."""
