"""Requests under load: attempts, pauses, turns at a server, and what is counted of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from eoray.reading.gdal import IO_THREADS, io_pool
from eoray.reading.ranges import open_ranges
from eoray.reading.requests import (
    AnswerError,
    Gate,
    Pace,
    Patience,
    UnreachableError,
    ask_for,
    ask_plainly,
    forget_gates,
    gate_of,
    is_down,
)
from eoray.reading.usage import READS, ReadUsage, UsageCounter
from tests.file_server import FileServer, Refusal, serve_files

DATA = bytes(range(256)) * 4096
SPANS = [(100_000 * n, 5_000) for n in range(8)]


@dataclass
class Clock:
    """A clock that stands still but for pauses, which it keeps."""

    at: float = 1000.0
    pauses: list[float] = field(default_factory=list)
    chance: float = 0.5

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += seconds

    def patience(self, retries: int = 3, seconds: float = 120.0) -> Patience:
        pace = Pace(now=lambda: self.at, sleep=self.sleep, chance=lambda: self.chance)
        return Patience(retries, seconds, pace, begun=self.at)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "a.bin").write_bytes(DATA)
    forget_gates()
    with serve_files(tmp_path) as made:
        yield made
    forget_gates()


def refuse_first(count: int, status: int, **headers: str) -> Callable[[int, str], Refusal | None]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    def refuse(number: int, path: str) -> Refusal | None:
        return (status, sent) if number <= count else None

    return refuse


def expected() -> list[bytes]:
    return [DATA[start : start + length] for start, length in SPANS]


def test_what_fails_is_asked_for_again_and_nothing_else(server: FileServer, clock: Clock) -> None:
    server.refuse = lambda number, path: (500, {}) if number in (3, 9) else None
    before = READS.snapshot()
    file = open_ranges(f"{server.url}/a.bin", clock.patience())
    assert [bytes(data) for data in file.get(SPANS)] == expected()
    assert server.statuses.count(500) == 2
    used = READS.snapshot()
    # of ranges in flight beside one that failed, some were taken back before they left
    assert len(server.asked) <= used.requests - before.requests <= 8 + 4 + 2 + 8
    assert used.bytes - before.bytes == 40_000
    assert used.retries > before.retries


def test_pauses_grow_and_are_a_random_part(clock: Clock) -> None:
    asked: list[int] = []

    def ask(ranges: Sequence[tuple[int, int]], careful: bool) -> list[bytes]:
        asked.append(len(ranges))
        raise OSError("HTTP error: error sending request")

    forget_gates()
    with pytest.raises(UnreachableError, match="error sending request after 4 requests") as failed:
        ask_for([(0, 1)] * 8, ask, "http://nobody.example", clock.patience(retries=3))
    assert clock.pauses == pytest.approx([0.2, 0.4, 0.8])
    assert asked == [8, 4, 2, 1]
    assert (failed.value.status, failed.value.attempts) == (None, 4)


@pytest.mark.parametrize("status", [400, 403, 404, 416])
def test_answers_that_stay_the_same_are_not_asked_for_again(
    server: FileServer, clock: Clock, status: int
) -> None:
    server.refuse = refuse_first(9, status)
    with pytest.raises(UnreachableError, match=rf"{status} .* after 1 request") as failed:
        open_ranges(f"{server.url}/a.bin", clock.patience()).head(10)
    assert failed.value.status == status
    assert len(server.asked) == 1


def test_retry_after_is_kept_to(server: FileServer, clock: Clock) -> None:
    server.refuse = refuse_first(2, 429, Retry_After="7")
    file = open_ranges(f"{server.url}/a.bin", clock.patience())
    assert bytes(file.head(10)) == DATA[:10]
    # the client of the first attempt shows no headers; the one after a refusal does
    assert clock.pauses == pytest.approx([0.2, 7.4])
    assert server.statuses == [429, 429, 206]


def test_a_pause_beyond_the_budget_ends_the_read_at_once(server: FileServer, clock: Clock) -> None:
    server.refuse = refuse_first(9, 503, Retry_After="3600")
    with pytest.raises(UnreachableError, match=r"503 .* after 2 requests"):
        open_ranges(f"{server.url}/a.bin", clock.patience(retries=9)).head(10)
    assert clock.pauses == pytest.approx([0.2])


def test_no_attempt_begins_after_the_budget(clock: Clock) -> None:
    def ask(ranges: Sequence[tuple[int, int]], careful: bool) -> list[bytes]:
        clock.at += 50
        raise OSError("operation timed out")

    forget_gates()
    with pytest.raises(UnreachableError, match="timed out after 3 requests"):
        ask_for([(0, 1)], ask, "http://slow.example", clock.patience(retries=99, seconds=120))


def test_an_undisturbed_read_costs_what_the_server_saw(server: FileServer) -> None:
    before = READS.snapshot()
    open_ranges(f"{server.url}/a.bin").get(SPANS)
    used = READS.snapshot()
    assert (used.requests - before.requests, used.bytes - before.bytes) == (8, 40_000)
    assert len(server.asked) == 8
    assert used.retries == before.retries


def test_other_threads_wait_out_what_one_was_told(clock: Clock) -> None:
    gate = Gate(4, 16)
    gate.refused(clock.at, clock.at, 30.0)
    gate.enter(1, clock.patience())
    assert clock.pauses == pytest.approx([30.0])
    gate.refused(clock.at, clock.at, 300.0)
    with pytest.raises(TimeoutError, match="no turn"):
        gate.enter(1, clock.patience())


def test_a_server_gets_one_more_for_each_round_and_half_after_a_refusal(clock: Clock) -> None:
    gate = Gate(8, 10)
    gate.answered(8)
    assert gate.limit == 9
    for _ in range(50):
        gate.answered(8)
    assert gate.limit == 10
    begun = clock.at
    gate.refused(begun, begun + 1, 0.0)
    gate.refused(begun, begun + 1, 0.0)  # sent at the same moment: no further news
    assert gate.limit == 5
    for later in range(2, 9):
        gate.refused(begun + later, begun + later, 0.0)
    assert gate.limit == 1


def test_turns_are_shared_and_given_back(clock: Clock) -> None:
    gate = Gate(3, 3)
    assert gate.enter(2, clock.patience()) == 2
    assert gate.enter(5, clock.patience()) == 1
    entered = threading.Event()

    def come_third() -> None:
        gate.enter(1, Patience(seconds=30))
        entered.set()

    thread = threading.Thread(target=come_third, daemon=True)
    thread.start()
    assert not entered.wait(0.05)
    gate.leave(1)
    thread.join(10)
    assert entered.is_set()


def test_a_process_has_no_more_in_flight_than_the_server_bears(
    server: FileServer, clock: Clock
) -> None:
    server.delay_s = 0.01
    with ThreadPoolExecutor(8) as pool:
        files = [open_ranges(f"{server.url}/a.bin") for _ in range(8)]
        assert all(list(pool.map(lambda file: len(list(file.get(SPANS))) == 8, files)))
    # sixteen to begin with, and more by rounds of answers
    assert server.most_in_flight <= gate_of(server.url).limit <= 16 + 64 // 16


def test_ranges_of_a_file_are_in_flight_together(server: FileServer) -> None:
    server.together = len(SPANS)  # nothing is answered before all have come
    assert len(list(open_ranges(f"{server.url}/a.bin").get(SPANS))) == 8
    assert server.most_in_flight == len(SPANS)


def test_files_of_a_scene_are_in_flight_together(server: FileServer) -> None:
    server.together = IO_THREADS
    files = [open_ranges(f"{server.url}/a.bin") for _ in range(IO_THREADS)]
    assert list(io_pool().map(lambda file: len(file.head(10)), files)) == [10] * IO_THREADS
    assert server.most_in_flight == IO_THREADS


def test_missing_files_do_not_make_a_server_one_that_is_down(server: FileServer) -> None:
    for _ in range(3):
        with pytest.raises(UnreachableError, match="404"):
            open_ranges(f"{server.url}/none.bin", Patience(retries=0)).head(10)
    assert not is_down(f"{server.url}/a.bin")
    server.refuse = lambda number, path: (500, {})
    for _ in range(3):
        with pytest.raises(UnreachableError, match="500"):
            open_ranges(f"{server.url}/a.bin", Patience(retries=0)).head(10)
    assert is_down(f"{server.url}/a.bin")


def test_a_server_that_let_three_reads_fail_counts_as_down_for_a_minute(clock: Clock) -> None:
    gate = Gate(4, 8)
    for _ in range(2):
        gate.gave_up(clock.at)
    assert not gate.is_down(clock.at)
    gate.gave_up(clock.at)
    assert gate.is_down(clock.at + 59)
    assert not gate.is_down(clock.at + 61)
    gate.answered(1)
    assert not gate.is_down(clock.at)


def test_neighbouring_ranges_are_one_request(server: FileServer) -> None:
    spans = [(0, 100), (300, 100), (500_000, 100), (200, 50), (565_000, 9)]
    found = open_ranges(f"{server.url}/a.bin").get(spans)
    assert [bytes(data) for data in found] == [DATA[a : a + n] for a, n in spans]
    assert sorted((one.first, one.n_bytes) for one in server.asked) == [
        (0, 400),
        (500_000, 65_009),
    ]


def test_an_answer_that_takes_too_long_is_one_of_a_busy_server(server: FileServer) -> None:
    server.delay_s = 1.0
    limit, before = gate_of(server.url).limit, READS.snapshot()
    with pytest.raises(UnreachableError, match="timed out after 1 request"):
        open_ranges(f"{server.url}/a.bin", Patience(retries=0, seconds=0.2)).head(10)
    assert READS.snapshot().throttled == before.throttled + 1
    assert gate_of(server.url).limit == limit // 2


def test_retry_after_may_be_a_date(server: FileServer) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.refuse = refuse_first(1, 503, Retry_After=when)
    with pytest.raises(AnswerError, match="503") as refused:
        ask_plainly(f"{server.url}/a.bin", (0, 10), 5.0)
    assert 80 < refused.value.retry_after_s <= 90


def test_the_sum_over_drains_is_the_total() -> None:
    counter = UsageCounter()
    counter.add(ReadUsage(requests=3, bytes=10))
    first = counter.drain()
    counter.add(ReadUsage(requests=2, waited_s=0.5))
    second = counter.drain()
    assert first + second == counter.snapshot() == ReadUsage(requests=5, bytes=10, waited_s=0.5)
    assert counter.drain() == ReadUsage()
