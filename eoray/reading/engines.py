"""Other libraries in place of our own reader: odc-stac, and stackstac behind its guards.

They read the stored integers of one file over a window of its own pixels; placing, warping, the
choice of granules, offsets and quality stay ours, so that every engine gives the same cube. Asked
for a whole lattice, both would warp the southern hemisphere, and warp by GDAL, whose coordinates
are good to an eighth of a pixel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray.errors import ConfigError, GridError
from eoray.grid import Affine6
from eoray.reading.gdal import GdalFile, gdal_place
from eoray.reading.window import Engine

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from eoray.catalog.scene import BandAsset

ENGINES = ("eoray", "odc-stac", "stackstac")
"""What may read: our own reader, or one of two libraries."""


def resolve_engine(name: str) -> Engine | None:
    """Return what reads in place of our own reader.

    Args:
        name: One of ``ENGINES``.

    Returns:
        None for our own reader.

    Raises:
        ConfigError: No such engine, or its library is not installed.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is unknown; engines are {', '.join(ENGINES)}")
    if name == "eoray":
        return None
    engine, module = {
        "odc-stac": (OdcStacFile, "odc.stac"),
        "stackstac": (StackstacFile, "stackstac"),
    }[name]
    if not _is_installed(module):
        raise ConfigError(
            f"engine {name!r} needs a package that is not installed; run `pip install {name}`, or "
            "leave engine= out: eoray's own reader needs none"
        )
    return engine


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


class _LibraryFile(ABC):
    """A file whose header GDAL reads, and whose pixels a library does."""

    def __init__(self, asset: BandAsset) -> None:
        """Read the header.

        Raises:
            OSError: It cannot be read.
        """
        self.asset = asset
        with GdalFile(asset.href) as file:
            self.shape: tuple[int, int] = file.shape
            self.dtype: np.dtype[Any] = file.dtype
            self.transform: Affine6 = file.transform
            self.epsg: int | None = file.epsg
            self.nodata: float | None = file.nodata
            self._code = file.dataset.crs.to_epsg() if file.dataset.crs else None

    def read(self, rows: slice, cols: slice) -> np.ndarray:
        """Pixels within the file, dims (y, x)."""
        import rasterio

        place, options = gdal_place(self.asset.href)
        with rasterio.Env(**options):
            return self._load(place, self._geobox(rows, cols))

    @abstractmethod
    def _load(self, place: str, geobox: GeoBox) -> np.ndarray:
        """Pixels of a geobox of the file's own, dims (y, x)."""

    def _geobox(self, rows: slice, cols: slice) -> GeoBox:
        from affine import Affine
        from odc.geo.geobox import GeoBox

        if self._code is None:
            raise OSError("its CRS has no EPSG code, which other engines than eoray need")
        a, b, c, d, e, f = self.transform
        shape = rows.stop - rows.start, cols.stop - cols.start
        corner = Affine(a, b, c + cols.start * a, d, e, f + rows.start * e)
        return GeoBox(shape, corner, f"EPSG:{self._code}")

    def _item(self, place: str) -> dict[str, Any]:
        """The file as a STAC item of its own, which says what its header says."""
        height, width = self.shape
        a, _, left, _, e, top = self.transform
        projection = {
            "proj:code": f"EPSG:{self._code}",
            "proj:epsg": self._code,
            "proj:shape": [height, width],
            "proj:transform": list(self.transform),
            "proj:bbox": [left, top + e * height, left + a * width, top],
        }
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "file",
            "collection": "files",
            "stac_extensions": [
                "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
                "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            ],
            "geometry": None,
            "properties": {"datetime": "2015-06-23T00:00:00Z", **projection},
            "links": [],
            "assets": {
                self.asset.band: {
                    "href": place,
                    "type": "image/tiff; application=geotiff",
                    "roles": ["data"],
                    "raster:bands": [{"data_type": str(self.dtype), "nodata": self.asset.nodata}],
                    **projection,
                }
            },
        }


class OdcStacFile(_LibraryFile):
    """Pixels by odc-stac; an ``Engine``."""

    def _load(self, place: str, geobox: GeoBox) -> np.ndarray:
        import odc.stac
        import pystac

        item = pystac.Item.from_dict(self._item(place), migrate=False, preserve_dict=False)
        band = self.asset.band
        loaded = odc.stac.load(
            [item],
            bands=[band],
            geobox=geobox,
            dtype=str(self.dtype),
            nodata=self.asset.nodata,
            fail_on_error=True,
        )
        return np.asarray(loaded[band].values[0])


class StackstacFile(_LibraryFile):
    """Pixels by stackstac; an ``Engine``.

    stackstac 0.5.1 reads ``proj:epsg`` only, and falls back to a box in degrees without; applies
    scale and offset of the item by itself; turns files that are missing into no data; labels
    corners; and takes Python's numbers for float64. Each is answered here, and the grid that it
    made is compared with the one that was asked for.
    """

    def _load(self, place: str, geobox: GeoBox) -> np.ndarray:
        import stackstac

        stack = stackstac.stack(
            [self._item(place)],
            assets=[self.asset.band],
            epsg=self._code,
            resolution=(geobox.transform.a, -geobox.transform.e),
            bounds=geobox.boundingbox.bbox,
            snap_bounds=False,
            chunksize=max(geobox.shape),
            dtype=self.dtype,
            fill_value=self.dtype.type(self.asset.nodata),
            rescale=False,
            xy_coords="center",
            properties=False,
            band_coords=False,
            errors_as_nodata=(),
        )
        _check_stack(stack, geobox, place)
        try:
            values = stack.data.compute(scheduler="synchronous")
        except RuntimeError as error:  # its word for a failed read
            raise OSError(str(error)) from error
        return np.asarray(values[0, 0])


def _check_stack(stack: Any, geobox: GeoBox, place: str) -> None:
    """Refuse another grid than the one that was asked for: its values would lie elsewhere."""
    found = tuple(stack.shape), tuple(stack.attrs["transform"])[:6]
    wanted = (1, 1, *geobox.shape), tuple(geobox.transform)[:6]
    if found[0] != wanted[0] or not np.allclose(found[1], wanted[1], rtol=0, atol=1e-6):
        raise GridError(
            f"stackstac laid {place!r} on shape {found[0]} and transform {found[1]}, not on "
            f"{wanted[0]} and {wanted[1]}; leave engine= out to read it"
        )
