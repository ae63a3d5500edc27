"""Peers that leave what eoray leaves: reflectance, classes, masks and flags, from a catalogue.

Items come from the catalogue within the measured time, all documents of a level at once. A date
becomes reflectance (int16, offset removed, negatives kept), the scene classification, the mask
with its neighbourhood of clouds and shadows, and a flag where no band holds a value, at 10 and
20 m. What a peer lacks it is given: the kernel that makes masks is eoray's own, and arithmetic is
one function a block. Ledger, digests, lease, snapshot of the items and commits stay eoray's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import urljoin

import numpy as np
import readers
from readers import ZONE, Job, Read
from scenery import EPSG, OFFSET, read_source

from eoray.cube.mask import MaskRecipe, mask_scl
from eoray.grid import TOP_M, PixelWindow
from eoray.sentinel2 import COMMON_NAMES, FILL, REFLECTANCE_MAX, Quality

Layers = Mapping[str, np.ndarray]
"""``10m/quality`` and the like -> dims (..., y, x) of one date."""
FoundLayers = Callable[[int], Layers]

_NO_DATA = np.uint8(int(Quality.NO_DATA))
_HALO_PX = 6
"""Pixels of 20 m around the window whose clouds reach into it."""
_CLASSES_PX = 20
_FILLS = {
    "10m/reflectance": FILL,
    "10m/quality": int(_NO_DATA),
    "20m/quality": int(_NO_DATA),
    "20m/scl": 0,
    "20m/mask": 32,
}


def by_eoray(job: Job, stack: ExitStack) -> tuple[Read, FoundLayers]:
    """The same run of the cube stage as in the other cases."""
    read, _ = readers.by_eoray(job, stack)

    def found(date: int) -> Layers:
        from eoray.cube.read import CubeReader, CubeSource

        reader = CubeReader(CubeSource(str(job.out)))
        index = [int(reader.entries("s2", ZONE).index[date])]
        west, _, _, north = job.bounds
        layers = {}
        for path in _FILLS:
            level, name = path.split("m/")
            pixel, edge = int(level), job.shape[2] * 10 // int(level)
            at = round((TOP_M - north) / pixel), round(west / pixel)
            window = PixelWindow(*at, edge, edge)
            layers[path] = reader.read(
                "s2", ZONE, name, window=window, resolution_m=pixel, index=index
            )[0]
        return layers

    return read, found


def by_odc_dask(job: Job, stack: ExitStack) -> tuple[Read, FoundLayers]:
    """odc-stac, lazily."""
    import odc.stac

    odc.stac.configure_rio(cloud_defaults=True)

    def load(items: Sequence[Any], names: Sequence[str], pixel: int, halo: int, part: int) -> Any:
        loaded = odc.stac.load(
            items,
            bands=list(names),
            geobox=_geobox(job, pixel, halo),
            dtype="uint8" if names == ["scl"] else "uint16",
            chunks={"x": part, "y": part},
        )
        return loaded[list(names)].to_array("band").transpose("time", "band", "y", "x").data

    return _lazily(job, stack, load)


def by_stackstac(job: Job, stack: ExitStack, *, dtype: str = "uint16") -> tuple[Read, FoundLayers]:
    """stackstac, with its own type of numbers or those of the files."""
    import stackstac

    def load(items: Sequence[Any], names: Sequence[str], pixel: int, halo: int, part: int) -> Any:
        stored = "uint8" if names == ["scl"] else "uint16"
        given = [item.to_dict() for item in items]
        for item in given:
            item["properties"]["proj:epsg"] = EPSG  # pystac moves it, stackstac looks for it here
        west, south, east, north = job.bounds
        options: dict[str, Any] = (
            {} if dtype == "float64" else {"dtype": stored, "fill_value": np.dtype(stored).type(0)}
        )
        stacked = stackstac.stack(
            given,
            assets=list(names),
            epsg=EPSG,
            resolution=pixel,
            bounds=(west - halo * pixel, south - halo * pixel,
                    east + halo * pixel, north + halo * pixel),
            rescale=False,
            snap_bounds=False,
            xy_coords="center",
            sortby_date="asc",
            chunksize=(1, 1, part, part),
            **options,
        )  # fmt: skip
        if dtype == "float64":
            stacked = stacked.fillna(0).astype(stored)
        return stacked.data

    return _lazily(job, stack, load)


def _geobox(job: Job, pixel: int, halo: int) -> Any:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    west, _, _, north = job.bounds
    edge = job.shape[2] * 10 // pixel + 2 * halo
    place = Affine(pixel, 0, west - halo * pixel, 0, -pixel, north + halo * pixel)
    return GeoBox((edge, edge), place, f"EPSG:{EPSG}")


def _lazily(job: Job, stack: ExitStack, load: Callable[..., Any]) -> tuple[Read, FoundLayers]:
    """One graph for all arrays: each file is read once."""
    del stack
    _create(job)
    n_bands, edge = len(job.bands), job.shape[2]

    def read() -> None:
        import dask
        import xarray as xr

        items, names = _search(job), [COMMON_NAMES[band] for band in job.bands]
        dn = load(items, names, 10, 0, edge // 2).rechunk({1: n_bands})
        wide = load(items, ["scl"], _CLASSES_PX, _HALO_PX, edge)[:, 0]
        inside = np.s_[:, _HALO_PX:-_HALO_PX, _HALO_PX:-_HALO_PX]
        scl = wide[inside]
        arrays = {
            "10m/reflectance": dn.map_blocks(_reflectance, dtype=np.int16),
            "10m/quality": dn.map_blocks(_empty_bands, drop_axis=1, dtype=np.uint8),
            "20m/quality": scl.map_blocks(_empty_classes, dtype=np.uint8),
            "20m/scl": scl,
            "20m/mask": wide.map_blocks(_masks, dtype=np.uint8)[inside],
        }
        region = {"time": slice(0, job.n_dates)}
        waiting = []
        for level in ("10m", "20m"):
            chosen = {k.split("/")[1]: v for k, v in arrays.items() if k.startswith(level)}
            dims = {name: _dims(name) for name in chosen}
            dataset = xr.Dataset({name: (dims[name], values) for name, values in chosen.items()})
            waiting.append(
                dataset.to_zarr(
                    job.out, group=level, mode="r+", zarr_format=3, consolidated=False,
                    compute=False, safe_chunks=False,
                    region={d: region.get(d, slice(None)) for d in dataset.dims},
                )
            )  # fmt: skip
        with dask.config.set(scheduler="threads", num_workers=job.threads):
            dask.compute(*waiting)

    return read, partial(_found, job)


def _reflectance(dn: np.ndarray) -> np.ndarray:
    shifted = np.minimum(dn.astype(np.int32) + OFFSET, REFLECTANCE_MAX).astype(np.int16)
    shifted[dn == 0] = FILL
    return shifted


def _empty_bands(dn: np.ndarray) -> np.ndarray:
    return np.asarray((dn == 0).all(axis=1) * _NO_DATA)


def _empty_classes(scl: np.ndarray) -> np.ndarray:
    return np.asarray((scl == 0) * _NO_DATA)


def _masks(scl: np.ndarray) -> np.ndarray:
    recipe = MaskRecipe()
    return np.stack([mask_scl(np.ascontiguousarray(one), recipe) for one in scl])


def _dims(name: str) -> tuple[str, ...]:
    return ("time", "band", "y", "x") if name == "reflectance" else ("time", "y", "x")


def _create(job: Job) -> None:
    """Arrays of half a window a shard, as for bare pixels."""
    import zarr
    from zarr.codecs import BloscCodec

    root = zarr.open_group(job.out, mode="w", zarr_format=3)
    for path, fill in _FILLS.items():
        level, name = path.split("/")
        edge = job.shape[2] * 10 // int(level.removesuffix("m"))
        lead = (len(job.bands),) if name == "reflectance" else ()
        # a mask comes as one block a date
        part = edge if name in ("scl", "mask") or level == "20m" else edge // 2
        chunk = np.gcd(part, readers.PEER_CHUNK_PX)
        root.require_group(level).create_array(
            name,
            shape=(job.n_dates, *lead, edge, edge),
            chunks=(1, *lead, int(chunk), int(chunk)),
            shards=(1, *lead, part, part),
            dtype="int16" if name == "reflectance" else "uint8",
            fill_value=fill,
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            dimension_names=_dims(name),
        )


def _found(job: Job, date: int) -> Layers:
    import zarr

    root: Any = zarr.open_group(job.out, mode="r")
    return {path: np.asarray(root[path][date]) for path in _FILLS}


def _search(job: Job) -> list[Any]:
    """Items of the wanted dates, each level of the catalogue fetched at once."""
    import pystac
    import requests

    with requests.Session() as session, ThreadPoolExecutor(16) as pool:
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=16)
        session.mount("http://", adapter)

        def fetch(place: str) -> tuple[str, Any]:
            return place, session.get(place).json()

        level = [fetch(f"{job.root}/catalog.json")]
        while not all(document["type"] == "Feature" for _, document in level):
            level = list(
                pool.map(
                    fetch,
                    [
                        urljoin(place, link["href"])
                        for place, document in level
                        for link in document["links"]
                        if link["rel"] in ("child", "item")
                    ],
                )
            )
    items = []
    for place, document in level:
        item = pystac.Item.from_dict(document)
        item.set_self_href(place)
        item.make_asset_hrefs_absolute()
        item.clear_links()
        items.append(item)
    items.sort(key=lambda item: str(item.datetime))
    return items[job.first : job.first + job.n_dates]


PRODUCTS: dict[str, Callable[[Job, ExitStack], tuple[Read, FoundLayers]]] = {
    "eoray": by_eoray,
    "odc-stac-dask": by_odc_dask,
    "stackstac": by_stackstac,
    "stackstac-float64": lambda job, stack: by_stackstac(job, stack, dtype="float64"),
}


def count_differing(job: Job, found: FoundLayers, dates: list[int]) -> int:
    """Values that are not those of the source; of flags, the one that peers can know."""
    differing = 0
    row, col, edge = job.window
    coarse = row // 2, col // 2, edge // 2
    for date in dates:
        layers, day = found(date), job.first + date
        bands = [read_source(job.scenery, day, band, job.window) for band in job.bands]
        dn = np.stack(bands)
        wide = read_source(
            job.scenery,
            day,
            "SCL",
            (coarse[0] - _HALO_PX, coarse[1] - _HALO_PX, coarse[2] + 2 * _HALO_PX),
        )
        scl = wide[_HALO_PX:-_HALO_PX, _HALO_PX:-_HALO_PX]
        expected = {
            "10m/reflectance": _reflectance(dn),
            "10m/quality": _empty_bands(dn[None])[0],
            "20m/quality": _empty_classes(scl),
            "20m/scl": scl,
            "20m/mask": _masks(wide[None])[0][_HALO_PX:-_HALO_PX, _HALO_PX:-_HALO_PX],
        }
        for path, values in expected.items():
            got = layers[path]
            differing += int(((got & _NO_DATA if "quality" in path else got) != values).sum())
    return differing
