"""Settings of the change engine, and the tables that the compiled kernels take from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eoray.errors import ConfigError
from eoray.sentinel2 import BANDS_10M

if TYPE_CHECKING:
    from eoray.change.kernel import Rule

DEFAULT_BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
"""Blue to SWIR with one near infrared: six bands that carry the season with little repetition."""

MAX_SEGMENTS = 4
"""Breaks kept per pixel."""

NO_MAGNITUDE = -32768
"""Stored magnitude where there is no break."""

MAX_DENSITY = 400
"""Clear observations per year up to which the run length has an entry of its own."""


@dataclass(frozen=True, slots=True)
class ChangeParameters:
    """What the engine calls a break. Two products with different values are different products."""

    bands: tuple[str, ...] = DEFAULT_BANDS
    """Band ids in the order of the stored magnitude."""
    probability: float = 0.99
    """Chance that an observation of stable land stays below the threshold of a single test."""
    reference_run: int = 6
    """Anomalous observations in a row that make a break at ``reference_density``."""
    reference_density: float = 42.0
    """Clear observations per year at which ``reference_run`` holds."""
    min_run: int = 3
    """Shortest run, reached where clear observations are few."""
    max_run: int = 14
    """Longest run, reached where clear observations are many."""
    run_days: int = 90
    """Least days from the first to the last observation of a run: undetected haze and shadow, snow
    melt and floods come in runs of dates, but hardly outlast a season."""
    min_obs: int = 12
    """Observations of the first window."""
    init_days: int = 365
    """Days of the first window: one full season."""
    record_days: int = 548
    """Records shorter than this are insufficient: a year to learn the season, half a year to
    watch."""
    direction_deg: float = 45.0
    """Largest mean angle between the residuals of a run and their mean."""
    pulse_days: int = 365
    """Days after a run in which the pixel may return to its curve, which makes it no break."""
    pulse_share: float = 0.4
    """A later observation has returned when less than this share of the run's shift is left."""
    gap_days: int = 365
    """Days without an accepted observation that set ``long_gap``."""
    stiffness: float = 20.0
    """Scale of the ridge; stands in for the lasso of COLD."""
    spike: float = 6.0
    """A spike lies this many noise floors from the median of itself and its neighbours."""
    noise_floor: float = 0.003
    """Least spread believed in any band, reflectance."""
    step_evidence: float = 6.0
    """Least score per band of a step at that date in a fit to the whole record: the square of a
    t-value, so 6 asks for a shift of 2.4 standard errors in the average band. It holds for 40
    observations and grows with the square root of their number, since the weather of years makes
    the scores of stable land grow as well."""
    known_evidence: float = 200.0
    """The same score, times the years of the record, from which on a step is believed though the
    land only looks as it did at another time of the year: 67 per band for three years, 25 for
    eight. Set on synthetic archives of three years and reference records of eight."""
    season_days: int = 365
    """Days that such a run must last otherwise: it then differs in every season."""
    state_probability: float = 0.99
    """Chance that an observation of a known state stays below the threshold that tells it from a
    new one. A state is known when it lies within the covariance of all earlier observations."""
    state_days: int = 120
    """Days from its beginning in which a change is held against known states: later regrowth may
    hide it."""
    orbit_pairs: int = 8
    """Neighbouring dates of different orbits needed to estimate an orbit's gain; 0 turns it off."""
    pair_days: int = 15
    """Most days between the two dates of such a pair."""

    def __post_init__(self) -> None:
        """Refuse values that the engine cannot work with."""
        if not self.bands:
            raise ConfigError("change.bands is empty; name at least one band, such as B8A")
        _check("probability", self.probability, 0.5, 0.999999)
        _check("reference_run", self.reference_run, 2, 30)
        _check("reference_density", self.reference_density, 1, MAX_DENSITY)
        _check("min_run", self.min_run, 2, self.max_run)
        _check("max_run", self.max_run, self.min_run, 30)
        _check("min_obs", self.min_obs, 6, 1000)
        _check("init_days", self.init_days, 180, 3653)
        _check("record_days", self.record_days, self.init_days, 36525)
        _check("direction_deg", self.direction_deg, 1, 90)
        _check("pulse_share", self.pulse_share, 0, 1)
        _check("state_probability", self.state_probability, 0.5, 0.999999)
        _check("known_evidence", self.known_evidence, 0, 1e9)
        _check("stiffness", self.stiffness, 0, 1e6)
        _check("noise_floor", self.noise_floor, 1e-6, 1)

    def as_attrs(self) -> dict[str, Any]:
        """Return plain values for a product's parameters (JSON types only)."""
        values = dataclasses.asdict(self)
        values["bands"] = list(self.bands)
        return values


