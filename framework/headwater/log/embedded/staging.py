"""Staging: blobs of a large transaction, written ahead in small ones; its last one makes them visible at once.

Until then no row of `batch` names them. What a writer leaves behind is removed by the next opener once that very
process is gone; what is removed too early (a writer that could not be seen) is noticed by the writer, which then
commits nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.core.errors import LogUnavailableError
from headwater.log.lease import Process, this_process

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from headwater.log.embedded.database import Database


@dataclass(slots=True)
class Stored:
    """A batch to be: its place and size, and its blob's bytes or, once that is staged, its number."""

    topic: str
    partition: int
    count: int
    nbytes: int
    time_min: int
    time_max: int
    crc: int
    data: bytes = b""
    blob: int = 0


def put_blob(raw: sqlite3.Connection, data: bytes) -> int:
    """Store a blob and return its number."""
    number = raw.execute("INSERT INTO blob (data) VALUES (?)", (data,)).lastrowid
    assert number is not None
    return number


class Stage:
    """The blobs that one transaction has staged."""

    def __init__(self, database: Database) -> None:
        """Begin with none."""
        self._database = database
        self._name = secrets.token_hex(8)
        self._count = 0

    def add(self, batches: Sequence[Stored]) -> None:
        """Write blobs in a transaction of their own, and let go of their bytes."""
        mine = this_process()
        with self._database.write() as raw:
            for batch in batches:
                batch.blob = put_blob(raw, batch.data)
            raw.executemany(
                "INSERT INTO staged VALUES (?, ?, ?, ?, ?)",
                [(batch.blob, self._name, mine.place, mine.pid, mine.started) for batch in batches],
            )
        self._count += len(batches)
        for batch in batches:
            batch.data = b""

    def claim(self, raw: sqlite3.Connection) -> None:
        """Within the last transaction: make sure that all blobs are there, and mark them as staged no more."""
        if (
            self._count
            and raw.execute("DELETE FROM staged WHERE stage = ?", (self._name,)).rowcount != self._count
        ):
            raise LogUnavailableError(
                f"staged records of a transaction on the log {self._database.path} were removed by another process; nothing was "
                "kept, commit again (is the folder shared between machines?)"
            )

    def discard(self) -> None:
        """Remove what was staged, after a refusal."""
        if self._count:
            with self._database.write() as raw:
                _remove(raw, "stage = ?", (self._name,))
            self._count = 0


def sweep_staged(database: Database) -> None:
    """Remove what writers that are gone have staged."""
    query = "SELECT DISTINCT place, pid, started FROM staged"
    with database.read() as raw:
        writers = [Process(*row) for row in raw.execute(query)]
    for writer in writers:
        if writer.is_gone():
            with database.write() as raw:
                _remove(
                    raw, "place = ? AND pid = ? AND started = ?", (writer.place, writer.pid, writer.started)
                )


def _remove(raw: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> None:
    raw.execute(f"DELETE FROM blob WHERE number IN (SELECT blob FROM staged WHERE {condition})", values)
    raw.execute(f"DELETE FROM staged WHERE {condition}", values)
