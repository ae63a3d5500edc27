"""Publish maps and change maps of a store as COGs: one file per group of tiles that touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray import storage
from eoray.cube.layout import DONE, DONE_WITH_HOLES, group_path
from eoray.errors import StoreError
from eoray.grid import Tile, Zone, owner_mask
from eoray.publish.cog import BandInfo, Block, RasterInfo, write_cog
from eoray.publish.groups import TileGroup, group_tiles
from eoray.publish.legend import LegendClass, legend_of

if TYPE_CHECKING:
    from eoray.cube.read import CubeReader

RESOLUTION_M = 10
"""Pixel of a land-cover map."""

NOT_MAPPED = 0
"""Class outside the map, and nodata of its COG."""

NO_PROBABILITY = 255
"""Nodata of probability and entropy."""

NO_CHANGE_PRODUCT = -1
"""Nodata of the change COG: no tile there, or another zone's pixel. 0 is a date: no break."""

CHANGE_BANDS = (
    BandInfo("break_date", "date of the last break, 0 where none", "days since 1970-01-01"),
    BandInfo("n_breaks", "breaks in the record"),
    BandInfo("date_lo", "last observation that fitted before that break", "days since 1970-01-01"),
    BandInfo("date_hi", "first observation that did not fit", "days since 1970-01-01"),
    BandInfo("qa_flags", "bits, see the tag flag_meanings"),
    BandInfo("n_obs", "clear observations that a curve was fitted to"),
    BandInfo("monitored_from", "first date a break could begin, 0 never", "days since 1970-01-01"),
    BandInfo("monitored_to", "last date a break could begin, 0 never", "days since 1970-01-01"),
)
"""Bands of a change COG, all int32."""


@dataclass(frozen=True, slots=True)
class PublishedCog:
    """One file that was written, as STAC and the report need it."""

    role: str
    """``class``, ``probability`` or ``change``."""
    group: TileGroup
    url: str
    info: RasterInfo
    start: str
    """First day that the product speaks of, ISO."""
    end: str
    """Last day, ISO."""


