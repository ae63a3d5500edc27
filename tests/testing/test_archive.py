from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from pystac.validation import validate_dict
from rio_cogeo.cogeo import cog_validate
from scipy.ndimage import binary_dilation

from eoray.errors import ConfigError
from eoray.sentinel2 import BANDS, COMMON_NAMES, DN_SATURATED, Scl
from eoray.testing import CLASSES, ArchiveOptions, write_archive
from eoray.testing.archive import Studio
from eoray.testing.passes import Job


def _items(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "sentinel-2-c1-l2a").glob("*/*.json"))
    return [{**json.loads(path.read_bytes()), "folder": path.parent} for path in paths]


def _read(item: dict[str, Any], asset: str) -> np.ndarray:
    with rasterio.open(item["folder"] / item["assets"][asset]["href"]) as dataset:
        return np.asarray(dataset.read(1))


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _truth(folder: Path, name: str, epsg: int = 32632) -> np.ndarray:
    with rasterio.open(folder / "truth" / f"{name}_{epsg}.tif") as dataset:
        return np.asarray(dataset.read())


@pytest.fixture(scope="module")
def studio(small_options: ArchiveOptions, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"), small_options)


def _job(studio: Studio, mgrs: str, *, clear: bool = True, orbit: int = 22) -> Job:
    """Latest ordinary item of a granule, with the fewest clouds."""
    jobs = [
        job
        for job in studio.jobs
        if job.granule.mgrs == mgrs and job.taken.relative_orbit == orbit and not job.cut
    ]
    return min(
        jobs, key=lambda job: (job.taken.cloud_share if clear else 0, -job.taken.day.toordinal())
    )


def test_catalogue_is_valid_stac_with_every_item(small_archive: Path) -> None:
    catalog = pystac.Catalog.from_file(str(small_archive / "catalog.json"))
    (collection,) = catalog.get_children()
    items = list(collection.get_items())
    assert len(items) == json.loads((small_archive / "archive.json").read_bytes())["items"]
    for one in (catalog, collection, *items[:3]):
        # core schemas come with pystac; those of extensions would have to be fetched
        validate_dict(one.to_dict(), extensions=[])
    for item in items:
        assert set(item.assets) == {*COMMON_NAMES.values(), "scl"}
        for asset in item.assets.values():
            assert Path(str(asset.get_absolute_href())).is_file()


def test_items_speak_like_earth_search(small_archive: Path, shared_data: Path) -> None:
    answer = shared_data / "stac" / "earth-search-v1" / "c1_item-collection.json"
    real = json.loads(answer.read_bytes())["features"][0]
    item = _items(small_archive)[0]
    ours, theirs = item["properties"], real["properties"]
    named = {key for key in theirs if key.startswith(("s2:", "view:", "eo:", "grid:"))}
    not_drawn = {
        "s2:degraded_msi_data_percentage",
        "s2:saturated_defective_pixel_percentage",
        "s2:reflectance_conversion_factor",
    }
    assert named - set(ours) == not_drawn
    for key in ("s2:product_uri", "s2:datatake_id", "s2:datastrip_id"):
        assert [len(part) for part in ours[key].split("_")] == [
            len(part) for part in theirs[key].split("_")
        ]
    missing = set(real["assets"]["red"]) - set(item["assets"]["red"])
    assert missing == {"file:checksum"}


def test_files_are_valid_cogs_on_the_stated_grid(small_archive: Path) -> None:
    item = next(item for item in _items(small_archive) if "T32UQU" in item["id"])
    for asset in item["assets"].values():
        path = item["folder"] / asset["href"]
        assert cog_validate(path, strict=True)[0]
        assert path.stat().st_size == asset["file:size"]
        with rasterio.open(path) as dataset:
            assert list(dataset.shape) == asset["proj:shape"]
            assert list(dataset.transform)[:6] == asset["proj:transform"]
            assert f"EPSG:{dataset.crs.to_epsg()}" == item["properties"]["proj:code"]
            assert dataset.dtypes[0] == asset["raster:bands"][0]["data_type"]
            assert dataset.block_shapes == [(64, 64)]


def test_offset_lies_in_the_pixels_on_both_sides_of_baseline_4(small_archive: Path) -> None:
    medians: dict[float, list[float]] = {}
    for item in _items(small_archive):
        properties = item["properties"]
        if properties["eo:cloud_cover"] > 20 or properties["s2:nodata_pixel_percentage"] > 60:
            continue
        raster = item["assets"]["red"]["raster:bands"][0]
        assert raster["offset"] == (-0.1 if properties["s2:processing_baseline"] >= "04.00" else 0)
        red, scl = _read(item, "red"), _read(item, "scl").repeat(2, 0).repeat(2, 1)
        medians.setdefault(raster["offset"], []).append(
            float(np.median(red[scl == Scl.VEGETATION]))
        )
    assert len(medians) == 2
    before, after = np.mean(medians[0]), np.mean(medians[-0.1])
    assert after - before == pytest.approx(1000, abs=150)
    assert before < 800


def test_negatives_are_kept_after_baseline_4_and_clamped_before(studio: Studio) -> None:
    jobs = sorted(
        (job for job in studio.jobs if job.granule.mgrs == "32UQV" and not job.special),
        key=lambda job: job.taken.cloud_share,
    )
    clear = next(job for job in jobs if job.has_offset)
    old = studio.picture(next(job for job in jobs if not job.has_offset))
    new = studio.picture(clear)
    swir = ("B11", "B12")
    assert sum((old.bands[band] == 1).sum() for band in swir) > 3
    below = [b[(b > 0) & (b < 1000)] for b in (new.bands[band] for band in swir)]
    assert sum(part.size for part in below) > 3
    assert min(part.min() for part in below if part.size) > 900
    kind = replace(studio.options, negatives=False)
    calm = Studio(studio.folder, kind).picture(clear)
    left = sum(((b > 0) & (b < 1000)).sum() for b in (calm.bands[band] for band in swir))
    assert left < sum(part.size for part in below) / 2


def test_overlap_shows_the_same_ground(studio: Studio) -> None:
    lower = _job(studio, "32UQU")
    upper = next(j for j in studio.jobs if j.taken == lower.taken and j.granule.mgrs == "32UQV")
    south, north = studio.picture(lower), studio.picture(upper)
    for band, step in (("B08", 1), ("B11", 2)):
        n = 100 // step
        a = south.bands[band][:n].astype(int)
        b = north.bands[band][-n:].astype(int)
        difference = a - b
        # the atmosphere is corrected granule by granule: a step, the same everywhere
        step_dn = np.median(difference)
        assert (abs(difference - step_dn) <= 3).mean() > 0.99
        assert step_dn != 0
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999


def test_neighbour_zone_shows_the_same_ground(small_archive: Path) -> None:
    from rasterio.warp import Resampling, reproject

    items = [item for item in _items(small_archive) if item["properties"]["eo:cloud_cover"] < 20]
    by_key = {(item["properties"]["s2:datatake_id"][:20], item["id"][5:10]): item for item in items}
    foreign = next(item for (_, mgrs), item in by_key.items() if mgrs == "33UTP")
    own = by_key[foreign["properties"]["s2:datatake_id"][:20], "32UQV"]
    with rasterio.open(own["folder"] / "B08.tif") as target:
        warped = np.zeros(target.shape, np.float32)
        with rasterio.open(foreign["folder"] / "B08.tif") as source:
            reproject(
                rasterio.band(source, 1),
                warped,
                dst_transform=target.transform,
                dst_crs=target.crs,
                resampling=Resampling.bilinear,
                dst_nodata=0,
            )
        mine = target.read(1).astype(np.float32)
    glint = 20_000
    both = (warped > 0) & (mine > 0) & (warped < glint) & (mine < glint)
    assert both.sum() > 1000
    assert np.corrcoef(warped[both], mine[both])[0, 1] > 0.93


def test_changes_are_rare_and_irregular(small_archive: Path) -> None:
    kind, start, end, fraction, patch = _truth(small_archive, "changes")
    land = _truth(small_archive, "land_cover")[0] != 1
    share = fraction.sum() / 100 / land.sum()
    assert 0.002 < share <= 0.03
    assert ((fraction > 0) & (fraction < 100)).any()
    np.testing.assert_array_equal(fraction > 0, patch > 0)
    np.testing.assert_array_equal(fraction > 0, kind > 0)
    assert (end >= start).all()
    with (small_archive / "truth" / "patches_north.csv").open() as stream:
        listed = {int(row["patch"]): row for row in csv.DictReader(stream)}
    assert set(np.unique(patch[patch > 0])) <= set(listed)


def test_archive_without_change_is_the_same_where_nothing_changes(
    studio: Studio, small_archive: Path
) -> None:
    still = Studio(studio.folder, replace(studio.options, change=False))
    job = _job(studio, "32UQU", clear=False)
    moving, calm = studio.picture(job), still.picture(job)
    patch = _truth(small_archive, "changes")[4]
    rows = studio.options.size_px
    near = binary_dilation(patch[-rows:] > 0, iterations=4)
    assert not near.all()
    for band in ("B04", "B08"):
        np.testing.assert_array_equal(moving.bands[band][~near], calm.bands[band][~near])
        assert (moving.bands[band] != calm.bands[band]).any()


def test_split_datastrips_complete_each_other(studio: Studio) -> None:
    upper, lower = (job for job in studio.jobs if job.special == "split")
    a, b = (studio.picture(job).bands["B03"] for job in (upper, lower))
    assert ((a > 0) | (b > 0)).all()
    both = (a > 0) & (b > 0)
    assert 0 < both.mean() < 0.1
    np.testing.assert_array_equal(a[both], b[both])


def test_reprocessing_differs_in_offset_and_slightly_in_value(studio: Studio) -> None:
    old, new = (j for j in studio.jobs if j.special in ("original", "reprocessed"))
    a, b = (studio.picture(job) for job in (old, new))
    np.testing.assert_array_equal(a.scl, b.scl)
    difference = b.bands["B08"].astype(int) - 1000 - a.bands["B08"]
    assert 0 < abs(np.median(difference)) < 60


def test_orbit_edge_leaves_a_wedge(studio: Studio) -> None:
    picture = studio.picture(_job(studio, "32UQU", orbit=65))
    share = (picture.scl == 0).mean()
    assert 0.01 < share < 0.3
    empty = np.stack([picture.bands[band][::2, ::2] == 0 for band in ("B02", "B04")])
    assert (empty[0] != empty[1]).any(), "bands see along lines of their own"


def test_saturation_and_clouds_missed_by_scl(studio: Studio) -> None:
    jobs = [job for job in studio.jobs if job.granule.mgrs == "32UQU"]
    pictures = [studio.picture(job) for job in jobs]
    assert any((picture.bands["B04"] == DN_SATURATED).any() for picture in pictures)
    kind = Studio(studio.folder, ArchiveOptions.plain(**_shape(studio.options)))
    plain = [kind.picture(job) for job in jobs]
    assert not any((picture.bands["B04"] == DN_SATURATED).any() for picture in plain)
    classes = {int(value) for picture in pictures for value in np.unique(picture.scl)}
    assert classes >= {0, 2, 3, 4, 5, 6, 7, 8, 9}
    kind_classes = {int(value) for picture in plain for value in np.unique(picture.scl)}
    assert not kind_classes & {2, 7}


def _shape(options: ArchiveOptions) -> dict[str, Any]:
    names = ("seed", "size_px", "years", "dates_per_year", "southern_dates", "block_px")
    return {name: getattr(options, name) for name in names}


def test_labels_are_lonlat_polygons_of_known_classes(small_archive: Path) -> None:
    labels = json.loads((small_archive / "labels.geojson").read_bytes())["features"]
    names = Counter(label["properties"]["class"] for label in labels)
    assert set(names) <= set(CLASSES)
    assert len(names) >= 5
    west, south = labels[0]["geometry"]["coordinates"][0][0]
    assert 11.9 < west < 12.1
    assert 48.5 < south < 48.7


def test_legend_and_truth_share_ids(small_archive: Path) -> None:
    legend = json.loads((small_archive / "legend.json").read_bytes())
    assert [entry["id"] for entry in legend["classes"]] == list(range(1, 8))
    cover = _truth(small_archive, "land_cover")[0]
    assert set(np.unique(cover)) <= set(range(1, 8))
    assert (_truth(small_archive, "land_cover_end")[0] != cover).mean() < 0.03
    assert set(np.unique(_truth(small_archive, "land_cover", 32732))) <= set(range(1, 8))


def test_complete_archive_is_left_alone_and_others_are_refused(
    small_archive: Path, small_options: ArchiveOptions
) -> None:
    before = (small_archive / "archive.json").stat().st_mtime_ns
    catalog = write_archive(small_archive, small_options, workers=2)
    assert catalog == small_archive / "catalog.json"
    assert (small_archive / "archive.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="other options"):
        write_archive(small_archive, replace(small_options, seed=99))


def test_two_workers_and_a_stop_give_the_same_bytes(
    small_archive: Path, small_options: ArchiveOptions, tmp_path: Path
) -> None:
    class Stop(Exception):  # noqa: N818 - no error: a test's way out
        pass

    def stop_after_three(done: int, _: int) -> None:
        if done >= 3:
            raise Stop

    folder = tmp_path / "archive"
    with pytest.raises(Stop):
        write_archive(folder, small_options, workers=1, progress=stop_after_three)
    with pytest.raises(ConfigError, match="other options"):
        write_archive(folder, replace(small_options, snow=False))
    counts: list[tuple[int, int]] = []
    write_archive(folder, small_options, workers=2, progress=lambda *c: counts.append(c))
    assert counts[-1][0] == counts[-1][1]
    assert _digest(folder) == _digest(small_archive)


def test_killed_archive_goes_on_to_the_same_bytes(
    small_archive: Path, small_options: ArchiveOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    code = (
        "import json, sys; from pathlib import Path\n"
        "from eoray.testing import ArchiveOptions, write_archive\n"
        "write_archive(Path(sys.argv[1]), ArchiveOptions.from_dict(json.loads(sys.argv[2])))\n"
    )
    order = json.dumps(small_options.to_dict())
    root = Path(__file__).resolve().parents[2]
    writer = subprocess.Popen([sys.executable, "-c", code, str(folder), order], cwd=root)
    until = time.monotonic() + 120
    while len(list(folder.glob("*/*/*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    n_before = len(list(folder.glob("*/*/*.json")))
    assert n_before >= 3
    _wait_until_quiet(folder)
    write_archive(folder, small_options, workers=1)
    assert _digest(folder) == _digest(small_archive)


def _wait_until_quiet(folder: Path) -> None:
    """The helper of a killed writer ends with the item that it draws."""
    n, same = -1, 0
    until = time.monotonic() + 60
    while same < 5 and time.monotonic() < until:
        time.sleep(0.2)
        now = sum(1 for _ in folder.rglob("*"))
        n, same = (now, same + 1) if now == n else (now, 0)


@pytest.mark.slow
def test_demo_is_too_hard_for_a_nearest_mean_of_pixels(tmp_path: Path) -> None:
    """A per-pixel classifier on the yearly median stays below 0.85 on the whole demo."""
    from eoray.testing import demo_options

    options = demo_options()
    folder = tmp_path / "demo"
    write_archive(folder, options, workers=2)
    stacks: list[np.ndarray] = []
    for item in _items(folder):
        properties = item["properties"]
        if properties["grid:code"] != "MGRS-32UQU" or properties["datetime"][:4] != "2021":
            continue
        clear = np.isin(_read(item, "scl"), (4, 5, 6)).repeat(2, 0).repeat(2, 1)
        offset = round(item["assets"]["red"]["raster:bands"][0]["offset"] * 1e4)
        bands = [_read(item, COMMON_NAMES[band]).astype(np.float32) + offset for band in BANDS]
        fine = [b if b.shape == clear.shape else b.repeat(2, 0).repeat(2, 1) for b in bands]
        stacks.append(np.where(clear, np.stack(fine), np.nan)[:, ::2, ::2])
    stack = np.stack(stacks)
    seen = np.isfinite(stack).any(axis=(0, 1))
    median = np.full(stack.shape[1:], np.nan, np.float32)
    median[:, seen] = np.nanmedian(stack[:, :, seen], axis=0)
    cover = _truth(folder, "land_cover")[0][-options.size_px :][::2, ::2]
    good = np.isfinite(median).all(axis=0)
    west = good & (np.arange(cover.shape[1]) < cover.shape[1] // 2)
    east = good & ~west
    spread = median[:, west].std(axis=1)[:, None]
    means = np.stack([median[:, west & (cover == i)].mean(axis=1) for i in range(1, 8)])
    points = median[:, east] / spread
    distance = [((points - mean[:, None] / spread) ** 2).sum(axis=0) for mean in means]
    accuracy = (np.argmin(distance, axis=0) + 1 == cover[east]).mean()
    assert 0.4 < accuracy < 0.85
