"""Names and addresses of one cluster; ten of them can run side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

RECORDS = Path("/run")


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one cluster lives and what it is called. Nothing here touches the machine."""

    number: int
    """0-9."""
    state: Path
    """Folder that holds everything; made by ``up``, removed by ``down``."""

    def __post_init__(self) -> None:
        if self.number not in range(10):
            raise ValueError(f"slot {self.number} does not exist: choose 0 to 9")
        if any(self.state.is_relative_to(hidden) for hidden in ("/run", "/var")):
            raise ValueError(
                f"state folder {self.state} lies under /run or /var, which the cluster sees as "
                "empty folders of its own: name another in EORAY_CLUSTER_STATE"
            )

    @classmethod
    def from_environment(cls, number: int | None = None) -> Slot:
        """``EORAY_CLUSTER_SLOT`` (0) and ``EORAY_CLUSTER_STATE`` (/tmp/eoray-kubernetes)."""
        if number is None:
            number = int(os.environ.get("EORAY_CLUSTER_SLOT", "0"))
        base = os.environ.get("EORAY_CLUSTER_STATE", "/tmp/eoray-kubernetes")
        return cls(number, Path(base).resolve() / f"slot-{number}")

    @property
    def name(self) -> str:
        """Also the name of its cgroup and of its pods' network."""
        return f"eoray-kubernetes-{self.number}"

    @property
    def record(self) -> Path:
        """What ``down`` needs after a crash; under /run, so that a reboot forgets it."""
        return RECORDS / f"{self.name}.json"

    @property
    def host_link(self) -> str:
        return f"eoray-host{self.number}"

    @property
    def node_link(self) -> str:
        return f"eoray-node{self.number}"

    @property
    def link_network(self) -> str:
        return f"{self._prefix}.0.0/24"

    @property
    def host_ip(self) -> str:
        """The host as pods see it: a test's S3 or catalogue binds here."""
        return f"{self._prefix}.0.1"

    @property
    def node_ip(self) -> str:
        """The API server, the node and its DNS."""
        return f"{self._prefix}.0.2"

    @property
    def pods(self) -> str:
        return f"{self._prefix}.1.0/24"

    @property
    def services(self) -> str:
        return f"{self._prefix}.2.0/24"

    @property
    def api_service_ip(self) -> str:
        """The first service address, which Kubernetes takes for itself."""
        return f"{self._prefix}.2.1"

    @property
    def dns_ip(self) -> str:
        return f"{self._prefix}.2.10"

    @property
    def _prefix(self) -> str:
        return f"10.{201 + self.number}"
