"""``eoray version``: which eoray this is."""

from __future__ import annotations

from eoray.cli.options import AsJson
from eoray.cli.outcome import Result, run_verb


def version(*, as_json: AsJson = False) -> None:
    """Print the version."""

    def action() -> Result:
        from eoray import __version__

        return {"version": __version__}

    run_verb(action, text=lambda result: f"eoray {result['version']}", as_json=as_json)
