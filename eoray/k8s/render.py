"""Write the objects of a submission as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from eoray.config import load_config
from eoray.k8s.checks import check_rayjob
from eoray.k8s.rayjob import build_rayjob
from eoray.k8s.submit import plan_attempt

_WARNING = """\
# To read, not to apply: `eoray submit` numbers attempts and makes the run file that this job owns.
# What prunes objects would end a running job: keep Prune=false where a tool like Argo CD sees it.
"""


def render_rayjob(
    path: str | Path, overrides: Sequence[str] = (), stages: Sequence[str] = ()
) -> str:
    """The RayJob of a run's first attempt as YAML; no cluster is asked.

    Raises:
        ConfigError: The run file cannot be used, or not by pods.
    """
    config = load_config(path, overrides)
    attempt = plan_attempt(config, Path(path).resolve().parent, stages=stages)
    rayjob = build_rayjob(attempt, config.cluster.namespace or "default")
    check_rayjob(rayjob)
    rayjob["metadata"]["annotations"] = {"argocd.argoproj.io/sync-options": "Prune=false"}
    return _WARNING + yaml.safe_dump(rayjob, sort_keys=False, width=100)
