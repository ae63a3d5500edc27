"""Servers that fail for a while: files that GDAL reads, and buckets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioIOError

from eoray.catalog.scene import Scene
from eoray.errors import ReadError
from eoray.grid import PixelWindow
from eoray.reading.cog import forget_header
from eoray.reading.gdal import GdalFile, forget_answers
from eoray.reading.persist import GaveUpError, persist
from eoray.reading.requests import Pace, Patience, forget_gates, gate_of
from eoray.reading.window import AssetWindow, read_asset
from eoray.testing import archive_server
from eoray.testing.http import ArchiveServer
from tests.s3_server import FakeS3, Fault, serve_s3

HEIGHT, WIDTH = 400, 300
"""Of B8A; its values do not compress, so that a file is more than one request of GDAL's."""

DRIVERS: dict[str, dict[str, Any]] = {
    ".jp2": {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"},
    ".zstd.tif": {"driver": "GTiff", "compress": "zstd", "tiled": True},
    ".deflate.tif": {"driver": "GTiff", "compress": "deflate", "tiled": True},
}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    forget_gates()
    forget_answers()
    yield
    forget_gates()


@pytest.fixture
def scene(granules: Any, corner: tuple[int, int]) -> Scene:
    def noise(arrays: dict[str, np.ndarray]) -> None:
        shape = arrays["B8A"].shape
        arrays["B8A"] = np.random.default_rng(1).integers(1, 9999, shape).astype(np.uint16)

    place = {"row": corner[0], "col": corner[1], "height": HEIGHT, "width": WIDTH}
    made: Scene = granules.write("32TQS_a", **place, patch=noise)
    return made


@pytest.fixture
def expected(scene: Scene, granules: Any) -> np.ndarray:
    values: np.ndarray = granules.written["32TQS_a"]["B8A"]
    return values


@pytest.fixture
def server(tmp_path: Path, scene: Scene) -> Iterator[ArchiveServer]:
    with archive_server(tmp_path) as made:
        yield made


def pack(scene: Scene, suffix: str) -> Path:
    """The file of B8A, packed in another way."""
    path = Path(scene.asset("B8A").href)
    packed = path.with_suffix(suffix)
    rasterio.shutil.copy(str(path), str(packed), **DRIVERS[suffix])
    return packed


def at(scene: Scene, href: str) -> Scene:
    """The scene with its B8A elsewhere."""
    assets = tuple(replace(a, href=href) if a.band == "B8A" else a for a in scene.assets)
    return replace(scene, assets=assets)


def read(scene: Scene, corner: tuple[int, int], **limits: Any) -> np.ndarray:
    window = PixelWindow(*corner, HEIGHT, WIDTH)
    what = AssetWindow(scene, scene.asset("B8A"), 32, window, 20, **limits)
    return read_asset(what)


@pytest.mark.parametrize("suffix", [".jp2", ".zstd.tif"])
@pytest.mark.parametrize("fault", ["503", "truncate", "hang-up", "reset"])
def test_a_server_that_recovers_is_believed_by_gdal(
    server: ArchiveServer,
    scene: Scene,
    expected: np.ndarray,
    corner: tuple[int, int],
    suffix: str,
    fault: Any,
) -> None:
    packed = pack(scene, suffix)
    there = at(scene, f"{server.url}/{packed.name}")
    server.set_broken({f"/{packed.name}": fault})
    with pytest.raises(ReadError, match="B8A of item 32TQS_a cannot be read"):
        read(there, corner, retries=0)

    def recover(seconds: float) -> None:
        server.set_broken({})

    found = read(there, corner, retries=1, wait=recover)
    np.testing.assert_array_equal(found, expected)
    server.set_broken({f"/{packed.name}": fault})


def test_wrong_bytes_are_asked_for_again(
    server: ArchiveServer, scene: Scene, expected: np.ndarray, corner: tuple[int, int]
) -> None:
    packed = pack(scene, ".zstd.tif")
    there = at(scene, f"{server.url}/{packed.name}")
    server.set_broken({f"/{packed.name}": "corrupt"})
    with pytest.raises(ReadError, match="cannot be read") as failed:
        read(there, corner, retries=0)
    assert failed.value.reason == "broken"
    server.set_broken({})
    np.testing.assert_array_equal(read(there, corner, retries=0), expected)


@pytest.mark.parametrize("query", ["", "?se=2021&sig=a%2Fb%2B%3D"])
def test_a_link_that_failed_to_open_opens_later(
    server: ArchiveServer, scene: Scene, expected: np.ndarray, query: str
) -> None:
    packed = pack(scene, ".jp2")
    href = f"{server.url}/{packed.name}{query}"
    server.set_broken({f"/{packed.name}": "503"})
    with pytest.raises(RasterioIOError, match="503"):
        GdalFile(href)
    server.set_broken({})
    whole = slice(0, HEIGHT), slice(0, WIDTH)
    with GdalFile(href) as file:
        np.testing.assert_array_equal(file.read(*whole), expected)
    asked = server.n_get
    with GdalFile(href) as file:  # what came in order is kept
        np.testing.assert_array_equal(file.read(*whole), expected)
    assert server.n_get == asked


def test_silence_ends_with_the_time_of_the_read(
    server: ArchiveServer, scene: Scene, corner: tuple[int, int]
) -> None:
    packed = pack(scene, ".jp2")
    server.set_broken({f"/{packed.name}": "slow"})
    with pytest.raises(ReadError) as failed:
        read(at(scene, f"{server.url}/{packed.name}"), corner, retries=0, seconds=0.3)
    assert failed.value.reason == "timeout"


def refused_by_gdal(pace: Pace, href: str, retries: int) -> int:
    """Let GDAL be told 503 each time; how many attempts were made."""

    def ask(patience: Patience) -> None:
        raise RasterioIOError("HTTP response code: 503")

    with pytest.raises(GaveUpError) as gave_up:
        persist(ask, href, Patience(retries, 500.0, pace, begun=pace.now()))
    return gave_up.value.attempts


def test_pauses_of_gdals_reads_are_a_random_part_of_a_growing_time() -> None:
    waits: list[float] = []
    pace = Pace(now=lambda: 1000.0, sleep=waits.append, chance=lambda: 0.25)
    assert refused_by_gdal(pace, "http://busy.example/a.jp2", 4) == 5
    assert waits == pytest.approx([0.1, 0.4, 1.6, 5.0])


def test_a_server_that_told_gdal_that_it_is_busy_is_left_alone() -> None:
    limit = gate_of("http://busy.example").limit
    pace = Pace(now=lambda: 1000.0, sleep=lambda _: None, chance=lambda: 0.5)
    refused_by_gdal(pace, "http://busy.example/a.jp2", 0)
    gate, later = gate_of("http://busy.example"), []
    assert gate.limit == limit // 2
    clock = [1000.0]

    def sleep(seconds: float) -> None:
        later.append(seconds)
        clock[0] += seconds

    waiting = Pace(now=lambda: clock[0], sleep=sleep)
    assert gate.enter(1, Patience(0, 9.0, waiting, begun=1000.0)) == 1
    assert later == pytest.approx([0.2])


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with serve_s3(monkeypatch) as fake:
        yield fake


def in_bucket(s3: FakeS3, scene: Scene, suffix: str) -> Scene:
    packed = pack(scene, suffix)
    s3.put(f"maps/{packed.name}", packed.read_bytes())
    forget_header(f"s3://maps/{packed.name}")
    return at(scene, f"s3://maps/{packed.name}")


@pytest.mark.parametrize("suffix", [".deflate.tif", ".zstd.tif", ".jp2"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("fault", ["503", "truncate", "slow"])
def test_an_object_is_read_after_a_fault(
    s3: FakeS3,
    scene: Scene,
    expected: np.ndarray,
    corner: tuple[int, int],
    suffix: str,
    number: int,
    fault: Fault,
) -> None:
    there = in_bucket(s3, scene, suffix)
    s3.fail, s3.slow_s = lambda count: fault if count == number else None, 0.2
    found = read(there, corner, retries=3, seconds=20.0, wait=lambda _: None)
    np.testing.assert_array_equal(found, expected)
    assert s3.n_get > number


STAYS = {"503": "503", "truncate": "truncated", "slow": "timeout"}
"""GDAL may say no more than that it is broken."""


@pytest.mark.parametrize("suffix", [".deflate.tif", ".zstd.tif", ".jp2"])
@pytest.mark.parametrize("fault", ["503", "truncate", "slow"])
def test_a_fault_that_stays_is_said_and_heals_in_the_same_process(
    s3: FakeS3,
    scene: Scene,
    expected: np.ndarray,
    corner: tuple[int, int],
    suffix: str,
    fault: Fault,
) -> None:
    there = in_bucket(s3, scene, suffix)
    s3.fail = lambda number: fault
    seconds = 0.4 if fault == "slow" else 20.0
    with pytest.raises(ReadError, match=rf"from 's3://maps/32TQS_a_B8A{suffix}'") as failed:
        read(there, corner, retries=0, seconds=seconds)
    assert failed.value.host == "maps"
    by_gdal = {"broken"} if suffix != ".deflate.tif" else set()
    assert failed.value.reason in {STAYS[fault], *by_gdal}
    s3.fail = lambda number: None
    np.testing.assert_array_equal(read(there, corner, retries=0), expected)
