"""What the processes of the embedded log's crash tests do; each function runs in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import FencedError
from headwater.log.embedded import EmbeddedLog
from headwater.log.embedded import log as embedded
from headwater.log.interface import Transaction

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, ForkServerProcess

_context: ForkServerContext = multiprocessing.get_context("forkserver")
# Imported once in the server; each process is then a fork of it: 20 ms instead of half a second.
_context.set_forkserver_preload([__name__])


def start(target: str, *arguments: object) -> ForkServerProcess:
    """Start a function of this module in a process of its own."""
    process = _context.Process(target=globals()[target], args=arguments, daemon=True)
    process.start()
    return process


def note(path: Path, line: str) -> None:
    """Add a line to a file, whole also when the process dies next."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, line.encode() + b"\n")
    os.close(handle)


def lines(path: Path) -> list[str]:
    """Return what was noted so far."""
    return path.read_text().splitlines() if path.exists() else []


def wait_for(path: Path, count: int = 1, timeout_s: float = 30.0) -> list[str]:
    """Wait until a file has that many lines."""
    end_s = time.monotonic() + timeout_s
    while len(found := lines(path)) < count:
        assert time.monotonic() < end_s, (
            f"{path.name} has {len(found)} lines after {timeout_s} s, expected {count}"
        )
        time.sleep(0.005)
    return found


def is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped, as the system tells it, not the code under test."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return "\nState:\tT" in status.read_text()
    with os.popen(f"ps -o state= -p {pid}") as answer:  # macOS
        return answer.read().strip().startswith("T")


def wait_until_stopped(pid: int | None) -> None:
    """Wait until a process has stopped itself."""
    end_s = time.monotonic() + 30
    while not is_stopped(pid):
        assert time.monotonic() < end_s, f"process {pid} did not stop"
        time.sleep(0.02)


def pair(writer: str, number: int) -> list[Append]:
    """Return one transaction's records: the same in both partitions of `a` and in `b`, of very different sizes."""
    value = f"{writer}:{number}".encode()
    size = (number * 7919) % 40
    body = [value] * (1 if number % 3 else size + 1)
    padding = [os.urandom(500 * size)] if number % 5 == 0 else [b""]
    blank: list[None] = [None] * len(body)
    return [
        Append("a", 0, [number] * len(body), blank, body),
        Append("a", 1, [number], padding, [value]),
        Append("b", 0, [number] * len(body), blank, body),
    ]


def write_for_ever(folder: Path, writer: str, acknowledged: Path) -> None:
    """Commit pairs, going on after what is there, and note each that was committed."""
    # Small enough that some transactions are staged.
    embedded.TRANSACTION_BYTES = 6000
    log = EmbeddedLog(folder)
    member = log.join(f"group-{writer}", 1, lease_s=0.001)
    member.heartbeat()
    number = sum(log.positions(f"group-{writer}").values())
    while True:
        moved = {TopicPartition("a", 0): number + 1}
        log.commit(Transaction(pair(writer, number), moved, member, [0]))
        note(acknowledged, str(number))
        number += 1


def write(folder: Path, writer: str, count: int) -> None:
    """Commit that many pairs and end."""
    log = EmbeddedLog(folder)
    for number in range(count):
        log.append(pair(writer, number))
    log.close()


def make_and_write(folder: Path, writer: str, told: Path) -> None:
    """Open a log that may not be there yet, make the topic, commit one record, tell the log's id."""
    log = EmbeddedLog(folder)
    log.create_topic("a", 2)
    log.append([Append("a", 0, [0], [None], [writer.encode()])])
    note(told, log.log_id)
    log.close()


def write_times(folder: Path, count: int, pause_s: float) -> None:
    """Commit records that tell when their commit began."""
    log = EmbeddedLog(folder)
    for _ in range(count):
        time.sleep(pause_s)
        log.append([Append("a", 0, [0], [None], [str(time.monotonic_ns()).encode()])])
    log.close()


def tell_commits(folder: Path, count: int, pause_s: float, told: Path) -> None:
    """Commit records, and tell when each commit was done."""
    log = EmbeddedLog(folder)
    done: list[str] = []
    for _ in range(count):
        time.sleep(pause_s)
        log.append([Append("a", 0, [0], [None], [b""])])
        done.append(str(time.monotonic_ns()))
    told.write_text("\n".join(done))
    log.close()


def stop_at(folder: Path, where: str, lease_s: float, told: Path) -> None:
    """Join a group, commit once, and in the next commit stop at a named point; tell what comes of it after that."""
    log = EmbeddedLog(folder)
    member = log.join("g", 1, lease_s=lease_s)
    assert member.heartbeat().owned == {0}
    log.commit(Transaction([Append("a", 0, [0], [None], [b"before"])], {}, member, [0]))

    def stop(name: str) -> None:
        if name == where:
            signal.raise_signal(signal.SIGSTOP)

    embedded.point = stop  # type: ignore[attr-defined]  # not exported there; the seam of this test
    note(told, "begins")
    try:
        log.commit(Transaction([Append("a", 0, [0], [None], [b"stopped"])], {}, member, [0]))
    except FencedError:
        note(told, "fenced")
    else:
        note(told, "committed")


def die_at(folder: Path, where: str) -> None:
    """Commit once, and in a second, large transaction die at a named point."""
    os.environ["HEADWATER_CRASH"] = f"{where}:2"
    embedded.TRANSACTION_BYTES = 6000
    log = EmbeddedLog(folder)
    log.append(pair("w", 1))
    log.append([*pair("w", 2), *(Append("b", 0, [0], [None], [os.urandom(4000)]) for _ in range(5))])


def keep_for_itself(folder: Path, told: Path) -> None:
    """Take the database file from everybody, as opening and closing do for a moment, and stop."""
    with sqlite3.connect(folder / "log.sqlite", isolation_level=None) as raw:
        raw.execute("PRAGMA locking_mode = EXCLUSIVE")
        raw.execute("BEGIN IMMEDIATE")
        note(told, "mine")
        signal.raise_signal(signal.SIGSTOP)


def hang_inside(folder: Path, told: Path) -> None:
    """Stay in a write transaction, running."""
    log = EmbeddedLog(folder)

    def hang(name: str) -> None:
        if name == "log.before_commit":
            note(told, "inside")
            time.sleep(300)

    embedded.point = hang  # type: ignore[attr-defined]  # not exported there; the seam of this test
    log.append([Append("a", 0, [0], [None], [b"hung"])])
    note(told, "committed")
