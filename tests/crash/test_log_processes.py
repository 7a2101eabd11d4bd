"""The embedded log under several processes, kill -9 and SIGSTOP.

Invariants: I4 and I18 (what a fenced or stopped process did is not visible), I17 (after a crash of the process: every
acknowledged transaction is there, whole, once; the file is sound).
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.core.batch import Append
from headwater.log.embedded import EmbeddedLog, holder
from tests.crash.log_processes import lines, start, wait_for, wait_until_stopped


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log")
    log.create_topic("a", 2)
    log.create_topic("b", 1)
    yield log
    log.close()


def values(log: EmbeddedLog, topic: str, partition: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    while len(batch := log.read(topic, partition, len(found))):
        found.extend(batch.values)
    return found


def numbers_by_writer(log: EmbeddedLog) -> dict[str, list[int]]:
    """Return the transactions of each writer as they lie in a/1, after checking that each is there whole."""
    once = [value.decode() for value in values(log, "a", 1) if value is not None]
    many, same = values(log, "a", 0), values(log, "b", 0)
    assert many == same, "transactions lie in different order or in part"
    expected: list[bytes] = []
    found: dict[str, list[int]] = {}
    for name in once:
        writer, number = name.split(":")
        found.setdefault(writer, []).append(int(number))
        expected.extend([name.encode()] * (1 if int(number) % 3 else (int(number) * 7919) % 40 + 1))
    assert many == expected
    return found


def test_four_processes_commit_at_once_and_nothing_is_lost_or_doubled(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    processes = [start("write", tmp_path / "log", f"w{n}", 60) for n in range(4)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert numbers_by_writer(log) == {f"w{n}": list(range(60)) for n in range(4)}


def test_processes_that_make_the_log_at_the_same_moment_make_one(tmp_path: Path) -> None:
    for number in range(3):
        folder, told = tmp_path / f"log{number}", tmp_path / f"told{number}"
        processes = [start("make_and_write", folder, f"w{n}", told) for n in range(4)]
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        log = EmbeddedLog(folder)
        assert lines(told) == [log.log_id] * 4
        assert sorted(value or b"" for value in values(log, "a", 0)) == [b"w0", b"w1", b"w2", b"w3"]
        log.close()


def test_after_twenty_kills_in_commits_every_acknowledged_transaction_is_there_once(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    chance = random.Random(17)
    for _ in range(10):
        running = []
        for name in ("w0", "w1"):
            acknowledged = tmp_path / name
            seen = len(lines(acknowledged))
            running.append(
                (start("write_for_ever", tmp_path / "log", name, acknowledged), acknowledged, seen)
            )
        for process, acknowledged, seen in running:
            wait_for(acknowledged, seen + 1)
            time.sleep(chance.random() * 0.05)
            process.kill()
            process.join(30)
            assert process.exitcode == -signal.SIGKILL
        # Every opener sees a sound log, and sweeps what was staged.
        log.close()
        log = EmbeddedLog(tmp_path / "log")
    found = numbers_by_writer(log)
    for name in ("w0", "w1"):
        told = [int(line) for line in lines(tmp_path / name)]
        assert found[name] == list(range(len(found[name]))), "a transaction is missing or doubled"
        assert set(told) <= set(found[name]), "an acknowledged transaction is gone"
        # The last one of each killed process may have been committed without a word.
        assert len(told) >= len(found[name]) - 10
        assert sum(log.positions(f"group-{name}").values()) == len(found[name])
    log.close()
    with sqlite3.connect(tmp_path / "log" / "log.sqlite") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("SELECT count(*) FROM staged").fetchone() == (0,)
        unnamed = "SELECT count(*) FROM blob WHERE number NOT IN (SELECT blob FROM batch)"
        assert raw.execute(unnamed).fetchone() == (0,)
    raw.close()
    print({name: len(found[name]) for name in found}, "transactions through 20 kills")


def test_a_waiting_reader_of_another_process_sees_a_commit_within_20_ms(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    writer = start("write_times", tmp_path / "log", 40, 0.02)
    waits_ms: list[float] = []
    version, end_s = log.version(), time.monotonic() + 30
    while len(waits_ms) < 40 and time.monotonic() < end_s:
        time.sleep(0.01)
        if (now := log.version()) != version:
            version = now
            batch = log.read("a", 0, len(waits_ms))
            seen_ns = time.monotonic_ns()
            waits_ms.extend((seen_ns - int(value or b"0")) / 1e6 for value in batch.values)
    writer.join(30)
    assert len(waits_ms) == 40
    print(f"seen after {statistics.median(waits_ms):.1f} ms (median), {max(waits_ms):.1f} ms at most")
    assert statistics.median(waits_ms) <= 20


def test_asking_for_the_version_costs_an_idle_process_next_to_nothing(log: EmbeddedLog) -> None:
    rounds = 2000
    log.version()
    began_s = time.thread_time()
    for _ in range(rounds):
        log.version()
    cost_s = (time.thread_time() - began_s) / rounds
    print(f"version(): {cost_s * 1e6:.1f} µs; asked every 10 ms: {cost_s * 100:.3%} of a core")
    assert cost_s * 100 < 0.01


def test_a_process_stopped_inside_its_transaction_is_ended_and_others_go_on(
    log: EmbeddedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """I4: nobody is blocked for longer than the lease and 5 s, and nothing of the stopped transaction is visible."""
    lease_s = 1.0
    stopped = start("stop_at", tmp_path / "log", "log.in_transaction", lease_s, tmp_path / "told")
    wait_for(tmp_path / "told")
    wait_until_stopped(stopped.pid)
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        log.append([Append("a", 0, [0], [None], [b"other"])])
    waited_s = time.monotonic() - began_s
    print(f"went on after {waited_s:.2f} s with a lease of {lease_s} s")
    assert lease_s <= waited_s <= lease_s + 5
    stopped.join(10)
    assert stopped.exitcode == -signal.SIGKILL
    assert f"ended process {stopped.pid} with SIGKILL" in caplog.text
    assert values(log, "a", 0) == [b"before", b"other"]
    assert lines(tmp_path / "told") == ["begins"]


def test_a_process_stopped_before_its_transaction_is_fenced_and_not_ended(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    """I4, I18: it wakes up after another took over its task, and can commit nothing."""
    stopped = start("stop_at", tmp_path / "log", "log.before_begin", 0.3, tmp_path / "told")
    wait_for(tmp_path / "told")
    wait_until_stopped(stopped.pid)
    member = log.join("g", 1)
    end_s = time.monotonic() + 10
    while member.heartbeat().owned != {0}:
        assert time.monotonic() < end_s, "the task of the stopped member was not freed"
        time.sleep(0.05)
    assert stopped.pid is not None
    os.kill(stopped.pid, signal.SIGCONT)
    assert wait_for(tmp_path / "told", 2) == ["begins", "fenced"]
    stopped.join(10)
    assert stopped.exitcode == 0
    assert values(log, "a", 0) == [b"before"]


def test_a_process_that_hangs_in_its_transaction_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(holder, "GRACE_S", 0.3)
    log = EmbeddedLog(tmp_path / "log", writer_lease_s=0.5)
    log.create_topic("a", 2)
    hung = start("hang_inside", tmp_path / "log", tmp_path / "told")
    wait_for(tmp_path / "told")
    with caplog.at_level(logging.WARNING):
        log.append([Append("a", 0, [0], [None], [b"other"])])
    hung.join(10)
    assert hung.exitcode == -signal.SIGKILL
    assert "without a commit" in caplog.text
    assert values(log, "a", 0) == [b"other"]
    log.close()


def test_a_busy_log_is_waited_for_and_nobody_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease of next to nothing: only who makes no commit for that long may be ended, not who is merely busy."""
    monkeypatch.setattr(holder, "GRACE_S", 5.0)
    log = EmbeddedLog(tmp_path / "log", writer_lease_s=0.01)
    log.create_topic("a", 2)
    log.create_topic("b", 1)
    writers = [start("write", tmp_path / "log", f"w{n}", 40) for n in range(2)]
    with caplog.at_level(logging.WARNING):
        for number in range(40):
            log.append([Append("a", 1, [0], [None], [f"me:{3 * number + 1}".encode()])])
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert not caplog.records
    assert len(values(log, "a", 1)) == 120
    log.close()


