"""What a report says of the temporal screen and of registration, from the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.cube.read import SCREEN
from eoray.cube.registration import NAME, read_registration
from eoray.cube.scenes import PRODUCT
from eoray.grid import Tile, owner_mask, pixel_area_m2
from eoray.report.data import AlwaysCloud, DisplacedRow, RegistrationSummary, ScreenSummary
from eoray.sentinel2 import Mask, Screen

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader

GLOBAL_REFERENCE = np.datetime64("2021-08-23")
"""From that day on Sentinel-2 products are registered to the global reference image everywhere."""

WORST = 10
"""Displaced dates that are named."""

BINS_PX = np.round(np.arange(0, 1.2, 0.1), 1)
"""Lower edges of the histogram of shifts, in pixels of 10 m; the last bin is open."""

_DATES_AT_ONCE = 32
_SELDOM = 0.05


def registration_summary(reader: CubeReader, limit_px: float | None) -> RegistrationSummary | None:
    """Sum up what was measured of all tiles; None where nothing was."""
    if NAME not in reader.products():
        return None
    days, shifts, errors, names = [], [], [], []
    for zone in reader.zones(NAME):
        table = reader.entries(PRODUCT, zone)
        ledger = reader.ledger(NAME, zone)
        done = {key: {r.tile for r in ledger.receipts(key)} for key in ledger.entries}
        for tile in sorted(set().union(*done.values())):
            keep = np.array([tile in done.get(str(key), ()) for key in table.key])
            found = read_registration(reader, tile, [str(key) for key in table.key[keep]])
            days.append(table.time[keep].astype("datetime64[D]"))
            shifts.append(found.shift_m / 10)
            errors.append(found.error_m / 10)
            names += [tile.id] * int(keep.sum())
    if not days:
        return None
    return _summed(
        np.concatenate(days), np.concatenate(shifts), np.concatenate(errors), names, limit_px
    )


def _summed(
    day: np.ndarray,
    shift: np.ndarray,
    error: np.ndarray,
    tiles: Sequence[str],
    limit_px: float | None,
) -> RegistrationSummary:
    known = np.isfinite(shift)
    year = day.astype("datetime64[Y]").astype(int) + 1970
    beyond = np.zeros(len(day), bool)
    if limit_px is not None:
        beyond[known] = (shift - 2 * error)[known] > limit_px
    order = np.argsort(-np.where(known, shift, -1), kind="stable")[:WORST]
    bins = np.searchsorted(BINS_PX, shift[known], side="right") - 1
    return RegistrationSummary(
        limit_px=limit_px,
        n_measured=int(known.sum()),
        n_unknown=int((~known).sum()),
        n_beyond=int(beyond.sum()),
        by_year={int(y): _levels(shift[known & (year == y)]) for y in np.unique(year[known])},
        before=_levels(shift[known & (day < GLOBAL_REFERENCE)]),
        since=_levels(shift[known & (day >= GLOBAL_REFERENCE)]),
        histogram={
            f"{edge:.1f}": int(count)
            for edge, count in zip(BINS_PX, np.bincount(bins, minlength=len(BINS_PX)), strict=True)
        },
        worst=tuple(
            DisplacedRow(
                str(day[i]), tiles[i], float(shift[i]), float(error[i]), left_out=bool(beyond[i])
            )
            for i in order
            if known[i]
        ),
    )


def _levels(shift: np.ndarray) -> tuple[int, float, float] | None:
    """(dates, median, 95th percentile)."""
    if not len(shift):
        return None
    return len(shift), float(np.median(shift)), float(np.quantile(shift, 0.95))


def screen_summary(reader: CubeReader) -> ScreenSummary | None:
    """Sum up the screen's verdicts over the owned pixels of all tiles; None where there is none."""
    if SCREEN not in reader.products():
        return None
    counts: dict[int, np.ndarray] = {}
    always: list[AlwaysCloud] = []
    for tile in reader.tiles(SCREEN):
        always += _count_tile(reader, tile, counts)
    return ScreenSummary(
        by_year={year: _shares(total) for year, total in sorted(counts.items()) if total[0]},
        always_cloud=tuple(sorted(always, key=lambda row: -row.area_m2)),
    )


_KINDS = ("missed_cloud", "missed_shadow", "rescued", "unjudged", "clear", "clear_with_screen")


def _shares(total: np.ndarray) -> dict[str, float]:
    return {name: float(total[i + 1] / total[0]) for i, name in enumerate(_KINDS)}


def _count_tile(reader: CubeReader, tile: Tile, counts: dict[int, np.ndarray]) -> list[AlwaysCloud]:
    """Add a tile's pixels by year; give the bright targets that the mask never lets pass."""
    level = tile.lattice.coarse
    owned = owner_mask(tile, level)
    ledger = reader.ledger(SCREEN, tile.zone)
    table = reader.entries(PRODUCT, tile.zone)
    at = {key: i for i, key in enumerate(ledger.entries) if ledger.get(tile, key) is not None}
    keep = np.array([str(key) in at for key in table.key])
    table = table.where(keep)
    years = table.time.astype("datetime64[Y]").astype(int) + 1970
    where: dict[str, Any] = {"window": tile.window(level), "resolution_m": level}
    often = np.zeros((3, *owned.shape), np.uint16)
    for start in range(0, len(table), _DATES_AT_ONCE):
        some = slice(start, start + _DATES_AT_ONCE)
        mask = reader.read(PRODUCT, tile.zone, "mask", index=table.index[some], **where)
        index = [at[str(key)] for key in table.key[some]]
        bits = reader.read(SCREEN, tile.zone, SCREEN, index=index, **where)
        seen = ((mask & np.uint8(Mask.INVALID)) == 0) & owned
        clear, rescued = seen & (mask == 0), seen & ((bits & np.uint8(Screen.RESCUED)) > 0)
        lost = seen & ((bits & np.uint8(Screen.CLOUD | Screen.SHADOW)) > 0)
        layers = [seen]
        layers += [seen & ((bits & np.uint8(bit)) > 0) for bit in Screen]
        layers += [clear, (clear | rescued) & ~lost]
        sums = np.array([layer.sum(axis=(1, 2)) for layer in layers])
        for year in np.unique(years[some]):
            total = sums[:, years[some] == year].sum(axis=1)
            counts[int(year)] = counts.get(int(year), 0) + total
        often += np.array([part.sum(axis=0, dtype=np.uint16) for part in (seen, clear, rescued)])
    n_seen, n_clear, n_rescued = often
    stuck = (n_clear < _SELDOM * n_seen) & (n_rescued > n_seen * 0.25)
    if not stuck.any():
        return []
    area_m2 = float(pixel_area_m2(tile, level)[stuck].sum())
    return [AlwaysCloud(tile.id, int(stuck.sum()), area_m2)]
