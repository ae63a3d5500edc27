from __future__ import annotations

from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from eoray.grid import PixelWindow, Tile
from eoray.publish.groups import group_tiles, published_grid

TILES = st.builds(Tile, st.integers(31, 33), st.integers(910, 926), st.integers(40, 52))


@given(st.sets(TILES, max_size=60), st.integers(1, 8))
def test_every_tile_lies_in_one_group_of_one_zone_and_hemisphere(
    tiles: set[Tile], edge: int
) -> None:
    groups = group_tiles(tiles, max_edge=edge)
    listed = [tile for group in groups for tile in group.tiles]
    assert sorted(listed) == sorted(tiles)
    for group in groups:
        assert len({(tile.zone, tile.is_south) for tile in group.tiles}) == 1
        window = group.window(10)
        assert max(window.height, window.width) <= edge * 1024
    assert len({group.id for group in groups}) == len(groups)


def test_tiles_that_touch_at_a_corner_share_a_group() -> None:
    (group,) = group_tiles([Tile(32, 400, 48), Tile(32, 401, 49)])
    assert group.window(10) == PixelWindow(400 * 1024, 48 * 1024, 2048, 2048)


def test_equator_divides_groups() -> None:
    north, south = group_tiles([Tile(32, 917, 48), Tile(32, 918, 48)])
    assert (north.epsg, south.epsg) == (32632, 32732)
    assert north.transform(10).f == 10_240
    assert south.transform(10).f == 10_000_000


def test_southern_grid_is_shifted_by_exactly_ten_thousand_kilometres() -> None:
    tile = Tile(32, 1000, 48)
    epsg, affine = published_grid(32, tile.window(10), 10)
    assert epsg == 32732
    assert affine == Affine(10, 0, tile.bounds[0], 0, -10, tile.bounds[3] + 10_000_000)


def test_window_across_the_equator_stays_in_the_northern_crs() -> None:
    window = PixelWindow(917 * 1024, 48 * 1024, 2048, 1024)
    assert published_grid(32, window, 10)[0] == 32632
