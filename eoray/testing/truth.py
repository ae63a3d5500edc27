"""What is true of the archive: land cover, changes, and labels as people would draw them."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.testing.cog import write_bytes, write_cog
from eoray.testing.frame import SUB, Frame, Granule, locate, look_up, to_lonlat
from eoray.testing.items import write_json
from eoray.testing.land import Material
from eoray.testing.noise import generator, hash_unit
from eoray.testing.options import CHANGE_KINDS, CLASSES, ArchiveOptions
from eoray.testing.patches import ChangedLand
from eoray.testing.pixels import mixing_matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from shapely.geometry.base import BaseGeometry

COLOURS = ("#3c6ec8", "#14501e", "#5aa03c", "#dcbe50", "#aadc6e", "#c83232", "#b4aaa0")
"""Colour of each class, in order of the ids."""

CHANGE_BANDS = ("kind", "start", "end", "fraction", "patch")
"""Bands of the change truth: id of the kind, days since 1970-01-01 of both ends, per cent of the
pixel that changed, id of the patch. 0 where nothing changes."""

_UNLABELLED, _WRONG, _MIN_LABEL_PX = 0.35, 0.05, 12
_CONFUSED = {1: 3, 2: 3, 3: 2, 4: 5, 5: 4, 6: 7, 7: 6}
"""Class that a wrong label names, for half of them; the others name any."""


def truth_frames(granules: tuple[Granule, ...]) -> list[tuple[Frame, str]]:
    """Lattices of 10 m that hold the truth: one per CRS, around its granules, with its site."""
    frames = []
    for epsg in sorted({granule.epsg for granule in granules}):
        members = [granule for granule in granules if granule.epsg == epsg]
        boxes = np.array([granule.bounds for granule in members])
        (x_min, y_min), (x_max, y_max) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        rows, cols = int(y_max - y_min) // 10, int(x_max - x_min) // 10
        frame = Frame(epsg, float(x_min), float(y_max), rows, cols, 10.0)
        frames.append((frame, members[0].site))
    return frames


def write_truth(folder: Path, frame: Frame, changed: ChangedLand) -> None:
    """Write the rasters of one CRS.

    ``land_cover_EPSG.tif``: class that covers most of the pixel when the archive begins, uint8;
    ``land_cover_end_EPSG.tif``: when it ends; ``purity_EPSG.tif``: per cent of the pixel that
    the first class covers; ``changes_EPSG.tif``: int32 with the bands of ``CHANGE_BANDS``.
    """
    segment = _segments(frame, changed)
    shares = mixing_matrix(segment, SUB, len(changed.land.material), pure=False)
    start, purity = _dominant(frame, shares, changed.land.classes)
    end, _ = _dominant(frame, shares, changed.class_after())
    origin = (frame.x0, frame.y0)
    for name, pixels in (("land_cover", start), ("land_cover_end", end), ("purity", purity)):
        path = folder / f"{name}_{frame.epsg}.tif"
        write_cog(path, pixels, origin=origin, resolution_m=10, epsg=frame.epsg)
    layers = _changes(frame, segment, shares, changed)
    _write_changes(folder / f"changes_{frame.epsg}.tif", frame, layers)


def _segments(frame: Frame, changed: ChangedLand) -> np.ndarray:
    """Segment of each cell of 2.5 m under a lattice of 10 m."""
    rows, cols = frame.rows * SUB, frame.cols * SUB
    fine = Frame(frame.epsg, frame.x0, frame.y0, rows, cols, frame.cell_m / SUB)
    return look_up(changed.land.segment, locate(fine, changed.land.frame))


def _dominant(
    frame: Frame, shares: csr_array, class_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Class with the largest share of each pixel, and that share in per cent; both uint8."""
    is_class = (class_of[:, None] == np.arange(1, len(CLASSES) + 1)).astype(np.float32)
    by_class = np.asarray(shares @ is_class)
    share = np.rint(by_class.max(axis=1) * 100).astype(np.uint8)
    dominant = (by_class.argmax(axis=1) + 1).astype(np.uint8)
    return dominant.reshape(frame.shape), share.reshape(frame.shape)


def _changes(
    frame: Frame, segment: np.ndarray, shares: csr_array, changed: ChangedLand
) -> np.ndarray:
    """Dims (band, y, x), int32, bands as ``CHANGE_BANDS``."""
    layers = np.zeros((len(CHANGE_BANDS), *frame.shape), np.int32)
    fraction = np.asarray(shares @ (changed.patch > 0).astype(np.float32)).reshape(frame.shape)
    row, col = np.nonzero(fraction)
    epoch = date(1970, 1, 1).toordinal()
    table = np.zeros((len(changed.patches) + 1, 3), np.int32)
    for one in changed.patches:
        table[one.id] = one.kind, one.start.toordinal() - epoch, one.end.toordinal() - epoch
    blocks = segment.reshape(frame.rows, SUB, frame.cols, SUB)
    cells = changed.patch[blocks[row, :, col].reshape(len(row), SUB**2)]
    times = (cells[:, :, None] == cells[:, None, :]).sum(axis=2) * (cells > 0)
    patch = np.take_along_axis(cells, times.argmax(axis=1)[:, None], axis=1)[:, 0]
    layers[:3, row, col] = table[patch].T
    layers[3, row, col] = np.maximum(np.rint(fraction[row, col] * 100), 1)
    layers[4, row, col] = patch
    return layers


