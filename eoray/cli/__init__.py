"""The command line: one module per verb; each parses, calls and prints."""

from __future__ import annotations

from eoray.cli.app import main

__all__ = ["main"]
