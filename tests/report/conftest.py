"""Fixtures of the report's tests."""

from __future__ import annotations

import pytest

from eoray.report import ReportData
from tests.report.made_up import made_up_run


@pytest.fixture(scope="session")
def data() -> ReportData:
    return made_up_run()
