"""Images without a registry: folders become OCI tars, which containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster.errors import UnavailableError
from tests.cluster.machine import run

PAUSE_IMAGE = "eoray.test/pause:1"
PYTHON_IMAGE = "eoray.test/python:1"
EORAY_IMAGE = "eoray.test/eoray:1"
USER = "1000:1000"
HOME = "/home/ray"
VENV = Path("/opt/venv")
EORAY_FREE_BYTES = 25_000_000_000
"""Root filesystem, layer and tar of an image with torch lie on the disk side by side."""
# What Ray, KubeRay's probes (bash, wget) and wheels' libraries use beyond the interpreter.
DEBIAN_PACKAGES = ("bash", "ca-certificates", "libgomp1", "libexpat1", "procps", "wget")
_SKIPPED = ("site-packages", "dist-packages", "test", "idlelib", "turtledemo", "__pycache__")
_OCI = "application/vnd.oci.image"


def images_folder() -> Path:
    """``EORAY_CLUSTER_IMAGES``, else a folder in the user's cache."""
    named = os.environ.get("EORAY_CLUSTER_IMAGES")
    folder = Path(named).resolve() if named else Path.home() / ".cache/eoray-kubernetes/images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_image(rootfs: Path, name: str, out: Path, config: dict[str, Any]) -> Path:
    """Write a folder as an image of one layer; the same folder gives the same bytes.

    Args:
        rootfs: Becomes ``/``. Owners are kept.
        name: What pods call it.
        out: The tar; it appears whole or not at all.
        config: ``Entrypoint``, ``Env``, ``User``, ``WorkingDir`` of the OCI specification.
    """
    with tempfile.TemporaryDirectory(prefix=".image-", dir=out.parent) as work:
        layer = Path(work) / "layer.tar"
        options = ["--directory", str(rootfs), "--numeric-owner", "--sort=name", "--mtime=@0"]
        run(["tar", "--create", "--file", layer, *options, "."], timeout_s=900)
        with layer.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole = Path(work) / "image.tar"
        with tarfile.open(whole, "w") as image:
            image.add(layer, _blob(digest))
            _describe(image, name, config, digest, layer.stat().st_size)
        whole.replace(out)
    return out


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
            _make_home(rootfs)
            config = _config(Entrypoint=[str(python)], Env=["PATH=/usr/bin:/bin", f"HOME={HOME}"])
            write_image(rootfs, PYTHON_IMAGE, out, config)
    return out


def eoray_image() -> Path:
    """Debian, this interpreter and this environment's packages: what eoray's pods run.

    It takes minutes and, with torch, most of 25 GB of disk while it is made. The environment is
    copied as it is, so the image has what the tests beside it have.

    Raises:
        UnavailableError: debootstrap or disk is missing.
    """
    folder = images_folder()
    if (free := shutil.disk_usage(folder).free) < EORAY_FREE_BYTES:
        raise UnavailableError(
            f"{free / 1e9:.0f} GB are free below {folder}, an image with torch needs "
            f"{EORAY_FREE_BYTES / 1e9:.0f} GB while it is made; name another folder in "
            "EORAY_CLUSTER_IMAGES"
        )
    with tempfile.TemporaryDirectory(prefix=".rootfs-", dir=folder) as work:
        rootfs = Path(work) / "rootfs"
        make_debian(rootfs)
        python = copy_interpreter(rootfs)
        _copy_environment(rootfs, python)
        _make_home(rootfs)
        search = f"PATH={VENV}/bin:/usr/local/bin:/usr/bin:/bin"
        # Ray finds its own programs through PATH; without a home it writes to the root folder.
        config = _config(Env=[search, f"HOME={HOME}"], WorkingDir=HOME)
        return write_image(rootfs, EORAY_IMAGE, folder / "eoray.tar", config)


