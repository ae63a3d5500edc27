"""What a synthetic archive shows: its size, its years, and one switch per difficulty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from eoray.errors import ConfigError

CLASSES = ("water", "evergreen", "deciduous", "crop", "grass", "urban", "bare")
"""Land-cover classes in order of their ids, which begin at 1; 0 is unknown."""

CHANGE_KINDS = ("clear-cut", "building", "fire", "decline")
"""Kinds of change in order of their ids, which begin at 1; 0 is no change."""

SIZE_LIMITS_PX = (64, 3000)
"""Edge of a granule. Above, the ground at 2.5 m no longer fits in memory: use positions."""


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """Everything that decides the bytes of an archive."""

    seed: int = 1
    """Root of every random number."""
    size_px: int = 512
    """Edge of a granule in pixels of 10 m; even."""
    years: tuple[int, ...] = (2020, 2021, 2022)
    """Calendar years with acquisitions, ascending without gaps."""
    dates_per_year: int = 24
    """Datatakes kept of the real cadence (two satellites on two orbits: 146 a year)."""
    southern: bool = True
    """Add a granule of the southern hemisphere (EPSG:32732) elsewhere."""
    southern_dates: int = 4
    """Datatakes of the southern granule in all years together."""
    neighbour_zone: bool = True
    """Add a granule of zone 33 that sees part of the same ground."""
    neighbour_every: int = 3
    """The catalogue holds the neighbouring zone's granule of every so many datatakes."""
    cloud_share: float = 0.3
    """Mean share of ground under cloud, shadow aside."""
    block_px: int = 256
    """Internal tile of the COGs."""
    change: bool = True
    """Let the ground change. Without, the same archive with no change at all."""
    change_share: float = 0.015
    """Share of the land that changes over all years, at most 0.03."""
    mixed_pixels: bool = True
    """Mix what lies in a pixel and blur by the sensor's point spread; else centres only."""
    orbits: float = 0.05
    """Half the directional difference of the two relative orbits, near infrared; 0 is none."""
    registration: bool = True
    """Shift dates by parts of a pixel, more before the refinement date."""
    omission: float = 0.03
    """Share of clear-looking ground whose thin cloud, haze or shadow SCL misses; 0 is none."""
    scl_errors: bool = True
    """Call bright roofs cloud, water shadow, shadow dark, cloud edges unclassified."""
    negatives: bool = True
    """Overcorrect dark ground below zero: kept after baseline 04.00, clamped before."""
    saturation: bool = True
    """Store 65535 on glinting roofs and the brightest cloud."""
    satellite_gain: bool = True
    """Let the satellites differ by one per cent up and down."""
    granule_bias: bool = True
    """Correct the atmosphere granule by granule: overlaps differ by some ten DN."""
    snow: bool = True
    """Let snow lie for some weeks of winter."""
    disturbances: bool = True
    """Harvest on other days each year, rotate crops, and bring mowing, drought and floods."""
    label_noise: bool = True
    """Shift label borders, give 5 % the wrong class, leave land unlabelled."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            ConfigError: A size, year, share or count lies outside its range.
        """
        low, high = SIZE_LIMITS_PX
        if self.size_px % 4 or not low <= self.size_px <= high:
            raise ConfigError(
                f"size_px {self.size_px!r} of the synthetic archive must be a multiple of 4 from "
                f"{low} to {high}; larger scenes come from write_position_archive"
            )
        if not self.years or list(self.years) != list(range(self.years[0], self.years[-1] + 1)):
            raise ConfigError(
                f"years {self.years!r} of the synthetic archive must follow each other; "
                "write them like (2020, 2021, 2022)"
            )
        if not 1 <= self.dates_per_year <= 146:
            raise ConfigError(
                f"dates_per_year {self.dates_per_year!r} must lie in 1..146, "
                "the cadence of two satellites on two orbits"
            )
        if self.neighbour_every < 1:
            raise ConfigError(f"neighbour_every {self.neighbour_every!r} must be 1 or more")
        for name, top in (("cloud_share", 0.9), ("change_share", 0.03), ("omission", 0.2)):
            value = getattr(self, name)
            if not 0.0 <= value <= top:
                raise ConfigError(f"{name} {value!r} of the archive must lie in 0..{top}")
        if not 0.0 <= self.orbits <= 0.2:
            raise ConfigError(f"orbits {self.orbits!r} of the archive must lie in 0..0.2")
        if self.block_px % 16 or self.block_px <= 0:
            raise ConfigError(f"block_px {self.block_px!r} must be a multiple of 16, as TIFF asks")

    @classmethod
    def hard(cls, **changes: Any) -> ArchiveOptions:
        """Every difficulty on, which is the default."""
        return cls(**changes)

    @classmethod
    def plain(cls, **changes: Any) -> ArchiveOptions:
        """Every difficulty off; clouds stay, and SCL finds each of them."""
        return replace(cls().with_only(), **changes)

    def with_only(self, *difficulties: str) -> ArchiveOptions:
        """Switch every difficulty off but the named ones, to measure each alone.

        Raises:
            ConfigError: A name is no difficulty.
        """
        unknown = [name for name in difficulties if name not in DIFFICULTIES]
        if unknown:
            known = ", ".join(DIFFICULTIES)
            raise ConfigError(f"no difficulty is called {unknown!r}; there are {known}")
        off: dict[str, Any] = dict.fromkeys(_SWITCHES, False) | {"orbits": 0.0, "omission": 0.0}
        kept = {name: value for name, value in off.items() if name not in difficulties}
        return replace(self, **kept)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["years"] = list(self.years)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ArchiveOptions:
        """Read what ``to_dict`` wrote.

        Raises:
            ConfigError: A key is unknown.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown archive options {unknown!r}; known are {sorted(known)}")
        return cls(**{**values, "years": tuple(values["years"])})


_SWITCHES = (
    "mixed_pixels",
    "registration",
    "scl_errors",
    "negatives",
    "saturation",
    "satellite_gain",
    "granule_bias",
    "snow",
    "disturbances",
    "label_noise",
)

DIFFICULTIES = (*_SWITCHES, "orbits", "omission")
"""Names for ``ArchiveOptions.with_only``."""


def demo_options() -> ArchiveOptions:
    """What ``eoray demo`` uses: three years, with the refinement date and baseline 04.00."""
    return ArchiveOptions(size_px=352)
