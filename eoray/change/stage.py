"""The change stage: which dates each tile is judged by, and the task that judges it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eoray.catalog.lineage import baseline_family
from eoray.change.detect import detect_breaks, empty_result, flag_lineage, flag_snow
from eoray.change.parameters import ChangeParameters
from eoray.change.product import ENTRY
from eoray.cube.layout import DONE, NO_SCENE, TileResult, TimeEntry, tile_px
from eoray.cube.nbar import Views, check_views, known_views, read_views, to_nadir
from eoray.cube.read import CubeReader, CubeSource, PixelWindow, TimeTable, open_reader
from eoray.cube.registration import read_registration
from eoray.errors import ConfigError, GridError
from eoray.grid import Tile, Zone
from eoray.sentinel2 import Mask
from eoray.timeline import DateRange

if TYPE_CHECKING:
    from eoray.cube.ledger import Ledger

PRODUCT = "s2"
"""What change is looked for in."""

_CHUNK_PX = 128
"""Edge of a stored chunk; a window cut elsewhere decodes chunks twice."""

_WINDOW_BYTES = 192 << 20
"""Reflectance held at once; with the reader's own copies a worker stays under 1 GB."""


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One task: the whole record of one tile."""

    key: str
    entry: str
    tiles: tuple[Tile, ...]
    """The one tile."""
    scenes: tuple[str, ...]
    """Keys of the ``s2`` entries that the row reads."""
    positions: tuple[int, ...]
    """Where they are stored on the time axis, in order of time."""
    days: tuple[int, ...]
    """Their UTC days since 1970-01-01."""
    orbits: tuple[int, ...]
    """Their relative orbits."""
    steps: tuple[int, ...]
    """Days at which the processing baseline or the refinement state changed."""
    nbar: bool = False
    """Whether reflectance is taken to the nadir view."""

    def only(self, tiles: Sequence[Tile]) -> ChangeRow:
        """The row itself: it has one tile."""
        if tuple(tiles) != self.tiles:
            raise GridError(
                f"row {self.key} owns {self.tiles[0].id} and cannot be cut to "
                f"{', '.join(t.id for t in tiles)}; change plans one tile a row"
            )
        return self


def plan_change(
    reader: CubeReader,
    tiles: Sequence[Tile],
    *,
    days: DateRange | None = None,
    allow_mixed: bool = False,
    nbar: Literal["auto"] | bool = False,
    max_sun_zenith: float | None = None,
) -> tuple[dict[Zone, list[TimeEntry]], list[ChangeRow]]:
    """Plan one row per tile that has any scene.

    Args:
        reader: The store that holds the ``s2`` product.
        tiles: Tiles wanted; those without a scene are left out.
        days: Part of the record to use; None uses all of it.
        allow_mixed: Accept a record of several lineages.
        nbar: Take reflectance to the nadir view; "auto": in tiles that several relative orbits
            see and whose angles are known for every date.
        max_sun_zenith: Degrees; dates under a lower sun are left out. Dates whose sun is not
            known stay.

    Returns:
        The one entry ``all`` by zone, and rows in order of tile.

    Raises:
        ConfigError: The record mixes lineages and that is not allowed, or angles are not known
            and ``nbar`` is wanted.
    """
    entries: dict[Zone, list[TimeEntry]] = {}
    rows: list[ChangeRow] = []
    for zone in sorted({tile.zone for tile in tiles} & set(reader.zones(PRODUCT))):
        table, ledger = reader.entries(PRODUCT, zone), reader.ledger(PRODUCT, zone)
        if days is not None:
            start, end = (moment.replace(tzinfo=None) for moment in days.bounds)
            table = table.between(start, end)
        table = _under_the_sun(table, max_sun_zenith)
        check_lineage(table, allow_mixed=allow_mixed, zone=zone)
        planned = [
            _plan_row(ledger, table, tile) for tile in sorted(t for t in tiles if t.zone == zone)
        ]
        found = [row for row in planned if row is not None]
        rows += [replace(row, nbar=_wants_nbar(reader, row, nbar=nbar)) for row in found]
        if found:
            entries[zone] = [TimeEntry(ENTRY, "1970-01-01T00:00:00.000Z")]
    return entries, rows


def _under_the_sun(table: TimeTable, max_sun_zenith: float | None) -> TimeTable:
    """Leave out dates under a low sun; a zenith that is not known leaves nothing out."""
    if max_sun_zenith is None or "sun_zenith" not in table.columns:
        return table
    return table.where(~(table.columns["sun_zenith"] > max_sun_zenith))


def _wants_nbar(reader: CubeReader, row: ChangeRow, *, nbar: Literal["auto"] | bool) -> bool:
    if nbar is False or (nbar == "auto" and len(set(row.orbits)) < 2):
        return False
    (tile,) = row.tiles
    views = read_views(reader, PRODUCT, tile.zone, row.positions)
    if nbar == "auto":
        return all(known_views(views, tile))
    check_views(views, tile)
    return True


def check_lineage(table: TimeTable, *, allow_mixed: bool, zone: Zone) -> None:
    """Refuse a record whose values changed for reasons other than the ground.

    Args:
        table: Entries of the ``s2`` product.
        allow_mixed: Accept it; breaks near a step are then flagged, not prevented.
        zone: For the message.

    Raises:
        ConfigError: Several families of processing baselines, or several providers.
    """
    if allow_mixed or len(table) == 0:
        return
    for name, key in (("baseline", baseline_family), ("provider", str)):
        found = sorted({key(str(value)) for value in table.columns.get(name, ())})
        if len(found) > 1:
            raise ConfigError(
                f"the record of zone {zone} mixes {name}s: {', '.join(found)}; their differences "
                "look like change, so read one lineage (source.lineage), or say "
                "change.allow_mixed: true and mind the flag lineage_step"
            )


def _plan_row(ledger: Ledger, table: TimeTable, tile: Tile) -> ChangeRow | None:
    receipts = [ledger.get(tile, str(key)) for key in table.key]
    seen = np.array([r is not None and r.n_valid > 0 for r in receipts], bool)
    if not seen.any():
        return None
    part = table.where(seen)
    days = part.time.astype("datetime64[D]").astype(np.int64)
    return ChangeRow(
        key=f"{ENTRY}/{tile.id}",
        entry=ENTRY,
        tiles=(tile,),
        scenes=tuple(str(key) for key in part.key),
        positions=tuple(int(i) for i in part.index),
        days=tuple(int(day) for day in days),
        orbits=tuple(int(o) for o in part.columns["relative_orbit"]),
        steps=tuple(_steps(part, days)),
    )


def _steps(table: TimeTable, days: np.ndarray) -> Iterator[int]:
    """Days at which the state of processing differs from that of the date before."""
    names = [name for name in ("baseline", "refined", "provider") if name in table.columns]
    states = list(zip(*(table.columns[name].tolist() for name in names), strict=True))
    for i in range(1, len(states)):
        if states[i] != states[i - 1]:
            yield int(days[i])


def drop_displaced(reader: CubeReader, row: ChangeRow, limit_px: float) -> ChangeRow:
    """Leave out the dates of a row that lie too far from the tile's reference.

    Args:
        reader: The store; dates without a measurement stay.
        row: As planned.
        limit_px: In pixels of 10 m.

    Returns:
        The row with at least one date: a tile whose dates are all displaced keeps the first.
    """
    displaced = read_registration(reader, row.tiles[0], row.scenes).beyond(limit_px)
    keep = [i for i, is_off in enumerate(displaced) if not is_off] or [0]
    return replace(
        row,
        scenes=tuple(row.scenes[i] for i in keep),
        positions=tuple(row.positions[i] for i in keep),
        days=tuple(row.days[i] for i in keep),
        orbits=tuple(row.orbits[i] for i in keep),
    )


@dataclass(frozen=True, slots=True)
class ChangeWorker:
    """Looks for breaks in all pixels of a tile, window by window."""

    source: CubeSource
    parameters: ChangeParameters
    resolution_m: int = 20
    threads: int = 1
    """Threads within the task; results do not depend on them."""
    screen: bool = False
    """Whether the temporal screen joins the mask."""
    max_shift_px: float | None = None
    """Dates that lie further off the reference, in pixels of 10 m, are left out; None keeps all."""

    def __call__(self, row: ChangeRow) -> list[TileResult]:
        """Judge one tile.

        Returns:
            One result; ``n_valid`` counts the pixels that were monitored.
        """
        reader = open_reader(self.source)
        if self.max_shift_px is not None:
            row = drop_displaced(reader, row, self.max_shift_px)
        (tile,) = row.tiles
        px = tile_px(self.resolution_m, tile.zone)
        whole = tile.window(self.resolution_m)
        arrays = empty_result(len(self.parameters.bands), px, px)
        width = _window_width(len(row.positions), len(self.parameters.bands), px, self.threads)

        def judge(corner: tuple[int, int]) -> None:
            top, left = corner
            window = PixelWindow(
                whole.row_off + top,
                whole.col_off + left,
                min(_CHUNK_PX, px - top),
                min(width, px - left),
            )
            space = (slice(top, top + window.height), slice(left, left + window.width))
            for name, values in self._window(reader, row, window).items():
                arrays[name][(..., *space)] = values

        corners = product(range(0, px, _CHUNK_PX), range(0, px, width))
        with ThreadPoolExecutor(self.threads) as pool:
            # while one thread reads, another one fits
            list(pool.map(judge, corners))
        n_valid = int((arrays["monitored_from"] > 0).sum())
        paths = {f"{self.resolution_m}m/{name}": values for name, values in arrays.items()}
        status = DONE if (arrays["n_obs"] > 0).any() else NO_SCENE
        source = f"{len(row.scenes)} entries of {PRODUCT}"
        return [TileResult(tile, row.entry, paths, status, n_valid, 0, source)]

    def _window(
        self, reader: CubeReader, row: ChangeRow, window: PixelWindow
    ) -> dict[str, np.ndarray]:
        """Judge a window; only the part of it that was ever seen clear is read and fitted."""
        where = self._where(row, window)
        if self.screen:
            clear = reader.read_clear(row.tiles[0].zone, screen=True, **where)
        else:
            clear = reader.read_clear(row.tiles[0].zone, **where)
        out = empty_result(len(self.parameters.bands), window.height, window.width)
        seen = clear.any(axis=0)
        if seen.any():
            self._judge(reader, row, window, clear, seen, out)
        if self.resolution_m == row.tiles[0].lattice.coarse:
            mask = reader.read(PRODUCT, row.tiles[0].zone, "mask", **self._where(row, window))
            flag_snow(out, clear, (mask & int(Mask.SNOW)) > 0)
        return out

    def _judge(
        self,
        reader: CubeReader,
        row: ChangeRow,
        window: PixelWindow,
        clear: np.ndarray,
        seen: np.ndarray,
        out: dict[str, np.ndarray],
    ) -> None:
        """Write the results of the part of a window that was seen."""
        rows, cols = (_extent(seen.any(axis=axis)) for axis in (1, 0))
        part = PixelWindow(
            window.row_off + rows.start,
            window.col_off + cols.start,
            rows.stop - rows.start,
            cols.stop - cols.start,
        )
        for name, values in self._part(reader, row, part, clear[:, rows, cols]).items():
            out[name][..., rows, cols] = values

    def _part(
        self, reader: CubeReader, row: ChangeRow, window: PixelWindow, clear: np.ndarray
    ) -> dict[str, np.ndarray]:
        zone, where = row.tiles[0].zone, self._where(row, window)
        values = reader.read_bands(PRODUCT, zone, bands=self.parameters.bands, **where)
        if row.nbar:
            to_nadir(
                values,
                _views(self.source, zone, row.positions),
                bands=self.parameters.bands,
                zone=zone,
                window=window,
                resolution_m=self.resolution_m,
            )
        found = detect_breaks(
            values,
            clear,
            np.array(row.days, np.int64),
            parameters=self.parameters,
            orbit=np.array(row.orbits),
        )
        flag_lineage(found, row.steps)
        return found

    def _where(self, row: ChangeRow, window: PixelWindow) -> dict[str, Any]:
        index = np.array(row.positions)
        return {"window": window, "resolution_m": self.resolution_m, "index": index}


@lru_cache(maxsize=4)
def _views(source: CubeSource, zone: Zone, positions: tuple[int, ...]) -> Views:
    """Angles of a row's dates, read once for all its windows."""
    return read_views(open_reader(source), PRODUCT, zone, positions)


def _extent(any_of: np.ndarray) -> slice:
    """From the first to the last True."""
    found = np.flatnonzero(any_of)
    return slice(int(found[0]), int(found[-1]) + 1)


def _window_width(n_time: int, n_band: int, px: int, threads: int) -> int:
    """Columns read at once: whole chunks, as many as the memory allows."""
    per_chunk = n_time * n_band * 2 * _CHUNK_PX * _CHUNK_PX
    chunks = max(1, _WINDOW_BYTES // threads // max(per_chunk, 1))
    return int(min(px, chunks * _CHUNK_PX))
