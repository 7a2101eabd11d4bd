"""Who holds the database's write lock, and ending it when it is stopped in there: a stopped process blocks all writers.

How the holder is known: SQLite's WAL writer holds a POSIX lock on byte 120 of the `-shm` file, so F_GETLK on that byte
has the kernel itself name the very process that holds it now. A note (pid, start time) beside the database can be
stale or torn in just the moments that matter; the kernel's answer can't. Each step before the kill is checked again
through a pidfd, so that no other process that got the same pid is hit.

The descriptor for F_GETLK must not be closed while this process has the database open: closing any descriptor of a
file drops all POSIX locks this process has on it, SQLite's too. `WriteLock` counts the users and closes it last.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import signal
import struct
import sys
import time
from threading import Lock
from typing import TYPE_CHECKING

from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import LogUnavailableError
from headwater.log.lease import Process, is_stopped, start_of, this_process

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
_chance = random.Random()  # waiters must not wake in step; nothing that is stored depends on it

WRITE_LOCK_BYTE = 120
"""UNIX_SHM_BASE + WAL_WRITE_LOCK of SQLite's os_unix.c and wal.c; part of its file format since 3.7."""
SHARED_BYTE, SHARED_BYTES = (1 << 30) + 2, 510
"""The bytes of the database file itself that each connection holds shared, from the same file."""

CHECK_S = 0.1
GRACE_S = 3.0
"""A process that runs, but has been in one transaction for its lease and this, is ended as one that hangs."""
GIVE_UP_S = 30.0

_FLOCK = "hhqqi4x" if sys.platform == "linux" else "qqihh"


def _pack(kind: int, start: int, length: int) -> bytes:
    if sys.platform == "linux":
        return struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
    return struct.pack(_FLOCK, start, length, 0, kind, os.SEEK_SET)


def _unpack(data: bytes) -> tuple[int, int]:
    """Return lock type and pid."""
    fields = struct.unpack(_FLOCK, data)
    return (fields[0], fields[4]) if sys.platform == "linux" else (fields[3], fields[2])


class WriteLock:
    """The write lock of one database, as seen from this process; one object a path, shared by all its logs."""

    _all: dict[str, WriteLock] = {}  # noqa: RUF012  # of the class on purpose: POSIX locks belong to the process
    _guard = Lock()

    def __init__(self, path: str) -> None:
        """Use `opened` instead."""
        self._path = path
        self._handles: list[int] = []
        self._users = 0

    @classmethod
    def opened(cls, path: str) -> WriteLock:
        """Return the lock of a database; call before connecting to it, and `close` after the connections are closed."""
        with cls._guard:
            lock = cls._all.setdefault(path, cls(path))
            lock._users += 1
            return lock

    def close(self) -> None:
        """Count one user less; the last one closes the descriptors."""
        with self._guard:
            self._users -= 1
            if self._users == 0:
                del self._all[self._path]
                for handle in self._handles:
                    os.close(handle)
                self._handles.clear()

    def holder(self) -> int | None:
        """Return the pid of the other process that is in the way now (0: one of another pid namespace), or None."""
        with self._guard:
            writer = self._asked("-shm", fcntl.F_WRLCK, WRITE_LOCK_BYTE, 1)
            # Opening and closing alone take the file itself, from everybody; else all hold it shared.
            return self._asked("", fcntl.F_RDLCK, SHARED_BYTE, SHARED_BYTES) if writer is None else writer

    def _asked(self, suffix: str, kind: int, start: int, length: int) -> int | None:
        handle = self._handle(suffix)
        if handle is None:
            return None
        held, pid = _unpack(fcntl.fcntl(handle, fcntl.F_GETLK, _pack(kind, start, length)))
        return None if held == fcntl.F_UNLCK else max(pid, 0)

    def _handle(self, suffix: str) -> int | None:
        """Return a descriptor of the file that is there now, opened at most once for each such file."""
        try:
            there = os.stat(self._path + suffix)
        except FileNotFoundError:
            return None
        for handle in reversed(self._handles):
            if os.path.samestat(os.fstat(handle), there):
                return handle
        self._handles.append(os.open(self._path + suffix, os.O_RDWR | os.O_CLOEXEC))
        return self._handles[-1]


class Patience:
    """One waiter's wait for the write lock: short pauses, and an end to a holder that is stopped past its lease."""

    def __init__(
        self,
        lock: WriteLock,
        path: str,
        lease_of: Callable[[Process], float],
        version: Callable[[], int | None],
    ) -> None:
        """`lease_of` says how long a process may stop, `version` changes with each commit."""
        self._lock = lock
        self._path = path
        self._lease_of = lease_of
        self._version = version
        self._pauses = 0
        self._checked_s = SYSTEM_CLOCK.monotonic_s()
        self._waited_s = 0.0
        self._blocker: tuple[int | None, str | None] | None = None
        self._seen: int | None = None

    def pause(self) -> None:
        """Wait a moment; now and then look at the holder. Raises LogUnavailableError when nothing helps."""
        self._pauses += 1
        time.sleep(min(0.0005 * self._pauses, 0.01) * _chance.uniform(0.5, 1.5))
        now_s = SYSTEM_CLOCK.monotonic_s()
        step_s = now_s - self._checked_s
        if step_s < CHECK_S:
            return
        self._checked_s = now_s
        pid = self._lock.holder()
        blocker = (pid, start_of(pid) if pid else None)
        seen = self._version()
        if blocker != self._blocker or seen != self._seen:
            # Another holder, or a commit: the log moves on, so the wait for this one starts anew.
            self._blocker, self._seen, self._waited_s = blocker, seen, 0.0
            return
        # A waiter that was stopped itself, or slept with the machine, must not blame the holder for that time.
        self._waited_s += min(step_s, 5 * CHECK_S)
        started = blocker[1]
        lease_s = 10.0
        if pid and started:
            process = Process(this_process().place, pid, started)
            lease_s = self._lease_of(process)
            if self._waited_s > lease_s and is_stopped(pid):
                self._end(process, f"stopped for longer than its lease of {lease_s:g} s")
            elif self._waited_s > lease_s + GRACE_S:
                self._end(
                    process, f"without a commit for longer than its lease of {lease_s:g} s and {GRACE_S:g} s"
                )
        if self._waited_s > lease_s + GIVE_UP_S:
            who = f"process {pid}" if pid else "a process that can't be seen from here"
            raise LogUnavailableError(
                f"the log {self._path} has been locked by {who} for {self._waited_s:.0f} s without a commit, and it could not be "
                "ended from here; end it, then try again"
            )

    def _end(self, process: Process, why: str) -> None:
        """Kill the process that is in the write transaction, making sure that it is still that one."""
        try:
            handle = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        except ProcessLookupError:
            return
        except OSError:
            handle = None  # an old kernel or a sandbox without pidfds: the check just before the kill must do
        try:
            if self._lock.holder() != process.pid or start_of(process.pid) != process.started:
                return
            if handle is None:
                os.kill(process.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise LogUnavailableError(
                f"process {process.pid} is in a write transaction of the log {self._path}, {why}, and belongs to another user; "
                "end it, then try again"
            ) from error
        finally:
            if handle is not None:
                os.close(handle)
        _log.warning(
            "ended process %d with SIGKILL: it was in a write transaction of the log %s, %s, and blocked all writers",
            process.pid, self._path, why,
        )  # fmt: skip
        self._waited_s = 0.0