@pytest.mark.parametrize(
    ("where", "is_there"),
    [
        ("log.before_begin", False),
        ("log.in_transaction", False),
        ("log.before_commit", False),
        ("log.after_commit", True),
    ],
)
def test_a_process_killed_at_a_point_of_a_commit_leaves_all_of_it_or_nothing(
    log: EmbeddedLog, tmp_path: Path, where: str, is_there: bool
) -> None:
    """I17: and what it had staged is swept by the next opener."""
    died = start("die_at", tmp_path / "log", where)
    died.join(30)
    assert died.exitcode == -signal.SIGKILL
    assert values(log, "a", 1) == ([b"w:1", b"w:2"] if is_there else [b"w:1"])
    assert len(values(log, "b", 0)) == (1 + 1 + 5 if is_there else 1)
    raw = sqlite3.connect(tmp_path / "log" / "log.sqlite")
    left = raw.execute("SELECT count(*) FROM staged").fetchone()[0]
    assert (left > 0) == (where in ("log.in_transaction", "log.before_commit"))
    raw.close()
    log.close()
    EmbeddedLog(tmp_path / "log").close()
    raw = sqlite3.connect(tmp_path / "log" / "log.sqlite")
    assert raw.execute("SELECT count(*) FROM staged").fetchone() == (0,)
    assert (
        raw.execute("SELECT count(*) FROM blob").fetchone()
        == raw.execute("SELECT count(*) FROM batch").fetchone()
    )
    raw.close()


def test_a_process_stopped_while_it_has_the_file_to_itself_is_ended(tmp_path: Path) -> None:
    EmbeddedLog(tmp_path / "log").close()
    stopped = start("keep_for_itself", tmp_path / "log", tmp_path / "told")
    wait_for(tmp_path / "told")
    wait_until_stopped(stopped.pid)
    log = EmbeddedLog(tmp_path / "log", writer_lease_s=0.3)
    log.create_topic("a", 2)
    log.close()
    stopped.join(10)
    assert stopped.exitcode == -signal.SIGKILL
