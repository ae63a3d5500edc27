"""Compare a cube with its source files, by sampling or whole, on a path of its own.

GDAL reads the files, four lines choose the granule of each pixel, the offset rule is applied, and
every value must be the stored one. What a rule cannot tell is looked up in the data: whether the
baseline offset that it assumes is in the pixels at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray import storage
from eoray.catalog.offset import FIRST_WITH_OFFSET, NON_OPERATIONAL
from eoray.cube.plan import plan_scenes
from eoray.cube.read import CubeReader, CubeSource
from eoray.errors import EorayError, StoreError
from eoray.grid import PixelWindow
from eoray.reading.gdal import TIMEOUTS, GdalFile
from eoray.reading.persist import GaveUpError, persist
from eoray.reading.requests import Patience
from eoray.reading.window import file_offset, is_copied
from eoray.sentinel2 import FILL, REFLECTANCE_MAX, Quality, Scl

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.cube.plan import SceneRow
    from eoray.grid import Tile

_Stored = Callable[[str, PixelWindow, int], np.ndarray]
"""Gives (array, window, level) of one date."""

SAMPLES = 20
EDGE_PX = 64
"""Edge of a sampled window in pixels of SCL."""

_DARK = (Scl.DARK, Scl.CLOUD_SHADOW, Scl.WATER)
_LEAST_DARK = 100
"""Fewer dark pixels tell nothing."""

_STEP = 4
"""Every so many pixels of a tile are looked at for dark ones."""

_SKIPPED = Quality.FAILED_READ | Quality.FOREIGN_ZONE


@dataclass(slots=True)
class SourceReport:
    """What was compared, and what differs."""

    samples: int = 0
    """Windows that were compared."""
    values: int = 0
    """Stored numbers that were compared."""
    mismatches: list[str] = field(default_factory=list)
    """One for each file of a window with other values."""
    offsets: list[str] = field(default_factory=list)
    """Items whose pixels contradict the offset rule that was applied to them."""
    unread: list[str] = field(default_factory=list)
    """Files that could not be read now: they prove nothing."""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "samples": self.samples,
            "values": self.values,
            "mismatches": self.mismatches,
            "offsets": self.offsets,
            "unread": self.unread,
        }

    @property
    def problems(self) -> list[str]:
        """What is wrong with the cube."""
        return [*self.mismatches, *self.offsets]


def check_source(url: str, *, samples: int | None = SAMPLES, seed: int = 0) -> SourceReport:
    """Read windows of the scene product again from the source, and compare each value.

    Args:
        url: The store folder.
        samples: Random windows of ``EDGE_PX`` pixels of 20 m; None for every tile of every date.
        seed: Chooses them.

    Raises:
        StoreError: There is no cube, or no run whose items were frozen beside it.
    """
    reader = CubeReader(CubeSource(url))
    places = places_of(url, reader)
    if not places:
        raise StoreError(
            f"the store {url!r} holds no scenes whose items are known; they are frozen in _eoray "
            "by the run that made the cube: check the store folder, not a copy of its repository"
        )
    chance, report = random.Random(seed), SourceReport()  # noqa: S311 - a sample, no secret
    judged: set[str] = set()
    for row, tile in _drawn(places, samples, chance):
        try:
            _compare(reader, row, tile, None if samples is None else chance, report)
            for scene in row.scenes:
                if scene.item_id not in judged:
                    judged.add(scene.item_id)
                    report.offsets += _doubts(scene, tile)
        except (EorayError, OSError) as error:
            report.unread.append(f"{tile.id} at {row.entry}: {' '.join(str(error).split())[:200]}")
    return report


def _drawn(
    places: list[tuple[SceneRow, Tile]], samples: int | None, chance: random.Random
) -> list[tuple[SceneRow, Tile]]:
    if samples is None:
        return places
    many = samples <= len(places)
    return chance.sample(places, samples) if many else chance.choices(places, k=samples)


def places_of(url: str, reader: CubeReader) -> list[tuple[SceneRow, Tile]]:
    """Tiles and dates that hold an observation, with the scenes of the run that made them."""
    found: dict[tuple[str, str], tuple[SceneRow, Tile]] = {}
    ledgers = {zone: reader.ledger("s2", zone) for zone in reader.zones("s2")}
    for row in _known_rows(url, reader.tiles("s2")):
        for tile, source in zip(row.tiles, row.sources, strict=True):
            receipt = ledgers[tile.zone].get(tile, row.entry)
            if receipt is not None and receipt.source == source and receipt.n_valid:
                found[tile.id, row.entry] = row.only([tile]), tile
    return [found[key] for key in sorted(found)]


def _known_rows(url: str, tiles: Sequence[Tile]) -> Iterator[SceneRow]:
    """Rows of all runs whose items stand frozen beside the cube."""
    from eoray.catalog.snapshot import read_snapshot
    from eoray.config import parse_config
    from eoray.run.planning import resolve_items

    runs = storage.join(url, "_eoray", "runs")
    for key in storage.list_names(runs):
        file, items = storage.join(runs, key, "run.yaml"), storage.join(runs, key, "items.parquet")
        if storage.exists(file) and storage.exists(items):
            config = parse_config(storage.read_bytes(file).decode())
            yield from plan_scenes(resolve_items(config, read_snapshot(items)[0]).scenes, tiles)[1]


def _compare(
    reader: CubeReader,
    row: SceneRow,
    tile: Tile,
    chance: random.Random | None,
    report: SourceReport,
) -> None:
    """Compare a random window of a tile, or without a chance the tile."""
    lattice = tile.lattice
    table = reader.entries("s2", tile.zone)
    index = int(table.index[table.key == row.entry][0])

    def stored(name: str, window: PixelWindow, resolution_m: int) -> np.ndarray:
        found: np.ndarray = reader.read(
            "s2", tile.zone, name, window=window, resolution_m=resolution_m, index=[index]
        )[0]
        return found

    whole = tile.window(lattice.coarse)
    window = whole if chance is None else _window_of_valid(tile, stored, chance)
    quality = stored("quality", window, lattice.coarse)
    scenes = [s for s in row.scenes if is_copied(s, tile.zone)]
    number, scl = _choose(scenes, tile, window)
    _note(report, row, tile, "SCL", scl, stored("scl", window, lattice.coarse),
          (quality & np.uint8(_SKIPPED)) == 0)  # fmt: skip
    for resolution_m in lattice.levels:
        factor = lattice.coarse // resolution_m
        fine = PixelWindow(*(factor * edge for edge in _edges(window)))
        quality = stored("quality", fine, resolution_m)
        compared = (quality & np.uint8(_SKIPPED)) == 0
        bands = reader.bands("s2", tile.zone, resolution_m)
        values = stored("reflectance", fine, resolution_m) if bands else np.empty((0, 0, 0))
        for band, plane in zip(bands, values, strict=True):
            expected = _expected(scenes, number, tile, band, fine, resolution_m)
            _note(report, row, tile, band, expected, plane, compared)
    report.samples += 1


def _edges(window: PixelWindow) -> tuple[int, int, int, int]:
    return window.row_off, window.col_off, window.height, window.width


def _window_of_valid(tile: Tile, stored: _Stored, chance: random.Random) -> PixelWindow:
    """A window around a random observation, or around any pixel where 20 m hold none."""
    whole = tile.window(tile.lattice.coarse)
    quality = stored("quality", whole, tile.lattice.coarse)
    rows, cols = np.nonzero((quality & np.uint8(Quality.NO_DATA)) == 0)
    n = chance.randrange(max(1, len(rows)))
    row, col = (int(found[n]) if len(found) else EDGE_PX for found in (rows, cols))
    top = min(max(0, row - EDGE_PX // 2), whole.height - EDGE_PX)
    left = min(max(0, col - EDGE_PX // 2), whole.width - EDGE_PX)
    return PixelWindow(whole.row_off + top, whole.col_off + left, EDGE_PX, EDGE_PX)


def _choose(
    scenes: Sequence[Scene], tile: Tile, window: PixelWindow
) -> tuple[np.ndarray, np.ndarray]:
    """(number of the scene, SCL) of each pixel: the valid one whose file's centre is nearest."""
    number = np.full((window.height, window.width), -1)
    scl = np.zeros(number.shape, np.uint8)
    nearest = np.full(number.shape, np.inf, np.float32)
    x, y = tile.lattice.centres(window, tile.lattice.coarse)
    order = sorted(range(len(scenes)), key=lambda n: scenes[n].item_id)
    for n in order:
        asset = scenes[n].extent
        a, _, c, _, e, f = asset.transform
        far_x = ((x - (c + a * asset.shape[1] / 2)) ** 2).astype(np.float32)
        far_y = ((y - (f + e * asset.shape[0] / 2)) ** 2).astype(np.float32)
        far = far_x[None, :] + far_y[:, None]
        found = _read(asset, tile, window, tile.lattice.coarse)
        if asset.band != "SCL":
            found = np.where(found == asset.nodata, Scl.NO_DATA, Scl.UNCLASSIFIED)
        takes = (found != Scl.NO_DATA) & (far < nearest)
        number[takes], scl[takes], nearest[takes] = n, found[takes], far[takes]
    return number, scl


