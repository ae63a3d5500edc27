"""Granules on a grid of the user's own: copied where they lie on it, else as GDAL warps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from eoray.config.grids import GridSection
from eoray.errors import GridError
from eoray.grid import TOP_M, Block, Lattice, from_lonlat, to_lonlat
from eoray.reading.grids import check_grids
from eoray.reading.mosaic import Mosaic, ReadOptions, read_mosaic
from eoray.sentinel2 import FILL, Quality

BANDS = ("B03", "B04", "B8A")
OPTIONS = ReadOptions(BANDS, halo_px=6, raise_errors=False, retries=0)
SIZE = 300
"""Edge of the granules in 20 m pixels."""


def own(name: str, epsg: int, origin: tuple[float, float], pixel: float, level: int) -> Lattice:
    return Lattice.of_pixel(name, epsg, origin, pixel, level, (2, 2))


@pytest.fixture(params=[(3035, 10.0, 10), (6933, 20.0, 20), (4326, 0.0001, 11), (4326, 9e-5, 10)])
def grid(request: pytest.FixtureRequest, corner: tuple[int, int]) -> Lattice:
    """A grid of another CRS that begins a little to the north-west of the granules' corner."""
    epsg, pixel, level = request.param
    x, y = corner[1] * 20.0, TOP_M - corner[0] * 20.0
    utm = own("utm", 32632, (x, y), 10.0, 10)
    lon, lat = to_lonlat(utm, np.array([x - 300.0]), np.array([y + 300.0]))
    left, top = from_lonlat(epsg).transform(lon[0], lat[0])
    return own("own", epsg, (round(left / pixel) * pixel, round(top / pixel) * pixel), pixel, level)


def granule(granules: Any, corner: tuple[int, int], name: str = "32TQS_a", **kwargs: Any) -> Any:
    box = {"row": corner[0], "col": corner[1], "height": SIZE, "width": SIZE}
    return granules.write(name, **{**box, **kwargs})


def whole(mosaic: Mosaic, lattice: Lattice, what: str, position: int | None = None) -> np.ndarray:
    """A layer over the first tile, fill where the frame does not reach."""
    values: Any = getattr(mosaic, what)[lattice.coarse]
    values = values if position is None else values[position]
    out = np.full((1024, 1024), FILL if position is not None else int(Quality.NO_DATA), np.int64)
    frame = mosaic.frame
    rows, cols = min(frame.height, 1024 - frame.row_off), min(frame.width, 1024 - frame.col_off)
    out[frame.row_off : frame.row_off + rows, frame.col_off : frame.col_off + cols] = values[
        :rows, :cols
    ]
    return out


def gdal(scene: Any, band: str, lattice: Lattice) -> np.ndarray:
    """GDAL's own warp of a file onto the first tile at once, ten times as exact as ours."""
    asset = scene.asset(band)
    nearest = band == "SCL"
    window = Block(lattice, 0, 0, 1, 1).window(lattice.coarse)
    finer = asset.transform[0] / lattice.coarse
    scale = finer if finer < 0.95 else 1  # GDAL averages what is finer than its target
    with (
        rasterio.open(asset.href) as file,
        WarpedVRT(
            file,
            crs=f"EPSG:{lattice.epsg}",
            transform=lattice.affine(window, lattice.coarse),
            width=1024,
            height=1024,
            resampling=Resampling.nearest if nearest else Resampling.bilinear,
            src_nodata=0,
            nodata=0,
            tolerance=1e-4,
            XSCALE=scale,
            YSCALE=scale,
        ) as vrt,
    ):
        values: np.ndarray = vrt.read(1)
    return values.astype(int)


def stored(dn: np.ndarray) -> np.ndarray:
    return np.where(dn == 0, FILL, dn - 1000)


def test_granule_is_warped_as_gdal_does(
    granules: Any, grid: Lattice, corner: tuple[int, int]
) -> None:
    scene = granule(granules, corner)
    mosaic = read_mosaic([scene], Block(grid, 0, 0, 1, 1), replace(OPTIONS, warp=True))
    seen = gdal(scene, "SCL", grid) != 0
    assert 0.02 < seen.mean() < 0.9
    quality = whole(mosaic, grid, "quality")
    chosen = quality & int(Quality.FOREIGN_ZONE) > 0
    assert (chosen != seen).mean() < 1e-3
    for position, band in enumerate(BANDS):
        exact, found = stored(gdal(scene, band, grid)), whole(mosaic, grid, "reflectance", position)
        both = chosen & (exact != FILL) & (found != FILL)
        assert both.sum() > 0.98 * seen.sum()
        # a thousandth of a pixel of transform error on values that jump by up to 20 000
        apart = np.abs(exact - found)[both]
        assert np.median(apart) == 0
        assert apart.max() <= 20
        assert (found[~chosen] == FILL).all()


