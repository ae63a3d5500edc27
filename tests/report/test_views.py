from __future__ import annotations

import numpy as np
import pytest

from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import StoreError
from eoray.report import ViewRequest, Views, read_views
from tests.publish.toy import (
    NORTH,
    SOUTH,
    change_arrays,
    composite_arrays,
    map_arrays,
    write_toy_store,
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> CubeReader:
    folder = tmp_path_factory.mktemp("views")
    write_toy_store(str(folder / "cube.icechunk"))
    return CubeReader(CubeSource(str(folder)))


@pytest.fixture(scope="module")
def views(reader: CubeReader) -> Views:
    return read_views(reader, ViewRequest(land_cover="map-toy", scenes="s2"))


def test_view_covers_the_tiles_and_is_thinned(views: Views) -> None:
    (view,) = views.views
    assert view.pixel_m == 20
    assert view.classes is not None
    assert view.classes.shape == (512, 1024)
    expected = np.hstack([map_arrays(tile)["10m/class"][1::2, 1::2] for tile in NORTH])
    np.testing.assert_array_equal(view.classes, expected)


def test_probability_is_nan_where_nothing_is_mapped(views: Views) -> None:
    (view,) = views.views
    assert view.classes is not None
    assert view.probability is not None
    np.testing.assert_array_equal(np.isnan(view.probability), view.classes == 0)
    assert np.nanmax(view.probability) == pytest.approx(0.9)


def test_clear_observations_are_counted_by_year(views: Views) -> None:
    # 2021: three scenes, one cloudy in the upper half; 2022: one, cloudy there too
    assert views.clear_by_year == {2021: (2.0, 2.0, 3.0), 2022: (0.0, 0.0, 1.0)}
    (view,) = views.views
    assert view.clear_per_year is not None
    assert (view.clear_per_year[:256, 70:512] == 1.0).all()
    assert (view.clear_per_year[256:, 70:512] == 2.0).all()
    assert np.isnan(view.clear_per_year[:, :70]).all()


def test_small_areas_keep_their_native_pixel(reader: CubeReader) -> None:
    request = ViewRequest(change="change-toy")
    south = next(view for view in read_views(reader, request).views if "south" in view.title)
    assert south.pixel_m == 10
    assert south.change_date is not None
    expected = change_arrays(SOUTH)["20m/date_est"].max(axis=0).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(south.change_date, expected)
    assert south.monitored is not None
    assert south.monitored.all()


def test_composite_is_cropped_to_its_data(reader: CubeReader) -> None:
    (view,) = read_views(reader, ViewRequest(composite="s2-P1Y-median")).views
    assert view.true_color_label == "s2-P1Y-median, 2021-01-01/2022-01-01"
    assert view.true_color is not None
    red = composite_arrays(NORTH[0])["10m/reflectance"][2]
    np.testing.assert_array_equal(view.true_color[0], red)


def test_nothing_asked_gives_nothing(reader: CubeReader) -> None:
    assert read_views(reader, ViewRequest()) == Views((), {})


def test_missing_entry_is_named(reader: CubeReader) -> None:
    with pytest.raises(StoreError, match="has no entry '2030'; it holds 2021-01-01/2022-01-01"):
        read_views(reader, ViewRequest(composite="s2-P1Y-median", composite_entry="2030"))


def test_missing_product_is_named(reader: CubeReader) -> None:
    with pytest.raises(StoreError, match="no finished tile of 'map-none'"):
        read_views(reader, ViewRequest(land_cover="map-none"))
