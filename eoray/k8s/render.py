"""Write objects as YAML: what git may own, the RayJob to read, the images to mirror."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from eoray.config import load_config
from eoray.k8s.checks import check_rayjob, check_run
from eoray.k8s.phases import to_phases
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.schedule import plan_schedule
from eoray.k8s.submit import plan_attempt
from eoray.k8s.submitter import (
    build_cronjob,
    build_job,
    build_run_file,
    images_to_mirror,
    plan_submission,
)

if TYPE_CHECKING:
    from eoray.k8s.schedule import Timetable

_OWNED = """\
# To keep in git and to apply. The pod submits the run file and waits; it makes the RayJob itself,
# because what prunes or heals objects would end or resume runs.
"""

_WARNING = """\
# To read, not to apply: `eoray submit` numbers attempts and makes the run file that this job owns.
# What prunes objects would end a running job: keep Prune=false where a tool like Argo CD sees it.
"""


def render_job(
    path: str | Path,
    overrides: Sequence[str] = (),
    stages: Sequence[str] = (),
    *,
    phases: bool = False,
) -> str:
    """The Job that submits a run once, and its run file, as YAML; no cluster is asked.

    Raises:
        ConfigError: The run file cannot be used, or not by pods.
    """
    config = load_config(path, overrides)
    plan = plan_submission(config, Path(path).resolve().parent, stages=stages, phases=phases)
    namespace = config.cluster.namespace
    return _write(_OWNED, build_run_file(plan, namespace), build_job(plan, namespace))


def render_schedule(
    path: str | Path,
    overrides: Sequence[str] = (),
    stages: Sequence[str] = (),
    *,
    when: Timetable,
    name: str | None = None,
    lookback_days: int | None = None,
    phases: bool = False,
) -> str:
    """The CronJob of a schedule, and its run file, as YAML; no cluster is asked.

    Raises:
        ConfigError: The run file, the expression, the zone or the name cannot be used.
    """
    config = load_config(path, overrides)
    folder = Path(path).resolve().parent
    plan = plan_schedule(config, folder, when, name, stages, lookback_days, phases=phases)
    namespace = config.cluster.namespace
    cronjob = build_cronjob(
        plan, namespace, cron=when.cron, time_zone=when.time_zone, missed_s=when.missed_s
    )
    return _write(_OWNED, build_run_file(plan, namespace, schedule=plan.name), cronjob)


def render_rayjob(
    path: str | Path,
    overrides: Sequence[str] = (),
    stages: Sequence[str] = (),
    *,
    phases: bool = False,
) -> str:
    """The RayJob of a run's first attempt, of each phase, as YAML, to read; no cluster is asked.

    Raises:
        ConfigError: The run file cannot be used, or not by pods.
    """
    config = load_config(path, overrides)
    folder = Path(path).resolve().parent
    parts = to_phases(config, stages, phases=phases)
    attempts = [plan_attempt(part.config, folder, stages=part.stages) for part in parts]
    rayjobs = [build_rayjob(each, config.cluster.namespace or "default") for each in attempts]
    for rayjob in rayjobs:
        check_rayjob(rayjob)
        rayjob["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] = "Prune=false"
    return _write(_WARNING, *rayjobs)


def render_images(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """Images that a run needs, one in a line.

    Raises:
        ConfigError: The run file cannot be used, or not by pods.
    """
    config = load_config(path, overrides)
    check_run(config, Path(path).resolve().parent)
    return "".join(f"{image}\n" for image in images_to_mirror(config.cluster))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such: a run file in git shows what changed."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _write(comment: str, *bodies: dict[str, Any]) -> str:
    return comment + yaml.dump_all(bodies, Dumper=_Dumper, sort_keys=False, width=100)
