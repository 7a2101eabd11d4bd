"""Messages as batches and records as messages: columns, timestamps that Kafka can't hold, headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.batch import Batch
from headwater.core.header import TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.core.batch import Headers

RECORD_BYTES = 64
"""What a record counts beside its key and value."""

AHEAD_MS_MAX = 3_600_000 - 60_000
"""Brokers refuse timestamps further in the future (message.timestamp.after.max.ms: an hour), less a minute of skew."""


def as_batch(topic: str, partition: int, base: int, next: int, messages: Sequence[Any]) -> Batch:
    """Return consumed messages of one partition as columns."""
    if not messages:
        return Batch.empty(topic, partition, base, next)
    offsets = [m.offset() for m in messages]
    timestamps = [m.timestamp()[1] for m in messages]
    keys = [m.key() for m in messages]
    values = [m.value() for m in messages]
    headers: list[Headers] | None = [tuple(h) if (h := m.headers()) else () for m in messages]
    if headers is not None and not any(headers):
        headers = None
    elif headers is not None:
        for at, own in enumerate(headers):
            if own and own[-1][0] == TIME:
                timestamps[at] = int(own[-1][1] or b"0")
                headers[at] = own[:-1]
    nbytes = (
        sum(map(len, filter(None, keys))) + sum(map(len, filter(None, values))) + RECORD_BYTES * len(keys)
    )
    return Batch(topic, partition, base, next, offsets, timestamps, keys, values, headers, nbytes=nbytes)


def message_time(timestamp: int, headers: Headers, now_ms: int) -> tuple[int, list[tuple[str, bytes | None]]]:
    """Return the timestamp for Kafka, and the headers, with the event time in `hw.t` where Kafka can't hold it.

    0 would be taken for the time of sending; times before 1970 and far ahead are refused by brokers.
    """
    if 0 < timestamp <= now_ms + AHEAD_MS_MAX:
        return timestamp, list(headers)
    held = 1 if timestamp <= 0 else now_ms
    return held, [*headers, (TIME, str(timestamp).encode())]
