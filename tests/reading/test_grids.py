"""Grids of scenes are judged before a pixel is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eoray.errors import GridError
from eoray.reading.grids import check_grids

BANDS = ("B03", "B8A")


def write(granules: Any, corner: tuple[int, int], name: str, **place: Any) -> Any:
    return granules.write(name, row=corner[0], col=corner[1], height=20, width=30, **place)


def test_first_misfit_is_named_with_its_part_of_a_pixel(
    granules: Any, corner: tuple[int, int]
) -> None:
    scenes = [
        write(granules, corner, "32TQS_a"),
        write(granules, corner, "33TUM_a", zone=33),
        write(granules, corner, "32TQS_b", shift_m=(2.5, 0.0)),
    ]
    check_grids(scenes[:2], BANDS, warp=False)
    with pytest.raises(GridError, match=r"item 32TQS_b: B03 lies 0\.250, 0\.000 of a pixel"):
        check_grids(scenes, BANDS, warp=False)
    check_grids(scenes, BANDS, warp=True)


def test_two_that_fit_no_common_grid_name_what_lies_between_them(
    granules: Any, corner: tuple[int, int]
) -> None:
    scenes = [
        write(granules, corner, "32TQS_a", shift_m=(2.5, 0.0)),
        write(granules, corner, "32TQS_b", shift_m=(7.5, 5.0)),
    ]
    with pytest.raises(GridError, match=r"item 32TQS_b lies 0\.5, 0\.5 of a pixel \(x, y\) off it"):
        check_grids(scenes, BANDS, warp=False)


def test_pixels_of_another_size_are_named_by_size(granules: Any, corner: tuple[int, int]) -> None:
    scene = write(granules, corner, "32TQS_a")
    coarse = replace(scene.asset("B8A"), band="B03")
    swapped = replace(scene, assets=tuple(coarse if a.band == "B03" else a for a in scene.assets))
    with pytest.raises(GridError, match="B03 has pixels of 20 m, not 10 m"):
        check_grids([swapped], BANDS, warp=False)


def test_files_of_one_item_that_cover_other_ground_are_refused_even_for_warping(
    granules: Any, corner: tuple[int, int]
) -> None:
    scene = write(granules, corner, "32TQS_a")
    other = write(granules, (corner[0], corner[1] + 10), "32TQS_b")
    mixed = tuple(other.asset("SCL") if a.band == "SCL" else a for a in scene.assets)
    with pytest.raises(GridError, match=r"SCL of item 32TQS_a has shape .* mend proj:shape"):
        check_grids([replace(scene, assets=mixed)], BANDS, warp=True)
