"""Products for everybody else: Cloud Optimized GeoTIFFs, STAC, and windows of the cube."""

from __future__ import annotations

from eoray.publish.cog import BandInfo, RasterInfo, write_cog
from eoray.publish.export import export_window, export_zarr
from eoray.publish.groups import TileGroup, group_tiles, published_grid
from eoray.publish.legend import LegendClass, legend_of, make_legend
from eoray.publish.maps import (
    CHANGE_BANDS,
    PublishedCog,
    finished_tiles,
    publish_change,
    publish_map,
)
from eoray.publish.stac import CollectionCard, copernicus_notice, write_stac

__all__ = [
    "CHANGE_BANDS",
    "BandInfo",
    "CollectionCard",
    "LegendClass",
    "PublishedCog",
    "RasterInfo",
    "TileGroup",
    "copernicus_notice",
    "export_window",
    "export_zarr",
    "finished_tiles",
    "group_tiles",
    "legend_of",
    "make_legend",
    "publish_change",
    "publish_map",
    "published_grid",
    "write_cog",
    "write_stac",
]
