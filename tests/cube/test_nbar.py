"""The c-factor: kernels against an own form of their formulas, factors over tiles without seams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eoray.catalog.orbit import look_from
from eoray.cube.nbar import (
    COEFFICIENTS,
    Views,
    c_factor,
    check_views,
    known_views,
    li_sparse,
    nadir_factor,
    ross_thick,
    to_nadir,
)
from eoray.errors import ConfigError
from eoray.grid import PixelWindow, Tile, box_lonlat, tiles_of_geometry
from eoray.sentinel2 import BANDS, FILL

NAN4 = (np.nan, np.nan, np.nan, np.nan)
TILE = tiles_of_geometry(box_lonlat(11.969, 48.619, 11.971, 48.621))[0]
JUNE = 18_050
"""2019-06-03, UTC days since 1970."""


def views(*orbits: int, stated: Any = NAN4) -> Views:
    n = len(orbits)
    return Views(tuple(f"k{o}" for o in orbits), (JUNE,) * n, orbits, (stated,) * n)


def by_vectors(sun: float, view: float, azimuth: float) -> tuple[float, float]:
    """Both kernels from unit vectors (Lucht et al. 2000, equations 38 to 44)."""
    s = np.array([np.sin(sun), 0.0, np.cos(sun)])
    v = np.array([np.sin(view) * np.cos(azimuth), np.sin(view) * np.sin(azimuth), np.cos(view)])
    xi = np.arctan2(np.linalg.norm(np.cross(s, v)), s @ v)
    thick = ((np.pi / 2 - xi) * np.cos(xi) + np.sin(xi)) / (s[2] + v[2]) - np.pi / 4
    a, b = s[:2] / s[2], v[:2] / v[2]  # shadows of a crown of height 1 on the ground
    cross = a[0] * b[1] - a[1] * b[0]
    cos_t = 2 * np.sqrt(((a - b) ** 2).sum() + cross**2) / (1 / s[2] + 1 / v[2])
    t = np.arccos(min(cos_t, 1.0))
    overlap = (t - np.sin(t) * cos_t) * (1 / s[2] + 1 / v[2]) / np.pi if cos_t < 1 else 0.0
    sparse = overlap - 1 / s[2] - 1 / v[2] + 0.5 * (1 + np.cos(xi)) / s[2] / v[2]
    return float(thick), float(sparse)


@pytest.mark.parametrize("sun", [5.0, 30.0, 60.0, 80.0])
@pytest.mark.parametrize("view", [0.0, 4.0, 11.0])
@pytest.mark.parametrize("azimuth", [0.0, 55.0, 130.0, 180.0, 250.0])
def test_kernels_agree_with_their_vector_form(sun: float, view: float, azimuth: float) -> None:
    angles = np.radians([sun, view, azimuth])
    thick, sparse = by_vectors(*angles)
    assert ross_thick(*angles) == pytest.approx(thick, abs=1e-7)
    assert li_sparse(*angles) == pytest.approx(sparse, abs=1e-7)


def test_kernels_vanish_where_sun_and_view_are_overhead() -> None:
    zero = np.zeros(1)
    assert ross_thick(zero, zero, zero) == pytest.approx(0, abs=1e-12)
    assert li_sparse(zero, zero, zero) == pytest.approx(0, abs=1e-12)


def test_every_band_has_coefficients() -> None:
    assert tuple(sorted(COEFFICIENTS)) == tuple(sorted(BANDS))


def test_nothing_changes_at_nadir_and_back_scatter_is_darkened() -> None:
    assert c_factor(BANDS, 35.0, 0.0, 77.0) == pytest.approx(1.0)
    back, forth = (c_factor(BANDS, 40.0, 9.0, azimuth) for azimuth in (0.0, 180.0))
    assert (back < 1).all()
    assert (forth > 1).all()
    assert (back > 0.9).all()
    assert (forth < 1.1).all()


def test_two_orbits_over_one_tile_are_moved_towards_each_other() -> None:
    """022 looks from the east, where the sun of the morning stands; 065 from the west."""
    window = TILE.window(20)
    near, far = (
        nadir_factor(views(orbit), bands=["B04", "B8A"], zone=32, window=window, resolution_m=20)
        for orbit in (22, 65)
    )
    assert near.shape == (2, 512, 512)
    assert (near < 1).all()
    assert (far > 1).all()
    look = look_from(65, 11.97, 48.62)
    assert 0.01 < float((far - near)[1].mean()) < 0.02 * look.view_zenith


def test_factors_have_no_seam_between_tiles_and_do_not_depend_on_the_window() -> None:
    whole = PixelWindow(TILE.window(20).row_off, TILE.window(20).col_off, 512, 1024)
    where: dict[str, Any] = {"bands": ["B08"], "zone": 32, "resolution_m": 20}
    field = nadir_factor(views(65), window=whole, **where)[0]
    step = np.abs(np.diff(field, axis=1))
    assert step[:, 511].max() < 2 * step.max(initial=0, where=np.arange(1023) != 511) < 1e-4
    part = PixelWindow(whole.row_off + 100, whole.col_off + 500, 30, 40)
    cut = nadir_factor(views(65), window=part, **where)[0]
    np.testing.assert_allclose(cut, field[100:130, 500:540], atol=1e-6)


def test_stored_values_are_moved_and_fill_stays() -> None:
    window = PixelWindow(TILE.window(20).row_off, TILE.window(20).col_off, 2, 2)
    where: dict[str, Any] = {"bands": ["B8A"], "zone": 32, "window": window, "resolution_m": 20}
    values = np.array([[[[3000, FILL], [-40, 32767]]]], np.int16)
    factor = float(nadir_factor(views(65), **where)[0, 0, 0])
    moved = to_nadir(values.copy(), views(65), **where)
    assert moved[0, 0].tolist() == [[round(3000 * factor), FILL], [round(-40 * factor), 32767]]
    assert moved.dtype == np.int16


def test_angles_of_items_serve_where_the_orbit_does_not_pass() -> None:
    stated = (30.0, 150.0, 8.0, 104.0)
    assert known_views(views(22, 0, 122), TILE) == [True, False, False]
    assert known_views(views(22, 0, 122, stated=stated), TILE) == [True, True, True]
    window = TILE.window(20)
    factor = nadir_factor(
        views(122, stated=stated), bands=["B08"], zone=32, window=window, resolution_m=20
    )
    assert factor == pytest.approx(float(c_factor(["B08"], 30.0, 8.0, -46.0)[0]), abs=1e-6)


def test_dates_without_angles_are_refused_by_name() -> None:
    check_views(views(22, 65), TILE)
    with pytest.raises(ConfigError, match=rf"1 of 2 dates of tile {TILE.id} .* such as k0"):
        check_views(views(22, 0), TILE)


def test_it_works_on_the_southern_half_and_on_other_zones() -> None:
    for lon, lat, orbit in ((28.0, -8.5, 78), (172.9, 58.0, 116)):
        tile: Tile = tiles_of_geometry(box_lonlat(lon, lat, lon + 1e-3, lat + 1e-3))[0]
        assert known_views(views(orbit), tile) == [True]
