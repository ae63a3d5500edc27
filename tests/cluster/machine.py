"""A machine within the machine: network, mounts and processes of their own.

One process (``holder``) is the first of a PID namespace. Killing it makes the kernel end every
program and pod, drop every mount and remove both ends of the link. So nothing has to be found
again, not even after a crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.cluster.errors import ClusterError
from tests.cluster.slot import Slot

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOG_TAIL_LINES = 8


@dataclass(frozen=True, slots=True)
class Running:
    """A process, told from a later one with the same number by when it began."""

    pid: int
    born: int
    """Clock ticks after boot."""

    @classmethod
    def of(cls, pid: int) -> Running:
        return cls(pid, _born(pid))

    def is_alive(self) -> bool:
        # Our own ended children stay zombies until somebody asks for their exit status.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return self.born > 0 and _born(self.pid) == self.born

    def children(self, *, recursive: bool = False) -> list[int]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children(recursive)]
        return []


@dataclass(frozen=True, slots=True)
class Machine:
    """The namespaces of one slot, and the programs in them."""

    slot: Slot
    holder: Running

    @classmethod
    def create(cls, slot: Slot) -> Machine:
        """Make the namespaces, join them to the host, and note both where ``down`` looks."""
        # SIGCHLD ignored: the kernel then buries orphans, which is what a first process is for.
        first = ["env", "--ignore-signal=CHLD", "sleep", "infinity"]
        spaces = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        outside = Running.of(
            _spawn(["unshare", *spaces, "--mount-proc", *first], slot.state / "holder.log")
        )
        cls(slot, outside)._note()
        (slot.state / "holder.pid").write_text(json.dumps(asdict(outside)))
        # It exists before its mounts are made, and is `sleep` only after that.
        wait_until(lambda: _first_child(outside, "sleep") > 0, 10, "the namespaces")
        machine = cls(slot, Running.of(_first_child(outside, "sleep")))
        machine._note()
        machine._join_network()
        machine._hide_host_folders()
        return machine

    @classmethod
    def find(cls, slot: Slot) -> Machine | None:
        """Read the record of a machine that was made before; it may be dead."""
        if not slot.record.exists():
            return None
        record = json.loads(slot.record.read_text())
        return cls(slot, Running(record["pid"], record["born"]))

    def run(self, *command: str | Path) -> str:
        """Run a command inside and return its stdout."""
        return run([*self._enter(), *map(str, command)])

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a program inside, its log and number in the state folder."""
        words = [*self._enter(), *map(str, command)]
        running = Running.of(_spawn(words, self._file(name, "log"), home=self.slot.state))
        self._file(name, "pid").write_text(json.dumps(asdict(running)))

    def stop(self, name: str, signal_number: int = signal.SIGKILL, timeout_s: float = 10) -> None:
        """End one program; tests use it to see what its absence does."""
        running = self._started(name)
        # nsenter waits outside for the program that it forked inside, and ends with it.
        for pid in running.children() if running else []:
            os.kill(pid, signal_number)
        wait_until(lambda: not self.is_alive(name), timeout_s, f"the end of {name}")
        self._file(name, "pid").unlink(missing_ok=True)

    def is_alive(self, name: str) -> bool:
        running = self._started(name)
        return running is not None and running.is_alive()

    def started(self) -> list[str]:
        """Names of all programs that were started and not stopped."""
        return sorted(path.stem for path in self.slot.state.glob("*.pid"))

    def wait(self, ready: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait, but no longer than every program lives."""

        def ready_and_alive() -> bool:
            for name in self.started():
                if not self.is_alive(name):
                    raise ClusterError(f"{name} ended before {what}: {self.log_tail(name)}")
            return ready()

        wait_until(ready_and_alive, timeout_s, what)

    def log_tail(self, name: str) -> str:
        lines = self._file(name, "log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def processes(self) -> list[int]:
        """Every process of the machine, pods included, as the host numbers them."""
        # Each program's parent is an nsenter outside; what a pod runs is containerd's or an
        # orphan, and orphans become children of the holder.
        started = [found for name in self.started() if (found := self._started(name))]
        return sorted(
            {child for each in [self.holder, *started] for child in each.children(recursive=True)}
        )

    def destroy(self) -> None:
        """End everything; safe on a machine that is half there or long dead."""
        if self.holder.is_alive():
            os.kill(self.holder.pid, signal.SIGKILL)
        # The first process of a PID namespace ends after all others in it: the kernel sees to it.
        ending = [self.holder, *filter(None, map(self._started, self.started()))]
        wait_until(lambda: not _any_alive(ending), 30, "the end of all programs")
        self.slot.record.unlink(missing_ok=True)

    def _enter(self) -> list[str]:
        # Not `ip netns exec`: it remounts /sys, which hides the cgroups from kubelet.
        spaces = f"/proc/{self.holder.pid}/ns"
        return [
            "nsenter",
            f"--net={spaces}/net",
            f"--mount={spaces}/mnt",
            f"--pid={spaces}/pid",
            "--",
        ]

    def _join_network(self) -> None:
        slot = self.slot
        peer = ["peer", "name", slot.node_link, "netns", str(self.holder.pid)]
        run(["ip", "link", "add", slot.host_link, "type", "veth", *peer])
        run(["ip", "address", "add", f"{slot.host_ip}/24", "dev", slot.host_link])
        run(["ip", "link", "set", slot.host_link, "up"])
        self.run("ip", "address", "add", f"{slot.node_ip}/24", "dev", slot.node_link)
        self.run("ip", "link", "set", slot.node_link, "up")
        self.run("ip", "link", "set", "lo", "up")
        # kubelet and kube-proxy look for a default route; the host forwards nothing of it.
        self.run("ip", "route", "add", "default", "via", slot.host_ip)

    def _note(self) -> None:
        record = {"state": str(self.slot.state), **asdict(self.holder)}
        self.slot.record.write_text(json.dumps(record))

    def _hide_host_folders(self) -> None:
        # containerd, CNI and kubelet write to fixed folders below /run and /var as well
        # (/run/containerd, /var/lib/cni, /var/lib/kubelet, /var/log/containers).
        script = (
            "mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/lock && "
            "mount -t tmpfs -o mode=755 tmpfs /var && mkdir -m 1777 /var/tmp && "
            "ln -s /run /var/run"
        )
        self.run("sh", "-c", script)

    def _started(self, name: str) -> Running | None:
        with contextlib.suppress(FileNotFoundError):
            return Running(**json.loads(self._file(name, "pid").read_text()))
        return None

    def _file(self, name: str, suffix: str) -> Path:
        return self.slot.state / f"{name}.{suffix}"


def run(command: Sequence[str | Path], *, stdin: str | None = None, timeout_s: float = 120) -> str:
    """Run a command to its end and return its stdout; its stderr becomes the error."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(words)}` gave {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_until(
    is_done: Callable[[], bool], timeout_s: float, what: str, *, each_s: float = 0.2
) -> None:
    """Ask again and again."""
    end = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > end:
            raise ClusterError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(each_s)


def _any_alive(processes: Sequence[Running]) -> bool:
    # All of them are asked each time: asking buries those that were our children.
    return sum(process.is_alive() for process in processes) > 0


def _first_child(parent: Running, name: str) -> int:
    """The child's number once it runs the named program; 0 before."""
    for pid in parent.children():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return pid
    return 0


def _spawn(command: Sequence[str], log: Path, home: Path = Path("/")) -> int:
    """Start a process that outlives this one and inherits neither terminal nor variables."""
    program = shutil.which(command[0], path=PATH)
    if program is None:
        raise ClusterError(f"{command[0]} is not on {PATH}: install it")
    output = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # posix_spawn rather than Popen: nobody must keep an object alive for as long as the process.
    return os.posix_spawn(
        program,
        list(command),
        {"PATH": PATH, "HOME": str(home)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            output,
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _born(pid: int) -> int:
    """Clock ticks from boot to the birth of a process; 0 for none and for a zombie."""
    try:
        # The second field is the program's name, which may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
