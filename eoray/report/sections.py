"""The sections of the page, in order, and its first figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from eoray.report import charts, figures, pictures
from eoray.report.change_sections import alarm_section, change_section
from eoray.report.data import ReportData
from eoray.report.glance import frame_of
from eoray.report.limits import derive_limits
from eoray.report.map_sections import area_section, map_section, picture_section
from eoray.report.markup import (
    MISSING,
    NOT_ASSESSED,
    bullets,
    figure,
    grid,
    paragraph,
    picture,
    table,
)
from eoray.report.screen_sections import mask_section, registration_section


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    id: str
    """Anchor."""
    title: str
    make: Callable[[ReportData], str]
    """Gives the HTML below the heading."""


def headline(data: ReportData) -> list[tuple[str, str, str]]:
    """List the first figures of the page as (name, value, note)."""
    source = data.input
    found = [
        (
            "Area",
            figures.area(source.area_m2),
            f"{figures.count(source.n_tiles, 'tile')} of {source.tile_km:g} km",
        ),
        ("Scenes", f"{source.n_scenes:,}", f"{source.n_dates:,} dates (satellite passes)"),
    ]
    found.append(_accuracy_card(data))
    if data.validation is not None:
        base = data.validation.baseline_overall
        found.append(
            (
                "Validation score",
                figures.score(data.validation.overall),
                f"held-out labels; nearest-mean classifier {figures.score(base)}",
            )
        )
    if data.change is not None:
        found.append(
            ("Changed area", figures.area(data.change.changed_m2), "mapped, biased by its errors")
        )
        alarms = data.change.false_alarms
        if alarms is not None:
            value = figures.share(alarms.share_per_year, 2)
            found.append(("False alarms", value, "of monitored land a year, where nothing changed"))
    if data.stages:
        total = sum(stage.seconds for stage in data.stages)
        memory = figures.size(data.peak_memory_bytes)
        found.append(("Run time", figures.duration(total), f"peak memory {memory}"))
    return found


def _accuracy_card(data: ReportData) -> tuple[str, str, str]:
    if data.assessment is None:
        return ("Overall accuracy", NOT_ASSESSED, "no probability sample of the map")
    estimate = data.assessment["overall_accuracy"]
    note = f"95 % interval, {data.assessment['n_points']:,} sample points"
    return ("Overall accuracy", figures.with_interval(estimate), note)


def input_section(data: ReportData) -> str:
    """Scenes, lineage, and how often the ground was seen."""
    source = data.input
    bands = ", ".join(source.bands) or MISSING
    parts = [
        paragraph(
            f"{source.n_scenes:,} scenes of {source.collection} on {source.n_dates:,} dates "
            f"between {data.period[0]} and {data.period[1]}; bands {bands}; "
            f"{figures.size(source.bytes_read)} read."
        )
    ]
    if source.missing_share is not None:
        parts.append(
            paragraph(
                f"The archive lacks {figures.share(source.missing_share)} of the dates that the "
                "satellites' cadence would give."
            )
        )
    parts.append("<h3>Lineage</h3>")
    rows = [
        (r.satellite, r.baseline, r.refined, r.provider, r.first, r.last, f"{r.n_dates:,}")
        for r in source.lineage
    ]
    head = ("Satellite", "Baseline", "Refined", "Provider", "First date", "Last date", "Dates")
    parts.append(
        table(head, rows, caption="Dates by processing history", text_columns=6)
        if rows
        else paragraph("not recorded", css="words-only")
    )
    return "".join(parts) + _audit(data) + _clear(data)


def _audit(data: ReportData) -> str:
    """Passes of the satellites that the catalogue lacks."""
    audit = data.input.audit
    if audit is None or not audit.rows:
        return ""
    rows = [
        (
            f"{r.relative_orbit:03d}",
            r.satellite,
            f"{r.n_expected:,}",
            f"{r.n_found:,}",
            figures.share(1 - r.n_found / r.n_expected),
        )
        for r in audit.rows
    ]
    head = ("Relative orbit", "Satellite", "Expected", "Found", "Missing")
    missing = {
        str(year): 100 * (1 - found / expected) for year, (found, expected) in audit.by_year.items()
    }
    chart = charts.bar_chart(
        missing,
        title="Share of the expected satellite passes that are missing, by year",
        unit="missing passes, % of those expected",
    )
    return "".join(
        [
            "<h3>Passes that are missing</h3>",
            figure(
                chart,
                "Passes that the satellites' plan has over the area and the catalogue does not, "
                "by year: not sensed, not made, not listed, or left out by the run.",
            ),
            table(head, rows, caption="Passes by orbit, summed over tiles", text_columns=2),
            bullets(audit.longest) if audit.longest else "",
        ]
    )


def _clear(data: ReportData) -> str:
    by_year = data.input.clear_by_year
    parts = ["<h3>Clear observations</h3>"]
    if by_year:
        chart = charts.range_chart(
            {str(year): value for year, value in by_year.items()},
            title="Clear observations per pixel in each year",
            unit="clear observations per pixel and year",
        )
        parts.append(
            figure(
                chart,
                "Clear observations by year: line at the median pixel, bar from the 10th to the "
                "90th percentile.",
            )
        )
    counts = [view.clear_per_year for view in data.views if view.clear_per_year is not None]
    peak = max((float(np.nanmax(c)) for c in counts if np.isfinite(c).any()), default=0.0)
    scale = pictures.even_scale(
        0, max(peak, 1.0), 5, "clear observations a year", "YlGnBu_r", ".0f"
    )
    shown = [
        figure(
            picture(
                pictures.draw_values(view.clear_per_year, scale, frame_of(data, view)),
                f"Map of the mean number of clear observations a year, {view.title}",
            ),
            f"Mean number of clear observations a year. {view.title}.",
        )
        for view in data.views
        if view.clear_per_year is not None
    ]
    if not by_year and not shown:
        parts.append(paragraph("not counted", css="words-only"))
    return "".join(parts) + grid(shown)


def run_section(data: ReportData) -> str:
    """How long the stages took, and what they left out."""
    if not data.stages:
        return paragraph("no stage was timed", css="words-only")
    rows = [
        (
            stage.name,
            figures.duration(stage.seconds),
            f"{stage.tasks:,}",
            f"{stage.skipped:,}",
            f"{stage.failed_reads:,}",
        )
        for stage in data.stages
    ]
    chart = charts.strip_chart(
        {stage.name: stage.seconds for stage in data.stages}, title="Seconds spent in each stage"
    )
    head = ("Stage", "Time", "Tasks", "Found done", "Failed reads")
    timed = figure(chart, "Seconds spent in each stage.") + table(head, rows)
    return timed + _forecast(data)


def _forecast(data: ReportData) -> str:
    """Forecast beside actual, of the reading."""
    if not data.forecast:
        return ""
    rows = [
        (row.what, *(_measured(value, row.unit) for value in (row.forecast, row.actual)))
        for row in data.forecast
    ]
    head = ("Reading the scenes", "Forecast", "Newest execution")
    return table(head, rows) + paragraph(
        "The forecast is of all tasks, those done in earlier executions included."
    )


def _measured(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "B":
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,.1f}" if unit == "min" else f"{value:,.0f}"


def skipped_section(data: ReportData) -> str:
    """What was not used, and why."""
    if not data.skipped:
        return paragraph("Nothing was left out.")
    rows = [(row.what, row.why, f"{row.count:,}") for row in data.skipped]
    return table(("What", "Why", "Number"), rows, text_columns=2)


def limits_section(data: ReportData) -> str:
    """What a reader must not conclude."""
    return bullets(derive_limits(data))


def provenance_section(data: ReportData) -> str:
    """Notice of the source, licences, versions and hashes."""
    parts = [paragraph(data.notice + ("" if data.notice.endswith(".") else "."))]
    if data.licenses:
        parts.append(table(("What", "Licence"), data.licenses.items(), text_columns=2))
    if data.files:
        parts.append("<h3>Files</h3>")
        parts.append(_hashes(("Output", "Path"), data.files))
    if data.provenance:
        parts.append("<h3>Versions and hashes</h3>")
        parts.append(_hashes(("What", "Value"), data.provenance))
    return "".join(parts)


def _hashes(head: tuple[str, str], rows: Mapping[str, str]) -> str:
    return f'<div class="hash">{table(head, rows.items(), text_columns=2)}</div>'


SECTIONS = (
    Section("input", "Input", input_section),
    Section("masks", "Masks", mask_section),
    Section("registration", "Registration", registration_section),
    Section("true-colour", "True colour", picture_section),
    Section("map", "Land-cover map", map_section),
    Section("area", "Accuracy and area", area_section),
    Section("change", "Change", change_section),
    Section("false-alarms", "False alarms", alarm_section),
    Section("run", "Run", run_section),
    Section("left-out", "What was left out", skipped_section),
    Section("limits", "Limits", limits_section),
    Section("provenance", "Source and provenance", provenance_section),
)
"""Sections of the page, in order."""
