from __future__ import annotations

import json

import numpy as np
import pytest

from eoray.assess import MapTile, Sample, SamplePlan, assess_map, mapped_areas
from eoray.errors import DataError
from eoray.grid import Tile, owner_mask, pixel_area_m2
from tests.assess.census import CLASSES, Census

PLAN = SamplePlan(n_points=400, minimum=60, seed=3, resolution_m=160)


def test_map_that_is_the_truth_is_wholly_accurate(census: Census) -> None:
    result = assess_map(
        census.tiles, census.read, lambda sample: sample.mapped, classes=CLASSES, plan=PLAN
    )
    assert result.table.overall.value == 1.0
    areas = {k: area.value for k, area in zip(CLASSES, result.table.areas_m2, strict=True)}
    assert areas == pytest.approx(dict(result.mapped_m2), rel=1e-12)


def test_mapped_area_counts_owned_pixels_only(census: Census) -> None:
    found = mapped_areas(census.tiles, census.read, resolution_m=160)
    expected = sum(
        float(
            pixel_area_m2(tile, 160)[owner_mask(tile, 160) & (census.read(tile).classes == 3)].sum()
        )
        for tile in census.tiles
    )
    assert found[3] == pytest.approx(expected)
    assert 0 not in found


def test_result_is_plain_json_with_its_design(census: Census) -> None:
    result = assess_map(
        census.tiles, census.read, lambda sample: sample.mapped, classes=CLASSES, plan=PLAN
    )
    document = json.loads(json.dumps(result.to_dict()))
    assert document["design"]["seed"] == 3
    assert document["n_points"] == 400
    assert {"area_m2", "mapped_area_biased_m2"} <= set(document["classes"][0])


def test_points_without_an_answer_are_left_out_and_counted(census: Census) -> None:
    def reference(sample: Sample) -> np.ndarray:
        return np.where(np.arange(len(sample)) % 10 == 0, 0, sample.mapped)

    result = assess_map(census.tiles, census.read, reference, classes=CLASSES, plan=PLAN)
    assert result.n_unanswered == 40
    assert result.table.counts.sum() == 360
    assert result.table.overall.value == 1.0


def test_strata_may_differ_from_classes(census: Census) -> None:
    def read(tile: Tile) -> MapTile:
        classes = census.read(tile).classes
        half = np.where(np.arange(64)[:, None] < 32, 11, 12).astype("u1").repeat(64, axis=1)
        return MapTile(classes, half)

    result = assess_map(
        census.tiles,
        read,
        lambda sample: sample.mapped,
        classes=CLASSES,
        strata={11: "upper", 12: "lower"},
        plan=PLAN,
    )
    assert [part.name for part in result.sample.design.strata] == ["upper", "lower"]
    water, error = result.table.areas_m2[2].value, result.table.areas_m2[2].standard_error
    assert abs(water - result.mapped_m2[3]) < 3 * error


def test_reference_with_too_few_answers_is_refused(census: Census) -> None:
    with pytest.raises(DataError, match=r"gave \(3,\) answers to 400 points"):
        assess_map(census.tiles, census.read, lambda _: np.ones(3, int), classes=CLASSES, plan=PLAN)
