"""One asset over one window: copied to the pixel, or refused with a reason."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eoray.errors import GridError, ReadError
from eoray.grid import PixelWindow
from eoray.reading.window import (
    AssetWindow,
    check_congruent,
    file_offset,
    is_congruent,
    place_asset,
    read_asset,
)


@pytest.fixture
def scene(granules: Any, corner: tuple[int, int]) -> Any:
    """A file that begins inside the block, on odd 20 m pixels, 300 x 200 of 20 m."""
    return granules.write("32TQS_a", row=corner[0] + 101, col=corner[1] + 33, height=300, width=200)


def expected_window(
    whole: np.ndarray, offset: tuple[int, int], height: int, width: int
) -> np.ndarray:
    """Paste a file into an empty picture, pixel by pixel position."""
    canvas = np.zeros((4000, 4000), whole.dtype)
    row, col = offset[0] + 1000, offset[1] + 1000
    canvas[row : row + whole.shape[0], col : col + whole.shape[1]] = whole
    return canvas[1000 : 1000 + height, 1000 : 1000 + width]


def place(what: AssetWindow) -> np.ndarray:
    """What is handed over, each pixel at its place."""
    parts: list[tuple[np.ndarray, tuple[int, int]]] = []

    def put(values: np.ndarray, of: slice, at: tuple[int, int]) -> None:
        assert values.flags.c_contiguous
        parts.append((values[:, of].copy(), at))

    place_asset(what, put)
    seen = np.zeros((what.window.height, what.window.width), int)
    out = np.empty(seen.shape, parts[0][0].dtype)
    for values, (row, col) in parts:
        at = np.s_[row : row + values.shape[0], col : col + values.shape[1]]
        out[at], seen[at] = values, seen[at] + 1
    assert (seen == 1).all()
    return out


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    band=st.sampled_from(["B03", "B8A", "SCL"]),
    row=st.integers(-50, 400),
    col=st.integers(-50, 260),
    height=st.integers(1, 350),
    width=st.integers(1, 350),
)
def test_any_window_equals_the_file_pasted_at_its_place(
    scene: Any, granules: Any, corner: tuple[int, int], band: str, **box: int
) -> None:
    resolution_m = 10 if band == "B03" else 20
    factor = 20 // resolution_m
    window = PixelWindow(
        corner[0] * factor + box["row"],
        corner[1] * factor + box["col"],
        box["height"],
        box["width"],
    )
    what = AssetWindow(
        scene, scene.asset(band), zone=32, window=window, resolution_m=resolution_m, retries=0
    )
    values = read_asset(what)
    placed = place(what)
    assert placed.dtype == values.dtype
    np.testing.assert_array_equal(placed, values)
    offset = 101 * factor - box["row"], 33 * factor - box["col"]
    assert file_offset(scene.asset(band), window, resolution_m) == offset
    whole = granules.written["32TQS_a"][band]
    np.testing.assert_array_equal(
        values, expected_window(whole, offset, box["height"], box["width"])
    )


def test_southern_file_is_copied_with_the_shift(granules: Any) -> None:
    from eoray.grid import Tile

    window = Tile(32, 1000, 40).window(20)
    scene = granules.write(
        "32MQS_s", row=window.row_off - 5, col=window.col_off + 7, height=100, width=90, south=True
    )
    assert scene.epsg == 32732
    assert scene.asset("SCL").transform[5] < 0
    values = read_asset(
        AssetWindow(scene, scene.asset("B8A"), zone=32, window=window, resolution_m=20)
    )
    np.testing.assert_array_equal(values[:95, 7:97], granules.written["32MQS_s"]["B8A"][5:])
    assert (values[95:] == 0).all()


def first_window(corner: tuple[int, int]) -> PixelWindow:
    return PixelWindow(corner[0] + 101, corner[1] + 33, 300, 200)


def read_20_m(scene: Any, corner: tuple[int, int], band: str = "B8A", **kwargs: Any) -> np.ndarray:
    return read_asset(
        AssetWindow(
            scene,
            scene.asset(band),
            zone=32,
            window=first_window(corner),
            resolution_m=20,
            **{"retries": 0, **kwargs},
        )
    )


def with_asset(scene: Any, band: str, **changes: Any) -> Any:
    assets = tuple(replace(a, **changes) if a.band == band else a for a in scene.assets)
    return replace(scene, assets=assets)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shape": (300, 201)}, r"the file has shape \(300, 200\), its item says \(300, 201\)"),
        ({"transform": (20.0, 0.0, 0.0, 0.0, -20.0, 0.0)}, "its item says"),
    ],
)
def test_file_that_is_not_what_its_item_says_is_refused_at_once(
    scene: Any, corner: tuple[int, int], changes: dict[str, Any], reason: str
) -> None:
    waits: list[float] = []
    lying = with_asset(scene, "B8A", **changes)
    with pytest.raises(ReadError, match=reason) as caught:
        read_20_m(lying, corner, retries=3, wait=waits.append)
    assert waits == []
    assert (caught.value.item_id, caught.value.asset) == ("32TQS_a", "B8A")
    assert caught.value.window == (corner[1] + 33, corner[0] + 101, 200, 300)


def test_file_that_calls_a_number_no_data_is_refused(scene: Any, corner: tuple[int, int]) -> None:
    with rasterio.open(scene.asset("B8A").href, "r+") as file:
        file.nodata = 1200
    with pytest.raises(ReadError, match=r"the file's nodata is 1200, not 0") as caught:
        read_20_m(scene, corner)
    assert caught.value.reason == "mismatch"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shape": (300, 201)}, r"the file has shape \(300, 200\), its item says \(300, 201\)"),
        ({"shift": 40.0}, "the file's transform is .* its item says"),
        ({"zone": 31}, "the file lies in EPSG:32633, its item says UTM zone 31"),
    ],
)
def test_a_header_that_lies_is_refused_where_its_file_is_warped(
    granules: Any, corner: tuple[int, int], changes: dict[str, Any], reason: str
) -> None:
    scene = granules.write("33TUM_a", row=corner[0], col=9000, height=300, width=200, zone=33)
    if "shift" in changes:
        a, b, c, d, e, f = scene.asset("B8A").transform
        changes = {"transform": (a, b, c + changes["shift"], d, e, f)}
    lying = replace(scene, **changes) if "zone" in changes else with_asset(scene, "B8A", **changes)
    assert read_20_m(scene, corner).shape == (300, 200)
    with pytest.raises(ReadError, match=reason):
        read_20_m(lying, corner)


def test_file_of_another_zone_than_its_item_is_refused(
    granules: Any, corner: tuple[int, int]
) -> None:
    other = granules.write(
        "33TUM_a", row=corner[0] + 101, col=corner[1] + 33, height=300, width=200, zone=33
    )
    lying = replace(other, zone=32)
    with pytest.raises(ReadError, match="the file lies in EPSG:32633, its item says UTM zone 32"):
        read_20_m(lying, corner)


def test_a_truncated_file_is_an_error_and_never_zeros(scene: Any, corner: tuple[int, int]) -> None:
    path = Path(scene.asset("B8A").href)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ReadError, match=r"B8A of item 32TQS_a cannot be read .*run again, or rec"):
        read_20_m(scene, corner)


def test_pixels_are_handed_over_again_after_a_failure(
    scene: Any, corner: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile that breaks in the middle: the attempt after it begins from the start."""
    from eoray.reading import cog

    plain, calls = cog._decode, []

    def breaks(*args: Any) -> np.ndarray:
        calls.append(args)
        if len(calls) == 2:
            raise cog.BrokenFileError("block (0, 1) does not decode")
        return plain(*args)

    monkeypatch.setattr(cog, "_decode", breaks)
    window = PixelWindow(2 * corner[0] + 202, 2 * corner[1] + 66, 600, 400)
    what = AssetWindow(
        scene,
        scene.asset("B03"),
        zone=32,
        window=window,
        resolution_m=10,
        retries=1,
        wait=lambda seconds: None,
    )
    seen = np.zeros((600, 400), int)

    def put(values: np.ndarray, of: slice, at: tuple[int, int]) -> None:
        width = of.stop - of.start
        seen[at[0] : at[0] + len(values), at[1] : at[1] + width] += 1

    place_asset(what, put)
    assert len(calls) > 3
    assert (seen >= 1).all()
    assert seen.max() == 2


