"""``eoray schema``: the JSON schema of the run file."""

from __future__ import annotations

import json

from eoray.cli.options import AsJson
from eoray.cli.outcome import Result, run_verb


def schema(*, as_json: AsJson = False) -> None:
    """Print the JSON schema of the run file, for editors and checks."""

    def action() -> Result:
        from eoray.config import run_file_schema

        return run_file_schema()

    run_verb(action, text=lambda result: json.dumps(result, indent=2), as_json=as_json)
