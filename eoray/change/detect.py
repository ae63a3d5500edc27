"""Find breaks in the time series of every pixel of an array."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from eoray.change.flags import ChangeFlag
from eoray.change.parameters import MAX_SEGMENTS, NO_MAGNITUDE, ChangeParameters, resolve_rule
from eoray.change.series import make_series
from eoray.errors import DataError, GridError
from eoray.sentinel2 import FILL

if TYPE_CHECKING:
    from eoray.change.kernel import Output

BLOCK_PX = 2048
"""Pixels handed to a thread at a time; results do not depend on it."""

LINEAGE_DAYS = 60
"""A break this near to a step of processing is flagged."""


def detect_breaks(
    reflectance: np.ndarray,
    clear: np.ndarray,
    day: np.ndarray,
    *,
    parameters: ChangeParameters,
    orbit: np.ndarray | None = None,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Fit a harmonic curve to each pixel and report where it stops to hold.

    Args:
        reflectance: int16 surface reflectance x 10000, dims (time, band, y, x), bands in the order
            of ``parameters.bands``. Observations with the fill value in any band are left out.
        clear: True where the observation may be used, dims (time, y, x), bool.
        day: Integer (time), days since 1970-01-01, not decreasing; dates may repeat.
        parameters: What counts as a break.
        orbit: (time), values that tell relative orbits apart; None: one orbit.
        threads: Threads to use. The result is the same for any number.

    Returns:
        Arrays over (y, x), with leading dims where named, by name. Dates are days since 1970-01-01
        and 0 where there is none.

        - ``n_breaks`` uint8.
        - ``date_lo`` int32 (segment, y, x): last observation that fitted before the break.
        - ``date_hi`` int32 (segment, y, x): first observation that did not fit.
        - ``date_est`` int32 (segment, y, x): the middle of both. A slow decline is dated when it
          first leaves the curve, which is after its onset.
        - ``magnitude`` int16 (segment, band, y, x): reflectance x 10000, the median difference to
          the curve over the run that confirmed the break; -32768 where there is none.
        - ``n_obs`` uint16: observations that a curve was fitted to.
        - ``monitored_from``, ``monitored_to`` int32: between these dates a break could begin and
          be confirmed; 0 where never. After each break a new curve is learnt for a year, in which
          nothing can be found.
        - ``qa_flags`` uint16: bits of ``ChangeFlag``.

    Raises:
        GridError: Shapes do not belong together.
        DataError: Dates decrease.

    Source:
        The scheme of COLD (Zhu et al. 2020, Remote Sensing of Environment 238, 111116) with
        recursive ridge least squares in place of repeated lasso fits.
    """
    from eoray.change.engine import detect_pixels

    _check_inputs(reflectance, clear, day, parameters)
    n_time, n_band, height, width = reflectance.shape
    n_pixel = height * width
    if n_time == 0 or n_pixel == 0:
        return empty_result(n_band, height, width)
    out = _new_output(n_pixel, n_band)
    series = make_series(day, np.zeros(n_time, np.int64) if orbit is None else orbit)
    rule = resolve_rule(parameters)
    values = _frozen(reflectance.astype(np.int16, copy=False).reshape(n_time, n_band, n_pixel))
    usable = _frozen(clear.astype(bool, copy=False).reshape(n_time, n_pixel))

    def run(begin: int) -> None:
        end = min(begin + BLOCK_PX, n_pixel)
        axis = (series.date, series.design, series.n_orbits)
        detect_pixels(values, usable, begin, end, *axis, FILL, rule, out)

    starts = range(0, n_pixel, BLOCK_PX)
    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, starts))
    else:
        for begin in starts:
            run(begin)
    return _to_maps(out, height, width)


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache on disk.

    Takes up to 15 s on a machine that never ran them, and well under a second afterwards. The cache
    lies in ``__pycache__`` beside the module; where that cannot be written numba takes a folder of
    the user's own, or the one that the environment variable ``NUMBA_CACHE_DIR`` names.
    """
    parameters = ChangeParameters(bands=("B04",))
    detect_breaks(
        np.zeros((2, 1, 1, 1), np.int16),
        np.ones((2, 1, 1), bool),
        np.array([0, 5]),
        parameters=parameters,
    )


def last_break_date(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Take the date of the last break of each pixel.

    Args:
        arrays: Result of ``detect_breaks``: ``date_est`` with dims (segment, y, x).

    Returns:
        int32 (y, x), days since 1970-01-01, 0 where there is no break.
    """
    return np.asarray(arrays["date_est"]).max(axis=0).astype(np.int32)


