"""One description of a bucket, as four libraries act on it: what a server gets from each."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine
from rasterio.io import MemoryFile

from eoray import storage
from eoray.buckets import Bucket, bucket_of, gdal_options, known_buckets, use_buckets
from eoray.config import config_key, load_config
from eoray.cube.open import open_cube
from eoray.errors import ConfigError, StoreError
from eoray.execute import _RayTask
from eoray.publish import export_zarr
from eoray.reading.gdal import GdalFile
from eoray.run import load_run
from eoray.testing.s3 import s3_server
from tests.publish.toy import write_toy_store

Request = dict[str, str]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield
    use_buckets({})


@contextmanager
def recorder() -> Iterator[tuple[str, list[Request]]]:
    """A server that has nothing and remembers what it was asked."""
    asked: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append({"path": self.path, **headers})
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask_obstore() -> None:
    storage.exists("s3://maps/folder/thing.tif")


def ask_icechunk() -> None:
    import icechunk

    with suppress(icechunk.IcechunkError):
        icechunk.Repository.exists(storage.icechunk_storage("s3://maps/folder/thing.tif"))


def ask_gdal() -> None:
    from rasterio.errors import RasterioIOError

    with suppress(RasterioIOError):
        GdalFile("s3://maps/folder/thing.tif")


def ask_fsspec() -> None:
    with suppress(FileNotFoundError):
        storage.filesystem("s3://maps").cat_file("s3://maps/folder/thing.tif")


ASKERS = [
    ask_obstore,
    ask_icechunk,
    ask_gdal,
    ask_fsspec,
]


def asked_by(ask: Callable[[], None], **described: object) -> Request:
    """The first request for the file, with the bucket described so."""
    with recorder() as (url, asked):
        use_buckets({"s3://maps": Bucket(endpoint=url, **described)})  # type: ignore[arg-type]
        ask()
    assert asked
    return asked[0]


@pytest.mark.parametrize("ask", ASKERS)
def test_the_endpoint_is_asked_in_path_style_and_signed_for_the_region(
    ask: Callable[[], None],
) -> None:
    request = asked_by(ask, region="eu-west-9")
    assert request["path"].startswith("/maps")
    assert "Credential=somebody/" in request["authorization"]
    assert "/eu-west-9/s3/" in request["authorization"]
    assert "x-amz-request-payer" not in request


@pytest.mark.parametrize("ask", ASKERS)
def test_public_data_is_asked_for_without_a_signature(ask: Callable[[], None]) -> None:
    assert "authorization" not in asked_by(ask, region="eu-west-9", anonymous=True)


@pytest.mark.parametrize("ask", ASKERS)
def test_the_requester_pays_where_it_is_said(ask: Callable[[], None]) -> None:
    request = asked_by(ask, region="eu-west-9", requester_pays=True)
    assert request["x-amz-request-payer"] == "requester"


@pytest.mark.parametrize("ask", ASKERS)
def test_a_described_region_wins_over_that_of_the_cluster(
    ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):  # EKS sets both
        monkeypatch.setenv(name, "eu-central-1")
    assert "/eu-west-9/s3/" in asked_by(ask, region="eu-west-9")["authorization"]


@pytest.mark.parametrize("ask", ASKERS)
def test_without_a_description_all_read_the_same_environment(
    ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    monkeypatch.setenv("AWS_REGION", "eu-west-9")
    with recorder() as (url, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        ask()
    assert asked[0]["path"].startswith("/maps")
    assert "authorization" not in asked[0]


def test_two_buckets_of_one_process_lie_on_two_servers() -> None:
    with s3_server() as one, s3_server() as two:
        use_buckets(
            {"s3://one": Bucket(one.url, "r1"), "s3://two": Bucket(two.url, "r2", anonymous=True)}
        )
        storage.write_bytes("s3://one/key", b"first")
        storage.write_bytes("s3://two/key", b"second")
        assert storage.read_bytes("s3://one/key") == b"first"
        assert storage.read_bytes("s3://two/key") == b"second"
        assert storage.filesystem("s3://one").cat_file("s3://one/key") == b"first"
        assert storage.filesystem("s3://two").cat_file("s3://two/key") == b"second"
        use_buckets({"s3://one": Bucket(two.url, "r2"), "s3://two": Bucket(one.url, "r1")})
        assert not storage.exists("s3://one/key")


VRT = """\
<VRTDataset rasterXSize="4" rasterYSize="4"><GeoTransform>0, 10, 0, 0, 0, -10</GeoTransform>
<VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">dem.tif</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>
"""


def test_a_vrt_finds_its_sources_in_the_bucket_that_is_described() -> None:
    with s3_server() as one:
        use_buckets({"s3://one": Bucket(one.url, "r1")})
        with MemoryFile() as memory:
            shape = {"width": 4, "height": 4, "count": 1, "dtype": "uint8"}
            with memory.open(driver="GTiff", transform=Affine.scale(10, -10), **shape) as file:
                file.write(np.full((1, 4, 4), 7, np.uint8))
            storage.write_bytes("s3://one/dem.tif", memory.read())
        storage.write_bytes("s3://one/dem.vrt", VRT.encode())
        with GdalFile("s3://one/dem.vrt") as vrt:
            assert (vrt.read(slice(0, 4), slice(0, 4)) == 7).all()


@pytest.mark.parametrize(
    ("given", "bucket", "expected"),
    [
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_ACCOUNT_KEY": "k"},
            "az://maps",
            {"AZURE_STORAGE_ACCOUNT": "me", "AZURE_STORAGE_ACCESS_KEY": "k"},
        ),
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_SAS_KEY": "sv=1"},
            "az://maps",
            {"AZURE_STORAGE_ACCOUNT": "me", "AZURE_STORAGE_SAS_TOKEN": "sv=1"},
        ),
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_SKIP_SIGNATURE": "true"},
            "az://maps",
            {"AZURE_STORAGE_ACCOUNT": "me", "AZURE_NO_SIGN_REQUEST": "YES"},
        ),
        (
            {"GOOGLE_SERVICE_ACCOUNT": "/keys/me.json"},
            "gs://maps",
            {"GOOGLE_APPLICATION_CREDENTIALS": "/keys/me.json"},
        ),
        ({"GOOGLE_SKIP_SIGNATURE": "true"}, "gs://maps", {"GS_NO_SIGN_REQUEST": "YES"}),
    ],
)
def test_gdal_gets_by_its_own_names_what_azure_and_google_need(
    given: dict[str, str],
    bucket: str,
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody logged in
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = gdal_options(f"{bucket}/dem.tif")
    found.pop("CPL_GCE_CHECK_LOCAL_FILES", None)
    assert found == expected


def test_gdal_finds_google_s_login_where_gcloud_leaves_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    login = tmp_path / ".config/gcloud/application_default_credentials.json"
    login.parent.mkdir(parents=True)
    login.touch()
    options = gdal_options("gs://maps/dem.tif")
    assert options["GOOGLE_APPLICATION_CREDENTIALS"] == str(login)


def test_plain_zarr_goes_to_the_bucket_that_is_described(tmp_path: Path) -> None:
    write_toy_store(str(tmp_path / "cube.icechunk"))
    box = (8.24, 48.97, 8.25, 48.975)
    with s3_server() as one:
        use_buckets({"s3://one": Bucket(one.url, "r1")})
        url = export_zarr(str(tmp_path), "map-toy", "s3://one/cut/w.zarr", bbox=box, zone=32)
        copy = open_cube(url).load()
        with pytest.raises(StoreError, match="exists"):
            export_zarr(str(tmp_path), "map-toy", url, bbox=box, zone=32)
    own = open_cube(str(tmp_path), product="map-toy", zone=32, aoi=box).load()
    np.testing.assert_array_equal(copy["class"], own["class"])
    assert copy.sizes == own.sizes


def test_a_description_replaces_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere.example")
    use_buckets({"s3://maps": Bucket(region="eu-west-9")})
    assert bucket_of("s3://maps/a/b") == Bucket(region="eu-west-9")
    assert bucket_of("s3://other").endpoint == "https://elsewhere.example"


def test_tasks_elsewhere_get_the_driver_s_description() -> None:
    use_buckets({"s3://maps": Bucket(region="eu-west-9")})
    sent = known_buckets()
    use_buckets({})
    _RayTask(pickle.dumps(len), sent)
    assert bucket_of("s3://maps/x").region == "eu-west-9"


RUN_FILE = """\
version: 1
name: maps
aoi: [12.0, 48.0, 12.1, 48.1]
time: 2023-01-01/2023-12-31
task: cube
storage:
  {bucket}: {section}
