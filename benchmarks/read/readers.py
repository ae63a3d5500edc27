"""The readers that are compared: each fills a Zarr store of its own from the same items.

All write blosc zstd-1 with bitshuffle. eoray runs a run file: search, plan, snapshot of the items,
scene classification, masks, quality flags, ledger, lease and commits included. The others get their
items from memory and write bare pixels into an array that exists already, in chunks and shards that
suit them (512 px, half a window), by zarr-python; "rasterio" is GDAL as fast as it is known to go
(tuned options, each band's window read once, six threads) with eoray's own encoder of shards.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scenery import EPSG, OFFSET, X0, Y0, Scenery, read_source

from eoray.grid import TILE_M, TOP_M, Tile
from eoray.sentinel2 import COMMON_NAMES, FILL, native_resolution_m
from eoray.testing.items import item_path, write_json

ZONE, EDGE_TILES = 31, 3
PEER_CHUNK_PX = 512


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement."""

    scenery: Scenery
    root: str
    """URL of the archive."""
    out: Path
    bands: tuple[str, ...]
    n_dates: int
    whole: bool
    """The whole granule, or 3 x 3 tiles of the world grid within it."""
    threads: int
    """Of the peers."""
    first: int = 0
    """The first date."""

    @property
    def pixel_m(self) -> int:
        """Native pixel of the bands."""
        return native_resolution_m(self.bands[0])

    @property
    def first_tile(self) -> Tile:
        """The north-western of the tiles that lie within the granule."""
        return Tile(ZONE, math.ceil((TOP_M - Y0) / TILE_M), math.ceil(X0 / TILE_M))

    @property
    def window(self) -> tuple[int, int, int]:
        """(row, column, edge) in the files, in pixels of the bands."""
        if self.whole:
            return 0, 0, self.scenery.size_px * 10 // self.pixel_m
        west, _, _, north = self.first_tile.bounds
        row, col = round((Y0 - north) / self.pixel_m), round((west - X0) / self.pixel_m)
        return row, col, EDGE_TILES * TILE_M // self.pixel_m

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(date, band, y, x)."""
        edge = self.window[2]
        return self.n_dates, len(self.bands), edge, edge

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x min, y min, x max, y max) in metres."""
        row, col, edge = self.window
        x, y, size = X0 + col * self.pixel_m, Y0 - row * self.pixel_m, edge * self.pixel_m
        return x, y - size, x + size, y


Read = Callable[[], None]
Found = Callable[[int], np.ndarray]
"""Stored numbers of a date as they should stand in the files, dims (band, y, x)."""


def by_eoray(job: Job, stack: ExitStack, *, ray: bool = False) -> tuple[Read, Found]:
    """A run of the cube stage."""
    from eoray.execute import local_ray
    from eoray.run import load_run

    aoi = job.out.with_suffix(".geojson")
    write_json(aoi, _polygon(job))
    run_file = job.out.with_suffix(".yaml")
    run_file.write_text(f"""\
version: 1
name: bench
aoi: {aoi}
time: {job.scenery.days(job.n_dates, job.first)}
task: cube
source: {{catalog: {job.root}/catalog.json, collection: sentinel-2-c1-l2a}}
store: {job.out}
cube: {{bands: [{", ".join(job.bands)}], composite: {{method: none}}}}
""")
    if ray:
        stack.enter_context(local_ray(os.cpu_count() or 1))
    run = load_run(run_file)

    def read() -> None:
        run.execute(["cube"], executor="ray" if ray else "threads")

    def found(date: int) -> np.ndarray:
        from eoray.cube.read import CubeReader, CubeSource
        from eoray.grid import PixelWindow

        reader = CubeReader(CubeSource(str(job.out)))
        west, _, _, north = job.bounds
        at = round((TOP_M - north) / job.pixel_m), round(west / job.pixel_m)
        values = reader.read_bands(
            "s2",
            ZONE,
            bands=job.bands,
            window=PixelWindow(*at, *job.shape[2:]),
            resolution_m=job.pixel_m,
            index=[int(reader.entries("s2", ZONE).index[date])],
        )[0]
        return np.where(values == FILL, 0, values.astype(np.int32) - OFFSET).astype(np.uint16)

    return read, found


