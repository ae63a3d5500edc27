"""Cubes on grids of the user's own, from run files to what stands in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from eoray import open_cube
from eoray.cube.check import check_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import ConfigError, GridError, StoreError
from eoray.grid import Lattice, PixelWindow, Tile, Zone, lattice_of
from eoray.publish.export import export_window
from eoray.run import Run, load_run
from eoray.sentinel2 import FILL, Quality
from tests.run.processes import start

EXAMPLES = Path(__file__).parents[2] / "examples"
TWL, TWM = "S2A_33TWL_20230815_0_L2A", "S2A_33TWM_20230815_0_L2A"
TWL_LATER = "S2A_33TWL_20230818_0_L2A"
ORIGINS = {"33TWL": (499_980, 5_100_000), "33TWM": (499_980, 5_200_020)}
ONE_MONTH = "time=2021-06-01/2021-06-30"

Example = Callable[..., Run]


@pytest.fixture
def example(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """The example's run file, its place and grid moved to a granule."""
    monkeypatch.setenv("EORAY_SHARED_DATA", str(shared_data))

    def load(granule: str, *overrides: str) -> Run:
        x, y = ORIGINS[granule]
        moved = [
            f"store={tmp_path / 'out'}",
            f"source.query={{'grid:code': {{eq: MGRS-{granule}}}}}",
            f"cube.grid.origin=[{x}, {y}]",
        ]
        path = EXAMPLES / "earthsearch-33twl-own-grid.yaml"
        return load_run(path, [*moved, *overrides])

    return load


def read_item(shared_data: Path, item: str, band: str) -> np.ndarray:
    folder = shared_data / "sentinel2/earthsearch_33TWL_33TWM" / item
    with rasterio.open(folder / f"{band}.tif") as file:
        values: np.ndarray = file.read(1)
    return values


def read_grid(reader: CubeReader, grid: Lattice, array: str, window: PixelWindow) -> np.ndarray:
    """All dates of an array, dims (time, ..., y, x)."""
    return reader.read("s2", grid, array, window=window, resolution_m=grid.coarse)


@pytest.mark.parametrize(
    ("granule", "day", "item", "bands"),
    [
        ("33TWL", "2023-08-15", TWL, ("B02", "B03", "B04", "B08")),
        ("33TWL", "2023-08-18", TWL_LATER, ("B04", "B08")),
        ("33TWM", "2023-08-15", TWM, ("B02", "B03", "B04", "B08")),
    ],
)
def test_granule_on_its_own_lattice_is_copied_bit_for_bit(
    example: Example,
    shared_data: Path,
    tmp_path: Path,
    granule: str,
    day: str,
    item: str,
    bands: tuple[str, ...],
) -> None:
    run = example(granule, f"time={day}/{day}", f"cube.bands=[{', '.join(bands)}]")
    run.execute(["cube"])
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    (grid,) = reader.zones("s2")
    assert isinstance(grid, Lattice)
    assert (grid.x, grid.y) == ORIGINS[granule]
    # the file, and what lies beyond it in its tile
    assert [tile.id for tile in reader.tiles("s2")] == ["twl120r0000c000"]
    window = PixelWindow(0, 0, 1024, 1024)
    reflectance = read_grid(reader, grid, "reflectance", window)[0]
    scl, quality = (read_grid(reader, grid, name, window)[0] for name in ("scl", "quality"))
    expected = np.zeros((1024, 1024), np.int64)
    expected[:915, :915] = read_item(shared_data, item, "SCL")
    np.testing.assert_array_equal(scl, expected)
    seen = expected > 0
    for band, found in zip(bands, reflectance, strict=True):
        dn = np.zeros((1024, 1024), np.int64)
        dn[:915, :915] = read_item(shared_data, item, band)
        # the provider has taken the offset off already (earthsearch:boa_offset_applied)
        np.testing.assert_array_equal(found, np.where(seen & (dn > 0), dn, FILL))
    assert not (quality & int(Quality.FOREIGN_ZONE)).any()
    assert reflectance[reflectance != FILL].size > 2 * 500_000


def test_both_granules_are_refused_with_the_half_pixel_named(example: Example) -> None:
    words = (
        rf"item {TWM}: B04 lies 0\.000, 0\.500 of a pixel \(x, y\) off grid 'twl120'; say `cube\.w"
    )
    with pytest.raises(GridError, match=words):
        example("33TWL", "time=2023-08-15/2023-08-15", "source.query={}").plan()


