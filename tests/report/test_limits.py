from __future__ import annotations

from dataclasses import replace

import pytest

from eoray.report import ReportData, StageRow
from eoray.report.limits import derive_limits


def text_of(data: ReportData) -> str:
    return "\n".join(derive_limits(data))


def test_limits_follow_the_run_s_own_flags(data: ReportData) -> None:
    text = text_of(data)
    assert "rendered by a generator" in text
    assert "2 processing baselines (05.00, 05.10)" in text
    assert "not registered to the global reference image" in text
    assert "lacks 8%" in text
    assert "In 2021 the median pixel has fewer than 12" in text
    assert "18,900 pixels come from only 64 polygons" in text
    assert "19% of the area was never monitored" in text
    assert "2 reads failed" in text


def test_flag_that_is_not_raised_gives_no_limit(data: ReportData) -> None:
    clean = replace(
        data,
        is_synthetic=False,
        input=replace(data.input, lineage=data.input.lineage[1:], missing_share=0.0),
        stages=(StageRow("cube", 1.0, 4),),
    )
    text = text_of(clean)
    for words in ("generator", "baselines", "global reference", "lacks", "reads failed"):
        assert words not in text


def test_map_that_was_not_assessed_is_called_biased(data: ReportData) -> None:
    assert "was not assessed by a probability sample" not in text_of(data)
    assert "was not assessed by a probability sample" in text_of(replace(data, assessment=None))


@pytest.mark.parametrize("n", [0, 5])
def test_unanswered_points_are_named(data: ReportData, n: int) -> None:
    assert data.assessment is not None
    changed = replace(data, assessment={**data.assessment, "n_unanswered": n})
    assert ("5 sample points had no reference answer" in text_of(changed)) == (n > 0)


def test_warnings_of_the_assessment_are_repeated(data: ReportData) -> None:
    assert data.assessment is not None
    warned = {**data.assessment, "warnings": ["stratum 'water' has 9 points"]}
    limits = derive_limits(replace(data, assessment=warned))
    assert "Assessment: stratum 'water' has 9 points." in limits
