"""A small landscape of fields with its labels: the input of tests of fit and predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eoray.grid import TOP_M, Tile
from eoray.sentinel2 import FILL
from tests.chips.fake_reader import BANDS, FakeReader, quarters

TILE = Tile(32, 457, 48)
NAMES = ("crop", "forest", "water")


@dataclass(frozen=True)
class Landscape:
    """Fields of 160 m on a square of the tile's upper left corner."""

    reader: FakeReader
    classes: np.ndarray
    """Class id by pixel, dims (y, x)."""
    fields: list[tuple[int, int, int]]
    """(row, column, class id) of each field, in fields."""
    field_px: int

    def write_labels(self, path: Path, *, crs: str = "EPSG:4326", every: int = 1) -> Path:
        """Write the fields as polygons with a ``class`` name."""
        import geopandas as gpd
        import shapely

        x0, _, _, y1 = TILE.bounds
        edge = self.field_px * 10
        shapes = [
            shapely.box(x0 + c * edge, y1 - (r + 1) * edge, x0 + (c + 1) * edge, y1 - r * edge)
            for r, c, _ in self.fields
        ]
        names = [NAMES[class_id - 1] for _, _, class_id in self.fields]
        frame = gpd.GeoDataFrame({"class": names}, geometry=shapes, crs=f"EPSG:{TILE.epsg}")
        frame.iloc[::every].to_crs(crs).to_file(
            path, driver="GeoJSON" if path.suffix == ".geojson" else "GPKG"
        )
        return path


def make_landscape(
    *,
    size_px: int = 256,
    field_px: int = 16,
    seed: int = 5,
    years: tuple[int, ...] = (2021,),
    noise: float = 250.0,
) -> Landscape:
    """Draw fields of three classes that overlap in each single band."""
    rng = np.random.default_rng(seed)
    n = size_px // field_px
    classes_of_fields = rng.integers(1, 4, (n, n))
    classes = np.kron(classes_of_fields, np.ones((field_px, field_px), int))
    periods = quarters(*years)
    spectra = rng.uniform(400, 2500, (3, 4, len(BANDS)))
    clean = spectra[classes - 1].transpose(2, 3, 0, 1)
    values = np.tile(clean, (len(years), 1, 1, 1))
    values = np.clip(values + rng.normal(0, noise, values.shape), -500, 10_000).astype(np.int16)
    values[:, :, :4, :4] = FILL
    row, col = TILE.row * 1024, TILE.col * 1024
    if TOP_M - row * 10 != TILE.bounds[3]:
        raise ValueError("the tile's pixels do not begin where its bounds do")
    fields = [(r, c, int(classes_of_fields[r, c])) for r in range(n) for c in range(n)]
    reader = FakeReader({32: (row, col, values)}, periods)
    return Landscape(reader, classes, fields, field_px)
