"""Database: one SQLite connection with the log's settings, transactions that wait their turn, and errors in our words.

Threads: several may use one Database; its lock lets one in at a time.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from headwater.core.errors import LogCorruptError, LogUnavailableError
from headwater.log.embedded.holder import Patience
from headwater.log.embedded.schema import PAGE_BYTES
from headwater.log.embedded.watch import mark_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.core.errors import HeadwaterError
    from headwater.log.embedded.holder import WriteLock
    from headwater.log.lease import Process

T = TypeVar("T")

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL)


def explained(error: sqlite3.Error, path: str) -> HeadwaterError:
    """Return what an error of SQLite means for the log."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code == sqlite3.SQLITE_FULL:
        return LogUnavailableError(
            f"the disk of the log {path} is full: nothing of this call was kept; free space (`headwater trim` drops what is "
            "archived), then go on"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LogCorruptError(
            f"the log {path} is damaged or no log ({name}: {error}); restore it from a copy, or move the folder away and start a "
            "new log (the archive keeps what is archived)"
        )
    if code == sqlite3.SQLITE_IOERR:
        return LogUnavailableError(
            f"the log {path} can't be read or written ({name}: {error}); look at the disk's health and free space and at file "
            "size limits, then open the log anew: what was being committed may be there or not"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return LogUnavailableError(
            f"the log {path} can't be opened for writing ({name}: {error}); look at its rights and folder"
        )
    return LogUnavailableError(f"the log {path} failed ({name}: {error})")


class Database:
    """One connection. `read` and `write` are its transactions; both end before they return."""

    def __init__(self, path: str, lock: WriteLock, lease_s: float) -> None:
        """Connect; a process without a member in a group may stop for `lease_s` inside a transaction."""
        self.path = path
        self._lock = lock
        self._lease_s = lease_s
        self._turn = RLock()
        self._connection: sqlite3.Connection | None = None
        try:
            raw = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise explained(error, path) from error
        self._connection = raw
        try:
            raw.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            mode = self._when_free(lambda: raw.execute("PRAGMA journal_mode = WAL").fetchone()[0])
            if mode != "wal":
                raise LogUnavailableError(
                    f"the log {path} can't use a write-ahead log there (SQLite offers {mode!r}); choose a folder on a local disk"
                )
            raw.execute("PRAGMA synchronous = FULL")
            # macOS: fsync alone doesn't reach the platter there. Elsewhere this changes nothing.
            raw.execute("PRAGMA fullfsync = ON")
            raw.execute("PRAGMA wal_autocheckpoint = 0")
            raw.execute("PRAGMA secure_delete = OFF")
            raw.execute("PRAGMA cache_size = -16384")
        except sqlite3.Error as error:
            self.close()
            raise explained(error, path) from error
        except BaseException:
            self.close()
            raise

    @property
    def _raw(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LogUnavailableError(f"the log {self.path} is closed; open it anew")
        return self._connection

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give one consistent view, for as short as the block is."""
        with self._transaction("BEGIN") as raw:
            yield raw

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a write transaction: committed when the block ends, rolled back when it raises."""
        with self._transaction("BEGIN IMMEDIATE") as raw:
            yield raw
        mark_commit(self.path)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._turn:
            raw = self._raw
            try:
                self._when_free(lambda: self._begin(raw, begin))
                yield raw
                raw.execute("COMMIT")
            except BaseException as error:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise explained(error, self.path) from error
                raise

    @staticmethod
    def _begin(raw: sqlite3.Connection, begin: str) -> None:
        """Begin, and take the view at once: a plain BEGIN takes it with its first statement, which may find it busy."""
        raw.execute(begin)
        if begin != "BEGIN":
            return
        try:
            raw.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except sqlite3.Error:
            raw.execute("ROLLBACK")
            raise

    def pragma(self, statement: str) -> tuple[int, ...]:
        """Return the row of a PRAGMA outside any transaction."""
        with self._turn:
            raw = self._raw
            try:
                return self._when_free(lambda: raw.execute(f"PRAGMA {statement}").fetchone())
            except sqlite3.Error as error:
                raise explained(error, self.path) from error

    def attempt(self, statement: str, *, wait_ms: int) -> bool:
        """Run a PRAGMA that may find others in its way, which is no error; return whether it went through in time."""
        with self._turn:
            try:
                self._raw.execute(f"PRAGMA busy_timeout = {wait_ms}")
                return bool(self._raw.execute(f"PRAGMA {statement}").fetchone()[0] == 0)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF in (*_BUSY, sqlite3.SQLITE_LOCKED):
                    return False
                raise explained(error, self.path) from error
            finally:
                self._raw.execute("PRAGMA busy_timeout = 0")

    def _when_free(self, action: Callable[[], T]) -> T:
        """Do something as soon as no other process is in the way."""
        patience: Patience | None = None
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY:
                    raise
            if patience is None:
                patience = Patience(self._lock, self.path, self._lease_of, self._version)
            patience.pause()

    def _lease_of(self, process: Process) -> float:
        """Return the longest lease a process has in any group."""
        try:
            row = self._raw.execute(
                "SELECT max(lease_s) FROM member WHERE place = ? AND pid = ? AND started = ?",
                (process.place, process.pid, process.started),
            ).fetchone()
        except sqlite3.OperationalError:
            # Not made yet, or being recovered by that very process: then the general lease holds.
            return self._lease_s
        return self._lease_s if row[0] is None else float(row[0])

    def _version(self) -> int | None:
        try:
            return int(self._raw.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.OperationalError:
            return None
