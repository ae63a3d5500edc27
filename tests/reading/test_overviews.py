"""Coarser grids read overviews: as many bytes as they need, and GDAL's own values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from eoray.catalog.scene import BandAsset, Scene
from eoray.errors import ReadError
from eoray.grid import Block, Lattice, PixelWindow, Tile
from eoray.reading.cog import BlockMemory, CogFile
from eoray.reading.explain import explain_tile
from eoray.reading.mosaic import ReadOptions, read_mosaic
from eoray.reading.overviews import reads_overviews, takes_overviews
from eoray.reading.ranges import UnsupportedFileError
from eoray.reading.usage import READS
from eoray.reading.window import AssetWindow, read_asset
from eoray.sentinel2 import FILL, Quality
from eoray.testing.scenes import make_scene

LEFT, TOP = 399_960.0, 5_700_000.0
EDGE = 960
"""Pixels of 10 m along a side: 80 pixels of 120 m."""

Write = Callable[..., BandAsset]


@dataclass
class Files:
    """One granule of reflectance and classes, in whose corner the satellite saw nothing."""

    folder: Path

    def write(
        self,
        band: str = "B04",
        factors: tuple[int, ...] = (2, 4, 8, 16),
        *,
        name: str = "",
        edge: int = EDGE,
        **profile: Any,
    ) -> BandAsset:
        """Write a file as GDAL makes COGs: its own overviews, means or nearest."""
        pixel = 20 if band == "SCL" else 10
        edge = edge * 10 // pixel
        rng = np.random.default_rng(3)
        values = rng.integers(900, 9000, (edge, edge), np.uint16)
        if band == "SCL":
            values = rng.choice(np.array([4, 5, 6, 8], np.uint8), (edge, edge))
        rows, cols = np.indices(values.shape)
        values[rows + cols < edge // 2] = 0
        path = self.folder / f"{name or band}.tif"
        transform = (float(pixel), 0.0, LEFT, 0.0, -float(pixel), TOP)
        asset = BandAsset(band, str(path), transform, (edge, edge), 0)
        if path.exists():
            return asset
        settings: dict[str, Any] = {
            "driver": "GTiff",
            "count": 1,
            "height": edge,
            "width": edge,
            "dtype": values.dtype,
            "crs": "EPSG:32632",
            "transform": Affine(pixel, 0, LEFT, 0, -pixel, TOP),
            "nodata": 0,
            "tiled": True,
            "blockxsize": 64,
            "blockysize": 64,
            "compress": "deflate",
        }
        with rasterio.open(path, "w", **(settings | profile)) as file:
            file.write(values, 1)
        if factors:
            means = Resampling.nearest if band == "SCL" else Resampling.average
            with rasterio.open(path, "r+") as file:
                file.build_overviews(list(factors), means)
        return asset


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("overviews"))


@pytest.fixture(scope="module")
def red(files: Files) -> BandAsset:
    return files.write()


@pytest.fixture(scope="module")
def scl(files: Files) -> BandAsset:
    return files.write("SCL")


def grid(pixel: float, epsg: int = 32632, corner: tuple[float, float] = (LEFT, TOP)) -> Lattice:
    return Lattice.of_pixel("own", epsg, corner, pixel, round(pixel), (2, 2))


def europe(pixel: float) -> Lattice:
    """A grid of Europe that begins a little to the north-west of the files."""
    x, y = Transformer.from_crs(32632, 3035, always_xy=True).transform(LEFT, TOP)
    return grid(pixel, 3035, (round(x, -3) - 1000, round(y, -3) + 1000))


def scene_of(*assets: BandAsset) -> Scene:
    return make_scene("32TQS_a", 32, assets)


def read(asset: BandAsset, lattice: Lattice, window: PixelWindow, **kwargs: Any) -> np.ndarray:
    return read_asset(AssetWindow(
        scene_of(asset), asset, zone=lattice, window=window, resolution_m=lattice.coarse, retries=0,
        **kwargs,
    ))  # fmt: skip


def level_of(asset: BandAsset, number: int) -> np.ndarray:
    """An overview as GDAL reads it."""
    with rasterio.open(asset.href, overview_level=number) as file:
        values: np.ndarray = file.read(1)
    return values


@pytest.mark.parametrize(
    ("pixel", "band", "number"),
    [
        (20, "B04", 0),
        (40, "B04", 1),
        (80, "B04", 2),
        (160, "B04", 3),
        (40, "SCL", 0),
        (160, "SCL", 2),
    ],
)
def test_grid_on_an_overview_holds_its_values(
    red: BandAsset, scl: BandAsset, pixel: int, band: str, number: int
) -> None:
    asset = scl if band == "SCL" else red
    expected = level_of(asset, number)
    edge = len(expected)
    window = PixelWindow(-3, 5, edge + 7, edge)  # beyond the file on three sides
    found = read(asset, grid(pixel), window)
    np.testing.assert_array_equal(found[3 : 3 + edge, : edge - 5], expected[:, 5:])
    beyond = np.ones(found.shape, bool)
    beyond[3 : 3 + edge, : edge - 5] = False
    assert (found[beyond] == 0).all()
    # means of the pixels that are there: the outline of the picture, no pixel more
    assert 0.1 < (expected == 0).mean() < 0.15


def test_edges_that_do_not_halve_lie_where_gdal_lays_them(files: Files) -> None:
    """A granule's 10 980 pixels end at 686.25: its overview has 687 that cover the same ground."""
    asset = files.write("B04", name="odd", edge=1098)
    cog = CogFile(asset.href, overviews=True)
    for number, level in enumerate(cog.overviews):
        with rasterio.open(asset.href, overview_level=number) as file:
            assert (level.shape, level.dtype) == (file.shape, np.dtype(file.dtypes[0]))
            assert level.transform == pytest.approx(tuple(file.transform)[:6], rel=1e-12)
            values = cog.overview(number).read(*map(slice, (3, 5), level.shape))
            np.testing.assert_array_equal(values, file.read(1)[3:, 5:])
    assert [level.shape[0] for level in cog.overviews] == [549, 275, 138, 69]
    lattice = grid(80)
    found = read(asset, lattice, PixelWindow(0, 0, 140, 140)).astype(int)
    expected = warped_by_gdal(asset, 2, lattice, 140).astype(int)
    both = (found > 0) & (expected > 0)
    assert both.sum() > 14_000
    assert np.abs(found - expected)[both].max() <= 1


