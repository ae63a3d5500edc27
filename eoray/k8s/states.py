"""What the two statuses of a RayJob mean together: one word, whether it has ended, an exit code.

KubeRay keeps two machines, one of the job and one of its cluster, which often disagree: a deadline
leaves the job RUNNING in a Failed RayJob, a job that somebody stopped is Complete. The rules below
cover every pair; what is not known has not ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eoray.k8s.names import CANCELLED

Word = Literal[
    "pending", "queued", "running", "succeeded", "failed", "invalid", "stopped", "cancelling",
    "cancelled", "deleting", "deleted", "unknown",
]  # fmt: skip

DEPLOYMENT = (
    "", "Initializing", "Running", "Complete", "Failed", "ValidationFailed", "Suspending",
    "Suspended", "Retrying", "Waiting",
)  # fmt: skip
"""``jobDeploymentStatus`` of KubeRay 1.7."""

JOB = ("", "PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED")
"""``jobStatus`` of KubeRay 1.7, which passes on Ray's."""

EXIT_CODES: dict[str, int] = {
    "succeeded": 0, "failed": 1, "invalid": 2, "stopped": 5, "cancelled": 5, "deleted": 5,
}  # fmt: skip
"""Word of a run that has ended -> its exit code; a driver's record has the same words."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of an attempt."""

    word: Word
    reason: str = ""
    """KubeRay's, where it gives one."""
    message: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.word in EXIT_CODES

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed, 2 refused, 5 ended by somebody; of an unfinished one 1."""
        return EXIT_CODES.get(self.word, 1)


def state_of(rayjob: Mapping[str, Any]) -> State:
    """Tell the state of a RayJob object."""
    metadata, status = rayjob.get("metadata", {}), rayjob.get("status") or {}
    word = resolve_word(
        str(status.get("jobDeploymentStatus", "")),
        str(status.get("jobStatus", "")),
        is_cancelled=CANCELLED in (metadata.get("annotations") or {}),
        is_deleted="deletionTimestamp" in metadata,
    )
    return State(word, str(status.get("reason", "")), str(status.get("message", "")))


def state_of_gone(last: Mapping[str, Any]) -> State:
    """Tell the state of an attempt whose RayJob is gone before it had ended.

    Args:
        last: The RayJob as it was last seen; empty where it never was.
    """
    annotations = last.get("metadata", {}).get("annotations") or {}
    word: Word = "cancelled" if CANCELLED in annotations else "deleted"
    return State(word, message="its RayJob is gone; what it committed and its record stay")


def resolve_word(deployment: str, job: str, *, is_cancelled: bool, is_deleted: bool) -> Word:
    """Give the word for a pair of statuses.

    Args:
        deployment: ``jobDeploymentStatus``.
        job: ``jobStatus``.
        is_cancelled: The annotation of ``eoray cancel`` is there: then Suspended means cancelled,
            else a queue holds the run back.
        is_deleted: It has a deletion timestamp.
    """
    if is_deleted:
        return "deleting"
    pair = _ENDED.get(job) if deployment == "Complete" else _WORDS.get(deployment)
    return "unknown" if pair is None else pair[is_cancelled]


_WAITING: tuple[Word, Word] = ("pending", "cancelling")

_WORDS: dict[str, tuple[Word, Word]] = {
    "": _WAITING,
    "Initializing": _WAITING,
    "Waiting": _WAITING,
    "Retrying": _WAITING,
    "Running": ("running", "cancelling"),
    "Suspending": ("queued", "cancelling"),
    "Suspended": ("queued", "cancelled"),
    "ValidationFailed": ("invalid", "invalid"),
    # a deadline, a head that did not answer, a job that failed: the job's own word may be old
    "Failed": ("failed", "cancelled"),
}
"""``jobDeploymentStatus`` -> word, and word of a run with the annotation of ``cancel``."""

_ENDED: dict[str, tuple[Word, Word]] = {
    "SUCCEEDED": ("succeeded", "succeeded"),
    "FAILED": ("failed", "cancelled"),
    "STOPPED": ("stopped", "cancelled"),
}
"""``jobStatus`` of a RayJob that is Complete -> the same two."""
