from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eoray.chips.split import SplitOptions
from eoray.errors import ConfigError, DataError
from tests.chips.landscape import Landscape
from tests.train.conftest import PlanMaker


def test_plan_reads_no_pixel_and_travels(make_plan: PlanMaker, land: Landscape) -> None:
    land.reader.reads.clear()
    plan = make_plan()
    assert not land.reader.reads
    plan = replace(plan, source="cube")
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.recipe.n_channels == 4 * 6
    assert plan.to_dict()["polygons"] == 256


def test_key_follows_what_decides_the_weights(make_plan: PlanMaker) -> None:
    plan = make_plan()
    assert make_plan(checkpoint_every=3).key == plan.key
    for changes in ({"seed": 1}, {"steps": 13}, {"bands": ("red",)}, {"border_m": 5.0}):
        assert make_plan(**changes).key != plan.key


def test_key_follows_the_pixels(make_plan: PlanMaker, land: Landscape) -> None:
    before = make_plan().key
    land.reader.planes[32][2][0, 0, 100, 100] += 1
    after = make_plan().key
    land.reader.planes[32][2][0, 0, 100, 100] -= 1
    assert before != after
    assert make_plan().key == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"product": "s2-P1M-median"}, "reads product 's2-P1M-median' but the cube holds s2-P3M"),
        ({"bands": ("B12",)}, "names B12 but product .* has B02"),
        ({"bands": ("read",)}, "unknown band 'read'; did you mean 'red'"),
        ({"steps": 0}, "fit.steps is 0"),
        ({"chip_px": 50}, "fit.chip_px is 50; give a multiple of 32"),
        ({"precision": "fp16"}, "fit.precision is 'fp16'"),
    ],
)
def test_bad_options_are_refused(
    make_plan: PlanMaker, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(**changes)


def test_time_without_composites_is_refused(make_plan: PlanMaker) -> None:
    with pytest.raises(DataError, match="it holds 2021-01-01/2021-04-01"):
        make_plan(time=("2019-01-01", "2019-12-31"))


def test_class_whose_polygons_are_all_border_is_named(make_plan: PlanMaker) -> None:
    with pytest.raises(DataError, match=r"class 'crop' has no training pixel.*border_m \(100 m\)"):
        make_plan(border_m=100.0)


def test_tiles_without_the_product_are_refused(make_plan: PlanMaker, land: Landscape) -> None:
    from eoray.grid import Tile
    from eoray.train.plan import plan_fit

    options = replace(make_plan().options, split=SplitOptions(320))
    with pytest.raises(DataError, match="holds no pixel from 2021-01-01 to 2021-12-31"):
        plan_fit(options, land.reader, [Tile(32, 1, 1)])


def test_labels_by_a_legend(make_plan: PlanMaker) -> None:
    plan = make_plan(classes=("water", "crop"))
    assert plan.labels.legend.names == ("water", "crop")
    with pytest.raises(DataError, match="class 'ice' has no sample"):
        make_plan(classes=("water", "ice"))


def test_folder_of_the_labels_is_not_in_the_key(make_plan: PlanMaker, tmp_path: Path) -> None:
    plan = make_plan()
    copy = tmp_path / "other.geojson"
    copy.write_bytes(Path(plan.options.labels).read_bytes())
    assert make_plan(labels=str(copy)).key == plan.key
