from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from eoray.chips.labels import (
    IGNORE,
    NO_PLACE,
    LabelBurner,
    Legend,
    Polygon,
    read_labels,
    to_classes,
)
from eoray.errors import DataError
from eoray.grid import PixelWindow, Tile
from eoray.testing.http import archive_server
from tests.chips.landscape import NAMES, TILE, make_landscape

X0, _, _, Y1 = TILE.bounds
WINDOW = PixelWindow(TILE.row * 1024, TILE.col * 1024, 8, 8)


def box(x: float, y: float, width: float, height: float) -> shapely.Polygon:
    """A box by metres east and south of the tile's corner."""
    return shapely.box(X0 + x, Y1 - y - height, X0 + x + width, Y1 - y)


def polygon(number: int, shape: Any, class_id: int = 1) -> Polygon:
    return Polygon(number, TILE.utm_zone, class_id, shapely.to_wkb(shape))


def write(path: Path, shapes: list[Any], classes: list[Any], crs: Any = "EPSG:32632") -> Path:
    frame = gpd.GeoDataFrame({"class": classes}, geometry=shapes, crs=crs)
    frame.to_file(path, driver="GPKG")
    return path


def test_pixels_follow_their_centre() -> None:
    burner = LabelBurner([polygon(0, box(14, 0, 30, 80))], 32, border_m=0)
    columns = burner.burn(WINDOW)[0]
    assert columns.tolist() == [-1, 0, 0, 0, -1, -1, -1, -1]


def test_border_of_ten_metres_is_left_out() -> None:
    burner = LabelBurner([polygon(0, box(0, 0, 80, 80))], 32, border_m=10)
    places = burner.burn(WINDOW)
    inner = np.full((8, 8), NO_PLACE)
    inner[1:-1, 1:-1] = 0
    assert np.array_equal(places, inner)


def test_overlap_of_two_classes_is_unlabelled_and_of_one_is_kept() -> None:
    shapes = [box(0, 0, 50, 80), box(30, 0, 50, 40), box(30, 40, 50, 40)]
    polygons = [polygon(0, shapes[0], 1), polygon(1, shapes[1], 2), polygon(2, shapes[2], 1)]
    places = LabelBurner(polygons, 32, border_m=0).burn(WINDOW)
    assert places[0].tolist() == [0, 0, 0, -1, -1, 1, 1, 1]
    assert places[7].tolist() == [0, 0, 0, 2, 2, 2, 2, 2]


def test_other_zones_are_not_burned() -> None:
    far = Polygon(0, 33, 1, shapely.to_wkb(box(0, 0, 80, 80)))
    assert (LabelBurner([far], 32, border_m=0).burn(WINDOW) == NO_PLACE).all()


@given(
    rows=st.integers(0, 6),
    cols=st.integers(0, 6),
    size=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_any_window_is_a_crop_of_a_larger_one(rows: int, cols: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygons = [
        polygon(i, box(*rng.uniform(0, 60, 2), *rng.uniform(10, 60, 2)), int(rng.integers(1, 3)))
        for i in range(4)
    ]
    burner = LabelBurner(polygons, 32, border_m=3)
    whole = burner.burn(PixelWindow(WINDOW.row_off, WINDOW.col_off, 12, 12))
    part = burner.burn(PixelWindow(WINDOW.row_off + rows, WINDOW.col_off + cols, size, size))
    assert np.array_equal(part, whole[rows : rows + size, cols : cols + size])


def test_classes_of_places() -> None:
    places = np.array([[0, 1, NO_PLACE]])
    assert to_classes(places, np.array([3, 1], np.uint8)).tolist() == [[2, 0, IGNORE]]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:32633"])
def test_labels_in_another_crs_burn_the_same_pixels(tmp_path: Path, crs: str) -> None:
    land = make_landscape()
    plain = read_labels(land.write_labels(tmp_path / "a.gpkg", crs="EPSG:32632"), [TILE])
    other = read_labels(land.write_labels(tmp_path / "b.gpkg", crs=crs), [TILE])
    window = PixelWindow(WINDOW.row_off, WINDOW.col_off, 256, 256)
    burned = [
        to_classes(LabelBurner(s.polygons, 32, border_m=1).burn(window), s.class_of)
        for s in (plain, other)
    ]
    assert np.array_equal(burned[0], burned[1])
    used = burned[0] != IGNORE
    assert used.mean() > 0.7
    assert np.array_equal(burned[0][used] + 1, land.classes[used])


def test_outside_polygons_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "l.gpkg", [box(0, 0, 80, 80), box(99_000, 0, 80, 80)], ["a", "a"])
    labels = read_labels(path, [TILE])
    assert (len(labels.polygons), labels.n_read, labels.n_outside) == (1, 2, 1)


def test_labels_behind_an_address_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.gpkg", [box(100, 100, 200, 200)], ["a"])
    with archive_server(tmp_path) as server:
        read = read_labels(f"{server.url}/labels.gpkg", [TILE])
        with pytest.raises(DataError, match=r"absent\.gpkg' do not exist"):
            read_labels(f"{server.url}/absent.gpkg", [TILE])
    assert read == read_labels(path, [TILE])


def test_all_outside_names_both_extents(tmp_path: Path) -> None:
    path = write(tmp_path / "l.gpkg", [box(99_000, 0, 80, 80)], ["a"])
    with pytest.raises(DataError, match=r"none of the 1 labels .* they span \[.*the cube \["):
        read_labels(path, [TILE])


def test_class_without_sample_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "l.gpkg", [box(0, 0, 80, 80), box(99_000, 0, 80, 80)], ["a", "b"])
    with pytest.raises(DataError, match=r"class 'b' has no sample inside the cube.* hold a, b"):
        read_labels(path, [TILE])


