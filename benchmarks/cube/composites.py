"""Time and memory of reductions over time, against numpy and geomad, alternating in one run.

    python benchmarks/cube/composites.py                       # 24 dates, 6 bands, 1024 x 1024 px
    python benchmarks/cube/composites.py --rows 128 --repeat 5

Every contender gets the same stack (a third of it cloud, in patches) and one thread; they take
turns, so that other load on the machine meets all of them. Time is that of the thread, the least of
all rounds; memory is what a contender allocates beyond its input, at its peak, in a process of its
own. Ratios are to eoray. Needs the development packages (``geomad``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eoray.cube.composite import reduce_scenes
from eoray.cube.mads import reduce_mads
from eoray.cube.ranks import reduce_percentiles
from eoray.sentinel2 import FILL

PERCENTS = (10, 25, 50, 75, 90)

Stack = tuple[np.ndarray, np.ndarray]
Contender = Callable[[Stack], object]


def make_stack(n_time: int, n_band: int, height: int, width: int) -> Stack:
    """Seasonal land under clouds of about 60 px: (values int16, clear bool)."""
    rng = np.random.default_rng(1)
    season = np.sin(np.linspace(0, 2 * np.pi, n_time))[:, None, None, None]
    level = rng.uniform(300, 3000, (1, n_band, 1, 1))
    values = np.empty((n_time, n_band, height, width), np.int16)
    for t in range(n_time):
        noise = rng.normal(0, 80, (n_band, height, width))
        values[t] = level[0] * (1 + 0.3 * season[t]) + noise
    coarse = rng.random((n_time, -(-height // 60), -(-width // 60))) < 0.67
    clear = coarse.repeat(60, axis=1).repeat(60, axis=2)[:, :height, :width]
    return values, np.ascontiguousarray(clear)


def as_float(stack: Stack) -> np.ndarray:
    values, clear = stack
    return np.where(clear[:, None], values, np.nan).astype(np.float32)


def numpy_median(stack: Stack) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a clear date
        return np.asarray(np.nanmedian(as_float(stack), axis=0))


def numpy_sort(stack: Stack, percents: tuple[int, ...]) -> list[np.ndarray]:
    """One sort of float32, NaN last: what eoray did before for medians.

    ``nanpercentile`` calls Python for every pixel and takes minutes here.
    """
    floats = as_float(stack)
    ordered, last = np.sort(floats, axis=0), np.maximum((~np.isnan(floats)).sum(axis=0) - 1, 0)
    found = []
    for percent in percents:
        place = percent * last / 100
        low = place.astype(int)
        two = [
            np.take_along_axis(ordered, at[None], axis=0)[0]
            for at in (low, np.ceil(place).astype(int))
        ]
        found.append(two[0] + (place - low) * (two[1] - two[0]))
    return found


def in_reflectance(stack: Stack) -> np.ndarray:
    """(y, x, band, time) as geomad takes it; its tolerance of 1e-4 is then one stored unit.

    In stored units it goes on to a ten-thousandth of one and takes many times as long; eoray stops
    at a twentieth of a unit.
    """
    return np.ascontiguousarray((as_float(stack) * np.float32(1e-4)).transpose(2, 3, 1, 0))


def geomad_geomedian(stack: Stack) -> np.ndarray:
    import geomad

    ordered = in_reflectance(stack)
    return np.asarray(geomad.nangeomedian_pcm(ordered, num_threads=1, nocheck=True))


def geomad_all(stack: Stack) -> list[np.ndarray]:
    import geomad

    ordered = in_reflectance(stack)
    centre = geomad.nangeomedian_pcm(ordered, num_threads=1, nocheck=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        makers = geomad.smad_pcm, geomad.emad_pcm, geomad.bcmad_pcm
        return [centre, *(make(ordered, centre, num_threads=1) for make in makers)]


def eoray_all(stack: Stack) -> list[np.ndarray]:
    centre = reduce_scenes(*stack, "geomad")
    return [centre, reduce_mads(*stack, centre, FILL)]


TASKS: dict[str, dict[str, Contender]] = {
    "median": {
        "eoray": lambda stack: reduce_scenes(*stack, "median"),
        "numpy sort": lambda stack: numpy_sort(stack, (50,)),
        "numpy nanmedian": numpy_median,
    },
    "percentiles": {
        "eoray": lambda stack: reduce_percentiles(*stack, PERCENTS, FILL),
        "numpy sort": lambda stack: numpy_sort(stack, PERCENTS),
    },
    "geomedian": {
        "eoray": lambda stack: reduce_scenes(*stack, "geomedian"),
        "geomad": geomad_geomedian,
    },
    "geomedian + MADs": {"eoray": eoray_all, "geomad": geomad_all},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--bands", type=int, default=6)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--cols", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=sorted(TASKS), nargs="*", default=list(TASKS))
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shape = arguments.dates, arguments.bands, arguments.rows, arguments.cols
    if arguments.memory_of:
        task, name = arguments.memory_of
        print(json.dumps(measure_memory(TASKS[task][name], make_stack(*shape))))
        return
    stack = make_stack(*shape)
    for task in arguments.only:
        times = measure_times(TASKS[task], stack, arguments.repeat)
        for name, seconds in times.items():
            row = {
                "task": task,
                "contender": name,
                "seconds": round(seconds, 3),
                "ns_per_px_band": round(seconds / stack[0][0].size * 1e9, 1),
                "times_eoray": round(seconds / times["eoray"], 2),
                "extra_bytes": memory_of(task, name, sys.argv[1:]),
            }
            print(json.dumps(row), flush=True)


def measure_times(contenders: dict[str, Contender], stack: Stack, repeat: int) -> dict[str, float]:
    """Least thread time of each, in turns, after one round on a few rows (compilation)."""
    values, clear = stack
    few = np.ascontiguousarray(values[:, :, :2]), np.ascontiguousarray(clear[:, :2])
    for run in contenders.values():
        run(few)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeat):
        for name, run in contenders.items():
            began = time.thread_time()
            run(stack)
            found[name].append(time.thread_time() - began)
    return {name: min(seconds) for name, seconds in found.items()}


def memory_of(task: str, name: str, options: list[str]) -> int:
    command = [sys.executable, __file__, *options, "--memory-of", task, name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(json.loads(output.splitlines()[-1]))


def measure_memory(run: Contender, stack: Stack) -> int:
    """Peak beyond the input; the compiler is used before, on few pixels. Linux only."""
    values, clear = stack
    run((np.ascontiguousarray(values[:, :, :2]), np.ascontiguousarray(clear[:, :2])))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident
    before = status_bytes("VmRSS")
    kept = run(stack)
    grown = status_bytes("VmHWM") - before
    del kept
    return max(0, grown)


def status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


if __name__ == "__main__":
    main()
