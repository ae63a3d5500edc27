"""Split labels by place: whole blocks train or validate, and no polygon crosses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eoray.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eoray.chips.labels import Polygon

_MISSING = 100.0
"""Cost of a class that one side lacks although it has two blocks; above any sum of shares."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How labels are divided."""

    block_m: float = 10_000.0
    """Edge of a block; 0 makes a block of every group of connected polygons."""
    validation_share: float = 0.25
    """Part of each class's area that validates, as near as whole blocks allow."""
    buffer_m: float = 0.0
    """Training polygons nearer than this to a validating one are left out."""
    gap_m: float = 20.0
    """With ``block_m`` 0, polygons nearer to each other than this are one group."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which polygons train and which validate."""

    training: tuple[int, ...]
    """Polygon numbers."""
    validation: tuple[int, ...]
    dropped: tuple[int, ...]
    """Polygon numbers inside the buffer."""
    block_of: tuple[int, ...]
    """Block by polygon number; blocks are numbered from 0."""
    class_blocks: tuple[tuple[int, int], ...]
    """Per class id from 1: (training blocks, validation blocks)."""


def split_by_place(
    polygons: Sequence[Polygon], n_classes: int, options: SplitOptions, *, seed: int
) -> Split:
    """Divide polygons into training and validation by blocks of land.

    Polygons that share ground are one group and go together; a group belongs to the block of its
    largest polygon. Blocks are chosen by descent on the deviation of every class's area from the
    wanted share, so that a class with two blocks is on both sides.

    Args:
        polygons: All labels, numbered by position.
        n_classes: Classes of the legend.
        options: Block size, share, buffer.
        seed: Chooses among equally good divisions.

    Returns:
        Every polygon in exactly one of training, validation, dropped.

    Raises:
        DataError: The share is not between 0 and 1, or all labels lie in one block.
    """
    import shapely

    if not 0.0 < options.validation_share < 1.0:
        raise DataError(
            f"validation_share is {options.validation_share}; give a share between 0 and 1"
        )
    outlines = shapely.from_wkb(np.array([p.wkb for p in polygons], object))
    area = shapely.area(outlines)
    block = _blocks(polygons, outlines, area, options)
    n_blocks = int(block.max()) + 1
    if n_blocks < 2:
        raise DataError(
            f"all {len(polygons)} labels lie in one block of {options.block_m:g} m, so nothing is "
            "left to validate; set a smaller fit.split.block_m or add labels elsewhere"
        )
    class_id = np.array([p.class_id for p in polygons])
    share = np.zeros((n_blocks, n_classes))
    np.add.at(share, (block, class_id - 1), area)
    validates = _choose(share, options.validation_share, seed)[block]
    near = _near_validation(polygons, outlines, validates, options.buffer_m)
    training = np.flatnonzero(~validates & ~near)
    counts = [
        (
            len(set(block[training[class_id[training] == c]])),
            len(set(block[validates & (class_id == c)])),
        )
        for c in range(1, n_classes + 1)
    ]
    _check_training(counts, options)
    return Split(
        training=tuple(training.tolist()),
        validation=tuple(np.flatnonzero(validates).tolist()),
        dropped=tuple(np.flatnonzero(near).tolist()),
        block_of=tuple(block.tolist()),
        class_blocks=tuple(counts),
    )


def _check_training(counts: list[tuple[int, int]], options: SplitOptions) -> None:
    for class_id, (n_training, _) in enumerate(counts, start=1):
        if n_training == 0:
            raise DataError(
                f"class {class_id} has no training label left after the split (block "
                f"{options.block_m:g} m, buffer {options.buffer_m:g} m); take smaller ones or "
                "add polygons elsewhere"
            )


def _blocks(
    polygons: Sequence[Polygon], outlines: np.ndarray, area: np.ndarray, options: SplitOptions
) -> np.ndarray:
    """Block number by polygon, numbered in order of first appearance."""
    import shapely

    gap = options.gap_m if options.block_m == 0 else 0.0
    group = _groups(polygons, outlines, gap)
    if options.block_m == 0:
        keys = [(int(g), 0, 0) for g in group]
    else:
        largest = {int(g): int(i) for i in np.argsort(area, kind="stable") for g in [group[i]]}
        centre = shapely.get_coordinates(shapely.centroid(outlines))
        cell = np.floor(centre / options.block_m).astype(int)
        leader = [largest[int(g)] for g in group]
        keys = [(polygons[i].zone, int(cell[i, 0]), int(cell[i, 1])) for i in leader]
    number: dict[tuple[int, int, int], int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys])


