"""Products of a toy store: a map, a change product, a composite and scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr

from eoray.cube import store
from eoray.cube.layout import DONE, ArraySpec, GroupSpec, ProductSpec, TileResult, TimeEntry
from eoray.cube.ledger import receipt_of, write_receipts
from eoray.grid import Tile

NORTH = (Tile(32, 388, 43), Tile(32, 388, 44))
BORDER = Tile(33, 388, 27)
SOUTH = Tile(32, 1000, 48)
TILES = (*NORTH, BORDER, SOUTH)

CLASS_ATTRS = {
    "flag_values": [0, 1, 2, 3],
    "flag_meanings": "not_mapped water evergreen_forest crop",
    "flag_colors": "#000000 #3069b4 #135435 #e8c45c",
}

MAP = ProductSpec(
    "map-toy",
    (
        GroupSpec(
            10,
            (
                ArraySpec("class", "uint8", fill=0, attrs=CLASS_ATTRS),
                ArraySpec("probability", "uint8", fill=255),
                ArraySpec("entropy", "uint8", fill=255),
            ),
        ),
    ),
    {"model": "abc"},
)

DATES = (("segment", 2),)
CHANGE = ProductSpec(
    "change-toy",
    (
        GroupSpec(
            20,
            (
                ArraySpec("n_breaks", "uint8"),
                ArraySpec("date_lo", "int32", DATES),
                ArraySpec("date_hi", "int32", DATES),
                ArraySpec("date_est", "int32", DATES, attrs={"units": "days since 1970-01-01"}),
                ArraySpec("n_obs", "uint16"),
                ArraySpec("monitored_from", "int32"),
                ArraySpec("monitored_to", "int32"),
                ArraySpec("qa_flags", "uint16"),
                ArraySpec("magnitude", "int16", (("segment", 2), ("band", 1)), -32768),
            ),
            {"band": ("B04",)},
        ),
    ),
    has_time=False,
)

COMPOSITE = ProductSpec(
    "s2-P1Y-median",
    (
        GroupSpec(
            10,
            (ArraySpec("reflectance", "int16", (("band", 3),), -32768),),
            {"band": ("B02", "B03", "B04")},
        ),
        GroupSpec(
            20,
            (ArraySpec("reflectance", "int16", (("band", 1),), -32768),),
            {"band": ("B11",)},
        ),
    ),
)


def map_arrays(tile: Tile) -> dict[str, np.ndarray]:
    """Fields of 7 px in three classes, with an unmapped corner."""
    rng = np.random.default_rng([tile.utm_zone, tile.row, tile.col])
    fields = rng.integers(1, 4, (150, 150), dtype="u1").repeat(7, 0).repeat(7, 1)[:1024, :1024]
    fields[:100, :100] = 0
    probability = np.where(fields, 120 + 20 * fields, 255).astype("u1")
    return {
        "10m/class": fields,
        "10m/probability": probability,
        "10m/entropy": np.where(fields, 30 * fields, 255).astype("u1"),
    }


def change_arrays(tile: Tile) -> dict[str, np.ndarray]:
    """One patch with one break, one with two, the rest none."""
    dates = {name: np.zeros((2, 512, 512), "i4") for name in ("date_lo", "date_hi", "date_est")}
    breaks = np.zeros((512, 512), "u1")
    for rows, days in ((slice(10, 20), [18000]), (slice(40, 50), [17900, 18500])):
        breaks[rows, 30:60] = len(days)
        for segment, day in enumerate(days):
            for name, shift in (("date_lo", -8), ("date_hi", 8), ("date_est", 0)):
                dates[name][segment, rows, 30:60] = day + shift
    return {
        "20m/n_breaks": breaks,
        **{f"20m/{name}": values for name, values in dates.items()},
        "20m/n_obs": np.full((512, 512), 77, "u2"),
        "20m/monitored_from": np.full((512, 512), 17600, "i4"),
        "20m/monitored_to": np.full((512, 512), 19000, "i4"),
        "20m/qa_flags": np.full((512, 512), 2048, "u2"),
        "20m/magnitude": np.full((2, 1, 512, 512), 321, "i2"),
    }


def composite_arrays(tile: Tile) -> dict[str, np.ndarray]:
    """Values that tell the pixel's own row and column."""
    row, col = np.indices((1024, 1024))
    fine = np.stack([row * 7 + col, row + 1, row - col * 5 - 900]).astype("i2")
    return {
        "10m/reflectance": fine,
        "20m/reflectance": (fine[2:, ::2, ::2] + 1).astype("i2"),
    }


SCENES = ProductSpec(
    "s2",
    (GroupSpec(20, (ArraySpec("mask", "uint8"), ArraySpec("quality", "uint8", fill=1))),),
)

SCENE_DAYS = ("2021-03-01", "2021-06-01", "2021-09-01", "2022-06-01")


def scene_arrays(number: int) -> dict[str, np.ndarray]:
    """The n-th scene: clouds over the upper half of every second one; a seventh never seen."""
    mask, quality = np.zeros((512, 512), "u1"), np.zeros((512, 512), "u1")
    if number % 2:
        mask[:256] = 1
    quality[:, :70] = 1
    return {"20m/mask": mask, "20m/quality": quality}


def write_toy_store(url: str) -> None:
    """Make a repository with the toy products."""
    repository = store.open_repository(url, create=True)
    session = repository.writable_session(store.BRANCH)
    root = zarr.group(session.store)
    period = TimeEntry(
        "2021-01-01/2022-01-01", "2021-01-01T00:00:00.000Z", {"period_end": "2022-01-01"}
    )
    _write(root, MAP, [(period, map_arrays)], TILES)
    _write(root, CHANGE, [(period, change_arrays)], (BORDER, SOUTH))
    _write(root, COMPOSITE, [(period, composite_arrays)], NORTH[:1])
    scenes = [
        (
            TimeEntry(f"S2A {day}", f"{day}T10:00:00.000Z", {"satellite": "s2a"}),
            partial(_scene_of, number),
        )
        for number, day in enumerate(SCENE_DAYS)
    ]
    _write(root, SCENES, scenes, NORTH)
    session.commit("toy products")


def _scene_of(number: int, tile: Tile) -> dict[str, np.ndarray]:
    return scene_arrays(number)


Maker = Callable[[Tile], dict[str, np.ndarray]]


def _write(
    root: zarr.Group,
    spec: ProductSpec,
    makers: Sequence[tuple[TimeEntry, Maker]],
    tiles: tuple[Tile, ...],
) -> None:
    for tile in tiles:
        store.create_product(root, spec, tile.zone)
        store.append_entries(root, spec, tile.zone, [entry for entry, _ in makers])
    receipts = []
    for position, (entry, make) in enumerate(makers):
        for tile in tiles:
            arrays = make(tile)
            _put(root, spec, tile, position, arrays)
            fills = {path: spec.array(path).fill for path in arrays}
            result = TileResult(tile, entry.key, arrays, DONE, 1000, 0, "toy")
            receipts.append(receipt_of(result, fills))
    write_receipts(root, spec.name, receipts)


def _put(
    root: zarr.Group, spec: ProductSpec, tile: Tile, position: int, arrays: Mapping[str, np.ndarray]
) -> None:
    for path, values in arrays.items():
        resolution, name = path.split("/")
        window = tile.window(int(resolution[:-1]))
        rows = slice(window.row_off, window.row_off + window.height)
        cols = slice(window.col_off, window.col_off + window.width)
        target: Any = root[f"{spec.name}/z{tile.zone:02d}/{resolution}/{name}"]
        target[(*([position] if spec.has_time else []), Ellipsis, rows, cols)] = values
