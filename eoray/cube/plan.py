"""From scenes and tiles to tasks: which granules each tile meets, and who reads them.

Planet-scale plans hold millions of (tile, datatake) pairs, so pairs are found and kept as arrays,
zone by zone; a row is made when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, overload

import numpy as np

from eoray.cube.layout import TimeEntry
from eoray.cube.meet import Places, Swarm
from eoray.grid import Block, Cells, Tile, Tiles, Zone, blocks_of_tiles

if TYPE_CHECKING:
    from eoray.catalog.scene import Scene

BLOCK_ROWS, BLOCK_COLS = 12, 6
"""Tiles of a block: a granule is two of them, and a 1024 px block of a COG is decoded 1.2 times,
not 3.9. What is held at once grows with the columns alone."""

type Reads = tuple[Zone, list[Scene], np.ndarray, np.ndarray]
"""A zone, scenes, which of these each read takes, and for which block: dims (row, column, n_rows,
n_cols) x read."""


@dataclass(frozen=True, slots=True)
class SceneRow:
    """A datatake over a block of tiles: one task."""

    key: str
    entry: str
    block: Block
    tiles: tuple[Tile, ...]
    scenes: tuple[Scene, ...]
    sources: tuple[str, ...]
    """What each tile is made from, as the ledger keeps it."""

    def only(self, tiles: Sequence[Tile]) -> SceneRow:
        """The row reduced to some of its tiles."""
        kept = [(t, s) for t, s in zip(self.tiles, self.sources, strict=True) if t in tiles]
        ((block, members),) = blocks_of_tiles([t for t, _ in kept], _ALL)
        return replace(self, block=block, tiles=members, sources=tuple(s for _, s in sorted(kept)))


_ALL = 1 << 20
"""More tiles than any zone has along an edge."""


def block_numbers(cells: Cells) -> np.ndarray:
    """The block that each tile of a place lies in; the first begins at the place's own corner.

    A place that fits into a block is one.
    """
    down = (cells.rows - cells.rows.min()) // BLOCK_ROWS
    across = (cells.cols - cells.cols.min()) // BLOCK_COLS
    return np.asarray(down * (across.max() + 1) + across)


def plan_scenes(
    scenes: Sequence[Scene], tiles: Iterable[Tile]
) -> tuple[dict[Zone, list[TimeEntry]], SceneRows]:
    """Group scenes and tiles into time entries and tasks.

    Args:
        scenes: Resolved scenes of one lineage, any order.
        tiles: Tiles of the AOI.

    Returns:
        Entries by zone, and rows sorted by zone, time and block. Each (tile, datatake) that a
        scene touches is in exactly one row, and no row depends on the others.
    """
    takes = _Takes.of(scenes)
    swarm = Swarm(takes.scenes)
    entries: dict[Zone, list[TimeEntry]] = {}
    parts = []
    for cells in Tiles.of(tiles).parts:
        which, tile = Places(cells).met_by(swarm)
        if len(which):
            entries[cells.zone] = takes.entries(which)
            parts.append(_ZoneRows.of(cells, which, tile, takes))
    return entries, SceneRows(takes.scenes, parts)


def scenes_over(scenes: Sequence[Scene], tile: Tile) -> tuple[Scene, ...]:
    """Scenes that may hold pixels of a tile, or of what masks look at around it."""
    which, _ = Places(Tiles.of([tile]).parts[0]).met_by(Swarm(scenes))
    return tuple(scenes[i] for i in np.sort(which).tolist())


@dataclass(frozen=True, slots=True)
class _Takes:
    """Scenes by datatake."""

    scenes: tuple[Scene, ...]
    """In order of datatakes, and of ids within one."""
    number: np.ndarray
    """Of the datatake of each scene, in order of their first sensing time."""
    time: np.ndarray
    """Rank of the sensing time of each scene."""
    name: np.ndarray
    """Rank of the datatake's key of each scene."""

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> _Takes:
        ordered = sorted(scenes, key=attrgetter("sensing_time", "datatake", "item_id"))
        keys = {scene.datatake: None for scene in ordered}
        rank = dict(zip(keys, range(len(keys)), strict=True))
        ordered.sort(key=lambda scene: (rank[scene.datatake], scene.item_id))
        times = sorted({scene.sensing_time for scene in ordered})
        of_time = dict(zip(times, range(len(times)), strict=True))
        of_name = dict(zip(sorted(keys), range(len(keys)), strict=True))
        columns = [
            (rank[scene.datatake], of_time[scene.sensing_time], of_name[scene.datatake])
            for scene in ordered
        ]
        return cls(tuple(ordered), *np.array(columns, np.int64).reshape(-1, 3).T)

    def entries(self, which: np.ndarray) -> list[TimeEntry]:
        """Entries of the datatakes of some scenes."""
        found = np.unique(which)
        borders = np.flatnonzero(np.diff(self.number[found])) + 1
        return [
            _entry([self.scenes[i] for i in part.tolist()]) for part in np.split(found, borders)
        ]


