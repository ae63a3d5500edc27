"""Turn ground, season, sky and sensor into the stored numbers of one item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eoray.sentinel2 import BANDS, DN_SATURATED, WAVELENGTHS_UM, Scl
from eoray.testing.clouds import Sky, draw_sky, sky_frame
from eoray.testing.frame import PAD, SUB, Frame, Granule, interpolate, locate, look_up, pixel_frame
from eoray.testing.land import Material
from eoray.testing.noise import generator, smooth_field
from eoray.testing.options import ArchiveOptions
from eoray.testing.passes import Job, Pass, beyond_swath_m, is_inside_cut
from eoray.testing.pixels import double, double_smooth, halve, mixing_matrix, resample
from eoray.testing.signals import CANOPY, TEXTURE, Signals
from eoray.testing.weather import flood_level_m, snow_depth

_POOL_PX = 1024
"""Period of the pool of sensor noise, from which each date and band takes another cut."""

_SNOW = np.array([800, 810, 800, 740, 790, 780, 770, 720, 110, 90], np.float32) / 1000
_FLOOD = np.array([62, 88, 82, 46, 74, 56, 50, 42, 16, 11], np.float32) / 1000
_CLOUD = np.array([760, 750, 745, 760, 745, 750, 755, 765, 520, 420], np.float32) / 1000
_BLUE = np.array([(WAVELENGTHS_UM[band] / 0.55) ** -1.3 for band in BANDS], np.float32)
"""Haze scatters short waves most: optical thickness relative to that at 0.55 um."""

_DIRECTIONAL = np.array([0.6, 0.7, 0.8, 1.0, 0.85, 0.95, 1.0, 1.0, 1.1, 1.2], np.float32)
"""Directional effect of each band relative to the near infrared (after Roy et al. 2017)."""

_STRUCTURE = np.ones(len(Material), np.float32)
_STRUCTURE[: Material.SPRUCE] = 0.2
_STRUCTURE[Material.SPRUCE : Material.CROP] = 1.25
"""Directional effect of each material: rough canopies show most, water least."""

_OVERCORRECTION = np.array([12, 14, 12, 30, 16, 22, 26, 30, 46, 40], np.float32) / 10_000
_GAIN = np.array([8, -6, 10, -9, 7, -8, 9, -10, 6, -7], np.float32) / 1000
_SKY = ("cloud", "cirrus", "haze", "shadow")
_BAND_REACH_M = (-20.0, -10.0, 10.0, 0.0, 20.0, 20.0, 0.0, 20.0, -20.0, 0.0)


@dataclass(frozen=True, slots=True)
class Picture:
    """Stored numbers of an item."""

    bands: dict[str, np.ndarray]
    """Band id: dims (y, x), uint16, 0 where there is no data."""
    scl: np.ndarray
    """Dims (y, x) at 20 m, uint8."""


@dataclass(frozen=True, slots=True)
class Obstruction:
    """What truly stands between ground and sensor, dims (y, x) at 20 m, float32, 0 to 1."""

    cloud: np.ndarray
    """Share of the blue light that comes from cloud instead of the ground."""
    cirrus: np.ndarray
    """The same for thin high cloud."""
    haze: np.ndarray
    """The same for haze that no class of SCL names."""
    shadow: np.ndarray
    """Share of direct light that is missing."""


@dataclass(frozen=True, slots=True)
class _Air:
    """What lies between ground and sensor, dims (y, x), float32; nothing where it is clear."""

    clear: np.ndarray | None
    """Share of the light that passes clouds."""
    haze: np.ndarray | None
    """Optical thickness of haze at 0.55 um."""
    shadow: np.ndarray | None

    @classmethod
    def of(
        cls, cloud: np.ndarray, cirrus: np.ndarray, haze: np.ndarray, shadow: np.ndarray
    ) -> _Air:
        is_cloudy = cloud.any() or cirrus.any()
        return cls(
            np.exp(-1.4 * cloud - 0.5 * cirrus) if is_cloudy else None,
            haze if haze.any() else None,
            shadow if shadow.any() else None,
        )

    def doubled(self) -> _Air:
        parts = (self.clear, self.haze, self.shadow)
        return _Air(*(None if part is None else double_smooth(part) for part in parts))

    def seen_through(self, surface: np.ndarray, number: int) -> np.ndarray:
        """Reflectance of a band above the sky; a new array."""
        clear = self.clear
        if self.haze is not None:
            thin = np.exp(self.haze * -_BLUE[number])
            clear = thin if clear is None else thin * clear
        value = surface.copy()
        if self.shadow is not None:
            value *= 1 - self.shadow * np.float32(0.5 if number == 0 else 0.62)
        if clear is not None:
            value -= _CLOUD[number]
            value *= clear
            value += _CLOUD[number]
        return value


@dataclass(slots=True)
class Site:
    """What the granules of a site share; remembers the state of the last pass."""

    signals: Signals
    texture: np.ndarray
    """Dims (2, y, x), float32, standard normal, 10 m over the ground."""
    options: ArchiveOptions
    _last: tuple[str, np.ndarray, Sky] | None = None

    @property
    def ground(self) -> Frame:
        """Lattice of the ground."""
        return self.signals.changed.land.frame

    def state(self, taken: Pass) -> tuple[np.ndarray, Sky]:
        """Spectra of the segments as a pass sees them, dims (segment, band), and its sky."""
        if self._last is None or self._last[0] != taken.key:
            table = self.signals.reflectance(taken.day) * self._directional(taken)
            sky = draw_sky(taken, sky_frame(self.ground), self.options)
            self._last = (taken.key, table.astype(np.float32), sky)
        _, table, sky = self._last
        return table, sky

    def _directional(self, taken: Pass) -> np.ndarray:
        """Factor of each segment and band: forward and back scatter, more under a low sun."""
        azimuth, zenith = taken.view
        side = 1.0 if azimuth < 180 else -1.0
        low_sun = 0.7 + 0.6 * (1 - taken.sun[1] / 90)
        effect = side * self.options.orbits * (zenith / 8) * low_sun * _DIRECTIONAL
        material = self.signals.changed.land.material
        return np.asarray(1 + _STRUCTURE[material][:, None] * effect[None, :], np.float32)


def draw_texture(ground: Frame, seed: int) -> np.ndarray:
    """Draw the lasting 10 m texture of a site: brightness, and leafiness.

    Returns:
        Dims (2, y, x), float32, standard normal, on the ground's origin.
    """
    shape = (ground.rows // SUB + 2, ground.cols // SUB + 2)
    fields = []
    for name in ("light", "leaf"):
        rng = generator(seed, "texture", name)
        field = 0.8 * smooth_field(rng, shape, 0.5) + 0.6 * smooth_field(rng, shape, 2.5)
        fields.append(field.astype(np.float32))
    return np.stack(fields)


class Renderer:
    """Draws the items of one granule."""

    def __init__(self, granule: Granule, site: Site) -> None:
        """Mix the ground into pixels: all that does not change with the date.

        Args:
            granule: What to draw.
            site: The ground that it looks at.
        """
        self.granule, self.site, self.options = granule, site, site.options
        self.n = granule.size_px + 2 * PAD
        land, ground = site.signals.changed.land, site.ground
        cells, coarse = pixel_frame(granule, 10), pixel_frame(granule, 20, pad=False)
        fine = Frame(granule.epsg, cells.x0, cells.y0, self.n * SUB, self.n * SUB, ground.cell_m)
        segment = look_up(land.segment, locate(fine, ground))
        pure = not self.options.mixed_pixels
        self.mix_10 = mixing_matrix(segment, SUB, len(land.material), pure=pure)
        self.mix_20 = mixing_matrix(segment, 2 * SUB, len(land.material), pure=pure)
        self.sky_place = locate(coarse, sky_frame(ground))
        self.x, self.y = _site_metres(coarse, ground)
        rows, cols = land.wetness_m.shape
        wet = Frame(ground.epsg, ground.x0 - 10, ground.y0 + 10, rows, cols, 20.0)
        self.wetness = interpolate(land.wetness_m, locate(cells, wet))
        self.open_ground = 1 - self._per_pixel(CANOPY[land.material])
        self._set_texture(cells, land.material)
        rng = generator(self.options.seed, "noise-pool")
        pool = rng.standard_normal((_POOL_PX, _POOL_PX), dtype=np.float32)
        self.pool = np.pad(pool, ((0, granule.size_px), (0, granule.size_px)), mode="wrap")

    def _per_pixel(self, of_segment: np.ndarray) -> np.ndarray:
        return np.asarray(self.mix_10 @ of_segment.astype(np.float32)).reshape(self.n, self.n)

    def _set_texture(self, cells: Frame, material: np.ndarray) -> None:
        ground = self.site.ground
        _, rows, cols = self.site.texture.shape
        base = Frame(ground.epsg, ground.x0, ground.y0, rows, cols, 10.0)
        place = locate(cells, base)
        self.light, leaf = (interpolate(part, place) for part in self.site.texture)
        contrast = self._per_pixel(TEXTURE[material])
        visible = np.maximum(1 + contrast * (0.8 * self.light - 0.55 * leaf), 0.3)
        infrared = np.maximum(1 + contrast * (0.8 * self.light + 0.55 * leaf), 0.3)
        self.visible, self.infrared = visible, infrared
        self.visible_20, self.infrared_20 = halve(visible), halve(infrared)
        self.roll = halve(_inner(self.light)) * np.float32(1.6)  # about standard normal
        bright = self._per_pixel((material == Material.BRIGHT_ROOF).astype(np.float32))
        self.glinting = (_inner(bright) > 0.85) & (_inner(leaf) > 1.4)
        self.sparkling = _inner(leaf) > 2.2

    def draw(self, job: Job) -> Picture:
        """Render an item; deterministic in the job alone."""
        table, sky = self.site.state(job.taken)
        ten, twenty = self._surface(job.taken, table)
        air = {
            name: interpolate(getattr(sky, name), self.sky_place)
            for name in Sky.__dataclass_fields__
        }
        scl = self._classify(job.taken, ten, twenty, air)
        beyond = self._beyond(job)
        scl[beyond >= 0] = Scl.NO_DATA
        bias = self._biases(job)
        hit = self._saturated(job.taken, air["cloud"])
        coarse = _Air.of(air["cloud"], air["cirrus"], air["haze"], air["shadow"])
        fine = coarse.doubled()
        bands: dict[str, np.ndarray] = {}
        for number, band in enumerate(BANDS):
            is_fine = number < 4
            surface = ten[number] if is_fine else twenty[number - 4]
            seen_through = fine if is_fine else coarse
            stored = self._sense(job, surface, number, seen_through, bias[number])
            if hit is not None:
                stored[hit if is_fine else hit[::2, ::2] & hit[1::2, 1::2]] = DN_SATURATED
            unseen = beyond >= _BAND_REACH_M[number]
            if unseen.any():
                stored[double(unseen) if is_fine else unseen] = 0
            bands[band] = stored
        return Picture(bands, scl)

    def obstruction(self, job: Job) -> Obstruction:
        """Tell the sky of an item, to judge masks by."""
        _, sky = self.site.state(job.taken)
        at = {name: interpolate(getattr(sky, name), self.sky_place) for name in _SKY}
        return Obstruction(
            cloud=1 - np.exp(-1.4 * at["cloud"]),
            cirrus=1 - np.exp(-0.5 * at["cirrus"]),
            haze=1 - np.exp(at["haze"] * -_BLUE[0]),
            shadow=at["shadow"],
        )

    def _surface(self, taken: Pass, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reflectance without sky: dims (band, y, x) of the 10 m and the 20 m bands."""
        n, half = self.n, self.n // 2
        ten = np.ascontiguousarray((self.mix_10 @ table[:, :4]).T).reshape(4, n, n)
        twenty = np.ascontiguousarray((self.mix_20 @ table[:, 4:]).T).reshape(6, half, half)
        ten[:3] *= self.visible
        ten[3] *= self.infrared
        twenty[1:4] *= self.infrared_20
        for band in (0, 4, 5):
            twenty[band] *= self.visible_20
        for cover, spectrum in self._covers(taken):
            ten += cover * (spectrum[:4, None, None] - ten)
            twenty += halve(cover) * (spectrum[4:, None, None] - twenty)
        down, right = taken.shift_px
        blur = self.options.mixed_pixels
        return (
            resample(ten, down, right, PAD, blur=blur),
            resample(twenty, down / 2, right / 2, PAD // 2, blur=blur),
        )

    def _covers(self, taken: Pass) -> list[tuple[np.ndarray, np.ndarray]]:
        """Flood and snow of a day: share of each padded 10 m pixel, and spectrum."""
        covers = []
        level = flood_level_m(taken.day, self.options, taken.site)
        if level > 0:
            flooded = np.clip((level - self.wetness) / 0.12 + 0.5, 0, 1)
            covers.append((flooded * (0.4 + 0.6 * self.open_ground), _FLOOD))
        depth = snow_depth(taken.day, self.options, taken.site)
        if depth > 0:
            lying = np.clip(np.float32(depth) + np.float32(0.22) * self.light, 0, 1)
            covers.append((lying * self.open_ground, _SNOW))
        return covers

    def _classify(
        self, taken: Pass, ten: np.ndarray, twenty: np.ndarray, air: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Scene classes at 20 m as the classifier would see them, its errors included."""
        errs = self.options.scl_errors
        today = self._noise(taken, "scl", 2)
        scl = self._classify_surface(ten, twenty, today)
        seen = air["miss"] <= 0
        dark = (air["shadow"] > (0.3 if errs else 0.05)) & (seen | (air["shadow"] > 0.85))
        scl[dark] = Scl.CLOUD_SHADOW
        if errs:
            scl[dark & (today > 1.3)] = Scl.DARK
            scl[dark & (today < -1.9)] = Scl.WATER
        tau, thin = air["cloud"], 0.06 if errs else 0.02
        scl[(air["cirrus"] > thin) & seen] = Scl.CIRRUS
        if errs:
            scl[(tau > 0.03) & (tau <= thin + 0.1) & seen] = Scl.UNCLASSIFIED
        found = seen | (tau > 1.0)
        scl[(tau > (thin + 0.1 if errs else thin)) & found] = Scl.CLOUD_MEDIUM
        scl[(tau > 0.55) & found] = Scl.CLOUD_HIGH
        return scl

    def _classify_surface(
        self, ten: np.ndarray, twenty: np.ndarray, today: np.ndarray
    ) -> np.ndarray:
        green, red = halve(ten[1]), halve(ten[2])
        nir, swir = twenty[3], twenty[4]
        ndvi = (nir - red) / np.maximum(nir + red, 1e-3)
        ndsi = (green - swir) / np.maximum(green + swir, 1e-3)
        scl = np.where(ndvi > 0.42, np.uint8(Scl.VEGETATION), np.uint8(Scl.BARE))
        water = (nir < 0.09) & (ndsi > 0.2)
        scl[water] = Scl.WATER
        scl[(ndsi > 0.42) & (green > 0.22)] = Scl.SNOW
        if self.options.scl_errors:
            bare = scl == Scl.BARE
            scl[bare & (red > 0.21) & (self.roll + 0.5 * today > -0.2)] = Scl.CLOUD_HIGH
            scl[bare & (red > 0.16) & (self.roll + 0.9 * today > 1.7)] = Scl.CLOUD_MEDIUM
            scl[water & (today > 1.45)] = Scl.CLOUD_SHADOW
            scl[(scl == Scl.VEGETATION) & (nir < 0.14) & (today > 0.4)] = Scl.DARK
        return scl

    def _sense(
        self, job: Job, surface: np.ndarray, number: int, air: _Air, bias: float
    ) -> np.ndarray:
        """Add sky, sensor and processing to one band; dims (y, x), uint16, footprint aside."""
        value = air.seen_through(surface, number)
        if self.options.satellite_gain:
            side = 1 if job.taken.satellite == "A" else -1
            value *= np.float32(1 + side * _GAIN[number])
        spread = value * np.float32(0.009)
        spread += np.float32(0.0012)
        spread *= self._noise(job.taken, BANDS[number], 1 if number < 4 else 2)
        value += spread
        value += np.float32(bias)
        if self.options.negatives:
            # the correction takes most from dark ground and nothing above a reflectance of 0.08
            dark = np.maximum(np.float32(1) - value * np.float32(12.5), 0)
            value -= _OVERCORRECTION[number] * dark
        value *= np.float32(10_000)
        value += np.float32(1000.5 if job.has_offset else 0.5)
        np.clip(value, 1, DN_SATURATED - 1, out=value)
        return np.asarray(value, np.uint16)

    def _saturated(self, taken: Pass, cloud: np.ndarray) -> np.ndarray | None:
        """Pixels of 10 m that overflow: glinting roofs on some days, the thickest cloud."""
        if not self.options.saturation:
            return None
        tops = double(cloud > 3.2) & self.sparkling
        glints = generator(self.options.seed, "glint", taken.key).random() < 0.3
        hit = tops | self.glinting if glints else tops
        return hit if hit.any() else None

    def _biases(self, job: Job) -> np.ndarray:
        """Error of the atmospheric correction per band: of the pass, granule and processing."""
        seed, key = self.options.seed, job.taken.key
        of_pass = generator(seed, "aerosol", key).normal(0, 0.0035) * _BLUE
        if not self.options.granule_bias:
            return np.asarray(of_pass, np.float32)
        own = generator(seed, "granule", job.granule.mgrs, key).normal(0, 0.0022, 10)
        again = generator(seed, "processing", job.id).normal(0, 0.001, 10)
        is_again = job.special == "reprocessed"
        return np.asarray(of_pass + own + (again if is_again else 0), np.float32)

    def _beyond(self, job: Job) -> np.ndarray:
        """Metres beyond the swath at 20 m, dims (y, x); +inf where another datastrip has it."""
        beyond = beyond_swath_m(job.taken, self.x, self.y)
        n = self.granule.size_px // 2
        beyond[~is_inside_cut(job.cut, np.arange(n), n)] = np.inf
        return beyond

    def _noise(self, taken: Pass, name: str, step: int) -> np.ndarray:
        """Cut noise out of the pool by place: granules of a zone share the noise of a pass."""
        rng = generator(self.options.seed, "noise", taken.key, name)
        down, right = (int(part) for part in rng.integers(0, _POOL_PX, 2))
        granule, n = self.granule, self.granule.size_px // step
        row = (-granule.y0 // (10 * step) + down) % _POOL_PX
        col = (granule.x0 // (10 * step) + right) % _POOL_PX
        return np.asarray(self.pool[row : row + n, col : col + n])


def _inner(padded: np.ndarray) -> np.ndarray:
    return padded[PAD:-PAD, PAD:-PAD]


def _site_metres(frame: Frame, ground: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Eastings and northings of a lattice's centres in the CRS of the ground."""
    row, col = locate(frame, ground)
    if row.ndim == 1:
        row, col = row[:, None], col[None, :]
    return ground.x0 + (col + 0.5) * ground.cell_m, ground.y0 - (row + 0.5) * ground.cell_m
