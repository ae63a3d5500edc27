"""Fixtures of the chart's tests: renderings, and the operator's schemas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chart.release import PROFILES, Release, render

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def releases() -> dict[str, Release]:
    """Rendering of every profile."""
    return {name: render(profile=name) for name in PROFILES}


@pytest.fixture(scope="session")
def full(releases: dict[str, Release]) -> Release:
    """Everything that the chart can render."""
    return releases["full"]


@pytest.fixture(scope="session")
def defaults(releases: dict[str, Release]) -> Release:
    """What an install without values gives."""
    return releases["defaults"]


@pytest.fixture(scope="session")
def crd_folder() -> Path:
    """KubeRay's definitions: ``kuberay-crds`` beside the folder of real samples."""
    data = os.environ.get("EORAY_SHARED_DATA", REPOSITORY.parent / "shared" / "data")
    folder = Path(data).parent / "kuberay-crds"
    if not folder.is_dir():
        pytest.skip(f"no KubeRay definitions: {folder} is no folder; see EORAY_SHARED_DATA")
    return folder
