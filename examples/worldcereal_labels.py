"""Turn the label raster of the WorldCereal sample into parcels for `eoray fit`.

    EORAY_SHARED_DATA=... python examples/worldcereal_labels.py parcels.geojson

A parcel is a connected component of one class, shrunk by 10.5 m: neighbours are then 21 m apart,
and a split with a gap of 20 m can part them.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import shapes
from rasterio.warp import transform_geom
from shapely.geometry import mapping, shape

INWARDS_M = 10.5

CLASSES = {11: "crop", 13: "grass"}
"""Code of the sample's layer LC -> class; what the register does not know stays unlabelled."""


def main() -> None:
    """Write the parcels to the path given."""
    shared = Path(os.environ["EORAY_SHARED_DATA"])
    write_parcels(shared, Path(sys.argv[1]))


def write_parcels(shared: Path, out: Path) -> int:
    """Write the parcels as GeoJSON; returns how many there are."""
    (label_file,) = (shared / "labels/worldcereal").glob("*.nc")
    band_file = next((shared / "sentinel2/worldcereal_31UDS").glob("*/B02.tif"))
    with rasterio.open(band_file) as image:  # the label file does not say where it lies
        crs, transform = image.crs, image.transform
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(f"netcdf:{label_file}:LC") as labels:
            codes = labels.read(1)
    names = sorted(set(CLASSES.values()))
    classes = np.zeros(codes.shape, np.uint8)
    for code, name in CLASSES.items():
        classes[codes == code] = names.index(name) + 1
    features: list[dict[str, Any]] = []
    for outline, value in shapes(classes, mask=classes > 0, transform=transform):
        core = shapely.buffer(shape(outline), -INWARDS_M)
        for part in () if core.is_empty else shapely.get_parts(core):
            geometry = transform_geom(crs, "EPSG:4326", mapping(part), precision=8)
            properties = {"class": names[int(value) - 1]}
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    out.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return len(features)


if __name__ == "__main__":
    main()
