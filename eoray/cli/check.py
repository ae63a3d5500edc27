"""``eoray check``: read a cube back against its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from eoray.cli.options import AsJson, Debug
from eoray.cli.outcome import Result, run_verb

_MAX_HOLES = 20
"""Files that are named; all of them with ``--json``."""


def check(
    cube: Annotated[str, typer.Argument(help="Store or cube.icechunk, a path or URL.")],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="From the ledger alone, without reading pixels.")
    ] = False,
    source: Annotated[
        bool,
        typer.Option(
            "--source",
            help="Compare random windows with the source files, too, and granules that overlap.",
        ),
    ] = False,
    sample: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Windows that --source compares, and dates with overlaps."
        ),
    ] = 20,
    everything: Annotated[
        bool, typer.Option("--all", help="With --source: every tile of every date, no sample.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read a cube back: coverage, counts, failed reads and the checksum of its content."""

    def action() -> Result:
        from eoray.cube.check import check_cube

        result = check_cube(cube, quick=quick).to_dict()
        if source:
            from eoray.reading.overlaps import summarise_overlaps
            from eoray.run.overlaps import measure_overlaps
            from eoray.run.source_check import check_source

            compared = check_source(cube, samples=None if everything else sample)
            overlaps, unread = measure_overlaps(cube, samples=sample)
            result["source"] = {
                **compared.to_dict(),
                "overlaps": [overlap.to_dict() for overlap in overlaps],
                "overlap_bands": summarise_overlaps(overlaps),
            }
            result["source"]["unread"] += unread
            result["problems"] += compared.problems
            result["ok"] &= not compared.problems
        return result

    run_verb(
        action,
        text=_summarise,
        as_json=as_json,
        debug=debug,
        failed=lambda result: not result["ok"],
    )


def _summarise(result: Result) -> str:
    lines = [f"{'cube':<13} {_verdict(result)}"]
    shown = ("tiles", "dates", "failed_reads", "checksum")
    lines += [f"{name.replace('_', ' '):<13} {result[name]}" for name in shown]
    if result.get("n_masked") is not None and result["n_valid"]:
        lines.append(
            f"{'clear':<13} {1 - result['n_masked'] / result['n_valid']:.1%} of valid pixels"
        )
    if "source" in result:
        lines.append(f"{'source':<13} {_compared(result['source'])}")
        lines += _overlaps(result["source"])
    lines += _holes(result.get("holes", ()))
    return "\n".join([*lines, *(f"- {problem}" for problem in result.get("problems", ()))])


def _verdict(result: Result) -> str:
    if not result["ok"]:
        return "FAULTY"
    return "as its ledger and its source say" if "source" in result else "as its ledger says"


def _compared(source: Mapping[str, Any]) -> str:
    unread = f", {len(source['unread'])} could not be read now" if source["unread"] else ""
    return f"{source['values']} values in {source['samples']} windows compared{unread}"


def _overlaps(source: Mapping[str, Any]) -> list[str]:
    """How far granules of one date differ where both are clear: what a seam shows."""
    bands = ", ".join(
        f"{band} {one['shift'] / 1e4:.4f}" for band, one in source["overlap_bands"].items()
    )
    if not bands:
        return []
    dates = max(int(one["datatakes"]) for one in source["overlap_bands"].values())
    return [f"{'granules':<13} differ by {bands}, dates compared: {dates}"]


def _holes(letters: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a file that could not be read, the first of them."""
    files = Counter((one["item"] or "?", one["band"], one["reason"]) for one in letters)
    lines = [
        f"hole          {item} {band}: {reason}, in {n} tiles"
        for (item, band, reason), n in list(files.items())[:_MAX_HOLES]
    ]
    if len(files) > _MAX_HOLES:
        lines.append(f"              and {len(files) - _MAX_HOLES} more files (--json lists all)")
    return lines