def shifted(corner: tuple[int, int]) -> Lattice:
    """A 20 m grid in the granules' CRS that lies 5 m and 3 m beside the world's."""
    x, y = corner[1] * 20.0 + 5.0, TOP_M - corner[0] * 20.0 + 3.0
    return own("beside", 32632, (x - 400.0, y + 200.0), 20.0, 20)


def test_granule_that_lies_on_the_grid_is_copied(granules: Any, corner: tuple[int, int]) -> None:
    scene = granule(granules, corner, shift_m=(5.0, 3.0))
    grid = shifted(corner)
    check_grids([scene], ("B8A",), warp=False, grid=grid)
    with pytest.raises(GridError, match=r"B8A lies 0\.250, 0\.850 of a pixel .* off the world"):
        check_grids([scene], ("B8A",), warp=False)
    options = replace(OPTIONS, bands=("B8A",))
    mosaic = read_mosaic([scene], Block(grid, 0, 0, 1, 1), options)
    expected = np.full((1024, 1024), FILL)
    dn = granules.written["32TQS_a"]["B8A"].astype(int)
    expected[10 : 10 + SIZE, 20 : 20 + SIZE] = stored(dn)
    np.testing.assert_array_equal(whole(mosaic, grid, "reflectance", 0), expected)
    quality = whole(mosaic, grid, "quality")
    assert np.unique(quality[expected != FILL]).tolist() == [0]


def test_southern_file_lies_on_a_grid_that_names_the_southern_crs(granules: Any) -> None:
    corner = 512_100, 20_050
    scene = granule(granules, corner, "32MQS_s", shift_m=(5.0, 3.0), south=True)
    x, y = corner[1] * 20.0 + 5.0 - 400.0, TOP_M - corner[0] * 20.0 + 3.0 + 200.0
    origin = x, y + 10_000_000
    section = GridSection(name="south", crs="EPSG:32732", origin=origin, resolution=20.0)
    grid = section.lattice()
    assert (grid.epsg, grid.x, grid.y) == (32632, x, y)
    mosaic = read_mosaic([scene], Block(grid, 0, 0, 1, 1), replace(OPTIONS, bands=("B8A",)))
    dn = granules.written["32MQS_s"]["B8A"].astype(int)
    found = whole(mosaic, grid, "reflectance", 0)
    np.testing.assert_array_equal(found[10 : 10 + SIZE, 20 : 20 + SIZE], stored(dn))


@pytest.mark.parametrize(
    ("bands", "change", "words"),
    [
        (("B03", "B8A"), {}, r"item 32TQS_a: B03 has pixels of 10 m, not 20 m; say `cube\.warp"),
        (("B8A",), {"x": 7.0}, r"B8A lies 0\.500, 0\.000 of a pixel \(x, y\) off grid 'beside'"),
        (("B8A",), {"epsg": 32633}, "its files lie in EPSG:32632, grid 'beside' in EPSG:32633"),
    ],
)
def test_granule_beside_the_grid_is_refused_before_and_while_reading(
    granules: Any,
    corner: tuple[int, int],
    bands: tuple[str, ...],
    change: dict[str, Any],
    words: str,
) -> None:
    scene = granule(granules, corner, shift_m=(5.0, 3.0))
    grid = shifted(corner)
    if "x" in change:
        change = {"x": grid.x + 10.0}
    grid = replace(grid, **change)
    with pytest.raises(GridError, match=words):
        check_grids([scene], bands, warp=False, grid=grid)
    check_grids([scene], bands, warp=True, grid=grid)
    with pytest.raises(GridError, match="of item 32TQS_a"):
        read_mosaic([scene], Block(grid, 0, 0, 1, 1), replace(OPTIONS, bands=bands))


def test_resampled_granule_of_the_grids_own_crs_is_marked(
    granules: Any, corner: tuple[int, int]
) -> None:
    scene = granule(granules, corner)
    grid = shifted(corner)
    options = replace(OPTIONS, bands=("B8A",), warp=True)
    mosaic = read_mosaic([scene], Block(grid, 0, 0, 1, 1), options)
    quality, found = (whole(mosaic, grid, "quality"), whole(mosaic, grid, "reflectance", 0))
    np.testing.assert_array_equal(quality & int(Quality.FOREIGN_ZONE) > 0, found != FILL)
    assert np.abs(found - stored(gdal(scene, "B8A", grid)))[found != FILL].max() <= 1


