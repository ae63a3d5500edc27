"""Spectral indices: one table of formulas over surface reflectance, with their sources.

Names and formulas follow the catalogue Awesome Spectral Indices (Montero et al. 2023, Scientific
Data 10, 197), coefficients at its defaults. Reflectance is taken as it is, negative values too,
and nothing is clipped: where a denominator is small an index may leave its usual range.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eoray.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SpectralIndex:
    """One index."""

    name: str
    long_name: str
    bands: tuple[str, ...]
    """Band ids, in the order of the formula's arguments."""
    formula: Callable[..., Any]
    """Of surface reflectance (0..1), one argument a band."""
    reference: str


def _ratio(a: Any, b: Any) -> Any:
    """Normalised difference."""
    return (a - b) / (a + b)


def _msavi(n: Any, r: Any) -> Any:
    return 0.5 * (2.0 * n + 1.0 - ((2.0 * n + 1.0) ** 2 - 8.0 * (n - r)) ** 0.5)


_TABLE = (
    SpectralIndex(
        "NDVI",
        "normalized difference vegetation index",
        ("B08", "B04"),
        _ratio,
        "Rouse et al. 1974, NASA SP-351",
    ),
    SpectralIndex(
        "GNDVI",
        "green normalized difference vegetation index",
        ("B08", "B03"),
        _ratio,
        "Gitelson et al. 1996, doi:10.1016/S0034-4257(96)00072-7",
    ),
    SpectralIndex(
        "EVI",
        "enhanced vegetation index",
        ("B08", "B04", "B02"),
        lambda n, r, b: 2.5 * (n - r) / (n + 6.0 * r - 7.5 * b + 1.0),
        "Huete et al. 1997, doi:10.1016/S0034-4257(96)00112-5",
    ),
    SpectralIndex(
        "EVI2",
        "two-band enhanced vegetation index",
        ("B08", "B04"),
        lambda n, r: 2.5 * (n - r) / (n + 2.4 * r + 1.0),
        "Jiang et al. 2008, doi:10.1016/j.rse.2008.06.006",
    ),
    SpectralIndex(
        "SAVI",
        "soil-adjusted vegetation index, L = 0.5",
        ("B08", "B04"),
        lambda n, r: 1.5 * (n - r) / (n + r + 0.5),
        "Huete 1988, doi:10.1016/0034-4257(88)90106-X",
    ),
    SpectralIndex(
        "MSAVI",
        "modified soil-adjusted vegetation index",
        ("B08", "B04"),
        _msavi,
        "Qi et al. 1994, doi:10.1016/0034-4257(94)90134-1",
    ),
    SpectralIndex(
        "NDREI",
        "normalized difference red edge index",
        ("B08", "B05"),
        _ratio,
        "Gitelson and Merzlyak 1994, doi:10.1016/1011-1344(93)06963-4",
    ),
    SpectralIndex(
        "CIRE",
        "chlorophyll index red edge",
        ("B08", "B05"),
        lambda n, e: n / e - 1.0,
        "Gitelson et al. 2003, doi:10.1078/0176-1617-00887",
    ),
    SpectralIndex(
        "NDWI",
        "normalized difference water index",
        ("B03", "B08"),
        _ratio,
        "McFeeters 1996, doi:10.1080/01431169608948714",
    ),
    SpectralIndex(
        "MNDWI",
        "modified normalized difference water index",
        ("B03", "B11"),
        _ratio,
        "Xu 2006, doi:10.1080/01431160600589179",
    ),
    SpectralIndex(
        "NDMI",
        "normalized difference moisture index",
        ("B08", "B11"),
        _ratio,
        "Wilson and Sader 2002, doi:10.1016/S0034-4257(01)00318-2",
    ),
    SpectralIndex(
        "NBR",
        "normalized burn ratio",
        ("B08", "B12"),
        _ratio,
        "Key and Benson 1999, doi:10.3133/ofr0211",
    ),
    SpectralIndex(
        "NBR2",
        "normalized burn ratio 2",
        ("B11", "B12"),
        _ratio,
        "USGS, Landsat Normalized Burn Ratio 2",
    ),
    SpectralIndex(
        "BSI",
        "bare soil index, BI in the catalogue",
        ("B11", "B04", "B08", "B02"),
        lambda s, r, n, b: _ratio(s + r, n + b),
        "Rikimaru et al. 2002, Tropical Ecology 43(1)",
    ),
    SpectralIndex(
        "NDBI",
        "normalized difference built-up index",
        ("B11", "B08"),
        _ratio,
        "Zha et al. 2003, doi:10.1080/01431160304987",
    ),
    SpectralIndex(
        "NDSI",
        "normalized difference snow index",
        ("B03", "B11"),
        _ratio,
        "Riggs et al. 1994, doi:10.1109/IGARSS.1994.399618",
    ),
    SpectralIndex(
        "NDTI",
        "normalized difference turbidity index",
        ("B04", "B03"),
        _ratio,
        "Lacaux et al. 2007, doi:10.1016/j.rse.2006.07.012",
    ),
    SpectralIndex(
        "NDCI",
        "normalized difference chlorophyll index",
        ("B05", "B04"),
        _ratio,
        "Mishra and Mishra 2012, doi:10.1016/j.rse.2011.10.016",
    ),
)

INDICES = {index.name: index for index in _TABLE}
"""Indices by name."""

_OTHER_NAMES = {"NDRE": "NDREI", "BI": "BSI"}


def find_index(name: str) -> SpectralIndex:
    """Return an index by name, in any case.

    Raises:
        ConfigError: There is none of that name; the nearest one is named.
    """
    wanted = name.upper()
    wanted = _OTHER_NAMES.get(wanted, wanted)
    if wanted not in INDICES:
        near = difflib.get_close_matches(wanted, INDICES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"index {name!r} is unknown; {hint}there are {', '.join(INDICES)}")
    return INDICES[wanted]