@pytest.mark.parametrize(
    ("pixel", "factors", "factor"),
    [
        (40, (2, 4, 8, 16), 4),
        (120, (2, 4, 8, 16), 8),
        (120, (12,), 12),
        (160, (2, 4, 8, 16), 16),
        (320, (2, 4, 8, 16), 16),
    ],
)
def test_bytes_fall_by_the_square_of_the_factor(
    files: Files, pixel: int, factors: tuple[int, ...], factor: int
) -> None:
    asset = files.write("B04", factors, name=f"bytes{factors}")
    file = CogFile(asset.href, overviews=True)
    level = file.overviews[factors.index(factor)]
    size = EDGE * 10 // pixel
    begun = READS.snapshot().bytes
    read(asset, grid(pixel), PixelWindow(0, 0, size, size))
    found = READS.snapshot().bytes - begun
    assert found == sum(level.counts)  # the header is known by now
    # means are less noisy than pixels, so that they pack better
    assert 0.7 < found / sum(file.header.counts) * factor**2 < 1.1


def warped_by_gdal(asset: BandAsset, number: int, lattice: Lattice, px: int) -> np.ndarray:
    """GDAL's warp of the same overview, without the averaging that its warper adds."""
    with (
        rasterio.open(asset.href, overview_level=number) as file,
        WarpedVRT(
            file,
            crs=f"EPSG:{lattice.epsg}",
            transform=lattice.affine(PixelWindow(0, 0, px, px), lattice.coarse),
            width=px,
            height=px,
            resampling=Resampling.nearest if asset.band == "SCL" else Resampling.bilinear,
            src_nodata=0,
            nodata=0,
            tolerance=1e-4,
            XSCALE=1,
            YSCALE=1,
        ) as vrt,
    ):
        values: np.ndarray = vrt.read(1)
    return values


@pytest.mark.parametrize(
    ("lattice", "number"),
    [
        (grid(120, corner=(LEFT - 3333.0, TOP + 1234.0)), 2),
        (grid(60, corner=(LEFT - 3333.0, TOP + 1234.0)), 1),
        (europe(50), 1),
    ],
)
@pytest.mark.parametrize("band", ["B04", "SCL"])
def test_other_grids_are_warped_from_the_overview_as_gdal_does(
    request: pytest.FixtureRequest, band: str, lattice: Lattice, number: int
) -> None:
    asset = request.getfixturevalue("scl" if band == "SCL" else "red")
    number -= band == "SCL"
    px = 300
    found = read(asset, lattice, PixelWindow(0, 0, px, px)).astype(int)
    expected = warped_by_gdal(asset, number, lattice, px).astype(int)
    both = (found > 0) & (expected > 0)
    assert both.sum() > 5_000
    assert ((found > 0) != (expected > 0)).mean() < 2e-3
    apart = np.abs(found - expected)[both]
    assert np.quantile(apart, 0.99) <= 1


