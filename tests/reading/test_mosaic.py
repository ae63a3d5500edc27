"""One datatake over a block of tiles: who gives each pixel, and what happens to holes."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from eoray.cube.mask import MaskRecipe
from eoray.cube.plan import SceneRow
from eoray.cube.scenes import CubeRecipe, SceneWorker
from eoray.errors import GridError, ReadError
from eoray.grid import TOP_M, Block, Tile
from eoray.reading.choice import choose
from eoray.reading.mosaic import Mosaic, ReadOptions, read_mosaic
from eoray.sentinel2 import FILL, Mask, Quality

BANDS = ("B03", "B04", "B8A")
N = 1024
"""Edge of the block in 20 m pixels."""

OPTIONS = ReadOptions(BANDS, halo_px=6, raise_errors=False, retries=0)


def read_block(scenes: list[Any], block: Block, options: ReadOptions) -> Mosaic:
    """The mosaic with its arrays grown to the whole block, as tiles are cut from it."""
    mosaic = read_mosaic(scenes, block, options)
    window, frame = block.window(20), mosaic.frame
    top, left = frame.row_off - window.row_off, frame.col_off - window.col_off
    layers: list[dict[int, np.ndarray]] = []
    for name, fill in (("reflectance", FILL), ("quality", int(Quality.NO_DATA))):
        grown = {}
        for resolution_m, values in getattr(mosaic, name).items():
            k = 20 // resolution_m
            shape = (*values.shape[:-2], window.height * k, window.width * k)
            grown[resolution_m] = np.full(shape, fill, values.dtype)
            box = np.s_[
                ..., top * k : (top + frame.height) * k, left * k : (left + frame.width) * k
            ]
            grown[resolution_m][box] = values
        layers.append(grown)
    return replace(mosaic, frame=window, reflectance=layers[0], quality=layers[1])


def paste(
    granules: Any, name: str, band: str, corner: tuple[int, int], at: tuple[int, int]
) -> np.ndarray:
    """A written file on the lattice of the block; 0 outside."""
    values = granules.written[name][band]
    factor = 1 if band in ("B8A", "SCL") else 2
    canvas = np.zeros((3 * N * factor, 3 * N * factor), values.dtype)
    row, col = ((a - c) * factor + N * factor for a, c in zip(at, corner, strict=True))
    canvas[row : row + values.shape[0], col : col + values.shape[1]] = values
    return canvas[N * factor : 2 * N * factor, N * factor : 2 * N * factor]


def stored(dn: np.ndarray, offset: int = -1000) -> np.ndarray:
    values = np.where(dn == 0, FILL, np.minimum(dn.astype(int) + offset, 32767))
    return np.asarray(values)


def band_of(mosaic: Mosaic, band: str) -> np.ndarray:
    resolution_m, position = {"B03": (10, 0), "B04": (10, 1), "B8A": (20, 0)}[band]
    plane: np.ndarray = mosaic.reflectance[resolution_m][position]
    return plane


def bits(mosaic: Mosaic, flag: Quality, resolution_m: int = 20) -> np.ndarray:
    return np.asarray((mosaic.quality[resolution_m] & np.uint8(flag)) > 0)


def whole(granules: Any, corner: tuple[int, int], name: str = "32TQS_a", **kwargs: Any) -> Any:
    """A granule that covers the block and its halo."""
    box = {"row": corner[0] - 20, "col": corner[1] - 30, "height": 1100, "width": 1090}
    return granules.write(name, **{**box, **kwargs})


def test_granule_in_its_zone_is_copied(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    scene = whole(granules, corner)
    mosaic = read_block([scene], block, OPTIONS)
    for band in BANDS:
        dn = paste(granules, "32TQS_a", band, corner, (corner[0] - 20, corner[1] - 30))
        np.testing.assert_array_equal(band_of(mosaic, band), stored(dn))
    assert all(quality.max() == 0 for quality in mosaic.quality.values())
    assert mosaic.scl.shape == (N + 12, N + 12)
    assert (mosaic.scl == 4).all()
    assert (mosaic.failed, mosaic.used) == ((), ("32TQS_a",))


def test_special_numbers_keep_their_meaning(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    def patch(arrays: dict[str, np.ndarray]) -> None:
        b03 = arrays["B03"][40:, 60:]  # counted from the block's corner
        b03[0, 0:4] = 0, 65535, 999, 1
        arrays["B04"][40:, 60:][0, 0] = 0
        arrays["B04"][40:, 60:][10, 10] = 65535
        arrays["SCL"][20:, 30:][7, 7] = 1
        arrays["SCL"][20:, 30:][9, 9] = 0

    mosaic = read_block([whole(granules, corner, patch=patch)], block, OPTIONS)
    assert band_of(mosaic, "B03")[0, :4].tolist() == [FILL, 32767, -1, -999]
    no_data, saturated = (bits(mosaic, q, 10) for q in (Quality.NO_DATA, Quality.SATURATED))
    assert np.argwhere(no_data).tolist() == [[0, 0], [18, 18], [18, 19], [19, 18], [19, 19]]
    expected = [[0, 1], [10, 10], [14, 14], [14, 15], [15, 14], [15, 15]]
    assert np.argwhere(saturated).tolist() == expected
    assert (band_of(mosaic, "B03")[18:20, 18:20] == FILL).all()
    edge = np.argwhere(bits(mosaic, Quality.GRANULE_EDGE))
    around = [[r, c] for r in (8, 9, 10) for c in (8, 9, 10) if (r, c) != (9, 9)]
    assert edge.tolist() == around  # no data inside the file, not the file's own border


def test_pixels_beyond_the_file_are_no_data(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    at = (corner[0] + 301, corner[1] + 17)
    scene = granules.write("32TQS_a", row=at[0], col=at[1], height=150, width=211)
    mosaic = read_block([scene], block, OPTIONS)
    inside = np.zeros((N, N), bool)
    inside[301:451, 17:228] = True
    np.testing.assert_array_equal(bits(mosaic, Quality.NO_DATA), ~inside)
    for band in BANDS:
        dn = paste(granules, "32TQS_a", band, corner, at)
        np.testing.assert_array_equal(band_of(mosaic, band), stored(dn))


def test_southern_granule_is_copied(granules: Any) -> None:
    tile = Tile(32, 1000, 40)
    window = tile.window(20)
    scene = granules.write(
        "32MQS_s", row=window.row_off - 9, col=window.col_off - 9, height=530, width=530, south=True
    )
    mosaic = read_block([scene], Block(32, 1000, 40, 1, 1), OPTIONS)
    dn = granules.written["32MQS_s"]["B8A"][9:521, 9:521]
    np.testing.assert_array_equal(band_of(mosaic, "B8A"), stored(dn))
    assert mosaic.quality[20].max() == 0


def overlapping(granules: Any, corner: tuple[int, int]) -> dict[str, tuple[Any, tuple[int, int]]]:
    """Three granules; the first has a hole where the others see."""

    def hole(arrays: dict[str, np.ndarray]) -> None:
        arrays["SCL"][100:180, 500:560] = 0

    boxes = {
        "32TQS_a": (corner[0] - 10, corner[1] - 10, 700, 650),
        "32TQT_b": (corner[0] - 10, corner[1] + 430, 700, 700),
        "32TQU_c": (corner[0] + 480, corner[1] + 101, 650, 801),
    }
    return {
        name: (
            granules.write(
                name,
                row=row,
                col=col,
                height=height,
                width=width,
                number=number,
                patch=hole if number == 0 else None,
            ),
            (row, col),
        )
        for number, (name, (row, col, height, width)) in enumerate(boxes.items())
    }


def nearest_granule(granules: Any, corner: tuple[int, int], made: Any) -> np.ndarray:
    """Brute force: among those valid in a pixel, the granule whose centre is nearest."""
    best = np.full((N, N), np.inf)
    choice = np.full((N, N), -1)
    row, col = np.mgrid[0:N, 0:N] + 0.5
    for number, (name, (_, at)) in enumerate(made.items()):
        scl = paste(granules, name, "SCL", corner, at)
        height, width = granules.written[name]["SCL"].shape
        far = (row + corner[0] - at[0] - height / 2) ** 2 + (
            col + corner[1] - at[1] - width / 2
        ) ** 2
        better = (scl != 0) & (far < best)
        choice[better], best[better] = number, far[better]
    return choice


@dataclass(frozen=True)
class Overlap:
    """Three overlapping granules, read once for all tests that look at them."""

    granules: Any
    made: dict[str, tuple[Any, tuple[int, int]]]
    mosaic: Mosaic
    choice: np.ndarray
    """Number of the granule that each 20 m pixel should take, by brute force."""


@pytest.fixture(scope="module")
def overlap(granules_at: Any, block: Block, corner: tuple[int, int]) -> Overlap:
    made = overlapping(granules_at, corner)
    mosaic = read_block([scene for scene, _ in made.values()], block, OPTIONS)
    return Overlap(granules_at, made, mosaic, nearest_granule(granules_at, corner, made))


def test_overlap_goes_to_the_nearest_centre_then_to_the_next_valid(
    overlap: Overlap, corner: tuple[int, int]
) -> None:
    choice, mosaic = overlap.choice, overlap.mosaic
    assert {*np.unique(choice)} == {-1, 0, 1, 2}
    for band in BANDS:
        factor = 1 if band == "B8A" else 2
        wide = choice.repeat(factor, axis=0).repeat(factor, axis=1)
        dn = np.zeros(wide.shape, np.uint16)
        for number, (name, (_, at)) in enumerate(overlap.made.items()):
            dn = np.where(wide == number, paste(overlap.granules, name, band, corner, at), dn)
        np.testing.assert_array_equal(band_of(mosaic, band), stored(dn))
    np.testing.assert_array_equal(bits(mosaic, Quality.NO_DATA), choice == -1)
    assert mosaic.used == tuple(overlap.made)


def test_other_granule_is_marked_tile_by_tile(overlap: Overlap, corner: tuple[int, int]) -> None:
    centres = [
        (
            at[0] - corner[0] + s.asset("SCL").shape[0] / 2,
            at[1] - corner[1] + s.asset("SCL").shape[1] / 2,
        )
        for s, at in overlap.made.values()
    ]
    for row in (0, 512):
        for col in (0, 512):
            part = overlap.choice[row : row + 512, col : col + 512]
            far = [(y - row - 256) ** 2 + (x - col - 256) ** 2 for y, x in centres]
            main = min((n for n in np.unique(part) if n >= 0), key=lambda n: far[n])
            marked = bits(overlap.mosaic, Quality.OTHER_GRANULE)
            np.testing.assert_array_equal(
                marked[row : row + 512, col : col + 512], (part >= 0) & (part != main)
            )


def test_order_of_scenes_does_not_matter(overlap: Overlap, block: Block) -> None:
    scenes = [scene for scene, _ in overlap.made.values()]
    turned = read_block(scenes[::-1], block, OPTIONS)
    for resolution_m in (10, 20):
        for name in ("reflectance", "quality"):
            np.testing.assert_array_equal(
                getattr(overlap.mosaic, name)[resolution_m], getattr(turned, name)[resolution_m]
            )


def test_datastrips_of_one_granule_are_put_together(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    """Upper and lower part of a granule, 20 lines in both; neither competes with the other."""

    def keep(rows: slice) -> Any:
        def patch(arrays: dict[str, np.ndarray]) -> None:
            for band, values in arrays.items():
                factor = 1 if band in ("B8A", "SCL") else 2
                gone = np.ones(len(values), bool)
                gone[(rows.start or 0) * factor : (rows.stop or 1100) * factor] = False
                values[gone] = 0

        return patch

    upper = whole(granules, corner, "32TQS_up", patch=keep(slice(0, 500)))
    lower = whole(granules, corner, "32TQS_low", patch=keep(slice(480, None)))
    mosaic = read_block([upper, lower], block, OPTIONS)
    dn = np.maximum(
        *(
            paste(granules, name, "B8A", corner, (corner[0] - 20, corner[1] - 30))
            for name in ("32TQS_up", "32TQS_low")
        )
    )
    np.testing.assert_array_equal(band_of(mosaic, "B8A"), stored(dn))
    assert (dn > 0).all()
    assert not bits(mosaic, Quality.NO_DATA).any()
    assert not bits(mosaic, Quality.OTHER_GRANULE).any()  # it is the same granule


def foreign(granules: Any, corner: tuple[int, int], name: str = "33TUN_f", **kwargs: Any) -> Any:
    """A granule of zone 33 over the eastern half of the block."""
    to_33 = Transformer.from_crs(32632, 32633, always_xy=True)
    x, y = to_33.transform((corner[1] + 620) * 20, TOP_M - (corner[0] + 300) * 20)
    row, col = int((TOP_M - y) // 20), int(x // 20)
    box = {"row": row, "col": col, "height": 500, "width": 480, "zone": 33, "number": 5}
    return granules.write(name, **{**box, **kwargs})


def warped(scene: Any, band: str, block: Block) -> np.ndarray:
    """GDAL's own warp of a file onto the whole block at once, ten times as exact as ours."""
    pixel = 20 if band in ("B8A", "SCL") else 10
    edge = N * 20 // pixel
    with (
        rasterio.open(scene.asset(band).href) as file,
        WarpedVRT(
            file,
            crs="EPSG:32632",
            transform=block.window(pixel).transform(pixel),
            width=edge,
            height=edge,
            resampling=Resampling.nearest if band == "SCL" else Resampling.bilinear,
            src_nodata=0,
            nodata=0,
            tolerance=1e-4,
            XSCALE=1,
            YSCALE=1,
        ) as vrt,
    ):
        values: np.ndarray = vrt.read(1)
    return values