def test_absent_attribute_names_those_there(tmp_path: Path) -> None:
    path = write(tmp_path / "l.gpkg", [box(0, 0, 80, 80)], ["a"])
    with pytest.raises(DataError, match="no attribute 'kind'; they have class; set fit"):
        read_labels(path, [TILE], class_property="kind")


def test_points_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "l.gpkg", [shapely.Point(X0, Y1)], ["a"])
    with pytest.raises(DataError, match="hold Point; only polygons"):
        read_labels(path, [TILE])


def test_labels_without_crs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.parquet"
    gpd.GeoDataFrame({"class": ["a"]}, geometry=[box(0, 0, 80, 80)]).to_parquet(path)
    with pytest.raises(DataError, match="have no CRS"):
        read_labels(path, [TILE])


def test_absent_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not exist; give a vector file"):
        read_labels(tmp_path / "none.gpkg", [TILE])
    (tmp_path / "bad.gpkg").write_bytes(b"no vectors here")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "bad.gpkg", [TILE])


def test_legend_orders_classes_and_leaves_others_unlabelled(tmp_path: Path) -> None:
    shapes = [box(0, 0, 80, 80), box(100, 0, 80, 80), box(200, 0, 80, 80)]
    path = write(tmp_path / "l.gpkg", shapes, ["a", "b", "c"])
    labels = read_labels(path, [TILE], legend=Legend(("c", "a")))
    assert [p.class_id for p in labels.polygons] == [2, 1]


def test_numbers_become_names(tmp_path: Path) -> None:
    path = write(tmp_path / "l.gpkg", [box(0, 0, 80, 80), box(100, 0, 9, 9)], [1200.0, np.nan])
    assert read_labels(path, [TILE]).legend.names == ("1200",)


def test_polygon_at_a_border_goes_to_the_zone_that_the_cube_holds(tmp_path: Path) -> None:
    from pyproj import Transformer

    # West of 12 E, so zone 32 owns it; the cube has only tiles of zone 33 there.
    shape = shapely.box(11.99, 51.0, 11.995, 51.003)
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(11.99, 51.001)
    tile = Tile(33, int((9_400_320 - y) // 10_240), int(x // 10_240))
    path = write(tmp_path / "l.gpkg", [shape], ["a"], crs="EPSG:4326")
    (found,) = read_labels(path, [tile]).polygons
    assert found.zone == 33
    left, low, right, high = shapely.from_wkb(found.wkb).bounds
    assert left - 50 < x < right + 50
    assert low - 50 < y < high + 50


def test_invalid_outline_is_mended(tmp_path: Path) -> None:
    bow = shapely.Polygon([(X0, Y1), (X0 + 80, Y1 - 80), (X0 + 80, Y1), (X0, Y1 - 80)])
    labels = read_labels(write(tmp_path / "l.gpkg", [bow], ["a"]), [TILE])
    assert shapely.from_wkb(labels.polygons[0].wkb).is_valid


def test_legend_refuses_repeated_names() -> None:
    with pytest.raises(DataError, match="2 classes"):
        Legend(("a", "a"))


def test_legend_has_a_colour_per_class() -> None:
    assert len(set(Legend(NAMES).colours)) == len(NAMES)
