"""From digital numbers to stored reflectance: offset removed, negatives kept, no clipping at 0."""

from __future__ import annotations

import numpy as np

from eoray.sentinel2 import DN_NODATA, DN_SATURATED, FILL, REFLECTANCE_MAX


def harmonise(dn: np.ndarray, dn_offset: int) -> np.ndarray:
    """Turn digital numbers into reflectance x 10 000.

    Args:
        dn: Digital numbers, any shape, uint16; 0 is no data.
        dn_offset: Added where DN > 0: -1000 for raw data of baseline 04.00 on, else 0.

    Returns:
        Same shape, int16: ``dn + dn_offset``, negative values kept, 32767 where it would be
        larger, -32768 where DN is 0.

    Source:
        ESA, Sentinel-2 processing baseline 04.00: the offset exists to keep negative values.
    """
    values = np.minimum(dn.astype("i4") + dn_offset, REFLECTANCE_MAX)
    return np.where(dn == DN_NODATA, FILL, values).astype("i2")


def saturated(dn: np.ndarray) -> np.ndarray:
    """True where the detector was saturated (DN 65535)."""
    return np.asarray(dn == DN_SATURATED)