def _expected(
    scenes: Sequence[Scene],
    number: np.ndarray,
    tile: Tile,
    band: str,
    window: PixelWindow,
    resolution_m: int,
) -> np.ndarray:
    """What a band must hold, int16."""
    factor = tile.lattice.coarse // resolution_m
    chosen = number.repeat(factor, axis=0).repeat(factor, axis=1)
    out = np.full(chosen.shape, FILL, np.int32)
    for n in np.unique(number[number >= 0]):
        dn = _read(scenes[n].asset(band), tile, window, resolution_m).astype(np.int32)
        value = np.where(dn == 0, FILL, np.minimum(dn + scenes[n].dn_offset, REFLECTANCE_MAX))
        out[chosen == n] = value[chosen == n]
    return out.astype(np.int16)


def _read(asset: BandAsset, tile: Tile, window: PixelWindow, resolution_m: int) -> np.ndarray:
    """Stored integers by GDAL; nodata outside of the file."""
    import rasterio
    from rasterio.windows import Window

    row, col = file_offset(asset, window, resolution_m, tile.zone)
    place = Window(-col, -row, window.width, window.height)

    def read(patience: Patience) -> np.ndarray:
        with rasterio.Env(**TIMEOUTS), GdalFile(asset.href, patience) as file:
            values: np.ndarray = file.dataset.read(
                1, window=place, boundless=True, fill_value=asset.nodata
            )
        return values

    try:
        return persist(read, asset.href, Patience())
    except GaveUpError as gave_up:
        raise (gave_up.__cause__ or gave_up) from None


