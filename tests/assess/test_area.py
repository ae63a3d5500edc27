"""Estimators against published worked tables, independent formulas and a census."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.assess.area import AccuracyTable, estimate_accuracy, estimate_from_counts
from eoray.assess.design import SampleDesign, Stratum
from eoray.errors import DataError

NAMES = {1: "deforestation", 2: "forest gain", 3: "stable forest", 4: "stable non-forest"}
PIXELS = (200_000, 150_000, 3_200_000, 6_450_000)
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])


def design_of(pixels: tuple[int, ...], counts: np.ndarray, pixel_m2: float) -> SampleDesign:
    strata = tuple(
        Stratum(k + 1, f"stratum {k + 1}", n, n * pixel_m2, int(row.sum()))
        for k, (n, row) in enumerate(zip(pixels, counts, strict=True))
    )
    return SampleDesign(strata, seed=0, map_digest="", resolution_m=30)


@pytest.fixture(scope="module")
def published() -> AccuracyTable:
    """Olofsson et al. 2014, RSE 148, table 8 and section 5."""
    return estimate_from_counts(
        COUNTS, design_of(PIXELS, COUNTS, 900.0), NAMES, finite_population=False
    )


def test_overall_accuracy_is_the_published_one(published: AccuracyTable) -> None:
    assert round(published.overall.value, 2) == 0.95
    assert round(published.overall.half_width, 2) == 0.02


def test_users_accuracies_are_the_published_ones(published: AccuracyTable) -> None:
    assert [round(one.value, 2) for one in published.users] == [0.88, 0.73, 0.93, 0.96]
    assert [round(one.half_width, 2) for one in published.users] == [0.07, 0.10, 0.04, 0.02]


def test_producers_accuracies_are_the_published_ones(published: AccuracyTable) -> None:
    assert [round(one.value, 2) for one in published.producers] == [0.75, 0.85, 0.93, 0.96]
    # forest gain 0.23 and stable non-forest 0.01 are printed there, but the article's own
    # equation 7 gives 0.25 and 0.02 (see the next test)
    assert [round(one.half_width, 2) for one in published.producers] == [0.21, 0.25, 0.03, 0.02]


@pytest.mark.parametrize("j", range(4))
def test_producers_standard_error_is_equation_7(published: AccuracyTable, j: int) -> None:
    N, n = np.array(PIXELS, float), COUNTS.sum(axis=1)
    U, P = COUNTS[j, j] / n[j], published.producers[j].value
    N_j = (N * COUNTS[:, j] / n).sum()
    p = COUNTS[:, j] / n
    others = np.arange(4) != j
    first = N[j] ** 2 * (1 - P) ** 2 * U * (1 - U) / (n[j] - 1)
    second = P**2 * (N**2 * p * (1 - p) / (n - 1))[others].sum()
    expected = math.sqrt(first + second) / N_j
    assert published.producers[j].standard_error == pytest.approx(expected, rel=1e-12)


def test_areas_are_the_published_ones_to_the_hectare(published: AccuracyTable) -> None:
    hectares = [round(one.value / 1e4) for one in published.areas_m2]
    half_widths = [round(one.half_width / 1e4) for one in published.areas_m2]
    assert hectares == [21_158, 11_686, 285_770, 581_386]
    assert half_widths == [6_158, 3_756, 15_510, 16_282]


def test_areas_add_up_to_the_frame(published: AccuracyTable) -> None:
    assert math.fsum(one.value for one in published.areas_m2) == pytest.approx(9e9)


def test_older_worked_example_is_reproduced() -> None:
    """Olofsson et al. 2013, RSE 129, table 4: areas in pixels of 30 m."""
    counts = np.array([[97, 0, 3], [3, 279, 18], [2, 1, 97]])
    design = design_of((22_353, 1_122_543, 610_228), counts, 900.0)
    table = estimate_from_counts(counts, design, {1: "a", 2: "b", 3: "c"}, finite_population=False)
    assert [round(one.value, 2) for one in table.users] == [0.97, 0.93, 0.97]
    assert [round(one.value, 2) for one in table.producers[:2]] == [0.48, 0.99]
    assert round(table.overall.value, 2) == 0.94


@pytest.fixture(scope="module")
def stehman() -> AccuracyTable:
    """Stehman 2014, IJRS 35, table 2: strata are not the map's classes."""
    mapped = "A" * 7 + "B" * 3 + "A" + "B" * 9 + "B" * 4 + "C" * 6 + "D" * 10
    reference = "AAAAACBABC" + "ABBBBBAABB" + "CCBACCCDDB" + "DDDDDDDCCB"
    strata = tuple(
        Stratum(k, str(k), n, n * 100.0, 10)
        for k, n in zip((1, 2, 3, 4), (40_000, 30_000, 20_000, 10_000), strict=True)
    )
    return estimate_accuracy(
        SampleDesign(strata, 0, "", 10),
        classes={1: "A", 2: "B", 3: "C", 4: "D"},
        stratum=np.repeat([1, 2, 3, 4], 10),
        mapped=np.array(["ABCD".index(letter) + 1 for letter in mapped]),
        reference=np.array(["ABCD".index(letter) + 1 for letter in reference]),
    )


