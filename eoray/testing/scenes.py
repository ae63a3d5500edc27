"""A scene as the catalogue resolves it, without a catalogue: for plans that nobody reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from eoray.catalog.scene import BandAsset, Scene
from eoray.grid import Lattice, lattice_of, to_lonlat


def make_scene(name: str, zone: int, assets: tuple[BandAsset, ...], **fields: Any) -> Scene:
    """Describe a granule of one pass; its outline is that of its first file.

    Args:
        name: Item id; its first five characters are the granule's.
        zone: UTM zone whose northern CRS the files are placed in.
        assets: Its files.
        fields: What differs from the pass of 2021-06-01, orbit 22.
    """
    outline = _outline(assets[0], lattice_of(zone))
    scene = Scene(
        item_id=name,
        collection="sentinel-2-c1-l2a",
        provider="static",
        datatake="S2A_20210601T100000_R022",
        sensing_time="2021-06-01T10:00:00.000Z",
        solar_day="2021-06-01",
        satellite="S2A",
        relative_orbit=22,
        granule=name[:5],
        product_uri=f"{name}.SAFE",
        baseline="05.00",
        generation_time="2023-01-01T00:00:00.000Z",
        dn_offset=-1000,
        offset_rule="raw",
        clipped_at_source=False,
        refined=True,
        sun_zenith=30.0,
        sun_azimuth=150.0,
        view_zenith=5.0,
        view_azimuth=100.0,
        cloud_pct=0.0,
        epsg=32600 + zone,
        zone=zone,
        bbox=_bbox(outline),
        footprint=shapely.to_wkb(outline),
        assets=assets,
    )
    return replace(scene, **fields)


def _outline(asset: BandAsset, lattice: Lattice) -> Any:
    """Edges of a file, lon/lat."""
    a, _, left, _, e, top = asset.transform
    height, width = asset.shape
    box = shapely.segmentize(shapely.box(left, top + e * height, left + a * width, top), 2000)
    return shapely.transform(box, lambda xy: np.stack(to_lonlat(lattice, *xy.T), axis=1))


def _bbox(outline: Any) -> tuple[float, float, float, float]:
    """As catalogues write it: west lies above east where it crosses the antimeridian."""
    west, south, east, north = outline.bounds
    if east - west > 180:
        lon = shapely.get_coordinates(outline)[:, 0]
        west, east = lon[lon > 0].min(), lon[lon < 0].max()
    return float(west), float(south), float(east), float(north)