def _write_changes(path: Path, frame: Frame, layers: np.ndarray) -> None:
    import rasterio
    from affine import Affine
    from rasterio.io import MemoryFile

    profile = {
        "driver": "GTiff",
        "dtype": "int32",
        "count": len(layers),
        "height": frame.rows,
        "width": frame.cols,
        "crs": rasterio.CRS.from_epsg(frame.epsg),
        "transform": Affine(10, 0, frame.x0, 0, -10, frame.y0),
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "interleave": "band",
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(layers)
            dataset.descriptions = CHANGE_BANDS
        write_bytes(path, bytes(memory.getbuffer()))


def write_patches(path: Path, changed: ChangedLand) -> None:
    """Write one line of CSV per patch of the site."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("patch", "kind", "start", "end", "area_px"))
    for patch in changed.patches:
        kind = CHANGE_KINDS[patch.kind - 1]
        row = (patch.id, kind, patch.start.isoformat(), patch.end.isoformat())
        writer.writerow((*row, f"{patch.area_px:.4f}"))
    write_bytes(path, text.getvalue().encode())


def write_legend(path: Path) -> None:
    """Write ids, names and colours of classes, and ids and names of kinds of change."""
    classes = [
        {"id": i, "name": name, "color": colour}
        for i, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=True), start=1)
    ]
    changes = [{"id": i, "name": name} for i, name in enumerate(CHANGE_KINDS, start=1)]
    write_json(path, {"classes": classes, "changes": changes})


def write_labels(path: Path, frame: Frame, changed: ChangedLand, options: ArchiveOptions) -> None:
    """Write label polygons of one CRS as GeoJSON in degrees.

    Each is a field, a stand, a piece of a village or of a river. With ``label_noise`` borders
    lie some metres off, 5 % have the wrong class and a third of the land has none.
    """
    features = []
    for number, (polygon, class_id) in enumerate(_label_polygons(frame, changed, options)):
        features.append(
            {
                "type": "Feature",
                "id": number,
                "properties": {"class": CLASSES[class_id - 1], "year": options.years[0]},
                "geometry": _geojson(to_lonlat(polygon, frame.epsg)),
            }
        )
    write_json(path, {"type": "FeatureCollection", "features": features})


def _geojson(polygon: BaseGeometry) -> dict[str, Any]:
    from shapely.geometry import mapping

    return dict(mapping(polygon))


def _label_polygons(
    frame: Frame, changed: ChangedLand, options: ArchiveOptions
) -> list[tuple[BaseGeometry, int]]:
    import shapely
    from affine import Affine
    from rasterio.features import shapes, sieve

    transform = Affine(10, 0, frame.x0, 0, -10, frame.y0)
    units = sieve(_units(frame, changed), size=_MIN_LABEL_PX)
    found = list(shapes(units, mask=units > 0, transform=transform))
    class_ids = np.array([int(value) % 8 for _, value in found])
    polygons = shapely.simplify(shapely.from_geojson([json.dumps(o) for o, _ in found]), 6.0)
    rng = generator(options.seed, "labels")
    down, right, grow = rng.uniform(-1, 1, (3, len(found)))
    wrong, confused, labelled = rng.uniform(0, 1, (3, len(found)))
    others = rng.integers(1, len(CLASSES), len(found))
    if options.label_noise:
        n_points = shapely.get_num_coordinates(polygons)
        shift = np.repeat(np.stack([12 * right, 12 * down], axis=1), n_points, axis=0)
        polygons = shapely.transform(polygons, lambda xy: xy + shift)
        polygons = shapely.buffer(polygons, 7 * grow, quad_segs=2)
        confusing = np.array([0, *(_CONFUSED[i] for i in range(1, 8))])[class_ids]
        any_other = (class_ids - 1 + others) % len(CLASSES) + 1
        bad = np.where(confused < 0.5, confusing, any_other)
        class_ids = np.where(wrong < _WRONG, bad, class_ids)
    keep = shapely.is_valid(polygons) & (shapely.area(polygons) >= _MIN_LABEL_PX * 100 / 2)
    keep &= shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON
    if options.label_noise:
        keep &= labelled >= _UNLABELLED
    return list(zip(polygons[keep].tolist(), class_ids[keep].tolist(), strict=True))


def _units(frame: Frame, changed: ChangedLand) -> np.ndarray:
    """Number the things that a person would draw around: 8 x unit + class id, int32, 10 m.

    Fields and stands are whole; villages, rivers, roads and lakes are cut into squares of some
    hundred metres, as nobody digitises a town with one line. 0 where the pixel is too mixed.
    """
    land = changed.land
    segment = _segments(frame, changed)
    centre = segment[SUB // 2 :: SUB, SUB // 2 :: SUB]
    shares = mixing_matrix(segment, SUB, len(land.material), pure=False)
    class_id = _dominant(frame, shares, land.classes)[0].astype(np.int64)
    whole = np.isin(land.key >> 40, (0, 3))  # strips of farmland, stands of forest
    name = np.where(land.material == Material.CROP, land.key // 2, land.key)
    x, y = frame.centres()
    square = (y // 300).astype(np.int64)[:, None] * 100_003 + (x // 300).astype(np.int64)[None, :]
    # 24 bits of a hash: two neighbours sharing one would merge, once in some million
    code = (hash_unit(np.where(whole[centre], name[centre], square), 99) * (1 << 24)).astype(int)
    return np.where(land.classes[centre] == class_id, code * 8 + class_id, 0).astype(np.int32)
