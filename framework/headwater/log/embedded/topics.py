"""Topics and partitions in the database: finding, making, dropping, trimming, and sweeping what became invisible."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from headwater.core.names import check_topic
from headwater.log.interface import TopicInfo
from headwater.log.refusal import check_partitions, unknown_partition, unknown_topic

if TYPE_CHECKING:
    import sqlite3

    from headwater.log.embedded.database import Database

SWEEP_ROWS = 2000
"""Batches removed in one transaction: freeing a blob writes little, but others wait for it."""


class Part(NamedTuple):
    """A partition as stored: its topic's number, its start and its next offset."""

    topic: int
    start: int
    next: int


def all_topics(raw: sqlite3.Connection) -> dict[str, TopicInfo]:
    """Return all topics by name."""
    rows = raw.execute("SELECT name, topic_id, partitions FROM topic ORDER BY name")
    return {row[0]: TopicInfo(*row) for row in rows}


def one_topic(raw: sqlite3.Connection, name: str) -> TopicInfo | None:
    """Return a topic, or None."""
    row = raw.execute("SELECT name, topic_id, partitions FROM topic WHERE name = ?", (name,)).fetchone()
    return None if row is None else TopicInfo(*row)


def part_of(raw: sqlite3.Connection, url: str, topic: str, partition: int) -> Part:
    """Return a partition; raises UnknownNameError."""
    row = raw.execute(
        "SELECT p.topic, p.start, p.next FROM topic t JOIN part p ON p.topic = t.number WHERE t.name = ? AND p.partition = ?",
        (topic, partition),
    ).fetchone()
    if row is None:
        info = one_topic(raw, topic)
        if info is None:
            raise unknown_topic(url, topic, all_topics(raw))
        raise unknown_partition(url, topic, partition, info.partitions)
    return Part(*row)


def create(database: Database, name: str, partitions: int) -> TopicInfo:
    """Make a topic, or return the one that is there."""
    check_topic(name)
    with database.read() as raw:
        info = one_topic(raw, name)
    check_partitions(name, partitions, None if info is None else info.partitions)
    if info is not None:
        return info
    with database.write() as raw:
        info = one_topic(raw, name)
        check_partitions(name, partitions, None if info is None else info.partitions)
        if info is None:
            info = TopicInfo(name, secrets.token_hex(8), partitions)
            number = raw.execute(
                "INSERT INTO topic (name, topic_id, partitions) VALUES (?, ?, ?)",
                (name, info.topic_id, partitions),
            ).lastrowid
            raw.executemany("INSERT INTO part VALUES (?, ?, 0, 0)", [(number, p) for p in range(partitions)])
    return info


def delete(database: Database, name: str) -> None:
    """Remove a topic in one transaction, then its records in small ones."""
    with database.write() as raw:
        row = raw.execute("SELECT number FROM topic WHERE name = ?", (name,)).fetchone()
        if row is None:
            return
        raw.execute("DELETE FROM topic WHERE number = ?", row)
        raw.execute("DELETE FROM part WHERE topic = ?", row)
        raw.execute("INSERT INTO dropped VALUES (?)", row)
    sweep_dropped(database)


def sweep_dropped(database: Database) -> None:
    """Remove the records of dropped topics; what a crash leaves is removed by the next opener."""
    while True:
        with database.read() as raw:
            if raw.execute("SELECT 1 FROM dropped LIMIT 1").fetchone() is None:
                return
        with database.write() as raw:
            row = raw.execute("SELECT topic FROM dropped LIMIT 1").fetchone()
            if row is None:
                return
            batches = raw.execute(
                "SELECT topic, partition, base, blob FROM batch WHERE topic = ? LIMIT ?", (row[0], SWEEP_ROWS)
            ).fetchall()
            _remove(raw, batches)
            if len(batches) < SWEEP_ROWS:
                raw.execute("DELETE FROM dropped WHERE topic = ?", row)


def trim(database: Database, url: str, topic: str, partition: int, before: int) -> None:
    """Raise a partition's start, then remove the batches that lie below it whole."""
    with database.write() as raw:
        part = part_of(raw, url, topic, partition)
        before = min(before, part.next)
        if before <= part.start:
            return
        raw.execute(
            "UPDATE part SET start = ? WHERE topic = ? AND partition = ?", (before, part.topic, partition)
        )
        more = _sweep_below(raw, part.topic, partition, before)
    while more:
        with database.write() as raw:
            more = _sweep_below(raw, part.topic, partition, before)


def _sweep_below(raw: sqlite3.Connection, topic: int, partition: int, start: int) -> bool:
    batches = raw.execute(
        "SELECT topic, partition, base, blob FROM batch WHERE topic = ? AND partition = ? AND base < ? AND next <= ? "
        "ORDER BY base LIMIT ?",
        (topic, partition, start, start, SWEEP_ROWS),
    ).fetchall()
    _remove(raw, batches)
    return len(batches) == SWEEP_ROWS


def _remove(raw: sqlite3.Connection, batches: list[tuple[int, int, int, int]]) -> None:
    raw.executemany(
        "DELETE FROM batch WHERE topic = ? AND partition = ? AND base = ?", [b[:3] for b in batches]
    )
    raw.executemany("DELETE FROM blob WHERE number = ?", [(b[3],) for b in batches])
