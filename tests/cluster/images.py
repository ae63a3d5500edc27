"""Images without a registry: folders become OCI tars, which containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tests.cluster.errors import ClusterError
from tests.cluster.machine import run

PAUSE_IMAGE = "eoray.test/pause:1"
PYTHON_IMAGE = "eoray.test/python:1"
USER = "1000:1000"
HOME = "/home/ray"
_SKIPPED = ("site-packages", "dist-packages", "test", "idlelib", "turtledemo", "config-3*")
_OCI = "application/vnd.oci.image"
_PART_BYTES = 2**20


def images_folder() -> Path:
    """``EORAY_CLUSTER_IMAGES``, else a folder in the user's cache."""
    named = os.environ.get("EORAY_CLUSTER_IMAGES")
    folder = Path(named).resolve() if named else Path.home() / ".cache/eoray-kubernetes/images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class Layer:
    """A tar of files, named by its content."""

    digest: str
    size_bytes: int


def write_image(
    rootfs: Path,
    name: str,
    out: Path,
    config: dict[str, Any],
    *,
    base: Path | None = None,
    keep_times: bool = False,
) -> Path:
    """Write a folder as an image; the same folder gives the same bytes.

    Args:
        rootfs: Becomes ``/``, or what lies over the base. Owners are kept.
        name: What pods call it.
        out: The tar; it appears whole or not at all.
        config: ``Entrypoint``, ``Env``, ``User``, ``WorkingDir`` of the OCI specification.
        base: Tar of an image whose layers lie beneath. They are named, not repeated: whoever
            imports this image has imported that one before.
        keep_times: Keep when files were changed, by which Python knows its compiled modules.
    """
    options = ["--directory", str(rootfs), "--numeric-owner", "--sort=name"]
    options += [] if keep_times else ["--mtime=@0"]
    with tempfile.TemporaryDirectory(prefix=".image-", dir=out.parent) as work:
        whole = Path(work) / "image.tar"
        with whole.open("w+b") as file:
            own = _write_layer(file, ["tar", "--create", *options, "."])
            layers = [*(read_layers(base) if base else ()), own]
            with tarfile.open(fileobj=file, mode="w") as image:
                _describe(image, name, config, layers)
        whole.replace(out)
    return out


