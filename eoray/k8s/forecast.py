"""What a run will most likely read and take: `eoray plan` in a process of its own, from here.

Submitting needs neither Ray nor GDAL, planning needs more. So the plan is asked of the command
line, where that is installed whole; where it is not, the driver plans all the same.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eoray.config import load_config
from eoray.k8s.kubeconfig import is_pod
from eoray.k8s.sizing import size_head
from eoray.k8s.window import move_window
from eoray.timeline import Calendar, parse_month_day

if TYPE_CHECKING:
    from pathlib import Path

    from eoray.config import ClusterSection, RunConfig
    from eoray.k8s.window import Window


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will most likely read."""

    lines: Sequence[str]
    """For a reader; one that says why, where there is no estimate."""
    tasks: int = 0
    """Of the largest stage; 0 where nobody knows."""


def foresee(
    run_file: str | Path,
    overrides: Sequence[str],
    *,
    stages: Sequence[str] = (),
    window: Window | None = None,
    estimate: bool | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Estimate a run, and size its head for it.

    Args:
        run_file: As the user names it.
        overrides: As for :func:`eoray.config.load_config`.
        stages: Some of its stages; () for all.
        window: Days that replace the run file's.
        estimate: Whether to; None does, except in pods: planning needs more memory than one has
            that only submits.
        tell: Called with what is found.

    Returns:
        Settings of the run file that follow from it; none where nobody knows.
    """
    if not (not is_pod() if estimate is None else estimate):
        return []
    config = load_config(run_file, overrides)  # a window writes out what the file leaves open
    moved = config if window is None else move_window(config, window)
    expected = forecast(str(run_file), overrides, moved, stages=stages)
    for line in expected.lines:
        tell(line)
    if not expected.tasks or config.cluster.ray_cluster is not None:
        return []
    head = size_head(config.cluster, expected.tasks)
    tell(head.line())
    return [head.setting]


_TIMEOUT_S = 60.0

_PLAN = "from eoray.cli import main; main()"


def forecast(
    run_file: str,
    overrides: Sequence[str],
    config: RunConfig,
    *,
    stages: Sequence[str] = (),
    timeout_s: float = _TIMEOUT_S,
) -> Forecast:
    """Estimate a run from the catalogue alone.

    Args:
        run_file: As the user names it.
        overrides: As for :func:`eoray.config.load_config`.
        config: What they come to; its days count, which a schedule moves.
        stages: Some of its stages; () for all.
        timeout_s: A catalogue that needs longer gives no estimate.
    """
    if stages and "cube" not in stages:
        return Forecast([])
    settings = [*overrides, f"time={config.time}"]
    workers = _workers(config)
    if workers is not None:
        settings.append(f"run.workers={workers}")
    try:
        found = _plan(run_file, settings, timeout_s)
    except _NoPlanError as error:
        return Forecast([f"no estimate from here: {error}"])
    return Forecast(_lines(found, config.cluster, workers), _most_tasks(found, config))


def _most_tasks(plan: dict[str, Any], config: RunConfig) -> int:
    """Tasks of the largest stage: those behind the scenes have one for each tile and period."""
    composite = config.cube.composite
    if composite.method == "none":
        return int(plan["tasks"])
    month, day = parse_month_day(composite.season_start)
    periods = Calendar.parse(composite.period, (month, day)).periods(config.days)
    return max(int(plan["tasks"]), int(plan.get("tiles", 0)) * len(periods))


def _workers(config: RunConfig) -> int | None:
    """Tasks at once; None where only a cluster that stays knows."""
    if config.run.workers != "auto":
        return config.run.workers
    return None if config.cluster.ray_cluster is not None else most_cpus(config.cluster)


def most_cpus(cluster: ClusterSection) -> int:
    """CPUs of the largest cluster: as many tasks run at once."""
    return max(1, sum(int(group.cpu) * group.max for group in cluster.workers))


class _NoPlanError(Exception):
    """There is no plan, and the text says why."""


def _plan(run_file: str, settings: Sequence[str], timeout_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="eoray-plan-") as nowhere:
        # an empty store: that of the run is often out of reach from here
        command = [sys.executable, "-c", _PLAN, "plan", run_file, *settings]
        command += [f"store={nowhere}", "--probe", "0", "--json"]
        try:
            done = subprocess.run(  # noqa: S603 - our own command line
                command, capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as error:
            raise _NoPlanError(f"the catalogue needs more than {timeout_s:g} s") from error
    answer = _last_object(done.stdout)
    if done.returncode or "scenes" not in answer:
        said = answer.get("error", {}).get("message") or done.stderr.strip().rpartition("\n")[2]
        raise _NoPlanError(" ".join(str(said).split())[:200] or f"exit {done.returncode}")
    return answer


def _last_object(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _lines(plan: dict[str, Any], cluster: ClusterSection, workers: int | None) -> list[str]:
    what = f"{plan['scenes']} scenes, {plan['tasks']} tasks, {_size(plan['bytes'])} to read"
    time = "" if workers is None else _time(cluster, plan["minutes"] / 60, workers)
    rest = "not in it: what the store holds already, starting pods, and stages behind the cube"
    return [f"estimate, from the catalogue alone: {what}{time}", rest]


def _time(cluster: ClusterSection, hours: float, workers: int) -> str:
    prices = [(cluster.head.price_per_hour, 1)]
    prices += [(group.price_per_hour, group.max) for group in cluster.workers if not group.gpus]
    known = [price * count for price, count in prices if price is not None]
    complete = len(known) == len(prices) and cluster.ray_cluster is None
    money = f", {hours * sum(known):.2f} by its prices" if complete else ""
    long = f"{hours:.1f} h" if hours >= 1 else f"{max(1, math.ceil(hours * 60))} min"
    return f", about {long} of reading on {workers} CPUs{money}"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
