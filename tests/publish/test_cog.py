from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from eoray.errors import StoreError
from eoray.publish.cog import BandInfo, Block, RasterInfo, sha256_of, write_cog

COLORS = {1: (255, 0, 0), 2: (0, 128, 0), 3: (10, 20, 250)}


def info_of(height: int, width: int, **changes: object) -> RasterInfo:
    fields: dict[str, object] = {
        "epsg": 32633,
        "transform": Affine(10, 0, 499_980, 0, -10, 5_200_020),
        "height": height,
        "width": width,
        "dtype": "uint8",
        "nodata": 0,
        "bands": (BandInfo("class", "what it is"),),
        "overviews": "MODE",
        "colors": COLORS,
        "tags": {"b": "2", "a": "1"},
    }
    return RasterInfo(**{**fields, **changes})  # type: ignore[arg-type]


def classes_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 4, (height, width), dtype="u1")


def in_blocks(values: np.ndarray, edge: int) -> list[Block]:
    height, width = values.shape[-2:]
    return [
        (row, col, values[..., row : row + edge, col : col + edge])
        for row in range(0, height, edge)
        for col in range(0, width, edge)
    ]


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (700, 1300), (100, 90)])
def test_file_is_a_valid_cog_with_the_pixels(tmp_path: Path, height: int, width: int) -> None:
    url, values = str(tmp_path / "a.tif"), classes_of(height, width)
    write_cog(url, info_of(height, width), in_blocks(values[None], 512))
    assert cog_validate(url)[:2] == (True, [])
    with rasterio.open(url) as file:
        np.testing.assert_array_equal(file.read(1), values)
        assert file.crs.to_epsg() == 32633
        assert file.transform == Affine(10, 0, 499_980, 0, -10, 5_200_020)
        assert (file.nodata, file.descriptions) == (0.0, ("class",))
        assert file.tags()["a"] == "1"
        assert file.tags(1)["long_name"] == "what it is"


def test_colour_table_holds_the_legend(tmp_path: Path) -> None:
    url = str(tmp_path / "a.tif")
    write_cog(url, info_of(300, 300), [(0, 0, classes_of(300, 300)[None])])
    with rasterio.open(url) as file:
        table = file.colormap(1)
        assert {k: table[k][:3] for k in COLORS} == COLORS
        assert file.colorinterp[0].name == "palette"


def test_overviews_of_classes_are_modes_of_valid_pixels(tmp_path: Path) -> None:
    url, values = str(tmp_path / "a.tif"), classes_of(1024, 1024)
    write_cog(url, info_of(1024, 1024), [(0, 0, values[None])])
    with rasterio.open(url, overview_level=0) as file:
        level = file.read(1)
    squares = values.reshape(512, 2, 512, 2).transpose(0, 2, 1, 3).reshape(512, 512, 4)
    counts = np.stack([(squares == k).sum(axis=-1) for k in range(4)], axis=-1)
    counts[..., 0] = 0
    won = np.take_along_axis(counts, level[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_array_equal(won, counts.max(axis=-1))
    np.testing.assert_array_equal(level == 0, counts.max(axis=-1) == 0)


def test_overviews_of_values_are_means_of_valid_pixels(tmp_path: Path) -> None:
    url = str(tmp_path / "a.tif")
    values = np.full((2, 600, 600), 255, "u1")
    values[:, ::2, ::2], values[:, 1::2, 1::2] = 100, 120
    bands = (BandInfo("p", "p", "1", 0.005), BandInfo("q", "q", "1", 0.005))
    info = info_of(600, 600, bands=bands, colors={}, nodata=255, overviews="AVERAGE")
    write_cog(url, info, [(0, 0, values)])
    with rasterio.open(url) as file:
        assert file.scales == (0.005, 0.005)
        assert file.units == ("1", "1")
    with rasterio.open(url, overview_level=0) as file:
        assert (file.read() == 110).all()


def test_parts_without_a_block_are_nodata(tmp_path: Path) -> None:
    url, values = str(tmp_path / "a.tif"), classes_of(512, 512)
    write_cog(url, info_of(2048, 2048), [(1024, 512, values[None])])
    with rasterio.open(url) as file:
        found = file.read(1)
    np.testing.assert_array_equal(found[1024:1536, 512:1024], values)
    assert np.count_nonzero(found) == np.count_nonzero(values)


def test_bytes_do_not_depend_on_the_blocks(tmp_path: Path) -> None:
    values = classes_of(1024, 1024)[None]
    urls = [str(tmp_path / name) for name in ("a.tif", "b.tif")]
    write_cog(urls[0], info_of(1024, 1024), in_blocks(values, 512))
    write_cog(urls[1], info_of(1024, 1024), in_blocks(values, 512)[::-1])
    assert sha256_of(urls[0]) == sha256_of(urls[1])


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    left = tmp_path / ".a.tif.part"
    left.mkdir()
    (left / "raw").write_bytes(b"half")
    (left / "cog.ovr.tmp").write_bytes(b"half")
    write_cog(str(tmp_path / "a.tif"), info_of(300, 300), [(0, 0, classes_of(300, 300)[None])])
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    url = str(tmp_path / "a.tif")
    write_cog(url, info_of(300, 300), [(0, 0, classes_of(300, 300)[None])])
    before = sha256_of(url)

    def broken() -> object:
        yield 0, 0, classes_of(300, 300)[None]
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot write .*No space left"):
        write_cog(url, info_of(300, 300), broken())  # type: ignore[arg-type]
    assert sha256_of(url) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose a folder that can be written"):
        write_cog(str(tmp_path / "file" / "a.tif"), info_of(8, 8), [])
