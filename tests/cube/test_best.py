"""Best pixel: one change of circumstances at a time turns the choice."""

from __future__ import annotations

import numpy as np
import pytest

from eoray.cube.best import (
    UNJUDGED,
    Circumstances,
    choose_best,
    cost_of_observations,
    measure_near_cloud,
)
from eoray.sentinel2 import Mask

SAME = Circumstances(offset=(0.0, 0.0, 0.0), view_zenith=(3.0,) * 3, sun_zenith=(40.0,) * 3)


def choice(
    circumstances: Circumstances = SAME,
    near: tuple[float, ...] = (0.5, 0.5, 0.5),
    values: tuple[int, ...] = (1000, 1000, 1000),
    clear: tuple[bool, ...] = (True, True, True),
) -> int:
    spectra = np.array(values, np.int16)[:, None, None, None]
    near_cloud = np.array(near, np.float16)[:, None, None]
    median = np.full((1, 1, 1), 1000, np.int16)
    cost = cost_of_observations(spectra, median, near_cloud, circumstances)
    return int(choose_best(cost, np.array(clear)[:, None, None])[0, 0])


def test_of_equals_the_earliest_is_taken() -> None:
    assert choice() == 0
    assert choice(clear=(False, True, True)) == 1


@pytest.mark.parametrize(
    ("changed", "best"),
    [
        ({"near": (0.5, 0.2, 0.5)}, 1),
        ({"values": (1400, 1300, 990)}, 2),
        ({"circumstances": Circumstances((-0.9, 0.1, 0.4), (3.0,) * 3, (40.0,) * 3)}, 1),
        ({"circumstances": Circumstances((0.0,) * 3, (9.0, 8.0, 2.0), (40.0,) * 3)}, 2),
        ({"circumstances": Circumstances((0.0,) * 3, (3.0,) * 3, (60.0, 30.0, 50.0))}, 1),
    ],
)
def test_each_part_of_the_rule_turns_the_choice(changed: dict[str, object], best: int) -> None:
    assert choice(**changed) == best  # type: ignore[arg-type]
    not_clear = tuple(i != best for i in range(3))
    assert choice(**changed, clear=not_clear) != best  # type: ignore[arg-type]


def test_an_unknown_angle_costs_nothing() -> None:
    unknown = Circumstances((0.0,) * 3, (3.0, float("nan"), 3.0), (40.0,) * 3)
    assert choice(unknown) == 1


def test_all_parts_at_their_worst_fit_the_stored_type() -> None:
    worst = Circumstances((1.0,), (90.0,), (90.0,))
    near = np.ones((1, 1, 1), np.float16)
    spectrum = np.full((1, 1, 1, 1), 32767, np.int16)
    cost = cost_of_observations(spectrum, np.zeros((1, 1, 1), np.int16), near, worst)
    assert cost[0, 0, 0] == 48_000
    assert choose_best(cost, np.ones((1, 1, 1), bool))[0, 0] == 0


def test_what_could_not_be_judged_is_taken_where_it_alone_is_clear() -> None:
    cost = np.full((3, 1, 1), UNJUDGED, np.uint16)
    assert choose_best(cost, np.array([False, False, True])[:, None, None])[0, 0] == 2


def test_nearness_falls_with_the_distance_in_metres() -> None:
    mask = np.zeros((2, 5, 80), np.uint8)
    mask[0, :, 0] = int(Mask.CLOUD)
    mask[1] = int(Mask.SNOW | Mask.DILATED)
    near = measure_near_cloud(mask, (20.0, 20.0))
    np.testing.assert_allclose(near[0, 2, [0, 10, 25, 50, 79]], [1, 0.8, 0.5, 0, 0], atol=1e-3)
    assert not near[1].any()
    np.testing.assert_allclose(measure_near_cloud(mask, (20.0, 10.0))[0, 2, 10], 0.9, atol=1e-3)
