"""Composites and learned masks through a whole run: one store, many products."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely

from eoray.cube.check import check_cube
from eoray.cube.open import open_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import ModelError, StoreError
from eoray.publish import export_window
from eoray.run import load_run
from eoray.timeline import DateRange

SUMMER = "time=2021-06-01/2021-08-31"
SMALL = "cube: {bands: [B02, B03, B04, B8A], composite: {method: none}}"


def execute(path: Path, *overrides: str, stages: tuple[str, ...] = ("cube",)) -> Any:
    return load_run(path, [SUMMER, *overrides]).execute(stages, executor="inline")


@pytest.mark.slow
def test_methods_stand_beside_each_other_and_are_checked(
    write_run: Any, archive: Path, tmp_path: Path
) -> None:
    path = write_run(more=SMALL)
    composites = (
        "{method: geomad, period: P3M}",
        "{method: best-pixel, period: P1D, group: solar-day}",
        "{method: percentiles, period: P3M, season_start: '06-01', percentiles: [50]}",
        "{method: median, period: P3M, season_start: '06-01'}",
    )
    for composite in composites:
        execute(path, f"cube.composite={composite}")
    url = str(tmp_path / "out")
    report = check_cube(url)
    assert report.ok, report.problems
    made = [name for name in report.products if name != "s2"]
    assert made == [
        "s2-P1D-best-pixel-solar-day",
        "s2-P3M-geomad",
        "s2-P3M_06-01-median",
        "s2-P3M_06-01-percentiles",
    ]
    again = execute(path, f"cube.composite={composites[0]}").stages["cube"]
    assert (again["tasks"], again["skipped"] > 0) == (0, True)
    with pytest.raises(StoreError, match=r"percentiles = \[50\], this run asks for \[10, 90\]"):
        execute(path, f"cube.composite={composites[2].replace('50', '10, 90')}")
    middle, median = (
        open_cube(url, product=f"s2-P3M_06-01-{name}", time="2021-06-01/2021-06-02")
        for name in ("percentiles", "median")
    )
    np.testing.assert_array_equal(middle.p50, median.reflectance)
    assert (middle.doy_spread > 0).any()
    aoi = shapely.from_geojson((archive / "aoi.geojson").read_text())
    export_deviations(url, tmp_path / "emad.tif", aoi.bounds)


def export_deviations(url: str, path: Path, bbox: Any) -> None:
    """Layers of floating point leave the store with their own nodata."""
    export_window(
        url,
        "s2-P3M-geomad",
        str(path),
        bbox=bbox,
        time=DateRange.parse("2021-07-01/2021-07-02"),
        bands=["emad"],
    )
    stored = open_cube(url, product="s2-P3M-geomad", time="2021-07-01/2021-07-02")
    with rasterio.open(path) as file:
        assert np.isnan(file.nodata)
        values = file.read(1)
    found = np.sort(values[np.isfinite(values)])
    assert found.size > 100
    assert np.isin(found, stored.emad.values).all()


@pytest.mark.slow
def test_pictures_of_each_date_are_the_scenes_clear_pixels(write_run: Any, tmp_path: Path) -> None:
    path = write_run(more=SMALL)
    execute(path, "cube.composite={method: best-pixel, period: P1D, group: solar-day}")
    url = str(tmp_path / "out")
    daily = open_cube(url, 20, product="s2-P1D-best-pixel-solar-day")
    scenes = open_cube(url, 20)
    seen = 0
    for at in range(scenes.sizes["time"]):
        one = scenes.isel(time=at)
        day = daily.sel(time=np.datetime64(str(one.solar_day.values), "ns"))
        clear = ((one["mask"] == 0) & ((one.quality & 0b1011) == 0)).values
        clear &= (one.reflectance != -32768).all("band").values
        np.testing.assert_array_equal(
            day.reflectance.values, np.where(clear, one.reflectance.values, -32768)
        )
        seen += int(clear.any())
    assert seen > 2


def test_a_report_of_a_run_without_a_spectrum_shows_no_picture(
    write_run: Any, tmp_path: Path
) -> None:
    path = write_run(more=SMALL)
    report = execute(path, "cube.composite.method=count", stages=("cube", "report"))
    (page,) = report.stages["report"]["outputs"]
    assert "no composite was made" in Path(page).read_text()


def write_weights(folder: Path) -> str:
    """Weights of a small network, as a value of ``cube.mask.weights``."""
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(3)
    encoder = "tu-mobilenetv3_small_050"
    network = smp.Unet(encoder, encoder_weights=None, in_channels=3, classes=4)
    save_file(network.state_dict(), folder / "clouds.safetensors")
    digest = hashlib.sha256((folder / "clouds.safetensors").read_bytes()).hexdigest()
    return f"[{{path: clouds.safetensors, sha256: '{digest}', encoder: {encoder}}}]"


@pytest.mark.slow
def test_a_network_of_the_users_joins_the_scene_classification(
    write_run: Any, tmp_path: Path
) -> None:
    more = "cube: {bands: [B02, B11], composite: {method: none}}"  # its bands need not be stored
    plain, learned = write_run("plain", store="plain", more=more), write_run(more=more)
    weights = write_weights(tmp_path)
    overrides = ["cube.mask.method=scl+omnicloudmask", f"cube.mask.weights={weights}"]
    with pytest.raises(ModelError, match="have the SHA-256"):
        execute(learned, overrides[0], overrides[1].replace(weights.split("'")[1], "a" * 64))
    with pytest.raises(ModelError, match=r"nowhere\.safetensors' of cube.mask.weights do not"):
        execute(learned, overrides[0], overrides[1].replace("clouds.", "nowhere."))
    assert not (tmp_path / "out" / "cube.icechunk").exists()
    execute(plain)
    execute(learned, *overrides)
    found, scl = (open_cube(str(tmp_path / name), 20) for name in ("out", "plain"))
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    assert reader.attrs("s2")["mask"].startswith("omnicloudmask-")
    assert reader.attrs("s2")["mask"].endswith("+scl4-5-6/cloud100m/shadow60m")
    np.testing.assert_array_equal(found.reflectance, scl.reflectance)
    np.testing.assert_array_equal(found["mask"] & scl["mask"], scl["mask"])  # no bit is lost
    assert (found["mask"] != scl["mask"]).any()
    with pytest.raises(StoreError, match="was made with mask = 'omnicloudmask-"):
        execute(learned)