def _polygon(job: Job) -> dict[str, Any]:
    import shapely

    from eoray.testing.frame import to_lonlat

    west, south, east, north = job.bounds
    inset = 1000.0 if job.whole else 60.0
    box = shapely.box(west + inset, south + inset, east - inset, north - inset)
    polygon = to_lonlat(shapely.segmentize(box, 2000.0), EPSG)
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(polygon)}
    return {"type": "FeatureCollection", "features": [feature]}


def by_odc_dask(job: Job, stack: ExitStack) -> tuple[Read, Found]:
    """Dask's threads under odc-stac."""
    import odc.stac

    del stack
    odc.stac.configure_rio(cloud_defaults=True)
    items, names = list(_items(job)), _names(job)
    array, found = _peer_array(job)

    def read() -> None:
        part = _part_px(job)
        loaded = odc.stac.load(
            items, bands=names, geobox=_geobox(job), dtype="uint16", chunks={"x": part, "y": part}
        )
        stacked = loaded[names].to_array("band").transpose("time", "band", "y", "x")
        _write_dask(job, stacked.chunk({"band": 1}), array)

    return read, found


def by_odc_direct(job: Job, stack: ExitStack) -> tuple[Read, Found]:
    """odc-stac without dask: each date loaded by a pool of threads, then written."""
    import odc.stac

    del stack
    odc.stac.configure_rio(cloud_defaults=True)
    items, names = list(_items(job)), _names(job)
    array, found = _peer_array(job)

    def read() -> None:
        for date, item in enumerate(items):
            loaded = odc.stac.load(
                [item], bands=names, geobox=_geobox(job), dtype="uint16", pool=job.threads
            )
            for number, name in enumerate(names):
                array[date, number] = loaded[name].values[0]

    return read, found


def by_stackstac(job: Job, stack: ExitStack, *, dtype: str = "uint16") -> tuple[Read, Found]:
    """Dask's threads under stackstac."""
    import stackstac

    del stack
    items = [item.to_dict() for item in _items(job)]
    for item in items:
        item["properties"]["proj:epsg"] = EPSG  # pystac moves it, stackstac looks for it here
    array, found = _peer_array(job)

    def read() -> None:
        options: dict[str, Any] = (
            {} if dtype == "float64" else {"dtype": dtype, "fill_value": np.uint16(0)}
        )
        stacked = stackstac.stack(
            items,
            assets=_names(job),
            epsg=EPSG,
            resolution=job.pixel_m,
            bounds=job.bounds,
            rescale=False,
            snap_bounds=False,
            xy_coords="center",
            sortby_date="asc",
            chunksize=(1, 1, _part_px(job), _part_px(job)),
            **options,
        )
        if dtype == "float64":
            stacked = stacked.fillna(0).astype("uint16")
        assert stacked.shape == job.shape
        _write_dask(job, stacked, array)

    return read, found


