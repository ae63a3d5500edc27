"""The cluster's own kubectl, as admin."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError


@dataclass(frozen=True, slots=True)
class Kubectl:
    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Run it and return its stdout.

        Raises:
            ClusterError: It failed; with its stderr.
        """
        done = self._run(*arguments, stdin=stdin)
        if done.returncode != 0:
            words = " ".join(map(str, arguments))
            raise ClusterError(f"`kubectl {words}` gave {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def succeeds(self, *arguments: str | Path) -> bool:
        try:
            return self._run(*arguments, timeout_s=5).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects on the server's side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self("apply", "--server-side", "--filename=-", stdin=json.dumps(listed))

    def _run(
        self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        # A proxy of the user's would be asked for an address that only this machine has.
        environment = {
            name: value for name, value in os.environ.items() if "proxy" not in name.lower()
        }
        return subprocess.run(
            [self.program, "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environment,
        )
