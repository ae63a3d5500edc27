"""``eoray cube``, ``fit``, ``predict``, ``change``, ``assess``, ``publish``: one stage each."""

from __future__ import annotations

from collections.abc import Callable

from eoray.cli.execute import execute_stages
from eoray.cli.options import Address, AsJson, Debug, Errors, ExecutorOption, Overrides, RunFile

_HELP = {
    "fit": "Fit the model of a run on labels and the cube.",
    "predict": "Map the place of a run with its model.",
    "change": "Find breaks in the series of the cube, with their dates.",
    "assess": "Draw a probability sample of the map and estimate accuracy and areas.",
    "publish": "Write COGs and STAC of the maps.",
}


def cube(
    run_file: RunFile,
    overrides: Overrides = None,
    *,
    address: Address = None,
    executor: ExecutorOption = None,
    errors: Errors = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Stream the scenes of a run into the cube, and composite them."""
    execute_stages(
        run_file,
        overrides or [],
        ["cube"],
        address=address,
        executor=executor,
        errors=errors,
        as_json=as_json,
        debug=debug,
    )


def _stage_verb(stage: str, text: str) -> Callable[..., None]:
    def verb(
        run_file: RunFile,
        overrides: Overrides = None,
        *,
        address: Address = None,
        executor: ExecutorOption = None,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        execute_stages(
            run_file,
            overrides or [],
            [stage],
            address=address,
            executor=executor,
            as_json=as_json,
            debug=debug,
        )

    verb.__name__ = stage
    verb.__doc__ = text
    return verb


VERBS = (cube, *(_stage_verb(stage, text) for stage, text in _HELP.items()))
"""The verb of each stage, in the order in which stages run."""
