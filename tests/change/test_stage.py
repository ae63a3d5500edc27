"""Planning and running the stage on a stand-in for the store."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from eoray.change import (
    ChangeFlag,
    ChangeParameters,
    ChangeWorker,
    change_product,
    check_lineage,
    plan_change,
    stage,
)
from eoray.cube.layout import DONE, NO_SCENE
from eoray.cube.read import CubeSource, PixelWindow, TimeTable
from eoray.errors import ConfigError, GridError
from eoray.grid import Tile
from eoray.timeline import DateRange
from tests.change.made import FIRST_DAY, make_days, make_pixels

TILE = Tile(32, 457, 48)
OTHER = Tile(32, 457, 49)
BANDS = ("B04", "B8A")
PARAMETERS = ChangeParameters(bands=BANDS)


@dataclass(frozen=True)
class FakeReceipt:
    n_valid: int


@dataclass
class FakeReader:
    """A few observed pixels of one tile, stored in another order than time."""

    day: np.ndarray
    values: np.ndarray
    """(time, band, y, x) of the observed corner."""
    at: tuple[int, int] = (200, 300)
    """Row and column of the corner in the tile."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    snow: bool = False
    seen: list[PixelWindow] = field(default_factory=list)

    def zones(self, product: str) -> list[int]:
        return [32]

    def ledger(self, product: str, zone: int) -> FakeReader:
        return self

    def get(self, tile: Tile, entry: str) -> FakeReceipt | None:
        return FakeReceipt(0 if int(entry[1:]) % 50 == 7 else 5) if tile == TILE else None

    def entries(self, product: str, zone: int) -> TimeTable:
        n = len(self.day)
        columns = {
            "relative_orbit": np.full(n, 108),
            "baseline": np.full(n, "05.10"),
            "provider": np.full(n, "toy"),
            "refined": np.ones(n, int),
            **self.columns,
        }
        keys = np.array([f"k{i}" for i in range(n)])
        # Stored backwards: position on disk and order of time must not be taken for each other.
        return TimeTable(
            self.day.astype("M8[D]").astype("M8[ms]"), keys, n - 1 - np.arange(n), columns
        )

    def _cut(self, window: PixelWindow, index: Sequence[int], source: np.ndarray, fill: Any) -> Any:
        whole = TILE.window(20)
        top, left = window.row_off - whole.row_off, window.col_off - whole.col_off
        shape = (len(index), *source.shape[1:-2], window.height, window.width)
        out = np.full(shape, fill, source.dtype)
        times = len(self.day) - 1 - np.asarray(index)
        row, col = self.at[0] - top, self.at[1] - left
        h, w = source.shape[-2:]
        if 0 <= row < window.height and 0 <= col < window.width:
            out[..., row : row + h, col : col + w] = source[times]
        return out

    def read_clear(
        self, zone: int, *, window: PixelWindow, resolution_m: int, index: Any, product: str = "s2"
    ) -> np.ndarray:
        self.seen.append(window)
        clear = np.ones((len(self.day), *self.values.shape[2:]), bool)
        return np.asarray(self._cut(window, index, clear, fill=False))

    def read_bands(
        self,
        product: str,
        zone: int,
        *,
        bands: Any,
        window: PixelWindow,
        resolution_m: int,
        index: Any,
    ) -> np.ndarray:
        assert tuple(bands) == BANDS
        return np.asarray(self._cut(window, index, self.values, -32768))

    def read(
        self,
        product: str,
        zone: int,
        array: str,
        *,
        window: PixelWindow,
        resolution_m: int,
        index: Any,
    ) -> np.ndarray:
        assert array == "mask"
        return np.full((len(index), window.height, window.width), 8 if self.snow else 32, np.uint8)


def make_reader(**options: Any) -> FakeReader:
    day = make_days()
    values = make_pixels(day, n_band=2, n_pixel=3)
    values[120:, :, 0, 1] += 900
    return FakeReader(day, values, **options)


