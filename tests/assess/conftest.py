"""Fixtures of the assessment's tests."""

from __future__ import annotations

import pytest

from eoray.grid import Tile
from tests.assess.census import Census


@pytest.fixture(scope="session")
def census() -> Census:
    """Two neighbouring tiles, and one cut by the border of its zone."""
    return Census((Tile(32, 388, 44), Tile(32, 388, 43), Tile(33, 388, 27)))
