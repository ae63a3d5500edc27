from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from eoray.cube.read import CubeReader
from eoray.errors import StoreError
from eoray.grid import owner_mask
from eoray.publish import CHANGE_BANDS, PublishedCog, publish_change, publish_map
from eoray.publish.cog import sha256_of
from eoray.publish.maps import last_break
from tests.publish.toy import BORDER, NORTH, SOUTH, change_arrays, map_arrays


def by_tile(cogs: list[PublishedCog], role: str) -> dict[str, PublishedCog]:
    return {cog.group.id: cog for cog in cogs if cog.role == role}


def test_every_file_is_a_valid_cog(
    map_cogs: list[PublishedCog], change_cogs: list[PublishedCog]
) -> None:
    found = {cog.url: cog_validate(cog.url)[:2] for cog in (*map_cogs, *change_cogs)}
    assert found == dict.fromkeys(found, (True, []))
    assert len(found) == 8


def test_map_folder_holds_classes_only(map_cogs: list[PublishedCog], out_url: str) -> None:
    paths = sorted((Path(out_url) / "map").rglob("*.tif"))
    assert [str(path) for path in paths] == [cog.url for cog in map_cogs if cog.role == "class"]
    for path in paths:
        with rasterio.open(path) as file:
            assert (file.count, file.dtypes[0], file.res) == (1, "uint8", (10.0, 10.0))
            assert file.overviews(1)
            assert file.colormap(1)[2] == (19, 84, 53, 255)


def test_touching_tiles_share_a_file_with_all_their_pixels(map_cogs: list[PublishedCog]) -> None:
    cog = by_tile(map_cogs, "class")[NORTH[0].id]
    expected = np.hstack([map_arrays(tile)["10m/class"] for tile in NORTH])
    with rasterio.open(cog.url) as file:
        np.testing.assert_array_equal(file.read(1), expected)
        assert file.crs.to_epsg() == 32632
        assert file.bounds.left == NORTH[0].bounds[0]
        assert file.bounds.top == NORTH[0].bounds[3]


def test_southern_file_carries_the_southern_crs(map_cogs: list[PublishedCog]) -> None:
    cog = by_tile(map_cogs, "class")[SOUTH.id]
    with rasterio.open(cog.url) as file:
        assert file.crs.to_epsg() == 32732
        assert file.bounds.bottom == SOUTH.bounds[1] + 10_000_000
        np.testing.assert_array_equal(file.read(1), map_arrays(SOUTH)["10m/class"])


def test_pixels_of_another_zone_are_left_out(map_cogs: list[PublishedCog]) -> None:
    owned = owner_mask(BORDER, 10)
    assert 0 < owned.sum() < owned.size
    with rasterio.open(by_tile(map_cogs, "class")[BORDER.id].url) as file:
        expected = np.where(owned, map_arrays(BORDER)["10m/class"], 0)
        np.testing.assert_array_equal(file.read(1), expected)


def test_probability_is_nodata_where_nothing_is_mapped(map_cogs: list[PublishedCog]) -> None:
    cog = by_tile(map_cogs, "probability")[SOUTH.id]
    arrays = map_arrays(SOUTH)
    with rasterio.open(cog.url) as file:
        probability, entropy = file.read(masked=True)
        np.testing.assert_array_equal(probability.mask, arrays["10m/class"] == 0)
        np.testing.assert_array_equal(probability.filled(255), arrays["10m/probability"])
        np.testing.assert_array_equal(entropy.filled(255), arrays["10m/entropy"])
        assert file.scales == (0.005, 0.005)


def test_period_and_notice_stand_in_the_file(map_cogs: list[PublishedCog]) -> None:
    assert (map_cogs[0].start, map_cogs[0].end) == ("2021-01-01", "2021-12-31")
    with rasterio.open(map_cogs[0].url) as file:
        assert file.tags()["period"] == "2021-01-01/2021-12-31"
        assert file.tags()["notice"] == "toy"


def test_change_holds_the_last_break_at_10_m(change_cogs: list[PublishedCog]) -> None:
    with rasterio.open(by_tile(change_cogs, "change")[SOUTH.id].url) as file:
        date, n_breaks, low, high = file.read([1, 2, 3, 4])
        assert file.descriptions == tuple(band.name for band in CHANGE_BANDS)
        assert file.nodata == -1
        assert file.tags()["flag_meanings"].split()[-1] == "transient"
    assert date.shape == (1024, 1024)
    assert (date[20:40, 60:120] == 18_000).all()
    assert (date[80:100, 60:120] == 18_500).all()
    assert (n_breaks[80:100, 60:120] == 2).all()
    assert np.count_nonzero(date) == 2 * 20 * 60
    changed = date > 0
    assert (low[changed] == date[changed] - 8).all()
    assert (high[changed] == date[changed] + 8).all()


def test_unowned_pixels_of_change_are_nodata(change_cogs: list[PublishedCog]) -> None:
    with rasterio.open(by_tile(change_cogs, "change")[BORDER.id].url) as file:
        np.testing.assert_array_equal(file.read(1) == -1, ~owner_mask(BORDER, 10))


def test_last_break_agrees_with_the_engine_s_own_view() -> None:
    from eoray.change.detect import last_break_date

    arrays = {path.removeprefix("20m/"): a for path, a in change_arrays(SOUTH).items()}
    np.testing.assert_array_equal(last_break(arrays)[0], last_break_date(arrays))


def test_publishing_twice_gives_the_same_bytes(
    reader: CubeReader, map_cogs: list[PublishedCog], tmp_path: Path
) -> None:
    again = publish_map(reader, "map-toy", str(tmp_path), name="toy", tags={"notice": "toy"})
    assert [sha256_of(cog.url) for cog in again] == [sha256_of(cog.url) for cog in map_cogs]


def test_missing_product_names_what_is_there(reader: CubeReader, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished tile of 'map-none', only change-toy"):
        publish_map(reader, "map-none", str(tmp_path), name="x")
    with pytest.raises(StoreError, match="no finished tile of 'change-none'"):
        publish_change(reader, "change-none", str(tmp_path), name="x", period=("a", "b"))


def test_missing_entry_names_those_that_are_there(reader: CubeReader, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it holds 2021-01-01/2022-01-01"):
        publish_map(reader, "map-toy", str(tmp_path), name="x", entry="2030")