def test_both_granules_warped_are_the_one_copied_and_the_other_as_gdal_warps_it(
    example: Example, shared_data: Path, tmp_path: Path
) -> None:
    x, y = ORIGINS["33TWL"]
    run = example(
        "33TWL",
        "time=2023-08-15/2023-08-15",
        "source.query={}",
        "cube.warp=true",
        f"cube.grid.origin=[{x}, {y + 100 * 120}]",  # as far north as the overlap
    )
    run.execute(["cube"])
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    (grid,) = (lattice_of(zone) for zone in reader.zones("s2"))
    tile = Tile(grid, 0, 0)
    found = read_grid(reader, grid, "reflectance", tile.window(120))[0, 0].astype(int)
    quality = read_grid(reader, grid, "quality", tile.window(120))[0]
    warped = (quality & int(Quality.FOREIGN_ZONE)) > 0
    copied = ~warped & (found != FILL)
    exact = np.zeros(found.shape, np.int64)
    exact[100 : 100 + 915, :915] = read_item(shared_data, TWL, "B04")[:924]
    np.testing.assert_array_equal(found[copied], exact[copied])
    folder = shared_data / "sentinel2/earthsearch_33TWL_33TWM"
    with (
        rasterio.open(folder / TWM / "B04.tif") as file,
        WarpedVRT(
            file,
            crs="EPSG:32633",
            transform=tile.transform(120),
            width=1024,
            height=1024,
            resampling=Resampling.bilinear,
            src_nodata=0,
            nodata=0,
            tolerance=0.001,
        ) as vrt,
    ):
        other = vrt.read(1).astype(int)
    both = warped & (other > 0) & (found != FILL)
    assert copied.sum() > 600_000
    assert both.sum() > 100_000
    assert (warped & ~both).sum() < 0.01 * both.sum()
    assert np.abs(found - other)[both].max() <= 1


OWN = """\
cube:
  bands: [{bands}]
  warp: {warp}
  composite: {{method: {composite}, period: P1Y}}
  grid: {{name: own, crs: "EPSG:{epsg}", origin: [{x}, {y}], resolution: {pixel}}}
"""


def own(
    epsg: int = 3035,
    origin: tuple[float, float] = (4_430_000, 2_860_000),
    pixel: float = 20,
    *,
    bands: str = "B04, B8A",
    warp: str = "true",
    composite: str = "none",
) -> str:
    x, y = origin
    return OWN.format(epsg=epsg, x=x, y=y, pixel=pixel, bands=bands, warp=warp, composite=composite)


def test_grid_that_is_the_worlds_holds_what_the_world_holds(write_run: Any, tmp_path: Path) -> None:
    """20 m bands on a grid in UTM whose pixels are those of zone 32, under another origin."""
    world = "cube: {bands: [B8A, B11], composite: {method: none}}"
    load_run(write_run("world", store="world", more=world), [ONE_MONTH]).execute(["cube"])
    text = own(32632, (701_060, 5_410_020), 20, bands="B8A, B11")
    load_run(write_run("own", store="own", more=text), [ONE_MONTH]).execute(["cube"])
    left, right = (CubeReader(CubeSource(str(tmp_path / name))) for name in ("world", "own"))
    (grid,) = (lattice_of(zone) for zone in right.zones("s2"))
    kept = ~np.uint8(Quality.OTHER_GRANULE)  # who is nearest to the tile hangs on the tiles
    checked = 0
    for tile in (t for t in left.tiles("s2") if t.zone == 32):
        top, west, _, _ = grid.box(tile.bounds, 20)
        for array in ("reflectance", "scl", "mask", "quality"):
            theirs = dates(left, 32, array, tile.window(20))
            ours = dates(right, grid, array, PixelWindow(top, west, 512, 512))
            for key, expected in theirs.items():
                bits = kept if array == "quality" else ~np.uint8(0)
                np.testing.assert_array_equal(ours[key] & bits, expected & bits, err_msg=key)
                checked += int((expected != expected.flat[0]).any())
    assert checked >= 8


def dates(reader: CubeReader, zone: Zone, array: str, window: PixelWindow) -> dict[str, np.ndarray]:
    """Entry -> 20 m pixels of an array."""
    table = reader.entries("s2", zone)
    values = reader.read("s2", zone, array, window=window, resolution_m=20, index=table.index)
    return dict(
        zip((str(key) for key in table.key), values.view(f"u{values.itemsize}"), strict=True)
    )


def test_coarse_cube_says_so_and_takes_no_pixels_of_another_provider(
    write_run: Any, tmp_path: Path
) -> None:
    more = own(pixel=40)
    fine = load_run(write_run("fine", store="fine", more=own(pixel=10)), [ONE_MONTH])
    coarse = load_run(write_run("coarse", store="coarse", more=more), [ONE_MONTH])
    assert "overviews" not in fine.plan_cube(freeze=False).recipe.parameters()
    assert coarse.plan_cube(freeze=False).recipe.parameters()["overviews"] is True
    assert coarse.plan().bytes < 0.15 * fine.plan().bytes
    elsewhere = f"source.fallback=[{{catalog: {tmp_path}}}]"
    other = load_run(write_run("other", store="other", more=more), [ONE_MONTH, elsewhere])
    with pytest.raises(ConfigError, match=r"cube\.grid 'own' is so coarse .* leave source\.fallba"):
        other.plan()


