"""Items to test with: real answers of servers, and small ones made to order."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pystac
import pytest

from eoray.catalog.static import to_item

Load = Callable[[str], list[pystac.Item]]
Make = Callable[..., pystac.Item]

KEYS = {
    "blue": 10,
    "green": 10,
    "red": 10,
    "nir": 10,
    "rededge1": 20,
    "rededge2": 20,
    "rededge3": 20,
    "nir08": 20,
    "swir16": 20,
    "swir22": 20,
    "scl": 20,
}


def make_document(
    *,
    satellite: str = "S2B",
    start: str = "20240530T174909",
    orbit: int = 98,
    granule: str = "32TQM",
    baseline: str = "05.10",
    generated: str = "20240531T000206",
    box: tuple[float, float, float, float] = (11.0, 45.0, 12.0, 46.0),
    strip: str = "",
    nodata_pct: float | None = None,
    offset: float | None = None,
    name: str = "",
    collection: str = "sentinel-2-c1-l2a",
    epsg: int = 32632,
    origin: tuple[float, float] = (699960.0, 5100000.0),
    drop: tuple[str, ...] = (),
    **extra: Any,
) -> dict[str, Any]:
    """Write an item as Earth Search writes those of Collection 1."""
    number = baseline.replace(".", "")
    product = f"{satellite}_MSIL2A_{start}_N{number}_R{orbit:03d}_T{granule}_{generated}"
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    if offset is None:
        offset = -0.1 if baseline >= "04.00" else 0.0
    properties = {
        "datetime": f"{start[:4]}-{start[4:6]}-{start[6:8]}T{start[9:11]}:{start[11:13]}:30Z",
        "platform": f"sentinel-{satellite[1:].lower()}",
        "constellation": "sentinel-2",
        "eo:cloud_cover": 12.5,
        "proj:code": f"EPSG:{epsg}",
        "grid:code": f"MGRS-{granule}",
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": baseline,
        "s2:product_uri": f"{product}.SAFE",
        "s2:datatake_id": f"G{satellite}_{start}_037776_N{baseline}",
        "s2:datastrip_id": f"{satellite}_OPER_DS_2BPS_{generated}_S{strip or start}_N{baseline}",
    }
    if nodata_pct is not None:
        properties["s2:nodata_pixel_percentage"] = nodata_pct
    properties.update(extra)
    assets = {key: _asset(key, px, origin, offset) for key, px in KEYS.items() if key not in drop}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": name or product,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(box),
        "properties": properties,
        "assets": assets,
        "links": [],
    }


def _asset(key: str, px: int, origin: tuple[float, float], offset: float) -> dict[str, Any]:
    side = 10_980 * 10 // px
    band: dict[str, Any] = {"nodata": 0}
    if key != "scl":
        band |= {"scale": 0.0001, "offset": offset}
    return {
        "href": f"https://example.test/{key}.tif",
        "proj:shape": [side, side],
        "proj:transform": [px, 0, origin[0], 0, -px, origin[1]],
        "raster:bands": [band],
        "roles": ["data"],
    }


@pytest.fixture(scope="session")
def document() -> Callable[..., dict[str, Any]]:
    return make_document


@pytest.fixture(scope="session")
def make() -> Make:
    def build(**changes: Any) -> pystac.Item:
        return to_item(make_document(**changes), "")

    return build


@pytest.fixture(scope="session")
def load(shared_data: Path) -> Load:
    """Load the items of a file below ``stac/`` or ``sentinel2/``."""

    @functools.cache
    def read(name: str) -> list[pystac.Item]:
        path = shared_data / name
        if path.suffix == ".parquet":
            from eoray.catalog.snapshot import read_snapshot

            return read_snapshot(str(path))[0]
        content = json.loads(path.read_text())
        features = content["features"] if content["type"] == "FeatureCollection" else [content]
        return [to_item(feature, str(path)) for feature in features]

    return read