def make_debian(rootfs: Path) -> None:
    """Fill a folder with a minimal Debian of this machine's own release and mirror."""
    if shutil.which("debootstrap") is None:
        raise UnavailableError("debootstrap is missing (Debian: apt-get install debootstrap)")
    described = dict(
        line.split("=", maxsplit=1)
        for line in Path("/etc/os-release").read_text().split("\n")
        if "=" in line
    )
    release = described["VERSION_CODENAME"].strip('"')
    site = run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)", "Identifier: Packages"]
    )
    mirrors = [line.split()[0] for line in site.splitlines() if line.split()[1:] == [release]]
    options = ["--variant=minbase", f"--include={','.join(DEBIAN_PACKAGES)}"]
    run(["debootstrap", *options, release, rootfs, *mirrors[:1]], timeout_s=900)
    shutil.rmtree(rootfs / "var/cache/apt", ignore_errors=True)


def copy_interpreter(rootfs: Path) -> Path:
    """Copy this interpreter, its standard library and every shared library they load.

    All lie at the paths that they were built for: an interpreter finds itself by them.
    """
    python = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    _copy_tree(library, rootfs)
    _copy_file(python, rootfs)
    for shared in _shared_libraries([python, *library.glob("lib-dynload/*.so")]):
        _copy_file(shared, rootfs)
    return python


def _shared_libraries(programs: Iterable[Path]) -> set[Path]:
    # Lines of ldd: `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)` or `/lib64/ld-… (0x…)`.
    listed = run(["ldd", *programs])
    return {Path(found) for found in re.findall(r"(?:=> |^\t)(/\S+) \(0x", listed, re.MULTILINE)}


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


def _copy_environment(rootfs: Path, python: Path) -> None:
    """Copy installed packages into a venv of the image, and eoray itself from this checkout."""
    inside = ["chroot", str(rootfs), str(python)]
    run([*inside, "-m", "venv", "--without-pip", str(VENV)])
    source = Path(sysconfig.get_path("purelib"))
    target = rootfs / VENV.relative_to("/") / source.relative_to(sys.prefix)
    # --reflink: on filesystems that can, gigabytes are shared and not copied.
    run(["cp", "--archive", "--reflink=auto", f"{source}/.", target], timeout_s=900)
    for pointer in [*target.glob("*eoray*.pth"), *target.glob("*.pth")]:
        if "eoray" in pointer.name or str(Path(__file__).parents[2]) in pointer.read_text():
            pointer.unlink(missing_ok=True)
    shutil.copytree(
        Path(__file__).parents[2] / "eoray",
        target / "eoray",
        ignore=shutil.ignore_patterns("__pycache__"),
        dirs_exist_ok=True,
    )
    _copy_scripts(Path(sysconfig.get_path("scripts")), rootfs / VENV.relative_to("/") / "bin")


def _copy_scripts(source: Path, target: Path) -> None:
    """Copy console scripts; their first line names the interpreter of another place."""
    for script in source.iterdir():
        if script.is_symlink() or not script.is_file() or (target / script.name).exists():
            continue
        content = script.read_bytes()
        if content.startswith(b"#!") and b"python" in content.split(b"\n", maxsplit=1)[0]:
            _, _, body = content.partition(b"\n")
            (target / script.name).write_bytes(f"#!{VENV}/bin/python\n".encode() + body)
            (target / script.name).chmod(0o755)


def _make_home(rootfs: Path) -> None:
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


def _config(**values: Any) -> dict[str, Any]:
    return {"User": USER, "WorkingDir": "/", **values}


def _describe(
    image: tarfile.TarFile, name: str, config: dict[str, Any], layer: str, size: int
) -> None:
    """Write what the OCI image layout asks for beside the layer."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    root = {"type": "layers", "diff_ids": [f"sha256:{layer}"]}
    described = {"architecture": machine, "os": "linux", "config": config, "rootfs": root}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _add_blob(image, f"{_OCI}.config.v1+json", described),
        "layers": [
            {"mediaType": f"{_OCI}.layer.v1.tar", "digest": f"sha256:{layer}", "size": size}
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
