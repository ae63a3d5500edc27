"""Real Sentinel-2 samples through the run files in ``examples/``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from eoray.cube.check import check_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import CatalogError, GridError
from eoray.grid import TOP_M, PixelWindow, Tile
from eoray.reading.harmonise import Share, place_band
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
    n_obs, breaks, flags = (
        np.concatenate(
            [
                reader.read(product, 31, name, window=tile.window(10), resolution_m=10)
                for tile in reader.tiles("s2")
            ]
        )
        for name in ("n_obs", "n_breaks", "qa_flags")
    )
    observed = n_obs > 0
    assert observed.sum() > 0.9 * 64 * 64
    assert (breaks[observed] > 0).mean() < 0.01
    assert (flags[observed] & 1 > 0).mean() > 0.9
    assert check_cube(str(tmp_path / "out"), quick=True).dates == 118


@pytest.mark.slow
def test_crop_map_is_split_by_parcel(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EORAY_SHARED_DATA", str(shared_data))
    shutil.copy(EXAMPLES / "worldcereal-31uds-crops.yaml", tmp_path / "run.yaml")
    script = str(EXAMPLES / "worldcereal_labels.py")
    subprocess.run([sys.executable, script, str(tmp_path / "parcels.geojson")], check=True)
    run = load_run(tmp_path / "run.yaml", ["fit.steps=20"])
    fitted = run.execute(["cube", "fit", "predict"]).stages["fit"]
    plan, metrics = fitted["plan"], fitted["metrics"]
    assert plan["polygons"] == 14
    assert plan["polygons_training"] + plan["polygons_validation"] == 14
    assert metrics["kind"].startswith("validation score on held-out labels")
    assert metrics["n_blocks"] == plan["polygons_validation"] > 2
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    found = [
        reader.read("map-worldcereal-crops", 31, "class", window=t.window(10), resolution_m=10)
        for t in reader.tiles("map-worldcereal-crops")
    ]
    assert set(np.unique(found)) == {0, 1, 2}


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
    folder = shared_data / "sentinel2/earthsearch_33TWL_33TWM"
    warped = [
        gdal_warp(folder / f"S2A_{granule}_20230815_0_L2A" / "B04.tif", tile, 32633)
        for granule in ("33TWL", "33TWM")
    ]
    known = stored != FILL
    apart = np.minimum(abs(stored - warped[0]), abs(stored - warped[1]))
    assert known.mean() > 0.9
    assert apart[known].max() <= 1


def gdal_warp(path: Path, tile: Tile, epsg: int) -> np.ndarray:
    """A band over a tile's 10 m pixels, dims (y, x), int32, 0 is no data."""
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file,
            crs=f"EPSG:{epsg}",
            transform=tile.transform(10),
            width=1024,
            height=1024,
            resampling=Resampling.bilinear,
            src_nodata=0,
            nodata=0,
            tolerance=0.001,
        ) as vrt,
    ):
        return np.asarray(vrt.read(1).astype("i4"))


MAJORTOM = """\
version: 1
name: majortom
aoi: [103.71, 17.88, 103.79, 17.96]
time: 2020-02-01/2020-03-01
task: cube
source:
  catalog: ${{env:EORAY_SHARED_DATA}}/sentinel2/majortom_48QUE/collection.json
  collection: majortom-48que
  lineage: {{mixed: true}}
store: out
cube:
  bands: [B04, B11]
  mask: {{method: {method}}}
  composite: {{method: none}}
"""


@pytest.fixture
def majortom(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """One scene without SCL, whose pixels lie beside the world's."""
    monkeypatch.setenv("EORAY_SHARED_DATA", str(shared_data))

    def load(*overrides: str, method: str = "none") -> Run:
        (tmp_path / "run.yaml").write_text(MAJORTOM.format(method=method))
        return load_run(tmp_path / "run.yaml", list(overrides))

    return load


def test_scene_without_scl_is_refused_with_the_way_out(majortom: Example) -> None:
    with pytest.raises(CatalogError, match=r"asset for SCL.*cube\.mask\.method: none"):
        majortom(method="scl").plan()


def test_grid_that_is_no_multiple_of_the_pixel_is_refused(majortom: Example) -> None:
    with pytest.raises(GridError, match=r"B04 lies 0\.220, 0\.179 of a pixel.*cube\.warp: true"):
        majortom().plan()


def test_grid_that_is_no_multiple_of_the_pixel_is_warped(
    majortom: Example, shared_data: Path, tmp_path: Path
) -> None:
    majortom("cube.warp=true").execute(["cube"])
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    (item,) = (shared_data / "sentinel2/majortom_48QUE").glob("S2B_*")
    tiles = reader.tiles("s2")
    assert len(tiles) == 2
    for tile in tiles:
        window = tile.window(10)
        stored = reader.read("s2", 48, window=window, resolution_m=10, index=[0])[0, 0]
        warped = gdal_warp(item / "B04.tif", tile, 32648)
        known = stored != FILL
        assert known.sum() > 50_000
        assert abs(stored - warped)[known].max() <= 1
        clear = reader.read_clear(48, window=window, resolution_m=10, index=[0])[0]
        assert (clear == known).mean() > 0.99


def test_negatives_after_the_offset_are_kept(shared_data: Path) -> None:
    """A real patch read as if it came from baseline 04.00: dark water falls below zero."""
    (path,) = (shared_data / "bigearthnet/s2").glob("S2A_MSIL2A_20170617T113321_36_85/*_B12.tif")
    with rasterio.open(path) as file:
        dn = file.read(1)
    assert ((dn > 0) & (dn < 1000)).mean() > 0.01
    found = np.zeros(dn.shape, np.int16)
    place_band(dn, -1000, Share(np.zeros(dn.shape, np.int16), 0, 1), (0, 0), found)
    np.testing.assert_array_equal(found, np.where(dn == 0, FILL, dn.astype("i4") - 1000))
    assert found[found != FILL].min() < 0
