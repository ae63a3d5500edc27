from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from tests.cluster.environment import _symbols, _write_stub
from tests.cluster.errors import ClusterError
from tests.cluster.images import read_layers, write_image
from tests.cluster.machine import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="images are made by GNU tar")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    (tmp_path / "rootfs/etc/motd").write_text("hello")
    return tmp_path / "rootfs"


def test_every_blob_has_the_digest_of_its_name(rootfs: Path, tmp_path: Path) -> None:
    out = write_image(rootfs, "eoray.test/x:1", tmp_path / "x.tar", {"Entrypoint": ["/x"]})
    with tarfile.open(out) as image:
        blobs = [entry for entry in image if entry.name.startswith("blobs/")]
        for entry in blobs:
            file = image.extractfile(entry)
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == Path(entry.name).name
    assert len(blobs) == 3  # layer, config, manifest


def test_the_index_holds_the_name(rootfs: Path, tmp_path: Path) -> None:
    out = write_image(rootfs, "eoray.test/x:1", tmp_path / "x.tar", {})
    with tarfile.open(out) as image:
        file = image.extractfile("index.json")
        assert file is not None
        (manifest,) = json.load(file)["manifests"]
    assert manifest["annotations"] == {"io.containerd.image.name": "eoray.test/x:1"}


def test_the_same_folder_gives_the_same_layer(rootfs: Path, tmp_path: Path) -> None:
    layers = []
    for name in ("one", "two"):
        out = write_image(rootfs, "eoray.test/x:1", tmp_path / f"{name}.tar", {})
        with tarfile.open(out) as image:
            layers.append(sorted(image.getnames()))
        (rootfs / "etc/motd").touch()
    assert layers[0] == layers[1]


def test_an_image_whose_folder_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="tar --create"):
        write_image(tmp_path / "absent", "eoray.test/x:1", tmp_path / "x.tar", {})
    assert list(tmp_path.iterdir()) == []


def test_an_image_over_another_names_its_layers_and_holds_its_own(
    rootfs: Path, tmp_path: Path
) -> None:
    below = write_image(rootfs, "eoray.test/below:1", tmp_path / "below.tar", {})
    (tmp_path / "over").mkdir()
    (tmp_path / "over/new").write_text("more")
    over = tmp_path / "over.tar"
    write_image(tmp_path / "over", "eoray.test/over:1", over, {}, base=below)
    lower, upper = read_layers(over)
    assert [lower] == read_layers(below)
    with tarfile.open(over) as image:
        held = {Path(entry.name).name for entry in image}
    assert upper.digest in held
    assert lower.digest not in held


@pytest.mark.skipif(shutil.which("gcc") is None, reason="compiles a library")
def test_a_stub_has_the_functions_and_versions_that_it_stands_for(tmp_path: Path) -> None:
    library = tmp_path / "libgone.so.3"
    _write_stub(library, {"goneCreate": "libgone.so.3", "goneGetErrorString": "", "goneInit": ""})
    symbols = dict(_symbols(run(["nm", "--dynamic", "--defined-only", library])))
    assert symbols["goneCreate"] == "libgone.so.3"
    loaded = ctypes.CDLL(str(library))
    assert loaded.goneCreate() == 100  # no device
    loaded.goneGetErrorString.restype = ctypes.c_char_p
    assert loaded.goneGetErrorString() == b"no CUDA in this image"
