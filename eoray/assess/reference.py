"""Reference answers for sample points from raster files, such as a synthetic archive's truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eoray.assess.sample import Sample
from eoray.errors import DataError, ReadError


@dataclass(frozen=True, slots=True)
class RasterReference:
    """Answers a sample by the value of the pixel that holds each point.

    Rasters may lie in any CRS; each point is transformed into the raster's own one, so nothing is
    resampled. The first raster with a value answers.
    """

    paths: tuple[Path, ...]
    band: int = 1
    values: Mapping[int, int] = field(default_factory=dict)
    """Raster value to class id; values that are not listed stay as they are."""

    def __post_init__(self) -> None:
        """Refuse a reference without files."""
        if not self.paths:
            raise DataError("no reference raster was given; name at least one GeoTIFF")

    @classmethod
    def of_folder(
        cls, folder: Path, pattern: str = "*.tif", *, values: Mapping[int, int] | None = None
    ) -> RasterReference:
        """Take all rasters of a folder whose names fit a pattern.

        Raises:
            DataError: The folder holds none.
        """
        paths = tuple(sorted(folder.glob(pattern)))
        if not paths:
            raise DataError(
                f"{str(folder)!r} holds no file like {pattern!r}; point the reference at the "
                "folder of the truth rasters"
            )
        return cls(paths, values=dict(values or {}))

    def __call__(self, sample: Sample) -> np.ndarray:
        """Return the class id of each point, int64, dims (n); 0 where no raster answers."""
        answers = np.zeros(len(sample), "i8")
        open_points = np.arange(len(sample))
        for path in self.paths:
            lon, lat = sample.lon[open_points], sample.lat[open_points]
            found, values = _look_up(path, self.band, lon, lat)
            answers[open_points[found]] = values[found]
            open_points = open_points[~found]
            if not open_points.size:
                break
        translated = answers.copy()
        for value, class_id in self.values.items():
            translated[answers == value] = class_id
        translated[open_points] = 0
        return translated


def _look_up(
    path: Path, band: int, lon: np.ndarray, lat: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a raster has data at each point, and its value, dims (n)."""
    import rasterio
    from pyproj import Transformer
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as source:
            to_raster = Transformer.from_crs(4326, source.crs.to_wkt(), always_xy=True)
            row, col = _pixel_of(source.transform, *to_raster.transform(lon, lat))
            inside = (row >= 0) & (row < source.height) & (col >= 0) & (col < source.width)
            value = np.zeros(len(lon), "i8")
            value[inside] = _values_at(source, band, row[inside], col[inside])
    except RasterioError as error:
        raise ReadError(
            f"reference raster {str(path)!r} cannot be read ({error}); mend or remove the file",
            asset=str(path),
        ) from error
    nodata = source.nodata
    return inside if nodata is None else inside & (value != int(nodata)), value


def _pixel_of(transform: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixel that holds each point, int64."""
    inverse = ~transform
    col = inverse.a * x + inverse.b * y + inverse.c
    row = inverse.d * x + inverse.e * y + inverse.f
    return np.floor(row).astype("i8"), np.floor(col).astype("i8")


def _values_at(source: Any, band: int, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Read single pixels, each block of the file once."""
    from rasterio.windows import Window

    height, width = source.block_shapes[band - 1]
    values = np.zeros(len(row), "i8")
    block = (row // height) * (source.width // width + 1) + col // width
    for number in np.unique(block):
        at = np.flatnonzero(block == number)
        top, left = row[at].min(), col[at].min()
        window = Window(left, top, col[at].max() - left + 1, row[at].max() - top + 1)
        values[at] = source.read(band, window=window)[row[at] - top, col[at] - left]
    return values
