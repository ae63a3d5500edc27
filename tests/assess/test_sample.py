from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from eoray.assess import (
    MapTile,
    Sample,
    SamplePlan,
    assess_map,
    buffer_strata,
    draw_sample,
    read_sample,
)
from eoray.errors import DataError
from eoray.grid import Tile, owner_mask, pixel_area_m2, zone_of
from tests.assess.census import CLASSES, Census

PLAN = SamplePlan(n_points=300, minimum=40, seed=5, resolution_m=160)


def test_points_hold_what_the_map_says(census: Census) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    for k in range(len(sample)):
        tile = Tile.from_id(str(sample.tile[k]))
        row, col = sample.row[k], sample.col[k]
        assert census.read(tile).classes[row, col] == sample.mapped[k] == sample.stratum[k]
        assert sample.x[k] == tile.bounds[0] + (col + 0.5) * 160
        assert sample.y[k] == tile.bounds[3] - (row + 0.5) * 160


def test_points_are_owned_by_their_tiles_zone(census: Census) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    zones = [Tile.from_id(str(name)).zone for name in sample.tile]
    assert (zone_of(sample.lon, sample.lat) == zones).all()
    assert 33 in zones
    assert not owner_mask(census.tiles[2], 160).all()


def test_strata_hold_the_true_area_of_owned_mapped_pixels(census: Census) -> None:
    design = draw_sample(census.tiles, census.read, PLAN, names=CLASSES).design
    expected, pixels, unmapped = 0.0, 0, 0
    for tile in census.tiles:
        owned, classes = owner_mask(tile, 160), census.read(tile).classes
        expected += pixel_area_m2(tile, 160)[owned & (classes == 2)].sum()
        pixels += int((owned & (classes == 2)).sum())
        unmapped += int((owned & (classes == 0)).sum())
    (change,) = [part for part in design.strata if part.id == 2]
    assert change.area_m2 == pytest.approx(expected, rel=1e-12)
    assert (change.n_pixels, design.n_unmapped) == (pixels, unmapped)


def test_no_pixel_is_drawn_twice(census: Census) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    places = list(zip(sample.tile, sample.row, sample.col, strict=True))
    assert len(set(places)) == len(places) == 300


def test_same_seed_draws_the_same_pixels_in_any_order_of_tiles(census: Census) -> None:
    one = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    other = draw_sample(census.tiles[::-1], census.read, PLAN, names=CLASSES)
    assert json.dumps(one.to_geojson()) == json.dumps(other.to_geojson())


def test_every_pixel_of_a_stratum_has_the_same_chance() -> None:
    """240 draws of 10 out of 40 pixels on two tiles: each pixel comes 60 times."""
    tiles = (Tile(32, 388, 44), Tile(32, 389, 44))

    def read(tile: Tile) -> MapTile:
        classes = np.zeros((8, 8), "u1")
        classes[: 3 if tile.row == 388 else 2] = 1
        return MapTile(classes)

    counts: dict[tuple[str, int, int], int] = {}
    for seed in range(240):
        plan = SamplePlan(n_points=10, minimum=2, seed=seed, resolution_m=1280)
        sample = draw_sample(tiles, read, plan, names={1: "all"})
        for place in zip(sample.tile, sample.row.tolist(), sample.col.tolist(), strict=True):
            counts[place] = counts.get(place, 0) + 1
    found = np.array(list(counts.values()))
    assert len(found) == 40
    # chi-square with 39 degrees of freedom, 99.9 % point 72.1
    assert ((found - 60) ** 2 / (60 * 0.75)).sum() < 72.1


def test_estimates_from_drawn_samples_centre_on_the_truth(census: Census) -> None:
    def reference(sample: Sample) -> np.ndarray:
        tiles = [Tile.from_id(str(name)) for name in sample.tile]
        truth = {tile: census.truth(tile) for tile in set(tiles)}
        return np.array(
            [truth[t][r, c] for t, r, c in zip(tiles, sample.row, sample.col, strict=True)]
        )

    true = sum(
        float(
            pixel_area_m2(tile, 160)[
                owner_mask(tile, 160) & (census.read(tile).classes > 0) & (census.truth(tile) == 2)
            ].sum()
        )
        for tile in census.tiles
    )
    deviations = []
    for seed in range(24):
        plan = SamplePlan(n_points=400, minimum=60, seed=seed, resolution_m=160)
        table = assess_map(census.tiles, census.read, reference, classes=CLASSES, plan=plan).table
        area = table.areas_m2[1]
        deviations.append((area.value - true) / area.standard_error)
    assert abs(np.mean(deviations)) < 3 / math.sqrt(24)
    assert 0.65 < np.std(deviations) < 1.4


def test_sample_survives_writing_and_reading(census: Census, tmp_path: Path) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    path = str(tmp_path / "sample.geojson")
    sample.write(path)
    again = read_sample(path)
    assert again.design == sample.design
    assert again.to_geojson() == sample.to_geojson()


def test_sample_without_design_is_refused(census: Census, tmp_path: Path) -> None:
    document = draw_sample(census.tiles, census.read, PLAN, names=CLASSES).to_geojson()
    del document["design"]
    path = tmp_path / "points.geojson"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="carries no design record"):
        read_sample(str(path))


def test_file_that_is_no_sample_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.geojson"
    path.write_text('{"type": "FeatureCollection", "features": [{"properties": {}}]}')
    with pytest.raises(DataError, match="cannot be read as a sample"):
        read_sample(str(path))


def test_map_without_a_class_is_refused() -> None:
    with pytest.raises(DataError, match="none of 1 tiles has an owned pixel"):
        draw_sample(
            [Tile(32, 388, 44)],
            lambda tile: MapTile(np.zeros((64, 64), "u1")),
            PLAN,
            names=CLASSES,
        )


def test_stratum_without_a_name_is_refused(census: Census) -> None:
    with pytest.raises(DataError, match=r"the map holds strata \[3\] but names"):
        draw_sample(census.tiles, census.read, PLAN, names={1: "stable", 2: "change"})


def test_tile_of_another_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"came as classes \(10, 10\)"):
        draw_sample(
            [Tile(32, 388, 44)], lambda tile: MapTile(np.ones((10, 10), "u1")), PLAN, names=CLASSES
        )


def test_buffer_takes_the_neighbours_of_a_rare_class() -> None:
    classes = np.ones((7, 7), "u1")
    classes[3, 3], classes[0, :] = 2, 3
    strata = buffer_strata(classes, around=2, within=1, stratum=9, radius_px=2)
    expected = classes.copy()
    expected[1:6, 1:6] = 9
    expected[3, 3] = 2
    np.testing.assert_array_equal(strata, expected)


def test_buffer_reaches_across_the_edge_when_a_halo_is_given() -> None:
    classes = np.ones((6, 6), "u1")
    classes[0, 0] = 2
    strata = buffer_strata(classes, around=2, within=1, stratum=9, radius_px=1, halo_px=1)
    assert strata.shape == (4, 4)
    assert strata[0, 0] == 9
    assert (strata == 9).sum() == 1
