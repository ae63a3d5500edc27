"""A grid of the user's own: tiles, coordinates, areas, and the place that it must hold."""

from __future__ import annotations

import pickle
from typing import Any

import jsonschema
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from eoray.config import dump_config, parse_config, run_file_schema
from eoray.config.grids import GridSection
from eoray.config.text import read_yaml
from eoray.errors import ConfigError, GridError
from eoray.grid import (
    Lattice,
    Tile,
    box_lonlat,
    lattice_of,
    owner_mask,
    pixel_area_m2,
    tiles_of_geometry,
    to_lonlat,
    zone_of_name,
)

ALPS: dict[str, Any] = {
    "name": "alps120",
    "crs": "EPSG:32633",
    "origin": (499_980.0, 5_200_020.0),
    "resolution": 120.0,
}


def make(**fields: Any) -> Lattice:
    return GridSection(**{**ALPS, **fields}).lattice()


def test_pixels_count_from_the_origin() -> None:
    grid = make()
    tile = Tile(grid, 1, 2)
    assert tile.id == "alps120r0001c002"
    assert (grid.levels, grid.px(120), grid.pixel(120)) == ((120,), 1024, 120)
    assert tile.bounds == (745_740.0, 4_954_260.0, 868_620.0, 5_077_140.0)
    assert tuple(tile.transform(120))[:6] == (120, 0, 745_740, 0, -120, 5_077_140)
    assert tile.geobox(120).extent.boundingbox.bbox == tile.bounds
    x, y = grid.centres(tile.window(120), 120)
    assert (x[0], x[-1], y[0], y[-1]) == (745_800.0, 868_560.0, 5_077_080.0, 4_954_320.0)
    with pytest.raises(GridError, match="grid 'alps120' has pixels of 120 m, not 10; ask for"):
        tile.window(10)
    with pytest.raises(GridError, match=r"alps120r0001c999 lies outside grid 'alps120'; rows run"):
        Tile(grid, 1, 999)


def test_all_bands_lie_on_the_one_pixel() -> None:
    grid = make(resolution=20.0)
    assert [grid.level(native) for native in (10, 20)] == [20, 20]
    assert [lattice_of(32).level(native) for native in (10, 20)] == [10, 20]


@given(
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 9e6),
    st.floats(1e-6, 1e4),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_stored_attributes_give_the_grid_back(
    x: float, y: float, pixel: float, n_rows: int, n_cols: int
) -> None:
    grid = Lattice.of_pixel("own", 3035, (x, y), pixel, 7, (n_rows, n_cols))
    assert Lattice.from_attrs(grid.to_attrs()) == grid
    assert grid.pixel(7) == pixel
    assert grid.misfit_px((pixel, 0.0, x + 3 * pixel, 0.0, -pixel, y), 7)[1] == 0.0


def test_tiles_travel_as_values() -> None:
    grid = make()
    tiles = [Tile(grid, row, col) for row in range(8) for col in range(4)]
    data = pickle.dumps(tiles)
    assert pickle.loads(data) == tiles
    assert len(data) < 60 * len(tiles) + 500  # one grid for all of them
    assert max(tiles) == Tile(grid, 7, 3)


def test_degrees_are_told_apart_to_a_part_of_a_pixel() -> None:
    grid = make(crs="EPSG:4326", origin=(-180.0, 84.0), resolution=0.0001)
    fits = (0.0001, 0.0, 11.5, 0.0, -0.0001, 48.2)
    assert grid.misfit_px(fits, 11) == (0.0, 0.0)
    assert grid.misfit_px((*fits[:2], 11.50005, *fits[3:]), 11) == (0.5, 0.0)
    assert grid.levels == (11,)  # named after the metres at the equator
    assert grid.pixel(11) == 0.0001


