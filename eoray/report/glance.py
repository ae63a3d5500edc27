"""The first look: three small pictures of the first view, each a link to its section."""

from __future__ import annotations

from eoray.report import pictures
from eoray.report.data import ReportData, ReportView
from eoray.report.markup import picture

EDGE_PX = 560
"""Longest edge of a small picture."""


def frame_of(
    data: ReportData, view: ReportView, *, edge_px: int = 960, has_color_bar: bool = True
) -> pictures.Frame:
    """Frame the pictures of a view."""
    return pictures.Frame(view.pixel_m, data.is_synthetic, edge_px, has_color_bar)


def glance(data: ReportData) -> str:
    """Show input, map and change side by side; nothing where there is no view."""
    if not data.views:
        return ""
    view = data.views[0]
    frame = frame_of(data, view, edge_px=EDGE_PX, has_color_bar=False)
    shown = []
    if view.true_color is not None:
        png = pictures.draw_true_color(view.true_color, frame)
        shown.append(("true-colour", "The land in true colour", png))
    if view.classes is not None and data.legend:
        png = pictures.draw_classes(view.classes, data.legend, frame)
        shown.append(("map", "Land cover", png))
    if view.change_date is not None:
        scale = pictures.date_scale(*data.period)
        png = pictures.draw_change(view.change_date, view.monitored, view.true_color, scale, frame)
        shown.append(("change", "Where and when it changed", png))
    cells = "".join(
        f'<a href="#{anchor}">{picture(png, text)}<span>{text}</span></a>'
        for anchor, text, png in shown
    )
    return f'<div class="glance">{cells}</div>'
