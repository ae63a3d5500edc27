"""Read windows of any product of a store, in one process, at one pinned snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from eoray.cube import resample, store
from eoray.cube.fetch import ShardReader
from eoray.cube.layout import ZarrArray, ZarrGroup, group_path, zone_path, zones_of
from eoray.cube.ledger import Ledger
from eoray.errors import ConfigError, StoreError
from eoray.grid import PixelWindow, Tile, Zone, lattice_of
from eoray.sentinel2 import UNUSABLE, Screen

__all__ = ["CubeReader", "CubeSource", "PixelWindow", "TimeTable", "open_reader"]

SCREEN = "screen"
"""Name of the product that judges the mask by each pixel's other dates."""


@dataclass(frozen=True, slots=True)
class CubeSource:
    """Where to read: a repository, pinned to a snapshot so that all tasks see the same."""

    url: str
    snapshot: str | None = None
    """Icechunk snapshot id; None reads the newest commit at the time of opening."""


@dataclass(frozen=True, slots=True)
class TimeTable:
    """Time entries of a product in one zone, sorted by time."""

    time: np.ndarray
    """datetime64[ms], UTC."""
    key: np.ndarray
    """Entry keys, str."""
    index: np.ndarray
    """Position of each entry on the stored axis, int."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further coordinates along time."""

    def __len__(self) -> int:
        """Count the entries."""
        return len(self.time)

    def between(self, start: Any, end: Any) -> TimeTable:
        """Keep entries with ``start <= time < end``."""
        low, high = np.datetime64(start, "ms"), np.datetime64(end, "ms")
        return self.where((self.time >= low) & (self.time < high))

    def where(self, keep: np.ndarray) -> TimeTable:
        """Keep entries where a boolean array is True."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        return TimeTable(self.time[keep], self.key[keep], self.index[keep], columns)


@lru_cache(maxsize=8)
def open_reader(source: CubeSource) -> CubeReader:
    """Open a reader, once per process and source."""
    return CubeReader(source)


class CubeReader:
    """Windows of stored arrays as numpy; open one per process with :func:`open_reader`."""

    def __init__(self, source: CubeSource) -> None:
        """Open the repository at the source's snapshot.

        Raises:
            StoreError: There is no repository, or no such snapshot.
        """
        self.source = source
        repository = store.open_repository(store.repository_url(source.url))
        if source.snapshot is None:
            self._session = repository.readonly_session(store.BRANCH)
        else:
            self._session = repository.readonly_session(snapshot_id=source.snapshot)
        self.snapshot: str = self._session.snapshot_id
        self._shards = ShardReader(self._session.store)
        self._zones: dict[str, list[Zone]] = {}
        self._resolutions: dict[tuple[str, Zone], list[int]] = {}
        self._listed: dict[tuple[str, Zone, int], list[tuple[str, ZarrArray]]] = {}
        self._arrays: dict[str, ZarrArray] = {}
        self._ledgers: dict[tuple[str, Zone], Ledger] = {}

    @property
    def token(self) -> tuple[str, ...]:
        """What is read, in a few words: dask names arrays by it."""
        return self.source.url, self.snapshot

    @cached_property
    def root(self) -> ZarrGroup:
        """The repository's root group, read only.

        Raises:
            StoreError: Nothing was ever committed.
        """
        import zarr
        from zarr.errors import GroupNotFoundError

        try:
            return zarr.open_group(self._session.store, mode="r")
        except GroupNotFoundError as error:
            raise StoreError(
                f"the cube at {self.source.url!r} is empty; run the cube stage first"
            ) from error

    def products(self) -> list[str]:
        """Names of the products that stand in the store."""
        return sorted(name for name, _ in self.root.groups())

    def zones(self, product: str) -> list[Zone]:
        """Zones in which a product stands, or the user's grid that it lies on."""
        if product not in self._zones:
            there = product in self.root
            self._zones[product] = zones_of(self.root[product]) if there else []
        return list(self._zones[product])

    def attrs(self, product: str) -> dict[str, Any]:
        """Parameters that a product was made with."""
        zones = self.zones(product)
        if not zones:
            raise StoreError(
                f"no product {product!r} in {self.source.url!r}; it holds "
                f"{', '.join(self.products()) or 'nothing'}"
            )
        return dict(self.root[zone_path(product, zones[0])].attrs["eoray:parameters"])

    def ledger(self, product: str, zone: Zone) -> Ledger:
        """The product's ledger in a zone, at this reader's snapshot; read once."""
        key = (product, zone)
        if key not in self._ledgers:
            self._ledgers[key] = Ledger(self.root, product, zone)
        return self._ledgers[key]

    def tiles(self, product: str) -> list[Tile]:
        """Tiles with at least one valid pixel at any entry."""
        tiles: set[Tile] = set()
        for zone in self.zones(product):
            ledger = self.ledger(product, zone)
            for entry in ledger.entries:
                found = np.argwhere(ledger.field("n_valid", entry) > 0)
                tiles.update(Tile(zone, int(row), int(col)) for row, col in found)
        return sorted(tiles)

    def entries(self, product: str, zone: Zone) -> TimeTable:
        """Time entries of a product in a zone, sorted by time."""
        ledger = self.ledger(product, zone)
        keys = np.array(ledger.entries, dtype=str)
        group = self._any_group(product, zone)
        if "time" not in group:
            zero = np.zeros(len(keys), "datetime64[ms]")
            return TimeTable(zero, keys, np.arange(len(keys)))
        time = group["time"][:].astype("datetime64[ms]")
        order = np.argsort(time, kind="stable")
        columns = {}
        for name, array in group.arrays():
            if name != "time" and array.metadata.dimension_names == ("time",):
                values = array[:]
                if values.dtype.kind in "OT":
                    values = np.array([str(value) for value in values], dtype=str)
                columns[name] = values[order]
        return TimeTable(time[order], keys[order], np.arange(len(keys))[order], columns)

    def read(
        self,
        product: str,
        zone: Zone,
        array: str = "reflectance",
        *,
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Read a window of one stored array.

        Args:
            product: Product name, such as ``s2``.
            zone: UTM zone.
            array: Name of the array in the group of ``resolution_m``.
            window: Zone pixels of that resolution; parts outside the zone are fill.
            resolution_m: 10 or 20.
            index: Positions on the stored time axis; None reads all. Not for products
                without time.

        Returns:
            Stored values, dims (time, ..., y, x), or without time where the product has none.
        """
        source = self._array(product, zone, resolution_m, array)
        has_time = source.metadata.dimension_names[0] == "time"
        if not has_time:
            return self._shards.read(source, None, window)
        positions = range(source.shape[0]) if index is None else [int(i) for i in index]
        return self._shards.read(source, positions, window)

    def read_bands(
        self,
        product: str,
        zone: Zone,
        *,
        bands: Sequence[str],
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray,
    ) -> np.ndarray:
        """Read any bands on one lattice.

        Bands of the other native pixel are resampled by the one rule of ``cube.resample``.

        Args:
            product: ``s2`` or a composite.
            zone: UTM zone.
            bands: Band ids, in the order wanted.
            window: Zone pixels of ``resolution_m``; even offsets and sizes are not required.
            resolution_m: 10 or 20, the lattice of the answer.
            index: Positions on the stored time axis.

        Returns:
            Dims (time, band, y, x), int16 as stored, fill -32768.

        Raises:
            ConfigError: The product lacks a band.
        """

        def read(wanted: Sequence[str], window: PixelWindow, level: int) -> np.ndarray:
            stored = self.bands(product, zone, level)
            missing = [b for b in wanted if b not in stored]
            if missing:
                raise ConfigError(
                    f"product {product!r} in zone {zone} has no band {missing[0]}; it holds "
                    f"{', '.join(self.bands(product, zone))}; add it to cube.bands and run the "
                    "cube stage again in a new store"
                )
            values = self.read(product, zone, window=window, resolution_m=level, index=index)
            return values[:, [stored.index(b) for b in wanted]]

        lattice = lattice_of(zone)
        return resample.join_levels(read, bands, len(index), window, resolution_m, lattice)

    def read_clear(
        self,
        zone: Zone,
        *,
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray,
        product: str = "s2",
        screen: bool = False,
    ) -> np.ndarray:
        """Tell where scenes are usable.

        Args:
            zone: UTM zone.
            window: Zone pixels of ``resolution_m``.
            resolution_m: 10 or 20.
            index: Positions on the stored time axis.
            product: The scenes.
            screen: Join the temporal screen to the mask: what it calls cloud or shadow is not
                clear, what it rescues is. Dates that it has not judged keep their mask.

        Returns:
            Dims (time, y, x), bool: no ``UNUSABLE`` quality bit, and mask 0. The 20 m mask is
            replicated at 10 m.
        """
        level = lattice_of(zone).coarse
        coarse = resample.source_window(window, resolution_m, level)
        mask = self.read(product, zone, "mask", window=coarse, resolution_m=level, index=index)
        quality = self.read(
            product, zone, "quality", window=window, resolution_m=resolution_m, index=index
        )
        clear = mask == 0
        if screen:
            bits = self._read_screen(product, zone, coarse, level, index)
            clear |= (bits & np.uint8(Screen.RESCUED)) > 0
            clear &= (bits & np.uint8(Screen.CLOUD | Screen.SHADOW)) == 0
        if resolution_m != level:
            clear = resample.replicate(clear, coarse, window, resolution_m)
        return np.asarray(clear & ((quality & UNUSABLE) == 0))

    def _read_screen(
        self,
        product: str,
        zone: Zone,
        window: PixelWindow,
        resolution_m: int,
        index: Sequence[int] | np.ndarray,
    ) -> np.ndarray:
        """``Screen`` bits of scenes, found by the keys of their entries; 0 where there are none."""
        keys = self.ledger(product, zone).entries
        at = {key: i for i, key in enumerate(self.ledger(SCREEN, zone).entries)}
        there = [i for i, position in enumerate(index) if keys[position] in at]
        out = np.zeros((len(index), window.height, window.width), np.uint8)
        out[there] = self.read(
            SCREEN,
            zone,
            SCREEN,
            window=window,
            resolution_m=resolution_m,
            index=[at[keys[index[i]]] for i in there],
        )
        return out

    def bands(self, product: str, zone: Zone, resolution_m: int | None = None) -> list[str]:
        """Band ids of a product at one resolution, or at all of them (10 m first)."""
        wanted = lattice_of(zone).levels if resolution_m is None else (resolution_m,)
        found: list[str] = []
        for res in wanted:
            path = f"{group_path(product, zone, res)}/band"
            found += [str(b) for b in self.root[path][:]] if path in self.root else []
        return found

    def resolutions(self, product: str, zone: Zone) -> list[int]:
        """Resolutions in metres at which a product is stored in a zone."""
        key = (product, zone)
        if key not in self._resolutions:
            group = self.root[zone_path(product, zone)]
            self._resolutions[key] = sorted(
                int(name[:-1]) for name, _ in group.groups() if name != "ledger"
            )
        return self._resolutions[key]

    def arrays(self, product: str, zone: Zone, resolution_m: int) -> list[tuple[str, ZarrArray]]:
        """Name and array of everything that has a y and an x, without the coordinates."""
        key = (product, zone, resolution_m)
        if key not in self._listed:
            group = self.root[group_path(product, zone, resolution_m)]
            self._listed[key] = sorted(
                (name, array)
                for name, array in group.arrays()
                if (array.metadata.dimension_names or ())[-2:] == ("y", "x")
            )
        return self._listed[key]

    def _any_group(self, product: str, zone: Zone) -> ZarrGroup:
        finest = self.resolutions(product, zone)[0]
        group: ZarrGroup = self.root[group_path(product, zone, finest)]
        return group

    def _array(self, product: str, zone: Zone, resolution_m: int, array: str) -> ZarrArray:
        path = f"{group_path(product, zone, resolution_m)}/{array}"
        if path in self._arrays:
            return self._arrays[path]
        if path not in self.root:
            raise StoreError(
                f"{self.source.url!r} holds no array {path!r}; run the stage that makes "
                f"{product!r}, or check the zone and resolution"
            )
        found: ZarrArray = self.root[path]
        self._arrays[path] = found
        return found
