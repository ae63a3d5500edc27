from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from pathlib import Path

import pytest

from tests.cluster.images import write_image

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
