"""Checkpointer: moves what is committed from the write-ahead log into the database, in a thread of its own.

One process at a time has the duty, by a lease in the database: several would only wait for each other. The thread
starts with the first write-ahead log worth the while, so that readers and short commands have none. PASSIVE blocks
nobody, but under steady writing it never quite reaches the end, and only from its end is the write-ahead log begun
anew; so when that has grown large, TRUNCATE moves the little that PASSIVE left while writers wait, and gives up where
it can't have the log to itself at once.
"""

from __future__ import annotations

import logging
import os
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from headwater.core.errors import HeadwaterError
from headwater.log.embedded.database import Database
from headwater.log.lease import Process, this_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.log.lease import LeaseClock

_log = logging.getLogger(__name__)

PASSIVE_BYTES = 4 << 20
TRUNCATE_BYTES = 64 << 20
TRUNCATE_WAIT_MS = 100
DUTY_S = 30.0


class Checkpointer:
    """Keeps the write-ahead log of one database short."""

    def __init__(self, path: str, connect: Callable[[], Database], clock: LeaseClock) -> None:
        """`connect` makes the connection of the thread."""
        self._path = path
        self._connect = connect
        self._clock = clock
        self._guard = Lock()
        self._due = Event()
        self._stop = False
        self._thread: Thread | None = None
        self._written_bytes = 0
        self._left_bytes = 0

    def written(self, nbytes: int) -> None:
        """Note a commit of this process, and wake the thread when a checkpoint is due."""
        self._written_bytes += nbytes
        if self._written_bytes < PASSIVE_BYTES and self.wal_bytes() < self._left_bytes + PASSIVE_BYTES:
            return
        self._written_bytes = 0
        with self._guard:
            if self._thread is None and not self._stop:
                self._thread = Thread(target=self._run, name="headwater-checkpoint", daemon=True)
                self._thread.start()
        self._due.set()

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead log's file, which keeps its size when it is begun anew."""
        try:
            return os.stat(self._path + "-wal").st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """End the thread."""
        with self._guard:
            self._stop = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        database: Database | None = None
        try:
            while True:
                self._due.wait()
                self._due.clear()
                if self._stop:
                    return
                try:
                    if database is None:
                        database = self._connect()
                    self.checkpoint(database)
                except HeadwaterError as error:
                    # The log itself goes on without checkpoints; the next commit asks again.
                    _log.warning("no checkpoint of the log %s this time: %s", self._path, error)
        finally:
            if database is not None:
                database.close()

    def checkpoint(self, database: Database) -> bool:
        """Checkpoint if this process has or gets the duty; return whether it did."""
        if not self._on_duty(database):
            return False
        database.pragma("wal_checkpoint(PASSIVE)")
        if self.wal_bytes() >= TRUNCATE_BYTES:
            database.attempt("wal_checkpoint(TRUNCATE)", wait_ms=TRUNCATE_WAIT_MS)
        self._left_bytes = self.wal_bytes()
        return True

    def _on_duty(self, database: Database) -> bool:
        """Take or renew the lease of the duty, writing only when half of it is gone."""
        now_s, mine = self._clock.monotonic_s(), this_process()
        query = "SELECT place, pid, started, deadline_s FROM duty WHERE name = 'checkpoint'"
        with database.read() as raw:
            row = raw.execute(query).fetchone()
        if row is not None and Process(*row[:3]) == mine and row[3] > now_s + DUTY_S / 2:
            return True
        with database.write() as raw:
            row = raw.execute(query).fetchone()
            if row is not None:
                holder = Process(*row[:3])
                # A lease of another boot has expired, whatever its deadline says.
                if holder != mine and not holder.is_gone() and row[3] > now_s:
                    return False
            raw.execute(
                "INSERT OR REPLACE INTO duty VALUES ('checkpoint', ?, ?, ?, ?)",
                (mine.place, mine.pid, mine.started, now_s + DUTY_S),
            )
        return True