def test_pixel_takes_the_granule_whose_centre_is_nearest_in_the_grid(
    granules: Any, corner: tuple[int, int]
) -> None:
    """Granules of other CRSs are alike; one id sorts first, the other one is nearer in the east."""
    west = granule(granules, corner, "32TQS_a")
    east = granule(granules, (corner[0], corner[1] + 120), "32TQT_b", number=5)
    lon, lat = to_lonlat(
        shifted(corner), np.array([corner[1] * 20.0]), np.array([TOP_M - corner[0] * 20.0 + 500.0])
    )
    x, y = from_lonlat(3035).transform(lon[0], lat[0])
    grid = own("eu20", 3035, (round(x / 20) * 20, round(y / 20) * 20), 20.0, 20)
    options = replace(OPTIONS, bands=("B8A",), warp=True)
    both, first, second = (
        whole(read_mosaic(scenes, Block(grid, 0, 0, 1, 1), options), grid, "reflectance", 0)
        for scenes in ([west, east], [west], [east])
    )
    overlap = (first != FILL) & (second != FILL)
    centres = [
        from_lonlat(3035).transform(*to_lonlat_of(scene, shifted(corner))) for scene in (west, east)
    ]
    grid_x, grid_y = np.meshgrid(*grid.centres(Block(grid, 0, 0, 1, 1).window(20), 20))
    apart = [np.hypot(grid_x - cx, grid_y - cy) for cx, cy in centres]
    nearer = apart[0] < apart[1]
    sure = overlap & (np.abs(apart[0] - apart[1]) > 30)
    assert sure.sum() > 20_000
    np.testing.assert_array_equal(both[sure], np.where(nearer, first, second)[sure])
    assert 0.2 < nearer[sure].mean() < 0.8


def to_lonlat_of(scene: Any, utm: Lattice) -> tuple[float, float]:
    """Middle of a scene's file."""
    a, _, c, _, e, f = scene.extent.transform
    height, width = scene.extent.shape
    lon, lat = to_lonlat(utm, np.array([c + a * width / 2]), np.array([f + e * height / 2]))
    return float(lon[0]), float(lat[0])


def test_failed_file_leaves_a_marked_hole_under_its_granule(
    granules: Any, grid: Lattice, corner: tuple[int, int]
) -> None:
    scene = granule(granules, corner)
    seen = gdal(scene, "SCL", grid) != 0
    Path(scene.asset("SCL").href).unlink()
    mosaic = read_mosaic([scene], Block(grid, 0, 0, 1, 1), replace(OPTIONS, warp=True))
    failed = whole(mosaic, grid, "quality") & int(Quality.FAILED_READ) > 0
    assert (failed != seen).mean() < 0.004  # half a pixel along the outline
    assert [(f.band, [tile.id for tile in f.tiles]) for f in mosaic.failed] == [
        ("SCL", ["ownr0000c000"])
    ]


@pytest.mark.parametrize("pixel", [9e-5, 1.1e-4])
def test_granule_across_the_antimeridian_reaches_both_ends_of_a_grid_of_degrees(
    granules: Any, pixel: float
) -> None:
    """The first pixel is coarse enough for our own warp, the second one for GDAL's."""
    utm = own("utm", 32660, (0.0, 0.0), 10.0, 10)
    x, y = from_lonlat(32660).transform(179.98, -17.0)
    row, col = int((TOP_M - y) // 20), int(x // 20)
    scene = granules.write("60KYF_a", row=row, col=col, height=SIZE, width=SIZE, zone=60)
    lon, lat = to_lonlat(utm, np.array([col * 20.0]), np.array([TOP_M - row * 20.0]))
    level = round(pixel * 111_319)
    east = own("east", 4326, (-180.0, float(lat[0]) + 0.002), pixel, level)
    columns = round((float(lon[0]) + 180.0) / pixel) - 20
    west = own("west", 4326, (-180.0 + columns * pixel, float(lat[0]) + 0.002), pixel, level)
    for grid in (east, west):
        mosaic = read_mosaic([scene], Block(grid, 0, 0, 1, 1), replace(OPTIONS, warp=True))
        exact, found = stored(gdal(scene, "B8A", grid)), whole(mosaic, grid, "reflectance", 2)
        known = found != FILL
        assert 0.02 < known.mean() < 0.9
        assert ((exact != FILL) != known).mean() < 2e-3
        apart = np.abs(exact - found)[known & (exact != FILL)]
        assert (np.median(apart), apart.max() <= 20) == (0, True)
