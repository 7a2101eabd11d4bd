"""Sender: one producer: in transactions where it has an id, else idempotent, record by record.

Protocol of a transaction
1. Records that the topic can't take for their size are diverted before anything is sent.
2. begin, produce, offsets with the group's metadata, commit.
3. A record that the broker refuses for itself is found, diverted, and the transaction is made anew without it.
4. A generation that moved on while the tasks stayed (a cooperative rebalance) is met with its new number.
5. Whatever else fails leaves the outcome open: the producer is given up; the next one of the same id settles it.
Invariant: after an error nothing is assumed of the transaction.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import Append, TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.crash import point
from headwater.core.errors import ValueRefusedError
from headwater.log.interface import Placed
from headwater.log.kafka.columns import message_time
from headwater.log.kafka.trouble import (
    MOVED_ON,
    REFUSED_RECORD,
    failed_commit,
    kafka_error,
    unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headwater.log.kafka.topics import Topics

FLUSH_S = 30.0
ABORT_S = 3.0
MOVED_ON_S = 10.0
MOVED_ON_WAIT_S = 0.02
OVERHEAD_BYTES = 128
"""What a record batch of one record adds to key, value and headers, with room."""

_PAUSE = Event()


class _Refused(Exception):
    """Records that a broker refused for themselves: (index of the append, index in it) to the reason."""

    def __init__(self, places: dict[tuple[int, int], str]) -> None:
        super().__init__(f"{len(places)} records refused")
        self.places = places


class Sender:
    """One producer. For one thread at a time."""

    def __init__(
        self, url: str, topics: Topics, settings: Mapping[str, Any], transactional_id: str | None
    ) -> None:
        """Make it; a transactional one still has to `open`."""
        self._url = url
        self._topics = topics
        self._settings = dict(settings)
        self.id = transactional_id
        self._producer: Producer | None = None
        self._in_transaction = False

    def open(self, timeout_s: float) -> None:
        """Connect; what an earlier producer of the same id left open is aborted, or known to be committed, then."""
        producer = Producer(self._settings)
        if self.id is not None:
            try:
                producer.init_transactions(timeout_s)
            except KafkaException as error:
                raise unavailable(self._url, f"opening transactions as {self.id!r}", error) from error
        self._producer = producer

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._producer is not None

    def close(self) -> None:
        """Give the producer up. Idempotent.

        Its open transaction is aborted at once where the brokers answer; else by the next producer of the same id, or by
        its timeout.
        """
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with suppress(KafkaException):
            producer.purge()
        if self._in_transaction:
            with suppress(KafkaException):
                producer.abort_transaction(ABORT_S)

    # Records without a transaction

    def append(self, appends: Sequence[Append]) -> Placed:
        """Append records in order by partition, each for itself; return base offsets. Raises ValueRefusedError."""
        producer = self._required()
        placed = Placed({}, {})
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failed.append(error)
            else:
                _place(placed, error, message)

        for append in appends:
            self._produce(producer, append, delivered, each=True)
        if producer.flush(FLUSH_S) or failed:
            reason = failed[0] if failed else KafkaError(KafkaError._TIMED_OUT)
            self.close()
            if failed and reason.code() in REFUSED_RECORD:
                raise ValueRefusedError(
                    f"{self._url} refuses a record for itself ({reason.str()}); it was not appended"
                )
            raise unavailable(self._url, "appending", KafkaException(reason))
        return placed

    # Transactions

    def commit(
        self,
        group: str,
        appends: Sequence[Append],
        positions: Mapping[TopicPartition, int],
        metadata: Callable[[], Any] | None,
        divert: Callable[[Append, int, str], Append | None] | None,
    ) -> Placed:
        """Commit one transaction; return the base offset in each partition.

        `metadata` gives the group's, after checking that its tasks are still this member's. Raises FencedError,
        LogInterruptedError, ValueRefusedError; after the first two the producer is closed.
        """
        appends = self._fitting(list(appends), divert)
        deadline_s = SYSTEM_CLOCK.monotonic_s() + MOVED_ON_S
        careful = False
        while True:
            try:
                return self._attempt(appends, positions, metadata, careful=careful)
            except _Refused as refused:
                self._abort(group)
                if not careful and not refused.places:
                    careful = True
                    continue
                appends = self._diverted(appends, refused.places, divert)
                careful = False
            except KafkaException as error:
                inner = kafka_error(error)
                if (
                    inner is not None
                    and inner.code() in MOVED_ON
                    and inner.txn_requires_abort()
                    and SYSTEM_CLOCK.monotonic_s() < deadline_s
                ):
                    self._abort(group)
                    _PAUSE.wait(MOVED_ON_WAIT_S)
                    continue
                self.close()
                raise failed_commit(group, error) from error
            except BaseException:
                self.close()
                raise

    def _attempt(
        self,
        appends: Sequence[Append],
        positions: Mapping[TopicPartition, int],
        metadata: Callable[[], Any] | None,
        *,
        careful: bool,
    ) -> Placed:
        producer = self._required()
        placed = Placed({}, {})

        def delivered(error: KafkaError | None, message: Any) -> None:
            _place(placed, error, message)

        refused: dict[tuple[int, int], str] = {}
        producer.begin_transaction()
        self._in_transaction = True
        point("log.in_transaction")
        for number, append in enumerate(appends):
            if careful:
                self._produce_each(producer, append, number, refused, placed)
            else:
                self._produce(producer, append, delivered)
        if refused:
            raise _Refused(refused)
        try:
            if positions and metadata is not None:
                point("log.before_positions")
                offsets = [KafkaPartition(*tp, offset) for tp, offset in positions.items()]
                producer.send_offsets_to_transaction(offsets, metadata(), FLUSH_S)
            elif metadata is not None:
                metadata()
            point("log.before_commit")
            producer.commit_transaction(FLUSH_S)
            self._in_transaction = False
            producer.poll(0)
        except KafkaException as error:
            inner = kafka_error(error)
            if not careful and inner is not None and inner.code() in REFUSED_RECORD:
                raise _Refused({}) from error
            raise
        return placed

    def _abort(self, group: str) -> None:
        try:
            self._required().abort_transaction(FLUSH_S)
            self._in_transaction = False
        except KafkaException as error:
            self.close()
            raise failed_commit(group, error) from error

    def _produce(
        self, producer: Producer, append: Append, delivered: Callable[..., None], *, each: bool = False
    ) -> None:
        """Produce an append; `delivered` hears of its first and last record, or of each."""
        topic, partition = append.topic, append.partition
        last = len(append) - 1
        now_ms = SYSTEM_CLOCK.now_ms()
        headers = append.headers if append.headers is not None and any(append.headers) else None
        rows = zip(append.values, append.keys, append.timestamps, headers or ((),) * len(append), strict=True)
        produce = producer.produce
        for index, (value, key, time, own) in enumerate(rows):
            report = delivered if each or index == 0 or index == last else None
            stamp, pairs = message_time(time, own, now_ms)
            while True:
                try:
                    if pairs is None:
                        produce(topic, value, key, partition, on_delivery=report, timestamp=stamp)
                    else:
                        produce(
                            topic, value, key, partition, on_delivery=report, timestamp=stamp, headers=pairs
                        )
                    break
                except BufferError:
                    producer.poll(0.05)

    def _produce_each(
        self,
        producer: Producer,
        append: Append,
        number: int,
        refused: dict[tuple[int, int], str],
        placed: Placed,
    ) -> None:
        """Produce and flush record by record, to find those that the broker refuses for themselves."""
        for index in range(len(append)):
            if refused:
                return  # the transaction can't be committed any more
            single = _slice(append, index)
            failed: list[KafkaError] = []

            def delivered(error: KafkaError | None, message: Any, failed: list[KafkaError] = failed) -> None:
                if error is not None:
                    failed.append(error)
                _place(placed, error, message)

            self._produce(producer, single, delivered)
            if producer.flush(FLUSH_S):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            if failed:
                if failed[0].code() not in REFUSED_RECORD:
                    raise KafkaException(failed[0])
                refused[number, index] = failed[0].str()

    def _fitting(
        self, appends: list[Append], divert: Callable[[Append, int, str], Append | None] | None
    ) -> list[Append]:
        """Divert what is larger than its topic takes."""
        refused: dict[tuple[int, int], str] = {}
        for number, append in enumerate(appends):
            if append.nbytes <= SAFE_BYTES and append.headers is None:
                continue
            limit = self._topics.record_bytes_max(append.topic) - OVERHEAD_BYTES
            for index in range(len(append)):
                size = _record_bytes(append, index)
                if size > limit:
                    refused[number, index] = (
                        f"a record of {size} bytes is larger than topic {append.topic} takes (max.message.bytes: {limit + OVERHEAD_BYTES})"
                    )
        return self._diverted(appends, refused, divert) if refused else appends

    def _diverted(
        self,
        appends: Sequence[Append],
        places: Mapping[tuple[int, int], str],
        divert: Callable[[Append, int, str], Append | None] | None,
    ) -> list[Append]:
        """Return the appends without the refused records, and what stands for each at the end."""
        by_append: dict[int, dict[int, str]] = defaultdict(dict)
        for (number, index), reason in places.items():
            by_append[number][index] = reason
        kept: list[Append] = []
        instead: list[Append] = []
        for number, append in enumerate(appends):
            gone = by_append.get(number)
            if not gone:
                kept.append(append)
                continue
            for index, reason in sorted(gone.items()):
                letter = None if divert is None else divert(append, index, reason)
                if letter is None:
                    raise ValueRefusedError(
                        f"{self._url} refuses a record for {append.topic}/{append.partition} for itself: {reason}; nothing of "
                        "this call was kept; send less, or raise the topic's limit"
                    )
                instead.append(letter)
            kept.append(_without(append, gone))
        return [*kept, *instead]

    def _required(self) -> Producer:
        if self._producer is None:
            raise failed_commit("", KafkaException(KafkaError(KafkaError._STATE, "the producer is closed")))
        return self._producer


SAFE_BYTES = 900_000
"""Less than any topic's default limit: an append without headers that weighs less as a whole has no record too large."""


