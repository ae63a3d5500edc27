"""Requests to servers of scenes: as many at once as each bears, tried again with patience.

Every GET of eoray's own reader goes through :func:`ask_for`. A server has a gate in each process,
which lets in more requests with every answer and half as many after 429, 503 or a timeout.
Attempts after a failure wait for a random part of a growing time, so that workers which failed
together do not come back together, and never shorter than a server asked for by Retry-After.
"""

from __future__ import annotations

import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from eoray.masking import mask
from eoray.reading.usage import READS, ReadUsage

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator

Range = tuple[int, int]
"""(offset, length) in bytes."""

_PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be others a moment later."""

_BUSY = frozenset({429, 503})

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.4, 20.0
"""Longest pause before the second attempt, and before any."""

_DOWN_AFTER, _DOWN_S = 3, 60.0
"""Reads that a server let fail in a row until it counts as down, and for how long."""

_STATUS = re.compile(r"(?:status|response) code: (\d{3})")
"""As obstore and GDAL write it."""
_SLOW_DOWN = re.compile(r"(?i)slowdown|reduce your request rate")
"""503 of S3 as GDAL tells it: the code or the words of its answer."""
_TIMEOUT = re.compile(r"(?i)timed? ?out")


class UnreachableError(OSError):
    """A file that its server does not give."""

    def __init__(self, message: str, *, status: int | None = None, attempts: int = 1) -> None:
        """Keep what the server said.

        Args:
            message: Without secrets.
            status: Of the last answer; None where there was none.
            attempts: Requests that were made for it.
        """
        super().__init__(message)
        self.status = status
        self.attempts = attempts


class AnswerError(OSError):
    """An answer other than the bytes that were asked for."""

    def __init__(self, status: int, reason: str, retry_after_s: float = 0.0) -> None:
        """Keep what the server said.

        Args:
            status: Of HTTP.
            reason: Its words.
            retry_after_s: Seconds after which it wants to be asked again.
        """
        super().__init__(f"{status} {reason}".strip())
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Pace:
    """Clock and chance; tests bring their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    """A number of [0, 1)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one file may be asked for."""

    retries: int = 2
    """Further attempts after one that failed; what came until then is kept."""
    seconds: float = 120.0
    """No attempt begins later than this after the first."""
    pace: Pace = field(default_factory=Pace)
    begun: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds until no further attempt may begin."""
        return self.begun + self.seconds - self.pace.now()


class Gate:
    """How many requests one server gets from this process at once."""

    def __init__(self, first: int, most: int) -> None:
        """Start with a guess.

        Args:
            first: Requests in flight to begin with.
            most: Never more than this.
        """
        self._limit, self._most = float(first), float(most)
        self._busy = 0
        self._halved = self._closed_until = self._down_until = -float("inf")
        self._failed_reads = 0
        self._wary = False
        self._free = threading.Condition()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    @property
    def is_wary(self) -> bool:
        """Whether the last answer was that the server is busy."""
        return self._wary

    def enter(self, wanted: int, patience: Patience) -> int:
        """Wait for a turn.

        Args:
            wanted: Requests that the caller would like to send together.
            patience: Of the file.

        Returns:
            How many it may send, at least one; :meth:`leave` gives them back.

        Raises:
            TimeoutError: There was no turn in time.
        """
        begun = patience.pace.now()
        try:
            while True:
                with self._free:
                    closed_s = self._closed_until - patience.pace.now()
                    room = self.limit - self._busy
                    if closed_s <= 0 and room > 0:
                        granted = min(wanted, room)
                        self._busy += granted
                        return granted
                    if patience.left_s <= max(0.0, closed_s):
                        raise TimeoutError("no turn at the server in time")
                    if closed_s <= 0:
                        self._free.wait(patience.left_s)
                        continue
                patience.pace.sleep(closed_s)
        finally:
            READS.add(ReadUsage(waited_s=patience.pace.now() - begun))

    def leave(self, granted: int) -> None:
        """Give turns back."""
        with self._free:
            self._busy -= granted
            self._free.notify_all()

    def answered(self, count: int) -> None:
        """Take note of answers: one more in flight for each round of them."""
        with self._free:
            self._limit = min(self._most, self._limit + count / self._limit)
            self._wary, self._failed_reads = False, 0

    def refused(self, asked_at: float, now: float, pause_s: float) -> None:
        """Take note that the server is busy; requests of one moment halve the limit once."""
        with self._free:
            if asked_at >= self._halved:
                self._limit = max(1.0, self._limit / 2)
                self._halved = now
            self._closed_until = max(self._closed_until, now + pause_s)
            self._wary = True

    def gave_up(self, now: float) -> None:
        """Take note of a read that failed for good."""
        with self._free:
            self._failed_reads += 1
            if self._failed_reads >= _DOWN_AFTER:
                self._down_until = now + _DOWN_S

    def is_down(self, now: float) -> bool:
        """Whether reads should be tried elsewhere first."""
        return now < self._down_until and self._failed_reads >= _DOWN_AFTER


_gates: dict[str, Gate] = {}
_gates_lock = threading.Lock()


def gate_of(server: str) -> Gate:
    """The gate of a server in this process.

    Args:
        server: Scheme and host or bucket of its files.
    """
    from eoray.catalog.providers import requests_at_once

    with _gates_lock:
        if server not in _gates:
            first = requests_at_once(server)
            _gates[server] = Gate(first, 4 * first)
        return _gates[server]


def is_down(href: str) -> bool:
    """Whether the server of a link let reads fail lately, one after the other."""
    parts = urlsplit(href)
    gate = _gates.get(f"{parts.scheme}://{parts.netloc}")
    return gate is not None and gate.is_down(time.monotonic())


def forget_gates() -> None:
    """Begin anew with all servers: for tests."""
    with _gates_lock:
        _gates.clear()


def ask_for(
    ranges: Sequence[Range],
    ask: Callable[[Sequence[Range], bool], Sequence[Buffer]],
    server: str,
    patience: Patience,
) -> list[Buffer]:
    """Send requests until all bytes are there.

    Args:
        ranges: Of one file.
        ask: Sends requests for some ranges side by side, or, if told so, asks for one of them by
            a client that shows what the server says.
        server: Whose gate they go through.
        patience: How long to go on.

    Returns:
        Bytes of each range, in order.

    Raises:
        UnreachableError: Attempts or time ran out, or another attempt would not help.
    """
    gate, pace = gate_of(server), patience.pace
    found: list[Buffer] = []
    attempts, failures, cap = 0, 0, len(ranges)
    while len(found) < len(ranges):
        wanted = list(ranges[len(found) : len(found) + cap])
        with _turn(gate, len(wanted), patience, attempts) as granted:
            asked_at, careful = pace.now(), gate.is_wary
            batch = wanted[: 1 if careful else granted]
            attempts += 1
            try:
                answers = ask(batch, careful)
            except UnreachableError:
                gate.gave_up(pace.now())
                raise  # of whoever gives rights, who was asked with patience already
            except OSError as error:
                _count(batch, (), failures)
                failures += 1
                pause_s = _pause(error, failures, patience)
                if is_busy(error):
                    READS.add(ReadUsage(throttled=1))
                    gate.refused(asked_at, pace.now(), retry_after_s(error))
                if not _may_pass(error) or failures > patience.retries or pause_s > patience.left_s:
                    if _may_pass(error):  # a file that is not there says nothing of the server
                        gate.gave_up(pace.now())
                    raise UnreachableError(
                        f"{_told(error)} after {_times(attempts, 'request')}",
                        status=status_of(error),
                        attempts=attempts,
                    ) from (error.__cause__ or error)
                answers = ()
        if answers:
            _count(batch, answers, failures)
            gate.answered(len(answers))
            found += answers
            failures, cap = 0, 2 * cap
            continue
        cap = max(1, len(batch) // 2)
        _rest(pause_s, pace)
    return found


@contextmanager
def one_turn(href: str, patience: Patience) -> Iterator[None]:
    """Let another library read a file in one turn at its server.

    Args:
        href: Path or URL; local files need no turn.
        patience: Of the file.

    Raises:
        UnreachableError: There was no turn in time.
    """
    parts = urlsplit(href)
    if parts.scheme in ("", "file"):
        yield
        return
    gate = gate_of(f"{parts.scheme}://{parts.netloc}")
    with _turn(gate, 1, patience, 0):
        yield
        gate.answered(1)


def refuse_turns(href: str, asked_at: float, pause_s: float, patience: Patience) -> None:
    """Leave a server alone for a while that told another library that it is busy.

    Args:
        href: The file.
        asked_at: When the library asked for it.
        pause_s: For how long.
        patience: Of the file.
    """
    parts = urlsplit(href)
    if parts.scheme not in ("", "file"):
        READS.add(ReadUsage(throttled=1))
        gate = gate_of(f"{parts.scheme}://{parts.netloc}")
        gate.refused(asked_at, patience.pace.now(), pause_s)


@contextmanager
def _turn(gate: Gate, wanted: int, patience: Patience, attempts: int) -> Iterator[int]:
    try:
        granted = gate.enter(wanted, patience)
    except TimeoutError as error:
        gate.gave_up(patience.pace.now())
        raise UnreachableError(
            f"{error}, within {patience.seconds:g} s", attempts=attempts
        ) from error
    try:
        yield granted
    finally:
        gate.leave(granted)


def _count(batch: Sequence[Range], answers: Sequence[Buffer], failures: int) -> None:
    size = sum(memoryview(data).nbytes for data in answers)
    READS.add(ReadUsage(requests=len(batch), bytes=size, retries=len(batch) if failures else 0))


def _rest(seconds: float, pace: Pace) -> None:
    READS.add(ReadUsage(waited_s=seconds))
    pace.sleep(seconds)


def _pause(error: BaseException, failures: int, patience: Patience) -> float:
    """A random part of a time that doubles, and what the server asked for before it."""
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (failures - 1))
    return retry_after_s(error) + patience.pace.chance() * longest


def _may_pass(error: BaseException) -> bool:
    status = status_of(error)
    return status is None or status in _PASSING


def status_of(error: BaseException) -> int | None:
    """Status of the answer that an error tells of; None where there was no answer."""
    if isinstance(error, (AnswerError, UnreachableError)):
        return error.status
    match = _STATUS.search(str(error))
    if match is None and _SLOW_DOWN.search(str(error)):
        return 503
    return int(match[1]) if match else None


def retry_after_s(error: BaseException) -> float:
    """Seconds after which the server wants to be asked again; 0 where it does not say."""
    return error.retry_after_s if isinstance(error, AnswerError) else 0.0


def is_busy(error: BaseException) -> bool:
    """Whether a server had too much to do."""
    status = status_of(error)
    return status in _BUSY or (status is None and _TIMEOUT.search(str(error)) is not None)


def _told(error: BaseException) -> str:
    status = status_of(error)
    text = mask(" ".join(str(error).partition("\n")[0].split()))
    if status is None or isinstance(error, AnswerError):
        # the end tells what went wrong, behind a link that may be long
        return text if len(text) <= 160 else f"{text[:80]} ... {text[-75:]}"
    return f"{status}{text.rpartition(f'status code: {status}')[2][:60]}".rstrip(": ")


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


def ask_plainly(
    url: str,
    span: Range | None,
    timeout_s: float,
    headers: dict[str, str] | None = None,
    form: dict[str, str] | None = None,
) -> bytes:
    """Send one GET by the standard library, which shows the headers of a refusal.

    Args:
        url: Of ``http`` or ``https``.
        span: (offset, length); None for all.
        timeout_s: Until the first byte, and between bytes.
        headers: To send.
        form: Fields to POST in place of a GET.

    Raises:
        AnswerError: An answer other than 200 or 206.
        OSError: There was none.
    """
    sent = {"Accept-Encoding": "identity", **(headers or {})}
    if span is not None:
        sent["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
    rights = {name: sent.pop(name) for name in list(sent) if name == "Authorization"}
    body = None if form is None else urlencode(form).encode()
    request = urllib.request.Request(url, body, sent)  # noqa: S310 - callers give http(s) only
    for name, value in rights.items():
        request.add_unredirected_header(name, value)  # another server has no right to it
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - as above
            data: bytes = answer.read()
            if span is not None and answer.status == 200:
                return data[span[0] : span[0] + span[1]]
            return data
    except urllib.error.HTTPError as error:
        with error:
            pause_s = _seconds_of(error.headers.get("Retry-After", ""))
            raise AnswerError(error.code, error.reason, pause_s) from error
    except urllib.error.URLError as error:
        raise OSError(f"no answer ({error.reason})") from error
    except Exception as error:
        # http.client has errors of its own for answers that break off
        if isinstance(error, OSError):
            raise
        raise OSError(f"the answer broke off ({type(error).__name__})") from error


def _seconds_of(header: Any) -> float:
    """Seconds that Retry-After asks for, as a number or as a date; 0 for neither."""
    text = str(header).strip()
    if text.isdecimal():
        return float(text)
    try:
        when: datetime = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    ahead: timedelta = when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)
    return max(0.0, ahead.total_seconds())
