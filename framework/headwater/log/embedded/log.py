"""EmbeddedLog: the log in one folder of this machine, for any number of its processes at once; not for network folders.

Protocol of a commit
1. Blobs are encoded before any transaction.
2. What exceeds 8 MB is staged: written in transactions of at most 8 MB, invisible.
3. One write transaction checks the member and its tasks, inserts the rows that name the blobs, moves positions.
Invariants: a transaction is there whole or not at all, after any crash (I17); a fenced member's is not (I4, I18).

Threads: any number may use one object. It has one connection for reading and one for writing, each used by one thread
at a time; so a reader never waits for a commit. After a fork, open the log anew.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.core.batch import Batch, TopicPartition
from headwater.core.crash import point
from headwater.core.errors import LogCorruptError, LogUnavailableError
from headwater.log.embedded import group as groups
from headwater.log.embedded import topics
from headwater.log.embedded.blob import Columns, as_lists, checksum, decode, encode, fitting_part, joined
from headwater.log.embedded.checkpoint import Checkpointer
from headwater.log.embedded.database import Database
from headwater.log.embedded.filesystem import make_folder, refuse_network
from headwater.log.embedded.holder import WriteLock
from headwater.log.embedded.schema import APPLICATION_ID, FORMAT, TABLES
from headwater.log.embedded.staging import Stage, Stored, put_blob, sweep_staged
from headwater.log.embedded.watch import watch_folder
from headwater.log.extent import check_transaction, extents_of
from headwater.log.group import chosen
from headwater.log.interface import READ_BYTES_MAX, Log, Membership, Placed, TopicInfo, Transaction, Watch
from headwater.log.lease import BootClock
from headwater.log.refusal import trimmed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from headwater.log.lease import LeaseClock

EXTENT_BYTES = 1 << 20
TRANSACTION_BYTES = 8 << 20
_KEPT_COLUMNS = 4  # of 1 MiB each
_COMMIT_BYTES = 16 << 10  # what a commit writes beside its blobs, about: a few pages


class EmbeddedLog(Log):
    """A log in a folder."""

    def __init__(
        self, folder: str | Path, *, clock: LeaseClock | None = None, writer_lease_s: float = 10.0
    ) -> None:
        """Open the log in a folder, making it where there is none.

        A process that is in no group may be stopped within a transaction for `writer_lease_s` before others end it.
        """
        place = Path(folder)
        self.url = f"file://{folder}"
        refuse_network(place)
        make_folder(place)
        self._path = str(place.resolve() / "log.sqlite")
        self._clock = clock or BootClock()
        self._writer_lease_s = writer_lease_s
        self._lock: WriteLock | None = WriteLock.opened(self._path)
        self._columns: OrderedDict[int, Columns] = OrderedDict()
        self._opened: list[Database] = []
        try:
            self._writer = self._connect()
            self._opened.append(self._writer)
            self._reader = self._connect()
            self._opened.append(self._reader)
            self._checkpointer = Checkpointer(self._path, self._connect, self._clock)
            self.log_id = self._prepare()
            sweep_staged(self._writer)
            topics.sweep_dropped(self._writer)
        except BaseException:
            self._close()
            raise

    def _connect(self) -> Database:
        assert self._lock is not None
        return Database(self._path, self._lock, self._writer_lease_s)

    def _prepare(self) -> str:
        """Make the tables where there are none, and return the log's id."""
        found = self._writer.pragma("user_version")[0]
        if found == 0:
            with self._writer.write() as raw:
                found = raw.execute("PRAGMA user_version").fetchone()[0]
                if found == 0:
                    for statement in filter(str.strip, TABLES.split(";")):
                        raw.execute(statement)
                    raw.execute("INSERT INTO meta VALUES ('log_id', ?)", (secrets.token_hex(8),))
                    raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    raw.execute(f"PRAGMA user_version = {FORMAT}")
                    found = FORMAT
        if found != FORMAT or self._writer.pragma("application_id")[0] != APPLICATION_ID:
            raise LogUnavailableError(
                f"{self._path} has format {found}, this version of headwater reads {FORMAT}; open it with the version that wrote "
                "it, or choose another folder"
            )
        with self._reader.read() as raw:
            return str(raw.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone()[0])

    def topics(self) -> dict[str, TopicInfo]:
        """Return all topics by name."""
        with self._reader.read() as raw:
            return topics.all_topics(raw)

    def topic(self, name: str) -> TopicInfo | None:
        """Return a topic, or None."""
        with self._reader.read() as raw:
            return topics.one_topic(raw, name)

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        """Make a topic, or return the one that is there."""
        del config  # a broker's
        return topics.create(self._writer, name, partitions)

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records."""
        topics.delete(self._writer, name)

    def start_offset(self, topic: str, partition: int) -> int:
        """Return the first offset still in the log."""
        with self._reader.read() as raw:
            return topics.part_of(raw, self.url, topic, partition).start

    def end_offset(self, topic: str, partition: int, *, uncommitted: bool = False) -> int:
        """Return one past the last committed offset."""
        del uncommitted  # what isn't committed has no offset here
        with self._reader.read() as raw:
            return topics.part_of(raw, self.url, topic, partition).next

    def end_offsets(
        self, partitions: Iterable[TopicPartition], *, uncommitted: bool = False
    ) -> dict[TopicPartition, int]:
        """Return several end offsets, taken at one moment."""
        del uncommitted
        with self._reader.read() as raw:
            return {TopicPartition(*tp): topics.part_of(raw, self.url, *tp).next for tp in partitions}

    def offset_for_time(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return the earliest offset whose timestamp is >= `time_ms`, or None."""
        # SQLite compares with 64 bits, and no timestamp lies outside them.
        if time_ms >= 1 << 63:
            return None
        time_ms = max(time_ms, -(1 << 63))
        with self._reader.read() as raw:
            part = topics.part_of(raw, self.url, topic, partition)
            batches = raw.execute(
                "SELECT base, blob, crc FROM batch WHERE topic = ? AND partition = ? AND next > ? AND time_max >= ? ORDER BY base",
                (part.topic, partition, part.start, time_ms),
            )
            # Only the batch that the start cuts can have its late records below it: a second look at most.
            for base, blob, crc in batches:
                times = as_lists(
                    self._load(raw, TopicPartition(topic, partition), base, blob, crc)
                ).timestamps
                for offset, time in enumerate(times, base):
                    if time >= time_ms and offset >= part.start:
                        return offset
        return None

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        end: int | None = None,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Batch:
        """Return records from `offset` on, before `end`, at most `bytes_max`."""
        parts: list[Columns] = []
        total, at = 0, offset
        with self._reader.read() as raw:
            part = topics.part_of(raw, self.url, topic, partition)
            if offset < part.start:
                raise trimmed(topic, partition, offset, part.start)
            end = part.next if end is None else min(end, part.next)
            if offset >= end:
                return Batch.empty(topic, partition, offset)
            first = raw.execute(
                "SELECT max(base) FROM batch WHERE topic = ? AND partition = ? AND base <= ?",
                (part.topic, partition, offset),
            ).fetchone()[0]
            batches = raw.execute(
                "SELECT base, next, nbytes, blob, crc FROM batch WHERE topic = ? AND partition = ? AND base >= ? AND base < ? "
                "ORDER BY base",
                (part.topic, partition, offset if first is None else first, end),
            )
            for base, next_offset, nbytes, blob, crc in batches:
                if parts and total + nbytes > bytes_max:
                    break
                if not base <= at < next_offset:
                    raise self._corrupt(
                        TopicPartition(topic, partition), at, f"found the batch [{base}, {next_offset})"
                    )
                high = min(next_offset, end)
                columns = self._load(raw, TopicPartition(topic, partition), base, blob, crc)
                if len(columns) != next_offset - base:
                    raise self._corrupt(
                        TopicPartition(topic, partition),
                        base,
                        f"found {len(columns)} records, expected {next_offset - base}",
                    )
                whole, columns = columns, columns.part(at - base, high - base)
                if nbytes > bytes_max:
                    count, nbytes = fitting_part(columns, bytes_max)
                    columns, high = columns.part(0, count), at + count
                self._keep(blob, whole, high < next_offset)
                parts.append(columns)
                total, at = total + nbytes, high
                if high < min(next_offset, end):
                    break
            batches.close()
        if not parts:
            raise self._corrupt(TopicPartition(topic, partition), offset, "found no batch there")
        columns = joined(parts)
        return Batch(
            topic, partition, offset, at, range(offset, at), columns.timestamps, columns.keys, columns.values,
            columns.headers, nbytes=total,
        )  # fmt: skip

    def _load(
        self, raw: sqlite3.Connection, where: TopicPartition, base: int, blob: int, crc: int
    ) -> Columns:
        """Return a blob's columns, checked."""
        kept = self._columns.get(blob)
        if kept is not None:
            return kept
        # The cast costs nothing, and a damaged type byte then fails the checksum rather than the driver.
        row = raw.execute("SELECT CAST(data AS BLOB) FROM blob WHERE number = ?", (blob,)).fetchone()
        if row is None:
            raise self._corrupt(where, base, f"blob {blob} is missing")
        found = checksum(row[0])
        if found != crc:
            raise self._corrupt(where, base, f"found the CRC32C {found:#010x}, expected {crc:#010x}")
        return decode(row[0])

    def _keep(self, blob: int, columns: Columns, is_wanted: bool) -> None:
        """Keep the columns of a blob that was read in part: the next read goes on there. A few at most."""
        self._columns.pop(blob, None)
        if is_wanted:
            self._columns[blob] = columns
            if len(self._columns) > _KEPT_COLUMNS:
                self._columns.popitem(last=False)

    def _corrupt(self, where: TopicPartition, offset: int, what: str) -> LogCorruptError:
        return LogCorruptError(
            f"the log {self.url} is damaged at {where}@{offset}: {what}; records before and after can still be read, this stretch "
            "must come from the archive or a copy of the log"
        )

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop records with offsets below `before`."""
        topics.trim(self._writer, self.url, topic, partition, before)

    def commit(self, transaction: Transaction) -> Placed:
        """Append and move positions, all or nothing, durably."""
        check_transaction(transaction)
        point("log.before_begin")
        stage = Stage(self._writer)
        try:
            bases, nbytes = self._commit(transaction, stage)
        except BaseException as error:
            try:
                stage.discard()
            except LogUnavailableError as left:
                # A full disk takes no removal either; the next opener removes it once this process is gone.
                error.add_note(f"staged records were left in the log: {left}")
            raise
        point("log.after_commit")
        self._checkpointer.written(nbytes + _COMMIT_BYTES)
        return bases

    def _commit(self, transaction: Transaction, stage: Stage) -> tuple[Placed, int]:
        batches: list[Stored] = []
        pending: list[Stored] = []
        pending_bytes = total = 0
        for append in transaction.appends:
            for extent in extents_of(append, EXTENT_BYTES):
                data = encode(extent)
                times = extent.timestamps
                stored = Stored(
                    extent.topic,
                    extent.partition,
                    len(extent),
                    extent.nbytes,
                    min(times),
                    max(times),
                    checksum(data),
                    data,
                )
                if pending and pending_bytes + len(data) > TRANSACTION_BYTES:
                    stage.add(pending)
                    self._checkpointer.written(pending_bytes)
                    pending, pending_bytes = [], 0
                batches.append(stored)
                pending.append(stored)
                pending_bytes += len(data)
                total += len(data)
        with self._writer.write() as raw:
            point("log.in_transaction")
            member = transaction.member
            if member is not None:
                groups.check_member(raw, member.group, member.member, transaction.tasks)
            stage.claim(raw)
            bases = self._insert(raw, transaction, batches)
            if member is not None:
                groups.save_positions(raw, member.group, transaction.positions)
            point("log.before_commit")
        return bases, total

    def _insert(self, raw: sqlite3.Connection, transaction: Transaction, batches: list[Stored]) -> Placed:
        """Insert the rows of a transaction, and return the base offset of each partition it appends to."""
        parts: dict[TopicPartition, topics.Part] = {}
        for append in transaction.appends:
            where = TopicPartition(append.topic, append.partition)
            if where not in parts:
                parts[where] = topics.part_of(raw, self.url, *where)
        ends = {where: part.next for where, part in parts.items()}
        for batch in batches:
            where = TopicPartition(batch.topic, batch.partition)
            base = ends[where]
            ends[where] = base + batch.count
            raw.execute(
                "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    parts[where].topic, batch.partition, base, ends[where], batch.time_min, batch.time_max,
                    batch.nbytes, batch.blob or put_blob(raw, batch.data), batch.crc,
                ),
            )  # fmt: skip
        for where, part in parts.items():
            if ends[where] != part.next:
                raw.execute(
                    "UPDATE part SET next = ? WHERE topic = ? AND partition = ?",
                    (ends[where], part.topic, where.partition),
                )
        return Placed({where: part.next for where, part in parts.items()}, ends)

    def positions(
        self, group: str, of: Collection[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Return a group's committed next offsets."""
        with self._reader.read() as raw:
            return chosen(groups.load_positions(raw, group), of)

    def forget_group(self, group: str) -> None:
        """Remove a group's positions."""
        with self._writer.write() as raw:
            raw.execute("DELETE FROM position WHERE crew = ?", (group,))

    def join(
        self,
        group: str,
        tasks: int,
        *,
        lease_s: float = 10.0,
        name: str | None = None,
        process: int | None = None,
    ) -> Membership:
        """Join a group."""
        del name, process  # what an earlier one staged is swept at the next opening
        member = secrets.token_hex(8)
        groups.join(self._writer, self._clock, group, member, tasks, lease_s)
        return groups.EmbeddedMembership(self._writer, self._clock, group, member)

    def members(self, group: str) -> int:
        """Return how many members with a running lease a group has."""
        with self._reader.read() as raw:
            state = groups.load(raw, group)
        return 0 if state is None else state.running(self._clock.monotonic_s())

    def version(self) -> int:
        """Return SQLite's data version, as the reading connection sees it.

        That connection never writes, so the commits of this object's own writing connection count like any other's.
        """
        return self._reader.pragma("data_version")[0]

    def watch(self) -> Watch | None:
        """Return a watch of the folder, or None where the system gives none."""
        return watch_folder(self._path)

    def close(self) -> None:
        """Let go of files and connections. Idempotent."""
        if self._lock is not None:
            self._close()

    def _close(self) -> None:
        if len(self._opened) == 2:
            self._checkpointer.close()
        while self._opened:
            self._opened.pop().close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
