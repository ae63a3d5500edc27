"""JPEG 2000 in the buckets of CDSE: a real item, small files, an object store on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from eoray.buckets import Bucket, use_buckets
from eoray.catalog.scene import Scene, resolve_products
from eoray.catalog.static import to_item
from eoray.errors import ReadError
from eoray.grid import PixelWindow, Zone
from eoray.reading.requests import forget_gates
from eoray.reading.usage import READS
from eoray.reading.window import AssetWindow, read_asset
from tests.s3_server import FakeS3, serve_s3

EDGE = 64
ORIGIN = (699_960.0, 5_300_040.0)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Any:
    forget_gates()
    with serve_s3(monkeypatch) as fake:
        fake.buckets.add("eodata")
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        use_buckets({"s3://eodata": Bucket(endpoint=fake.url, region="default")})
        yield fake
    use_buckets({})


def small_item(shared_data: Path) -> dict[str, Any]:
    """A recorded item whose files are 64 pixels of 20 m wide; all else is as it was."""
    answer = json.loads((shared_data / "stac/cdse/issue1043_20200322.json").read_text())
    item: dict[str, Any] = answer["features"][0]
    for key in ("B04_10m", "SCL_20m"):
        asset = item["assets"][key]
        pixel = 10 if key.endswith("10m") else 20
        edge = EDGE * 20 // pixel
        x, y = asset["proj:transform"][2], asset["proj:transform"][5]
        asset["proj:shape"] = [edge, edge]
        asset["proj:bbox"] = [x, y - edge * pixel, x + edge * pixel, y]
    return item


def write_jp2(path: Path, values: np.ndarray, scene: Scene, band: str) -> None:
    profile: dict[str, Any] = {"driver": "JP2OpenJPEG", "count": 1, "dtype": values.dtype}
    profile |= {"height": values.shape[0], "width": values.shape[1]}
    profile |= {"crs": f"EPSG:{scene.epsg}", "QUALITY": "100", "REVERSIBLE": "YES"}
    profile["transform"] = rasterio.Affine(*scene.asset(band).transform)
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)


@pytest.fixture
def scene(s3: FakeS3, shared_data: Path, tmp_path: Path) -> tuple[Scene, np.ndarray]:
    """A scene of the item, and the pixels of its B04."""
    (scene,) = resolve_products([to_item(small_item(shared_data), "")], bands=["B04"])
    edge = 2 * EDGE
    values = (np.arange(edge * edge) % 9999 + 1).reshape(edge, edge).astype(np.uint16)
    write_jp2(tmp_path / "B04.jp2", values, scene, "B04")
    key = scene.asset("B04").href.removeprefix("s3://")
    assert key.startswith("eodata/Sentinel-2/MSI/L2A")
    s3.put(key, (tmp_path / "B04.jp2").read_bytes())
    return scene, values


def read(scene: Scene) -> np.ndarray:
    from eoray.grid import lattice_of

    zone: Zone = scene.zone or 1
    asset, lattice = scene.asset("B04"), lattice_of(zone)
    a, _, c, _, e, f = asset.transform
    top, left, bottom, right = lattice.box(
        (c, f + e * asset.shape[0], c + a * asset.shape[1], f), 10
    )
    window = PixelWindow(top, left, bottom - top, right - left)
    return read_asset(
        AssetWindow(scene, asset, zone=zone, window=window, resolution_m=10, retries=0)
    )


def test_a_jp2_is_read_through_the_buckets_section(
    scene: tuple[Scene, np.ndarray], s3: FakeS3
) -> None:
    found, values = scene
    assert (found.provider, found.dn_offset, found.baseline) == ("cdse", -1000, "05.00")
    before = READS.snapshot()
    np.testing.assert_array_equal(read(found), values)
    assert READS.snapshot().gdal_files == before.gdal_files + 1
    assert {method for method, _ in s3.requests} <= {"GET", "HEAD"}


def test_no_right_to_the_bucket_is_a_failed_read(
    scene: tuple[Scene, np.ndarray], s3: FakeS3
) -> None:
    s3.refuse = {"GET": (403, "AccessDenied"), "HEAD": (403, "AccessDenied")}
    with pytest.raises(ReadError, match=r"B04 of item S2B_MSIL2A_20200322T074609_N0500\S+ cannot"):
        read(scene[0])