def publish_map(
    reader: CubeReader,
    product: str,
    out_url: str,
    *,
    name: str,
    entry: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[PublishedCog]:
    """Write the classes of a map, and beside them how sure they are.

    ``{out_url}/map/*.tif`` hold one uint8 band, the class, with a colour table and overviews by
    mode; every file there is part of the map. ``{out_url}/probability/*.tif`` hold probability and
    entropy with averaged overviews. (A TIFF with a colour table can hold one band only.)

    Args:
        reader: The store.
        product: A map, such as ``map-demo``.
        out_url: Folder of the run's outputs.
        name: First part of the file names.
        entry: Key of a time entry; the latest when left out.
        tags: Further metadata of the files, such as the notice of the source.

    Returns:
        The files, classes before probabilities, in order of their tiles.

    Raises:
        StoreError: The store lacks the product or entry, or a file cannot be written.
    """
    groups = group_tiles(finished_tiles(reader, product))
    written: list[PublishedCog] = []
    for role, make in (("class", _class_info), ("probability", _probability_info)):
        folder = "map" if role == "class" else "probability"
        suffix = "" if role == "class" else "-probability"
        for group in groups:
            index, start, end = _entry(reader, product, group.zone, entry)
            info = make(group, _legend(reader, product, group.zone))
            info = _with_tags(info, product, f"{start}/{end}", tags)
            url = storage.join(out_url, folder, f"{name}-{group.id}{suffix}.tif")
            read = _class_blocks if role == "class" else _probability_blocks
            write_cog(url, info, read(reader, product, group, index))
            written.append(PublishedCog(role, group, url, info, start, end))
    return written


def publish_change(
    reader: CubeReader,
    product: str,
    out_url: str,
    *,
    name: str,
    period: tuple[str, str],
    tags: Mapping[str, str] | None = None,
) -> list[PublishedCog]:
    """Write the last break of every pixel, ``{out_url}/change/*.tif``, int32, ``CHANGE_BANDS``.

    A product of 20 m is replicated to 10 m, so that maps and changes overlay pixel by pixel; one on
    a user's grid has its pixel.

    Args:
        reader: The store.
        product: A change product, such as ``change-demo``.
        out_url: Folder of the run's outputs.
        name: First part of the file names.
        period: First and last day of the record, ISO.
        tags: Further metadata of the files.

    Raises:
        StoreError: The store lacks the product, or a file cannot be written.
    """
    from eoray.change.flags import FLAG_MASKS, FLAG_MEANINGS

    written = []
    flags = {
        "flag_masks": " ".join(str(mask) for mask in FLAG_MASKS),
        "flag_meanings": FLAG_MEANINGS,
    }
    for group in group_tiles(finished_tiles(reader, product)):
        info = replace(
            _info(group, CHANGE_BANDS, dtype="int32", nodata=NO_CHANGE_PRODUCT), overviews="MODE"
        )
        info = _with_tags(info, product, "/".join(period), {**flags, **(tags or {})})
        url = storage.join(out_url, "change", f"{name}-{group.id}.tif")
        write_cog(url, info, _change_blocks(reader, product, group))
        written.append(PublishedCog("change", group, url, info, *period))
    return written


def finished_tiles(reader: CubeReader, product: str) -> list[Tile]:
    """List the tiles of a product that are done at any entry, with or without valid pixels.

    Raises:
        StoreError: There is none.
    """
    tiles: set[Tile] = set()
    for zone in reader.zones(product):
        ledger = reader.ledger(product, zone)
        for entry in ledger.entries:
            status = ledger.field("status", entry)
            done = np.argwhere((status == DONE) | (status == DONE_WITH_HOLES))
            tiles.update(Tile(zone, int(row), int(col)) for row, col in done)
    if not tiles:
        raise StoreError(
            f"{reader.source.url!r} holds no finished tile of {product!r}, only "
            f"{', '.join(reader.products()) or 'nothing'}; run its stage first"
        )
    return sorted(tiles)


def _entry(
    reader: CubeReader, product: str, zone: Zone, entry: str | None
) -> tuple[list[int] | None, str, str]:
    """Position of an entry on the stored axis, and the first and last day that it speaks of."""
    table = reader.entries(product, zone)
    known = [str(key) for key in table.key]
    if entry is not None and entry not in known:
        raise StoreError(
            f"{product!r} in zone {zone} has no entry {entry!r}; it holds {', '.join(known)}"
        )
    at = len(known) - 1 if entry is None else known.index(entry)
    start = str(table.time[at].astype("datetime64[D]"))
    end = str(table.columns["period_end"][at])[:10] if "period_end" in table.columns else ""
    return [int(table.index[at])], start, _last_day(end) if end else start


def _last_day(end: str) -> str:
    """Turn the exclusive end of a period into its last day."""
    return (date.fromisoformat(end) - timedelta(days=1)).isoformat()


def _legend(reader: CubeReader, product: str, zone: Zone) -> tuple[LegendClass, ...]:
    return legend_of(dict(reader.root[f"{group_path(product, zone, RESOLUTION_M)}/class"].attrs))


def _info(group: TileGroup, bands: Sequence[BandInfo], *, dtype: str, nodata: int) -> RasterInfo:
    window = group.window(group.pixel_m)
    return RasterInfo(
        epsg=group.epsg,
        transform=group.transform(group.pixel_m),
        height=window.height,
        width=window.width,
        dtype=dtype,
        nodata=nodata,
        bands=tuple(bands),
        overviews="MODE",
    )


def _class_info(group: TileGroup, legend: Sequence[LegendClass]) -> RasterInfo:
    bands = [BandInfo("class", "land cover class, 0 not mapped")]
    words = " ".join(one.name.replace(" ", "_") for one in legend)
    return replace(
        _info(group, bands, dtype="uint8", nodata=NOT_MAPPED),
        colors={one.id: one.color for one in legend},
        tags={"flag_values": " ".join(str(one.id) for one in legend), "flag_meanings": words},
    )


def _probability_info(group: TileGroup, legend: Sequence[LegendClass]) -> RasterInfo:
    bands = [
        BandInfo("probability", "probability of the mapped class, 0 to 1", "1", 0.005),
        BandInfo(
            "entropy", f"entropy over {len(legend)} classes, 0 (sure) to 1 (even)", "1", 0.005
        ),
    ]
    return replace(_info(group, bands, dtype="uint8", nodata=NO_PROBABILITY), overviews="AVERAGE")


def _with_tags(
    info: RasterInfo, product: str, period: str, tags: Mapping[str, str] | None
) -> RasterInfo:
    own = {"product": product, "period": period}
    return replace(info, tags={**own, **info.tags, **(tags or {})})


def _blocks(group: TileGroup, read: Callable[[Tile], np.ndarray], nodata: int) -> Iterator[Block]:
    """Owned pixels of each tile at its place in the group's raster."""
    window = group.window(group.pixel_m)
    for tile in group.tiles:
        place = tile.window(group.pixel_m)
        pixels = np.where(owner_mask(tile, group.pixel_m), read(tile), nodata)
        yield place.row_off - window.row_off, place.col_off - window.col_off, pixels


def _class_blocks(
    reader: CubeReader, product: str, group: TileGroup, index: Sequence[int] | None
) -> Iterator[Block]:
    def read(tile: Tile) -> np.ndarray:
        return _plane(reader, product, tile, "class", RESOLUTION_M, index)[None]

    return _blocks(group, read, NOT_MAPPED)


def _probability_blocks(
    reader: CubeReader, product: str, group: TileGroup, index: Sequence[int] | None
) -> Iterator[Block]:
    def read(tile: Tile) -> np.ndarray:
        classes = _plane(reader, product, tile, "class", RESOLUTION_M, index)
        layers = [
            _plane(reader, product, tile, array, RESOLUTION_M, index)
            for array in ("probability", "entropy")
        ]
        return np.where(classes == NOT_MAPPED, NO_PROBABILITY, np.stack(layers))

    return _blocks(group, read, NO_PROBABILITY)


def _change_blocks(reader: CubeReader, product: str, group: TileGroup) -> Iterator[Block]:
    resolution_m = reader.resolutions(product, group.zone)[0]
    repeat = resolution_m // group.pixel_m

    def read(tile: Tile) -> np.ndarray:
        arrays = {
            name: _plane(reader, product, tile, name, resolution_m, None)
            for name in (
                "n_breaks",
                "date_est",
                "date_lo",
                "date_hi",
                "qa_flags",
                "n_obs",
                "monitored_from",
                "monitored_to",
            )
        }
        return last_break(arrays).repeat(repeat, axis=1).repeat(repeat, axis=2)

    return _blocks(group, read, NO_CHANGE_PRODUCT)


def last_break(arrays: Mapping[str, Any]) -> np.ndarray:
    """Flatten the breaks of a record to the last one.

    Args:
        arrays: Stored change arrays by name; dates have dims (segment, y, x), 0 where none.

    Returns:
        Dims (band, y, x), int32, bands as in ``CHANGE_BANDS``.
    """
    latest = np.asarray(arrays["date_est"]).argmax(axis=0)[None]
    dates = [
        np.take_along_axis(np.asarray(arrays[name]), latest, axis=0)[0]
        for name in ("date_est", "date_lo", "date_hi")
    ]
    flat = [arrays[name] for name in ("qa_flags", "n_obs", "monitored_from", "monitored_to")]
    return np.stack([dates[0], arrays["n_breaks"], *dates[1:], *flat]).astype("i4")


def _plane(
    reader: CubeReader,
    product: str,
    tile: Tile,
    array: str,
    resolution_m: int,
    index: Sequence[int] | None,
) -> np.ndarray:
    values = reader.read(
        product,
        tile.zone,
        array,
        window=tile.window(resolution_m),
        resolution_m=resolution_m,
        index=index,
    )
    return values if index is None else values[0]