def test_granule_of_the_neighbour_zone_is_warped_and_marked(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    scene = foreign(granules, corner)
    mosaic = read_block([scene], block, OPTIONS)
    chosen = bits(mosaic, Quality.FOREIGN_ZONE)
    assert 0.1 < chosen.mean() < 0.5
    assert (chosen != (warped(scene, "SCL", block) != 0)).mean() < 1e-4
    for band in BANDS:
        factor = 1 if band == "B8A" else 2
        wide = chosen.repeat(factor, axis=0).repeat(factor, axis=1)
        exact, found = stored(warped(scene, band, block)), band_of(mosaic, band).astype(int)
        both = wide & (exact != FILL) & (found != FILL)
        assert (wide & ~both).mean() < 1e-3
        # a thousandth of a pixel of transform error on values that jump by up to 20 000
        assert np.abs(exact - found)[both].max() <= 20
        assert np.median(np.abs(exact - found)[both]) == 0
        assert (found[~wide] == FILL).all()


def test_own_zone_keeps_its_pixels_before_a_foreign_granule(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    own = granules.write("32TQS_a", row=corner[0], col=corner[1], height=1024, width=800)
    scene = foreign(granules, corner)
    mosaic = read_block([scene, own], block, OPTIONS)
    dn = paste(granules, "32TQS_a", "B8A", corner, corner)
    np.testing.assert_array_equal(band_of(mosaic, "B8A")[:, :800], stored(dn)[:, :800])
    chosen = warped(scene, "SCL", block) != 0
    chosen[:, :800] = False
    assert chosen.any()
    assert (bits(mosaic, Quality.FOREIGN_ZONE) != chosen).mean() < 1e-4


def test_clipped_source_is_marked(granules: Any, block: Block, corner: tuple[int, int]) -> None:
    scene = whole(granules, corner, clipped_at_source=True, dn_offset=0)
    mosaic = read_block([scene], block, OPTIONS)
    assert bits(mosaic, Quality.CLIPPED_AT_SOURCE, 10).all()
    assert band_of(mosaic, "B8A").min() > 0


def two_side_by_side(granules: Any, corner: tuple[int, int]) -> tuple[Any, Any]:
    """West covers columns 0 to 399 of the block, east the rest."""
    return (
        granules.write("32TQS_a", row=corner[0], col=corner[1], height=1024, width=400),
        granules.write("32TQT_b", row=corner[0], col=corner[1] + 400, height=1024, width=624),
    )


def test_a_band_that_fails_leaves_a_marked_hole_there_alone(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    west, east = two_side_by_side(granules, corner)
    Path(west.asset("B04").href).unlink()
    mosaic = read_block([west, east], block, OPTIONS)
    failed = np.zeros((2 * N, 2 * N), bool)
    failed[:, :800] = True
    np.testing.assert_array_equal(bits(mosaic, Quality.FAILED_READ, 10), failed)
    np.testing.assert_array_equal(band_of(mosaic, "B04") == FILL, failed)
    assert (band_of(mosaic, "B03") != FILL).all()
    assert mosaic.quality[20].max() & ~np.uint8(Quality.OTHER_GRANULE) == 0
    (failure,) = mosaic.failed
    assert (failure.item_id, failure.band) == ("32TQS_a", "B04")
    assert [tile.id for tile in failure.tiles] == ["z32r0400c070", "z32r0401c070"]


def test_a_failed_scl_is_a_failed_read_where_it_would_have_come_first(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    west = granules.write("32TQS_a", row=corner[0], col=corner[1], height=600, width=500)
    east = granules.write("32TQT_b", row=corner[0], col=corner[1] + 400, height=600, width=500)
    clean = read_block([west, east], block, OPTIONS)
    Path(west.asset("SCL").href).unlink()
    mosaic = read_block([west, east], block, OPTIONS)
    failed = np.zeros((N, N), bool)
    failed[:600, : 450 + OPTIONS.halo_px] = True  # its clouds may reach beyond the middle
    for resolution_m in (10, 20):
        marked = failed.repeat(20 // resolution_m, 0).repeat(20 // resolution_m, 1)
        for layers in ("reflectance", "quality"):
            found, known = (getattr(m, layers)[resolution_m] for m in (mosaic, clean))
            assert (found == known)[..., ~marked].all()
    np.testing.assert_array_equal(bits(mosaic, Quality.FAILED_READ), failed)
    assert (band_of(mosaic, "B8A")[:600, 400:900] != FILL).all()
    assert not bits(mosaic, Quality.FAILED_READ)[600:].any()  # beyond the file: no data
    assert [f.band for f in mosaic.failed] == ["SCL"]


def test_a_failed_scl_of_a_foreign_granule_is_failed_under_it_alone(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    scene = foreign(granules, corner)
    under = warped(scene, "SCL", block) != 0
    Path(scene.asset("SCL").href).unlink()
    mosaic = read_block([scene], block, OPTIONS)
    failed = bits(mosaic, Quality.FAILED_READ)
    assert (failed != under).mean() < 0.004  # half a pixel along the outline
    assert 0.1 < failed.mean() < 0.5


def test_truncated_file_is_recorded(granules: Any, block: Block, corner: tuple[int, int]) -> None:
    scene = whole(granules, corner)
    path = Path(scene.asset("B8A").href)
    os.truncate(path, path.stat().st_size // 2)
    mosaic = read_block([scene], block, OPTIONS)
    assert (band_of(mosaic, "B8A") == FILL).all()
    assert bits(mosaic, Quality.FAILED_READ).all()
    assert len(mosaic.failed) == 1
    assert (band_of(mosaic, "B03") != FILL).all()


@pytest.mark.parametrize("band", ["B04", "SCL"])
def test_python_calls_raise_the_first_failed_read(
    granules: Any, block: Block, corner: tuple[int, int], band: str
) -> None:
    scene = whole(granules, corner)
    Path(scene.asset(band).href).unlink()
    with pytest.raises(ReadError, match=f"{band} of item 32TQS_a") as caught:
        read_block([scene], block, replace(OPTIONS, raise_errors=True))
    assert caught.value.asset == band


def test_misfit_is_refused_or_warped_as_the_options_say(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    scene = whole(granules, corner, shift_m=(7.0, -4.0))
    with pytest.raises(GridError, match=r"B03 of item 32TQS_a lies 0\.700, 0\.400 of a pixel"):
        read_block([scene], block, OPTIONS)
    mosaic = read_block([scene], block, replace(OPTIONS, bands=("B03", "B8A"), warp=True))
    for band in ("B03", "B8A"):
        np.testing.assert_array_equal(band_of(mosaic, band), stored(warped(scene, band, block)))
    assert bits(mosaic, Quality.FOREIGN_ZONE)[bits(mosaic, Quality.NO_DATA) == 0].all()
    copied = read_block([whole(granules, corner)], block, OPTIONS)
    assert not bits(copied, Quality.FOREIGN_ZONE).any()


@pytest.mark.parametrize("turn", [(10, 0.5, 0.5, -10), (10, 0, 0, -14)])
def test_turned_and_oblong_pixels_are_warped_as_gdal_does(
    granules: Any, block: Block, corner: tuple[int, int], turn: tuple[float, float, float, float]
) -> None:
    scene = whole(granules, corner, shift_m=(7.0, -4.0))
    assets = []
    for asset in scene.assets:
        with rasterio.open(asset.href, "r+") as file:
            a, b, d, e = (v * (2 if asset.band in ("B8A", "SCL") else 1) for v in turn)
            file.transform = rasterio.Affine(a, b, asset.transform[2], d, e, asset.transform[5])
            assets.append(replace(asset, transform=tuple(file.transform)[:6]))
    turned = replace(scene, assets=tuple(assets))
    mosaic = read_block([turned], block, replace(OPTIONS, bands=("B03", "B8A"), warp=True))
    for band in ("B03", "B8A"):
        exact, found = stored(warped(turned, band, block)), band_of(mosaic, band).astype(int)
        both = (exact != FILL) & (found != FILL)
        assert both.mean() > 0.3
        assert np.median(np.abs(exact - found)[both]) == 0


def test_scene_that_does_not_touch_the_block_changes_nothing(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    here = whole(granules, corner)
    beyond = granules.write(
        "32TQT_x", row=corner[0] + 2000, col=corner[1], height=100, width=100, number=3
    )
    alone, both = (read_block(s, block, OPTIONS) for s in ([here], [here, beyond]))
    np.testing.assert_array_equal(alone.reflectance[10], both.reflectance[10])
    np.testing.assert_array_equal(alone.quality[20], both.quality[20])


@pytest.mark.parametrize("bands", [("B03",), ("B8A",)])
def test_resolution_without_a_band_takes_validity_from_scl(
    granules: Any, block: Block, corner: tuple[int, int], bands: tuple[str, ...]
) -> None:
    scene = granules.write("32TQS_a", row=corner[0], col=corner[1], height=500, width=600)
    mosaic = read_block([scene], block, replace(OPTIONS, bands=bands))
    empty = 20 if bands == ("B03",) else 10
    assert mosaic.reflectance[empty].shape[0] == 0
    for resolution_m in (10, 20):
        inside = ~bits(mosaic, Quality.NO_DATA, resolution_m)
        factor = 20 // resolution_m
        assert inside[: 500 * factor, : 600 * factor].all()
        assert inside.sum() == 500 * 600 * factor**2


def test_context_is_the_bands_with_their_halo_at_20_m(
    granules: Any, block: Block, corner: tuple[int, int]
) -> None:
    """As a larger block has them, where a 20 m pixel is the mean of at least three of four."""

    def patch(arrays: dict[str, np.ndarray]) -> None:
        arrays["B04"][40:, 60:][0:2, 0:2] = [[2001, 2002], [2004, 0]]
        arrays["B04"][40:, 60:][0:2, 2:4] = [[2001, 0], [2004, 0]]

    scene = whole(granules, corner, patch=patch)
    options = replace(OPTIONS, bands=("B8A",), halo_px=16, context=("B04", "B8A"))
    mosaic = read_mosaic([scene], block, options)
    plain = read_mosaic([scene], block, replace(options, bands=BANDS, context=()))
    assert mosaic.context is not None
    assert mosaic.context.shape == (2, N + 32, N + 32)
    np.testing.assert_array_equal(mosaic.context[1, 16:-16, 16:-16], plain.reflectance[20][0])
    assert mosaic.context[0, 16, 16:18].tolist() == [1002, FILL]
    fine = plain.reflectance[10][1, 2:, 2:].astype("f8")
    mean = fine.reshape(N - 1, 2, N - 1, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(mosaic.context[0, 17:-16, 17:-16], np.rint(mean))
    file = granules.written["32TQS_a"]["B8A"].astype(int) - 1000
    np.testing.assert_array_equal(mosaic.context[1], file[4 : 4 + N + 32, 14 : 14 + N + 32])
    np.testing.assert_array_equal(mosaic.reflectance[20], plain.reflectance[20])


def scene_row(scenes: list[Any], block: Block) -> SceneRow:
    tiles = tuple(
        Tile(block.zone, block.row + i, block.col + j)
        for i in range(block.n_rows)
        for j in range(block.n_cols)
    )
    return SceneRow("row", "take", block, tiles, tuple(scenes), tuple(t.id for t in tiles))


class Relative:
    """Stands for a network: a pixel's class follows from the whole picture and its surroundings."""

    bands = ("B04", "B03", "B8A")

    def __call__(self, reflectance: np.ndarray) -> np.ndarray:
        valid = (reflectance != FILL).all(axis=0)
        bright = np.where(valid, reflectance.astype("f8").sum(axis=0), 0.0)
        level = bright / max(1.0, bright.max()) + np.cumsum(bright, axis=1) / (bright.sum() + 1)
        classes = np.digitize(level, np.quantile(level[valid], [0.9, 0.97, 0.99]))
        return np.where(valid, classes, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("broken", "learned"),
    [
        ("", False),
        ("", True),
        ("SCL of f", False),
        pytest.param("B8A of b", False, marks=pytest.mark.slow),
        pytest.param("B8A of b", True, marks=pytest.mark.slow),
        pytest.param("SCL of c", False, marks=pytest.mark.slow),
        pytest.param("B04 of b", True, marks=pytest.mark.slow),
    ],
)
def test_tiles_of_a_block_equal_the_tiles_read_one_by_one(
    granules: Any, block: Block, corner: tuple[int, int], broken: str, learned: bool
) -> None:
    """Grouping is no input: granules, foreign pixels, clouds at tile borders, failed reads."""
    made = [scene for scene, _ in overlapping(granules, corner).values()]

    def clouds(arrays: dict[str, np.ndarray]) -> None:
        rng = np.random.default_rng(3)
        scl = arrays["SCL"]
        scl[rng.random(scl.shape) < 0.001] = 9
        scl[rng.random(scl.shape) < 0.001] = 3
        scl[rng.random(scl.shape) < 0.001] = 0

    own = granules.write(
        "32TQR_d",
        row=corner[0] + 400,
        col=corner[1] - 60,
        height=300,
        width=620,
        number=4,
        patch=clouds,
    )
    scenes = [*made, own, foreign(granules, corner, patch=clouds, width=560)]
    if broken:
        band, _, letter = broken.split()
        (scene,) = [s for s in scenes if s.item_id.endswith(f"_{letter}")]
        Path(scene.asset(band).href).unlink()
    mask = MaskRecipe(learned="relative" if learned else "")
    recipe = CubeRecipe(("B03", "B8A"), mask, {}, "sentinel-2-c1-l2a")
    worker = SceneWorker(recipe, retries=0, clouds=Relative() if learned else None)
    row = scene_row(scenes, block)
    together = list(worker(row))
    assert [result.tile for result in together] == list(row.tiles)
    seen = set()
    for result in together:
        (alone,) = worker(row.only([result.tile]))
        for path, values in result.arrays.items():
            np.testing.assert_array_equal(values, alone.arrays[path], err_msg=path)
        for name in ("tile", "entry", "status", "n_valid", "n_failed", "source"):
            assert getattr(result, name) == getattr(alone, name)
        seen |= {*np.unique(result.arrays["20m/mask"])}
    assert any(bit & int(Mask.DILATED) for bit in seen)
    foreign_seen = any((r.arrays["20m/quality"] & Quality.FOREIGN_ZONE).any() for r in together)
    assert foreign_seen == (broken != "SCL of f")
    assert (sum(r.n_failed for r in together) > 0) == bool(broken)


def test_rows_in_a_stream_are_those_read_alone_and_begin_before_the_last_one_is_used(
    granules: Any, block: Block, corner: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [scene for scene, _ in overlapping(granules, corner).values()]
    row = scene_row(made, block)
    rows = [replace(row.only([tile]), key=tile.id) for tile in row.tiles[:3]]
    worker = SceneWorker(CubeRecipe(("B03", "B8A"), MaskRecipe(), {}, "sentinel-2-c1-l2a"))
    alone = [list(worker(one)) for one in rows]
    begun = {one.key: threading.Event() for one in rows}
    keys = iter(begun)

    def noted(*arguments: Any) -> Any:
        begun[next(keys)].set()
        return choose(*arguments)

    monkeypatch.setattr("eoray.cube.scenes.choose", noted)
    coming = [*rows[1:], None]
    for (one, results), known, following in zip(
        worker.stream(iter(rows)), alone, coming, strict=True
    ):
        assert following is None or begun[following.key].wait(10), "nothing was read ahead"
        found = list(results)
        assert [r.tile for r in found] == list(one.tiles)
        for result, same in zip(found, known, strict=True):
            assert result.n_valid == same.n_valid
            for path, values in result.arrays.items():
                np.testing.assert_array_equal(values, same.arrays[path], err_msg=path)
