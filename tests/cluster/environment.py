"""The image of eoray's pods: Debian, this interpreter, this environment's packages, eoray.

Two images: the environment (gigabytes, kept until a package changes) and eoray over it (this
checkout, seconds). Neither holds what only GPUs or developers use. torch's CUDA build, the only
one in the environment, loads NVIDIA's libraries when it is imported; it never calls them without
a GPU, so libraries of the same names that answer "no device" take their place.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from tests.cluster.errors import UnavailableError
from tests.cluster.images import (
    HOME,
    copy_interpreter,
    image_config,
    images_folder,
    make_home,
    write_image,
)
from tests.cluster.machine import run

EORAY_IMAGE = "eoray.test/eoray:1"
VENV = Path("/opt/venv")
FREE_BYTES = 15_000_000_000
"""Root filesystem, layer and tar lie on the disk side by side, and containerd's two copies."""
# What Ray, KubeRay's probes (bash, wget) and wheels' libraries use beyond the interpreter.
DEBIAN_PACKAGES = ("bash", "ca-certificates", "libgomp1", "libexpat1", "procps", "wget")
GPU_PACKAGES = ("nvidia", "triton", "cuda")
DEVELOPERS_PACKAGES = (
    "helm_python", "hypothesis", "kubernetes_validate", "mypy", "mypyc", "pip", "pre_commit",
    "ruff", "uv", "virtualenv", "*__mypyc*.so",
)  # fmt: skip
REPOSITORY = Path(__file__).resolve().parents[2]
_RECIPE = 3
"""Raise it when what stands here changes what is in the environment."""
_NO_DEVICE = 100
"""cudaErrorNoDevice; to the other libraries it is some error."""


def eoray_images() -> list[Path]:
    """The environment and eoray over it, in the order in which they are imported.

    Raises:
        UnavailableError: debootstrap or disk is missing.
    """
    environment = environment_image()
    out = images_folder() / "eoray.tar"
    with tempfile.TemporaryDirectory(prefix=".rootfs-", dir=out.parent) as work:
        rootfs = Path(work)
        _copy_eoray(rootfs)
        search = f"PATH={VENV}/bin:/usr/local/bin:/usr/bin:/bin"
        # Ray finds its own programs through PATH; without a home it writes to the root folder.
        config = image_config(Env=[search, f"HOME={HOME}"], WorkingDir=HOME)
        write_image(rootfs, EORAY_IMAGE, out, config, base=environment, keep_times=True)
    return [environment, out]


def environment_image() -> Path:
    """Debian, interpreter and packages; made anew only when one of them changes.

    Raises:
        UnavailableError: debootstrap or disk is missing.
    """
    folder, key = images_folder(), _environment_key()
    out = folder / f"environment-{key}.tar"
    if out.exists():
        return out
    for old in folder.glob("environment-*.tar"):
        old.unlink()
    if (free := shutil.disk_usage(folder).free) < FREE_BYTES:
        raise UnavailableError(
            f"{free / 1e9:.0f} GB are free below {folder}, an image with torch needs "
            f"{FREE_BYTES / 1e9:.0f} GB while it is made; name another folder in "
            "EORAY_CLUSTER_IMAGES"
        )
    with tempfile.TemporaryDirectory(prefix=".rootfs-", dir=folder) as work:
        rootfs = Path(work) / "rootfs"
        _make_debian(rootfs)
        python = copy_interpreter(rootfs)
        _copy_packages(rootfs, python)
        make_home(rootfs)
        name = f"eoray.test/environment:{key}"
        return write_image(rootfs, name, out, image_config(), keep_times=True)


def _environment_key() -> str:
    """Eight digits of everything that decides the environment."""
    packages = sorted(f"{each.name}=={each.version}" for each in distributions())
    decided = (sys.version, *DEBIAN_PACKAGES, *_skipped(), *packages, str(_RECIPE))
    return hashlib.sha256("\n".join(decided).encode()).hexdigest()[:8]


def _skipped() -> list[str]:
    """Patterns of what is left out of site-packages, besides eoray itself."""
    names = [*GPU_PACKAGES, *DEVELOPERS_PACKAGES]
    return [pattern for name in names for pattern in (name, f"{name}-*.dist-info")]


