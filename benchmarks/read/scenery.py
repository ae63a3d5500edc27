"""An archive of large COGs for benchmarks of reading: real sizes, real compression, real tags.

GDAL writes the files, as it writes those of Sentinel-2: deflate at level 6 with predictor 2, tiles
of 1024 px and overviews. The pixels are a texture with a power-law spectrum, noise, clouds and, on
every third date, an empty corner of the swath; bands compress 1.4 to 2 times, as reflectance does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np

from eoray.sentinel2 import COMMON_NAMES, Scl, native_resolution_m
from eoray.testing.frame import Granule
from eoray.testing.items import asset_file, item_path, make_item, write_catalog, write_json
from eoray.testing.passes import Job, Pass

BANDS_10M = ("B02", "B03", "B04", "B08")
BANDS_20M = ("B05", "B11")
X0, Y0, EPSG, MGRS = 300_000, 4_900_020, 32631, "31TCJ"
OFFSET = -1000
"""To be added to a stored number for reflectance * 10 000."""

_MEAN = {"B02": 450, "B03": 700, "B04": 650, "B08": 2600, "B05": 1100, "B11": 2000}
_SPREAD = {"B02": 45, "B03": 55, "B04": 80, "B08": 125, "B05": 75, "B11": 150}
_GREENING = {"B02": -40, "B03": -20, "B04": -150, "B08": 500, "B05": -60, "B11": -200}
_FIRST = datetime(2023, 4, 3, 10, 50, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scenery:
    """One granule on several dates."""

    folder: Path
    size_px: int = 4096
    """Edge in pixels of 10 m."""
    block_px: int = 1024
    """Internal tile of the files."""
    n_drawn: int = 8
    """Dates that are drawn; later ones show the same pixels in files of their own."""
    n_dates: int = 25
    """The last of them warms readers up and is not measured."""

    @property
    def jobs(self) -> list[Job]:
        """The items, in order of time."""
        granule = Granule(MGRS, EPSG, X0, Y0, self.size_px, "north")
        return [Job(granule, _pass(date), "05.09") for date in range(self.n_dates)]

    def path(self, date: int, band: str) -> Path:
        """The file of a band."""
        folder = item_path(self.folder, self.jobs[date]).parent
        return folder / asset_file(COMMON_NAMES.get(band, band.lower()))

    def days(self, n_dates: int, first: int = 0) -> str:
        """First and last day of some dates, as in a run file."""
        jobs = self.jobs
        return f"{jobs[first].taken.day}/{jobs[first + n_dates - 1].taken.day}"

    def make(self) -> None:
        """Write what is not there yet."""
        if (self.folder / "catalog.json").exists():
            return
        with ProcessPoolExecutor() as pool:
            list(pool.map(_draw, [self] * self.n_drawn, range(self.n_drawn)))
        for date in range(self.n_drawn, self.n_dates):
            self._repeat(date % self.n_drawn, date)
        write_catalog(self.folder, self.jobs, "eoray benchmark of reading")

    def _repeat(self, source: int, date: int) -> None:
        for band in (*BANDS_10M, *BANDS_20M, "SCL"):
            target = self.path(date, band)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(self.path(source, band), target)
        self.describe(date, np.full((2, 2), Scl.VEGETATION, np.uint8))

    def describe(self, date: int, scl: np.ndarray) -> None:
        """Write the item of a date whose files stand; its cloud share is that of ``scl``."""
        bands = (*BANDS_10M, *BANDS_20M, "SCL")
        sizes = {COMMON_NAMES.get(b, b.lower()): self.path(date, b).stat().st_size for b in bands}
        job = self.jobs[date]
        write_json(item_path(self.folder, job), make_item(job, scl, sizes, self.block_px))


def _pass(date: int) -> Pass:
    return Pass(
        satellite="AB"[date % 2],
        start=_FIRST + timedelta(days=5 * date),
        relative_orbit=22,
        absolute_orbit=39_000 + 71 * date,
        site="north",
        cloud_share=0.0,
        shift_px=(0.0, 0.0),
        lat=44.1,
        lon=0.8,
    )


@lru_cache(maxsize=2)
def _field(edge: int, slope: float, seed: int) -> np.ndarray:
    """Texture with a power-law spectrum, mean 0 and deviation 1, dims (y, x), float32."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((edge, edge), dtype=np.float32))
    y = np.fft.fftfreq(edge)[:, None].astype(np.float32)
    x = np.fft.rfftfreq(edge)[None, :].astype(np.float32)
    distance = np.hypot(y, x)
    distance[0, 0] = 1
    spectrum *= distance ** np.float32(-slope / 2)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(edge, edge)).astype(np.float32)
    return np.asarray(field / field.std(), np.float32)


