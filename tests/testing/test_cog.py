from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile
from rio_cogeo.cogeo import cog_validate

from eoray.testing.cog import CogLayout, encode_cog, halve_mean, write_cog

PLACE: dict[str, Any] = {"origin": (716_820, 5_391_380), "resolution_m": 10, "epsg": 32632}


def _noise(rows: int, cols: int, dtype: str, seed: int = 0) -> np.ndarray:
    top = 256 if dtype == "uint8" else 65_536
    return np.random.default_rng(seed).integers(0, top, (rows, cols)).astype(dtype)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 150),
    cols=st.integers(1, 150),
    dtype=st.sampled_from(["uint8", "uint16"]),
    block=st.sampled_from([16, 32, 64]),
    level=st.integers(0, 3),
)
def test_gdal_reads_back_every_pixel(
    rows: int, cols: int, dtype: str, block: int, level: int
) -> None:
    pixels = _noise(rows, cols, dtype)
    content = encode_cog(pixels, **PLACE, layout=CogLayout(block_px=block, level=level))
    with MemoryFile(content) as memory, memory.open() as dataset:
        np.testing.assert_array_equal(dataset.read(1), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_file_is_a_valid_cog_with_its_georeference(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.tif"
    write_cog(path, _noise(600, 500, dtype), **PLACE, layout=CogLayout(block_px=128))
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as dataset:
        assert dataset.crs.to_epsg() == 32632
        assert tuple(dataset.transform)[:6] == (10, 0, 716_820, 0, -10, 5_391_380)
        assert dataset.nodata == 0
        assert dataset.block_shapes == [(128, 128)]
        assert dataset.overviews(1) == [2, 4, 8]
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_overview_is_the_mean_of_valid_pixels(tmp_path: Path) -> None:
    pixels = np.array([[10, 20, 0, 0], [30, 41, 0, 0], [0, 7, 0, 0], [0, 0, 0, 9]], np.uint16)
    expected = np.array([[25, 0], [7, 9]], np.uint16)
    np.testing.assert_array_equal(halve_mean(pixels, 0), expected)


def test_overview_of_classes_invents_none() -> None:
    classes = _noise(64, 64, "uint8") % 12
    content = encode_cog(classes, **PLACE, layout=CogLayout(block_px=32))
    with MemoryFile(content) as memory, memory.open(overview_level=0) as dataset:
        np.testing.assert_array_equal(dataset.read(1), classes[::2, ::2])