def _make_debian(rootfs: Path) -> None:
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
    for folder in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(rootfs / folder, ignore_errors=True)


def _copy_packages(rootfs: Path, python: Path) -> None:
    """Put installed packages into a venv of the image."""
    run(["chroot", rootfs, python, "-m", "venv", "--without-pip", VENV])
    source = Path(sysconfig.get_path("purelib"))
    target = rootfs / VENV.relative_to("/") / source.relative_to(sys.prefix)
    left_out = shutil.ignore_patterns(*_skipped(), "eoray-*.dist-info", "*.pth")

    def skip(folder: str, names: list[str]) -> set[str]:
        return left_out(folder, names) if Path(folder) == source else set()

    shutil.copytree(source, target, ignore=skip, copy_function=_link, dirs_exist_ok=True)
    _copy_scripts(Path(sysconfig.get_path("scripts")), rootfs / VENV.relative_to("/") / "bin")
    _replace_gpu_libraries(source, target)


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it to another disk; nobody writes to it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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


def _copy_eoray(rootfs: Path) -> None:
    """Copy this checkout's eoray, with its description and compiled modules."""
    source = Path(sysconfig.get_path("purelib"))
    target = rootfs / VENV.relative_to("/") / source.relative_to(sys.prefix)
    shutil.copytree(
        REPOSITORY / "eoray", target / "eoray", ignore=shutil.ignore_patterns("__pycache__")
    )
    for described in source.glob("eoray-*.dist-info"):
        shutil.copytree(described, target / described.name)
    compileall.compile_dir(target / "eoray", quiet=1, stripdir=str(rootfs))


def _replace_gpu_libraries(source: Path, target: Path) -> None:
    """Put empty libraries where torch looks for NVIDIA's."""
    users = sorted((source / "torch/lib").glob("*.so"))
    places = {path.name: path for path in (source / "nvidia").rglob("lib/*.so.*")}
    wanted = dict(_symbols(run(["nm", "--dynamic", "--undefined-only", *users])))
    for name in _needed_libraries(users) & places.keys():
        defined = dict(_symbols(run(["nm", "--dynamic", "--defined-only", places[name]])))
        out = target / places[name].relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_stub(out, {symbol: wanted[symbol] for symbol in sorted(defined.keys() & wanted)})


def _write_stub(out: Path, symbols: Mapping[str, str]) -> None:
    """Compile a library whose functions all say that there is no device.

    Args:
        out: The library; its name is its soname.
        symbols: Functions and the versions that users ask for, which the loader insists on.
    """
    versions: dict[str, list[str]] = {}
    for symbol, version in symbols.items():
        versions.setdefault(version, []).append(symbol)
    script = [
        f"{version} {{ global: {'; '.join(names)}; }};"
        for version, names in versions.items()
        if version
    ]
    with tempfile.TemporaryDirectory() as work:
        code, map_file = Path(work) / "stub.c", Path(work) / "stub.map"
        code.write_text("\n".join(map(_stub, symbols)) + "\n")
        map_file.write_text("\n".join(script) + "\n")
        flags = ["-shared", "-fPIC", "-Os", "-w", "-fno-builtin", f"-Wl,-soname,{out.name}"]
        flags += [f"-Wl,--version-script={map_file}"] if script else []
        run(["gcc", *flags, "-o", out, code])


def _stub(symbol: str) -> str:
    if re.search(r"Get\w*(String|Name|Text)$", symbol):  # torch writes it into its error
        return f'const char* {symbol}(void) {{ return "no CUDA in this image"; }}'
    return f"int {symbol}(void) {{ return {_NO_DEVICE}; }}"


def _needed_libraries(users: Sequence[Path]) -> set[str]:
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", run(["readelf", "--dynamic", *users])))


def _symbols(listed: str) -> Iterator[tuple[str, str]]:
    """Names and versions in lines such as `        U cublasCreate_v2@libcublas.so.13`."""
    for line in listed.splitlines():
        if match := re.match(r"[0-9a-f ]* [A-Za-z] ([A-Za-z_]\w*)@*(\S*)", line):
            yield match[1], match[2]
