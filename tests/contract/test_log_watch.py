"""What every log promises of `watch`: it hears of commits once they can be seen, and of nothing else."""

from __future__ import annotations

import os
import select
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.core.batch import Append
from headwater.core.errors import FencedError
from headwater.log import open_log
from headwater.log.embedded import EmbeddedLog
from headwater.log.interface import Log, Transaction, Watch
from tests.crash.log_processes import start

WAKE_S = 0.02
COMMITS = 200

VALUES = [Append("a", 0, [0], [None], [b"x"])]


def hears(watch: Watch, within_s: float) -> bool:
    return bool(select.select([watch.fileno()], [], [], within_s)[0])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log")
    log.create_topic("a", 1)
    yield log
    log.close()


@pytest.fixture
def watch(log: EmbeddedLog) -> Iterator[Watch]:
    watch = log.watch()
    assert watch is not None, "this system has no watch: workers would poll"
    yield watch
    watch.close()


def heard_change(log: Log, watch: Watch, seen: int) -> int:
    """Wait until the watch fires, and return the version seen right after it, which must be another."""
    assert hears(watch, 5), "the watch heard nothing"
    watch.drain()
    found = log.version()
    assert found != seen, "the watch fired before the commit could be seen"
    return found


def test_a_log_without_a_watch_says_so() -> None:
    log = open_log("memory://watched")
    assert log.watch() is None
    log.close()


def test_a_watch_hears_every_own_commit_once_it_can_be_seen(log: EmbeddedLog, watch: Watch) -> None:
    seen = log.version()
    for _ in range(20):
        log.append(VALUES)
        assert hears(watch, WAKE_S)
        seen = heard_change(log, watch, seen)


def test_a_watch_hears_a_lease_and_another_logs_topic(log: EmbeddedLog, watch: Watch, tmp_path: Path) -> None:
    log.join("g", 1).heartbeat()
    seen = heard_change(log, watch, -1)
    other = EmbeddedLog(tmp_path / "log")
    watch.drain()
    other.create_topic("b", 1)
    heard_change(log, watch, seen)
    other.close()


def test_a_watch_hears_nothing_where_nothing_is_committed(log: EmbeddedLog, watch: Watch) -> None:
    log.append(VALUES)
    watch.drain()
    log.read("a", 0, 0)
    log.version()
    log.end_offset("a", 0)
    stranger = log.join("g", 1)
    watch.drain()
    with pytest.raises(FencedError):
        log.commit(Transaction(VALUES, {}, stranger, [0]))
    assert not hears(watch, 0.1)
    assert log.end_offset("a", 0) == 1, "only what was committed before"


def test_a_drained_watch_is_silent_whatever_it_heard(log: EmbeddedLog, watch: Watch) -> None:
    for _ in range(300):
        log.append(VALUES)
    watch.drain()
    assert not hears(watch, 0)


def test_a_watch_outlives_a_truncated_write_ahead_log(log: EmbeddedLog, watch: Watch) -> None:
    log.append(VALUES)
    assert log._checkpointer.wal_bytes() > 0
    assert log._writer.attempt("wal_checkpoint(TRUNCATE)", wait_ms=1000)
    assert log._checkpointer.wal_bytes() == 0
    watch.drain()
    seen = log.version()
    log.append(VALUES)
    heard_change(log, watch, seen)


def test_a_watch_outlives_a_write_ahead_log_that_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    first = EmbeddedLog(folder)
    first.create_topic("a", 1)
    watch = first.watch()
    assert watch is not None
    first.close()
    assert not (folder / "log.sqlite-wal").exists(), "the last to close removes it"
    second = EmbeddedLog(folder)
    for _ in range(2):
        watch.drain()
        seen = second.version()
        second.append(VALUES)
        heard_change(second, watch, seen)
    watch.close()
    second.close()


def test_the_last_of_many_commits_by_another_process_is_always_heard(
    log: EmbeddedLog, watch: Watch, tmp_path: Path
) -> None:
    """Who sleeps until the watch fires, and looks only then, sees all records at last."""
    process = start("write_times", tmp_path / "log", 300, 0.0)
    end_s = time.monotonic() + 60
    while log.end_offset("a", 0) < 300:
        assert hears(watch, 10), f"slept over a commit, at {log.end_offset('a', 0)} of 300"
        assert time.monotonic() < end_s
        watch.drain()
    process.join(30)
    assert process.exitcode == 0


def test_a_waiting_reader_wakes_within_20_ms_of_a_commit_by_another_process(
    log: EmbeddedLog, watch: Watch, tmp_path: Path
) -> None:
    """The median is held to 20 ms; the greatest only to what a shared machine's pauses may add."""
    waited_s = wakes(log, watch, tmp_path)
    sys.stdout.write(
        f"wake after commit: median {statistics.median(waited_s) * 1000:.2f} ms, "
        f"greatest {max(waited_s) * 1000:.2f} ms of {len(waited_s)}\n"
    )
    assert statistics.median(waited_s) < WAKE_S
    assert max(waited_s) < 0.4, "that is no wake-up by the watch"


def wakes(log: EmbeddedLog, watch: Watch, tmp_path: Path) -> list[float]:
    """Return the times from right after another process's commits to when a waiting reader has their records."""
    told = tmp_path / "told"
    process = start("tell_commits", tmp_path / "log", COMMITS, 0.01, told)
    read_ns: list[int] = []
    while len(read_ns) < COMMITS:
        assert hears(watch, 30)
        watch.drain()
        batch = log.read("a", 0, len(read_ns))
        read_ns.extend([time.monotonic_ns()] * len(batch))
    process.join(30)
    assert process.exitcode == 0
    committed_ns = [int(line) for line in told.read_text().split()]
    return [max(0, read - commit) / 1e9 for read, commit in zip(read_ns, committed_ns, strict=True)]


def open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # that of the listing itself
            continue
    return sorted(found)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_a_closed_watch_leaves_no_descriptor_and_an_open_one_holds_none_of_the_database(
    log: EmbeddedLog,
) -> None:
    """I4: closing a descriptor of SQLite's files drops its locks on them for the whole process."""
    before = open_files()
    watches = [log.watch() for _ in range(5)]
    assert [name for name in open_files() if "log.sqlite" in name] == [
        name for name in before if "log.sqlite" in name
    ]
    for watch in watches:
        assert watch is not None
        assert not os.get_inheritable(watch.fileno())
        assert not os.get_blocking(watch.fileno())
        watch.close()
        watch.close()
    assert open_files() == before


def test_where_the_folder_can_not_be_watched_there_is_no_watch_and_no_descriptor(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    log._path = str(tmp_path / "gone" / "log.sqlite")
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    assert log.watch() is None
    assert before == (len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0)
