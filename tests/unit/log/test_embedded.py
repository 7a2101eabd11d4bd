"""The embedded log's own promises: full disks, damage, checkpoints, leases of other boots, staging, SQLite's locks."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.core.batch import Append
from headwater.core.clock import ManualClock
from headwater.core.errors import HeadwaterError, LogCorruptError, LogUnavailableError
from headwater.log.embedded import EmbeddedLog, checkpoint, topics
from headwater.log.embedded import log as embedded
from headwater.log.embedded.holder import WRITE_LOCK_BYTE, WriteLock
from headwater.log.embedded.staging import Stage, Stored
from headwater.log.lease import Process, boot_id, is_stopped, start_of, this_process


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log")
    log.create_topic("t", 1)
    yield log
    log.close()


def records(count: int, nbytes: int) -> list[Append]:
    """Return records that don't compress."""
    chance = random.Random(count)
    return [Append("t", 0, [0] * count, [None] * count, [chance.randbytes(nbytes) for _ in range(count)])]


def alter(tmp_path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Run SQL on the file beside the log."""
    raw = sqlite3.connect(tmp_path / "log" / "log.sqlite", isolation_level=None)
    try:
        return raw.execute(statement, values).fetchall()
    finally:
        raw.close()


@pytest.mark.parametrize("transaction_bytes", [64 << 20, 100_000], ids=["at once", "staged"])
def test_a_full_disk_is_named_and_leaves_nothing_half_done(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, transaction_bytes: int
) -> None:
    monkeypatch.setattr(embedded, "TRANSACTION_BYTES", transaction_bytes)
    log.append(records(1, 10))
    log._writer.pragma("max_page_count = 200")
    with pytest.raises(LogUnavailableError, match=r"disk of the log .* is full: nothing .* kept; free space"):
        log.append(records(40, 100_000))
    assert log.end_offset("t", 0) == 1
    log._writer.pragma("max_page_count = 1000000")
    assert log.append(records(2, 10)) == {("t", 0): 1}
    with log._reader.read() as raw:
        assert raw.execute("SELECT count(*) FROM blob").fetchone() == (2,)
        assert raw.execute("SELECT count(*) FROM staged").fetchone() == (0,)


def test_a_write_the_system_refuses_is_an_error_with_advice_and_the_log_stays_sound(tmp_path: Path) -> None:
    """A limit on file sizes stands for a disk that takes no more."""
    script = """
import resource, signal, sys
from headwater.core.batch import Append
from headwater.core.errors import LogUnavailableError
from headwater.log.embedded import EmbeddedLog
import random
log = EmbeddedLog(sys.argv[1])
log.create_topic("t", 1)
log.append([Append("t", 0, [0], [None], [b"before"])])
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
try:
    log.append([Append("t", 0, [0] * 20, [None] * 20, [random.randbytes(100_000)] * 20)])
except LogUnavailableError as error:
    print("refused:", error)
assert log.end_offset("t", 0) == 1, log.end_offset("t", 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append([Append("t", 0, [0], [None], [b"after"])])
print(log.read("t", 0, 0).values)
log.close()
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")],
        capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "refused: the" in ran.stdout
    assert "free" in ran.stdout
    assert "[b'before', b'after']" in ran.stdout


def test_a_damaged_blob_is_found_by_its_checksum_and_the_others_still_read(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    for value in (b"a", b"b", b"c"):
        log.append([Append("t", 0, [0], [None], [value])])
    alter(tmp_path, "UPDATE blob SET data = replace(data, ?, ?) WHERE number = 2", b"b", b"x")
    with pytest.raises(LogCorruptError, match=r"damaged at t/0@1: found the CRC32C .* expected .*archive"):
        log.read("t", 0, 0)
    assert log.read("t", 0, 2).values == [b"c"]
    assert log.read("t", 0, 0, end=1).values == [b"a"]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM blob WHERE number = 2", "blob 2 is missing"),
        ("DELETE FROM batch WHERE base = 1", r"found the batch \[2, 3\)"),
        ("DELETE FROM batch", "found no batch"),
        ("UPDATE batch SET next = next + 1 WHERE base = 2", "found 1 records, expected 2"),
    ],
)
def test_rows_that_do_not_tile_the_offsets_are_an_error_never_a_gap(
    log: EmbeddedLog, tmp_path: Path, statement: str, what: str
) -> None:
    for value in (b"a", b"b", b"c"):
        log.append([Append("t", 0, [0], [None], [value])])
    alter(tmp_path, statement)
    with pytest.raises(LogCorruptError, match=what):
        log.read("t", 0, 0)


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "log.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(LogCorruptError, match="damaged or no log"):
        EmbeddedLog(tmp_path / "log")


def test_a_log_of_a_later_format_is_refused(log: EmbeddedLog, tmp_path: Path) -> None:
    alter(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(LogUnavailableError, match="has format 99, this version of headwater reads 1"):
        EmbeddedLog(tmp_path / "log")


def test_a_lease_of_another_boot_has_expired(tmp_path: Path) -> None:
    clock = ManualClock(1000)
    with_clock = EmbeddedLog(tmp_path / "log", clock=clock)
    with_clock.join("g", 1, lease_s=3600).heartbeat()
    assert with_clock.members("g") == 1
    alter(tmp_path, "UPDATE member SET place = 'another-boot/pid:[1]'")
    assert with_clock.members("g") == 0
    assert with_clock.join("g", 1).heartbeat().owned == {0}
    with_clock.close()


def test_staged_records_of_a_running_process_are_kept_and_of_one_that_is_gone_swept(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    stage, batch = Stage(log._writer), Stored("t", 0, 1, 25, 0, 0, 0, b"data")
    stage.add([batch])
    EmbeddedLog(tmp_path / "log").close()
    assert alter(tmp_path, "SELECT data FROM blob") == [(b"data",)]
    alter(tmp_path, "UPDATE staged SET started = 'another life'")
    EmbeddedLog(tmp_path / "log").close()
    assert alter(tmp_path, "SELECT data FROM blob") == []
    # The writer that was taken for gone notices, rather than name a blob that is not there.
    with pytest.raises(LogUnavailableError, match="commit again"), log._writer.write() as raw:
        stage.claim(raw)


def test_a_dropped_topics_records_go_in_small_steps_also_after_a_crash(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "SWEEP_ROWS", 3)
    for topic in ("t", "u"):
        log.create_topic(topic, 1)
        for _ in range(10):
            log.append([Append(topic, 0, [0], [None], [b"v"])])
    log.trim("t", 0, 9)
    assert alter(tmp_path, "SELECT count(*) FROM blob") == [(11,)]
    monkeypatch.setattr(topics, "sweep_dropped", lambda database: None)
    log.delete_topic("u")
    assert log.topic("u") is None
    assert alter(tmp_path, "SELECT count(*) FROM blob") == [(11,)]
    monkeypatch.undo()
    monkeypatch.setattr(topics, "SWEEP_ROWS", 3)
    EmbeddedLog(tmp_path / "log").close()
    assert alter(tmp_path, "SELECT count(*) FROM blob") == [(1,)]
    assert alter(tmp_path, "SELECT count(*) FROM dropped") == [(0,)]


def test_the_write_ahead_log_stays_short_while_much_is_written(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "PASSIVE_BYTES", 1 << 20)
    monkeypatch.setattr(checkpoint, "TRUNCATE_BYTES", 3 << 20)
    largest = 0
    for _ in range(100):
        log.append(records(10, 50_000))
        largest = max(largest, log._checkpointer.wal_bytes())
    print(f"50 MB appended without a pause, the write-ahead log had {largest / 1e6:.1f} MB at most")
    assert largest < 40_000_000  # without checkpoints it is all 50 MB
    assert len(alter(tmp_path, "SELECT * FROM duty")) == 1


def test_one_process_has_the_duty_to_checkpoint_until_its_lease_ends(tmp_path: Path) -> None:
    clock = ManualClock(0)
    log = EmbeddedLog(tmp_path / "log", clock=clock)
    keeper = log._checkpointer
    assert keeper.checkpoint(log._writer)
    mine = this_process()
    # Process 1 runs on every machine; its start time is asked the same way.
    alter(tmp_path, "UPDATE duty SET pid = 1, started = ?", start_of(1))
    assert not keeper.checkpoint(log._writer)
    clock.advance(checkpoint.DUTY_S + 1)
    assert keeper.checkpoint(log._writer)
    alter(tmp_path, "UPDATE duty SET pid = 1, started = 'before', deadline_s = 1e9")
    assert keeper.checkpoint(log._writer)
    assert alter(tmp_path, "SELECT pid FROM duty") == [(mine.pid,)]
    log.close()


def test_processes_are_told_apart_by_start_and_boot() -> None:
    mine = this_process()
    assert not mine.is_gone()
    assert not is_stopped(mine.pid)
    assert Process(mine.place, mine.pid, "another start").is_gone()
    assert Process("another-boot/x", mine.pid, mine.started).is_gone()
    assert not Process(f"{boot_id()}/another namespace", mine.pid, "any").is_gone()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert start_of(child.pid) is None


def test_looking_for_the_holder_drops_no_lock_of_sqlite(log: EmbeddedLog, tmp_path: Path) -> None:
    """Closing any descriptor of a file drops all POSIX locks the process has on it: ours must stay open."""
    path = str(tmp_path / "log" / "log.sqlite")
    ask = """
import fcntl, struct, sys
with open(sys.argv[1] + "-shm", "rb+") as shm:
    try:
        fcntl.lockf(shm, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
    except OSError:
        print("held")
    else:
        print("free")
"""

    def asked() -> str:
        command = [sys.executable, "-c", ask, path, str(WRITE_LOCK_BYTE)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    lock = WriteLock.opened(path)
    assert asked() == "free"
    with log._writer.write():
        assert lock.holder() is None  # this very process: never a candidate to be ended
        EmbeddedLog(tmp_path / "log").close()
        lock.close()
        assert asked() == "held"
    assert asked() == "free"


def test_threads_may_share_a_log(log: EmbeddedLog) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def work(number: int) -> int:
        log.append([Append("t", 0, [number], [None], [b"v"])])
        return len(log.read("t", 0, 0)) + log.version()

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(work, range(80)))) == 80
    assert sorted(log.read("t", 0, 0).timestamps) == list(range(80))


def test_every_error_of_a_closed_log_is_ours(log: EmbeddedLog) -> None:
    member = log.join("g", 1)
    log.close()
    for call in (log.topics, log.version, member.heartbeat, lambda: log.append(records(1, 1))):
        with pytest.raises(HeadwaterError, match="closed"):
            call()
