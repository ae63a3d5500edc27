"""Follow an attempt: its state is the RayJob's, its log is decoration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.patience import Patience
from eoray.k8s.pods import HEAD
from eoray.k8s.states import State, state_of, state_of_gone
from eoray.k8s.why import explain_waiting

_EXPLAIN_AFTER_S = 10.0
"""What waits longer than this is explained."""

_EXPLAIN_AGAIN_S = 30.0
"""Between two looks at what a run that goes on waits for."""

_VERDICT_S = 10.0
"""An operator that works takes a RayJob on, or refuses it, within this time."""


class WaitTimeoutError(ClusterError, TimeoutError):
    """The run has not ended within the time that the caller gave."""

    kind = "timeout"


def wait_for_end(
    cluster: Cluster,
    name: str,
    *,
    timeout_s: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
    on_poll: Callable[[dict[str, Any]], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> State:
    """Wait until an attempt has ended.

    Args:
        cluster: Where it is.
        name: Of the RayJob.
        timeout_s: Give up waiting after this time; the run goes on.
        tell: Called with each new state, and with why its pods wait.
        on_poll: Called with the RayJob each time it was looked at.
        clock: Seconds.
        wait: Called with seconds between questions.

    Returns:
        How it ended. One that somebody deleted has ended too, and is not to be tried again.

    Raises:
        WaitTimeoutError: It has not ended by then.
        ClusterError: The cluster stays away, or a right is missing.
    """
    begun, told, patience = clock(), "", Patience(tell, clock=clock)
    reasons = _Reasons(cluster, clock)
    word, line, last = "unknown", "", dict[str, Any]()
    while True:
        state = None
        with patience.bear():
            rayjob = cluster.rayjob(name)
            state = state_of_gone(last) if rayjob is None else state_of(rayjob)
            word, line, last = state.word, describe(state), rayjob or last
            if rayjob is not None:
                on_poll(rayjob)
                line = "; ".join([line, *reasons.of(word, rayjob)])
        if line != told:
            tell(line)
            told = line
        if state is not None and state.is_finished:
            return state
        if timeout_s is not None and clock() - begun >= timeout_s:
            raise WaitTimeoutError(
                f"attempt {name!r} is {word} after {timeout_s:g} s; it goes on: "
                f"`eoray wait {name}` waits again"
            )
        wait(patience.pause_s)


class _Reasons:
    """Why the pods of an attempt wait: asked for with each look at one that has not started."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster, self._clock = cluster, clock
        self._next = clock() + _EXPLAIN_AFTER_S
        self._word, self._found = "", list[str]()

    def of(self, word: str, rayjob: Mapping[str, Any]) -> list[str]:
        if word != self._word:
            self._word, self._found = word, []
        if self._clock() > self._next:
            self._found = explain_waiting(self._cluster, rayjob)
            if word == "running":
                self._next = self._clock() + _EXPLAIN_AGAIN_S
        return self._found


def wait_for_verdict(
    cluster: Cluster,
    name: str,
    *,
    tell: Callable[[str], None] = lambda _: None,
    wait: Callable[[float], None] = time.sleep,
) -> State:
    """Wait until the operator has taken an attempt on or refused it, ten seconds at most.

    Args:
        cluster: Where it is.
        name: Of the RayJob.
        tell: Called where the operator says nothing.
        wait: Called with seconds between questions.
    """
    waited = 0.0
    while True:
        rayjob = cluster.rayjob(name)
        if rayjob is None:
            return state_of_gone({})
        if (rayjob.get("status") or {}).get("jobDeploymentStatus"):
            return state_of(rayjob)
        if waited >= _VERDICT_S:
            tell(
                f"the KubeRay operator has said nothing of {name} for {waited:g} s; `eoray status "
                f"{name}` tells when it has, `eoray doctor` after a minute that it does not work"
            )
            return state_of(rayjob)
        wait(1.0)
        waited += 1.0


def describe(state: State) -> str:
    """A state in one line."""
    return ": ".join(part for part in (state.word, state.reason, state.message) if part)


class HeadLog:
    """Lines of an attempt's head, read piece by piece, each once.

    Nothing is concluded from the end of a log: a pod that vanished, or a server that restarts,
    only means that there are no lines now.
    """

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start before the first line."""
        self._cluster, self._clock = cluster, clock
        self._asked: float | None = None
        self._last = ""
        self._seen: set[str] = set()

    def read(self, rayjob: Mapping[str, Any]) -> Iterator[str]:
        """Lines that are new since the last call."""
        name = (rayjob.get("status") or {}).get("rayClusterName", "")
        if not name:
            return
        selector = f"ray.io/cluster={name},ray.io/node-type=head"
        for pod in self._cluster.pods(selector):
            text = self._ask(pod["metadata"]["name"], rayjob)
            yield from self._new(text)

    def _ask(self, pod: str, rayjob: Mapping[str, Any]) -> str:
        now = self._clock()
        # a little more than what has passed: clocks differ, and lines are told apart by their time
        since = _age_s(rayjob) if self._asked is None else int(now - self._asked) + 10
        try:
            text = self._cluster.pod_log(pod, HEAD, since)
        except ClusterError:
            return ""
        self._asked = now
        return text

    def _new(self, text: str) -> Iterator[str]:
        for line in text.splitlines():
            stamp, _, said = line.partition(" ")
            if stamp < self._last or line in self._seen:
                continue
            if stamp > self._last:
                self._last, self._seen = stamp, set()
            self._seen.add(line)
            yield said


def _age_s(rayjob: Mapping[str, Any]) -> int | None:
    """Seconds since the job was made; None for a head of its own, which began with it."""
    if "clusterSelector" not in rayjob.get("spec", {}):
        return None
    made = datetime.fromisoformat(rayjob["metadata"]["creationTimestamp"])
    return int((datetime.now(UTC) - made).total_seconds()) + 10
