"""One writer per store: held, refused, freed, and never an epoch twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError
from obstore.store import MemoryStore

from eoray import storage
from eoray.errors import ConflictError, StoreError
from eoray.run import lease
from eoray.run.lease import LEASE_S, Holder, Watch, check_free, find_holder, hold_store
from tests.s3_server import serve_s3

URL = "memory://bucket/run"


class Clock:
    """Unix seconds that only move when told."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """One object store behind every URL."""
    store = MemoryStore()
    monkeypatch.setattr(storage, "object_store", lambda url: store)
    return store


def place(kind: str, tmp_path: Path) -> str:
    return str(tmp_path) if kind == "local" else URL


@pytest.mark.parametrize("kind", ["local", "object"])
def test_second_holder_is_refused_and_the_first_is_named(
    kind: str, tmp_path: Path, memory: MemoryStore
) -> None:
    url = place(kind, tmp_path)
    with (
        hold_store(url, "first"),
        pytest.raises(ConflictError, match=rf"run 'first' \(process {os.getpid()} on .*epoch 1"),
        hold_store(url, "second"),
    ):
        pass
    with hold_store(url, "third") as holder:
        assert holder.run == "third"


@pytest.mark.parametrize("kind", ["local", "object"])
def test_epoch_grows_with_every_holder(kind: str, tmp_path: Path, memory: MemoryStore) -> None:
    url = place(kind, tmp_path)
    epochs = []
    for run in ("a", "a-much-longer-name", "b"):
        with hold_store(url, run) as holder:
            epochs.append(holder.epoch)
    assert epochs == [1, 2, 3]


@pytest.mark.parametrize("kind", ["local", "object"])
def test_error_inside_frees_the_store(kind: str, tmp_path: Path, memory: MemoryStore) -> None:
    url = place(kind, tmp_path)
    with pytest.raises(KeyError), hold_store(url, "first"):
        raise KeyError
    with hold_store(url, "second") as holder:
        assert holder.epoch == 2


def test_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StoreError, match="choose another folder"),
        hold_store(str(tmp_path / "file"), "run"),
    ):
        pass


HOLD = """
import sys, time
from eoray.run.lease import hold_store
with hold_store(sys.argv[1], "killed"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_kill_9_frees_the_folder_and_keeps_the_epoch(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match="run 'killed'"), hold_store(str(tmp_path), "next"):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with hold_store(str(tmp_path), "next") as holder:
        assert holder.epoch == 2


def test_local_record_is_whole_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill right before the new record is written leaves the old one."""
    with hold_store(str(tmp_path), "first"):
        pass

    def killed(value: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", killed)
        with pytest.raises(KeyboardInterrupt), hold_store(str(tmp_path), "killed"):
            pass
    with hold_store(str(tmp_path), "third") as holder:
        assert holder.epoch == 2


def test_object_lease_of_a_dead_holder_expires(memory: MemoryStore) -> None:
    clock = Clock()
    dead = Holder("dead", "elsewhere", 7, 4, clock.seconds + LEASE_S)
    memory.put("lease.json", json.dumps(asdict(dead)).encode())
    clock.seconds += LEASE_S - 1
    with (
        pytest.raises(ConflictError, match="process 7 on elsewhere, epoch 4"),
        hold_store(URL, "next", now=clock),
    ):
        pass
    clock.seconds += 2
    with hold_store(URL, "next", now=clock) as holder:
        assert holder.epoch == 5
        assert holder.expires == clock.seconds + LEASE_S


@pytest.mark.parametrize("attempt", ["run-1", "run-2"])
def test_a_new_driver_of_a_run_takes_the_lease_of_one_whose_pod_is_gone(
    memory: MemoryStore, attempt: str
) -> None:
    clock = Clock()
    dead = Holder("run", "head-of-before", 7, 4, clock.seconds + LEASE_S, "run-1")
    memory.put("lease.json", json.dumps(asdict(dead)).encode())
    with hold_store(URL, "run", attempt=attempt, now=clock) as holder:
        assert (holder.epoch, holder.attempt) == (5, attempt)


@pytest.mark.parametrize(
    ("run", "attempt", "theirs"),
    [("other", "other-1", "run-1"), ("run", "", "run-1"), ("run", "run-1", "")],
)
def test_no_other_run_and_no_laptop_takes_a_live_lease(
    memory: MemoryStore, run: str, attempt: str, theirs: str
) -> None:
    clock = Clock()
    living = Holder("run", "elsewhere", 7, 4, clock.seconds + LEASE_S, theirs)
    memory.put("lease.json", json.dumps(asdict(living)).encode())
    with (
        pytest.raises(ConflictError, match="process 7 on elsewhere"),
        hold_store(URL, run, attempt=attempt, now=clock),
    ):
        pass


@pytest.mark.parametrize("expired", [False, True])
def test_of_two_takers_at_once_one_wins(memory: MemoryStore, expired: bool) -> None:
    """Both have seen the same state before either writes."""
    if expired:
        memory.put("lease.json", json.dumps(asdict(Holder("old", "h", 1, 8, 5.0))).encode())
    clock = Clock()
    takers = [lease._ObjectLease(memory, clock) for _ in range(2)]
    seen = [taker.read() for taker in takers]
    assert seen[0] == seen[1]
    first = takers[0].take(URL, lease._Claim("first"))
    late = lease._ObjectLease(memory, clock)
    answers = iter([seen[1], takers[1].read()])
    late.read = answers.__next__  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="run 'first'"):
        late.take(URL, lease._Claim("second"))
    assert first.epoch == (9 if expired else 1)


def test_lease_is_renewed_while_held(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.005)
    clock = Clock()
    with hold_store(URL, "long", now=clock) as holder:
        clock.seconds += 10 * LEASE_S
        renewed = threading.Event()
        for _ in range(400):
            stored = json.loads(bytes(memory.get("lease.json").bytes()))
            if stored["expires"] == clock.seconds + LEASE_S:
                renewed.set()
                break
            threading.Event().wait(0.005)
        assert renewed.is_set()
        assert stored["epoch"] == holder.epoch


class Generations:
    """Objects that go by a number and not by their tag, as those of GCS do."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.number = 0

    def get(self, name: str) -> Any:
        if self.data is None:
            raise FileNotFoundError(name)
        held = self.data
        return SimpleNamespace(bytes=lambda: held, meta={"e_tag": "t", "version": str(self.number)})

    def put(self, name: str, data: bytes, *, mode: Any) -> dict[str, Any]:
        if mode != "create" and "version" not in mode:
            raise GenericError("Version required for conditional update")
        if mode == "create" and self.data is not None:
            raise AlreadyExistsError(name)
        if mode != "create" and mode["version"] != str(self.number):
            raise PreconditionError(name)
        self.data, self.number = data, self.number + 1
        return {"e_tag": "t", "version": str(self.number)}


def test_lease_on_objects_with_generations_is_renewed_and_given_back() -> None:
    clock = Clock()
    held = lease._ObjectLease(Generations(), clock)
    held.take(URL, lease._Claim("one"))
    clock.seconds += 10
    assert held._renew() is None
    current, _ = held.read()
    assert current is not None
    assert current.expires == clock.seconds + LEASE_S
    held.release()
    current, _ = held.read()
    assert current is not None
    assert current.expires == lease._RELEASED
    assert held.take(URL, lease._Claim("two")).epoch == current.epoch + 1


def test_lease_that_was_taken_over_is_left_to_its_new_holder(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.005)
    clock = Clock()
    taken = Holder("other", "elsewhere", 9, 77, clock.seconds + 1e6)
    with hold_store(URL, "slow", now=clock):
        memory.put("lease.json", json.dumps(asdict(taken)).encode())
        threading.Event().wait(0.05)
    assert json.loads(bytes(memory.get("lease.json").bytes()))["run"] == "other"


def test_renewal_goes_on_after_the_store_was_away(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.002)
    clock = Clock()
    held = lease._ObjectLease(memory, clock)
    held.take(URL, lease._Claim("run"))
    plain, stop, calls = held._put, threading.Event(), []

    def put(holder: Holder, tag: Any) -> None:
        calls.append(holder)
        if len(calls) == 1:
            message = "away"
            raise GenericError(message)
        plain(holder, tag)
        stop.set()

    held._put = put  # type: ignore[method-assign]
    held.keep(stop, Watch())
    assert len(calls) == 2


def test_renewal_finds_who_took_the_store_over(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.002)
    watch = Watch()
    with hold_store(URL, "first", watch=watch):
        watch.check()
        with hold_store(URL, "second", manner="take-over"):
            for _ in range(400):
                if watch.taker is not None:
                    break
                threading.Event().wait(0.005)
            with pytest.raises(ConflictError, match=r"run 'second' .*epoch 2\) has taken"):
                watch.check()


def test_renewal_whose_answer_was_lost_is_our_own(memory: MemoryStore) -> None:
    clock = Clock()
    held = lease._ObjectLease(memory, clock)
    held.take(URL, lease._Claim("run"))
    before = held._tag
    held._expire_at(clock() + 5)
    held._tag = before
    assert held._renew() is None
    assert held._renew() is None
    assert json.loads(bytes(memory.get("lease.json").bytes()))["expires"] == clock() + LEASE_S


@pytest.mark.parametrize("kind", ["local", "object"])
def test_who_waits_holds_it_when_the_other_lets_go(
    kind: str, tmp_path: Path, memory: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    url = place(kind, tmp_path)
    first = hold_store(url, "first")
    first.__enter__()
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            first.__exit__(None, None, None)

    with hold_store(url, "second", manner="wait", pause=pause) as holder:
        assert (holder.run, holder.epoch) == ("second", 2)
    assert len(looks) == 3
    (said,) = [r for r in caplog.records if "waiting for the lease" in r.getMessage()]
    assert "run 'first'" in said.getMessage()


def test_object_lease_is_taken_over_and_the_other_stays_away(memory: MemoryStore) -> None:
    with hold_store(URL, "first") as first:
        with hold_store(URL, "second", manner="take-over") as second:
            assert second.epoch == first.epoch + 1
            found = find_holder(URL)
            assert found is not None
            assert found.run == "second"
        assert find_holder(URL) is None
    # the first one's farewell frees nothing that is not its own
    assert json.loads(bytes(memory.get("lease.json").bytes()))["run"] == "second"


@pytest.mark.parametrize(
    ("expires", "fenced"),
    [(None, 0), (lease._RELEASED, 0), (-1.0, 1), (LEASE_S, 1)],
    ids=["new", "given back", "expired", "live"],
)
def test_who_may_live_still_is_shut_out(
    memory: MemoryStore, expires: float | None, fenced: int
) -> None:
    clock, called = Clock(), list[Holder]()
    if expires is not None:
        at = expires if expires == lease._RELEASED else clock() + expires
        memory.put("lease.json", json.dumps(asdict(Holder("first", "x", 7, 4, at))).encode())
    with hold_store(URL, "second", manner="take-over", fence=called.append, now=clock) as holder:
        assert called == [holder] * fenced


def test_fence_that_failed_is_left_to_the_next_holder(memory: MemoryStore) -> None:
    clock, called = Clock(), list[Holder]()

    def fail(holder: Holder) -> None:
        raise StoreError

    dead = Holder("dead", "elsewhere", 7, 4, clock.seconds - 1)
    memory.put("lease.json", json.dumps(asdict(dead)).encode())
    with pytest.raises(StoreError), hold_store(URL, "second", fence=fail, now=clock):
        pass
    with hold_store(URL, "third", fence=called.append, now=clock):
        pass
    with hold_store(URL, "fourth", fence=called.append, now=clock):
        pass
    assert [holder.run for holder in called] == ["third"]


def test_folder_is_not_taken_over_from_a_process_that_lives(tmp_path: Path) -> None:
    with (
        hold_store(str(tmp_path), "first"),
        pytest.raises(ConflictError, match=rf"process {os.getpid()} .*ends with its process only"),
        hold_store(str(tmp_path), "second", manner="take-over"),
    ):
        pass


def test_renewal_between_look_and_take_over_does_not_save_the_other(memory: MemoryStore) -> None:
    clock = Clock()
    other = lease._ObjectLease(memory, clock)
    other.take(URL, lease._Claim("other"))
    taker = lease._ObjectLease(memory, clock)
    plain = taker.read
    calls: list[object] = []

    def read() -> tuple[Holder | None, Any]:
        seen = plain()
        if not calls:
            other._expire_at(clock() + LEASE_S + 1)
        calls.append(seen)
        return seen

    taker.read = read  # type: ignore[method-assign]
    assert taker.take(URL, lease._Claim("taker", manner="take-over")).epoch == 2
    assert len(calls) == 2


SECOND = """
import sys
from eoray.run.lease import hold_store
with hold_store("s3://maps/out", sys.argv[1], manner=sys.argv[2]) as holder:
    print("held", holder.epoch, flush=True)
    sys.stdin.read()
"""


def test_two_processes_meet_in_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(run: str, manner: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SECOND, run, manner],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    with serve_s3(monkeypatch):
        first = start("first", "refuse")
        assert first.stdout is not None
        assert first.stdout.readline() == "held 1\n"
        refused = start("second", "refuse").communicate("")
        assert f"run 'first' (process {first.pid} on " in refused[1]
        assert start("third", "take-over").communicate("")[0] == "held 2\n"
        first.communicate("")
        found = find_holder("s3://maps/out", now=lambda: 0.0)
        assert found is not None
        assert (found.run, found.epoch) == ("third", 2)


def test_own_drivers_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_s3(monkeypatch), hold_store("s3://maps/out", "ours"):
        assert check_free("s3://maps/out", "ours") == ""
        with pytest.raises(ConflictError, match=r"run 'ours'.*--wait-for-lease.*--take-over"):
            check_free("s3://maps/out", "theirs")


def test_store_that_is_not_seen_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "folder of the pods" in check_free(str(tmp_path), "ours")
    answer = threading.Event()
    monkeypatch.setattr(lease, "find_holder", lambda url: answer.wait(30))
    assert check_free(URL, "ours", timeout_s=0.01) == "no answer within 0.01 s"
    answer.set()