@pytest.mark.parametrize(
    ("crs", "origin", "resolution"),
    [
        ("EPSG:32633", (499_980.0, 5_200_020.0), 120.0),
        ("EPSG:3035", (4_400_000.0, 2_900_000.0), 10.0),
        ("EPSG:6933", (1_100_000.0, 5_500_000.0), 100.0),
        ("EPSG:4326", (11.0, 61.0), 0.0005),
        ("EPSG:2263", (900_000.0, 300_000.0), 100.0),  # feet
        ("EPSG:4277", (-3.0, 56.0), 0.0002),  # another ellipsoid
    ],
)
def test_areas_are_those_of_the_ground(
    crs: str, origin: tuple[float, float], resolution: float
) -> None:
    grid = make(crs=crs, origin=origin, resolution=resolution, size=(2000, 2000))
    tile = Tile(grid, 1, 1)
    area = pixel_area_m2(tile, grid.coarse)
    ring = shapely.segmentize(shapely.box(*tile.bounds), grid.edge / 2000).exterior.coords
    to_degrees = Transformer.from_crs(crs, CRS.from_user_input(crs).geodetic_crs, always_xy=True)
    geod = CRS.from_user_input(crs).get_geod()
    assert geod is not None
    exact, _ = geod.polygon_area_perimeter(*to_degrees.transform(*np.array(ring).T))
    assert area.shape == (1024, 1024)
    assert area.sum() == pytest.approx(abs(exact), rel=2e-6)
    assert owner_mask(tile, grid.coarse).all()


def test_ground_under_a_pixel_follows_the_place_where_the_crs_does() -> None:
    assert make(resolution=20.0).ground_m(5, 3) == (20.0, 20.0)  # as on the world grid
    degrees = make(crs="EPSG:4326", origin=(-180.0, 84.0), resolution=0.0001)
    row = round((84.0 - 60.0) / degrees.edge)
    down, across = degrees.ground_m(row, 100)
    assert down == pytest.approx(11.14, abs=0.05)
    assert across == pytest.approx(5.58, abs=0.05)
    y, x = degrees.margin(row, 100)
    assert x == pytest.approx(2 * y, rel=0.1)
    equal_area = make(crs="EPSG:6933", origin=(-17_367_000.0, 7_300_000.0), resolution=100.0)
    down, across = equal_area.ground_m(6, 150)  # 60 N
    assert down * across == pytest.approx(10_000.0, rel=0.01)
    assert down > 1.6 * 100


def test_tiles_of_a_place_hold_it() -> None:
    grid = make(crs="EPSG:3035", origin=(4_000_000.0, 3_000_000.0), resolution=10.0)
    place = box_lonlat(9.9, 46.9, 10.3, 47.1)
    tiles = tiles_of_geometry(place, grid)
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(9.9, 10.3, 500), rng.uniform(46.9, 47.1, 500)
    x, y = Transformer.from_crs(4326, 3035, always_xy=True).transform(lon, lat)
    rows, cols = (3_000_000 - y) // 10_240, (x - 4_000_000) // 10_240
    assert {(int(r), int(c)) for r, c in zip(rows, cols, strict=True)} <= {
        (tile.row, tile.col) for tile in tiles
    }
    assert tiles == sorted(tiles)
    assert len(tiles) < 25


def test_place_across_the_antimeridian_has_tiles_on_both_sides() -> None:
    grid = make(crs="EPSG:4326", origin=(-180.0, 84.0), resolution=0.001)
    tiles = tiles_of_geometry(box_lonlat(179.9, -17.0, -179.9, -16.8), grid)
    assert {tile.col for tile in tiles} == {0, 351}


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((-80.0, 45.0, -79.9, 45.1), r"aoi \[-80.* outside the area of use of EPSG:3035, \[-"),
        ((9.0, 46.9, 9.1, 47.0), r"aoi begins at \[42\d+\.?\d*, .*begins at \[4300000, 3000000\]"),
        ((15.0, 49.9, 15.1, 50.1), r"aoi begins at .*move its origin to the upper left"),
        ((15.0, 46.9, 15.1, 47.0), r"aoi reaches to .*which ends at \[4504800, 2795200\].*size"),
    ],
)
def test_place_beyond_the_grid_is_refused(
    box: tuple[float, float, float, float], words: str
) -> None:
    place = {"crs": "EPSG:3035", "origin": (4_300_000.0, 3_000_000.0), "resolution": 100.0}
    grid = make(**place, size=(2048, 2048))
    with pytest.raises(ConfigError, match=words):
        tiles_of_geometry(box_lonlat(*box), grid)


def test_southern_crs_is_named_in_the_north() -> None:
    grid = make(crs="EPSG:32733", origin=(499_980.0, 7_000_000.0))
    assert (grid.epsg, grid.y) == (32633, -3_000_000)
    tile = Tile(grid, 0, 0)
    assert tile.is_south
    assert not Tile(make(), 0, 0).is_south
    lon, lat = to_lonlat(grid, np.array([499_980.0]), np.array([-3_000_000.0]))
    assert tiles_of_geometry(
        box_lonlat(lon[0] + 0.1, lat[0] - 0.2, lon[0] + 0.2, lat[0] - 0.1), grid
    )


