"""Run on a cluster from a client: a driver actor of zero CPUs on the head, followed from here.

Ray Data does not run inside a Ray Client process, and the committer stands beside the storage,
so the whole driver runs on the head. Losing the connection, or Ctrl-C, ends only the following.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eoray.errors import ClusterError, ConfigError, ConflictError
from eoray.execute import check_reachable
from eoray.log import get_logger

if TYPE_CHECKING:
    from eoray.run.stages import Manner

_NAMESPACE = "eoray"
_POLL_S = 0.5

_TRIES = 3
_NO_SERVER = "Starting Ray client server failed"
"""The head makes a process for each client; one whose port is taken dies, the next has another."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the driver has to say since the last question."""

    events: list[tuple[str, int, int]]
    """Progress as (stage, done, total)."""
    report: dict[str, Any] | None = None
    """The run's report, once it has ended well."""
    error: BaseException | None = None
    """What ended the run otherwise."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What became of the wish to run."""

    stages: list[str] | None
    """Stages that run: those of an earlier call, where they go on."""
    absent: list[str]
    """Names of local paths that the head does not see; then nothing was begun."""


class DriverActor:
    """Runs a resolved run file on the head and keeps what happened for whoever asks."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self._begin(None)

    def _begin(self, stages: list[str] | None) -> None:
        self._events: list[tuple[str, int, int]] = []
        self._thread: threading.Thread | None = None
        self._stages = stages
        self._report: dict[str, Any] | None = None
        self._error: BaseException | None = None

    def start(
        self,
        run_file: str,
        folder: str,
        stages: list[str] | None,
        paths: dict[str, str],
        manner: Manner | None = None,
    ) -> Begun:
        """Begin to execute the stages; a second call attaches to what runs, or to its end."""
        if self._thread is not None and stages != self._stages and not self._thread.is_alive():
            self._begin(stages)  # an end that nobody heard, and nobody asks for now
        if self._thread is None:
            absent = [name for name, path in paths.items() if not Path(path).exists()]
            if absent:
                return Begun(stages, absent)
            self._stages = stages
            arguments = (run_file, folder, stages, manner)
            self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
            self._thread.start()
        return Begun(self._stages, [])

    def _run(
        self, run_file: str, folder: str, stages: list[str] | None, manner: Manner | None
    ) -> None:
        from eoray.run.session import run_from_text

        try:
            run = run_from_text(run_file, Path(folder))
            if manner is None or manner.heal is None:
                errors = None if manner is None else manner.errors
                report = run.execute(stages, address="auto", errors=errors, progress=self._note)
            else:
                report = run.heal(stages, holes=manner.heal, address="auto", progress=self._note)
            self._report = report.to_dict()
        except BaseException as error:  # noqa: BLE001 - handed to the client, which raises it
            self._error = error

    def _note(self, stage: str, done: int, total: int) -> None:
        self._events.append((stage, done, total))

    def status(self, since: int) -> Status:
        """Events from a position on, and the end if it has come."""
        return Status(self._events[since:], self._report, self._error)


def execute_remote(
    address: str,
    *,
    key: str,
    run_file: str,
    folder: str,
    local_paths: dict[str, str],
    stages: list[str] | None,
    manner: Manner | None = None,
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, Any]:
    """Run on the cluster behind ``ray://`` and follow it.

    Args:
        address: ``ray://host:port``.
        key: Key of the run; a second call with it attaches to the same driver.
        run_file: Resolved run file as YAML.
        folder: Folder that relative paths start from.
        local_paths: Name -> path of everything local that the run file names.
        stages: Stages to run; None for all.
        manner: What differs from the run file.
        progress: Called with (stage, done, total).

    Returns:
        The report of the run as plain values.

    Raises:
        ClusterError: The cluster cannot be reached, its Ray differs, or the connection was lost,
            which ends nothing there.
        ConfigError: A local path is not shared with the cluster.
        ConflictError: Other stages of this run go on there.
    """
    check_reachable(address)
    import ray
    from ray.exceptions import RayError

    _connect(address)
    try:
        actor = _driver(key)
        begun: Begun = ray.get(actor.start.remote(run_file, folder, stages, local_paths, manner))
        if begun.absent:
            ray.kill(actor)
            name = begun.absent[0]
            raise ConfigError(
                f"the cluster at {address!r} does not see {name} {local_paths[name]!r}; put it "
                "where both sides reach it, such as s3://bucket/..., or a shared folder"
            )
        if begun.stages != stages:
            raise ConflictError(
                f"run {key!r} goes on at {address!r} with {_name(begun.stages)}, not "
                f"{_name(stages)}; ask for the same to follow it, or wait for its end"
            )
        status = _follow(actor, progress)
    except KeyboardInterrupt:
        get_logger().warning("detached: the run goes on; the same again follows it", run=key)
        raise
    except RayError as error:
        raise ClusterError(
            f"the driver of run {key!r} at {address!r} was lost ({_short(error)}); see that its "
            "image has this eoray, and run again: the last commit stands"
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise ClusterError(
            f"the connection to {address!r} was lost ({_short(error)}); run {key!r} goes on "
            "there: the same again follows it"
        ) from error
    finally:
        ray.shutdown()
    if status.error is not None:
        raise status.error  # the run's own, whatever it looks like
    return status.report or {}


def _connect(address: str) -> None:
    import ray

    for attempt in range(1, _TRIES + 1):
        try:
            # what happens on the way in is one failure to the user: nothing answers there
            ray.init(address, namespace=_NAMESPACE, log_to_driver=False)
            return
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            if attempt < _TRIES and _NO_SERVER in str(error):
                get_logger().warning("ray client server failed", attempt=attempt, address=address)
                continue
            raise ClusterError(
                f"no Ray answers at {address!r} ({_short(error)}); check the address, the Ray "
                "version and that RAY_AUTH_MODE is set alike on both sides"
            ) from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _name(stages: list[str] | None) -> str:
    return "all stages" if stages is None else f"stages {', '.join(stages)}"


def _driver(key: str) -> Any:
    import ray

    # the internal head resource pins the driver beside the storage, whatever the pool is
    options = {
        "num_cpus": 0,
        "name": f"eoray-{key}",
        "lifetime": "detached",
        "get_if_exists": True,
        "resources": {"node:__internal_head__": 0.001},
    }
    return ray.remote(num_cpus=0)(DriverActor).options(**options).remote()


def _follow(actor: Any, progress: Callable[[str, int, int], None] | None) -> Status:
    """Wait for the end; the driver's actor goes with it."""
    import ray

    seen = 0
    while True:
        status: Status = ray.get(actor.status.remote(seen))
        for event in status.events:
            seen += 1
            if progress is not None:
                progress(*event)
        if status.report is not None or status.error is not None:
            ray.kill(actor)
            return status
        time.sleep(_POLL_S)
