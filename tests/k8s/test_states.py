"""Every pair of statuses has its word."""

from __future__ import annotations

from typing import Any

import pytest

from eoray.k8s.names import CANCELLED
from eoray.k8s.states import DEPLOYMENT, JOB, State, resolve_word, state_of

WAITING = dict.fromkeys(JOB, ("pending", "cancelling"))

TABLE: dict[str, dict[str, tuple[str, str]]] = {
    "": WAITING,
    "Initializing": WAITING,
    "Waiting": WAITING,
    "Retrying": WAITING,
    "Running": dict.fromkeys(JOB, ("running", "cancelling")),
    "Suspending": dict.fromkeys(JOB, ("queued", "cancelling")),
    "Suspended": dict.fromkeys(JOB, ("queued", "cancelled")),
    "Failed": dict.fromkeys(JOB, ("failed", "cancelled")),
    "ValidationFailed": dict.fromkeys(JOB, ("invalid", "invalid")),
    "Complete": {
        "": ("unknown", "unknown"),
        "PENDING": ("unknown", "unknown"),
        "RUNNING": ("unknown", "unknown"),
        "STOPPED": ("stopped", "cancelled"),
        "SUCCEEDED": ("succeeded", "succeeded"),
        "FAILED": ("failed", "cancelled"),
    },
}
"""jobDeploymentStatus -> jobStatus -> (word, word of a cancelled run)."""


@pytest.mark.parametrize("deployment", DEPLOYMENT)
@pytest.mark.parametrize("job", JOB)
def test_every_pair_of_statuses_has_its_word(deployment: str, job: str) -> None:
    words = tuple(
        resolve_word(deployment, job, is_cancelled=cancelled, is_deleted=False)
        for cancelled in (False, True)
    )
    assert words == TABLE[deployment][job]


@pytest.mark.parametrize(
    ("deployment", "job"), [("NewState", "RUNNING"), ("Complete", "Failure"), ("complete", "")]
)
def test_what_is_not_known_has_not_ended(deployment: str, job: str) -> None:
    word = resolve_word(deployment, job, is_cancelled=False, is_deleted=False)
    assert word == "unknown"
    assert not State(word).is_finished


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("succeeded", 0),
        ("failed", 1),
        ("invalid", 2),
        ("stopped", 5),
        ("cancelled", 5),
        ("deleted", 5),
    ],
)
def test_only_these_words_end_a_run_each_with_its_exit_code(word: Any, code: int) -> None:
    assert State(word).is_finished
    assert State(word).exit_code == code


@pytest.mark.parametrize("word", ["pending", "queued", "running", "cancelling", "deleting"])
def test_the_other_words_do_not_end_a_run(word: Any) -> None:
    assert not State(word).is_finished


def test_state_is_read_from_the_object_with_reason_and_message() -> None:
    status = {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"}
    job = {"metadata": {"name": "a"}, "status": {**status, "message": "too long"}}
    assert state_of(job) == State("failed", "DeadlineExceeded", "too long")


def test_suspended_is_cancelled_only_with_the_annotation() -> None:
    job: dict[str, Any] = {"metadata": {}, "status": {"jobDeploymentStatus": "Suspended"}}
    assert state_of(job).word == "queued"
    job["metadata"]["annotations"] = {CANCELLED: "2026-01-01 ann"}
    assert state_of(job).word == "cancelled"


def test_object_that_is_being_deleted_says_so() -> None:
    job = {"metadata": {"deletionTimestamp": "now"}, "status": {"jobDeploymentStatus": "Complete"}}
    assert state_of(job).word == "deleting"
