"""Credentials of a pod's identity, given out by a server, and the next ones when they expire."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from eoray import storage
from eoray.cube.store import open_repository
from eoray.run.lease import hold_store
from eoray.run.probe import probe_store
from tests.outside import make_authority, serve_tls
from tests.s3_server import FakeS3, serve_s3

LIFE_S = 2.0
"""Of the first credentials, from when they are given out; those behind them hold for an hour."""

STS = """\
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>{AccessKeyId}</AccessKeyId><SecretAccessKey>{SecretAccessKey}</SecretAccessKey>
<SessionToken>{Token}</SessionToken><Expiration>{Expiration}</Expiration>
</Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/maps/run</Arn>
<AssumedRoleId>AROA:run</AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"""


@dataclass
class Identities:
    """What gives out credentials, as EKS Pod Identity, STS, Azure and Google's metadata do."""

    s3: FakeS3
    tokens: list[str] = field(default_factory=list)
    """By which a pod said who it is, each time."""
    url: str = ""
    first_ends: float = 0.0
    is_first: bool = True

    def give(self, token: str) -> dict[str, str]:
        """Credentials; the store takes no others any more."""
        self.tokens.append(token)
        life_s = LIFE_S if self.is_first else 3600.0
        ends = time.time() + life_s
        if self.is_first:
            self.first_ends = ends
        key = self.s3.only_key = "FIRST" if self.is_first else "SECOND"
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
        return {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": moment}

    def let_first_end(self) -> None:
        """Wait until the first credentials hold no more."""
        time.sleep(max(0.0, self.first_ends - time.time()) + 0.2)
        self.is_first, self.s3.only_key = False, "SECOND"


@contextmanager
def serve(identities: Identities) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/v1/credentials"):
                self._answer(json.dumps(identities.give(self.headers["Authorization"])))
            elif self.path.startswith("/computeMetadata/"):
                assert self.headers["Metadata-Flavor"] == "Google"
                self._bearer("token-of-the-pod")  # it knows the pod by its address
            else:
                self._assume(urlsplit(self.path).query)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if self.path == "/tenant/oauth2/v2.0/token":
                asked = parse_qs(body)
                assert asked["client_id"] == ["maps"]
                self._bearer(asked["client_assertion"][0])
            else:
                self._assume(body or urlsplit(self.path).query)

        def _assume(self, query: str) -> None:
            asked = parse_qs(query)
            assert asked["Action"] == ["AssumeRoleWithWebIdentity"]
            assert asked["RoleArn"] == ["arn:aws:iam::1:role/maps"]
            self._answer(STS.format(**identities.give(asked["WebIdentityToken"][0])))

        def _bearer(self, token: str) -> None:
            given = identities.give(token)["AccessKeyId"]
            life_s = LIFE_S if identities.is_first else 3600
            found = {"access_token": given, "expires_in": int(life_s), "token_type": "Bearer"}
            self._answer(json.dumps(found))

        def _answer(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    identities.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def identities(monkeypatch: pytest.MonkeyPatch) -> Iterator[Identities]:
    """A store and the server of its credentials; the environment has none."""
    with serve_s3(monkeypatch) as s3:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        found = Identities(s3)
        with serve(found):
            yield found


@pytest.fixture
def pod_identity(
    identities: Identities, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Identities:
    """As EKS Pod Identity tells a pod."""
    (tmp_path / "token").write_text("token-of-the-pod")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{identities.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    return identities


@pytest.fixture
def web_identity(
    identities: Identities, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Identities]:
    """As IRSA tells a pod; its STS has a certificate of an authority of the test's."""
    (tmp_path / "token").write_text("token-of-the-pod")
    authority = make_authority(tmp_path, ["localhost"])
    with serve_tls(authority, int(identities.url.rpartition(":")[2])) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"https://localhost:{port}")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/maps")
        monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "run")
        yield identities


@pytest.fixture
def azure_identity(
    identities: Identities, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Identities:
    """As the webhook of AKS tells a pod."""
    (tmp_path / "token").write_text("token-of-the-pod")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"{identities.url}/")
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    monkeypatch.setenv("AZURE_CLIENT_ID", "maps")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", identities.s3.url)
    return identities


@pytest.fixture
def google_identity(
    identities: Identities, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Identities:
    """As on GKE, where the node's metadata server knows the pods."""
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody logged in
    monkeypatch.setenv("GCE_METADATA_HOST", identities.url.removeprefix("http://"))
    monkeypatch.setenv("CPL_GS_ENDPOINT", f"{identities.s3.url}/")
    return identities


def by_obstore() -> Callable[[], None]:
    """Puts through one client, as the lease renews itself."""
    store = storage.object_store("s3://maps/out")
    return lambda: store.put("thing", b"x") and None


def by_icechunk() -> Callable[[], None]:
    """Commits through one repository, as the driver."""
    repository = open_repository("s3://maps/out/cube.icechunk", create=True)

    def commit() -> None:
        import zarr

        session = repository.writable_session("main")
        zarr.open_group(session.store, mode="a").attrs["at"] = time.time()
        session.commit("again")

    return commit


WRITERS = {"obstore": by_obstore, "icechunk": by_icechunk}
KINDS = ("pod_identity", "web_identity")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_credentials_come_from_the_identity_and_are_renewed_when_they_expire(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, writer: str
) -> None:
    found: Identities = request.getfixturevalue(kind)
    if writer == "icechunk":  # it reads a process's authorities once, and takes a plain STS
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", found.url)
    write = WRITERS[writer]()
    write()
    assert set(found.s3.keys) == {"FIRST"}
    found.let_first_end()
    before = len(found.s3.keys)
    write()
    assert set(found.s3.keys[before:]) == {"SECOND"}
    assert set(found.tokens) == {"token-of-the-pod"}


READER = """\
import sys
from eoray.reading.gdal import GdalFile, io_pool

def read(urls):
    with GdalFile(next(urls)) as file:
        print(file.read(slice(0, 128), slice(0, 128)).sum(), flush=True)
        sys.stdin.readline()
        print(file.read(slice(896, 1024), slice(896, 1024)).sum(), flush=True)
    with GdalFile(next(urls)) as file:
        print(file.read(slice(0, 128), slice(0, 128)).sum(), flush=True)

io_pool().submit(read, iter(sys.argv[1:])).result()
"""
"""A process of its own: rasterio holds Python's lock while it opens a file."""

PLACES = {
    "pod_identity": "s3://maps",
    "web_identity": "s3://maps",
    "azure_identity": "az://maps",
    "google_identity": "gs://maps",
}


@pytest.mark.parametrize(("kind", "place"), PLACES.items())
def test_gdal_takes_credentials_from_the_identity_and_the_next_ones_in_an_open_file(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, place: str
) -> None:
    found: Identities = request.getfixturevalue(kind)
    if kind == "web_identity":
        monkeypatch.setenv("GDAL_CURL_CA_BUNDLE", os.environ["SSL_CERT_FILE"])
    pixels = lay_rasters(found.s3, "a.tif", "b.tif")
    command = [sys.executable, "-c", READER, f"{place}/a.tif", f"{place}/b.tif"]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == f"{pixels[:128, :128].sum()}\n"
        assert set(found.s3.keys) == {"FIRST"}
        found.let_first_end()
        before = len(found.s3.keys)
        out, _ = reader.communicate("\n", timeout=60)
    assert out == f"{pixels[896:, 896:].sum()}\n{pixels[:128, :128].sum()}\n"
    assert set(found.s3.keys[before:]) == {"SECOND"}
    assert set(found.tokens) == {"token-of-the-pod"}


def lay_rasters(s3: FakeS3, *names: str) -> np.ndarray:
    """The same picture under each name; eoray's own reader does not know its compression."""
    from rasterio import Affine
    from rasterio.io import MemoryFile

    pixels = np.random.default_rng(7).integers(0, 9999, (1024, 1024), "uint16")
    shape = {"width": 1024, "height": 1024, "count": 1, "dtype": "uint16"}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 600000, 0, -10, 5000000)}
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "zstd"}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **place, **shape, **tiles) as file:
            file.write(pixels, 1)
        data = memory.read()
    for name in names:
        s3.put(f"maps/{name}", data)
    return pixels


def test_probe_and_lease_need_no_key_in_the_environment(pod_identity: Identities) -> None:
    probe_store("s3://maps/out")
    with hold_store("s3://maps/out", "run-01234567") as holder:
        assert holder.epoch == 1
    assert set(pod_identity.s3.keys) == {"FIRST"}