def _note(
    report: SourceReport,
    row: SceneRow,
    tile: Tile,
    band: str,
    expected: np.ndarray,
    found: np.ndarray,
    compared: np.ndarray,
) -> None:
    report.values += int(compared.sum())
    wrong = (expected != found) & compared
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        report.mismatches.append(
            f"s2 tile {tile.id} at {row.entry}: {int(wrong.sum())} of {int(compared.sum())} values "
            f"of {band} are not those of {', '.join(s.item_id for s in row.scenes)}; the first is "
            f"{int(found[at])}, the source gives {int(expected[at])}"
        )


def _doubts(scene: Scene, tile: Tile) -> list[str]:
    """Whether dark ground of a scene contradicts the offset that is added to it."""
    bands = [b for b in ("B12", "B11", "B8A") if any(a.band == b for a in scene.assets)]
    if not bands or scene.extent.band != "SCL" or scene.grid_epsg != tile.epsg:
        return []
    level = tile.lattice.coarse
    window = tile.window(level)
    step = np.s_[::_STEP, ::_STEP]
    scl = _read(scene.extent, tile, window, level)[step]
    dn = _read(scene.asset(bands[0]), tile, window, level)[step]
    doubt = judge_offset(dn, scl, scene.dn_offset, scene.baseline)
    where = f"item {scene.item_id} (rule {scene.offset_rule}, baseline {scene.baseline or '?'})"
    hint = "compare with a known product and say source.offset"
    return [f"{where}: {doubt}; {hint}"] if doubt else []


def judge_offset(dn: np.ndarray, scl: np.ndarray, dn_offset: int, baseline: str) -> str:
    """Tell whether dark pixels contradict the offset that is added to them.

    Reflectance of water, shadow and dark ground beyond 0.8 um is near 0, so that DN with the offset
    of 1000 in them hardly ever lie below 950, and without it nearly always.

    Args:
        dn: Stored numbers of a band beyond 0.8 um.
        scl: Classes of the same pixels.
        dn_offset: What the rule adds.
        baseline: Processing baseline; "" where unknown.

    Returns:
        What is wrong in words; "" for nothing, or too few dark pixels.

    Source:
        Element 84 earth-search issues 66 and 71: files that were shifted though flagged as not.
    """
    dark = dn[np.isin(scl, _DARK) & (dn > 0)]
    if dark.size < _LEAST_DARK:
        return ""
    share = float((dark < 950).mean())
    if dn_offset < 0 and share > 0.5:
        return (
            f"{share:.0%} of {dark.size} dark pixels have DN below 950: the offset {dn_offset} "
            "that is added seems to be out of them already"
        )
    has_offset = baseline >= FIRST_WITH_OFFSET and baseline != NON_OPERATIONAL
    if dn_offset == 0 and has_offset and share < 0.02:
        return (
            f"{share:.0%} of {dark.size} dark pixels have DN below 950: the offset of baseline "
            f"{baseline} seems to be in them still"
        )
    return ""
