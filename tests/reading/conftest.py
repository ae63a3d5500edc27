"""Granules whose pixels tell their own position."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from eoray.catalog.scene import BandAsset, Scene
from eoray.grid import TOP_M, Block, Tile
from eoray.testing.scenes import make_scene

BANDS = ("B03", "B04", "B8A")

CORNER = Tile(32, 400, 70)
"""Upper left tile of the block that tests read; its zone ends some tiles further east."""

BLOCK = Block(32, 400, 70, 2, 2)


def position_dn(band: str, number: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """DN of a zone pixel: row, column, band and granule all show; never 0."""
    salt = 1000 * BANDS.index(band) + 17 * number
    values = 1 + (131 * rows[:, None] + 7 * cols[None, :] + salt) % 20_000
    return np.asarray(values, dtype=np.uint16)


@dataclass
class Granules:
    """Writes granules into a folder and describes them as scenes."""

    folder: Path
    written: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Item id -> band -> pixels of the file."""

    def write(
        self,
        name: str,
        *,
        row: int,
        col: int,
        height: int,
        width: int,
        zone: int = 32,
        south: bool = False,
        number: int = 0,
        patch: Callable[[dict[str, np.ndarray]], None] | None = None,
        shift_m: tuple[float, float] = (0.0, 0.0),
        **fields: Any,
    ) -> Scene:
        """Write bands and SCL.

        Args:
            name: Item id.
            row: 20 m zone pixel of the upper edge.
            col: 20 m zone pixel of the left edge.
            height: 20 m pixels.
            width: 20 m pixels.
            zone: UTM zone.
            south: Write the files in the southern CRS.
            number: Salt of the values, so that granules differ.
            patch: Changes the arrays before they are written.
            shift_m: Moves the files off the lattice (x, y).
            fields: Further fields of the scene.
        """
        arrays = {}
        for band in BANDS:
            factor = 1 if band == "B8A" else 2
            rows = np.arange(height * factor) + row * factor
            cols = np.arange(width * factor) + col * factor
            arrays[band] = position_dn(band, number, rows, cols)
        arrays["SCL"] = np.full((height, width), 4, np.uint8)
        if patch is not None:
            patch(arrays)
        self.written[name] = arrays
        assets = []
        for band, values in arrays.items():
            pixel = 10 if band in ("B03", "B04") else 20
            x, y = col * 20 + shift_m[0], TOP_M - row * 20 + shift_m[1]
            path = self.folder / f"{name}_{band}.tif"
            shifted = y + (10_000_000 if south else 0)
            write_tif(
                path,
                values,
                Affine(pixel, 0, x, 0, -pixel, shifted),
                (32700 if south else 32600) + zone,
            )
            transform = (float(pixel), 0.0, float(x), 0.0, -float(pixel), float(y))
            assets.append(BandAsset(band, str(path), transform, values.shape, 0))
        epsg = (32700 if south else 32600) + zone
        scl_first = sorted(assets, key=lambda asset: asset.band != "SCL")
        scene = make_scene(name, zone, tuple(scl_first), epsg=epsg)
        return replace(scene, assets=tuple(assets), **fields)


def write_tif(path: Path, values: np.ndarray, transform: Affine, epsg: int) -> None:
    profile: Mapping[str, Any] = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": values.dtype,
        "crs": f"EPSG:{epsg}",
        "transform": transform,
        "nodata": 0,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)


@pytest.fixture
def granules(tmp_path: Path) -> Granules:
    return Granules(tmp_path)


@pytest.fixture(scope="module")
def granules_at(tmp_path_factory: pytest.TempPathFactory) -> Granules:
    """Granules that a module's tests share; they change none."""
    return Granules(tmp_path_factory.mktemp("granules"))


@pytest.fixture(scope="session")
def block() -> Block:
    return BLOCK


@pytest.fixture(scope="session")
def corner() -> tuple[int, int]:
    """(row, col) of the block's upper left 20 m pixel in the zone."""
    window = CORNER.window(20)
    return window.row_off, window.col_off
