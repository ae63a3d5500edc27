"""Shell scripts, and the hooks of pods, as shellcheck sees them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from eoray.k8s.hooks import save_fit, stop_driver

REPOSITORY = Path(__file__).resolve().parents[2]
SHELLCHECK = shutil.which("shellcheck") or shutil.which(
    "shellcheck", path=REPOSITORY / ".venv-shell" / "bin"
)

pytestmark = pytest.mark.skipif(
    SHELLCHECK is None, reason="there is no shellcheck; `make shell` brings it and runs these"
)


def faults(script: str, *options: str) -> str:
    """What shellcheck says of a script."""
    command = [str(SHELLCHECK), "--norc", *options, "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def scripts() -> list[Path]:
    """Files of the repository that begin as a shell script does."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True
    )
    names = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    small = [name for name in names if name.suffix in ("", ".sh") and (REPOSITORY / name).is_file()]
    return [name for name in small if _is_shell((REPOSITORY / name).read_bytes())]


def _is_shell(content: bytes) -> bool:
    first = content.partition(b"\n")[0]
    return first.startswith(b"#!") and first.endswith((b"/sh", b"bash"))


def test_shellcheck_is_looked_at_at_all() -> None:
    assert "SC2086" in faults("#!/bin/sh\nrm $1\n")


def test_scripts_of_the_repository_have_no_faults() -> None:
    found = scripts()
    assert {Path(".ci/run"), Path("deploy/install-kind.sh")} <= set(found)
    assert {name: faults((REPOSITORY / name).read_text()) for name in found} == dict.fromkeys(
        found, ""
    )


@pytest.mark.parametrize("hook", [stop_driver(), save_fit(60)])
def test_hooks_of_pods_have_no_faults(hook: dict[str, dict[str, dict[str, list[str]]]]) -> None:
    script = hook["preStop"]["exec"]["command"][2]
    assert faults(script, "--shell=sh") == ""
