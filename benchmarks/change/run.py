"""Speed and scores of change detection on reference records, each difficulty alone and together.

    python benchmarks/change/run.py                       # ten years, plain and hard, one seed
    python benchmarks/change/run.py --years 3 --dates-per-year 24 --seeds 1 2 3
    python benchmarks/change/run.py --peer                # beside pyxccd's COLD, where installed

Prints one JSON object per record. ``px_s_core`` is pixels per second of CPU time of one thread,
without making the record. Pixels beside a changed patch see part of it and are not judged.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from detection import detect
from reference import DECLINE, HARD, KINDS, Options, Record, make_record
from scipy.ndimage import binary_dilation

from eoray.change import ChangeParameters, detect_breaks, warm_up
from eoray.change.score import ChangeTruth, score_breaks, score_no_change

Detector = Callable[[Record], dict[str, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--dates-per-year", type=int, default=None)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101])
    parser.add_argument("--cases", nargs="+", default=["plain", *HARD, "hard"])
    parser.add_argument("--peer", action="store_true", help="also run pyxccd's COLD, 1 row in 8")
    arguments = parser.parse_args()
    warm_up()
    known = {"plain": (), **{name: (name,) for name in HARD}, "hard": HARD}
    for seed in arguments.seeds:
        for hard in (known[case] for case in arguments.cases):
            options = Options(
                seed=seed,
                size_px=arguments.size,
                years=arguments.years,
                dates_per_year=arguments.dates_per_year,
                hard=hard,
            )
            measure(options, peer=arguments.peer)


def measure(options: Options, *, peer: bool) -> None:
    record = make_record(options)
    quiet = make_record(Options(**{**_plain(options), "change": False}))
    label = {"hard": "+".join(options.hard) or "plain", "seed": options.seed}
    report("eoray", label, record, quiet, detect)
    if "orbit" in options.hard:
        report("eoray, orbits not told", label, record, quiet, detect_without_orbits)
    if peer:
        report("pyxccd COLD", label, thin(record), thin(quiet), detect_cold)


def report(
    tool: str, label: dict[str, Any], record: Record, quiet: Record, detector: Detector
) -> None:
    start = time.process_time()
    found = detector(record)
    seconds = time.process_time() - start
    changed = record.date > 0
    beside = binary_dilation(changed, np.ones((3, 3))) & ~changed
    truth = ChangeTruth(
        date=record.date,
        gradual=record.kind == DECLINE,
        fraction=record.fraction,
        kind=np.array(KINDS)[record.kind],
    )
    score = score_breaks(found, truth, judged=~beside)
    years = (record.day[-1] - record.day[0]) / 365.25
    line = {
        "tool": tool,
        **label,
        "clear_per_year": float(record.clear.mean() * len(record.day) / years),
        "px_s_core": record.date.size / seconds,
        **score.to_dict(),
    }
    quiet_found = detector(quiet)
    if "monitored_from" in quiet_found:
        line["no_change"] = score_no_change(quiet_found)
    else:
        line["no_change"] = {"flagged_share": float((quiet_found["date_hi"] > 0).any(0).mean())}
    print(json.dumps(line, default=float, allow_nan=True), flush=True)


def detect_without_orbits(record: Record) -> dict[str, np.ndarray]:
    return detect_breaks(
        record.reflectance, record.clear, record.day, parameters=ChangeParameters()
    )


def detect_cold(record: Record) -> dict[str, np.ndarray]:
    """COLD at the settings that were best on a ten-year record: 8 in a row, .999."""
    import pyxccd

    ordinal = 719_163
    height, width = record.date.shape
    dates = np.zeros((4, height, width), np.int32)
    zeros = np.zeros(len(record.day), np.int64)
    for y in range(height):
        for x in range(width):
            bands = np.ascontiguousarray(record.reflectance[:, :, y, x].T).astype(np.int64)
            cloud = np.where(record.clear[:, y, x], 0, 4).astype(np.int64)
            day = record.day + ordinal
            try:
                found = pyxccd.cold_detect(day, *bands, zeros, cloud, p_cg=0.999, conse=8)
            except RuntimeError as error:
                if "segment" not in str(error):
                    raise
                continue
            sure = found[(found["change_prob"] == 100) & (found["t_break"] > 0)]
            breaks = sure["t_break"][:4] - ordinal
            dates[: len(breaks), y, x] = breaks
    return {"date_lo": dates, "date_hi": dates, "date_est": dates}


def thin(record: Record) -> Record:
    """Every eighth row: a peer of a hundred pixels a second needs no more."""
    rows = slice(None, None, 8)
    return Record(
        record.reflectance[:, :, rows],
        record.clear[:, rows],
        record.day,
        record.orbit,
        record.kind[rows],
        record.date[rows],
        record.fraction[rows],
        record.cover[rows],
    )


def _plain(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in Options.__dataclass_fields__}


if __name__ == "__main__":
    main()