def _groups(polygons: Sequence[Polygon], outlines: np.ndarray, gap_m: float) -> np.ndarray:
    """Connected component by polygon: shared ground, or a gap below ``gap_m``."""
    import shapely
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = [np.zeros(0, int)], [np.zeros(0, int)]
    for mine, theirs, here in _by_zone(polygons, outlines):
        a, b = _near(here[mine], here[theirs], gap_m)
        a, b = mine[a], theirs[b]
        a, b = a[a < b], b[a < b]
        if gap_m <= 0:
            # A common border is no common ground: neighbouring fields may go to other blocks.
            shared = shapely.area(shapely.intersection(here[a], here[b])) > 1.0
            a, b = a[shared], b[shared]
        left.append(a)
        right.append(b)
    rows, cols = np.concatenate(left), np.concatenate(right)
    n = len(polygons)
    graph = coo_array((np.ones(rows.size), (rows, cols)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1])


def _near(mine: np.ndarray, theirs: np.ndarray, gap_m: float) -> tuple[np.ndarray, np.ndarray]:
    import shapely

    tree = shapely.STRtree(theirs)
    if gap_m > 0:
        a, b = tree.query(mine, predicate="dwithin", distance=gap_m)
    else:
        a, b = tree.query(mine, predicate="intersects")
    return a, b


def _by_zone(
    polygons: Sequence[Polygon], outlines: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per zone: its polygons, those of it and of its neighbours, and all outlines in its CRS."""
    zone = np.array([p.zone for p in polygons])
    result = []
    for z in np.unique(zone):
        close = np.flatnonzero(np.isin(zone, [(z + d - 1) % 60 + 1 for d in (-1, 0, 1)]))
        here = outlines.copy()
        for i in close[zone[close] != z]:
            here[i] = _to_zone(outlines[i], int(zone[i]), int(z))
        result.append((np.flatnonzero(zone == z), close, here))
    return result


def _to_zone(outline: object, source: int, target: int) -> object:
    import shapely
    from pyproj import Transformer

    change = Transformer.from_crs(32600 + source, 32600 + target, always_xy=True)
    return shapely.transform(outline, lambda xy: np.stack(change.transform(*xy.T), axis=1))


def _choose(area: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Pick validating blocks.

    Args:
        area: Area of each class in each block, dims (block, class).
        share: Wanted part of every class.
        seed: Of the random starts.

    Returns:
        True where a block validates, dims (block,).
    """
    total = area.sum(axis=0)
    weight = area / np.maximum(total, 1.0)
    must = (area > 0).sum(axis=0) >= 2
    rng = np.random.default_rng([seed, 101])
    best, best_cost = np.zeros(len(area), bool), np.inf
    for _ in range(8):
        chosen = rng.random(len(area)) < share
        cost = float(_cost(weight[chosen].sum(axis=0), share, must))
        for _ in range(4 * len(area)):
            sign = np.where(chosen, -1.0, 1.0)[:, None]
            costs = _cost(weight[chosen].sum(axis=0) + sign * weight, share, must)
            flip = int(np.argmin(costs))
            if costs[flip] >= cost - 1e-12:
                break
            chosen[flip] = ~chosen[flip]
            cost = float(costs[flip])
        if 0 < chosen.sum() < len(area) and cost < best_cost - 1e-12:
            best, best_cost = chosen.copy(), cost
    if not best.any():
        best[int(np.argmin(area.sum(axis=1)))] = True
    return best


def _cost(held: np.ndarray, share: float, must: np.ndarray) -> np.ndarray:
    """Squared deviation of the held shares, plus a large term per side that lacks a class."""
    lacks = must & ((held < 1e-9) | (held > 1 - 1e-9))
    # A class of one block trains: it can't be learned otherwise.
    lone = ~must & (held > 1e-9)
    return np.asarray(((held - share) ** 2 + _MISSING * (lacks | lone)).sum(axis=-1))


def _near_validation(
    polygons: Sequence[Polygon], outlines: np.ndarray, validates: np.ndarray, buffer_m: float
) -> np.ndarray:
    import shapely

    near = np.zeros(len(polygons), bool)
    if buffer_m <= 0:
        return near
    for mine, close, here in _by_zone(polygons, outlines):
        held = close[validates[close]]
        training = mine[~validates[mine]]
        if held.size and training.size:
            tree = shapely.STRtree(here[held])
            hits = tree.query(here[training], predicate="dwithin", distance=buffer_m)
            near[training[hits[0]]] = True
    return near