def _draw(scenery: Scenery, date: int) -> None:
    edge = scenery.size_px
    ground, green = _field(edge, 2.2, 1), _field(edge, 2.3, 2)
    cloud = _field.__wrapped__(edge, 3.2, 100 + date) > 1.1
    empty = np.zeros((edge, edge), bool)
    if date % 3 == 1:
        at = np.arange(edge) // 2 * 2  # whole pixels of 20 m: SCL says what is there
        empty = at[None, :] + 0.2 * at[:, None] < 0.12 * edge
    season = 1 + 0.4 * np.sin(2 * np.pi * date / scenery.n_drawn)
    for number, band in enumerate((*BANDS_10M, *BANDS_20M)):
        rng = np.random.default_rng(1000 * date + number)
        noise = np.float32(0.01 * _MEAN[band] + 5)
        values = _MEAN[band] + _SPREAD[band] * ground + _GREENING[band] * season * green
        values += noise * rng.standard_normal((edge, edge), dtype=np.float32)
        values[cloud] = values[cloud] * 0.3 + 6500
        step = native_resolution_m(band) // 10
        values = values.reshape(edge // step, step, edge // step, step).mean(axis=(1, 3))
        stored = np.clip(np.rint(values), 1, 16_000).astype(np.uint16)
        stored[empty[::step, ::step]] = 0
        _write(scenery, date, band, stored)
    scl = np.where(green > 0, Scl.VEGETATION, Scl.BARE).astype(np.uint8)
    scl[cloud], scl[empty] = Scl.CLOUD_HIGH, Scl.NO_DATA
    scl = np.ascontiguousarray(scl[::2, ::2])
    _write(scenery, date, "SCL", scl)
    scenery.describe(date, scl)


def _write(scenery: Scenery, date: int, band: str, pixels: np.ndarray) -> None:
    import rasterio
    from rasterio.shutil import copy

    path = scenery.path(date, band)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixel = scenery.size_px * 10 / len(pixels)
    described = {
        "driver": "GTiff",
        "height": len(pixels),
        "width": len(pixels),
        "count": 1,
        "dtype": pixels.dtype,
        "crs": f"EPSG:{EPSG}",
        "transform": rasterio.Affine(pixel, 0, X0, 0, -pixel, Y0),
        "nodata": 0,
    }
    is_classes = pixels.dtype == np.uint8
    with rasterio.MemoryFile() as memory:
        with memory.open(**described) as file:
            file.write(pixels, 1)
        with memory.open() as file:
            copy(
                file,
                path,
                driver="COG",
                compress="DEFLATE",
                predictor="NO" if is_classes else "2",
                blocksize=str(scenery.block_px),
                overview_resampling="NEAREST" if is_classes else "AVERAGE",
                overview_compress="DEFLATE",
            )


def read_source(scenery: Scenery, date: int, band: str, window: Sequence[int]) -> np.ndarray:
    """Stored numbers by rasterio; ``window`` is (row, column, edge) in the band's own pixels."""
    import rasterio
    from rasterio.windows import Window

    row, col, edge = window
    with rasterio.open(scenery.path(date, band)) as file:
        found: np.ndarray = file.read(1, window=Window(col, row, edge, edge))
    return found
