"""Layout of a change product in the store, with CF attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eoray.change.flags import FLAG_MASKS, FLAG_MEANINGS
from eoray.change.parameters import MAX_SEGMENTS, NO_MAGNITUDE, ChangeParameters
from eoray.cube.layout import ArraySpec, GroupSpec, ProductSpec
from eoray.sentinel2 import SCALE

NO_DATE = 0
"""Stored where there is no date; 1970-01-01 itself cannot occur in a Sentinel-2 record."""

ENTRY = "all"
"""Key of the one entry of a change product: the whole record."""

_DAYS = {"units": "days since 1970-01-01", "calendar": "standard"}


def change_product(
    name: str,
    parameters: ChangeParameters,
    *,
    resolution_m: int = 20,
    of: Mapping[str, Any] | None = None,
    also: Mapping[str, Any] | None = None,
) -> ProductSpec:
    """Describe ``change-NAME``: the breaks of every pixel of the ``s2`` product.

    Args:
        name: Of the run.
        parameters: What counts as a break.
        resolution_m: 20 (10 m bands averaged) or 10 (20 m bands interpolated).
        of: Parameters of the product that is read; they become part of this one's.
        also: Further parameters, those that are not at their default: what was done about sun and
            view (``nbar``, ``max_sun_zenith``), about displaced dates and the mask.

    Returns:
        One group without time. Dims (y, x), with ``segment`` and ``band`` in front where a value
        belongs to a break; breaks are stored in order of time, unused segments hold fill.
    """
    segment = ("segment", MAX_SEGMENTS)
    band = ("band", len(parameters.bands))
    arrays = (
        ArraySpec("n_breaks", "uint8", attrs=_attrs("number of breaks in the record", "1")),
        _date("date_lo", "last observation that fitted the curve before the break", segment),
        _date("date_hi", "first observation that did not fit the curve", segment),
        _date("date_est", "middle of date_lo and date_hi", segment),
        ArraySpec(
            "magnitude",
            "int16",
            (segment, band),
            NO_MAGNITUDE,
            {
                **_attrs("median difference of reflectance to the curve after the break", "1"),
                "scale_factor": SCALE,
            },
        ),
        ArraySpec("n_obs", "uint16", attrs=_attrs("observations that a curve was fitted to", "1")),
        _date("monitored_from", "first date at which a break could be seen to begin"),
        _date("monitored_to", "last date at which a break could begin and be confirmed"),
        ArraySpec(
            "qa_flags",
            "uint16",
            attrs={
                "long_name": "why the record of the pixel deserves care",
                "flag_masks": FLAG_MASKS,
                "flag_meanings": FLAG_MEANINGS,
            },
        ),
    )
    return ProductSpec(
        name=f"change-{name}",
        groups=(GroupSpec(resolution_m, arrays, {"band": parameters.bands}),),
        parameters={
            **parameters.as_attrs(),
            "resolution_m": resolution_m,
            **({"of": dict(of)} if of is not None else {}),
            **(also or {}),
        },
        has_time=False,
        title="Breaks in the seasonal course of surface reflectance",
    )


def _date(name: str, long_name: str, *lead: tuple[str, int]) -> ArraySpec:
    attrs = {"long_name": long_name, **_DAYS}
    return ArraySpec(name, "int32", tuple(lead), NO_DATE, attrs)


def _attrs(long_name: str, units: str) -> dict[str, Any]:
    return {"long_name": long_name, "units": units}