@dataclass(frozen=True, slots=True)
class _ZoneRows:
    """Rows of one zone as columns."""

    cells: Cells
    rows: np.ndarray
    """Dims (first, end) x row: which of the places belong to it, in the order of rows."""
    tile: np.ndarray
    """Place: position of the tile in ``cells``."""
    pairs: np.ndarray
    """Place: where its scenes begin; one more at the end."""
    which: np.ndarray
    """Pair: position of the scene; ascending within a place."""

    @classmethod
    def of(cls, cells: Cells, which: np.ndarray, tile: np.ndarray, takes: _Takes) -> _ZoneRows:
        """Group pairs of scene and tile: a place is a tile in a datatake, a row a block in one."""
        block = block_numbers(cells)[tile]
        take = takes.number[which]
        order = np.lexsort((which, tile, block, take))
        which, tile, block, take = (part[order] for part in (which, tile, block, take))
        new_row = np.diff(block, prepend=-1) | np.diff(take, prepend=-1) != 0
        new_place = new_row | (np.diff(tile, prepend=-1) != 0)
        begins, pairs = np.flatnonzero(new_row), np.flatnonzero(new_place)
        first = np.searchsorted(pairs, begins)
        earliest = np.minimum.reduceat(which, begins)
        head = tile[begins]
        order = np.lexsort((head, takes.name[earliest], takes.time[earliest]))
        rows = np.stack([first, np.append(first[1:], len(pairs))])[:, order]
        # half the memory: positions of tiles and scenes are far from 2 ** 31
        tile, which = tile[pairs].astype(np.int32), which.astype(np.int32)
        return cls(cells, rows, tile, np.append(pairs, len(which)), which)

    def row(self, scenes: Sequence[Scene], number: int) -> SceneRow:
        """Make one row."""
        first, end = self.rows[:, number].tolist()
        ends = self.pairs[first : end + 1]
        which = self.which[ends[0] : ends[-1]].tolist()
        met = [tuple(which[a:b]) for a, b in pairwise((ends - ends[0]).tolist())]
        at = self.tile[first:end]
        rows, cols = self.cells.rows[at].tolist(), self.cells.cols[at].tolist()
        zone, top, left = self.cells.zone, min(rows), min(cols)
        tiles = tuple(Tile(zone, row, col) for row, col in zip(rows, cols, strict=True))
        sources = {found: _source(scenes[i] for i in found) for found in set(met)}
        members = tuple(scenes[i] for i in sorted(set(which)))
        return SceneRow(
            key=f"{members[0].datatake}/{tiles[0].id}x{len(tiles)}",
            entry=members[0].datatake,
            block=Block(zone, top, left, max(rows) - top + 1, max(cols) - left + 1),
            tiles=tiles,
            scenes=members,
            sources=tuple(sources[found] for found in met),
        )

    def reads(self) -> tuple[np.ndarray, np.ndarray]:
        """Which scenes each row reads: positions of scenes, and of their blocks.

        Returns:
            Scenes, and dims (row, column, n_rows, n_cols) x read: the block of tiles around them.
        """
        first, end = self.rows
        order = np.argsort(first)  # places lie in the order of datatake and block
        starts = first[order]
        row, col = self.cells.rows[self.tile], self.cells.cols[self.tile]
        top, left = np.minimum.reduceat(row, starts), np.minimum.reduceat(col, starts)
        height = np.maximum.reduceat(row, starts) - top + 1
        width = np.maximum.reduceat(col, starts) - left + 1
        number = np.repeat(
            np.arange(len(starts)), np.diff(self.pairs[np.append(starts, end.max())])
        )
        at, which = np.divmod(np.unique(number * 2**31 + self.which), 2**31)
        return which, np.stack([top, left, height, width])[:, at]


