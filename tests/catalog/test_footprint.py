"""Outlines on both sides of the antimeridian."""

from __future__ import annotations

import pytest
import shapely

from eoray.catalog.footprint import bbox_of, centre_lon, item_footprint
from eoray.errors import CatalogError
from eoray.grid import split_antimeridian

LONG_WAY = shapely.box(-179.5, 60, 179.5, 61)


def test_an_ordinary_outline_stays_as_it_is() -> None:
    box = shapely.box(11, 45, 12, 46)
    assert split_antimeridian(box).equals(box)
    assert bbox_of(box) == (11, 45, 12, 46)


@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_longitudes_beyond_180_are_cut_and_brought_back(turn: int) -> None:
    split = split_antimeridian(shapely.box(179.5 + turn, 60, 180.5 + turn, 61))
    assert split.area == pytest.approx(1.0)
    assert bbox_of(split) == (179.5, 60, -179.5, 61)
    assert abs(centre_lon(bbox_of(split))) == 180


def test_a_granule_drawn_the_long_way_round_is_turned() -> None:
    split = split_antimeridian(LONG_WAY, narrow=True)
    assert split.area == pytest.approx(1.0)
    assert bbox_of(split) == (179.5, 60, -179.5, 61)


def test_a_wide_place_is_not_taken_for_one_that_crosses() -> None:
    assert bbox_of(split_antimeridian(LONG_WAY)) == (-179.5, 60, 179.5, 61)


def test_a_box_stands_in_for_a_missing_geometry() -> None:
    assert item_footprint({"geometry": None, "bbox": [1, 2, 0, 3, 4, 9]}, "x").bounds == (
        1,
        2,
        3,
        4,
    )
    crossing = item_footprint({"geometry": None, "bbox": [179, 60, -179, 61]}, "x")
    assert bbox_of(crossing) == (179, 60, -179, 61)


def test_a_bow_tie_is_mended() -> None:
    tie = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}
    outline = item_footprint({"geometry": tie}, "x")
    assert outline.is_valid
    assert outline.area == pytest.approx(0.5)


def test_an_item_without_place_is_refused() -> None:
    with pytest.raises(CatalogError, match=r"item x has neither geometry nor bbox"):
        item_footprint({"geometry": None, "bbox": None}, "x")


def test_an_unreadable_geometry_is_named() -> None:
    with pytest.raises(CatalogError, match=r"geometry of item x cannot be read"):
        item_footprint({"geometry": {"type": "Sphere", "coordinates": [1, 2]}}, "x")
