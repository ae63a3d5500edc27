"""Sections about change: where, when, where nobody could tell, and how often it is false."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from eoray.report import charts, figures, pictures
from eoray.report.data import ReportData, ReportView
from eoray.report.glance import frame_of
from eoray.report.markup import NOT_RUN, figure, grid, paragraph, picture, table


def change_section(data: ReportData) -> str:
    """Where breaks were found, when, and where nobody could have found one."""
    change = data.change
    if change is None:
        return paragraph(NOT_RUN, css="words-only")
    shown = [
        _change_figure(data, view, view.change_date)
        for view in data.views
        if view.change_date is not None
    ]
    parts = [grid(shown)]
    if change.by_year:
        chart = charts.bar_chart(
            {str(year): m2 / 1e4 for year, m2 in change.by_year.items()},
            title="Area whose last break is dated in each year",
            unit="hectares, mapped (biased)",
            form=",.1f",
        )
        parts.append(figure(chart, "Mapped area by the year of the last break."))
    total = change.monitored_m2 + change.not_monitored_m2 + change.never_observed_m2
    rows = [
        (name, figures.hectares(m2), figures.share(m2 / total if total else None))
        for name, m2 in (
            ("monitored", change.monitored_m2),
            ("observed, but not monitored (record too short or thin)", change.not_monitored_m2),
            ("never observed", change.never_observed_m2),
            ("with a break: mapped area (biased)", change.changed_m2),
        )
    ]
    parts.append("<h3>Monitored area</h3>")
    parts.append(table(("Ground", "Area, ha", "Share"), rows))
    if change.median_bracket_days is not None:
        parts.append(
            paragraph(
                f"Half of the breaks lie within {change.median_bracket_days:.0f} days: between the "
                "last observation that fitted and the first that did not."
            )
        )
    return "".join(parts) + _change_scores(data)


def _change_figure(data: ReportData, view: ReportView, date: np.ndarray) -> str:
    scale = pictures.date_scale(*data.period)
    png = pictures.draw_change(date, view.monitored, view.true_color, scale, frame_of(data, view))
    legend = '<ul class="legend"><li><span class="hatch"></span>not monitored</li></ul>'
    return figure(
        picture(png, f"Map of the dates of the last break, {view.title}"),
        f"Date of the last break; grey land had none. {view.title}.",
        legend=legend,
    )


SCORES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "f1": ("F1 of detected patches and dates", figures.score),
    "precision": ("Precision", figures.score),
    "recall": ("Recall", figures.score),
    "precision_at_1pct": ("Precision re-weighted to 1 % prevalence", figures.score),
    "median_date_error_days": ("Median date error, days", lambda v: f"{v:.0f}"),
    "p90_date_error_days": ("90th percentile of the date error, days", lambda v: f"{v:.0f}"),
    "commission": ("Stable pixels flagged", lambda v: figures.share(v, 2)),
}
"""Known scores of a change product: what they are called, and how they are written."""


def _change_scores(data: ReportData) -> str:
    change = data.change
    if change is None or not (change.scores or change.recall_by_patch):
        return ""
    rows = [
        (SCORES[key][0], SCORES[key][1](value)) if key in SCORES else (key, f"{value:.3g}")
        for key, value in change.scores.items()
    ]
    parts = ["<h3>Against the known truth</h3>"]
    if rows:
        parts.append(table(("Score", "Value"), rows))
    if change.recall_by_patch:
        by_size = [(size, figures.score(value)) for size, value in change.recall_by_patch.items()]
        parts.append(table(("Patch of", "Recall"), by_size, caption="Recall by size of the change"))
    return "".join(parts)


def alarm_section(data: ReportData) -> str:
    """Breaks on an archive in which nothing changed."""
    alarms = data.change.false_alarms if data.change is not None else None
    if alarms is None:
        return (
            '<p class="words-only">Not measured. <span>No archive without change was run, so the '
            "share of false breaks is unknown.</span></p>"
        )
    return paragraph(
        "The same archive was made once more with nothing changing in it: every break found there "
        f"is false. Over {alarms.years:.1f} years {figures.share(alarms.share, 2)} of monitored "
        f"pixels were flagged, {figures.share(alarms.share_per_year, 2)} a year. Where true change "
        "is rarer than that, most breaks of a map are false."
    )
