"""``eoray version``: which eoray this is."""

from __future__ import annotations

from eoray.cli.options import AsJson
from eoray.cli.outcome import Result, run_verb


def version(*, as_json: AsJson = False) -> None:
    """Print the version; with --json also Python's and Ray's, which a cluster must share."""

    def action() -> Result:
        import platform
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        from eoray import __version__

        try:
            ray = version_of("ray")
        except PackageNotFoundError:  # an image that only submits
            ray = None
        return {"version": __version__, "python": platform.python_version(), "ray": ray}

    run_verb(action, text=lambda result: f"eoray {result['version']}", as_json=as_json)
