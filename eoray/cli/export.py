"""``eoray export``: a window of a product as a GeoTIFF or a plain Zarr."""

from __future__ import annotations

from typing import Annotated

import typer

from eoray.cli.options import AsJson, Debug
from eoray.cli.outcome import Result, run_verb
from eoray.errors import ConfigError


def export(
    cube: Annotated[str, typer.Argument(help="Store or cube.icechunk, a path or URL.")],
    out: Annotated[str, typer.Argument(help="GeoTIFF, or .zarr, to write; a path or URL.")],
    *,
    bbox: Annotated[str, typer.Option(help="west,south,east,north in degrees.")],
    product: Annotated[str, typer.Option(help="Product, such as s2 or map-NAME.")] = "s2",
    zone: Annotated[int | None, typer.Option(help="UTM zone, where there are several.")] = None,
    time: Annotated[str | None, typer.Option(help="First/last day, both included.")] = None,
    bands: Annotated[str | None, typer.Option(help="Bands or arrays, with commas.")] = None,
    resolution_m: Annotated[int | None, typer.Option("--resolution", help="10 or 20.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Cut a window out of a product into one GeoTIFF, or a plain Zarr."""

    def action() -> Result:
        from eoray.cube.plain import is_plain
        from eoray.publish.export import export_window, export_zarr
        from eoray.timeline import DateRange

        export = export_zarr if is_plain(out) else export_window
        written = export(
            cube,
            product,
            out,
            bbox=parse_bbox(bbox),
            zone=zone,
            time=None if time is None else DateRange.parse(time),
            bands=None if bands is None else bands.split(","),
            resolution_m=resolution_m,
        )
        return {"path": str(written)}

    run_verb(action, text=lambda result: str(result["path"]), as_json=as_json, debug=debug)


def parse_bbox(text: str) -> tuple[float, float, float, float]:
    """Read ``west,south,east,north``.

    Raises:
        ConfigError: Not four numbers.
    """
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--bbox {text!r} cannot be read; write west,south,east,north in degrees, such as "
            "11.5,48.1,11.6,48.2"
        ) from error
    return west, south, east, north