def run(reader: FakeReader, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setattr(stage, "open_reader", lambda source: reader)
    _, rows = plan_change(reader, [TILE], **options)  # type: ignore[arg-type]
    (result,) = ChangeWorker(CubeSource("toy"), PARAMETERS)(rows[0])
    return result


def test_one_row_per_tile_with_scenes_in_order_of_time() -> None:
    reader = make_reader()
    entries, rows = plan_change(reader, [OTHER, TILE])  # type: ignore[arg-type]
    assert [row.tiles for row in rows] == [(TILE,)]
    assert [entry.key for entry in entries[32]] == ["all"]
    (row,) = rows
    assert row.key == f"all/{TILE.id}"
    assert "k7" not in row.scenes
    assert list(row.days) == sorted(row.days)
    n = len(reader.day)
    assert row.positions[:3] == (n - 1, n - 2, n - 3)
    assert len(row.scenes) == len(row.positions) == len(row.days) == len(row.orbits)


def test_days_limit_the_record_with_both_ends_included() -> None:
    reader = make_reader()
    _, (row,) = plan_change(reader, [TILE], days=DateRange.parse("2018-01-01/2018-01-10"))  # type: ignore[arg-type]
    assert row.days == (FIRST_DAY, FIRST_DAY + 9)


def test_zone_without_a_product_gives_nothing() -> None:
    assert plan_change(make_reader(), [Tile(33, 1, 1)]) == ({}, [])  # type: ignore[arg-type]


def test_row_and_worker_travel() -> None:
    _, (row,) = plan_change(make_reader(), [TILE])  # type: ignore[arg-type]
    worker = ChangeWorker(CubeSource("toy"), PARAMETERS)
    assert pickle.loads(pickle.dumps((row, worker))) == (row, worker)


def test_row_cannot_be_cut() -> None:
    _, (row,) = plan_change(make_reader(), [TILE])  # type: ignore[arg-type]
    assert row.only([TILE]) is row
    with pytest.raises(GridError, match=f"owns {TILE.id}"):
        row.only([OTHER])


def test_worker_finds_the_break_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = make_reader()

    result = run(reader, monkeypatch)

    n_breaks = result.arrays["20m/n_breaks"]
    assert np.argwhere(n_breaks).tolist() == [[200, 301]]
    assert result.arrays["20m/date_hi"][0, 200, 301] == reader.day[120]
    assert result.arrays["20m/date_hi"].sum() == reader.day[120]
    assert (result.status, result.n_valid, result.entry) == (DONE, 3, "all")


def test_windows_are_whole_chunks_that_cover_the_tile_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "_WINDOW_BYTES", 20_000_000)
    reader = make_reader()
    run(reader, monkeypatch)
    whole = TILE.window(20)
    hits = np.zeros((512, 512), int)
    for window in reader.seen:
        assert (window.row_off - whole.row_off) % 128 == 0
        assert (window.col_off - whole.col_off) % 128 == 0
        assert window.width < 512
        row, col = window.row_off - whole.row_off, window.col_off - whole.col_off
        hits[row : row + window.height, col : col + window.width] += 1
    assert (hits == 1).all()


def test_size_of_windows_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    large = run(make_reader(), monkeypatch)
    monkeypatch.setattr(stage, "_WINDOW_BYTES", 1)
    small = run(make_reader(), monkeypatch)
    for name, values in large.arrays.items():
        np.testing.assert_array_equal(values, small.arrays[name])


def test_arrays_are_those_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = change_product("toy", PARAMETERS)
    result = run(make_reader(), monkeypatch)
    (group,) = spec.groups
    assert {f"20m/{array.name}" for array in group.arrays} == set(result.arrays)
    for array in group.arrays:
        values = result.arrays[f"20m/{array.name}"]
        assert values.shape == (*array.lead_shape, 512, 512), array.name
        assert values.dtype == array.dtype, array.name
        unseen = values[..., 0, 0]
        if array.name != "qa_flags":
            assert (unseen == array.fill).all(), array.name
    assert (result.arrays["20m/qa_flags"][0, 0]) == ChangeFlag.INSUFFICIENT_RECORD


def test_product_names_what_it_depends_on() -> None:
    spec = change_product("toy", PARAMETERS, of={"mask": "m"})
    assert spec.name == "change-toy"
    assert not spec.has_time
    assert spec.parameters["of"] == {"mask": "m"}
    assert spec.parameters["resolution_m"] == 20
    flags = spec.array("20m/qa_flags").attrs
    assert len(flags["flag_meanings"].split()) == len(flags["flag_masks"])
    assert spec.array("20m/date_est").attrs["units"] == "days since 1970-01-01"


def test_break_near_a_new_baseline_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = np.where(np.arange(len(make_days())) < 122, "05.09", "05.10")
    result = run(make_reader(columns={"baseline": baseline}), monkeypatch)
    flagged = result.arrays["20m/qa_flags"] & ChangeFlag.LINEAGE_STEP
    assert np.argwhere(flagged).tolist() == [[200, 301]]


def test_snow_of_the_mask_reaches_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(make_reader(), monkeypatch).arrays["20m/qa_flags"]
    snowy = run(make_reader(snow=True), monkeypatch).arrays["20m/qa_flags"]
    assert not (plain & ChangeFlag.SNOW).any()
    assert (snowy & ChangeFlag.SNOW).any()


def test_tile_under_cloud_alone_says_no_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = make_reader(at=(9999, 9999))
    result = run(reader, monkeypatch)
    assert (result.status, result.n_valid) == (NO_SCENE, 0)


@pytest.mark.parametrize(
    ("column", "values"), [("baseline", ["02.09", "05.10"]), ("provider", ["here", "there"])]
)
def test_mixed_record_is_refused_unless_allowed(column: str, values: list[str]) -> None:
    mixed = np.array(values)[np.arange(len(make_days())) % 2]
    reader = make_reader(columns={column: mixed})
    with pytest.raises(ConfigError, match=f"zone 32 mixes {column}s"):
        plan_change(reader, [TILE])  # type: ignore[arg-type]
    _, rows = plan_change(reader, [TILE], allow_mixed=True)  # type: ignore[arg-type]
    assert len(rows[0].steps) > 100


def test_baselines_of_one_family_are_one_lineage() -> None:
    reader = make_reader(
        columns={"baseline": np.array(["05.00", "05.11"])[np.arange(len(make_days())) % 2]}
    )
    check_lineage(reader.entries("s2", 32), allow_mixed=False, zone=32)
    _, rows = plan_change(reader, [TILE])  # type: ignore[arg-type]
    assert [row.tiles for row in rows] == [(TILE,)]
