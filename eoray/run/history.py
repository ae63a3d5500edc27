"""What attempts left beside the outputs: read where the cluster has forgotten them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eoray import storage
from eoray.errors import StoreError
from eoray.run.driver_log import LOG, OLDER_LOG

_EXIT = {"succeeded": 0, "failed": 1, "stopped": 5}

_NO_END = "its driver left no word of its end: it works still, or was killed"


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt as its record tells it."""

    folder: str
    record: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """As plain values, with the names that an attempt of a cluster has."""
        record, status = self.record, self.record["status"]
        key, _, number = record["name"].rpartition("-")
        state = "unknown" if status == "running" else status
        reason = _NO_END if status == "running" else record.get("reason", "")
        return {
            "name": record["name"],
            "run": record["run"].rpartition("-")[0],
            "key": key,
            "attempt": int(number) if number.isdigit() else 0,
            "state": state,
            "reason": reason,
            "created": _moment(record["starts"][0]["time"]),
            "finished": status in _EXIT,
            "exit_code": _EXIT.get(status),
            "message": "",
            "line": f"{state} (record): {reason}" if reason else f"{state} (record)",
            "ray_cluster": record["starts"][-1].get("ray_cluster", ""),
            "started": _moment(record["starts"][-1]["time"]),
            "ended": _moment(record["ended_at"]) if "ended_at" in record else "",
            "record": self.folder,
        }

    def log(self) -> Iterator[str]:
        """Lines of the driver's log that were kept, oldest first."""
        for name in (OLDER_LOG, LOG):
            url = storage.join(self.folder, name)
            if storage.exists(url):
                yield from storage.read_bytes(url).decode(errors="replace").splitlines()


def list_attempts(store: str) -> list[PastAttempt]:
    """All attempts that a store knows, by their first start.

    Args:
        store: The ``store`` of their run file: folder or URL.
    """
    runs = storage.join(store, "_eoray", "runs")
    found = [
        past
        for run in storage.list_names(runs)
        for past in _of_run(storage.join(runs, run, "attempts"))
    ]
    return sorted(found, key=lambda past: float(past.record["starts"][0]["time"]))


def find_attempt(store: str, name: str) -> PastAttempt:
    """The attempt that a user means: by its name, or the latest by its run's key or name.

    Raises:
        StoreError: The store knows none.
    """
    found = list_attempts(store)
    for field in ("name", "key", "run"):
        chosen = [past for past in found if past.summary()[field] == name]
        if chosen:
            return chosen[-1]
    raise StoreError(
        f"store {store!r} has no record of a run or attempt {name!r}; `eoray list --store` shows "
        "what it has"
    )


def _of_run(folder: str) -> Iterator[PastAttempt]:
    for name in storage.list_names(folder):
        url = storage.join(folder, name, "record.json")
        if storage.exists(url):
            yield PastAttempt(storage.join(folder, name), storage.read_json(url))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
