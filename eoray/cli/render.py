"""``eoray render``: the objects of a submission, to read or to keep in git."""

from __future__ import annotations

from eoray.cli.options import Debug, Overrides, RunFile, Stages
from eoray.cli.outcome import Result, run_verb


def render(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    stage: Stages = None,
    debug: Debug = False,
) -> None:
    """Print the RayJob that `eoray submit` would create, without asking any cluster.

    It is for reading: the run file's ConfigMap is owned by the RayJob and made behind it.
    """

    def action() -> Result:
        from eoray.k8s.render import render_rayjob

        return {"text": render_rayjob(run_file, overrides or [], stage or ())}

    run_verb(action, text=lambda r: str(r["text"]).rstrip("\n"), as_json=False, debug=debug)
