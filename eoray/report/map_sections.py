"""Sections about the map: pictures, validation score, accuracy and area."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eoray.report import charts, figures, pictures
from eoray.report.data import ReportData, ValidationScore
from eoray.report.glance import frame_of
from eoray.report.markup import (
    MISSING,
    NOT_RUN,
    figure,
    grid,
    paragraph,
    picture,
    swatches,
    table,
)


def picture_section(data: ReportData) -> str:
    """True colour, to see that the input looks like land."""
    shown = [
        figure(
            picture(
                pictures.draw_true_color(view.true_color, frame_of(data, view)),
                f"True-colour picture of the area, {view.title}",
            ),
            f"True colour (B04, B03, B02): {view.true_color_label}. {view.title}. "
            "One stretch for all bands.",
        )
        for view in data.views
        if view.true_color is not None
    ]
    return grid(shown) if shown else paragraph("no composite was made", css="words-only")


def map_section(data: ReportData) -> str:
    """The classes, how sure they are, and the validation score."""
    if not data.legend:
        return paragraph(NOT_RUN, css="words-only")
    keys = swatches([(f"#{one.hex}", one.name) for one in data.legend])
    scale = pictures.even_scale(0.0, 1.0, 6, "probability of the mapped class", "viridis", ".0%")
    shown = []
    for view in data.views:
        if view.classes is not None:
            png = pictures.draw_classes(view.classes, data.legend, frame_of(data, view))
            names = ", ".join(one.name for one in data.legend)
            alt = f"Land-cover map with the classes {names}, {view.title}"
            shown.append(figure(picture(png, alt), f"Land cover. {view.title}.", legend=keys))
        if view.probability is not None:
            png = pictures.draw_values(view.probability, scale, frame_of(data, view))
            alt = f"Map of the probability of the mapped class, {view.title}"
            caption = (
                "Probability that the model gives to the class it mapped; dark places are the "
                f"least certain. {view.title}."
            )
            shown.append(figure(picture(png, alt), caption))
    return grid(shown) + "<h3>Validation score</h3>" + _validation(data.validation)


def _validation(score: ValidationScore | None) -> str:
    if score is None:
        return paragraph("no labels were held out", css="words-only")
    rows = [
        (
            name,
            *(figures.score(values.get(key)) for key in ("precision", "recall", "f1")),
            f"{values.get('n', 0):,.0f}",
        )
        for name, values in score.per_class.items()
    ]
    pair = [
        ("U-Net on the map's input", figures.score(score.overall), figures.score(score.mean_iou)),
        ("per-pixel nearest mean, same split", figures.score(score.baseline_overall), MISSING),
    ]
    return (
        paragraph(
            f"Agreement with {score.n_pixels:,} labelled pixels in {score.n_polygons:,} polygons "
            f"that were kept out of the fit ({score.split}). Labels are no probability sample: "
            "this is not the accuracy of the map."
        )
        + table(("Classifier", "Right", "Mean IoU"), pair, caption="Beside the simplest rival")
        + table(("Class", "Precision", "Recall", "F1", "Pixels"), rows, caption="By class")
    )


def area_section(data: ReportData) -> str:
    """Accuracy and area from the probability sample, or the words that there is none."""
    if not data.legend:
        return paragraph(NOT_RUN, css="words-only")
    names = {one.id: one for one in data.legend}
    if data.assessment is None:
        rows = [
            (names[k].name if k in names else str(k), figures.hectares(m2))
            for k, m2 in sorted(data.mapped_m2.items())
        ]
        return (
            '<p class="words-only">Not assessed. <span>No probability sample was drawn from this '
            "map, so neither its accuracy nor the area of any class is known.</span></p>"
            + (table(("Class", "Mapped area (biased), ha"), rows) if rows else "")
        )
    assessment = data.assessment
    return _estimates(assessment) + _area_chart(data, assessment) + _matrix(assessment)


def _estimates(assessment: Mapping[str, Any]) -> str:
    design = assessment["design"]
    strata = len(design["strata"])
    rows = [
        (
            row["name"],
            figures.with_interval(row["users_accuracy"]),
            figures.with_interval(row["producers_accuracy"]),
            figures.area_with_interval(row["area_m2"]),
            figures.hectares(row["mapped_area_biased_m2"]),
        )
        for row in assessment["classes"]
    ]
    head = (
        "Class",
        "User's accuracy",
        "Producer's accuracy",
        "Estimated area, ha",
        "Mapped area (biased), ha",
    )
    return (
        paragraph(
            f"Estimated from {assessment['n_points']:,} pixels drawn at random within {strata} "
            f"strata (seed {design['seed']}), answered by the reference, for "
            f"{figures.area(assessment['frame_m2'])} of mapped ground. Overall accuracy "
            f"{figures.with_interval(assessment['overall_accuracy'])}."
        )
        + table(head, rows, caption="Accuracy and area with 95 % confidence intervals")
        + paragraph(
            "User's accuracy: of what the map calls a class, the share that is. Producer's "
            "accuracy: of what is a class, the share that the map found. Areas are true ground "
            "areas. Mapped areas count pixels and carry the map's errors.",
            css="note",
        )
    )


def _area_chart(data: ReportData, assessment: Mapping[str, Any]) -> str:
    colors = {one.id: f"#{one.hex}" for one in data.legend}
    rows = [
        charts.Interval(
            row["name"],
            row["area_m2"]["value"] / 1e4,
            (row["area_m2"]["value"] - row["area_m2"]["ci95_half_width"]) / 1e4,
            (row["area_m2"]["value"] + row["area_m2"]["ci95_half_width"]) / 1e4,
            row["mapped_area_biased_m2"] / 1e4,
            colors.get(row["id"], charts.ACCENT),
        )
        for row in assessment["classes"]
        if row["area_m2"]["value"] is not None
    ]
    chart = charts.interval_chart(rows, title="Estimated area of each class", unit="hectares")
    return figure(
        chart,
        "Area of each class: dot and bar are the estimate with its 95 % interval, the open diamond "
        "is the mapped area (biased).",
    )


def _matrix(assessment: Mapping[str, Any]) -> str:
    names = [row["name"] for row in assessment["classes"]]
    rows = [
        (name, *(f"{count:,}" for count in counts))
        for name, counts in zip(names, assessment["error_matrix_counts"], strict=True)
    ]
    return "<h3>Error matrix</h3>" + table(
        ("Map", *names), rows, caption="Sample pixels by map class (rows) and reference (columns)"
    )
