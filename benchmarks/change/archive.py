"""Records of the synthetic archive as change detection reads them, without files between.

One granule is drawn date by date and taken to what the cube holds: reflectance without offset on
the lattice of the analysis, and the stored mask. Special items of the archive (a reprocessed
product, a granule in two datastrips) are as the cube resolves them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio

from eoray.change.parameters import DEFAULT_BANDS
from eoray.change.score import ChangeTruth
from eoray.cube.mask import MaskRecipe, mask_scl
from eoray.cube.nbar import c_factor
from eoray.cube.resample import replicate, source_window, to_lattice
from eoray.grid import PixelWindow
from eoray.sentinel2 import DN_SATURATED, FILL, native_resolution_m
from eoray.testing import CHANGE_KINDS, ArchiveOptions
from eoray.testing.archive import Studio
from eoray.testing.frame import Frame
from eoray.testing.passes import Job
from eoray.testing.render import Picture
from eoray.testing.truth import write_truth

DECLINE = "decline"

_EPOCH = 719_163
"""Ordinal of 1970-01-01."""


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """A record and its truth."""

    reflectance: np.ndarray
    """int16 (time, band, y, x), reflectance x 10000, bands as ``DEFAULT_BANDS``."""
    clear: np.ndarray
    """bool (time, y, x)."""
    day: np.ndarray
    """int64 (time), days since 1970-01-01."""
    orbit: np.ndarray
    """int64 (time)."""
    angles: np.ndarray
    """float64 (time, 4): zenith and azimuth of the sun, then of the view, degrees."""
    truth: ChangeTruth
    cover: np.ndarray
    """uint8 (y, x), land cover before the change."""


def make_archive_record(options: ArchiveOptions) -> ArchiveRecord:
    """Draw the first granule of an archive at 10 m; the same options give the same record."""
    studio = Studio(Path(), options)
    granule = studio.granules[0]
    taken: dict[str, list[Job]] = {}
    for job in studio.jobs:
        if job.granule == granule:
            taken.setdefault(job.taken.key, []).append(job)
    passes = sorted(taken.values(), key=lambda jobs: jobs[0].taken.start)
    n = granule.size_px
    window = PixelWindow(0, 0, n, n)
    reflectance = np.full((len(passes), len(DEFAULT_BANDS), n, n), FILL, np.int16)
    clear = np.zeros((len(passes), n, n), bool)
    for t, jobs in enumerate(passes):
        for job in jobs:
            values, usable = _as_cube(studio.picture(job), window, has_offset=job.has_offset)
            seen = values != FILL
            reflectance[t][seen] = values[seen]
            clear[t] |= usable
    day = [jobs[0].taken.day.toordinal() - _EPOCH for jobs in passes]
    orbit = [jobs[0].taken.relative_orbit for jobs in passes]
    angles = [_angles(jobs[0]) for jobs in passes]
    frame = Frame(granule.epsg, float(granule.x0), float(granule.y0), n, n, 10.0)
    truth, cover = _truth(studio, frame)
    return ArchiveRecord(
        reflectance, clear, np.array(day), np.array(orbit), np.array(angles), truth, cover
    )


def to_nadir(record: ArchiveRecord) -> ArchiveRecord:
    """The record as seen from straight above, by the c-factor of its own angles."""
    sun_zenith, sun_azimuth, view_zenith, view_azimuth = record.angles.T
    factor = c_factor(DEFAULT_BANDS, sun_zenith, view_zenith, view_azimuth - sun_azimuth)
    moved = np.rint(record.reflectance * factor.T[:, :, None, None]).astype(np.int16)
    values = np.where(record.reflectance == FILL, FILL, moved)
    return replace(record, reflectance=values.astype(np.int16))


def drop_low_sun(record: ArchiveRecord, limit_deg: float) -> ArchiveRecord:
    """The record without the dates under a lower sun."""
    keep = record.angles[:, 0] <= limit_deg
    return replace(
        record,
        reflectance=record.reflectance[keep],
        clear=record.clear[keep],
        day=record.day[keep],
        orbit=record.orbit[keep],
        angles=record.angles[keep],
    )


def _angles(job: Job) -> tuple[float, float, float, float]:
    sun_azimuth, sun_elevation = job.taken.sun
    view_azimuth, view_zenith = job.taken.view
    return 90 - sun_elevation, sun_azimuth, view_zenith, view_azimuth


def _as_cube(
    picture: Picture, window: PixelWindow, *, has_offset: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance, dims (band, y, x), and where it may be used, as the cube stage stores them."""
    n = window.height
    out = np.empty((len(DEFAULT_BANDS), n, n), np.int16)
    valid = np.ones((n, n), bool)
    for b, band in enumerate(DEFAULT_BANDS):
        stored = picture.bands[band].astype(np.int32)
        values = stored - (1000 if has_offset else 0)
        good = (stored > 0) & (stored < DN_SATURATED)
        values = np.where(good, values, FILL).astype(np.int16)
        native = native_resolution_m(band)
        source = source_window(window, 10, native)
        if native == 20:  # the neighbours that bilinear weights reach beyond the granule
            values = np.pad(values, 1, constant_values=FILL)
        out[b] = to_lattice(values, source, native, window, 10)
        valid &= out[b] != FILL
    mask = mask_scl(picture.scl, MaskRecipe())
    coarse = PixelWindow(0, 0, n // 2, n // 2)
    return out, replicate(mask == 0, coarse, window, 10) & valid


def _truth(studio: Studio, frame: Frame) -> tuple[ChangeTruth, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        write_truth(Path(folder), frame, studio.ground("north"))
        with rasterio.open(f"{folder}/changes_{frame.epsg}.tif") as file:
            kind, start, _, fraction, patch = file.read()
        with rasterio.open(f"{folder}/land_cover_{frame.epsg}.tif") as file:
            cover = file.read(1)
    names = np.array(["", *CHANGE_KINDS])[kind]
    return ChangeTruth(start, names == DECLINE, patch, fraction / 100.0, names), cover
