"""What a plan says of bytes and requests, against what a server counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from eoray.cli import main
from eoray.cube.mask import MaskRecipe
from eoray.cube.plan import plan_scenes
from eoray.cube.scenes import CubeRecipe, SceneWorker
from eoray.errors import ConfigError
from eoray.grid import Tile
from eoray.reading import cog
from eoray.reading.requests import forget_gates
from eoray.reading.usage import READS
from eoray.run import load_run
from eoray.run.collect import forecast_rows
from eoray.run.forecast import forecast_reads, probe_headers
from eoray.run.record import read_record
from eoray.testing import PositionOptions, write_position_archive
from eoray.testing.http import archive_server
from tests.reading.conftest import Granules

OPTIONS = PositionOptions(tiles=(1, 2), n_dates=3, bands=("B04", "B8A"), nodata_px=0)


@pytest.fixture(scope="module")
def positions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_position_archive(tmp_path_factory.mktemp("positions"), OPTIONS).parent


def run_of(folder: Path, catalog: str) -> Any:
    path = folder / "run.yaml"
    path.write_text(f"""\
version: 1
name: run
aoi: [{", ".join(tile.id for tile in OPTIONS.tile_list)}]
time: 2023-01-01/2023-01-31
task: cube
source: {{catalog: {catalog}/catalog.json}}
store: {folder / "out"}
cube: {{bands: [B04, B8A], composite: {{method: none}}}}
run: {{executor: inline}}
""")
    return load_run(path)


def test_forecast_is_what_the_server_counts(positions: Path, tmp_path: Path) -> None:
    forget_gates()
    with archive_server(positions) as server:
        run = run_of(tmp_path, server.url)
        some, all_of_them = (run.plan(probe=n) for n in (1, 3))
        for key in list(cog._headers):
            cog.forget_header(key[0])
        begun = len(server.requests)
        report = run.execute(["cube"])
        asked = [one for one in server.requests[begun:] if one.path.endswith(".tif")]
    reads = report.stages["cube"]["reads"]
    assert some.requests == all_of_them.requests == len(asked) == reads["requests"]
    actual = sum(one.n_bytes for one in asked)
    assert actual == reads["bytes"]
    # files shorter than what is read of a header end in bytes that no table tells
    assert all_of_them.bytes == pytest.approx(actual, abs=32)
    assert some.bytes == pytest.approx(actual, rel=0.02)
    record = read_record(run.paths)
    assert record["plan"]["based_on"] == "headers of 9 files of 3 items with 0 to 0 % cloud"
    rows = {row.what: (row.forecast, row.actual) for row in forecast_rows(record)}
    assert rows["Requests"] == (len(asked), len(asked))
    assert rows["Bytes"] == (all_of_them.bytes, actual)
    assert some.to_dict()["based_on"].startswith("headers of 3 files of 1 item with")
    assert all_of_them.to_dict()["based_on"].startswith("headers of 9 files of 3 items with")


def test_overlapping_granules_are_counted_where_they_are_taken(tmp_path: Path) -> None:
    """Five sixths of the two are shared."""
    granules = Granules(tmp_path)
    window = Tile(32, 400, 70).window(20)
    here: dict[str, Any] = {"row": window.row_off, "height": 900, "width": 600}
    west = granules.write("32TQS_a", col=window.col_off, **here)
    east = granules.write("32TQT_b", col=window.col_off + 100, number=3, **here)
    tiles = [Tile(32, 400 + i, 70 + j) for i in range(2) for j in range(2)]
    _, rows = plan_scenes([west, east], tiles)
    bands = ("B03", "B04", "B8A")
    forecast = forecast_reads(rows, bands, probe_headers(rows, bands, 2))
    assert forecast is not None
    worker = SceneWorker(CubeRecipe(bands, MaskRecipe(), {}, "sentinel-2-c1-l2a"))
    cog._headers.clear()
    begun = READS.snapshot().bytes
    for row in rows:
        list(worker(row))
    actual = READS.snapshot().bytes - begun
    both = sum(Path(a.href).stat().st_size for s in (west, east) for a in s.assets)
    assert forecast.bytes == pytest.approx(actual, rel=0.15)
    assert actual < 0.75 * both


def test_plan_without_headers_says_what_it_is_based_on(positions: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, str(positions))
    assert "rule of thumb" in run.plan().text()
    for file in positions.glob("*/*/B*.tif"):
        file.rename(file.with_suffix(".away"))
    try:
        assert "rule of thumb" in run.plan(probe=2).text()
    finally:
        for file in positions.glob("*/*/B*.away"):
            file.rename(file.with_suffix(".tif"))


def test_explain_names_windows_tiles_and_bytes(positions: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, str(positions))
    tile = OPTIONS.tile_list[1]
    (row,) = run.explain(tile.id, "2023-01-08")
    assert [one["band"] for one in row["files"]] == ["SCL", "B04", "B8A"]
    red = row["files"][1]
    scene = run.plan_cube(freeze=False).rows[1].scenes[0]
    asset = scene.asset("B04")
    col = round((tile.bounds[0] - asset.transform[2]) / 10)
    top = round((asset.transform[5] - tile.bounds[3]) / 10)
    assert red["window"] == [col, top, 1024, 1024]
    assert (red["how"], red["href"]) == ("copied", asset.href)
    block = OPTIONS.block_px
    rows = range(top // block, (top + 1023) // block + 1)
    cols = range(col // block, (col + 1023) // block + 1)
    assert red["blocks"] == [[r, c] for r in rows for c in cols]
    header = cog.CogFile(asset.href).header
    numbers = [r * header.blocks_across + c for r in rows for c in cols]
    inside = [(header.offsets[n], header.offsets[n] + header.counts[n]) for n in numbers]
    spans = [(offset, offset + length) for offset, length in red["ranges"]]
    assert all(any(s <= a and b <= e for s, e in spans) for a, b in inside)
    assert red["bytes"] >= sum(b - a for a, b in inside)


def test_explain_and_plan_are_printed(
    positions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path, str(positions))
    tile = OPTIONS.tile_list[0].id
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "run.yaml"), "--tile", tile, "--date", "2023-01-08"])
    said = capsys.readouterr().out
    assert f"{tile}  S2B_20230108T" in said
    assert "3 files, 3 requests after the headers" in said
    assert re.search(r"B04 +copied, 1024 x 1024 px from \(\d+, \d+\): 25 internal tiles", said)
    with pytest.raises(SystemExit):
        main(["plan", str(tmp_path / "run.yaml"), "--json"])
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["based_on"].startswith("headers of 9 files of 3 items")


@pytest.mark.parametrize(
    ("tile", "day", "message"),
    [
        ("z32r0001c001", "2023-01-08", "reads no tile 'z32r0001c001'; it reads z32r0391c044"),
        ("z32r0391c044", "2023-01-05", "no scene on '2023-01-05' .* such as 2023-01-08"),
    ],
)
def test_explain_says_what_is_near(
    positions: Path, tmp_path: Path, tile: str, day: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_of(tmp_path, str(positions)).explain(tile, day)