def test_strata_other_than_classes_give_the_published_figures(stehman: AccuracyTable) -> None:
    assert round(stehman.overall.value, 2) == 0.63
    assert round(stehman.overall.standard_error, 3) == 0.085
    assert round(stehman.users[1].value, 3) == 0.574
    assert round(stehman.users[1].standard_error, 3) == 0.125
    assert round(stehman.producers[1].value, 3) == 0.794


def test_strata_other_than_classes_give_the_published_areas(stehman: AccuracyTable) -> None:
    shares = [one.value / stehman.frame_m2 for one in stehman.areas_m2]
    errors = [one.standard_error / stehman.frame_m2 for one in stehman.areas_m2]
    assert [round(shares[k], 2) for k in (0, 2)] == [0.35, 0.20]
    assert [round(errors[k], 3) for k in (0, 2)] == [0.082, 0.064]
    assert round(float(stehman.proportions[1, 2]), 2) == 0.08


def _coverage(matrix: np.ndarray, n: tuple[int, ...], draws: int) -> np.ndarray:
    """Share of redrawn samples whose interval holds the true area, per class."""
    rng = np.random.default_rng(8)
    names = {k + 1: str(k + 1) for k in range(matrix.shape[1])}
    truth = matrix.sum(axis=0) * 100.0
    pixels = tuple(int(size) for size in matrix.sum(axis=1))
    hits = np.zeros(matrix.shape[1])
    for _ in range(draws):
        counts = np.array(
            [
                rng.multivariate_hypergeometric(row, size)
                for row, size in zip(matrix, n, strict=True)
            ]
        )
        table = estimate_from_counts(counts, design_of(pixels, counts, 100.0), names)
        hits += [
            abs(area.value - true) <= area.half_width
            for area, true in zip(table.areas_m2, truth, strict=True)
        ]
    return hits / draws


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """A census with 1 % change, most of whose omissions lie in a buffer stratum."""
    census = np.array([[70_000, 18_000, 2_000], [9_000, 900_000, 21_000], [1_000, 14_000, 165_000]])
    covered = _coverage(census, (150, 600, 250), draws=700)
    assert covered.min() >= 0.93
    assert covered.max() <= 0.97


def test_intervals_cover_too_rarely_where_a_stratum_has_few_points_and_say_so() -> None:
    census = np.array([[900, 60], [600, 98_440]])
    covered = _coverage(census, (20, 30), draws=300)
    assert covered[0] < 0.8
    counts = np.array([[19, 1], [0, 30]])
    table = estimate_from_counts(
        counts, design_of((960, 99_040), counts, 100.0), {1: "rare", 2: "stable"}
    )
    assert any("20 points, fewer than 50" in text for text in table.warnings)
    assert any("no disagreement" in text for text in table.warnings)


