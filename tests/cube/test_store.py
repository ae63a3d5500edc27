"""Products of a repository: made once, axes lengthened, other parameters refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from eoray.cube import store
from eoray.cube.layout import TimeEntry
from eoray.errors import StoreError

Make = Callable[..., Any]


def test_no_repository_is_refused_with_the_name_to_give(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"ends in 'cube\.icechunk'"):
        store.open_repository(str(tmp_path / "nothing"))


def test_store_folder_and_repository_name_the_same(coarse_store: Any, tmp_path: Path) -> None:
    inner = str(tmp_path / "cube.icechunk")
    assert store.repository_url(str(tmp_path)) == inner
    assert store.repository_url(inner) == inner
    assert store.repository_url("s3://bucket/run") == "s3://bucket/run/cube.icechunk"


def test_repository_under_another_name_opens_by_its_folder(tmp_path: Path) -> None:
    url = str(tmp_path / "mine")
    store.open_repository(url, create=True)
    assert store.repository_url(url) == url


def test_making_a_product_twice_changes_nothing(coarse_store: Any, make_entry: Make) -> None:
    assert coarse_store.append([make_entry(1), make_entry(2)]) == 2
    head = coarse_store.repository.lookup_branch(store.BRANCH)
    assert coarse_store.append([make_entry(2), make_entry(1)]) == 0
    assert coarse_store.repository.lookup_branch(store.BRANCH) == head


def test_late_entry_is_appended_and_the_reader_sorts(coarse_store: Any, make_entry: Make) -> None:
    coarse_store.append([make_entry(5), make_entry(9)])
    coarse_store.append([make_entry(7), make_entry(2)])
    stored = store.entry_keys(coarse_store.root(), "coarse", 32)
    assert stored == ["take-05", "take-09", "take-02", "take-07"]
    table = coarse_store.reader().entries("coarse", 32)
    assert table.key.tolist() == ["take-02", "take-05", "take-07", "take-09"]
    assert table.index.tolist() == [2, 0, 3, 1]
    assert table.columns["relative_orbit"].tolist() == [102, 105, 107, 109]
    assert table.time[0] == np.datetime64("2021-01-02T10:00:00.123")
    assert table.between("2021-01-05", "2021-01-09").key.tolist() == ["take-05", "take-07"]


def test_entries_of_one_zone_do_not_touch_another(coarse_store: Any, make_entry: Make) -> None:
    coarse_store.append([make_entry(1)], 32)
    coarse_store.append([make_entry(2), make_entry(3)], 33)
    reader = coarse_store.reader()
    assert reader.zones("coarse") == [32, 33]
    assert [len(reader.entries("coarse", zone)) for zone in (32, 33)] == [1, 2]


def test_text_and_number_columns_grow_with_the_axis(coarse_store: Any, make_entry: Make) -> None:
    coarse_store.append([make_entry(1, satellite="S2A", sun_zenith=40.25)])
    coarse_store.append([make_entry(2, satellite="S2B-long", sun_zenith=float("nan"))])
    columns = coarse_store.reader().entries("coarse", 32).columns
    assert columns["satellite"].tolist() == ["S2A", "S2B-long"]
    np.testing.assert_array_equal(columns["sun_zenith"], [40.25, np.nan])


@pytest.mark.parametrize("columns", [{}, {"satellite": "S2A", "extra": 1}])
def test_entries_with_other_columns_are_refused(
    coarse_store: Any, make_entry: Make, columns: dict[str, Any]
) -> None:
    coarse_store.append([make_entry(1, satellite="S2A")])
    with pytest.raises(StoreError, match=r"take-02.*columns"):
        coarse_store.append([make_entry(2, **columns)])
    assert len(coarse_store.reader().entries("coarse", 32)) == 1


def test_columns_behind_an_axis_without_any_are_refused(
    coarse_store: Any, make_entry: Make
) -> None:
    coarse_store.append([TimeEntry("take-01", "2021-01-01T10:00:00.123Z")])
    with pytest.raises(StoreError, match=r"take-02 has the columns relative_orbit, .* holds none;"):
        coarse_store.append([make_entry(2)])


@pytest.mark.parametrize("zone", [32, 33])
def test_other_parameters_are_refused_in_any_zone(
    coarse_store: Any, make_spec: Make, make_entry: Make, zone: int
) -> None:
    coarse_store.append([make_entry(1)], 32)
    coarse_store.spec = make_spec(mask="strict")
    with pytest.raises(StoreError, match="made with mask = None, this run asks for 'strict'"):
        coarse_store.append([make_entry(1)], zone)


def test_product_of_another_format_is_refused(coarse_store: Any, make_entry: Make) -> None:
    coarse_store.append([make_entry(1)])
    session = coarse_store.repository.writable_session(store.BRANCH)
    zarr.open_group(session.store, mode="a")["coarse/z32"].attrs["eoray:format"] = 99
    session.commit("from the future")
    with pytest.raises(StoreError, match="written in format 99"):
        coarse_store.append([make_entry(2)])


def test_plain_xarray_opens_a_group(coarse_store: Any, make_entry: Make, make_result: Make) -> None:
    from eoray.grid import Tile

    tile = Tile(32, 457, 48)
    coarse_store.append([make_entry(1, satellite="S2A"), make_entry(2, satellite="S2B")])
    coarse_store.write(make_result(tile, "take-02", 1000))
    session = coarse_store.repository.readonly_session(store.BRANCH)
    dataset = xr.open_zarr(session.store, group="coarse/z32/640m", chunks=None, consolidated=False)
    assert dataset.sizes == {"time": 2, "band": 2, "y": 1786 * 16, "x": 98 * 16}
    x0, y0, x1, y1 = tile.bounds
    part = dataset.value.sel(x=slice(x0, x1), y=slice(y1, y0), band="B8A")
    assert part.shape == (2, 16, 16)
    assert part.values[1, 0, 0] == pytest.approx((1000 + 256) * 1e-4)  # CF scale is applied
    assert np.isnan(part.values[0]).all()
    assert {"relative_orbit", "satellite", "spatial_ref"} <= set(dataset.coords)
    assert dataset.attrs["proj:code"] == "EPSG:32632"
    assert float(dataset.y[0]) == 9_400_320 - 320


def test_a_product_made_with_its_entries_equals_one_that_got_them_later(
    make_spec: Make, make_entry: Make
) -> None:
    def documents(*, at_once: bool) -> dict[str, Any]:
        memory = zarr.storage.MemoryStore()
        root, spec = zarr.open_group(memory, mode="a"), make_spec()
        entries = [make_entry(day, satellite="S2A", sun_zenith=day + 0.5) for day in (3, 1, 2)]
        assert store.create_product(root, spec, 32, entries if at_once else ())
        assert store.append_entries(root, spec, 32, entries) == (0 if at_once else 3)
        found = {key: value.to_bytes() for key, value in memory._store_dict.items()}
        return {k: json.loads(v) if k.endswith("zarr.json") else v for k, v in found.items()}

    assert documents(at_once=True) == documents(at_once=False)