def test_grid_without_a_size_holds_a_continent_or_all_degrees() -> None:
    projected = make(crs="EPSG:3035", origin=(2_500_000.0, 5_500_000.0), resolution=10.0)
    assert (projected.n_rows, projected.n_cols) == (977, 977)  # 10 000 km in tiles of 10 240 m
    degrees = make(crs="EPSG:4326", origin=(-180.0, 84.0), resolution=0.0001)
    _, y0, x1, _ = degrees.bounds(0, 0, degrees.n_rows, degrees.n_cols)
    assert (y0 <= -90.0, x1 >= 180.0) == (True, True)
    sized = make(size=(1025, 100))
    assert (sized.n_rows, sized.n_cols) == (1, 2)


RUN = """\
version: 1
name: demo
aoi: [15.2, 45.9, 15.3, 46.0]
time: 2020-01-01/2023-12-31
task: cube
cube:
  grid: {name: alps120, crs: "EPSG:32633", origin: [499980, 5200020], resolution: 120}
"""


def test_run_file_names_a_grid() -> None:
    config = parse_config(RUN)
    assert config.cube.own_grid == make()
    assert parse_config(RUN, overrides=["cube.grid=world"]).cube.own_grid is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("cube.grid.crs=EPSG:99999", "cube.grid.crs: 'EPSG:99999' is unknown; write a code"),
        ("cube.grid.crs=LAEA", "cube.grid.crs: 'LAEA' is no EPSG code; write one such as"),
        ("cube.grid.crs=EPSG:4978", "cube.grid.crs: 'EPSG:4978' (WGS 84) is neither projected nor"),
        ("cube.grid.crs=3035", "cube.grid.crs: got 3035; expected text"),
        ("cube.grid.resolution=0", "cube.grid.resolution: got 0; expected greater than 0"),
        ("cube.grid.resolution=-120", "cube.grid.resolution: got -120; expected greater than 0"),
        ("cube.grid.resolution=[120,-120]", "cube.grid.resolution: got [120, -120]; expected a nu"),
        ("cube.grid.rotation=3", "cube.grid.rotation: unknown key; did you mean 'resolution'?"),
        ("cube.grid.name=z32", "cube.grid.name: 'z32' is how zones of the world grid are called"),
        (
            "cube.grid.name=../up",
            "cube.grid.name: got '../up'; expected 1 to 40 lower-case",
        ),
        ("cube.grid.origin=[499980]", "cube.grid.origin[1]: missing"),
        ("cube.grid.size=[0, 10]", "cube.grid.size[0]: got 0; expected greater than or equal to 1"),
        ("cube.grid.resolution=0.5", "cube.grid: grid 'alps120' would have 19532 x 19532 tiles"),
        (
            "cube.grid={name: w, crs: 'EPSG:4326', origin: [200, 50], resolution: 0.01}",
            "cube.grid: origin [200.0, 50.0] is no place on earth; write [longitude, latitude]",
        ),
        ("cube.grid={}", "cube.grid.name: missing; it has no default, so write it"),
        (
            "aoi=[z33r0457c048]",
            "aoi: tile ids are cells of the world grid; with a grid",
        ),
        ("task=land-cover", "cube.grid: stage 'fit' reads the world grid only; task 'land-cover'"),
    ],
)
def test_bad_grid_is_named_with_its_key_and_a_remedy(override: str, line: str) -> None:
    overrides = [override, *(["fit.labels=labels.geojson"] if "task" in override else [])]
    with pytest.raises(ConfigError) as caught:
        parse_config(RUN, overrides=overrides)
    assert str(caught.value).splitlines()[0].startswith(f"run file: {line}")


def test_names_of_zones_are_kept_for_them() -> None:
    assert [zone_of_name(name) for name in ("z01", "z32", "alps", "zone", "z")] == [
        1,
        32,
        None,
        None,
        None,
    ]


def test_run_file_with_a_grid_fits_the_schema_and_is_written_back() -> None:
    jsonschema.validate(read_yaml(RUN, "run.yaml"), run_file_schema())
    config = parse_config(RUN)
    assert parse_config(dump_config(config)) == config
