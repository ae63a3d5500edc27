"""The script for a laptop, with stand-ins for docker, kind, kubectl and helm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "deploy" / "install-kind.sh"
PROGRAMS = ("docker", "kind", "kubectl", "helm")
STAND_IN = """\
#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
    "kind version") echo "kind ${KIND_VERSION:-v0.33.0} go1.26" ;;
    "kind get clusters") cat "$CLUSTERS" ;;
    "kind create cluster"*) echo eoray > "$CLUSTERS" ;;
    "docker image inspect ${MISSING:-none}") exit 1 ;;
    "kubectl"*"apply"*) cat > /dev/null ;;
esac
"""

Install = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def install(tmp_path: Path, calls: Path) -> Install:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    for name in ("bash", "dirname", "basename", "cat", "grep", "sh"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    (tmp_path / "clusters").touch()
    environment = {
        "PATH": str(programs),
        "CALLS": str(calls),
        "CLUSTERS": str(tmp_path / "clusters"),
    }

    def run(*arguments: str, without: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        if without:
            (programs / without).unlink()
        return subprocess.run(
            [SCRIPT, *arguments],
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_cluster_operator_and_chart_come_in_this_order(install: Install, calls: Path) -> None:
    done = install()
    assert done.returncode == 0, done.stderr
    said = calls.read_text()
    steps = [
        "kind create cluster --name eoray --image kindest/node:v1.35.8@sha256:",
        "kind load docker-image --name eoray eoray/eoray:dev eoray/eoray-submit:dev",
        "helm upgrade --install kuberay-operator kuberay-operator ",
        "kubectl --context kind-eoray create namespace maps",
        "kubectl --context kind-eoray label --overwrite namespace maps",
        "helm upgrade --install eoray helm/eoray --kube-context kind-eoray --namespace maps",
    ]
    assert [said.index(step) for step in steps] == sorted(said.index(step) for step in steps)
    assert "--version 1.7.0" in said
    assert "eoray submit run.yaml" in done.stdout
    assert done.stderr == ""


def test_second_run_keeps_the_cluster(install: Install, calls: Path) -> None:
    install()
    calls.unlink()
    assert install().returncode == 0
    assert "kind create" not in calls.read_text()
    assert calls.read_text().count("helm upgrade") == 2


def test_delete_removes_the_cluster_and_asks_for_no_image(install: Install, calls: Path) -> None:
    assert install("delete", MISSING="eoray/eoray:dev").returncode == 0
    assert calls.read_text() == "kind delete cluster --name eoray\n"


def test_image_that_is_not_built_is_named_before_a_cluster_is_made(
    install: Install, calls: Path
) -> None:
    done = install(MISSING="eoray/eoray-submit:dev")
    assert done.returncode == 1
    assert "image eoray/eoray-submit:dev is not built; make image TARGET=cpu" in done.stderr
    assert "create" not in calls.read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_missing_program_is_named(install: Install, program: str) -> None:
    done = install(without=program)
    assert (done.returncode, f"error: {program} is not installed" in done.stderr) == (1, True)


def test_another_kind_is_warned_of_and_an_unknown_argument_refused(install: Install) -> None:
    assert "warning: kind is not v0.33.0" in install(KIND_VERSION="v0.20.0").stderr
    assert install("remove").returncode == 1


def test_names_are_those_of_the_chart_and_the_makefile() -> None:
    text = SCRIPT.read_text()
    values = (REPOSITORY / "helm" / "eoray" / "values.yaml").read_text()
    assert "--namespace kuberay-system" in text
    assert "operatorNamespace: kuberay-system" in values
    assert "TAG = eoray/eoray$(if" in (REPOSITORY / "Makefile").read_text()
    assert "repository: eoray/eoray-submit" in values


def test_script_stops_at_the_first_error_and_has_clean_syntax() -> None:
    text = SCRIPT.read_text()
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE)
    assert os.access(SCRIPT, os.X_OK)
    checker = shutil.which("shellcheck")
    command = [checker, str(SCRIPT)] if checker else ["bash", "-n", str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
