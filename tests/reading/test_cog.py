"""Our own reader of COGs against GDAL, file by file and byte by byte."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eoray.reading.cog import BlockMemory, BrokenFileError, CogFile, forget_header
from eoray.reading.ranges import UnsupportedFileError
from eoray.testing.http import archive_server

PLACE = Affine(10, 0, 399_960, 0, -10, 5_700_000)


def write_tif(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """A GeoTIFF written by GDAL, tiled unless the profile says otherwise."""
    values = values if values.ndim == 3 else values[None]
    settings: dict[str, Any] = {
        "driver": "GTiff",
        "count": len(values),
        "height": values.shape[-2],
        "width": values.shape[-1],
        "dtype": values.dtype,
        "crs": "EPSG:32631",
        "transform": PLACE,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 32,
        "compress": "deflate",
    }
    with rasterio.open(path, "w", **(settings | profile)) as file:
        file.write(values)
    return path


def noise(rows: int, cols: int, dtype: str = "uint16") -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(7).integers(0, top, (rows, cols), dtype, endpoint=True)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    dtype=st.sampled_from(["uint8", "uint16"]),
    profile=st.fixed_dictionaries(
        {
            "compress": st.sampled_from(["deflate", None]),
            "predictor": st.sampled_from([1, 2]),
            "bigtiff": st.sampled_from(["YES", "NO"]),
            "blockxsize": st.sampled_from([16, 64]),
        }
    ),
    data=st.data(),
)
def test_any_window_equals_gdals(
    tmp_path: Path, size: tuple[int, int], dtype: str, profile: dict[str, Any], data: st.DataObject
) -> None:
    path = write_tif(tmp_path / "a.tif", noise(*size, dtype), **profile)
    edges = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in size]
    rows, cols = (slice(*edge) for edge in edges)
    file = CogFile(str(path))
    assert (file.shape, file.dtype, file.epsg) == (size, np.dtype(dtype), 32631)
    assert file.transform == tuple(PLACE)[:6]
    with rasterio.open(path) as gdal:
        np.testing.assert_array_equal(file.read(rows, cols), gdal.read(1)[rows, cols])


def test_tiles_that_were_left_out_hold_nodata(tmp_path: Path) -> None:
    values = np.full((64, 128), 9, np.uint16)
    values[:32, 64:] = 500
    path = write_tif(tmp_path / "a.tif", values, nodata=9, sparse_ok=True)
    file = CogFile(str(path))
    assert sorted(count > 0 for count in file.header.counts) == [False, False, False, True]
    np.testing.assert_array_equal(file.read(slice(0, 64), slice(0, 128)), values)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"compress": "zstd"}, "compression 50000"),
        ({"compress": "lzw"}, "compression 5"),
        ({"tiled": False, "blockxsize": None}, "strips"),
        ({"driver": "PNG", "tiled": None, "crs": None}, "no little-endian TIFF"),
        ({"ENDIANNESS": "BIG"}, "no little-endian TIFF"),
        ({"transform": Affine(10, 1, 0, 1, -10, 0)}, "georeferenced by a matrix"),
    ],
)
def test_other_kinds_are_left_to_gdal(tmp_path: Path, profile: dict[str, Any], reason: str) -> None:
    path = write_tif(tmp_path / "a", noise(64, 64), **profile)
    with pytest.raises(UnsupportedFileError, match=reason):
        CogFile(str(path))


@pytest.mark.parametrize("nodata", [b"nan", b"1e9", b"-99", b"no!"])
def test_nodata_that_no_pixel_can_hold_is_left_to_gdal(tmp_path: Path, nodata: bytes) -> None:
    path = write_tif(tmp_path / "a.tif", np.zeros((64, 64), np.uint16), nodata=257)
    content = path.read_bytes()
    assert content.count(b"257\0") == 1
    path.write_bytes(content.replace(b"257\0", nodata + b"\0"))
    with pytest.raises(UnsupportedFileError, match=f"nodata '{nodata.decode()}' in pixels of"):
        CogFile(str(path))


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint16"), (1, "float32"), (1, "int16")])
def test_other_pixels_are_left_to_gdal(tmp_path: Path, bands: int, dtype: str) -> None:
    path = write_tif(tmp_path / "a.tif", np.ones((bands, 64, 64), dtype))
    with pytest.raises(UnsupportedFileError):
        CogFile(str(path))


def test_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", noise(256, 256))
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(OSError, match="the file ends before byte"):
        CogFile(str(path)).read(slice(0, 256), slice(0, 256))


def test_tables_that_do_not_fit_the_shape_are_an_error(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", noise(256, 256))
    content = bytearray(path.read_bytes())
    entry = content.find(struct.pack("<HH", 257, 3))  # ImageLength, one short
    struct.pack_into("<H", content, entry + 8, 300)
    path.write_bytes(content)
    with pytest.raises(BrokenFileError, match="40 tiles, but 32 offsets and 32 sizes"):
        CogFile(str(path))


def test_header_of_a_replaced_object_is_read_anew_once_it_was_forgotten(tmp_path: Path) -> None:
    with archive_server(tmp_path) as server:
        url = f"{server.url}/a.tif"
        for edge in (64, 96):
            write_tif(tmp_path / "a.tif", noise(edge, edge))
            forget_header(url)
            assert CogFile(url).shape == (edge, edge)


def test_damaged_tile_is_named(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", noise(256, 256))
    file = CogFile(str(path))
    content = bytearray(path.read_bytes())
    at = file.header.offsets[5] + 40
    content[at : at + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(BrokenFileError, match=r"block \(1, 1\)"):
        CogFile(str(path)).read(slice(0, 256), slice(0, 256))
    assert file.read(slice(0, 32), slice(0, 256)).shape == (32, 256)


def test_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for edge in (64, 96):
        values = noise(edge, edge)
        write_tif(path, values)
        found = CogFile(str(path)).read(slice(0, edge), slice(0, edge))
        np.testing.assert_array_equal(found, values)


def test_over_http_each_tile_is_fetched_once_and_the_header_once_for_all(tmp_path: Path) -> None:
    values = noise(1024, 1024)
    write_tif(tmp_path / "a b.tif", values, blockxsize=256, blockysize=256)
    rows, cols = slice(100, 700), slice(300, 900)
    with archive_server(tmp_path) as server:
        url = f"{server.url}/a%20b.tif"
        np.testing.assert_array_equal(CogFile(url).read(rows, cols), values[rows, cols])
        header = CogFile(url).header
        first = server.requests
        wanted = sum(header.counts[row * 4 + col] for row in range(3) for col in range(1, 4))
        # tiles of a row lie side by side; the first of the next row is not wanted
        assert wanted <= sum(r.n_bytes for r in first[1:]) <= wanted + 3 * 65_536
        assert len(first) <= 4
        CogFile(url).read(slice(0, 10), slice(0, 10))
        assert len(server.requests) == len(first) + 1


def test_server_error_is_one_of_a_file(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", noise(64, 64))
    with (
        archive_server(tmp_path) as server,
        pytest.raises(OSError, match="404 Not Found after 1 request"),
    ):
        CogFile(f"{server.url}/missing.tif")


def test_parts_decode_and_fetch_each_tile_once(tmp_path: Path) -> None:
    values = noise(1024, 512)
    write_tif(tmp_path / "a.tif", values, blockxsize=256, blockysize=256)
    memory = BlockMemory(reach=2)
    with archive_server(tmp_path) as server:
        url = f"{server.url}/a.tif"
        header = CogFile(url).header
        begun = len(server.requests)
        for rows in (slice(0, 300), slice(290, 600), slice(590, 1024)):
            for cols in (slice(0, 300), slice(290, 512)):
                found = CogFile(url, memory).read(rows, cols)
                np.testing.assert_array_equal(found, values[rows, cols])
                memory.next_part()
        fetched = sum(r.n_bytes for r in server.requests[begun:])
    assert fetched == sum(header.counts)
