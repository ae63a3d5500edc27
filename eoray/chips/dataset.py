"""Read chips from the cube: cells are decoded once and kept, batches follow from their number."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.chips.labels import IGNORE, LabelBurner, to_classes
from eoray.chips.recipe import InputRecipe, Normalisation, Season, prepare_input, view_of
from eoray.grid import PixelWindow
from eoray.sentinel2 import FILL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from eoray.chips.index import Chip
    from eoray.chips.labels import Polygon
    from eoray.chips.split import Split

CELL_PX = 256
"""Edge of a decoded cell: 2 x 2 inner chunks, so that a jittered chip meets at most 4 cells."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a batch: which chip, moved and turned how."""

    chip: int
    """Position in the list of chips."""
    shift: tuple[int, int]
    """(rows, columns) by which the window moves."""
    turn: int
    """0 to 7: quarter turns, from 4 on after a mirror."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Input and target of one step on one worker."""

    x: np.ndarray
    """Dims (n, channel, y, x), float32."""
    y: np.ndarray
    """Dims (n, y, x), uint8: class id - 1, or IGNORE."""


def draw_batch(
    n_chips: int,
    step: int,
    *,
    batch_size: int,
    seed: int,
    size: int,
    augment: bool = True,
    rank: int = 0,
    world: int = 1,
) -> list[Draw]:
    """Choose the samples of a step.

    Every epoch is a permutation of the chips that depends on (seed, epoch); the k-th sample of
    the run has its own random stream. So a step can be drawn without those before it, and workers
    divide the same batch among themselves.

    Args:
        n_chips: Chips to draw from.
        step: Step of the run, from 0.
        batch_size: Samples of a step over all workers.
        seed: Of the run.
        size: Edge of a chip; windows move by up to half of it.
        augment: Move and turn windows.
        rank: This worker.
        world: Number of workers.

    Returns:
        This worker's samples, in order.
    """
    draws = []
    orders: dict[int, np.ndarray] = {}
    for k in range(step * batch_size + rank, (step + 1) * batch_size, world):
        epoch, place = divmod(k, n_chips)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, 1, epoch]).permutation(n_chips)
        shift, turn = (0, 0), 0
        if augment:
            rng = np.random.default_rng([seed, 2, k])
            rows, cols = rng.integers(-(size // 2), size // 2 + 1, 2)
            shift, turn = (int(rows), int(cols)), int(rng.integers(8))
        draws.append(Draw(int(orders[epoch][place]), shift, turn))
    return draws


def turn_array(array: np.ndarray, turn: int) -> np.ndarray:
    """Apply one of the eight symmetries of the square to the last two dims."""
    if turn >= 4:
        array = array[..., ::-1]
    return np.rot90(array, turn % 4, axes=(-2, -1))


class ChipReader:
    """Read windows of reflectance and labels, keeping decoded cells up to a number of bytes."""

    def __init__(
        self,
        source: Any,
        recipe: InputRecipe,
        seasons: Sequence[Season],
        polygons: Iterable[Polygon],
        *,
        border_m: float = 10.0,
        cache_bytes: int = 512 << 20,
    ) -> None:
        """Open the cube; no pixel is read yet.

        Args:
            source: Address of the cube, or something that answers like its reader.
            recipe: Bands and composites of a sample.
            seasons: Those that chips refer to.
            polygons: Labels to burn; those of one side of a split.
            border_m: As for LabelBurner.
            cache_bytes: Cells are dropped, oldest first, above this.
        """
        self._view = view_of(source)
        self._recipe = recipe
        self._seasons = tuple(seasons)
        self._polygons = tuple(polygons)
        self._border_m = border_m
        self._burners: dict[int, LabelBurner] = {}
        self._cells: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()
        self._held = 0
        self._limit = cache_bytes

    def values(self, zone: int, season: int, window: PixelWindow) -> np.ndarray:
        """Reflectance of a window, dims (time, band, y, x), int16, FILL where there is none."""
        lead = (self._recipe.n_periods, len(self._recipe.bands))
        out = np.full((*lead, window.height, window.width), FILL, np.int16)
        return self._paste(out, ("values", zone, season), window)

    def places(self, zone: int, window: PixelWindow) -> np.ndarray:
        """Polygon number by pixel of a window, dims (y, x), int32."""
        out = np.full((window.height, window.width), -1, np.int32)
        return self._paste(out, ("places", zone), window)

    def _paste(self, out: np.ndarray, key: tuple[Any, ...], window: PixelWindow) -> np.ndarray:
        r0, c0 = window.row_off, window.col_off
        r1, c1 = r0 + window.height, c0 + window.width
        for row in range(r0 // CELL_PX, (r1 - 1) // CELL_PX + 1):
            for col in range(c0 // CELL_PX, (c1 - 1) // CELL_PX + 1):
                top, left = max(r0, row * CELL_PX), max(c0, col * CELL_PX)
                low, right = min(r1, (row + 1) * CELL_PX), min(c1, (col + 1) * CELL_PX)
                cell = self._cell(key, row, col)
                out[..., top - r0 : low - r0, left - c0 : right - c0] = cell[
                    ...,
                    top - row * CELL_PX : low - row * CELL_PX,
                    left - col * CELL_PX : right - col * CELL_PX,
                ]
        return out

    def _cell(self, key: tuple[Any, ...], row: int, col: int) -> np.ndarray:
        full = (*key, row, col)
        cell = self._cells.get(full)
        if cell is None:
            window = PixelWindow(row * CELL_PX, col * CELL_PX, CELL_PX, CELL_PX)
            cell = self._burn(key[1], window) if key[0] == "places" else self._read(key, window)
            self._cells[full] = cell
            self._held += cell.nbytes
            while self._held > self._limit and len(self._cells) > 1:
                self._held -= self._cells.popitem(last=False)[1].nbytes
        else:
            self._cells.move_to_end(full)
        return cell

    def _read(self, key: tuple[Any, ...], window: PixelWindow) -> np.ndarray:
        _, zone, season = key
        index = self._seasons[season].index_of(zone)
        lead = (self._recipe.n_periods, len(self._recipe.bands))
        if index is None:
            return np.full((*lead, window.height, window.width), FILL, np.int16)
        return self._view.read_bands(
            self._recipe.product,
            zone,
            bands=self._recipe.bands,
            window=window,
            resolution_m=self._recipe.resolution_m,
            index=list(index),
        )

    def _burn(self, zone: int, window: PixelWindow) -> np.ndarray:
        if zone not in self._burners:
            self._burners[zone] = LabelBurner(
                self._polygons,
                zone,
                resolution_m=self._recipe.resolution_m,
                border_m=self._border_m,
            )
        return self._burners[zone].burn(window)


@dataclass(frozen=True, slots=True)
class Collate:
    """Turn drawn samples into a batch by reading the cube where the training runs."""

    reader: ChipReader
    chips: Sequence[Chip]
    class_of: np.ndarray
    normal: Normalisation

    def __call__(self, draws: Sequence[Draw]) -> Batch:
        """Read, normalise and turn the samples."""
        xs, ys = [], []
        for draw in draws:
            chip = self.chips[draw.chip]
            window = PixelWindow(
                chip.row_off + draw.shift[0], chip.col_off + draw.shift[1], chip.size, chip.size
            )
            values = self.reader.values(chip.zone, chip.season, window)
            target = to_classes(self.reader.places(chip.zone, window), self.class_of)
            xs.append(turn_array(prepare_input(values, self.normal), draw.turn))
            ys.append(turn_array(target, draw.turn))
        return Batch(np.stack(xs), np.stack(ys))


def prefetch[T](items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the items of an iterable in order while a thread prepares the next ones.

    An error in the thread is raised where its item would have come. Leaving early ends the thread.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(entry: tuple[str, Any]) -> None:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put(("item", item))
                if stop.is_set():
                    return
            put(("end", None))
        except BaseException as error:  # noqa: BLE001  handed to the consumer, which raises it
            put(("error", error))

    thread = threading.Thread(target=work, name="eoray-chips", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class LabelStatistics:
    """Sums over labelled training pixels, per class and reflectance channel."""

    count: np.ndarray
    """Dims (class, channel), int64: pixels that have a value."""
    total: np.ndarray
    """Dims (class, channel), float64: sum of stored values."""
    square: np.ndarray
    """Dims (class, channel), float64: sum of squares."""

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation by channel over all classes; std is at least 1."""
        n = np.maximum(self.count.sum(axis=0), 1)
        mean = self.total.sum(axis=0) / n
        variance = np.maximum(self.square.sum(axis=0) / n - mean**2, 0.0)
        std = np.maximum(np.sqrt(variance), 1.0)
        return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))

    def class_means(self) -> np.ndarray:
        """Normalised mean spectrum by class, dims (class, channel); 0 where never observed."""
        normal = self.normalisation()
        mean = self.total / np.maximum(self.count, 1)
        scaled = (mean - np.asarray(normal.mean)) / np.asarray(normal.std)
        return np.where(self.count > 0, scaled, 0.0)


def measure_labels(
    reader: ChipReader,
    chips: Sequence[Chip],
    class_of: np.ndarray,
    *,
    n_classes: int,
    seed: int,
    at_most: int = 2048,
) -> LabelStatistics:
    """Sum up the reflectance of labelled pixels.

    Args:
        reader: With the training polygons only, so that nothing else is measured.
        chips: Training chips.
        class_of: Class id by polygon number.
        n_classes: Classes of the legend.
        seed: Chooses the chips when there are more than ``at_most``.
        at_most: Chips to read.

    Returns:
        Sums in float64, independent of the order of reading within a chip.
    """
    chosen: Sequence[Chip] = chips
    if len(chips) > at_most:
        picks = np.random.default_rng([seed, 3]).choice(len(chips), at_most, replace=False)
        chosen = [chips[i] for i in np.sort(picks)]
    n_channels = 0
    sums: list[np.ndarray] = []
    for chip in chosen:
        target = to_classes(reader.places(chip.zone, chip.window), class_of)
        values = reader.values(chip.zone, chip.season, chip.window)
        n_channels = values.shape[0] * values.shape[1]
        if not sums:
            sums = [np.zeros((n_classes, n_channels)) for _ in range(3)]
        flat = values.reshape(n_channels, -1)
        for c in np.unique(target[target != IGNORE]):
            mine = flat[:, target.ravel() == c]
            there = mine != FILL
            mine = np.where(there, mine, 0).astype(np.float64)
            sums[0][c] += there.sum(axis=1)
            sums[1][c] += mine.sum(axis=1)
            sums[2][c] += (mine**2).sum(axis=1)
    return LabelStatistics(sums[0].astype(np.int64), sums[1], sums[2])


def polygons_of(polygons: Sequence[Polygon], split: Split, side: str) -> list[Polygon]:
    """Polygons of one side of a split: ``training`` or ``validation``."""
    numbers = split.training if side == "training" else split.validation
    return [polygons[i] for i in numbers]
