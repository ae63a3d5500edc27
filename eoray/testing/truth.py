"""What is true of the archive: land cover, changes, and labels as people would draw them."""

from __future__ import annotations

import csv
import io
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
    from shapely.geometry.base import BaseGeometry

COLOURS = ("#3c6ec8", "#14501e", "#5aa03c", "#dcbe50", "#aadc6e", "#c83232", "#b4aaa0")
"""Colour of each class, in order of the ids."""

CHANGE_BANDS = ("kind", "start", "end", "fraction", "patch")
"""Bands of the change truth: id of the kind, days since 1970-01-01 of both ends, per cent of the
pixel that changed, id of the patch. 0 where nothing changes."""

_UNLABELLED, _WRONG = 0.35, 0.05
_MIN_LABEL_M2 = 900.0
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
    start, purity = _dominant(segment, changed.land.classes)
    end, _ = _dominant(segment, changed.class_after())
    origin = (frame.x0, frame.y0)
    for name, pixels in (("land_cover", start), ("land_cover_end", end), ("purity", purity)):
        path = folder / f"{name}_{frame.epsg}.tif"
        write_cog(path, pixels, origin=origin, resolution_m=10, epsg=frame.epsg)
    _write_changes(folder / f"changes_{frame.epsg}.tif", frame, _changes(segment, changed))


def _segments(frame: Frame, changed: ChangedLand) -> np.ndarray:
    fine = Frame(
        frame.epsg, frame.x0, frame.y0, frame.rows * SUB, frame.cols * SUB, frame.cell_m / SUB
    )
    return look_up(changed.land.segment, locate(fine, changed.land.frame))


def _dominant(segment: np.ndarray, class_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class with the largest share of each pixel, and that share in per cent; both uint8."""
    rows, cols = segment.shape[0] // SUB, segment.shape[1] // SUB
    cells = class_of[segment].reshape(rows, SUB, cols, SUB)
    counts = np.stack([(cells == i).sum(axis=(1, 3), dtype=np.uint8) for i in range(1, 8)])
    share = counts.max(axis=0) * 100.0 / SUB**2
    return (counts.argmax(axis=0) + 1).astype(np.uint8), np.rint(share).astype(np.uint8)


def _changes(segment: np.ndarray, changed: ChangedLand) -> np.ndarray:
    """Dims (band, y, x), int32, bands as ``CHANGE_BANDS``."""
    rows, cols = segment.shape[0] // SUB, segment.shape[1] // SUB
    layers = np.zeros((len(CHANGE_BANDS), rows, cols), np.int32)
    if not changed.patches:
        return layers
    patch = changed.patch.astype(np.uint16)[segment]
    shares = mixing_matrix(patch, SUB, len(changed.patches) + 1, pure=False)
    table = np.zeros((len(changed.patches) + 1, 3), np.int32)
    epoch = date(1970, 1, 1).toordinal()
    for one in changed.patches:
        table[one.id] = one.kind, one.start.toordinal() - epoch, one.end.toordinal() - epoch
    inside = shares[:, 1:]
    fraction = np.asarray(inside.sum(axis=1)).reshape(rows, cols)
    which = np.asarray(inside.argmax(axis=1)).reshape(rows, cols) + 1
    which[fraction == 0] = 0
    layers[:3] = table[which].transpose(2, 0, 1)
    layers[3] = np.maximum(np.rint(fraction * 100), fraction > 0)
    layers[4] = which
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
    from affine import Affine
    from rasterio.features import shapes
    from shapely import affinity
    from shapely.geometry import shape

    units = _units(frame, changed)
    transform = Affine(10, 0, frame.x0, 0, -10, frame.y0)
    rng = generator(options.seed, "labels")
    drawn: list[tuple[BaseGeometry, int]] = []
    for outline, unit in shapes(units, mask=units > 0, transform=transform):
        class_id = int(unit) % 8
        labelled, wrong, confused, down, right, grow, any_class = rng.uniform(-1, 1, 7).tolist()
        polygon = shape(outline).simplify(6.0)
        if options.label_noise:
            if (labelled + 1) / 2 < _UNLABELLED:
                continue
            polygon = affinity.translate(polygon, 12 * right, 12 * down).buffer(
                7 * grow, quad_segs=2
            )
            if (wrong + 1) / 2 < _WRONG:
                others = [i for i in range(1, 8) if i != class_id]
                pick = others[int((any_class + 1) / 2 * 5.999)]
                class_id = _CONFUSED[class_id] if confused > 0 else pick
        if polygon.geom_type == "Polygon" and polygon.area >= _MIN_LABEL_M2 and polygon.is_valid:
            drawn.append((polygon, class_id))
    return drawn


def _units(frame: Frame, changed: ChangedLand) -> np.ndarray:
    """Number the things that a person would draw around: 8 x unit + class id, int32, 10 m.

    Fields and stands are whole; villages, rivers, roads and lakes are cut into squares of some
    hundred metres, as nobody digitises a town with one line.
    """
    land = changed.land
    centre = look_up(land.segment, locate(frame, land.frame))
    class_id = _dominant(_segments(frame, changed), land.classes)[0].astype(np.int64)
    family = land.key >> 40
    whole = np.isin(land.material, (Material.CROP,)) | (family == 0) | (family == 3)
    name = np.where(land.material == Material.CROP, land.key // 2, land.key)
    x, y = frame.centres()
    square = (y // 300).astype(np.int64)[:, None] * 100_003 + (x // 300).astype(np.int64)[None, :]
    unit = np.where(whole[centre], name[centre], square)
    unit = np.where(land.classes[centre] == class_id, unit, square + 7)
    # 24 bits of a hash: two neighbours sharing one would merge, once in some million
    code = (hash_unit(unit, 99) * (1 << 24)).astype(np.int64)
    return (code * 8 + class_id).astype(np.int32)
