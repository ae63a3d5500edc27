from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from eoray.chips.labels import Polygon
from eoray.chips.split import SplitOptions, split_by_place
from eoray.errors import DataError


def draw_polygons(seed: int, n: int, *, extent: float = 20_000, classes: int = 3) -> list[Polygon]:
    rng = np.random.default_rng(seed)
    polygons = []
    for i in range(n):
        x, y = 500_000 + rng.uniform(0, extent), 5_000_000 + rng.uniform(0, extent)
        w, h = rng.uniform(20, 900, 2)
        shape = shapely.box(x, y, x + w, y + h)
        polygons.append(Polygon(i, 32, int(rng.integers(1, classes + 1)), shapely.to_wkb(shape)))
    return polygons


def shapes_of(polygons: list[Polygon], numbers: tuple[int, ...]) -> list[shapely.Geometry]:
    return [shapely.from_wkb(polygons[i].wkb) for i in numbers]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), n=st.integers(30, 120), share=st.floats(0.1, 0.5))
def test_splits_share_no_place(seed: int, n: int, share: float) -> None:
    polygons = draw_polygons(seed, n, classes=1)
    split = split_by_place(polygons, 1, SplitOptions(2500, share), seed=seed)
    sides = (split.training, split.validation, split.dropped)
    assert sorted(i for side in sides for i in side) == list(range(n))
    training = shapely.union_all(shapes_of(polygons, split.training))
    validation = shapely.union_all(shapes_of(polygons, split.validation))
    assert shapely.intersection(training, validation).area < 1.0
    assert {split.block_of[i] for i in split.training}.isdisjoint(
        split.block_of[i] for i in split.validation
    )


def test_buffer_keeps_the_sides_apart() -> None:
    polygons = draw_polygons(3, 150)
    split = split_by_place(polygons, 3, SplitOptions(2500, 0.3, buffer_m=300), seed=0)
    tree = shapely.STRtree(shapes_of(polygons, split.validation))
    near = [
        tree.query_nearest(s, return_distance=True)[1].min()
        for s in shapes_of(polygons, split.training)
    ]
    assert min(near) >= 300
    assert split.dropped


def test_every_class_with_two_blocks_is_on_both_sides() -> None:
    for seed in range(10):
        polygons = draw_polygons(seed, 60, classes=6)
        split = split_by_place(polygons, 6, SplitOptions(2000), seed=seed)
        for training, validation in split.class_blocks:
            assert training >= 1
            assert validation >= 1 or training == 1


def test_share_of_every_class_is_near_the_wish() -> None:
    polygons = draw_polygons(1, 400)
    split = split_by_place(polygons, 3, SplitOptions(1000, 0.25), seed=0)
    area = np.array([shapely.from_wkb(p.wkb).area for p in polygons])
    classes = np.array([p.class_id for p in polygons])
    held = np.isin(np.arange(400), split.validation)
    shares = [area[held & (classes == c)].sum() / area[classes == c].sum() for c in (1, 2, 3)]
    assert np.allclose(shares, 0.25, atol=0.02)


def test_split_depends_on_the_seed_alone() -> None:
    polygons = draw_polygons(2, 80)
    options = SplitOptions(2000)
    assert split_by_place(polygons, 3, options, seed=1) == split_by_place(
        polygons, 3, options, seed=1
    )
    assert split_by_place(polygons, 3, options, seed=1) != split_by_place(
        polygons, 3, options, seed=2
    )


def test_class_of_one_block_trains() -> None:
    polygons = draw_polygons(4, 40, classes=2)
    lone = Polygon(40, 32, 3, shapely.to_wkb(shapely.box(500_010, 5_000_010, 500_090, 5_000_090)))
    split = split_by_place([*polygons, lone], 3, SplitOptions(2500), seed=0)
    assert 40 in split.training
    assert split.class_blocks[2] == (1, 0)


def test_block_size_zero_splits_by_group_of_near_parcels() -> None:
    # Pairs of parcels 10 m apart, pairs 100 m apart from each other.
    polygons = [
        Polygon(2 * i + k, 32, 1, shapely.to_wkb(shapely.box(x, 0, x + 40, 40)))
        for i in range(10)
        for k, x in enumerate((i * 190.0, i * 190.0 + 50))
    ]
    split = split_by_place(polygons, 1, SplitOptions(0, 0.3, gap_m=20), seed=0)
    pairs = {i // 2 for i in split.validation}
    assert len(split.validation) == 2 * len(pairs)
    assert max(split.block_of) == 9


def test_overlap_across_a_zone_border_is_one_group() -> None:
    from pyproj import Transformer

    shape = shapely.box(11.995, 51.0, 12.005, 51.005)
    polygons = draw_polygons(5, 30, classes=1)
    for zone in (32, 33):
        change = Transformer.from_crs(4326, 32600 + zone, always_xy=True)
        here = shapely.transform(shape, lambda xy, t=change: np.stack(t.transform(*xy.T), axis=1))
        polygons.append(Polygon(len(polygons), zone, 1, shapely.to_wkb(here)))
    split = split_by_place(polygons, 1, SplitOptions(2500), seed=0)
    assert split.block_of[30] == split.block_of[31]


def test_one_block_is_refused_with_a_way_out() -> None:
    with pytest.raises(DataError, match=r"all 30 labels lie in one block of 1e\+06 m"):
        split_by_place(draw_polygons(0, 30), 3, SplitOptions(1e6), seed=0)


def test_share_must_be_a_share() -> None:
    with pytest.raises(DataError, match=r"validation_share is 1\.0"):
        split_by_place(draw_polygons(0, 30), 3, SplitOptions(1000, 1.0), seed=0)


def test_buffer_that_eats_a_class_is_refused() -> None:
    with pytest.raises(DataError, match="no training label left after the split"):
        split_by_place(draw_polygons(0, 30), 3, SplitOptions(2500, 0.3, 50_000), seed=0)
