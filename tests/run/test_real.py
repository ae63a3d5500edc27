"""Real Sentinel-2 samples through the run files in ``examples/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from eoray.cube.check import check_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import GridError
from eoray.grid import TOP_M, PixelWindow
from eoray.run import Run, load_run
from eoray.sentinel2 import BANDS_10M, BANDS_20M, FILL

Example = Callable[..., Run]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Run]:
    monkeypatch.setenv("EORAY_SHARED_DATA", str(shared_data))

    def load(name: str, *overrides: str) -> Run:
        return load_run(EXAMPLES / f"{name}.yaml", [f"store={tmp_path / 'out'}", *overrides])

    return load


def window_of(path: Path, resolution_m: int) -> PixelWindow:
    with rasterio.open(path) as file:
        return PixelWindow(
            round((TOP_M - file.transform.f) / resolution_m),
            round(file.transform.c / resolution_m),
            file.height,
            file.width,
        )


def test_worldcereal_cube_equals_its_source(
    example: Example, shared_data: Path, tmp_path: Path
) -> None:
    run = example("worldcereal-31uds", "time=2018-05-01/2018-06-15")
    run.execute(["cube"])
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    table = reader.entries("s2", 31)
    folder = shared_data / "sentinel2" / "worldcereal_31UDS"
    checked = 0
    for time, index in zip(table.time, table.index, strict=True):
        stamp = str(time)[:19].replace("-", "").replace(":", "")
        item = folder / f"S2_31UDS_{stamp}_0"
        for resolution_m, bands in ((10, BANDS_10M), (20, BANDS_20M)):
            window = window_of(item / f"{bands[0]}.tif", resolution_m)
            values = reader.read("s2", 31, window=window, resolution_m=resolution_m, index=[index])
            for band, stored in zip(bands, values[0], strict=True):
                with rasterio.open(item / f"{band}.tif") as file:
                    source = file.read(1).astype("i4")
                np.testing.assert_array_equal(stored, np.where(source == 0, FILL, source))
                checked += 1
        with rasterio.open(item / "SCL.tif") as file:
            scl = reader.read("s2", 31, "scl", window=window, resolution_m=20, index=[index])
            np.testing.assert_array_equal(scl[0], file.read(1))
    assert checked >= 60


@pytest.mark.slow
def test_worldcereal_record_is_called_insufficient(example: Example, tmp_path: Path) -> None:
    run = example("worldcereal-31uds", "cube.composite.method=none")
    run.execute(["cube", "change"])
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    product = "change-worldcereal-31uds"
    (tile,) = reader.tiles("s2")
    window = tile.window(10)
    observed = reader.read(product, 31, "n_obs", window=window, resolution_m=10) > 0
    breaks = reader.read(product, 31, "n_breaks", window=window, resolution_m=10)
    flags = reader.read(product, 31, "qa_flags", window=window, resolution_m=10)
    assert observed.sum() > 0.9 * 64 * 64
    assert (breaks[observed] > 0).mean() < 0.01
    assert (flags[observed] & 1 > 0).mean() > 0.9
    assert check_cube(str(tmp_path / "out"), quick=True).dates == 118


def test_granules_half_a_pixel_apart_are_refused(example: Example) -> None:
    with pytest.raises(GridError, match=r"120 m, not 10 m.*0, 0\.5 of a pixel.*cube\.warp"):
        example("earthsearch-33twl-33twm").plan()


def test_warped_granules_equal_the_warp_of_gdal(
    example: Example, shared_data: Path, tmp_path: Path
) -> None:
    run = example("earthsearch-33twl-33twm", "cube.warp=true", "cube.bands=[B04]")
    run.execute(["cube"])
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    (tile,) = reader.tiles("s2")
    stored = reader.read("s2", 33, window=tile.window(10), resolution_m=10, index=[0])[0, 0]
    warped = []
    for granule in ("33TWL", "33TWM"):
        path = (
            shared_data
            / "sentinel2/earthsearch_33TWL_33TWM"
            / f"S2A_{granule}_20230815_0_L2A"
            / "B04.tif"
        )
        with (
            rasterio.open(path) as file,
            WarpedVRT(
                file,
                crs="EPSG:32633",
                transform=tile.transform(10),
                width=1024,
                height=1024,
                resampling=Resampling.bilinear,
                src_nodata=0,
                nodata=0,
                tolerance=0.001,
            ) as vrt,
        ):
            warped.append(vrt.read(1).astype("i4"))
    known = stored != FILL
    apart = np.minimum(abs(stored - warped[0]), abs(stored - warped[1]))
    assert known.mean() > 0.9
    assert apart[known].max() <= 1
