"""Records as plain tuples, to compare what went into a log with what came out of an archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from headwater.core.batch import Append, Batch, Headers
from headwater.log.interface import Log


class Row(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def append_rows(
    log: Log, rows: Sequence[tuple[int, bytes | None, bytes | None, Headers]], topic: str = "orders"
) -> None:
    """Append (timestamp, key, value, headers) records to partition 0."""
    times, keys, values, headers = zip(*rows, strict=True)
    log.append([Append(topic, 0, list(times), list(keys), list(values), list(headers))])


def append_numbered(
    log: Log, count: int, *, start: int = 0, topic: str = "orders", partition: int = 0
) -> None:
    """Append `count` small records whose time, key and value tell their number."""
    numbers = range(start, start + count)
    log.append(
        [
            Append(
                topic, partition, [1_000 + n for n in numbers], [b"k%d" % (n % 7) for n in numbers],
                [b'{"n":%d}' % n for n in numbers],
            )
        ]
    )  # fmt: skip


def rows_of(batches: Iterable[Batch]) -> list[Row]:
    """Return the records of batches, having checked that the batches tile their offsets (I12)."""
    rows: list[Row] = []
    position: int | None = None
    for batch in batches:
        assert position is None or batch.base == position, (batch, position)
        assert all(batch.base <= offset < batch.next for offset in batch.offsets), batch
        position = batch.next
        for index, offset in enumerate(batch.offsets):
            rows.append(
                Row(
                    offset,
                    batch.timestamps[index],
                    batch.keys[index],
                    batch.values[index],
                    batch.headers_at(index),
                )
            )
    assert all(a.offset < b.offset for a, b in pairwise(rows))
    return rows


def log_rows(log: Log, topic: str = "orders", partition: int = 0) -> list[Row]:
    """Return all records that are in the log."""
    batches = []
    position, end = log.start_offset(topic, partition), log.end_offset(topic, partition)
    while position < end:
        batch = log.read(topic, partition, position, end=end)
        batches.append(batch)
        position = batch.next
    return rows_of(batches)


def read_into(rows: list[Row], batches: Iterable[Batch]) -> None:
    """Put the records of batches in `rows` one batch at a time, so that those before an error are seen."""
    for batch in batches:
        rows += rows_of([batch])
