"""``ds.eoray``: bands by name, reflectance, clear pixels and spectral indices, lazily."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from eoray.cube import accessor
from eoray.cube.indices import INDICES, find_index
from eoray.cube.open import open_cube
from eoray.cube.read import CubeReader
from eoray.errors import ConfigError
from eoray.sentinel2 import FILL, UNUSABLE

GRASS = {
    "B02": 0.0412,
    "B03": 0.0675,
    "B04": 0.0531,
    "B05": 0.1124,
    "B08": 0.2871,
    "B11": 0.1987,
    "B12": 0.1043,
}
DARK = {
    "B02": 0.0031,
    "B03": 0.0024,
    "B04": 0.0007,
    "B05": 0.0011,
    "B08": -0.0006,
    "B11": -0.0012,
    "B12": 0.0004,
}

SPYNDEX = {
    "NDVI": (0.687830688, -13.000000000),
    "GNDVI": (0.619289340, -1.666666667),
    "EVI": (0.451145215, -0.003315143),
    "EVI2": (0.413562006, -0.003246494),
    "SAVI": (0.417757677, -0.003899220),
    "MSAVI": (0.397836066, -0.002596374),
    "NDREI": (0.437296621, -3.400000000),
    "CIRE": (1.554270463, -1.545454545),
    "NDWI": (-0.619289340, 1.666666667),
    "MNDWI": (-0.492862509, 3.000000000),
    "NDMI": (0.181967888, -0.333333333),
    "NBR": (0.467041390, 5.000000000),
    "NBR2": (0.311551155, 2.000000000),
    "BSI": (-0.131873815, -1.500000000),
    "NDBI": (-0.181967888, 0.333333333),
    "NDSI": (-0.492862509, 3.000000000),
    "NDTI": (-0.119402985, -0.548387097),
    "NDCI": (0.358308157, 0.222222222),
}
"""``spyndex.computeIndex`` of spyndex 0.12.0 (BSI is its BI) over both spectra, coefficients at its
defaults and L = 0.5 for SAVI, to nine digits."""


@pytest.mark.parametrize("name", INDICES)
def test_formulas_are_those_of_spyndex(name: str) -> None:
    index = INDICES[name]
    found = [index.formula(*(spectrum[b] for b in index.bands)) for spectrum in (GRASS, DARK)]
    assert found == pytest.approx(SPYNDEX[name], abs=6e-10)
    assert index.reference


def test_every_index_was_compared() -> None:
    assert INDICES.keys() == SPYNDEX.keys()


def test_indices_are_found_by_any_case_and_old_names() -> None:
    assert find_index("ndvi") is INDICES["NDVI"]
    assert find_index("NDRE") is INDICES["NDREI"]
    assert find_index("BI") is INDICES["BSI"]
    with pytest.raises(ConfigError, match="index 'NDVY' is unknown; did you mean 'NDVI'"):
        find_index("NDVY")


def dataset(bands: list[str], values: list[list[int]], **attrs: Any) -> xr.Dataset:
    """One date, one row, a pixel for each place in ``values[band]``."""
    accessor.register()
    data = np.array(values, np.int16)[None, :, None, :]
    reflectance = xr.DataArray(
        data,
        dims=("time", "band", "y", "x"),
        coords={"band": bands},
        attrs={"_FillValue": FILL, "scale_factor": 1e-4, **attrs},
    )
    return xr.Dataset({"reflectance": reflectance, "n_obs": reflectance.isel(band=0, drop=True)})


def test_bands_go_by_id_and_common_name() -> None:
    ds = dataset(["B04", "B08"], [[500, -20, FILL], [3000, 10, 40]], units="1")
    assert ds.eoray.bands == ("B04", "B08")
    for band in (ds.eoray["red"], ds.eoray["B04"], ds.eoray.red, ds.eoray.B04):
        assert band.dims == ("time", "y", "x")
        assert band.dtype == np.float32
        np.testing.assert_allclose(band.values[0, 0], [0.05, -0.002, np.nan], rtol=1e-6)
    assert ds.eoray.reflectance().attrs == {"units": "1"}
    assert ds.eoray.reflectance(["nir", "red"]).band.values.tolist() == ["B08", "B04"]
    assert {"red", "nir", "B04", "B08"} <= set(dir(ds.eoray))
    assert not hasattr(ds.eoray, "swir16")
    with pytest.raises(ConfigError, match="has no band B11; it has B04, B08: name it in bands="):
        _ = ds.eoray["swir16"]
    with pytest.raises(AttributeError, match=r"has no 'ndvi'; bands go by .* indices by"):
        _ = ds.eoray.ndvi


def test_index_of_a_composite_keeps_holes_and_divides_by_zero_into_them() -> None:
    ds = dataset(["B04", "B08"], [[500, 100, FILL, 300], [3000, -100, 40, 100]])
    ndvi = ds.eoray.index("NDVI")
    assert (ndvi.dims, ndvi.name, ndvi.dtype) == (("time", "y", "x"), "NDVI", np.float32)
    np.testing.assert_allclose(ndvi.values[0, 0], [2500 / 3500, np.nan, np.nan, -0.5], rtol=1e-6)
    assert ndvi.attrs["long_name"] == "normalized difference vegetation index"
    with pytest.raises(ConfigError, match=r"NDMI needs B08, B11; the dataset lacks B11: open it w"):
        ds.eoray.index("NDMI")
    with pytest.raises(ConfigError, match="has no 'mask', which tells clear pixels"):
        ds.eoray.clear()
    with pytest.raises(ConfigError, match=r"has no reflectance with bands; .*it holds n_obs"):
        ds[["n_obs"]].eoray.reflectance()


@pytest.mark.parametrize("decode", [False, True])
def test_nothing_is_read_before_it_is_used(
    scene_cube: Any, monkeypatch: pytest.MonkeyPatch, decode: bool
) -> None:
    read: list[tuple[list[str], int, int]] = []
    plain: Callable[..., np.ndarray] = CubeReader.read_bands

    def noted(self: CubeReader, *args: Any, **kwargs: Any) -> np.ndarray:
        window = kwargs["window"]
        read.append((kwargs["bands"], window.height, window.width))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(CubeReader, "read_bands", noted)
    ds = open_cube(scene_cube.url, bands=["B08", "B12", "B03"], decode=decode)
    nbr = ds.eoray.index("NBR")
    assert nbr.chunks is not None
    assert not read
    part = ds.isel(time=0, y=slice(40, 60), x=slice(1000, 1050)).eoray.index("NBR").load()
    assert read == [(["B08", "B12"], 20, 50)]  # no B03, and no pixel around
    stored = open_cube(scene_cube.url, bands=["B08", "B12"]).reflectance
    nir, swir = stored.isel(time=0, y=slice(40, 60), x=slice(1000, 1050)).values.astype("f8")
    expected = np.where((nir == FILL) | (swir == FILL), np.nan, (nir - swir) / (nir + swir))
    np.testing.assert_allclose(part.values, expected, rtol=2e-4)


@pytest.mark.parametrize("resolution_m", [10, 20])
def test_clear_is_what_readers_of_the_cube_take(scene_cube: Any, resolution_m: int) -> None:
    ds = open_cube(scene_cube.url, resolution_m)
    k = 20 // resolution_m
    part = {"y": slice(30 * k, 90 * k + 1), "x": slice(500 * k, 530 * k)}
    clear = ds.eoray.clear().isel(part)
    quality = ds.quality.isel(part).values
    mask = open_cube(scene_cube.url, 20).mask.values.repeat(k, axis=1).repeat(k, axis=2)
    expected = (mask[:, part["y"], part["x"]] == 0) & (quality & UNUSABLE == 0)
    assert clear.dtype == bool
    np.testing.assert_array_equal(clear, expected)
    assert 0.1 < float(clear.mean()) < 0.9


def test_layers_of_20_m_are_repeated_at_10_m(scene_cube: Any) -> None:
    fine, coarse = open_cube(scene_cube.url), open_cube(scene_cube.url, 20)
    for name in ("scl", "mask"):
        assert fine[name].dims == ("time", "y", "x")
        assert fine[name].attrs["flag_meanings"] == coarse[name].attrs["flag_meanings"]
        window = fine[name].isel(y=slice(101, 140), x=slice(7, 66)).values
        expected = coarse[name].values.repeat(2, axis=1).repeat(2, axis=2)[:, 101:140, 7:66]
        np.testing.assert_array_equal(window, expected)


def test_wavelengths_follow_the_bands(scene_cube: Any) -> None:
    for bands, expected in ((["B08"], [0.842]), (["B12", "B03"], [2.19, 0.56])):
        assert open_cube(scene_cube.url, bands=bands).reflectance.attrs["wavelength_um"] == expected
