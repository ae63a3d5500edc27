"""The forecast of reads against a loop over rows, scenes and files."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pyproj import Transformer

from eoray.catalog.scene import BandAsset, Scene
from eoray.cube.plan import SceneRow, plan_scenes
from eoray.grid import TILE_M, TOP_M, Lattice, Tile, box_lonlat, tiles_of_geometry
from eoray.run.estimate import BYTES_PER_PIXEL, SCL_BYTES_PER_PIXEL, estimate_reads, scenes_of
from eoray.testing.scenes import make_scene

BANDS = ("B04", "B11")
ALPS = Lattice.of_pixel("alps", 3035, (4_300_000, 2_800_000), 20, 20, (10, 10))


def granule(name: str, zone: int, row: int, col: int, day: int = 1) -> Scene:
    """Four by four tiles from a tile on, less 100 m; B11 is cut short, so it lies on its own."""
    x, y = col * TILE_M + 100, TOP_M - row * TILE_M - 100
    files = tuple(
        BandAsset(band, f"/nowhere/{band}.tif", (float(m), 0.0, x, 0.0, -float(m), y), (px, px), 0)
        for band, m, px in (("SCL", 20, 2000), ("B04", 10, 4000), ("B11", 20, 1500), ("B02", 10, 9))
    )
    date = f"2021-06-{day:02d}"
    return make_scene(name, zone, files, datatake=f"take-{day}", sensing_time=f"{date}T10:00:00Z")


def brute_force(rows: Sequence[SceneRow]) -> tuple[int, float]:
    """Requests and bytes, one file at a time."""
    requests, size = 0, 0.0
    for row in rows:
        for scene in row.scenes:
            x0, y0, x1, y1 = row.block.bounds
            if isinstance(row.block.zone, Lattice):
                to_file = Transformer.from_crs(3035, scene.grid_epsg, always_xy=True)
                x0, y0, x1, y1 = to_file.transform_bounds(x0, y0, x1, y1, densify_pts=21)
            for asset in scene.assets:
                if asset.band in (*BANDS, "SCL"):
                    a, _, c, _, e, f = asset.transform
                    across = min(x1, c + a * asset.shape[1]) - max(x0, c)
                    down = min(y1, f) - max(y0, f + e * asset.shape[0])
                    if across > 0 and down > 0:
                        # a grid of 20 m takes 10 m bands from their first overview
                        on_overview = isinstance(row.block.zone, Lattice) and a == 10
                        area = across / a * down / -e / (4 if on_overview else 1)
                        requests += 1 + max(1, round(area / 1024**2))
                        per_pixel = SCL_BYTES_PER_PIXEL if asset.band == "SCL" else BYTES_PER_PIXEL
                        size += area * per_pixel
    return requests, size


WORLD = [Tile(32, row, col) for row in range(397, 404) for col in range(66, 74)]
CASES = {
    "world": [granule("a", 32, 396, 65), granule("b", 32, 399, 68), granule("c", 32, 400, 69, 6)],
    "own": [granule("a", 32, 402, 60), granule("b", 33, 402, 17), granule("c", 32, 403, 61, 6)],
}


@pytest.mark.parametrize("case", CASES)
def test_estimate_is_the_sum_over_rows_scenes_and_files(case: str) -> None:
    place = box_lonlat(10.6, 47.5, 11.3, 47.9)
    tiles = WORLD if case == "world" else tiles_of_geometry(place, ALPS)
    _, rows = plan_scenes(CASES[case], tiles)
    requests, size, minutes = estimate_reads(rows, BANDS, 2)
    assert requests > 20
    assert (requests, size) == pytest.approx(brute_force(rows), rel=1e-9, abs=1)
    assert estimate_reads(list(rows), BANDS, 2) == pytest.approx((requests, size, minutes))


def test_scenes_of_rows_are_each_named_once_by_id() -> None:
    _, rows = plan_scenes(CASES["world"], WORLD)
    assert [scene.item_id for scene in scenes_of(rows)] == ["a", "b", "c"]
    assert scenes_of(list(rows)) == scenes_of(rows)