def by_rasterio(job: Job, stack: ExitStack) -> tuple[Read, Found]:
    """GDAL with tuned options; eoray's encoder of shards."""
    import rasterio

    from eoray.cube.layout import CHUNK_PX
    from eoray.cube.shard import encode_shard
    from eoray.reading.gdal import _OPTIONS

    del stack
    array, found = _peer_array(job, CHUNK_PX)
    shard = array.shards[-1]
    folder = job.out / "data" / "c"
    row, col, edge = job.window
    hrefs = [
        [item.assets[name].get_absolute_href() for name in _names(job)] for item in _items(job)
    ]

    def one(place: tuple[int, int]) -> None:
        date, number = place
        window = rasterio.windows.Window(col, row, edge, edge)
        with rasterio.open(f"/vsicurl/{hrefs[date][number]}") as file:
            values = file.read(1, window=window)
        for i in range(0, edge, shard):
            for j in range(0, edge, shard):
                part = np.zeros((1, shard, shard), np.uint16)
                piece = values[i : i + shard, j : j + shard]
                part[0, : piece.shape[0], : piece.shape[1]] = piece
                data = encode_shard(part, 0)
                if data is not None:
                    target = folder / f"{date}/{number}/{i // shard}/{j // shard}"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)

    def enter() -> None:
        rasterio.Env(**_OPTIONS).__enter__()

    def read() -> None:
        places = [(date, n) for date in range(job.n_dates) for n in range(len(job.bands))]
        with ThreadPoolExecutor(6, initializer=enter) as pool:
            list(pool.map(one, places))

    return read, found


def _names(job: Job) -> list[str]:
    return [COMMON_NAMES[band] for band in job.bands]


def _items(job: Job) -> Iterator[Any]:
    import pystac

    for one in job.scenery.jobs[job.first : job.first + job.n_dates]:
        path = item_path(job.scenery.folder, one)
        place = f"{job.root}/{path.relative_to(job.scenery.folder)}"
        item = pystac.Item.from_dict(json.loads(path.read_text()))
        item.set_self_href(place)
        item.make_asset_hrefs_absolute()
        item.clear_links()
        yield item


def _geobox(job: Job) -> Any:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    west, _, _, north = job.bounds
    place = Affine(job.pixel_m, 0, west, 0, -job.pixel_m, north)
    return GeoBox(job.shape[2:], place, f"EPSG:{EPSG}")


def _part_px(job: Job) -> int:
    """Half the window: larger pieces are decoded less often."""
    return job.shape[3] // 2


def _peer_array(job: Job, chunk_px: int = PEER_CHUNK_PX) -> tuple[Any, Found]:
    import zarr
    from zarr.codecs import BloscCodec

    part = _part_px(job)
    chunk_px = math.gcd(part, chunk_px)  # whole chunks in a shard
    group = zarr.open_group(job.out, mode="w", zarr_format=3)
    array = group.create_array(
        "data",
        shape=job.shape,
        chunks=(1, 1, chunk_px, chunk_px),
        shards=(1, 1, part, part),
        dtype="uint16",
        fill_value=0,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        dimension_names=("time", "band", "y", "x"),
    )

    def found(date: int) -> np.ndarray:
        return np.asarray(zarr.open_array(job.out / "data", mode="r")[date])

    return array, found


def _write_dask(job: Job, stacked: Any, array: Any) -> None:
    import dask
    import xarray as xr

    del array
    region: Any = {
        dim: slice(0, n) for dim, n in zip(("time", "band", "y", "x"), job.shape, strict=True)
    }
    dataset = xr.Dataset({"data": (("time", "band", "y", "x"), stacked.data)})
    with dask.config.set(scheduler="threads", num_workers=job.threads):
        dataset.to_zarr(job.out, mode="r+", region=region, zarr_format=3, consolidated=False)


READERS: dict[str, Callable[[Job, ExitStack], tuple[Read, Found]]] = {
    "eoray": by_eoray,
    "eoray-ray": lambda job, stack: by_eoray(job, stack, ray=True),
    "odc-stac-dask": by_odc_dask,
    "odc-stac-direct": by_odc_direct,
    "stackstac": by_stackstac,
    "stackstac-float64": lambda job, stack: by_stackstac(job, stack, dtype="float64"),
    "rasterio": by_rasterio,
}


def count_differing(job: Job, found: Found, dates: list[int]) -> int:
    """Values that are not those of the source, whatever is compared by rasterio."""
    differing = 0
    for date in dates:
        values = found(date)
        for number, band in enumerate(job.bands):
            source = read_source(job.scenery, job.first + date, band, job.window)
            differing += int((values[number] != source).sum())
    return differing