@pytest.fixture(scope="module")
def eu20(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run on a 20 m grid of Europe, made inline; tests only read it."""
    folder = tmp_path_factory.mktemp("eu20")
    (folder / "run.yaml").write_text(RUN.format(archive=archive, store="out", more=own()))
    load_run(folder / "run.yaml").execute(["cube"], executor="inline")
    return folder


RUN = """\
version: 1
name: own
aoi: {archive}/aoi.geojson
time: 2021-05-01/2021-07-31
task: cube
source:
  catalog: {archive}/catalog.json
  lineage: {{baseline_min: "02.00", mixed: true}}
store: {store}
run: {{wave_shards: 4}}
{more}
"""


def again(archive: Path, folder: Path, store: Path | str, more: str, *overrides: str) -> Run:
    path = folder / "again.yaml"
    path.write_text(RUN.format(archive=archive, store=store, more=more))
    return load_run(path, list(overrides))


def test_threads_give_the_checksum_of_inline(archive: Path, eu20: Path, tmp_path: Path) -> None:
    run = again(archive, tmp_path, "out", own(), "run.workers=2")
    report = run.execute(["cube"], executor="threads")
    assert report.stages["cube"]["tasks"] >= 6
    found, expected = check_cube(str(tmp_path / "out")), check_cube(str(eu20 / "out"))
    assert (found.ok, expected.ok) == (True, True)
    assert found.checksum == expected.checksum
    assert found.tiles > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_gives_the_checksum_of_inline(archive: Path, eu20: Path, tmp_path: Path) -> None:
    again(archive, tmp_path, "out", own())
    log = tmp_path / "log"
    options = ("run.workers=2", "--executor", "ray")
    process = start("cube", str(tmp_path / "again.yaml"), *options, log=log)
    assert process.wait(timeout=280) == 0, log.read_text()[-3000:]
    expected = check_cube(str(eu20 / "out"), quick=True)
    assert check_cube(str(tmp_path / "out")).checksum == expected.checksum


def test_done_work_is_found_again(archive: Path, eu20: Path, tmp_path: Path) -> None:
    before = check_cube(str(eu20 / "out"), quick=True).checksum
    run = again(archive, tmp_path, eu20 / "out", own())
    plan = run.plan().to_dict()
    assert (plan["tasks"], plan["bytes"] > 0, plan["requests"] > 0) == (6, True, True)
    report = run.execute(["cube"])
    assert report.stages["cube"]["tasks"] == 0
    assert check_cube(str(eu20 / "out"), quick=True).checksum == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (own(pixel=40), r"'s2' stands on grid 'own' \(EPSG:3035, .* pixel 20,.*pixel 40,.*another"),
        (own(origin=(4_430_010, 2_860_000)), r"origin \[4430000, .* writes .*origin \[4430010, "),
        (own().replace("name: own", "name: new"), r"stands on grid 'own' .* writes on grid 'new'"),
        (
            own()[: own().index("  grid")],
            r"stands on grid 'own' .*, this run writes on the world grid \(zone z32\)",
        ),
    ],
)
def test_store_keeps_one_grid(
    archive: Path, eu20: Path, tmp_path: Path, more: str, words: str
) -> None:
    with pytest.raises(StoreError, match=words):
        again(archive, tmp_path, eu20 / "out", more).execute(["cube"])


def test_world_cube_takes_no_own_grid(archive: Path, tmp_path: Path) -> None:
    days = "time=2021-06-01/2021-06-15"
    more = own()[: own().index("  grid")]
    again(archive, tmp_path, "out", more, days).execute(["cube"])
    words = r"stands on the world grid \(zone z32\), this run writes on grid 'own' \(EPSG:3035"
    with pytest.raises(StoreError, match=words):
        again(archive, tmp_path, "out", own(), days).execute(["cube"])


def test_stage_that_knows_the_world_grid_only_is_refused_before_anything_is_written(
    archive: Path, tmp_path: Path
) -> None:
    run = again(archive, tmp_path, "out", own())
    with pytest.raises(
        ConfigError, match=r"stage 'predict' reads the world grid only; leave it out"
    ):
        run.execute(["cube", "predict"])
    assert not (tmp_path / "out" / "cube.icechunk").exists()


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # odc-geo 0.5
def test_cube_opens_with_the_coordinates_of_the_grid(eu20: Path) -> None:
    import odc.geo.xr
    import rioxarray

    assert odc.geo.xr.__name__ < rioxarray.__name__  # imports add the accessors
    ds = open_cube(str(eu20 / "out"))
    assert ds.sizes["band"] == 2
    assert ds.rio.crs.to_epsg() == 3035
    assert ds.odc.geobox.resolution.xy == (20, -20)
    x, y = float(ds.x[0]), float(ds.y[0])
    assert ((x - 10 - 4_430_000) % 20, (2_860_000 - y - 10) % 20) == (0, 0)
    assert float(ds.x[1] - ds.x[0]) == 20
    assert (ds.reflectance != FILL).any()
    box = [float(v) for v in ds.rio.transform_bounds(4326)]
    middle = [box[0] * 0.5 + box[2] * 0.5, box[1] * 0.5 + box[3] * 0.5]
    part = open_cube(str(eu20 / "out"), aoi=[*middle, middle[0] + 0.001, middle[1] + 0.001])
    assert (part.sizes["x"], part.sizes["y"]) < (12, 12)
    np.testing.assert_array_equal(
        part.reflectance.values, ds.reflectance.sel(x=part.x, y=part.y).values
    )


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray 0.20
def test_grid_of_degrees_says_so(archive: Path, tmp_path: Path) -> None:
    import rioxarray

    assert rioxarray.__name__  # its import adds the accessor
    more = own(4326, (11.7, 48.8), 0.0002)
    again(archive, tmp_path, "out", more, "time=2021-06-01/2021-06-15").execute(["cube"])
    found = check_cube(str(tmp_path / "out"))
    assert (found.ok, found.tiles) == (True, 1)
    ds = open_cube(str(tmp_path / "out"))
    assert ds.rio.crs.to_epsg() == 4326
    assert ds.rio.resolution() == pytest.approx((0.0002, -0.0002))
    assert [ds[name].attrs["standard_name"] for name in "yx"] == ["latitude", "longitude"]
    assert (ds.x.attrs["units"], ds.attrs["proj:code"]) == ("degrees_east", "EPSG:4326")
    assert 0.1 < float(ds.reflectance[:, 0].max()) * 1e-4 < 1.7


def test_window_is_exported_with_its_crs_and_pixels(eu20: Path, tmp_path: Path) -> None:
    ds = open_cube(str(eu20 / "out"))
    seen = np.argwhere((ds.reflectance[:, 0] != FILL).any("time").values)
    row, col = (int(v) for v in np.median(seen, axis=0))
    centre = ds.isel(y=slice(row - 5, row + 5), x=slice(col - 5, col + 5))
    left, right = float(centre.x[0]), float(centre.x[-1])
    low, high = float(centre.y[-1]), float(centre.y[0])
    to_degrees = Transformer.from_crs(3035, 4326, always_xy=True)
    bounds = to_degrees.transform_bounds(left, low, right, high)
    out = export_window(str(eu20 / "out"), "s2", str(tmp_path / "w.tif"), bbox=bounds)
    with rasterio.open(out) as file:
        assert file.crs.to_epsg() == 3035
        assert file.res == (20.0, 20.0)
        values = file.read()
        x, y = file.transform @ (0.5, 0.5)
    expected = ds.sel(x=slice(x - 1, None), y=slice(y + 1, None)).reflectance
    height, width = values.shape[1:]
    same = expected[:, :, :height, :width].values.reshape(values.shape)
    np.testing.assert_array_equal(values, same)
    assert (values != FILL).any()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_composite_change_files_and_report_follow_the_grid(archive: Path, tmp_path: Path) -> None:
    more = own(pixel=40, bands="B02, B03, B04, B11", composite="median")
    more += "change: {allow_mixed: true}\n"
    year = ["task=change", "time=2021-01-01/2021-12-31"]
    report = again(archive, tmp_path, "out", more, *year).execute()
    assert set(report.stages) == {"cube", "change", "assess", "publish", "report"}
    reader = CubeReader(CubeSource(str(tmp_path / "out")))
    assert [str(zone) for zone in reader.zones("change-own")] == ["own"]
    assert [str(zone) for zone in reader.zones("s2-P1Y-median")] == ["own"]
    (cog,) = (tmp_path / "out/own/change").glob("*.tif")
    with rasterio.open(cog) as file:
        assert (file.crs.to_epsg(), file.res) == (3035, (40.0, 40.0))
        published = file.read(6)
    (tile,) = reader.tiles("s2")
    n_obs = reader.read("change-own", tile.zone, "n_obs", window=tile.window(40), resolution_m=40)
    np.testing.assert_array_equal(published, n_obs)
    assert n_obs.max() > 3
    page = json.loads((tmp_path / "out/own/report/report.json").read_text())
    assert "grid own (ownr" in page["place"]
