"""Build the cluster's programs from their published Go modules, once per machine.

Kubernetes is not meant to be installed by ``go install``: its go.mod points at staging folders
of its own repository. An empty module that requires it, and takes each staging module at the
same release, builds it nevertheless.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError, UnavailableError

# The newest release whose staging modules are all published and whose kubelet still runs with
# cgroup v1 and containerd 1.6, which is what Debian 12 has.
KUBERNETES = "1.35.4"
GO_MINIMUM = (1, 25)
FREE_BYTES = 8_000_000_000
"""Module and build caches take 5 GB, the programs 0.7 GB."""
_STAMP = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Program:
    """One command of a published module."""

    name: str
    package: str
    module: str
    version: str

    @property
    def stamp(self) -> str:
        return f"{self.package}@{self.version}"


def _kubernetes(name: str) -> Program:
    return Program(name, f"k8s.io/kubernetes/cmd/{name}", "k8s.io/kubernetes", f"v{KUBERNETES}")


ETCD = "go.etcd.io/etcd/server/v3"
PROGRAMS = (
    Program("etcd", ETCD, ETCD, "v3.6.14"),
    *map(_kubernetes, ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")),
    *map(_kubernetes, ("kubelet", "kube-proxy")),
    Program("coredns", "github.com/coredns/coredns", "github.com/coredns/coredns", "v1.14.7"),
    Program("kwok", "sigs.k8s.io/kwok/cmd/kwok", "sigs.k8s.io/kwok", "v0.8.0"),
    Program("helm", "helm.sh/helm/v3/cmd/helm", "helm.sh/helm/v3", "v3.21.4"),
)

KUBERAY = "github.com/ray-project/kuberay/ray-operator"
OPERATOR = Program("ray-operator", KUBERAY, KUBERAY, "v1.6.2")
"""KubeRay's own operator, for tests in place of the stand-in; its newest published module."""


def programs_folder() -> Path:
    """``EORAY_CLUSTER_BIN``, else a folder in the user's cache."""
    named = os.environ.get("EORAY_CLUSTER_BIN")
    return Path(named).resolve() if named else Path.home() / ".cache/eoray-kubernetes/bin"


def build_programs(folder: Path | None = None) -> Path:
    """Build what is absent or of another version, and return the folder.

    A build that was stopped goes on with the program that it was at. Two builds wait for each
    other.

    Raises:
        UnavailableError: Go or disk is missing.
        ClusterError: A build failed.
    """
    folder = folder or programs_folder()
    if not missing_programs(folder):
        return folder
    _check_tools(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        for left in folder.glob(".build-*"):  # of a build that was killed
            shutil.rmtree(left)
        for program in missing_programs(folder):
            print(f"building {program.stamp}", file=sys.stderr, flush=True)
            _build(program, folder)
    return folder


def build_operator(folder: Path | None = None) -> Path:
    """Build KubeRay's operator where it is absent, with its definitions beside it.

    Returns:
        The program; in ``crds`` beside it lie the definitions of its release.

    Raises:
        UnavailableError: Go or disk is missing.
        ClusterError: A build failed.
    """
    folder = (folder or programs_folder()) / "kuberay"
    if missing_programs(folder, [OPERATOR]):
        _check_tools(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder):
            module = f"{OPERATOR.module}@{OPERATOR.version}"
            found: dict[str, str] = json.loads(_go(folder, "mod", "download", "-json", module))
            definitions = Path(found["Dir"]) / "config/crd/bases"
            shutil.copytree(definitions, folder / "crds", dirs_exist_ok=True)
            _build(OPERATOR, folder)
    return folder / OPERATOR.name


def missing_programs(folder: Path, wanted: Sequence[Program] = PROGRAMS) -> list[Program]:
    """Programs that are not there in the pinned version."""
    stamps = _read_stamps(folder)
    return [
        program
        for program in wanted
        if stamps.get(program.name) != program.stamp
        or not os.access(folder / program.name, os.X_OK)
    ]


def missing_tools() -> list[str]:
    """What a build lacks, in words; empty if nothing."""
    wanted = ".".join(map(str, GO_MINIMUM))
    go = shutil.which("go")
    if go is None:
        return [f"Go >= {wanted} on PATH"]
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    found = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, check=True, env=environment
    ).stdout.strip()
    version = re.match(r"go(\d+)\.(\d+)", found)
    if version is None or (int(version[1]), int(version[2])) < GO_MINIMUM:
        return [f"Go >= {wanted} (found {found})"]
    return []


def _check_tools(folder: Path) -> None:
    if missing := missing_tools():
        raise UnavailableError(f"cannot build the cluster's programs: needs {', '.join(missing)}")
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if (free := shutil.disk_usage(parent).free) < FREE_BYTES:
        raise UnavailableError(
            f"cannot build the cluster's programs: {free / 1e9:.1f} GB are free below {parent}, "
            f"{FREE_BYTES / 1e9:.0f} GB are needed; name another folder in EORAY_CLUSTER_BIN"
        )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is at work; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(program: Program, folder: Path) -> None:
    """Build in a folder of its own; the program appears whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as name:
        work = Path(name)
        _go(work, "mod", "init", "programs")
        _go(work, "mod", "edit", f"-go={'.'.join(map(str, GO_MINIMUM))}.0")
        _go(work, "mod", "edit", f"-require={program.module}@{program.version}")
        for replacement in _staging_modules(work, program):
            _go(work, "mod", "edit", f"-replace={replacement}")
        # kubelet's profile would build its 2 000 packages a second time for it alone.
        flags = ["-mod=mod", "-buildvcs=false", "-pgo=off", f"-ldflags=-s -w {_version_flags()}"]
        _go(work, "build", *flags, "-o", "program", program.package)
        (work / "program").replace(folder / program.name)
    stamps = {**_read_stamps(folder), program.name: program.stamp}
    new = folder / ".versions.new"
    new.write_text(json.dumps(stamps, indent=1))
    new.replace(folder / "versions.json")


def _version_flags() -> str:
    """What `kubectl version` and `/version` say; elsewhere the linker ignores it."""
    major, minor, _ = KUBERNETES.split(".")
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X {_STAMP}.{name}={value}" for name, value in values.items())


def _staging_modules(work: Path, program: Program) -> list[str]:
    """Replacements by published modules for those that a module has in its own folder."""
    found: dict[str, Any] = json.loads(
        _go(work, "mod", "download", "-json", f"{program.module}@{program.version}")
    )
    described: dict[str, Any] = json.loads(_go(work, "mod", "edit", "-json", found["GoMod"]))
    return [
        f"{replaced['Old']['Path']}={replaced['Old']['Path']}@v0.{KUBERNETES.removeprefix('1.')}"
        for replaced in described.get("Replace") or []
        if replaced["New"]["Path"].startswith("./staging/")
    ]


def _go(work: Path, *arguments: str) -> str:
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": ""}
    done = subprocess.run(
        ["go", *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"`go {' '.join(arguments)}` gave {done.returncode}: {done.stderr}")
    return done.stdout


def _read_stamps(folder: Path) -> dict[str, str]:
    try:
        stamps: dict[str, str] = json.loads((folder / "versions.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return stamps
