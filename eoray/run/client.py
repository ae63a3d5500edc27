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
from typing import Any

from eoray.errors import ClusterError, ConfigError
from eoray.execute import check_reachable

_NAMESPACE = "eoray"
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Status:
    """What the driver has to say since the last question."""

    events: list[tuple[str, int, int]]
    """Progress as (stage, done, total)."""
    report: dict[str, Any] | None = None
    """The run's report, once it has ended well."""
    error: BaseException | None = None
    """What ended the run otherwise."""


class DriverActor:
    """Runs a resolved run file on the head and keeps what happened for whoever asks."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self._events: list[tuple[str, int, int]] = []
        self._thread: threading.Thread | None = None
        self._report: dict[str, Any] | None = None
        self._error: BaseException | None = None

    def check_paths(self, paths: dict[str, str]) -> list[str]:
        """Names of local paths that this machine does not see."""
        return [name for name, path in paths.items() if not Path(path).exists()]

    def start(self, run_file: str, folder: str, stages: list[str] | None) -> None:
        """Begin to execute the stages; a second call attaches to what is running."""
        if self._thread is None:
            arguments = (run_file, folder, stages)
            self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
            self._thread.start()

    def _run(self, run_file: str, folder: str, stages: list[str] | None) -> None:
        from eoray.run.session import run_from_text

        try:
            run = run_from_text(run_file, Path(folder))
            report = run.execute(stages, address="auto", progress=self._note)
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
        progress: Called with (stage, done, total).

    Returns:
        The report of the run as plain values.

    Raises:
        ClusterError: The cluster cannot be reached, or its Ray differs.
        ConfigError: A local path is not shared with the cluster.
    """
    check_reachable(address)
    import ray

    try:
        # what happens on the way in is one failure to the user: nothing answers there
        ray.init(address, namespace=_NAMESPACE, log_to_driver=False)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"no Ray answers at {address!r} ({' '.join(str(error).split())[:200]}); check the "
            "address, the Ray version and that RAY_AUTH_MODE is set alike on both sides"
        ) from error
    try:
        actor = _driver(key)
        absent = ray.get(actor.check_paths.remote(local_paths))
        if absent:
            ray.kill(actor)
            raise ConfigError(
                f"the cluster at {address!r} does not see {absent[0]} "
                f"{local_paths[absent[0]]!r}; put it where both sides reach it, such as "
                "s3://bucket/..., or a shared folder"
            )
        ray.get(actor.start.remote(run_file, folder, stages))
        return _follow(actor, progress)
    finally:
        ray.shutdown()


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


def _follow(actor: Any, progress: Callable[[str, int, int], None] | None) -> dict[str, Any]:
    import ray

    seen = 0
    while True:
        status: Status = ray.get(actor.status.remote(seen))
        for event in status.events:
            seen += 1
            if progress is not None:
                progress(*event)
        if status.report is None and status.error is None:
            time.sleep(_POLL_S)
            continue
        ray.kill(actor)
        if status.error is not None:
            raise status.error
        return status.report or {}
