"""A real record that is too short: 118 acquisitions of 16 months in Flanders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from eoray.change import ChangeFlag, ChangeParameters, detect_breaks

BANDS = ("B05", "B06", "B07", "B8A", "B11", "B12")
CLEAR = (4, 5, 6)


@pytest.fixture(scope="module")
def record(shared_data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    days, values, clear = [], [], []
    for item in sorted((shared_data / "sentinel2" / "worldcereal_31UDS").glob("*/*.json")):
        when = json.loads(item.read_text())["properties"]["datetime"][:10]
        days.append(int(np.datetime64(when).astype(int)))
        values.append([_read(item.parent / f"{band}.tif") for band in BANDS])
        clear.append(np.isin(_read(item.parent / "SCL.tif"), CLEAR))
    order = np.argsort(days, kind="stable")
    stack = np.minimum(np.array(values)[order], 32767).astype(np.int16)
    return stack, np.array(clear)[order], np.array(days)[order]


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return np.asarray(source.read(1))


def test_record_of_sixteen_months_is_insufficient_everywhere(
    record: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    values, clear, day = record
    assert values.shape == (118, 6, 32, 32)

    found = detect_breaks(values, clear, day, parameters=ChangeParameters(bands=BANDS))

    assert (found["qa_flags"] & ChangeFlag.INSUFFICIENT_RECORD).all()
    assert found["n_breaks"].sum() == 0
    assert np.median(found["n_obs"]) > 40


def test_forest_fire_is_dated_as_published_detectors_date_it(shared_data: Path) -> None:
    """One pixel of HLS with the fire of March 2024 in Sichuan; COLD and S-CCD say 2024-03-23."""
    table = np.genfromtxt(
        shared_data / "change" / "hls_fire_sichuan.csv", delimiter=",", skip_header=1
    )
    table = table[np.argsort(table[:, 0], kind="stable")]
    bands, quality = table[:, 1:7], table[:, 8]
    clear = np.isin(quality, (0, 1)) & (bands > 0).all(axis=1) & (bands < 10_000).all(axis=1)
    day = table[:, 0].astype(np.int64) - 719_163

    found = detect_breaks(
        np.clip(bands, 0, 32767).astype(np.int16)[:, :, None, None],
        clear[:, None, None],
        day,
        parameters=ChangeParameters(),
    )

    assert found["n_breaks"].item() == 1
    assert found["date_hi"][0].item() == np.datetime64("2024-03-23").astype(int)
    assert found["magnitude"][0, 3].item() < -300
