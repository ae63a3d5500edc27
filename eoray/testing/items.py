"""STAC of the archive: items, collection and catalogue, as Earth Search writes Collection 1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eoray.sentinel2 import BANDS, COMMON_NAMES, WAVELENGTHS_UM, Scl, native_resolution_m
from eoray.testing.cog import write_bytes
from eoray.testing.passes import Job

COLLECTION = "sentinel-2-c1-l2a"
STAC_VERSION = "1.1.0"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"

_EXTENSIONS = (
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
)

_PERCENTAGES = {
    "s2:dark_features_percentage": (Scl.DARK,),
    "s2:cloud_shadow_percentage": (Scl.CLOUD_SHADOW,),
    "s2:vegetation_percentage": (Scl.VEGETATION,),
    "s2:not_vegetated_percentage": (Scl.BARE,),
    "s2:water_percentage": (Scl.WATER,),
    "s2:unclassified_percentage": (Scl.UNCLASSIFIED,),
    "s2:medium_proba_clouds_percentage": (Scl.CLOUD_MEDIUM,),
    "s2:high_proba_clouds_percentage": (Scl.CLOUD_HIGH,),
    "s2:thin_cirrus_percentage": (Scl.CIRRUS,),
    "s2:snow_ice_percentage": (Scl.SNOW,),
    "eo:cloud_cover": (Scl.CLOUD_MEDIUM, Scl.CLOUD_HIGH, Scl.CIRRUS),
}


def item_path(folder: Path, job: Job) -> Path:
    """Where the JSON of an item stands; its presence means that the item is complete."""
    return folder / COLLECTION / job.id / f"{job.id}.json"


def asset_file(asset: str) -> str:
    """File name of an asset, next to its item."""
    bands = {common: band for band, common in COMMON_NAMES.items()}
    return f"{bands.get(asset, asset.upper())}.tif"


def make_item(job: Job, scl: np.ndarray, sizes: Mapping[str, int], block_px: int) -> dict[str, Any]:
    """Describe one item.

    Args:
        job: What was drawn.
        scl: Its scene classes at 20 m, dims (y, x), uint8.
        sizes: Bytes of the file of each asset.
        block_px: Internal tile of the files.
    """
    geometry, bbox = _footprint(job)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(_EXTENSIONS),
        "id": job.id,
        "geometry": geometry,
        "bbox": bbox,
        "properties": _properties(job) | _percentages(scl),
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": {
            asset: _asset(job, asset, size, block_px) for asset, size in sorted(sizes.items())
        },
        "collection": COLLECTION,
    }


def _properties(job: Job) -> dict[str, Any]:
    taken, granule = job.taken, job.granule
    made, compact = job.generated, "%Y%m%dT%H%M%S"
    code = job.baseline.replace(".", "")
    name = f"S2{taken.satellite}"
    sun_azimuth, sun_elevation = taken.sun
    view_azimuth, view_zenith = taken.view
    return {
        "datetime": _instant(job.sensed.isoformat(timespec="milliseconds")),
        "created": _instant(made.isoformat(timespec="milliseconds")),
        "updated": _instant(made.isoformat(timespec="milliseconds")),
        "platform": f"sentinel-2{taken.satellite.lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": 10,
        "grid:code": f"MGRS-{granule.mgrs}",
        "proj:code": f"EPSG:{granule.epsg}",
        "sat:relative_orbit": taken.relative_orbit,
        "sat:absolute_orbit": taken.absolute_orbit,
        "sat:orbit_state": "descending",
        "view:azimuth": view_azimuth,
        "view:incidence_angle": view_zenith,
        "view:off_nadir": round(view_zenith * 0.89, 3),
        "view:sun_azimuth": round(sun_azimuth, 4),
        "view:sun_elevation": round(sun_elevation, 4),
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": job.baseline,
        "s2:product_uri": (
            f"{name}_MSIL2A_{taken.start:{compact}}_N{code}_R{taken.relative_orbit:03d}"
            f"_T{granule.mgrs}_{made:{compact}}.SAFE"
        ),
        "s2:generation_time": _instant(made.isoformat(timespec="microseconds")),
        "s2:datatake_id": f"{taken.key}_{taken.absolute_orbit:06d}_N{job.baseline}",
        "s2:datatake_type": "INS-NOBS",
        "s2:datastrip_id": (
            f"{name}_OPER_MSI_L2A_DS_2APS_{made:{compact}}_S{job.sensed:{compact}}_N{job.baseline}"
        ),
        "s2:tile_id": (
            f"{name}_OPER_MSI_L2A_TL_2APS_{made:{compact}}_A{taken.absolute_orbit:06d}"
            f"_T{granule.mgrs}_N{job.baseline}"
        ),
        "earthsearch:boa_offset_applied": False,
        "eoray:refined": taken.is_refined or job.special == "reprocessed",
        "eoray:synthetic": True,
    }


def _instant(text: str) -> str:
    return text.replace("+00:00", "Z")


def _percentages(scl: np.ndarray) -> dict[str, float]:
    counts = np.bincount(scl.ravel(), minlength=12)
    valid = max(int(counts[1:].sum()), 1)
    shares = {
        name: round(100 * int(counts[list(classes)].sum()) / valid, 4)
        for name, classes in _PERCENTAGES.items()
    }
    return {"s2:nodata_pixel_percentage": round(100 * int(counts[0]) / scl.size, 4), **shares}


def _footprint(job: Job) -> tuple[dict[str, Any], list[float]]:
    from shapely.geometry import mapping

    from eoray.testing.frame import to_lonlat
    from eoray.testing.passes import outline

    polygon = to_lonlat(outline(job), job.granule.epsg)
    return json.loads(json.dumps(mapping(polygon))), [float(edge) for edge in polygon.bounds]


def _asset(job: Job, asset: str, size: int, block_px: int) -> dict[str, Any]:
    bands = {common: band for band, common in COMMON_NAMES.items()}
    band = bands.get(asset)
    resolution = native_resolution_m(band) if band else 20
    edge = job.granule.size_px * 10 // resolution
    raster: dict[str, Any] = {
        "nodata": 0,
        "data_type": "uint16" if band else "uint8",
        "spatial_resolution": resolution,
    }
    described: dict[str, Any] = {
        "href": f"./{asset_file(asset)}",
        "type": COG_TYPE,
        "title": f"{band or 'Scene classification map (SCL)'} - {resolution}m",
        "gsd": resolution,
        "proj:shape": [edge, edge],
        "proj:transform": [resolution, 0, job.granule.x0, 0, -resolution, job.granule.y0],
        "raster:bands": [raster],
        "eoray:block_px": block_px,
        "file:size": size,
        "roles": ["data", "reflectance"] if band else ["data"],
    }
    if band:
        raster |= {"scale": 0.0001, "offset": -0.1 if job.has_offset else 0}
        described["eo:bands"] = [
            {
                "name": band,
                "common_name": _EO_NAMES[band],
                "center_wavelength": WAVELENGTHS_UM[band],
            }
        ]
        described["bands"] = [{"name": band}]
    return described


# the extension knows one name for all three red edges
_EO_NAMES = {
    band: COMMON_NAMES[band].rstrip("123") if "edge" in COMMON_NAMES[band] else COMMON_NAMES[band]
    for band in BANDS
}


def write_catalog(folder: Path, jobs: Iterable[Job], title: str) -> None:
    """Write collection and catalogue over items that stand already."""
    jobs = list(jobs)
    boxes = np.array([_footprint(job)[1] for job in jobs])
    bbox = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    times = sorted(job.sensed for job in jobs)
    root = {"rel": "root", "href": "../catalog.json", "type": "application/json"}
    collection = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": COLLECTION,
        "title": f"{title}: Sentinel-2 Level-2A (synthetic)",
        "description": (
            "Synthetic scenes in the form of Sentinel-2 Level-2A Collection 1. Nothing here was "
            "observed: the ground, its seasons and its changes are drawn from a seed."
        ),
        "license": "CC0-1.0",
        "keywords": ["synthetic", "sentinel-2"],
        "providers": [{"name": "eoray", "roles": ["producer", "processor"]}],
        "extent": {
            "spatial": {"bbox": [bbox]},
            "temporal": {
                "interval": [
                    [_instant(t.isoformat(timespec="milliseconds")) for t in (times[0], times[-1])]
                ]
            },
        },
        "summaries": {
            "platform": ["sentinel-2a", "sentinel-2b"],
            "s2:processing_baseline": sorted({job.baseline for job in jobs}),
            "grid:code": sorted({f"MGRS-{job.granule.mgrs}" for job in jobs}),
        },
        "links": [
            root,
            {**root, "rel": "parent"},
            *(
                {"rel": "item", "href": f"./{job.id}/{job.id}.json", "type": "application/geo+json"}
                for job in jobs
            ),
        ],
    }
    child = {"rel": "child", "href": f"./{COLLECTION}/collection.json", "type": "application/json"}
    catalog = {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": "eoray-synthetic",
        "title": title,
        "description": "A synthetic Sentinel-2 archive, drawn by eoray.",
        "links": [{**root, "href": "./catalog.json"}, child],
    }
    write_json(folder / COLLECTION / "collection.json", collection)
    write_json(folder / "catalog.json", catalog)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, complete or not at all; on one line, which Python writes faster."""
    write_bytes(path, (json.dumps(value) + "\n").encode())