class SceneRows(Sequence[SceneRow]):
    """Rows sorted by zone, time and block: columns of numbers, of which rows are made one by one.

    A million tiles take some 30 MB here, and hundreds as objects.
    """

    def __init__(self, scenes: Sequence[Scene], parts: Sequence[_ZoneRows]) -> None:
        """Join zones; made by :func:`plan_scenes`."""
        self._known = scenes
        self._parts = parts
        self._ends = list(accumulate(part.rows.shape[1] for part in parts))

    def __len__(self) -> int:
        """How many."""
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[SceneRow]:
        """Rows in order."""
        for part in self._parts:
            for number in range(part.rows.shape[1]):
                yield part.row(self._known, number)

    @overload
    def __getitem__(self, index: int) -> SceneRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[SceneRow]: ...
    def __getitem__(self, index: int | slice) -> SceneRow | list[SceneRow]:
        """One row, or a list of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        at = bisect_right(self._ends, position)
        part = self._parts[at]
        return part.row(self._known, position - (self._ends[at] - part.rows.shape[1]))

    @property
    def n_places(self) -> int:
        """(tile, datatake) pairs of all rows."""
        return sum(len(part.tile) for part in self._parts)

    @property
    def n_tiles(self) -> int:
        """Distinct tiles of all rows."""
        return sum(len(np.unique(part.tile)) for part in self._parts)

    @property
    def zones(self) -> list[Zone]:
        """Zones that rows lie in."""
        return [part.cells.zone for part in self._parts]

    @property
    def scenes(self) -> list[Scene]:
        """Scenes that some row reads, in order of datatakes."""
        met = [np.unique(part.which) for part in self._parts]
        return [self._known[i] for i in np.unique(np.concatenate(met)).tolist()] if met else []

    def reads(self) -> Iterator[Reads]:
        """What all rows read, zone by zone: each scene once a row."""
        for part in self._parts:
            which, blocks = part.reads()
            met, at = np.unique(which, return_inverse=True)
            yield part.cells.zone, [self._known[i] for i in met.tolist()], at, blocks


def _source(scenes: Iterable[Scene]) -> str:
    """Ids with what decides their values; never hrefs, which may be signed."""
    return "; ".join(
        f"{s.item_id} baseline {s.baseline or '?'} offset {s.dn_offset:+d} ({s.offset_rule})"
        for s in scenes
    )


def _entry(scenes: Sequence[Scene]) -> TimeEntry:
    """The step of time of some scenes of one datatake."""
    first = scenes[0]
    refined = {s.refined for s in scenes}
    columns: dict[str, str | float | int] = {
        "solar_day": min(s.solar_day for s in scenes),
        "satellite": first.satellite,
        "relative_orbit": first.relative_orbit,
        "provider": _joined(s.provider for s in scenes),
        "baseline": _joined(s.baseline for s in scenes),
        "offset_rule": _joined(s.offset_rule for s in scenes),
        "refined": -1 if None in refined or len(refined) > 1 else int(bool(refined.pop())),
    }
    for name in ("sun_zenith", "sun_azimuth", "view_zenith", "view_azimuth"):
        columns[name] = float(np.mean([getattr(s, name) for s in scenes]))
    return TimeEntry(first.datatake, first.sensing_time, columns)


def _joined(values: Iterable[str]) -> str:
    return "+".join(sorted({value or "?" for value in values}))
