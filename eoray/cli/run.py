"""``eoray run``: carry out the stages of a run file."""

from __future__ import annotations

from eoray.cli.execute import execute_stages
from eoray.cli.options import (
    Address,
    AsJson,
    Debug,
    Errors,
    ExecutorOption,
    Overrides,
    RunFile,
    Stages,
)


def run(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    stage: Stages = None,
    address: Address = None,
    executor: ExecutorOption = None,
    errors: Errors = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run the stages of a run file; stop it anywhere and run it again."""
    execute_stages(
        run_file,
        overrides or [],
        stage,
        address=address,
        executor=executor,
        errors=errors,
        as_json=as_json,
        debug=debug,
    )
