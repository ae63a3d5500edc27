"""Draw a stratified random sample from a map, tile by tile, and keep it with its design.

Only owned pixels take part, so that ground shared by the tiles of two zones is drawn once. Memory
is bounded by one tile: a first pass counts the strata, a second picks the drawn pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eoray.assess.design import SampleDesign, SamplePlan, Stratum, allocate
from eoray.errors import DataError
from eoray.grid import TILE_M, Tile, owner_mask, pixel_area_m2
from eoray.storage import read_json, write_json

COLUMNS = ("tile", "row", "col", "x", "y", "lon", "lat", "stratum", "mapped", "area_m2")
"""Fields of a sample, in the order of the written properties."""


@dataclass(frozen=True, slots=True)
class MapTile:
    """What the map says about one tile."""

    classes: np.ndarray
    """Class ids, dims (y, x), uint8; 0 is not mapped and lies outside the frame."""
    strata: np.ndarray | None = None
    """Stratum ids, dims (y, x), uint8; the classes themselves when left out. Pixels with 0 in
    either array are outside the frame."""


ReadTile = Callable[[Tile], MapTile]


@dataclass(frozen=True, slots=True)
class Sample:
    """Drawn pixels with the design that drew them; all columns have dims (n)."""

    design: SampleDesign
    tile: np.ndarray
    """Tile id, str."""
    row: np.ndarray
    """Pixel row within the tile, int32."""
    col: np.ndarray
    x: np.ndarray
    """Pixel centre in metres of the tile's northern CRS, float64."""
    y: np.ndarray
    lon: np.ndarray
    """Pixel centre, degrees, float64."""
    lat: np.ndarray
    stratum: np.ndarray
    """Stratum id, uint8."""
    mapped: np.ndarray
    """Class id in the map, uint8. Keep it from whoever labels the pixel."""
    area_m2: np.ndarray
    """True ground area of the pixel, float64."""

    def __len__(self) -> int:
        return len(self.tile)

    @property
    def inclusion_probability(self) -> np.ndarray:
        """Chance of each pixel to be drawn, dims (n), float64."""
        chance = {part.id: part.inclusion_probability for part in self.design.strata}
        return np.array([chance[int(h)] for h in self.stratum])

    def to_geojson(self) -> dict[str, Any]:
        """Return points in lon/lat with the design as a member of the collection."""
        rows = zip(
            *(getattr(self, name).tolist() for name in COLUMNS),
            self.inclusion_probability.tolist(),
            strict=True,
        )
        return {
            "type": "FeatureCollection",
            "design": self.design.to_dict(),
            "features": [
                {
                    "type": "Feature",
                    "id": number,
                    "geometry": {"type": "Point", "coordinates": [row[5], row[6]]},
                    "properties": dict(zip((*COLUMNS, "inclusion_probability"), row, strict=True)),
                }
                for number, row in enumerate(rows)
            ],
        }

    def write(self, url: str) -> None:
        """Put the sample and its design into one GeoJSON file, whole or not at all."""
        write_json(url, self.to_geojson())


def read_sample(url: str) -> Sample:
    """Read a sample written by ``Sample.write``.

    Raises:
        DataError: The file is no sample, or carries no design record.
    """
    try:
        document = read_json(url)
        features = document["features"]
        columns = {
            name: np.array([feature["properties"][name] for feature in features])
            for name in COLUMNS
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"{url!r} cannot be read as a sample ({error!r}); give a GeoJSON file that "
            "`eoray assess` wrote"
        ) from error
    return Sample(SampleDesign.from_dict(document.get("design")), **columns)


def draw_sample(
    tiles: Sequence[Tile], read: ReadTile, plan: SamplePlan, *, names: Mapping[int, str]
) -> Sample:
    """Draw pixels at random within each stratum of a map.

    Args:
        tiles: Tiles of the map; their order does not matter.
        read: Gives the classes (and strata) of one tile; called twice per tile at most.
        plan: How many, and by which seed.
        names: Stratum id to name; strata that do not occur are left out of the design.

    Raises:
        DataError: Nothing is mapped, a stratum has no name, or too few points are asked for.
    """
    order = sorted(set(tiles))
    census = _count(order, read, plan.resolution_m)
    sizes = census.pixels.sum(axis=0)
    present = np.flatnonzero(sizes)
    _check_strata(present, names, len(order))
    drawn = allocate(plan.n_points, [int(sizes[h]) for h in present], minimum=plan.minimum)
    strata = tuple(
        Stratum(int(h), names[int(h)], int(sizes[h]), float(census.area_m2[:, h].sum()), n)
        for h, n in zip(present, drawn, strict=True)
    )
    design = SampleDesign(
        strata, plan.seed, census.digest, plan.resolution_m, census.n_unmapped, census.unmapped_m2
    )
    return _collect(design, order, read, _draw_ranks(design, census.pixels))


