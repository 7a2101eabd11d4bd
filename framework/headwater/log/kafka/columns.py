"""Messages as batches and records as messages: columns, timestamps that Kafka can't hold, headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from headwater.core.batch import Batch
from headwater.core.header import TIME
from headwater.log.extent import RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.core.batch import Headers

AHEAD_MS_MAX = 3_600_000 - 60_000
"""Brokers refuse timestamps further in the future (message.timestamp.after.max.ms: an hour), less a minute of skew."""


def as_batch(topic: str, partition: int, base: int, next: int, messages: Sequence[Any]) -> Batch:
    """Return consumed messages of one partition as columns."""
    # `map` over the methods: no frame of the interpreter a record.
    timestamps = [stamp for _, stamp in map(Message.timestamp, messages)]
    keys = list(map(Message.key, messages))
    values = list(map(Message.value, messages))
    found = list(map(Message.headers, messages))
    headers: list[Headers] | None = None
    if any(found):
        headers = [tuple(own) if own else () for own in found]
        for at, own in enumerate(headers):
            if own and own[-1][0] == TIME:
                timestamps[at] = int(own[-1][1] or b"0")
                headers[at] = own[:-1]
    return Batch(
        topic, partition, base, next, list(map(Message.offset, messages)), timestamps, keys, values, headers,
        nbytes=_bytes_of(keys) + _bytes_of(values) + RECORD_BYTES * len(keys),
    )  # fmt: skip


def _bytes_of(column: Sequence[bytes | None]) -> int:
    return sum(map(len, filter(None, column)))


def joined(batches: Sequence[Batch]) -> Batch:
    """Return batches that follow on each other as one."""
    first, last = batches[0], batches[-1]
    if len(batches) == 1:
        return first
    headers = None
    if any(batch.headers is not None for batch in batches):
        headers = [own for batch in batches for own in (batch.headers or [()] * len(batch))]
    return Batch(
        first.topic, first.partition, first.base, last.next,
        [x for b in batches for x in b.offsets], [x for b in batches for x in b.timestamps],
        [x for b in batches for x in b.keys], [x for b in batches for x in b.values], headers,
        nbytes=sum(b.nbytes for b in batches),
    )  # fmt: skip


def message_time(
    timestamp: int, headers: Headers, now_ms: int
) -> tuple[int, list[tuple[str, bytes | None]] | None]:
    """Return the timestamp for Kafka, and the headers, with the event time in `hw.t` where Kafka can't hold it.

    0 would be taken for the time of sending; times before 1970 and far ahead are refused by brokers.
    """
    if 0 < timestamp <= now_ms + AHEAD_MS_MAX:
        return timestamp, list(headers) if headers else None
    held = 1 if timestamp <= 0 else now_ms + AHEAD_MS_MAX
    return held, [*headers, (TIME, str(timestamp).encode())]