"""


def write_run_file(folder: Path, bucket: str, section: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(RUN_FILE.format(bucket=bucket, section=section))
    return path


def test_a_run_file_describes_its_buckets(tmp_path: Path) -> None:
    section = "{endpoint: 'https://minio.example:9000/', region: r1, anonymous: true}"
    load_run(write_run_file(tmp_path, "s3://maps", section))
    expected = Bucket("https://minio.example:9000", "r1", anonymous=True)
    assert bucket_of("s3://maps/slovenia") == expected


def test_how_buckets_are_reached_is_no_part_of_a_run_s_key(tmp_path: Path) -> None:
    keys = {
        config_key(load_config(write_run_file(tmp_path, "s3://maps", section)))
        for section in ("{region: r1}", "{region: r2, requester_pays: true}")
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("bucket", "section", "said"),
    [
        (
            "s3://maps/slovenia",
            "{}",
            "is no bucket of S3; write it like 's3://maps', without a path",
        ),
        ("gs://maps", "{}", "gs:// and az:// are reached as the environment says"),
        ("s3://maps", "{endpoint: minio.example}", "write it like 'https://minio.example:9000'"),
        ("s3://maps", "{endpoint: 'https://me:secret@minio.example'}", "without a password"),
        ("s3://maps", "{access_key: AKIA}", "access_key"),
    ],
)
def test_a_wrong_description_is_refused(
    bucket: str, section: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        load_config(write_run_file(tmp_path, bucket, section))
    assert "storage" in str(caught.value)
