"""Archives whose every pixel tells its own place and date, for tests and benchmarks of any size.

A wrong window, a flip, a shift by half a pixel or a swapped date shows at once, since the stored
number is a function of granule row, column, date and band that an oracle can repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from eoray.errors import ConfigError
from eoray.grid import SOUTH_M, TILE_M, Tile
from eoray.sentinel2 import BANDS, COMMON_NAMES, Scl, native_resolution_m
from eoray.testing.cog import CogLayout, encode_cog, write_bytes
from eoray.testing.frame import Granule, to_lonlat
from eoray.testing.items import asset_file, item_path, make_item, write_catalog, write_json
from eoray.testing.passes import Job, Pass

_ROW_STEP, _DATE_STEP, _BAND_STEP, _PERIOD = 7_001, 7_919, 13, 50_000
_FIRST_DAY = datetime(2023, 1, 3, 10, 6, 33, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PositionOptions:
    """Shape of a position-valued archive."""

    tiles: tuple[int, int] = (2, 2)
    """World tiles covered: (rows, cols)."""
    n_dates: int = 2
    """Datatakes, five days apart from 2023-01-03."""
    bands: tuple[str, ...] = BANDS
    zone: int = 32
    southern: bool = False
    """Place it south of the equator, with files in EPSG:327zz."""
    granule_px: int | None = None
    """Edge of a granule in pixels of 10 m, a multiple of 20; one granule for all when missing."""
    overlap_px: int = 98
    """Pixels of 10 m that neighbouring granules share, even."""
    baseline: str = "05.10"
    """Processing baseline: from 04.00 on, reflectance is the stored number less 1000."""
    block_px: int = 256
    """Internal tile of the files."""
    nodata_px: int = 12
    """Columns of 10 m without data at the western edge of each granule, even."""
    overviews: bool = False
    seed: int = 0
    """Added to the index of the date, so that two archives differ."""

    @property
    def first_tile(self) -> Tile:
        """Upper left tile."""
        return Tile(self.zone, 1021 if self.southern else 391, 44)

    @property
    def tile_list(self) -> tuple[Tile, ...]:
        """All tiles covered, row by row."""
        first = self.first_tile
        rows, cols = self.tiles
        return tuple(
            Tile(first.zone, first.row + r, first.col + c) for r in range(rows) for c in range(cols)
        )


def expected_dn(
    row: np.ndarray | int,
    col: np.ndarray | int,
    *,
    date_index: int,
    band: str,
    seed: int = 0,
) -> np.ndarray:
    """Stored number of a pixel of a granule, nodata aside.

    Args:
        row: Row in the granule's file of the band's native resolution.
        col: Column.
        date_index: 0 for the first datatake.
        band: Band id.
        seed: Of the archive.

    Returns:
        Broadcast shape of row and col, uint16, 1 to 50 000.
    """
    start = _DATE_STEP * (date_index + seed) + _BAND_STEP * BANDS.index(band)
    place = np.asarray(row) * _ROW_STEP + np.asarray(col)
    return np.asarray((place + start) % _PERIOD + 1, np.uint16)


def list_position_granules(options: PositionOptions) -> tuple[Granule, ...]:
    """Lay granules over the tiles; their corners are multiples of 20 m, not of 10 240 m."""
    west, south, east, north = _extent(options)
    margin = 340
    width, height = int(east - west) + 2 * margin, int(north - south) + 2 * margin
    size_px = options.granule_px or max(width, height) // 200 * 20 + 20
    if size_px % 20 or options.overlap_px % 2 or not 0 <= options.overlap_px < size_px:
        raise ConfigError(
            f"granule_px {size_px} must be a multiple of 20 and overlap_px {options.overlap_px} "
            "even and smaller, so that pixels of 20 m stay whole"
        )
    pitch = (size_px - options.overlap_px) * 10
    epsg = (32700 if options.southern else 32600) + options.zone
    shift = SOUTH_M if options.southern else 0
    site = "south" if options.southern else "north"
    granules: list[Granule] = []
    rows = max(1, -(-(height - options.overlap_px * 10) // pitch))
    cols = max(1, -(-(width - options.overlap_px * 10) // pitch))
    for row in range(rows):
        for col in range(cols):
            name = (
                f"{options.zone:02d}{'L' if options.southern else 'U'}{_letter(row)}{_letter(col)}"
            )
            x0, y0 = int(west) - margin + col * pitch, int(north) + margin + shift - row * pitch
            granules.append(Granule(name, epsg, x0, y0, size_px, site))
    return tuple(granules)


def write_position_archive(folder: str | Path, options: PositionOptions | None = None) -> Path:
    """Write the archive: catalogue, COGs, and ``aoi.geojson`` over exactly its tiles.

    Args:
        folder: Where it stands; made if missing, files overwritten.
        options: Its shape; the default when missing.

    Returns:
        Path of ``catalog.json``.
    """
    options = options or PositionOptions()
    folder = Path(folder)
    jobs = position_jobs(options)
    for index, job in enumerate(jobs):
        _write_item(folder, job, index // len(list_position_granules(options)), options)
    write_catalog(folder, jobs, "eoray position-valued archive")
    write_json(folder / "aoi.geojson", _aoi(options))
    return folder / "catalog.json"


def position_jobs(options: PositionOptions) -> tuple[Job, ...]:
    """List the items, date by date."""
    granules = list_position_granules(options)
    return tuple(
        Job(granule, _pass(options, index), options.baseline)
        for index in range(options.n_dates)
        for granule in granules
    )


def _pass(options: PositionOptions, index: int) -> Pass:
    return Pass(
        satellite="AB"[index % 2],
        start=_FIRST_DAY + timedelta(days=5 * index),
        relative_orbit=22,
        absolute_orbit=39_000 + 71 * index,
        site="south" if options.southern else "north",
        cloud_share=0.0,
        shift_px=(0.0, 0.0),
        lat=-9.5 if options.southern else 48.6,
        lon=6.0 * options.zone - 183.0,
    )


def _write_item(folder: Path, job: Job, date_index: int, options: PositionOptions) -> None:
    path = item_path(folder, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = CogLayout(block_px=options.block_px, overviews=options.overviews)
    size = job.granule.size_px
    scl = np.full((size // 2, size // 2), Scl.VEGETATION, np.uint8)
    scl[:, : options.nodata_px // 2] = Scl.NO_DATA
    sizes: dict[str, int] = {}
    for band in (*options.bands, "SCL"):
        resolution = native_resolution_m(band)
        n = size * 10 // resolution
        if band == "SCL":
            pixels = scl
        else:
            at = np.arange(n)
            pixels = expected_dn(
                at[:, None], at[None, :], date_index=date_index, band=band, seed=options.seed
            )
            pixels[:, : options.nodata_px * 10 // resolution] = 0
        asset = COMMON_NAMES.get(band, "scl")
        content = encode_cog(
            pixels,
            origin=(job.granule.x0, job.granule.y0),
            resolution_m=resolution,
            epsg=job.granule.epsg,
            layout=layout,
        )
        write_bytes(path.parent / asset_file(asset), content)
        sizes[asset] = len(content)
    write_json(path, make_item(job, scl, sizes, options.block_px))


def _extent(options: PositionOptions) -> tuple[float, float, float, float]:
    west, _, _, north = options.first_tile.bounds
    rows, cols = options.tiles
    return west, north - rows * TILE_M, west + cols * TILE_M, north


def _aoi(options: PositionOptions) -> dict[str, object]:
    import shapely
    from shapely.geometry import mapping

    west, south, east, north = _extent(options)
    # vertices every 2 km: a straight line of 80 km in degrees bends by 140 m on the ground
    box = shapely.segmentize(shapely.box(west + 60, south + 60, east - 60, north - 60), 2000.0)
    polygon = to_lonlat(box, 32600 + options.zone)
    feature = {"type": "Feature", "properties": {"name": "aoi"}, "geometry": mapping(polygon)}
    return {"type": "FeatureCollection", "features": [feature]}


def _letter(index: int) -> str:
    letters: Sequence[str] = "ABCDEFGHJKLMNPQRSTUV"
    return letters[index % len(letters)]