def buffer_strata(
    classes: np.ndarray, *, around: int, within: int, stratum: int, radius_px: int, halo_px: int = 0
) -> np.ndarray:
    """Set apart the pixels of a stable class that lie near a rare one.

    Omissions of a rare class cluster beside what was found; a stratum of their own keeps one
    missed pixel from standing for a large area.

    Args:
        classes: Class ids, dims (y, x), uint8, with ``halo_px`` more on every side.
        around: The rare class.
        within: The class whose pixels move to the new stratum.
        stratum: Id of the new stratum, not in use by a class.
        radius_px: Reach in pixels, in the 8-neighbour metric.
        halo_px: Margin to cut off. Without one, neighbours across the tile's edge do not count;
            the estimate stays right, since any partition may be a stratification.

    Returns:
        Stratum ids, dims (y, x) without the halo, uint8.

    Source:
        Olofsson et al. 2020, Remote Sensing of Environment 236:111492.
    """
    from scipy.ndimage import maximum_filter

    near = maximum_filter(classes == around, size=2 * radius_px + 1, mode="constant")
    strata = np.where(near & (classes == within), np.uint8(stratum), classes)
    return strata[halo_px : strata.shape[0] - halo_px, halo_px : strata.shape[1] - halo_px]


@dataclass(frozen=True, slots=True)
class _Census:
    pixels: np.ndarray
    """Pixels of each stratum, dims (tile, stratum id 0..255)."""
    area_m2: np.ndarray
    digest: str
    n_unmapped: int
    unmapped_m2: float


def _count(tiles: Sequence[Tile], read: ReadTile, resolution_m: int) -> _Census:
    pixels, areas = np.zeros((len(tiles), 256), "i8"), np.zeros((len(tiles), 256))
    digest = hashlib.sha256()
    for number, tile in enumerate(tiles):
        strata, classes, owned = _frame_of(tile, read, resolution_m)
        area = pixel_area_m2(tile, resolution_m)
        pixels[number] = np.bincount(strata[owned], minlength=256)
        areas[number] = np.bincount(strata[owned], area[owned], minlength=256)
        digest.update(tile.id.encode())
        digest.update(np.ascontiguousarray(strata).tobytes())
        digest.update(np.ascontiguousarray(np.where(strata > 0, classes, 0)).tobytes())
    unmapped, unmapped_m2 = int(pixels[:, 0].sum()), float(areas[:, 0].sum())
    pixels[:, 0] = 0
    return _Census(pixels, areas, digest.hexdigest(), unmapped, unmapped_m2)


def _frame_of(
    tile: Tile, read: ReadTile, resolution_m: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strata (0 outside the frame), classes and ownership of one tile, dims (y, x)."""
    content, edge = read(tile), TILE_M // resolution_m
    strata = content.classes if content.strata is None else content.strata
    if content.classes.shape != (edge, edge) or strata.shape != (edge, edge):
        raise DataError(
            f"tile {tile.id} came as classes {content.classes.shape} and strata {strata.shape}, "
            f"but {resolution_m} m pixels make ({edge}, {edge}); read whole tiles"
        )
    owned = owner_mask(tile, resolution_m)
    inside = owned & (content.classes > 0)
    return np.where(inside, strata, 0).astype("u1"), content.classes, owned


def _check_strata(present: np.ndarray, names: Mapping[int, str], n_tiles: int) -> None:
    if not present.size:
        raise DataError(
            f"none of {n_tiles} tiles has an owned pixel with a class, so there is nothing to "
            "sample; run predict first, or look at the area of interest"
        )
    unnamed = sorted({int(h) for h in present} - set(names))
    if unnamed:
        raise DataError(
            f"the map holds strata {unnamed} but names are given for {sorted(names)} only; name "
            "every stratum, or set its pixels to 0 to leave them out"
        )


def _draw_ranks(design: SampleDesign, pixels: np.ndarray) -> list[dict[int, np.ndarray]]:
    """For each tile and stratum, which of its pixels (counted row by row) were drawn."""
    ranks: list[dict[int, np.ndarray]] = [{} for _ in pixels]
    for part in design.strata:
        # one stream per stratum: a class more or less does not move the points of the others
        rng = np.random.default_rng([design.seed, part.id])
        chosen = np.sort(rng.choice(part.n_pixels, part.n_sample, replace=False))
        first = np.concatenate([[0], np.cumsum(pixels[:, part.id])])
        owner = np.searchsorted(first, chosen, side="right") - 1
        for number in np.unique(owner):
            ranks[number][part.id] = chosen[owner == number] - first[number]
    return ranks


def _collect(
    design: SampleDesign,
    tiles: Sequence[Tile],
    read: ReadTile,
    ranks: Sequence[Mapping[int, np.ndarray]],
) -> Sample:
    parts = [
        _pixels_of(tile, read, design.resolution_m, wanted)
        for tile, wanted in zip(tiles, ranks, strict=True)
        if wanted
    ]
    return Sample(
        design, **{name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    )


def _pixels_of(
    tile: Tile, read: ReadTile, resolution_m: int, wanted: Mapping[int, np.ndarray]
) -> dict[str, np.ndarray]:
    from pyproj import Transformer

    strata, classes, _ = _frame_of(tile, read, resolution_m)
    flat = strata.ravel()
    picked = np.sort(np.concatenate([np.flatnonzero(flat == h)[at] for h, at in wanted.items()]))
    row, col = np.divmod(picked, strata.shape[1])
    x0, _, _, y1 = tile.bounds
    x, y = x0 + (col + 0.5) * resolution_m, y1 - (row + 0.5) * resolution_m
    lon, lat = Transformer.from_crs(tile.epsg, 4326, always_xy=True).transform(x, y)
    return {
        "tile": np.full(len(picked), tile.id),
        "row": row.astype("i4"),
        "col": col.astype("i4"),
        "x": x,
        "y": y,
        "lon": np.asarray(lon),
        "lat": np.asarray(lat),
        "stratum": flat[picked],
        "mapped": classes[row, col],
        "area_m2": pixel_area_m2(tile, resolution_m)[row, col],
    }