def _record_bytes(append: Append, index: int) -> int:
    size = len(append.keys[index] or b"") + len(append.values[index] or b"")
    if append.headers is not None:
        size += sum(
            len(name.encode()) + len(value or b"") + 10 for name, value in append.headers[index] or ()
        )
    return size


def _slice(append: Append, index: int) -> Append:
    at = slice(index, index + 1)
    headers = None if append.headers is None else append.headers[at]
    return Append(
        append.topic, append.partition, append.timestamps[at], append.keys[at], append.values[at], headers
    )


def _without(append: Append, gone: Mapping[int, str]) -> Append:
    keep = [index for index in range(len(append)) if index not in gone]
    headers = None if append.headers is None else [append.headers[index] for index in keep]
    return Append(
        append.topic, append.partition, [append.timestamps[at] for at in keep], [append.keys[at] for at in keep],
        [append.values[at] for at in keep], headers,
    )  # fmt: skip


def _place(placed: Placed, error: KafkaError | None, message: Any) -> None:
    """Note where a record was put."""
    offset = None if error is not None else message.offset()
    if offset is None:
        return
    tp = TopicPartition(message.topic(), message.partition())
    placed[tp] = min(placed.get(tp, offset), offset)
    placed.ends[tp] = max(placed.ends.get(tp, 0), offset + 1)