def test_a_missing_file_is_tried_again_and_then_named(scene: Any, corner: tuple[int, int]) -> None:
    waits: list[float] = []
    Path(scene.asset("B8A").href).unlink()
    with pytest.raises(ReadError, match=r"32TQS_a_B8A\.tif"):
        read_20_m(scene, corner, retries=2, wait=waits.append)
    assert len(waits) == 2
    assert all(0 <= found <= most for found, most in zip(waits, (0.4, 1.6), strict=True))


def test_a_file_that_comes_back_is_read(scene: Any, corner: tuple[int, int]) -> None:
    path = Path(scene.asset("B8A").href)
    away = path.with_suffix(".away")
    path.rename(away)

    def come_back(seconds: float) -> None:
        away.rename(path)

    values = read_20_m(scene, corner, retries=1, wait=come_back)
    assert values.shape == (300, 200)
    assert values.min() > 0


@pytest.mark.parametrize(
    ("shift_m", "part"), [((10.0, 0.0), "0.500, 0.000"), ((0.0, 5.0), "0.000, 0.750")]
)
def test_grid_that_does_not_fit_is_refused_with_the_part_of_a_pixel(
    granules: Any, corner: tuple[int, int], shift_m: tuple[float, float], part: str
) -> None:
    scene = granules.write(
        "32TQS_m", row=corner[0], col=corner[1], height=20, width=20, shift_m=shift_m
    )
    asset = scene.asset("SCL")
    assert not is_congruent(asset, 20)
    with pytest.raises(GridError, match=rf"32TQS_m lies {part} of a pixel .*cube\.warp: true"):
        check_congruent(scene, asset, 20)


def test_pixels_of_another_size_are_refused_by_size(granules: Any, corner: tuple[int, int]) -> None:
    scene = granules.write("32TQS_m", row=corner[0], col=corner[1], height=20, width=20)
    with pytest.raises(GridError, match="has pixels of 20 m, not the 10 m"):
        check_congruent(scene, scene.asset("B8A"), 10)
    check_congruent(scene, scene.asset("B8A"), 20)