def _write_layer(file: BinaryIO, command: Sequence[str]) -> Layer:
    """Write what a command gives as a layer of an image that begins with it.

    Gigabytes pass once: the layer lies in the image before its digest and so its header is known.
    """
    hashed = hashlib.sha256()
    file.seek(tarfile.BLOCKSIZE)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while part := process.stdout.read(_PART_BYTES):
            hashed.update(part)
            file.write(part)
    if process.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` gave {process.returncode}; see above")
    layer = Layer(hashed.hexdigest(), file.tell() - tarfile.BLOCKSIZE)
    file.write(bytes(-layer.size_bytes % tarfile.BLOCKSIZE))
    header = tarfile.TarInfo(_blob(layer.digest))
    header.size = layer.size_bytes
    file.seek(0)
    file.write(header.tobuf())
    file.seek(0, os.SEEK_END)
    return layer


def read_layers(image: Path) -> list[Layer]:
    """The layers of an image that :func:`write_image` wrote, lowest first."""
    with tarfile.open(image) as tar:
        index = _read_json(tar, "index.json")
        manifest = _read_json(tar, _blob(_hex(index["manifests"][0])))
    return [Layer(_hex(layer), layer["size"]) for layer in manifest["layers"]]


def pause_image() -> Path:
    """The image of every pod's sandbox; it is made in half a second, so it is never stale."""
    out = images_folder() / "pause.tar"
    source = Path(__file__).with_name("pause.c")
    with tempfile.TemporaryDirectory() as work:
        run(["gcc", "-static", "-Os", "-o", f"{work}/pause", source])
        return write_image(Path(work), PAUSE_IMAGE, out, {"Entrypoint": ["/pause"]})


def python_image() -> Path:
    """This interpreter with the libraries it needs, and nothing else: no shell, no packages."""
    out = images_folder() / f"python-{platform.python_version()}.tar"
    if not out.exists():
        with tempfile.TemporaryDirectory() as work:
            rootfs = Path(work)
            python = copy_interpreter(rootfs)
            make_home(rootfs)
            config = image_config(
                Entrypoint=[str(python)], Env=["PATH=/usr/bin:/bin", f"HOME={HOME}"]
            )
            write_image(rootfs, PYTHON_IMAGE, out, config)
    return out


def copy_interpreter(rootfs: Path) -> Path:
    """Copy this interpreter, its standard library and every shared library they load.

    All lie at the paths that they were built for: an interpreter finds itself by them.
    """
    python = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    _copy_tree(library, rootfs)
    _copy_file(python, rootfs)
    copy_shared_libraries([python, *library.glob("lib-dynload/*.so")], rootfs)
    # it may lie in root's home, and pods are not root
    for parent in python.relative_to("/").parents:
        (rootfs / parent).chmod(0o755)
    return python


def copy_shared_libraries(programs: Iterable[Path], rootfs: Path) -> None:
    """Copy every shared library that programs load, to the path that it has here."""
    # Lines of ldd: `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)` or `/lib64/ld-… (0x…)`.
    listed = run(["ldd", *programs])
    for found in set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", listed, re.MULTILINE)):
        _copy_file(Path(found), rootfs)


def _copy_tree(source: Path, rootfs: Path) -> None:
    target = rootfs / source.relative_to("/")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_SKIPPED, "config-3*"))


def _copy_file(source: Path, rootfs: Path) -> None:
    """Copy below the real path: Debian's ``/lib`` is a link into ``/usr``, relative or not."""
    target = rootfs / source.relative_to("/")
    if target.exists():
        return  # Debian's own
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def make_home(rootfs: Path) -> None:
    """Make the user that pods run as, its home, and the folders that runtimes mount over."""
    (rootfs / HOME.lstrip("/")).mkdir(parents=True, exist_ok=True)
    uid, gid = map(int, USER.split(":"))
    os.chown(rootfs / HOME.lstrip("/"), uid, gid)
    for folder in ("etc", "proc", "dev", "sys"):
        (rootfs / folder).mkdir(exist_ok=True)
    (rootfs / "tmp").mkdir(exist_ok=True)
    (rootfs / "tmp").chmod(0o1777)
    for name, line in {"passwd": f"ray:x:{USER}::{HOME}:/bin/sh", "group": "ray:x:1000:"}.items():
        with (rootfs / "etc" / name).open("a") as file:
            file.write(f"{line}\n")
    rootfs.chmod(0o755)  # a temporary folder is its owner's only, and it becomes `/`


def image_config(**values: Any) -> dict[str, Any]:
    """The configuration of an image whose pods are not root."""
    return {"User": USER, "WorkingDir": "/", **values}


def _describe(
    image: tarfile.TarFile, name: str, config: dict[str, Any], layers: Sequence[Layer]
) -> None:
    """Write what the OCI image layout asks for beside the layers."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    root = {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]}
    described = {"architecture": machine, "os": "linux", "config": config, "rootfs": root}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _add_blob(image, f"{_OCI}.config.v1+json", described),
        "layers": [
            {
                "mediaType": f"{_OCI}.layer.v1.tar",
                "digest": f"sha256:{layer.digest}",
                "size": layer.size_bytes,
            }
            for layer in layers
        ],
    }
    entry = _add_blob(image, f"{_OCI}.manifest.v1+json", manifest)
    # containerd's own annotation: the full name, where OCI's would hold the tag only.
    entry["annotations"] = {"io.containerd.image.name": name}
    _add(image, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    _add(image, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def _add_blob(image: tarfile.TarFile, media_type: str, content: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    _add(image, _blob(digest), data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _add(image: tarfile.TarFile, path: str, data: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = len(data)
    image.addfile(entry, io.BytesIO(data))


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def _hex(described: dict[str, Any]) -> str:
    return str(described["digest"]).removeprefix("sha256:")


def _read_json(tar: tarfile.TarFile, path: str) -> dict[str, Any]:
    file = tar.extractfile(path)
    if file is None:
        raise ClusterError(f"{tar.name!r} is no image: {path} is no file; make it again")
    content: dict[str, Any] = json.load(file)
    return content