def default_bands(resolution_m: int, available: Sequence[str]) -> tuple[str, ...]:
    """Choose the bands to watch among those of a cube.

    At 10 m only the 10 m bands are taken unless the user names others: a 20 m band that is
    interpolated to 10 m repeats one observation in four pixels.

    Args:
        resolution_m: 10 or 20.
        available: Band ids of the cube.

    Raises:
        ConfigError: The cube has none of them.
    """
    wanted = DEFAULT_BANDS if resolution_m == 20 else BANDS_10M
    found = tuple(band for band in wanted if band in available)
    if not found:
        raise ConfigError(
            f"the cube holds none of the bands {', '.join(wanted)} that change watches at "
            f"{resolution_m} m, only {', '.join(available) or 'none'}; name change.bands"
        )
    return found


def resolve_run_length(density: float, parameters: ChangeParameters) -> int:
    """Choose how many anomalies in a row make a break.

    Grows with the square root of the density: a pixel seen twice as often must show more evidence,
    since undetected cloud and drought fill more observations, but also answers in fewer days.

    Args:
        density: Clear observations per year.
        parameters: Reference run, density and bounds.
    """
    wanted = parameters.reference_run * math.sqrt(density / parameters.reference_density)
    return int(min(max(round(wanted), parameters.min_run), parameters.max_run))


def resolve_rule(parameters: ChangeParameters) -> Rule:
    """Turn the settings into the tables that the kernels read."""
    import numpy as np
    from scipy.special import chdtri

    from eoray.change.kernel import N_COEF, Rule

    n_band = len(parameters.bands)
    strong = 1e6
    ridge = np.full((3, N_COEF), 0.05 * parameters.stiffness)
    ridge[:, 0] = 1e-4
    ridge[:, 1] = 0.3 * parameters.stiffness
    ridge[0, 4:] = strong
    ridge[1, 6:] = strong
    limit = float(chdtri(n_band, 1.0 - parameters.probability))
    lengths = [resolve_run_length(d, parameters) for d in range(MAX_DENSITY)]
    bands = list(parameters.bands)
    return Rule(
        ridge=ridge,
        level_obs=np.array([18, 24]),
        run_length=np.array(lengths),
        limit=limit,
        stable_limit=limit * n_band / 2,
        cos_min=math.cos(math.radians(parameters.direction_deg)),
        min_obs=parameters.min_obs,
        init_days=parameters.init_days,
        record_days=parameters.record_days,
        run_days=parameters.run_days,
        gap_days=parameters.gap_days,
        pulse_days=parameters.pulse_days,
        pulse_share=parameters.pulse_share,
        step_limit=parameters.step_evidence * n_band,
        known_limit=parameters.known_evidence * n_band,
        season_days=parameters.season_days,
        state_limit=float(chdtri(n_band, 1.0 - parameters.state_probability)),
        state_days=parameters.state_days,
        spike=parameters.spike,
        floor=parameters.noise_floor,
        min_pairs=parameters.orbit_pairs,
        pair_days=parameters.pair_days,
        green=bands.index("B03") if "B03" in bands else -1,
        swir=bands.index("B11") if "B11" in bands else -1,
    )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"change.{name} is {value!r}; it must lie in {low} ... {high}")