def test_pixel_does_not_depend_on_the_window(red: BandAsset) -> None:
    lattice = europe(70)
    whole = read(red, lattice, PixelWindow(0, 0, 240, 240))
    memory = BlockMemory(reach=1)
    parts = [
        read(red, lattice, PixelWindow(row, 30, 60, 100), memory=memory)
        for row in range(0, 240, 60)
    ]
    assert (whole > 0).sum() > 10_000
    np.testing.assert_array_equal(np.concatenate(parts), whole[:, 30:130])


def test_file_that_gdal_reads_gives_the_same(files: Files, red: BandAsset) -> None:
    other = files.write(name="zstd", compress="zstd")
    with pytest.raises(UnsupportedFileError):
        CogFile(other.href)
    window = PixelWindow(0, 0, 120, 120)
    for lattice in (grid(80), grid(120, corner=(LEFT - 37.0, TOP + 11.0))):
        np.testing.assert_array_equal(read(other, lattice, window), read(red, lattice, window))


def test_file_without_overviews_is_read_whole(files: Files) -> None:
    asset = files.write("B04", (), name="plain", edge=480)
    found = read(asset, grid(80), PixelWindow(0, 0, 60, 60))
    with rasterio.open(asset.href) as file:
        values = file.read(1).astype(float)
    inner = values.reshape(60, 8, 60, 8).mean(axis=(1, 3))[35:-2, 35:-2]
    # means of about as many pixels, by another kernel
    assert np.abs(found[35:-2, 35:-2] - inner).mean() < 300


def test_grid_twice_as_coarse_as_the_smallest_overview_averages_it(red: BandAsset) -> None:
    found = read(red, grid(640), PixelWindow(0, 0, 15, 15)).astype(float)
    smallest = level_of(red, 3).astype(float)
    inner = smallest.reshape(15, 4, 15, 4).mean(axis=(1, 3))[9:-1, 9:-1]
    assert np.abs(found[9:-1, 9:-1] - inner).mean() < 60


def test_header_that_contradicts_its_item_is_refused(red: BandAsset) -> None:
    a, b, c, d, e, f = red.transform
    lying = replace(red, transform=(a, b, c + 80.0, d, e, f))
    with pytest.raises(ReadError, match=r"transform is .* its item says") as caught:
        read(lying, grid(80), PixelWindow(0, 0, 9, 9))
    assert caught.value.reason == "mismatch"


def test_mosaic_on_a_coarse_grid_marks_its_pixels_as_resampled(
    red: BandAsset, scl: BandAsset
) -> None:
    lattice = grid(80)
    scene = make_scene("32TQS_a", 32, (scl, red))
    options = ReadOptions(("B04",), halo_px=2, warp=True)
    mosaic = read_mosaic([scene], Block(lattice, 0, 0, 1, 1), options)
    edge = EDGE // 8
    dn, classes = level_of(red, 2).astype(int), level_of(scl, 1)
    found = mosaic.reflectance[80][0][:edge, :edge]
    seen = (classes > 0) & (dn > 0)
    np.testing.assert_array_equal(found, np.where(seen, dn - 1000, FILL))
    np.testing.assert_array_equal(mosaic.scl[2 : 2 + edge, 2 : 2 + edge], classes)
    quality = mosaic.quality[80][:edge, :edge]
    np.testing.assert_array_equal(quality & int(Quality.FOREIGN_ZONE) > 0, classes > 0)


def test_explain_names_the_overview_and_its_bytes(red: BandAsset, scl: BandAsset) -> None:
    lattice = grid(80)
    scene = make_scene("32TQS_a", 32, (scl, red))
    explained = explain_tile([scene], Tile(lattice, 0, 0), ("B04",))
    assert [(one.band, one.how) for one in explained] == [
        ("SCL", "copied from the overview of 1:4"),
        ("B04", "copied from the overview of 1:8"),
    ]
    begun = READS.snapshot().bytes
    for asset in (scl, red):
        read(asset, lattice, PixelWindow(0, 0, 120, 120))
    spans = [length for one in explained for _, length in one.ranges]
    # requests are merged over gaps here, but local files are read without them
    assert READS.snapshot().bytes - begun <= sum(spans) < 40_000


@pytest.mark.parametrize(("pixel", "taken"), [(10, False), (15, False), (20, True), (40, True)])
def test_cube_says_whether_it_reads_overviews(
    red: BandAsset, scl: BandAsset, pixel: float, *, taken: bool
) -> None:
    scene = make_scene("32TQS_a", 32, (scl, red))
    assert reads_overviews([scene], ("B04",), grid(pixel)) is taken
    assert reads_overviews([scene], ("B04",), None) is False
    assert reads_overviews([scene], (), grid(pixel)) is (pixel == 40)


def test_wavelets_of_jpeg_2000_are_no_overviews(red: BandAsset) -> None:
    jp2 = replace(red, href="a.jp2")
    assert takes_overviews(scene_of(red), red, grid(80), 80)
    assert not takes_overviews(scene_of(jp2), jp2, grid(80), 80)
