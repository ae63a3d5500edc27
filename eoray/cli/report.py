"""``eoray report``: write the page of a run from what its stages left."""

from __future__ import annotations

from eoray.cli.execute import execute_stages
from eoray.cli.options import AsJson, Debug, Overrides, RunFile


def report(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the HTML report of a run and its JSON twin."""
    execute_stages(
        run_file,
        overrides or [],
        ["report"],
        address=None,
        executor=None,
        as_json=as_json,
        debug=debug,
    )
