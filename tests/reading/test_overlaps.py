"""What two granules of a datatake differ by where both saw the ground."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eoray.reading.overlaps import (
    BandDifference,
    Overlap,
    compare_granules,
    pairs_of,
    summarise_overlaps,
)
from eoray.sentinel2 import Scl
from tests.reading.conftest import CORNER, Granules

ROW, COL = CORNER.row * 512, CORNER.col * 512
BANDS = ("B04", "B8A")


def brighter(arrays: dict[str, np.ndarray]) -> None:
    """Pixels of the southern granule: 40 DN more in B04, 1000 more that its offset takes away.

    Its northern edge lacks data in eight rows, ten further rows are cloud.
    """
    arrays["B04"] += 1040
    arrays["B8A"] += 1000
    arrays["SCL"][:8] = Scl.NO_DATA
    arrays["SCL"][8:18] = Scl.CLOUD_HIGH
    arrays["B04"][:36] = 60_000
    arrays["B04"][50, 200:210] = 0


def test_only_what_both_call_clear_is_compared(granules: Granules) -> None:
    north = granules.write("32UQU", row=ROW, col=COL + 100, height=120, width=300, dn_offset=0)
    south = granules.write(
        "32UQT", row=ROW + 70, col=COL, height=300, width=300, patch=brighter, dn_offset=-1000
    )
    ((first, second),) = pairs_of([north, south], CORNER)
    assert (first, second) == (south, north)
    found = compare_granules(first, second, CORNER, BANDS)
    assert (found.granules, found.tile) == (("32UQT", "32UQU"), CORNER.id)
    # 50 rows of 200 columns are in both files: 42 with data, 32 without cloud
    assert (found.pixels, found.clear) == (42 * 200, 32 * 200)
    assert found.scl_differs == pytest.approx(10 / 42, abs=1e-4)
    # the second less the first
    assert found.bands == {"B04": BandDifference(-40.0, 40.0), "B8A": BandDifference(0.0, 0.0)}


def test_what_is_resampled_or_of_one_granule_is_no_pair(granules: Granules) -> None:
    place: dict[str, Any] = {"row": ROW, "col": COL, "height": 40, "width": 40}
    own = granules.write("32UQU", **place)
    again = granules.write("32UQU_2", **place)
    off = granules.write("32UQV", shift_m=(10.0, 0.0), **place)
    foreign = granules.write("33UTP", zone=33, **place)
    apart = granules.write("32UQT", **{**place, "row": ROW + 40})
    assert list(pairs_of([own, again, off, foreign, apart], CORNER)) == []


def test_a_summary_speaks_of_sizes_not_of_directions() -> None:
    def overlap(mean: float, p95: float) -> Overlap:
        bands = {"B02": BandDifference(mean, p95)}
        return Overlap("S2A", ("32UQT", "32UQU"), CORNER.id, 900, 900, 0.0, bands)

    cloudy = Overlap("S2B", ("32UQT", "32UQU"), CORNER.id, 900, 0, 0.1)
    assert summarise_overlaps([overlap(-30.0, 50.0), cloudy, overlap(10.0, 70.0)]) == {
        "B02": {"datatakes": 2.0, "shift": 20.0, "shift_max": 30.0, "p95": 60.0}
    }
