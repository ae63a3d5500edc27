"""One small synthetic archive for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from eoray.testing import ArchiveOptions, write_archive

SMALL = ArchiveOptions(
    seed=5, size_px=128, years=(2021, 2022), dates_per_year=6, southern_dates=2, block_px=64
)


@pytest.fixture(scope="session")
def small_options() -> ArchiveOptions:
    return SMALL


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, SMALL, workers=1)
    return folder