def empty_result(n_band: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Result of a record without observations: insufficient everywhere."""
    out = _new_output(height * width, n_band)
    out.qa_flags[:] = int(ChangeFlag.INSUFFICIENT_RECORD)
    return _to_maps(out, height, width)


def flag_lineage(arrays: dict[str, np.ndarray], steps: Sequence[int]) -> None:
    """Set ``LINEAGE_STEP``, in place, where a break lies within 60 days of a step.

    Args:
        arrays: Result of ``detect_breaks``.
        steps: Days since 1970-01-01 at which the processing of the record changed.
    """
    lo, hi = arrays["date_lo"], arrays["date_hi"]
    near = np.zeros(arrays["qa_flags"].shape, bool)
    for day in steps:
        near |= ((lo > 0) & (lo - LINEAGE_DAYS <= day) & (day <= hi + LINEAGE_DAYS)).any(axis=0)
    arrays["qa_flags"][near] |= np.uint16(ChangeFlag.LINEAGE_STEP)


def flag_snow(arrays: dict[str, np.ndarray], clear: np.ndarray, snow: np.ndarray) -> None:
    """Set ``SNOW``, in place, where snow was seen more often than clear land.

    Args:
        arrays: Result of ``detect_breaks``.
        clear: True where the observation was used, dims (time, y, x).
        snow: True where it is snow, dims (time, y, x).
    """
    mostly = snow.sum(axis=0) > clear.sum(axis=0)
    arrays["qa_flags"][mostly] |= np.uint16(ChangeFlag.SNOW)


def _check_inputs(
    reflectance: np.ndarray, clear: np.ndarray, day: np.ndarray, parameters: ChangeParameters
) -> None:
    if reflectance.ndim != 4 or reflectance.shape[1] != len(parameters.bands):
        raise GridError(
            f"reflectance has shape {reflectance.shape}; change needs (time, band, y, x) with the "
            f"{len(parameters.bands)} bands {', '.join(parameters.bands)}"
        )
    n_time, _, height, width = reflectance.shape
    if clear.shape != (n_time, height, width):
        raise GridError(
            f"the clear mask has shape {clear.shape} but the reflectance {reflectance.shape}; "
            "read both over the same window and dates"
        )
    if day.shape != (n_time,) or np.any(np.diff(day) < 0):
        raise DataError(
            f"{day.shape} dates for {n_time} observations, or dates that go back in time; "
            "sort the record by time before calling"
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    # numba compiles once per layout and writability: always hand it a read-only C array.
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _new_output(n_pixel: int, n_band: int) -> Output:
    from eoray.change.kernel import Output

    return Output(
        n_breaks=np.zeros(n_pixel, np.uint8),
        date_lo=np.zeros((n_pixel, MAX_SEGMENTS), np.int32),
        date_hi=np.zeros((n_pixel, MAX_SEGMENTS), np.int32),
        magnitude=np.full((n_pixel, MAX_SEGMENTS, n_band), NO_MAGNITUDE, np.int16),
        n_obs=np.zeros(n_pixel, np.uint16),
        monitored_from=np.zeros(n_pixel, np.int32),
        monitored_to=np.zeros(n_pixel, np.int32),
        qa_flags=np.zeros(n_pixel, np.uint16),
    )


def _to_maps(out: Output, height: int, width: int) -> dict[str, np.ndarray]:
    maps = {}
    for name, array in out._asdict().items():
        cells = array.reshape(height, width, *array.shape[1:])
        maps[name] = np.ascontiguousarray(np.moveaxis(cells, (0, 1), (-2, -1)))
    lo, hi = maps["date_lo"], maps["date_hi"]
    maps["date_est"] = lo + (hi - lo) // 2
    return maps
