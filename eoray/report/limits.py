"""The *Limits* of a report, derived from the figures that it shows."""

from __future__ import annotations

from eoray.report.data import ChangeSummary, ReportData

FEW_CLEAR_A_YEAR = 12
"""Below this median, breaks are dated late and short ones are missed."""

BREAK_IS_SPECTRAL = (
    "A break is a spectral change that lasts. It is neither a change of land-cover class nor a "
    "cause; harvest, drought and flood can resemble it."
)

DATE_IS_INTERVAL = (
    "A date is an interval between two clear observations, not a day; in cloudy winters the event "
    "may lie months before the first sight of it."
)


def derive_limits(data: ReportData) -> list[str]:
    """Write one sentence for each thing that a reader must not conclude.

    Args:
        data: The run's own figures and flags.

    Returns:
        Sentences in a fixed order, then those that the stages gave.
    """
    found: list[str] = []
    if data.is_synthetic:
        found.append(
            "Every pixel was rendered by a generator. The figures show that the software works; "
            "they say nothing about any place on Earth or about performance on real images."
        )
    found += _about_input(data)
    found += _about_map(data)
    if data.change is not None:
        found += _about_change(data.change)
    failed = sum(stage.failed_reads for stage in data.stages)
    if failed:
        found.append(
            f"{failed:,} reads failed and left holes, flagged in the quality array; the images "
            "there exist but were not seen."
        )
    return [*found, *data.limits]


def _about_input(data: ReportData) -> list[str]:
    found = []
    source = data.input
    refined = {row.refined for row in source.lineage}
    baselines = {row.baseline for row in source.lineage}
    if len(baselines) > 1:
        found.append(
            f"Dates of {len(baselines)} processing baselines ({', '.join(sorted(baselines))}) were "
            "used together; a step between them can look like a change."
        )
    if "no" in refined:
        found.append(
            "Part of the record is not registered to the global reference image; edges may shift "
            "by more than half a pixel between dates."
        )
    if source.missing_share:
        found.append(
            f"The archive lacks {source.missing_share:.0%} of the dates that the satellites' "
            "cadence would give."
        )
    thin = [
        year for year, (_, median, _) in source.clear_by_year.items() if median < FEW_CLEAR_A_YEAR
    ]
    if thin:
        found.append(
            f"In {', '.join(str(year) for year in sorted(thin))} the median pixel has fewer than "
            f"{FEW_CLEAR_A_YEAR} clear observations: events there are dated late or missed."
        )
    return found


def _about_map(data: ReportData) -> list[str]:
    found = []
    has_map = bool(data.legend)
    if has_map and data.assessment is None:
        found.append(
            "The map was not assessed by a probability sample: its areas are pixel counts, biased "
            "by its errors, and have no confidence interval."
        )
    if data.assessment is not None:
        found += [f"Assessment: {warning}." for warning in data.assessment.get("warnings", [])]
        unanswered = data.assessment.get("n_unanswered", 0)
        if unanswered:
            found.append(
                f"{unanswered} sample points had no reference answer and were left out as if "
                "missing at random."
            )
    if data.validation is not None:
        found.append(
            "The validation score compares with held-out labels, which are no probability sample; "
            f"its {data.validation.n_pixels:,} pixels come from only "
            f"{data.validation.n_polygons:,} polygons."
        )
    return found


def _about_change(change: ChangeSummary) -> list[str]:
    total = change.monitored_m2 + change.not_monitored_m2 + change.never_observed_m2
    found = [BREAK_IS_SPECTRAL, DATE_IS_INTERVAL]
    unseen = change.not_monitored_m2 + change.never_observed_m2
    if total and unseen:
        found.append(
            f"{unseen / total:.0%} of the area was never monitored: no break there means that "
            "nobody looked."
        )
    found.append(
        "Changed areas are pixel counts, biased by omission and commission; an estimate needs a "
        "sample drawn from the change product."
    )
    return found
