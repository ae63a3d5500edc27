"""What a product looks like in the store: arrays, shards, time entries, results of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eoray.grid import Lattice, Tile, Zone, lattice_of, zone_of_name

FORMAT_VERSION = 2
"""Version of the stored layout; raised when a reader of the old one would go wrong."""

GRID = "eoray:grid"
"""Attribute that describes a user's grid; zones of the world grid have none."""

CHUNK_PX = 128
"""Edge of an inner chunk: the cheapest random training chips of eight layouts measured."""

NEVER, DONE, DONE_WITH_HOLES, NO_SCENE = 0, 1, 2, 3
"""Values of the ledger's ``status``."""


ZarrGroup = Any
"""A ``zarr.Group``. zarr types each item as "array or group", which a path cannot narrow."""

ZarrArray = Any
"""A ``zarr.Array`` of format 3."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a group; its last two dims are always (y, x) of the zone."""

    name: str
    dtype: str
    """numpy dtype name, such as ``int16``."""
    lead: tuple[tuple[str, int], ...] = ()
    """(dim, size) of the dims between time and y, such as ``(("band", 4),)``."""
    fill: float = 0
    """Stored where nothing was written; a shard of fill only is not stored."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """CF attributes; ``_FillValue`` is added from ``fill``."""

    @property
    def lead_shape(self) -> tuple[int, ...]:
        """Sizes of the leading dims, without time."""
        return tuple(size for _, size in self.lead)


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """All arrays of a product at one resolution."""

    resolution_m: int
    arrays: tuple[ArraySpec, ...]
    coords: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels of leading dims, such as ``{"band": ("B02", ...)}``."""


@dataclass(frozen=True, slots=True)
class ProductSpec:
    """A product of the store: ``/{name}/{zone}/{res}`` and its ledger."""

    name: str
    groups: tuple[GroupSpec, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What can't differ within a product; a run with others is refused."""
    has_time: bool = True
    """False for products of one state, such as a change map."""
    title: str = ""

    def array(self, path: str) -> ArraySpec:
        """Return the array at ``"10m/reflectance"``."""
        res, name = path.split("/")
        for group in self.groups:
            if f"{group.resolution_m}m" == res:
                for array in group.arrays:
                    if array.name == name:
                        return array
        raise KeyError(path)


@dataclass(frozen=True, slots=True)
class TimeEntry:
    """One step of a product's time axis: a datatake, a period, or the whole record."""

    key: str
    """Unique within the product and zone; part of the checksum."""
    time: str
    """ISO 8601, UTC, to the millisecond: sensing time, or start of the period."""
    columns: Mapping[str, str | float | int] = field(default_factory=dict)
    """Further coordinates along time; the same names in every entry of a product."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A file that a tile needed and that could not be read."""

    item_id: str
    band: str
    """Band id, or SCL."""
    reason: str
    """An HTTP status such as ``503``, or a word of ``eoray.reading.reasons``."""
    detail: str = ""
    """What was said, without links."""
    attempts: int = 1
    host: str = ""
    """Server that was asked; for the log, not stored."""


@dataclass(frozen=True, slots=True)
class TileResult:
    """What a task made of one tile at one time entry. Pixels never leave the worker."""

    tile: Tile
    entry: str
    """Key of the time entry."""
    arrays: Mapping[str, np.ndarray]
    """``"10m/reflectance"`` -> leading dims (without time) + (y, x) of one whole tile."""
    status: int
    n_valid: int
    """Pixels of the finest group that hold an observation."""
    n_failed: int
    """Failed reads: (asset, tile) pairs that could not be read."""
    source: str
    """What it was made from in one line: item ids, baselines, offset rules, or a digest."""
    n_masked: int | None = None
    """Pixels of ``n_valid`` that the mask calls not clear; None without a mask."""
    n_reads: int = 0
    """Files that the tile needed, those that failed included."""
    holes: tuple[Hole, ...] = ()
    """Those that failed."""


def tile_px(resolution_m: int, zone: Zone = 1) -> int:
    """Pixels along the edge of a tile: 1024 at 10 m, 512 at 20 m, 1024 on a user's grid."""
    return lattice_of(zone).px(resolution_m)


def zone_path(product: str, zone: Zone) -> str:
    """Path of what a product holds in a zone, such as ``s2/z32``, or ``s2/alps120``."""
    return f"{product}/{lattice_of(zone).name}"


def group_path(product: str, zone: Zone, resolution_m: int) -> str:
    """Path of a group in the repository, such as ``s2/z32/10m``."""
    return f"{zone_path(product, zone)}/{resolution_m}m"


def ledger_path(product: str, zone: Zone) -> str:
    """Path of a product's ledger in one zone."""
    return f"{zone_path(product, zone)}/ledger"


def zone_shape(resolution_m: int, zone: Zone = 1) -> tuple[int, int]:
    """(y, x) pixels of a zone-wide array; all zones of the world grid are alike."""
    return lattice_of(zone).shape(resolution_m)


def zones_of(product: ZarrGroup) -> list[Zone]:
    """Zones, or the user's grid, in which a product stands."""
    return sorted(_zone_of_group(name, group) for name, group in product.groups())


def _zone_of_group(name: str, group: ZarrGroup) -> Zone:
    number = zone_of_name(name)
    return Lattice.from_attrs(group.attrs[GRID]) if number is None else number
