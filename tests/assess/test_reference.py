from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from eoray.assess import MapTile, RasterReference, SamplePlan, draw_sample
from eoray.errors import DataError, ReadError
from eoray.grid import Tile
from tests.assess.census import CLASSES, Census

PLAN = SamplePlan(n_points=300, minimum=40, seed=5, resolution_m=160)


def write(path: Path, values: np.ndarray, x: float, y: float, px: float, crs: str) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[0],
        width=values.shape[1],
        count=1,
        dtype=values.dtype,
        crs=crs,
        transform=from_origin(x, y, px, px),
        nodata=0,
        tiled=True,
        blockxsize=16,
        blockysize=16,
    ) as file:
        file.write(values, 1)
    return path


def truth_files(census: Census, folder: Path) -> tuple[Path, ...]:
    paths = []
    for tile in census.tiles:
        x, _, _, y = tile.bounds
        truth = census.truth(tile)
        paths.append(write(folder / f"{tile.id}.tif", truth, x, y, 160, f"EPSG:{tile.epsg}"))
    return tuple(paths)


def test_each_point_is_answered_by_its_own_pixel(census: Census, tmp_path: Path) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    answers = RasterReference(truth_files(census, tmp_path))(sample)
    expected = [
        census.truth(Tile.from_id(str(t)))[r, c]
        for t, r, c in zip(sample.tile, sample.row, sample.col, strict=True)
    ]
    np.testing.assert_array_equal(answers, expected)


def test_raster_in_lon_lat_is_looked_up_in_its_own_crs(census: Census, tmp_path: Path) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    columns = np.arange(1, 2001, dtype="u2")[None].repeat(800, axis=0)
    path = write(tmp_path / "lonlat.tif", columns, 0.0, 50.0, 0.01, "EPSG:4326")
    answers = RasterReference((path,))(sample)
    np.testing.assert_array_equal(answers, np.floor(sample.lon / 0.01).astype(int) + 1)


def test_southern_raster_answers_northern_coordinates(tmp_path: Path) -> None:
    tile = Tile(32, 1000, 48)
    x, _, _, y = tile.bounds
    values = np.arange(1, 64 * 64 + 1, dtype="u2").reshape(64, 64)
    path = write(tmp_path / "s.tif", values, x, y + 10_000_000, 160, "EPSG:32732")
    sample = draw_sample([tile], lambda _: MapTile(np.ones((64, 64), "u1")), PLAN, names={1: "all"})
    np.testing.assert_array_equal(RasterReference((path,))(sample), values[sample.row, sample.col])


def test_point_outside_every_raster_has_no_answer(census: Census, tmp_path: Path) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    answers = RasterReference(truth_files(census, tmp_path)[:1])(sample)
    inside = sample.tile == census.tiles[0].id
    assert (answers[inside] > 0).all()
    assert (answers[~inside] == 0).all()


def test_values_are_translated_to_classes(census: Census, tmp_path: Path) -> None:
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    paths = truth_files(census, tmp_path)
    plain = RasterReference(paths)(sample)
    swapped = RasterReference(paths, values={1: 2, 2: 1})(sample)
    np.testing.assert_array_equal(swapped, np.array([0, 2, 1, 3])[plain])


def test_folder_without_rasters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no file like '\*\.tif'"):
        RasterReference.of_folder(tmp_path)


def test_file_that_is_no_raster_is_named(census: Census, tmp_path: Path) -> None:
    path = tmp_path / "truth.tif"
    path.write_text("no raster")
    sample = draw_sample(census.tiles, census.read, PLAN, names=CLASSES)
    with pytest.raises(ReadError, match=r"truth\.tif' cannot be read"):
        RasterReference.of_folder(tmp_path)(sample)
