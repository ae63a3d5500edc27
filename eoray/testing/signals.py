"""What each segment reflects on a day: spectra, seasons, crops, mowing, drought, change.

Seasons are double-logistic curves. Reflectance is that of the surface, 0 to 1, bands in the
order of ``eoray.sentinel2.BANDS``. Spectra are typical of central Europe, set by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from eoray.testing.land import Material
from eoray.testing.noise import generator, hash_unit
from eoray.testing.options import ArchiveOptions
from eoray.testing.patches import ChangedLand

# B02 B03 B04 B08 | B05 B06 B07 B8A B11 B12, per mille
_SPECTRA = {
    "soil": (62, 88, 114, 190, 136, 156, 170, 202, 282, 232),
    "stubble": (78, 112, 150, 245, 186, 208, 224, 258, 335, 255),
    "straw": (55, 92, 112, 270, 150, 205, 235, 285, 300, 215),
    "wheat": (27, 56, 33, 430, 86, 285, 380, 450, 195, 95),
    "rape": (30, 72, 40, 440, 105, 300, 385, 455, 210, 105),
    "bloom": (42, 118, 98, 430, 150, 300, 375, 440, 220, 115),
    "maize": (32, 62, 40, 405, 95, 272, 352, 425, 205, 105),
    "beet": (28, 66, 36, 460, 98, 310, 405, 475, 190, 92),
    "ley": (31, 66, 43, 385, 102, 262, 342, 405, 225, 118),
    "grass": (32, 66, 45, 375, 102, 256, 335, 395, 230, 122),
    "winter grass": (47, 72, 78, 225, 112, 168, 198, 238, 262, 176),
    "leaf": (20, 44, 25, 395, 68, 250, 352, 412, 185, 85),
    "young leaf": (25, 54, 33, 385, 82, 254, 342, 402, 205, 102),
    "twig": (33, 48, 58, 175, 84, 120, 145, 190, 215, 142),
    "spruce": (15, 29, 19, 212, 42, 138, 182, 222, 92, 44),
    "pine": (19, 36, 28, 235, 54, 150, 196, 245, 125, 64),
    "asphalt": (84, 95, 104, 125, 112, 118, 122, 131, 166, 150),
    "grey roof": (112, 126, 140, 170, 150, 156, 161, 174, 202, 188),
    "red roof": (70, 96, 165, 232, 200, 210, 218, 240, 292, 252),
    "bright roof": (330, 358, 380, 420, 400, 405, 412, 425, 430, 390),
    "limestone": (190, 238, 285, 358, 318, 334, 346, 370, 442, 398),
    "gravel": (116, 145, 172, 222, 196, 206, 214, 230, 284, 248),
    "dark soil": (48, 68, 88, 140, 104, 118, 128, 148, 205, 178),
    "weeds": (45, 75, 70, 260, 112, 190, 225, 270, 265, 180),
    "river": (38, 56, 45, 26, 40, 29, 25, 21, 9, 6),
    "lake": (24, 32, 18, 10, 14, 11, 10, 8, 3, 2),
    "pond": (30, 54, 36, 48, 50, 50, 50, 46, 18, 10),
    "char": (30, 36, 44, 75, 52, 60, 66, 82, 150, 148),
    "slash": (70, 95, 122, 205, 146, 168, 184, 216, 305, 240),
    "dead wood": (42, 60, 78, 150, 98, 116, 128, 158, 190, 138),
}
SPECTRA = {name: np.array(values, np.float32) / 1000 for name, values in _SPECTRA.items()}

# (bare, green) spectra, sos, eos, widths of both logistics in days, greenness out of season
_SEASONS: dict[int, tuple[str, str, int, int, int, int, float]] = {
    Material.RIVER: ("river", "pond", 130, 270, 20, 20, 0.0),
    Material.LAKE: ("lake", "pond", 150, 265, 18, 22, 0.0),
    Material.POND: ("pond", "grass", 140, 275, 16, 20, 0.0),
    Material.SPRUCE: ("twig", "spruce", 110, 300, 25, 25, 0.8),
    Material.PINE: ("twig", "pine", 115, 300, 25, 25, 0.78),
    Material.BEECH: ("twig", "leaf", 116, 297, 5, 8, 0.02),
    Material.OAK: ("twig", "leaf", 124, 308, 7, 10, 0.03),
    Material.YOUNG: ("winter grass", "young leaf", 106, 300, 9, 12, 0.06),
    Material.MEADOW: ("winter grass", "grass", 82, 312, 13, 16, 0.25),
    Material.HAY: ("winter grass", "grass", 100, 285, 13, 20, 0.12),
    Material.PASTURE: ("winter grass", "grass", 90, 305, 16, 18, 0.2),
    Material.ASPHALT: ("asphalt", "winter grass", 110, 290, 15, 15, 0.0),
    Material.GREY_ROOF: ("grey roof", "grey roof", 110, 290, 15, 15, 0.0),
    Material.RED_ROOF: ("red roof", "red roof", 110, 290, 15, 15, 0.0),
    Material.BRIGHT_ROOF: ("bright roof", "bright roof", 110, 290, 15, 15, 0.0),
    Material.GARDEN: ("winter grass", "grass", 92, 302, 14, 16, 0.22),
    Material.LIMESTONE: ("limestone", "weeds", 110, 280, 18, 18, 0.0),
    Material.GRAVEL: ("gravel", "weeds", 105, 285, 18, 18, 0.0),
    Material.DARK_SOIL: ("dark soil", "weeds", 105, 285, 18, 18, 0.0),
}

# crops of a rotation: bare, green, sos, eos, widths, greenness in winter, share
_CROPS: tuple[tuple[str, str, int, int, int, int, float, float], ...] = (
    ("straw", "wheat", 84, 190, 11, 6, 0.22, 0.26),
    ("soil", "maize", 168, 268, 8, 7, 0.0, 0.22),
    ("stubble", "rape", 78, 182, 10, 6, 0.4, 0.14),
    ("soil", "beet", 152, 292, 9, 6, 0.0, 0.12),
    ("straw", "wheat", 106, 200, 9, 6, 0.05, 0.12),
    ("winter grass", "ley", 86, 308, 13, 16, 0.25, 0.14),
)

TEXTURE = np.array(
    [1, 0, 1, 11, 10, 10, 11, 12, 3, 4, 6, 6, 5, 4, 4, 4, 13, 7, 8, 7], np.float32
) / np.float32(100)
"""Contrast of the 10 m texture of each material, as a share of reflectance."""

CANOPY = np.array([1, 1, 1, 0.9, 0.85, 0.65, 0.65, 0.5] + [0] * 12, np.float32)
"""Share of snow on the ground that each material hides; open water melts it."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Traits of all segments, and the rules of a day."""

    changed: ChangedLand
    options: ArchiveOptions
    seed: int
    is_south: bool
    gain: np.ndarray
    """Dims (segment), float32."""
    shift_d: np.ndarray
    """Dims (segment), float32: days later than its like."""
    amplitude: np.ndarray
    """Dims (segment), float32: vigour of the green season, about 1."""
    blend: np.ndarray
    """Dims (segment, band), float32: lasting additive share of another material."""
    blend_share: np.ndarray
    """Dims (segment), float32."""

    @classmethod
    def build(
        cls, changed: ChangedLand, options: ArchiveOptions, seed: int, *, is_south: bool
    ) -> Signals:
        """Draw the traits of the segments from their names."""
        key, material = changed.land.key, changed.land.material
        strip = np.where(material == Material.CROP, key // 2, key)  # tramlines share their field's
        gain = 1 + 0.11 * _bell(strip, 51)
        gain[np.isin(material, (Material.RIVER, Material.LAKE))] = 1.0
        amplitude = 1 + 0.10 * _bell(strip, 53)
        amplitude[(material == Material.CROP) & (key % 2 == 1)] *= 0.72
        partner, share = _blend(strip, material)
        return cls(
            changed=changed,
            options=options,
            seed=seed,
            is_south=is_south,
            gain=gain.astype(np.float32),
            shift_d=(9.0 * _bell(strip, 52)).astype(np.float32),
            amplitude=np.clip(amplitude, 0.3, 1.3).astype(np.float32),
            blend=partner,
            blend_share=share,
        )

    def reflectance(self, day: date) -> np.ndarray:
        """Spectrum of every segment on a day.

        Returns:
            Dims (segment, band), float32.
        """
        stable = self._undisturbed(day)
        return self._with_changes(stable, day)

    def _undisturbed(self, day: date) -> np.ndarray:
        material, key = self.changed.land.material, self.changed.land.key
        doy = float(day.timetuple().tm_yday)
        year = day.year
        if self.is_south:
            year, doy = (year, doy + 182.6) if doy <= 182.6 else (year + 1, doy - 182.6)
        late = self._year_shift(year)
        shift = self.shift_d + late
        table = np.empty((len(material), 10), np.float32)
        green = np.empty(len(material), np.float32)
        for kind in np.unique(material):
            of_kind = np.flatnonzero(material == kind)
            if kind == Material.CROP:
                self._grow_crops(table, green, of_kind, year, doy, shift)
                continue
            bare, leaf, sos, eos, width_up, width_down, rest = _SEASONS[int(kind)]
            g = _season(doy - shift[of_kind], sos, eos, width_up, width_down)
            g = (rest + (1 - rest) * g) * self.amplitude[of_kind]
            g *= self._growth_factor(int(kind), key[of_kind], year, doy)
            g *= _COVER.get(int(kind), 1.0)
            green[of_kind] = g
            table[of_kind] = _mix(SPECTRA[bare], SPECTRA[leaf], g)
        share = self.blend_share[:, None]
        return np.asarray((table * (1 - share) + self.blend * share) * self.gain[:, None])

    def _grow_crops(
        self,
        table: np.ndarray,
        green: np.ndarray,
        fields: np.ndarray,
        year: int,
        doy: float,
        shift: np.ndarray,
    ) -> None:
        """Fill in the crop segments: each field has one crop a year."""
        name = self.changed.land.key[fields] // 2
        turn = year if self.options.disturbances else 0
        pick = hash_unit(name * 64 + turn % 64, 61)
        harvest = 9.0 * (hash_unit(name * 64 + turn % 64, 62) - 0.5)
        edges = np.cumsum([crop[-1] for crop in _CROPS])
        chosen = np.minimum(np.searchsorted(edges, pick), len(_CROPS) - 1)
        for number, (bare, leaf, sos, eos, up, down, winter, _) in enumerate(_CROPS):
            mine = chosen == number
            rows = fields[mine]
            at = doy - shift[rows]
            g = _season(at, sos, eos + harvest[mine], up, down)
            g = np.maximum(g, winter * (1 - _season(at, 70, 285, 12, 12)))
            g = g * self.amplitude[rows] * self._growth_factor(Material.CROP, name[mine], year, doy)
            green[rows] = g
            table[rows] = _mix(SPECTRA[bare], SPECTRA[leaf], g)
            if leaf == "rape":
                bloom = _season(at, 112, 136, 3, 4)[:, None]
                table[rows] = table[rows] * (1 - bloom) + SPECTRA["bloom"] * bloom
            if bare == "straw":
                ploughed = (1 / (1 + np.exp(-(at - 245) / 5)))[:, None]
                low = (1 - np.clip(g, 0, 1))[:, None] * ploughed
                table[rows] = table[rows] * (1 - low) + SPECTRA["soil"] * low

    def _year_shift(self, year: int) -> float:
        if not self.options.disturbances:
            return 0.0
        return float(generator(self.seed, "year", year).normal(0.0, 5.0))

    def _growth_factor(self, kind: int, key: np.ndarray, year: int, doy: float) -> np.ndarray:
        """Share of greenness that mowing and drought leave, dims as ``key``."""
        left = np.ones(len(key), np.float32)
        if not self.options.disturbances:
            return left
        for cut, depth in _CUTS.get(kind, ()):
            salt = 70 + cut
            at = cut + 22 * (hash_unit(key * 64 + year % 64, salt) - 0.5)
            since = doy - at
            left *= np.where(since > 0, 1 - depth * np.exp(-np.maximum(since, 0) / 20), 1.0)
        sensitivity = _DRY.get(kind, 0.0)
        if sensitivity and year == dry_year(self.options):
            pulse = float(_season(np.array([doy]), 182, 262, 9, 12)[0])
            left *= 1 - sensitivity * pulse * (0.4 + 0.6 * hash_unit(key, 81))
        return left.astype(np.float32)

    def _with_changes(self, table: np.ndarray, day: date) -> np.ndarray:
        patch_of = self.changed.patch
        for patch in self.changed.patches:
            since = (day - patch.start).days
            if since < 0:
                continue
            rows = np.flatnonzero(patch_of == patch.id)
            target, weight = _after(patch.kind, since, (day - patch.end).days, day)
            old = table[rows]
            table[rows] = old * (1 - weight) + target * weight
        return table


def dry_year(options: ArchiveOptions) -> int:
    """Year of the drought: the third, or the last of a shorter archive."""
    return options.years[min(2, len(options.years) - 1)]


_CUTS: dict[int, tuple[tuple[int, float], ...]] = {
    Material.MEADOW: ((138, 0.55), (182, 0.55), (228, 0.5), (272, 0.45)),
    Material.HAY: ((190, 0.5),),
    Material.GARDEN: ((150, 0.2), (210, 0.2)),
}
"""Usual days of mowing and the share of greenness that falls."""

_DRY: dict[int, float] = {
    Material.MEADOW: 0.55,
    Material.HAY: 0.65,
    Material.PASTURE: 0.6,
    Material.GARDEN: 0.45,
    Material.CROP: 0.35,
    Material.BEECH: 0.12,
    Material.YOUNG: 0.2,
}

_COVER: dict[int, float] = {
    Material.RIVER: 0.15,
    Material.LAKE: 0.12,
    Material.POND: 0.15,
    Material.ASPHALT: 0.15,
    Material.LIMESTONE: 0.2,
    Material.GRAVEL: 0.4,
    Material.DARK_SOIL: 0.5,
}
"""Share that plants or algae may cover at most, where the material is not a plant itself."""


def _season(
    doy: np.ndarray, sos: float, eos: float | np.ndarray, width_up: float, width_down: float
) -> np.ndarray:
    """Double-logistic curve: rises around ``sos``, falls around ``eos``; 0 to 1.

    Source:
        Zhang et al. 2003, Remote Sensing of Environment 84(3), for logistic phenology.
    """
    rise = 1 / (1 + np.exp(-(doy - sos) / width_up))
    fall = 1 / (1 + np.exp(-(doy - eos) / width_down))
    return np.asarray(np.maximum(rise - fall, 0.0), np.float32)


def _mix(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    weight = share[:, None]
    return np.asarray(low * (1 - weight) + high * weight, np.float32)


def _bell(key: np.ndarray, salt: int) -> np.ndarray:
    """Draw about normal numbers from names: the sum of three uniforms, scaled to sd 1."""
    total = sum(hash_unit(key, salt * 16 + i) for i in range(3))
    return np.asarray((total - 1.5) * 2.0, np.float32)


_PARTNERS: dict[int, tuple[str, float]] = {
    Material.SPRUCE: ("leaf", 0.45),
    Material.PINE: ("young leaf", 0.5),
    Material.BEECH: ("spruce", 0.45),
    Material.OAK: ("spruce", 0.35),
    Material.YOUNG: ("grass", 0.6),
    Material.CROP: ("weeds", 0.35),
    Material.MEADOW: ("soil", 0.3),
    Material.HAY: ("soil", 0.35),
    Material.PASTURE: ("young leaf", 0.45),
    Material.GARDEN: ("asphalt", 0.5),
    Material.LIMESTONE: ("soil", 0.4),
    Material.GRAVEL: ("winter grass", 0.5),
    Material.DARK_SOIL: ("winter grass", 0.45),
    Material.ASPHALT: ("gravel", 0.4),
    Material.GREY_ROOF: ("gravel", 0.3),
    Material.POND: ("grass", 0.25),
}
"""What else stands in a segment, and the share of it at most: classes overlap."""


def _blend(key: np.ndarray, material: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    partner = np.zeros((len(key), 10), np.float32)
    share = np.zeros(len(key), np.float32)
    for kind, (name, most) in _PARTNERS.items():
        mine = material == kind
        partner[mine] = SPECTRA[name]
        share[mine] = most * hash_unit(key[mine], 91) ** 2
    return partner, share


def _after(kind: int, since: int, since_end: int, day: date) -> tuple[np.ndarray, float]:
    """Spectrum that a change leads to, and how far it has got, days after it began."""
    doy = np.array([float(day.timetuple().tm_yday)])
    grass = _mix(SPECTRA["winter grass"], SPECTRA["grass"], _season(doy, 95, 295, 13, 16))[0]
    if kind == 1:
        regrown = 0.75 * (1 - np.exp(-since / 420))
        return SPECTRA["slash"] * (1 - regrown) + grass * regrown, 1.0
    if kind == 2:
        return (SPECTRA["soil"] * 1.1 if since_end < 0 else SPECTRA["grey roof"]), 1.0
    if kind == 3:
        regrown = 0.8 * (1 - np.exp(-since / 300))
        return SPECTRA["char"] * (1 - regrown) + grass * regrown, 0.92
    whole = since - since_end
    return SPECTRA["dead wood"], 0.85 * min(since / max(whole, 1), 1.0)
