"""Sections about what was masked, and about how well the dates lie on each other."""

from __future__ import annotations

from eoray.report import charts, figures
from eoray.report.data import RegistrationSummary, ReportData
from eoray.report.markup import figure, paragraph, table


def mask_section(data: ReportData) -> str:
    """What the temporal screen changed in the mask."""
    screen = data.screen
    if screen is None:
        return paragraph(
            "The mask is that of the scene classification alone; it was not compared with each "
            "pixel's other dates (cube.mask.screen: temporal)."
        )
    head = (
        "Year",
        "Clear by SCL",
        "Missed cloud",
        "Missed shadow",
        "Rescued",
        "Clear at last",
        "Not judged",
    )
    order = ("clear", "missed_cloud", "missed_shadow", "rescued", "clear_with_screen", "unjudged")
    rows = [
        (str(year), *(figures.share(shares[name], 1) for name in order))
        for year, shares in screen.by_year.items()
    ]
    parts = [
        paragraph(
            "Each pixel was compared with its own clear dates before and after. Shares are of all "
            "observed pixels and dates; not judged are clear dates with too few others near them."
        ),
        table(head, rows, caption="What the screen changed"),
    ]
    if screen.always_cloud:
        parts.append("<h3>Bright ground that SCL hardly ever lets pass</h3>")
        stuck = [
            (row.tile, f"{row.n_px:,}", figures.hectares(row.area_m2))
            for row in screen.always_cloud
        ]
        parts.append(
            table(
                ("Tile", "Pixels of 20 m", "Area, ha"),
                stuck,
                caption="Clear on fewer than 5 % of dates by SCL, and steady: rescued",
            )
        )
    return "".join(parts)


def registration_section(data: ReportData) -> str:
    """How far dates lie from their tile's reference, and which were left out."""
    found = data.registration
    if found is None:
        return paragraph(
            "not measured: only change asks for it (change.max_shift_px)", css="words-only"
        )
    limit = "none is left out" if found.limit_px is None else _limit_text(found)
    parts = [
        paragraph(
            f"{found.n_measured:,} dates of tiles were measured against their tile's reference, "
            f"{found.n_unknown:,} had too little clear ground with edges; {limit}. Nothing was "
            "shifted."
        )
    ]
    if found.n_measured:
        chart = charts.bar_chart(
            {label: float(count) for label, count in found.histogram.items()},
            title="Distance of dates from the reference",
            unit="dates by distance in pixels of 10 m, from the figure below the bar on",
        )
        parts.append(figure(chart, "Distance of the dates from their tile's reference."))
    groups = [(str(year), levels) for year, levels in found.by_year.items()]
    groups += [("before 2021-08-23", found.before), ("from 2021-08-23 on", found.since)]
    rows = [
        (name, f"{levels[0]:,}", f"{levels[1]:.2f}", f"{levels[2]:.2f}")
        for name, levels in groups
        if levels is not None
    ]
    head = ("Dates", "Number", "Median, px", "95 % below, px")
    caption = "By year, and before and after the global reference image came into use"
    parts.append(table(head, rows, caption=caption))
    parts.append("<h3>Furthest off</h3>")
    worst = [
        (
            row.day,
            row.tile,
            f"{row.shift_px:.2f} ± {row.error_px:.2f}",
            "left out of change" if row.left_out else "used",
        )
        for row in found.worst
    ]
    parts.append(table(("Date", "Tile", "Distance, px", ""), worst, text_columns=2))
    return "".join(parts)


def _limit_text(found: RegistrationSummary) -> str:
    n = figures.count(found.n_beyond, "date")
    return f"{n} beyond {found.limit_px:g} px left out of change"
