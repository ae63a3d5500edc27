"""A real Kubernetes on one Linux machine, brought up and removed without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import control_plane, node
from tests.cluster.errors import ClusterError
from tests.cluster.fake_nodes import add_fake_gpu_nodes
from tests.cluster.images import pause_image
from tests.cluster.keys import write_keys
from tests.cluster.kubectl import Kubectl
from tests.cluster.machine import Machine, run, wait_until
from tests.cluster.programs import build_programs, programs_folder
from tests.cluster.requirements import check_machine
from tests.cluster.slot import Slot

_LOCK = Path("/run/lock/eoray-kubernetes.lock")
# Only a folder with this file is ever removed.
_MARK = ".made-by-eoray-test-cluster"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster of one slot, running or not."""

    slot: Slot
    programs: Path

    @classmethod
    def of(cls, slot: Slot | None = None) -> Cluster:
        return cls(slot or Slot.from_environment(), programs_folder())

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.slot.state / "admin.conf"

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.programs / "kubectl", self.kubeconfig)

    def helm(self, namespace: str, *words: str | Path, stdin: str | None = None) -> str:
        """Run helm in a namespace, as administrator.

        Raises:
            ClusterError: It failed; with its stderr.
        """
        where = ("--kubeconfig", self.kubeconfig, "--namespace", namespace)
        return run([self.programs / "helm", *words, *where], stdin=stdin, timeout_s=300)

    @property
    def machine(self) -> Machine:
        """The namespaces and programs.

        Raises:
            ClusterError: The cluster is not up.
        """
        machine = Machine.find(self.slot)
        if machine is None or not machine.holder.is_alive():
            raise ClusterError(f"slot {self.slot.number} is not up: `python -m tests.cluster up`")
        return machine

    def up(self, *, pods: bool = True) -> None:
        """Bring it up, and if asked a node that runs pods.

        One that runs is left as it is; remains of a crash are removed first; one that fails to
        start is removed, but for its logs.

        Raises:
            UnavailableError: This machine cannot run it.
            ClusterError: It did not start.
        """
        check_machine(self.slot, self.programs, pods=pods)
        build_programs(self.programs)
        with _one_at_a_time():
            self._check_owner()
            try:
                if not self._is_control_plane_up() or self._is_node_broken():
                    self._remove()
                    self._start_control_plane()
                if pods and not self._is_node_up():
                    node.start_node(self.machine, self.programs, self.kubectl, pause_image())
            except BaseException as error:
                logs = self._keep_logs()
                self._remove()
                error.add_note(f"the cluster is removed, its logs are in {logs}")
                raise

    def down(self) -> None:
        """Remove everything; nothing to do is fine, and so are remains of a crash."""
        with _one_at_a_time():
            self._check_owner()
            self._remove()

    def is_up(self, *, pods: bool = True) -> bool:
        return self._is_control_plane_up() and (not pods or self._is_node_up())

    def status(self) -> dict[str, bool]:
        """Whether each program that was started is alive; empty if the cluster is not up."""
        machine = Machine.find(self.slot)
        return {name: machine.is_alive(name) for name in machine.started()} if machine else {}

    def import_image(self, tar: Path) -> None:
        """Give an image to the node."""
        node.import_image(self.slot, tar)

    def add_fake_gpu_nodes(self, n_nodes: int) -> None:
        """Add nodes with 8 GPUs each that run nothing, for scheduling, taints and quotas."""
        add_fake_gpu_nodes(self.machine, self.programs, self.kubectl, n_nodes)

    def restart(self, program: str) -> None:
        """End a program of the control plane and start it again, as an upgrade does."""
        self.machine.stop(program)
        command = control_plane.control_plane_commands(self.machine, self.programs)[program]
        self.machine.start(program, command)
        wait_until(lambda: control_plane.is_api_ready(self.kubectl), 60, "the API server")

    def _check_owner(self) -> None:
        machine = Machine.find(self.slot)
        if machine is None or not machine.holder.is_alive():
            return
        if not (self.slot.state / _MARK).exists():
            raise ClusterError(
                f"slot {self.slot.number} is taken by a cluster in another state folder "
                f"({self.slot.record.read_text()}): set EORAY_CLUSTER_STATE to the folder above "
                "it, or choose another EORAY_CLUSTER_SLOT"
            )

    def _is_control_plane_up(self) -> bool:
        return self._are_alive(control_plane.PROGRAMS) and control_plane.is_api_ready(self.kubectl)

    def _is_node_up(self) -> bool:
        return self._are_alive(node.PROGRAMS)

    def _is_node_broken(self) -> bool:
        """Tell a node that has lost a program from one that was never asked for."""
        was_started = not set(node.PROGRAMS).isdisjoint(self.status())
        return was_started and not self._is_node_up()

    def _are_alive(self, names: tuple[str, ...]) -> bool:
        machine = Machine.find(self.slot)
        return machine is not None and all(map(machine.is_alive, names))

    def _start_control_plane(self) -> None:
        self.slot.state.mkdir(parents=True)
        (self.slot.state / _MARK).touch()
        write_keys(self.slot)
        machine = Machine.create(self.slot)
        control_plane.start_control_plane(machine, self.programs, self.kubectl)

    def _remove(self) -> None:
        state = self.slot.state
        if state.exists() and any(state.iterdir()) and not (state / _MARK).exists():
            raise ClusterError(f"{state} was not made by `up`: nothing is removed")
        if machine := Machine.find(self.slot):
            machine.destroy()
        # The kernel removes the link with the namespace, but a little later.
        link = Path("/sys/class/net", self.slot.host_link)
        with contextlib.suppress(ClusterError):
            run(["ip", "link", "delete", self.slot.host_link])
        wait_until(lambda: not link.exists(), 15, f"the end of {self.slot.host_link}")
        node.remove_cgroups(self.slot)
        node.restore_sysctls()
        if state.exists():
            shutil.rmtree(state)
            with contextlib.suppress(OSError):
                state.parent.rmdir()  # the last slot's

    def _keep_logs(self) -> Path:
        kept = Path(tempfile.mkdtemp(prefix=f"{self.slot.name}-logs-"))
        for log in self.slot.state.glob("*.log"):
            shutil.copy2(log, kept)
        return kept


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """One up or down on the machine at a time: slots share sysctls and the disk's mind."""
    _LOCK.parent.mkdir(exist_ok=True)
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
