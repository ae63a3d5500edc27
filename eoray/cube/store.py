"""The repository: open it, create products in it, lengthen their time axes.

Only the driver of a run calls what writes here (see ``run.driver``); tasks write shards alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eoray import storage
from eoray.cube import shard
from eoray.cube.draft import Draft, bytes_codec
from eoray.cube.layout import (
    FORMAT_VERSION,
    GRID,
    ArraySpec,
    GroupSpec,
    ProductSpec,
    TimeEntry,
    ZarrArray,
    ZarrGroup,
    group_path,
    ledger_path,
    tile_px,
    zone_path,
    zone_shape,
    zones_of,
)
from eoray.errors import StoreError
from eoray.grid import Lattice, PixelWindow, Zone, lattice_of

if TYPE_CHECKING:
    import icechunk

BRANCH = "main"
_SPLIT = 64
"""Manifest split along time, y and x: a date added to 10^6 references costs 0.5 s, not 1.6."""

LEDGER_ARRAYS = {
    "status": "uint8",
    "n_valid": "uint32",
    "n_failed": "uint32",
    "digest": "uint64",
    "source": "int32",
    "n_masked": "uint32",
}
LEDGER_FILLS = {"source": -1}
"""Fill values other than 0."""
_OF_MASKS = ("n_masked",)
"""Arrays of products with a mask alone; cubes from before they were counted lack them."""
_COORD_CHUNK = 4096
_AXIS_CODECS = (
    bytes_codec("f8"),
    {
        "name": "blosc",
        "configuration": {
            "typesize": 8,
            "cname": "zstd",
            "clevel": 3,
            "shuffle": "shuffle",
            "blocksize": 0,
        },
    },
)
_TIME_UNITS = {"units": "milliseconds since 1970-01-01", "calendar": "proleptic_gregorian"}


def open_repository(url: str, *, create: bool = False) -> icechunk.Repository:
    """Open the Icechunk repository of a store.

    Args:
        url: The repository itself (``.../cube.icechunk``).
        create: Make it when there is none.

    Raises:
        StoreError: There is none, or the place cannot be read.
    """
    import icechunk

    icechunk.set_logs_filter("error")
    place = storage.icechunk_storage(url)
    try:
        if create:
            return icechunk.Repository.open_or_create(place, config=_config())
        return icechunk.Repository.open(place)
    except (icechunk.IcechunkError, OSError) as error:
        raise StoreError(
            f"no cube can be opened at {url!r} ({_first_line(error)}); name the folder that ends "
            f"in {storage.REPOSITORY!r}, or make one with `eoray run`"
        ) from error


def repository_url(url: str) -> str:
    """Accept a store folder as well as the repository inside it."""
    if url.rstrip("/").endswith(".icechunk"):
        return url
    inner = storage.join(url, storage.REPOSITORY)
    if storage.is_local(url) and not storage.exists(inner) and storage.exists(url + "/repo"):
        return url
    return inner


def _config() -> icechunk.RepositoryConfig:
    import icechunk

    dims: dict[Any, int] = {
        icechunk.ManifestSplitDimCondition.DimensionName(name): _SPLIT
        for name in ("time", "y", "x")
    }
    splitting = icechunk.ManifestSplittingConfig.from_dict(
        {icechunk.ManifestSplitCondition.AnyArray(): dims}
    )
    return icechunk.RepositoryConfig(manifest=icechunk.ManifestConfig(splitting=splitting))


def create_product(
    root: ZarrGroup, spec: ProductSpec, zone: Zone, entries: Sequence[TimeEntry] = ()
) -> bool:
    """Make the arrays of a product in a zone, or check those that stand there.

    Args:
        root: Group of the whole store, writable.
        spec: The product.
        zone: Where.
        entries: Of the time axis, if it is made now; :func:`append_entries` lengthens one that
            stands, which costs more.

    Returns:
        True when something was made.

    Raises:
        StoreError: The product exists with other parameters, or another layout.
    """
    product = root.require_group(spec.name)
    _check_stored(product, spec, zone)
    lattice = lattice_of(zone)
    if lattice.name in product:
        return False
    product.attrs.update({"title": spec.title or spec.name})
    draft = Draft()
    draft.add_group(
        zone_path(spec.name, zone),
        {
            **({} if lattice.overlaps else {GRID: lattice.to_attrs()}),
            "eoray:format": FORMAT_VERSION,
            "eoray:parameters": json.loads(json.dumps(dict(spec.parameters))),
            "eoray:has_time": spec.has_time,
        },
    )
    entries = _in_order(entries)
    for part in spec.groups:
        _draft_group(draft, spec, part, zone, entries)
    _draft_ledger(draft, spec, zone, entries)
    draft.make(root)
    return True


def check_product(root: ZarrGroup, spec: ProductSpec, zone: Zone) -> bool:
    """Tell whether a product stands in a zone, and refuse one that was made differently.

    Raises:
        StoreError: Other parameters, another layout or another grid; the first difference is
            named.
    """
    if spec.name not in root:
        return False
    _check_stored(root[spec.name], spec, zone)
    return zone_path(spec.name, zone) in root


def _check_stored(product: ZarrGroup, spec: ProductSpec, zone: Zone) -> None:
    """Refuse a product that was made with other parameters, or on another grid."""
    wanted = lattice_of(zone)
    for other in zones_of(product):
        lattice = lattice_of(other)
        if not (wanted.overlaps and lattice.overlaps) and lattice != wanted:
            raise StoreError(
                f"product {spec.name!r} stands {_described(lattice)}, this run writes "
                f"{_described(wanted)}; a product has one grid: correct cube.grid, or write to "
                "another store or name"
            )
        _check_same(dict(product[lattice.name].attrs), spec, other)


def _described(lattice: Lattice) -> str:
    if lattice.overlaps:
        return f"on the world grid (zone {lattice.name})"
    attrs = lattice.to_attrs()
    return (
        f"on grid {lattice.name!r} (EPSG:{lattice.epsg}, origin {attrs['origin']}, pixel "
        f"{attrs['pixel']}, tiles {attrs['tiles']})"
    )


def read_root(repository: icechunk.Repository) -> ZarrGroup:
    """The root group of the newest commit, read only; an empty one before a product was made."""
    import zarr
    from zarr.errors import GroupNotFoundError

    try:
        return zarr.open_group(repository.readonly_session(BRANCH).store, mode="r")
    except GroupNotFoundError:
        return zarr.open_group(zarr.storage.MemoryStore(), mode="w")


def _check_same(attrs: Mapping[str, Any], spec: ProductSpec, zone: Zone) -> None:
    version = attrs.get("eoray:format")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"product {spec.name!r} in zone {zone} was written in format {version}, this eoray "
            f"writes {FORMAT_VERSION}; use another store or the eoray that wrote it"
        )
    old = attrs.get("eoray:parameters", {})
    new = json.loads(json.dumps(dict(spec.parameters)))
    differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if differing:
        key = differing[0]
        raise StoreError(
            f"product {spec.name!r} in zone {zone} was made with {key} = {old.get(key)!r}, this "
            f"run asks for {new.get(key)!r}; keep the old value, or write to another store or "
            "name"
        )


def _draft_group(
    draft: Draft, spec: ProductSpec, part: GroupSpec, zone: Zone, entries: Sequence[TimeEntry]
) -> None:
    path = group_path(spec.name, zone, part.resolution_m)
    draft.add_group(path, _geo_attributes(zone, part.resolution_m))
    _draft_space(draft, path, zone, part.resolution_m)
    for dim, labels in part.coords.items():
        _draft_coord(draft, path, dim, dim, np.asarray(labels, dtype=object))
    for array in part.arrays:
        _draft_array(
            draft, path, array, part.resolution_m, zone, entries if spec.has_time else None
        )
    if spec.has_time and entries:
        _check_columns(path, {*entries[0].columns}, entries)
        for name, values in _columns(entries).items():
            _draft_coord(draft, path, name, "time", values)


def _draft_array(
    draft: Draft,
    path: str,
    array: ArraySpec,
    resolution_m: int,
    zone: Zone,
    entries: Sequence[TimeEntry] | None,
) -> None:
    """Note an array; with entries, though there be none yet, it has a time axis."""
    px, has_time = tile_px(resolution_m, zone), entries is not None
    times = () if entries is None else (len(entries),)
    attrs = {**array.attrs, "grid_mapping": "spatial_ref"}
    if entries:
        attrs["coordinates"] = _coordinates(entries)
    if np.dtype(array.dtype).kind in "iu" and "flag_masks" not in attrs:
        attrs["_FillValue"] = int(array.fill)
    draft.add_array(
        f"{path}/{array.name}",
        shape=(*times, *array.lead_shape, *zone_shape(resolution_m, zone)),
        chunks=shard.shard_shape(array, px, has_time=has_time),
        dtype=array.dtype,
        dims=[*(["time"] if has_time else []), *(dim for dim, _ in array.lead), "y", "x"],
        fill=array.fill,
        attributes=attrs,
        codecs=shard.shard_codecs(array, px, has_time=has_time),
    )


def _draft_space(draft: Draft, path: str, zone: Zone, resolution_m: int) -> None:
    lattice = lattice_of(zone)
    whole = PixelWindow(0, 0, *lattice.shape(resolution_m))
    x, y = lattice.centres(whole, resolution_m)
    for name, values in (("y", y), ("x", x)):
        draft.add_array(
            f"{path}/{name}",
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dims=[name],
            attributes=_axis_attributes(name, lattice.epsg),
            codecs=_AXIS_CODECS,
        )
        draft.values[f"{path}/{name}"] = values
    draft.add_array(
        f"{path}/spatial_ref",
        shape=(),
        chunks=(),
        dtype="i4",
        dims=[],
        attributes=_spatial_reference(lattice, resolution_m),
    )


def _axis_attributes(name: str, epsg: int) -> dict[str, str]:
    from pyproj import CRS

    crs, axis = CRS.from_epsg(epsg), {"axis": name.upper()}
    if crs.is_geographic:
        word = {"y": "latitude", "x": "longitude"}[name]
        unit = {"y": "degrees_north", "x": "degrees_east"}[name]
        return {"standard_name": word, "units": unit, **axis}
    unit = {"metre": "m"}.get(crs.axis_info[0].unit_name, crs.axis_info[0].unit_name)
    return {"standard_name": f"projection_{name}_coordinate", "units": unit, **axis}


def _spatial_reference(lattice: Lattice, resolution_m: int) -> dict[str, Any]:
    from pyproj import CRS

    crs, pixel = CRS.from_epsg(lattice.epsg), lattice.pixel(resolution_m)
    return {
        **crs.to_cf(),
        "spatial_ref": crs.to_wkt(),
        "GeoTransform": f"{lattice.x} {pixel} 0 {lattice.y} 0 {-pixel}",
    }


def _geo_attributes(zone: Zone, resolution_m: int) -> dict[str, Any]:
    """GeoZarr conventions beside CF: projection and spatial attributes of the group."""
    lattice = lattice_of(zone)
    pixel = lattice.pixel(resolution_m)
    return {
        "Conventions": "CF-1.11",
        "zarr_conventions": [{"name": "proj:"}, {"name": "spatial:"}],
        "proj:code": f"EPSG:{lattice.epsg}",
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": [pixel, 0, lattice.x, 0, -pixel, lattice.y],
        "spatial:shape": list(lattice.shape(resolution_m)),
        "spatial:registration": "pixel",
    }


def _draft_ledger(
    draft: Draft, spec: ProductSpec, zone: Zone, entries: Sequence[TimeEntry]
) -> None:
    path = ledger_path(spec.name, zone)
    draft.add_group(path)
    shape = lattice_of(zone).n_rows, lattice_of(zone).n_cols
    has_mask = any(array.name == "mask" for part in spec.groups for array in part.arrays)
    for name, dtype in LEDGER_ARRAYS.items():
        if name in _OF_MASKS and not has_mask:
            continue
        draft.add_array(
            f"{path}/{name}",
            shape=(len(entries), *shape),
            chunks=(1, *shape),
            dtype=dtype,
            fill=LEDGER_FILLS.get(name, 0),
            dims=["time", "tile_y", "tile_x"],
        )
    _draft_coord(draft, path, "entry", "time", np.array([e.key for e in entries], dtype=object))
    _draft_coord(draft, path, "sources", "row", np.empty(0, dtype=object))


def _draft_coord(draft: Draft, path: str, name: str, dim: str, values: np.ndarray) -> None:
    """Note a one-dimensional coordinate of one chunk."""
    attributes = _TIME_UNITS if name == "time" else {}
    draft.add_line(f"{path}/{name}", dim, values, attributes, _COORD_CHUNK)


def _in_order(entries: Iterable[TimeEntry]) -> list[TimeEntry]:
    """Entries in the order in which a time axis holds those that are added together."""
    return sorted(entries, key=lambda e: (e.time, e.key))


def entry_keys(root: ZarrGroup, product: str, zone: Zone) -> list[str]:
    """Keys of the time entries, in the order of the stored axis."""
    path = f"{ledger_path(product, zone)}/entry"
    return [str(key) for key in root[path][:]] if path in root else []


def append_entries(
    root: ZarrGroup, spec: ProductSpec, zone: Zone, entries: Sequence[TimeEntry]
) -> int:
    """Lengthen the time axis by the entries that it lacks, in time order.

    Must be committed before any session is forked: a chunk written in a fork clashes with a
    resize committed elsewhere.

    Returns:
        How many entries were added.

    Raises:
        StoreError: An entry has other columns than those stored.
    """
    known = set(entry_keys(root, spec.name, zone))
    new = _in_order(e for e in entries if e.key not in known)
    if not new:
        return 0
    ledger = root[ledger_path(spec.name, zone)]
    total = len(known) + len(new)
    extend_coord(ledger, "entry", [e.key for e in new])
    for name in (name for name in LEDGER_ARRAYS if name in ledger):
        ledger[name].resize((total, *ledger[name].shape[1:]))
    if spec.has_time:
        for part in spec.groups:
            _append_time(root[group_path(spec.name, zone, part.resolution_m)], part, new, total)
    return len(new)


def _append_time(
    group: ZarrGroup, part: GroupSpec, entries: Sequence[TimeEntry], total: int
) -> None:
    for array in part.arrays:
        target = group[array.name]
        target.resize((total, *target.shape[1:]))
    stored = {name for name, array in group.arrays() if _is_along_time(array)}
    names = stored - {"time"} if stored else {*entries[0].columns}
    _check_columns(group.path, names, entries)
    if stored:
        for name, values in _columns(entries).items():
            extend_coord(group, name, values)
    else:
        draft = Draft()
        for name, values in _columns(entries).items():
            _draft_coord(draft, group.path, name, "time", values)
        draft.make(group)
    coordinates = _coordinates(entries)
    for array in part.arrays:
        if group[array.name].attrs.get("coordinates") != coordinates:
            group[array.name].attrs["coordinates"] = coordinates


def _coordinates(entries: Sequence[TimeEntry]) -> str:
    """What CF's attribute of this name says of arrays along time."""
    return " ".join(["spatial_ref", *sorted(entries[0].columns)])