@given(
    counts=st.lists(st.lists(st.integers(1, 60), min_size=3, max_size=3), min_size=3, max_size=3),
    sizes=st.lists(st.integers(1000, 10**7), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_equal_pixels_weigh_like_no_pixel_areas(counts: list[list[int]], sizes: list[int]) -> None:
    matrix = np.array(counts)
    design = design_of(tuple(sizes), matrix, 99.9)
    rows, cols = np.indices(matrix.shape)
    mapped, reference = (np.repeat(part.ravel() + 1, matrix.ravel()) for part in (rows, cols))
    names = {1: "a", 2: "b", 3: "c"}
    weighted = estimate_accuracy(
        design,
        classes=names,
        stratum=mapped,
        mapped=mapped,
        reference=reference,
        area_m2=np.full(len(mapped), 99.9),
    )
    plain = estimate_from_counts(matrix, design, names)
    assert weighted.overall.value == pytest.approx(plain.overall.value)
    total = math.fsum(one.value for one in weighted.areas_m2)
    assert total == pytest.approx(design.area_m2)
    assert weighted.proportions.sum() == pytest.approx(1.0)
    assert weighted.overall.value == pytest.approx(np.trace(plain.proportions))


def test_unequal_pixels_are_weighed_by_their_area() -> None:
    """A whole stratum as sample: the estimate is the census of areas, without error."""
    area = np.array([90.0, 90.0, 110.0, 110.0])
    design = SampleDesign((Stratum(1, "all", 4, 400.0, 4),), 0, "", 10)
    table = estimate_accuracy(
        design,
        classes={1: "a", 2: "b"},
        stratum=np.ones(4, int),
        mapped=np.array([1, 1, 1, 2]),
        reference=np.array([1, 2, 1, 2]),
        area_m2=area,
    )
    assert [one.value for one in table.areas_m2] == pytest.approx([200.0, 200.0])
    assert table.areas_m2[0].standard_error == pytest.approx(0.0, abs=1e-9)
    assert table.overall.value == pytest.approx(310 / 400)


def test_class_that_nobody_mapped_has_no_users_accuracy() -> None:
    counts = np.array([[40, 10], [3, 47]])
    design = design_of((5000, 5000), counts, 100.0)
    table = estimate_accuracy(
        design,
        classes={1: "a", 2: "b", 3: "never mapped"},
        stratum=np.repeat([1, 2], 50),
        mapped=np.repeat([1, 2], 50),
        reference=np.repeat([1, 3, 1, 2], [40, 10, 3, 47]),
    )
    assert math.isnan(table.users[2].value)
    assert table.producers[2].value == 0.0
    assert table.to_dict()["classes"][2]["users_accuracy"]["value"] is None


def test_no_design_means_no_area() -> None:
    ones = np.ones(3, int)
    with pytest.raises(DataError, match="no design record was given"):
        estimate_accuracy(None, classes={1: "a"}, stratum=ones, mapped=ones, reference=ones)


def test_reference_class_that_is_not_listed_is_named() -> None:
    design = SampleDesign((Stratum(1, "all", 100, 1e4, 3),), 0, "", 10)
    ones = np.ones(3, int)
    with pytest.raises(DataError, match=r"reference class \[7\] of the sample"):
        estimate_accuracy(
            design, classes={1: "a"}, stratum=ones, mapped=ones, reference=np.array([1, 7, 1])
        )


def test_stratum_with_one_answer_is_refused() -> None:
    design = SampleDesign((Stratum(1, "all", 100, 1e4, 1),), 0, "", 10)
    one = np.ones(1, int)
    with pytest.raises(DataError, match="has 1 answered pixels of 100"):
        estimate_accuracy(design, classes={1: "a"}, stratum=one, mapped=one, reference=one)


def test_matrix_of_another_shape_is_refused(published: AccuracyTable) -> None:
    with pytest.raises(DataError, match=r"error matrix has shape \(2, 4\)"):
        estimate_from_counts(COUNTS[:2], design_of(PIXELS, COUNTS, 900.0), NAMES)
