"""``eoray plan`` and ``eoray explain``: what a run, or one tile of it, would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from eoray.cli.options import AsJson, Debug, Overrides, RunFile, Stages
from eoray.cli.outcome import Result, run_verb


def plan(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    stage: Stages = None,
    probe: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Items whose headers say how large files are; 0 for none."
        ),
    ] = 3,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Ask the catalogue, without the run's filters, for missing passes."
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also", metavar="COLLECTION", help="A further collection to ask; repeat it."
        ),
    ] = None,
    from_orbits: Annotated[
        bool,
        typer.Option(
            "--from-orbits", help="Ask no catalogue: what the orbits say of a place of any size."
        ),
    ] = False,
    nodes: Annotated[
        list[int] | None,
        typer.Option("--nodes", min=1, metavar="N", help="Size of a cluster to reckon; repeat it."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say scenes, tiles, dates, bytes, requests, tasks, minutes and money of a run."""
    told: list[str] = []

    def action() -> Result:
        from eoray.run import load_run

        run = load_run(run_file, overrides or [])
        if from_orbits:
            scale = run.size_up(nodes)
            told.append(scale.text())
            return scale.to_dict()
        asked: dict[str, Any] = {"probe": probe, "audit": audit, "also": also or [], "nodes": nodes}
        report = run.plan(stage, **asked)
        told.append(report.text())
        return report.to_dict()

    run_verb(action, text=lambda _: told[0], as_json=as_json, debug=debug)


def explain(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    tile: Annotated[str, typer.Option(metavar="ID", help="Such as z32r0457c048.")],
    date: Annotated[str, typer.Option(metavar="DAY", help="UTC day, or a datatake's key.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what one tile of one day reads: files, windows, internal tiles and byte ranges."""

    def action() -> Result:
        from eoray.run import load_run

        return {"reads": load_run(run_file, overrides or []).explain(tile, date)}

    run_verb(action, text=lambda r: "\n".join(_lines(r)), as_json=as_json, debug=debug)


def _lines(result: Result) -> Iterator[str]:
    for row in result["reads"]:
        files = row["files"]
        size = sum(one["bytes"] for one in files)
        requests = sum(len(one["ranges"]) for one in files)
        yield f"{row['tile']}  {row['entry']}  {row['time']}"
        yield f"  {len(files)} files, {requests} requests after the headers, {size / 1e6:.2f} MB"
        for one in files:
            yield _line(one)


def _line(one: Mapping[str, Any]) -> str:
    col, row, width, height = one["window"]
    where = f"{width} x {height} px from ({col}, {row})"
    spans = " ".join(f"{offset}+{length}" for offset, length in one["ranges"][:4])
    more = " ..." if len(one["ranges"]) > 4 else ""
    return (
        f"  {one['item']}  {one['band']:<4} {one['how']}, {where}: {len(one['blocks'])} internal "
        f"tiles, bytes {spans or 'unknown'}{more}"
    )