def _columns(entries: Sequence[TimeEntry]) -> dict[str, np.ndarray]:
    """Coordinates along time."""
    times = np.array([np.datetime64(e.time.rstrip("Z"), "ms") for e in entries]).astype("i8")
    columns: dict[str, np.ndarray] = {"time": times}
    for name in entries[0].columns:
        values = np.array([e.columns[name] for e in entries])
        columns[name] = values.astype(object) if values.dtype.kind == "U" else values
    return columns


def _is_along_time(array: ZarrArray) -> bool:
    return bool(array.metadata.dimension_names == ("time",))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _check_columns(path: str, names: set[str], entries: Sequence[TimeEntry]) -> None:
    """A coordinate shorter than the axis would put every later value at a wrong time."""
    for entry in entries:
        if set(entry.columns) != names:
            raise StoreError(
                f"time entry {entry.key} has the columns {_listed(entry.columns)}, but "
                f"{path!r} holds {_listed(names)}; write to another store, or use "
                "the eoray that made this one"
            )


def append_lines(group: ZarrGroup, name: str, lines: Sequence[str]) -> None:
    """Append to a table of text, which is made when there is first something to say."""
    if name not in group:
        draft = Draft()
        _draft_coord(draft, group.path, name, "row", np.empty(0, dtype=object))
        draft.make(group)
    extend_coord(group, name, lines)


def extend_coord(group: ZarrGroup, name: str, values: Iterable[Any]) -> None:
    """Append values to a one-dimensional array."""
    array = group[name]
    items = list(values)
    start = array.shape[0]
    array.resize((start + len(items),))
    array[start:] = np.asarray(items, dtype=object if array.dtype.kind in "OT" else array.dtype)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
