"""What attempts left beside the outputs: read where the cluster has forgotten them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eoray import storage
from eoray.errors import StoreError
from eoray.k8s.states import EXIT_CODES
from eoray.run.attempt import RECORD
from eoray.run.driver_log import LOG, OLDER_LOG
from eoray.run.last_seen import VIEW

_NO_END = "its driver left no word of its end: it works still, or was killed"
_NO_START = "its driver has not started"


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt as its record tells it."""

    folder: str
    record: dict[str, Any]
    """What its driver left; empty where none started."""
    seen: dict[str, Any]
    """What the cluster said last, where somebody saw it."""

    @property
    def warnings(self) -> list[str]:
        """Events of the cluster that tell what went wrong, oldest first."""
        return list(self.seen.get("warnings", ()))

    @property
    def begun(self) -> str:
        """Moment of its first start, or of its creation where its driver never started."""
        starts = self.record.get("starts")
        return _moment(starts[0]["time"]) if starts else str(self.seen["created"])

    def summary(self) -> dict[str, Any]:
        """As plain values, with the names that an attempt of a cluster has."""
        run, _, name = self.folder.rsplit("/", 2)
        key, _, number = name.partition(".")[0].rpartition("-")
        starts, ended = self.record.get("starts", []), self.record.get("ended_at")
        state, code, reason = self._end()
        return {
            "name": name,
            "run": run.rsplit("/", 1)[-1].rpartition("-")[0],
            "key": key,
            "attempt": int(number) if number.isdigit() else 0,
            "state": state,
            "reason": reason,
            "created": self.begun,
            "finished": code is not None,
            "exit_code": code,
            "message": "",
            "line": f"{state} (record): {reason}" if reason else f"{state} (record)",
            "ray_cluster": starts[-1].get("ray_cluster", "") if starts else "",
            "started": _moment(starts[-1]["time"]) if starts else "",
            "ended": _moment(ended) if ended else self.seen.get("ended", ""),
            "record": self.folder,
        }

    def _end(self) -> tuple[str, int | None, str]:
        """State, exit code and why: the cluster's verdict where it is known, else the driver's."""
        status = str(self.record.get("status", ""))
        said = str(self.record.get("reason", ""))
        starts = self.record.get("starts", [])
        # of an attempt that was deleted and submitted again the cluster's word is an old one
        is_old = bool(starts) and starts[-1]["time"] > self.seen.get("seen_at", 0.0)
        if self.seen.get("finished") and not is_old:
            verdict = ": ".join(filter(None, (self.seen["reason"], self.seen["message"])))
            state, code = str(self.seen["state"]), int(self.seen["exit_code"])
            return state, code, "; ".join(filter(None, (verdict, said)))
        if status in EXIT_CODES:
            return status, EXIT_CODES[status], said
        return "unknown", None, _NO_END if status else _NO_START

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
    return sorted(found, key=lambda past: past.begun)


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
        place = storage.join(folder, name)
        found = storage.list_names(place)
        record, seen = (
            storage.read_json(storage.join(place, file)) if file in found else {}
            for file in (RECORD, VIEW)
        )
        if record or seen:
            yield PastAttempt(place, record, seen)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
