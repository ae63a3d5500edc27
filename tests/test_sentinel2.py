"""Bands by name, and bits that share no value."""

from __future__ import annotations

import pytest

from eoray.errors import ConfigError
from eoray.sentinel2 import (
    BANDS,
    BANDS_10M,
    BANDS_20M,
    COMMON_NAMES,
    UNUSABLE,
    WAVELENGTHS_UM,
    Mask,
    Quality,
    Scl,
    bands_of,
    native_resolution_m,
    resolve_bands,
)


def test_ids_and_common_names_resolve_in_the_order_given() -> None:
    assert resolve_bands(["nir", "B02", "red", "nir08"]) == ("B08", "B02", "B04", "B8A")
    assert resolve_bands(COMMON_NAMES.values()) == tuple(COMMON_NAMES)


def test_a_band_named_twice_comes_once() -> None:
    assert resolve_bands(["B04", "red", "B03", "B04"]) == ("B04", "B03")


@pytest.mark.parametrize(("name", "near"), [("B8a", "B8A"), ("B1", "B11|B12"), ("rde", "red")])
def test_unknown_band_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '({near})'"):
        resolve_bands(["B02", name])


def test_band_of_another_level_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"unknown band 'thermal'; eoray reads B02, B03"):
        resolve_bands(["thermal"])


def test_every_band_has_a_name_a_wavelength_and_a_pixel() -> None:
    assert set(BANDS) == set(COMMON_NAMES) == set(WAVELENGTHS_UM)
    assert [native_resolution_m(b) for b in BANDS] == [10] * 4 + [20] * 6
    assert (bands_of(10), bands_of(20)) == (BANDS_10M, BANDS_20M)


@pytest.mark.parametrize("flags", [Quality, Mask])
def test_bits_fit_a_byte_and_share_none(flags: type[Quality | Mask]) -> None:
    values = [int(bit) for bit in flags]
    assert all(value.bit_count() == 1 for value in values)
    assert len(set(values)) == len(values)
    assert max(values) <= 128


def test_unusable_is_no_data_saturated_and_failed_read() -> None:
    assert int(UNUSABLE) == 1 | 2 | 8
    assert [int(c) for c in Scl] == list(range(12))
