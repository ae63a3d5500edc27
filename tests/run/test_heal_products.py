"""After a heal, map and change are those of a run that nothing disturbed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eoray.cube.check import check_cube
from eoray.cube.read import CubeReader, CubeSource
from eoray.run import load_run

STAGES = ["cube", "fit", "predict", "change"]

type Ledgers = dict[str, dict[tuple[str, str], tuple[int, str]]]
"""Product -> (tile, entry) -> digest and source."""


def write_file(folder: Path, archive: Path) -> Path:
    path = folder / "run.yaml"
    path.write_text(f"""\
version: 1
name: run
aoi: {archive / "aoi.geojson"}
time: 2021-01-01/2022-12-31
task: land-cover-change
source:
  catalog: {archive / "catalog.json"}
  lineage: {{baseline_min: "02.00", mixed: true}}
store: {folder / "out"}
cube: {{composite: {{method: median, period: P3M, min_obs: 1}}, max_failed_share: 1}}
fit:
  labels: {archive / "labels.geojson"}
  time: 2021-01-01/2021-12-31
  steps: 2
  model: mlp
predict: {{time: 2022-01-01/2022-12-31}}
change: {{resolution_m: 20, allow_mixed: true}}
run: {{executor: inline, retries: 0}}
""")
    return path


def made(path: Path) -> Ledgers:
    """What stands in the store of a run."""
    reader = CubeReader(CubeSource(str(path.parent / "out")))
    return {
        product: {
            (one.tile.id, entry): (one.digest, one.source)
            for zone in reader.zones(product)
            for entry in reader.ledger(product, zone).entries
            for one in reader.ledger(product, zone).receipts(entry)
        }
        for product in reader.products()
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_map_and_change_after_a_heal_are_those_of_an_undisturbed_run(
    archive: Path, tmp_path: Path
) -> None:
    clean, broken = tmp_path / "clean", tmp_path / "broken"
    for folder in (clean, broken):
        folder.mkdir()
        shutil.copytree(archive, folder / "archive")
    undisturbed = write_file(clean, clean / "archive")
    load_run(undisturbed).execute(STAGES)
    path = write_file(broken, broken / "archive")
    items = broken / "archive/sentinel-2-c1-l2a"
    # in the year of the map, not in that of the fit: a model is not fitted again
    july = sorted(p for p in items.glob("*32UQU_202207*") if p.is_dir())
    lost = [july[0] / "B04.tif", july[-1] / "SCL.tif"]
    for file in lost:
        file.rename(file.with_suffix(".away"))
    first = load_run(path).execute(STAGES)
    assert first.stages["cube"]["holes"]["reads"] == len(lost)
    holed = made(path)
    for file in lost:
        file.with_suffix(".away").rename(file)
    healed = load_run(path).heal()
    assert list(healed.stages) == ["cube", "predict", "change"]
    assert "holes" not in healed.stages["cube"]
    found, expected = check_cube(str(broken / "out")), check_cube(str(clean / "out"))
    assert (found.ok, expected.ok) == (True, True)
    assert {"s2", "map-run", "change-run"} <= set(found.products)
    assert found.products == expected.products
    remade = differing(holed, made(path))
    days = {file.parent.name.split("_")[2][:8] for file in lost}
    assert {entry.split("_")[1][:8] for _, entry in remade["s2"]} == days
    (composite,) = (name for name in remade if name.startswith("s2-"))
    assert {entry for _, entry in remade[composite]} == {"2022-07-01/2022-10-01"}
    assert len(made(path)[composite]) >= 8
    assert remade["map-run"]
    assert remade["change-run"]


def differing(before: Ledgers, after: Ledgers) -> dict[str, list[tuple[str, str]]]:
    """What stands otherwise than before, by product."""
    return {
        product: [key for key, value in rows.items() if before[product].get(key) != value]
        for product, rows in after.items()
    }
