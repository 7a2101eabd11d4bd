"""Sender: one producer: in transactions where it has an id, else idempotent, record by record.

Protocol of a transaction
1. begin, produce, offsets with the group's metadata, commit.
2. Where a broker refuses records for themselves, the transaction is made anew with a report for each record, which names
   them; where it refuses a batch for its size, once more record by record. What is refused is diverted.
3. After a refusal the producer is made anew as well: one that aborts drops what is produced right behind.
4. A generation that moved on while the tasks stayed (a cooperative rebalance) is met with its new number.
5. Whatever else fails leaves the outcome open: the producer is given up; the next one of the same id settles it.
Invariant: after an error nothing is assumed of the transaction.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from enum import Enum
from functools import partial
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

    from headwater.log.interface import Divert
    from headwater.log.kafka.topics import Topics

FLUSH_S = 30.0
ABORT_S = 3.0
MOVED_ON_S = 10.0
MOVED_ON_WAIT_S = 0.02
LEADERS_S = 3.0
"""How long a transactional id is not asked for while partitions have no leader: others' may lack theirs for good."""
LEADERS_WAIT_S = 0.05

_PAUSE = Event()


class Care(Enum):
    """How closely a transaction's records are watched."""

    NONE = 0
    EACH_REPORT = 1
    ONE_BY_ONE = 2


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
        # Of what was sent and not settled: single records that were refused for themselves, and why others were lost.
        self._refused: list[tuple[Append, str]] = []
        self._lost: list[KafkaError] = []

    def open(self, timeout_s: float) -> None:
        """Connect; what an earlier producer of the same id left open is aborted, or known to be committed, then."""
        producer = Producer(self._settings)
        if self.id is not None:
            _await_leaders(producer)
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

    # Records that nobody waits for yet

    def send(self, appends: Sequence[Append]) -> None:
        """Produce records and return; `settle` has the errors. The producer's queue bounds what is on its way."""
        producer = self._required()
        for append in appends:
            for index in range(len(append)):
                single = append if len(append) == 1 else _slice(append, index)
                try:
                    self._produce(producer, single, partial(self._sent, single), each=True)
                except _Refused as refused:
                    self._refused.append((single, next(iter(refused.places.values()))))
        producer.poll(0)

    def _sent(self, single: Append, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            return
        if error.code() in REFUSED_RECORD:
            self._refused.append((single, error.str()))
        else:
            self._lost.append(error)

    def settle(self, divert: Divert | None) -> list[Append]:
        """Wait for all that was sent; return what stands for records that brokers refuse for themselves.

        A batch is refused for its size as a whole: each of its records is tried alone then, behind those sent since.
        """
        left = self._required().flush(FLUSH_S)
        refused, self._refused = self._refused, []
        lost, self._lost = self._lost, []
        if left:
            lost.append(KafkaError(KafkaError._TIMED_OUT))
        if lost:
            self.close()
            raise unavailable(self._url, "sending", KafkaException(lost[0]))
        return [
            self._instead(single, 0, reason, divert)
            for single, reason in refused
            if not self._is_taken_alone(single)
        ]

    def _is_taken_alone(self, single: Append) -> bool:
        if not self.is_open:
            self.open(FLUSH_S)
        try:
            self.append([single])
        except ValueRefusedError:
            return False
        return True

    # Transactions

    def commit(
        self,
        group: str,
        appends: Sequence[Append],
        positions: Mapping[TopicPartition, int],
        metadata: Callable[[], Any] | None,
        divert: Divert | None,
    ) -> Placed:
        """Commit one transaction; return the base offset in each partition.

        `metadata` gives the group's, after checking that its tasks are still this member's. Raises FencedError,
        LogInterruptedError, ValueRefusedError; after the first two the producer is closed.
        """
        appends = list(appends)
        deadline_s = SYSTEM_CLOCK.monotonic_s() + MOVED_ON_S
        care = Care.NONE
        while True:
            try:
                return self._attempt(appends, positions, metadata, care)
            except _Refused as refused:
                self.close()
                if refused.places:
                    appends = self._diverted(appends, refused.places, divert)
                    care = Care.NONE
                elif care is Care.NONE:
                    care = Care.EACH_REPORT
                else:
                    care = Care.ONE_BY_ONE
                self.open(FLUSH_S)
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
        care: Care,
    ) -> Placed:
        producer = self._required()
        placed = Placed({}, {})

        def delivered(error: KafkaError | None, message: Any) -> None:
            _place(placed, error, message)

        producer.begin_transaction()
        self._in_transaction = True
        point("log.in_transaction")
        if care is Care.NONE:
            for number, append in enumerate(appends):
                self._produce(producer, append, delivered, number=number)
        else:
            self._produce_watched(producer, appends, placed, one_by_one=care is Care.ONE_BY_ONE)
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
            if care is Care.NONE and inner is not None and inner.code() in REFUSED_RECORD:
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
        self,
        producer: Producer,
        append: Append,
        delivered: Callable[..., None],
        *,
        number: int = 0,
        each: bool = False,
        first: int = 0,
    ) -> None:
        """Produce an append; `delivered` hears of its first and last record, or of `each`."""
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
                    # By place (callback, on_delivery, timestamp, headers): names cost the client as much as all the rest.
                    if pairs is None:
                        produce(topic, value, key, partition, report, None, stamp)
                    else:
                        produce(topic, value, key, partition, report, None, stamp, pairs)
                    break
                except BufferError:
                    producer.poll(0.05)
                except KafkaException as error:
                    inner = kafka_error(error)
                    if inner is not None and inner.code() in REFUSED_RECORD:
                        raise _Refused({(number, first + index): inner.str()}) from error
                    raise

    def _produce_watched(
        self, producer: Producer, appends: Sequence[Append], placed: Placed, *, one_by_one: bool
    ) -> None:
        """Produce with a report for each record, and raise _Refused for those that the broker refuses for themselves."""
        failed: dict[tuple[int, int], KafkaError] = {}

        def delivered(place: tuple[int, int], error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failed[place] = error
            _place(placed, error, message)

        places = ((number, index) for number, append in enumerate(appends) for index in range(len(append)))
        for number, index in places:
            single = _slice(appends[number], index)
            report = partial(delivered, (number, index))
            self._produce(producer, single, report, number=number, each=True, first=index)
            if one_by_one and (producer.flush(FLUSH_S) or failed):
                break  # the transaction takes nothing more
        if producer.flush(FLUSH_S):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if not failed:
            return
        named = {place: error.str() for place, error in failed.items() if error.code() in REFUSED_RECORD}
        sizes = [error for error in failed.values() if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
        if len(sizes) > 1 and not one_by_one:
            raise _Refused(
                {}
            )  # a batch was: which of its records is too large, if any alone is, is still to be seen
        if not named:
            raise KafkaException(next(iter(failed.values())))
        raise _Refused(named)

    def _diverted(
        self,
        appends: Sequence[Append],
        places: Mapping[tuple[int, int], str],
        divert: Divert | None,
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
                instead.append(self._instead(append, index, reason, divert))
            kept.append(_without(append, gone))
        return [*kept, *instead]

    def _instead(self, append: Append, index: int, reason: str, divert: Divert | None) -> Append:
        """Return what stands for a refused record. Raises ValueRefusedError."""
        letter = None if divert is None else divert(append, index, reason)
        if letter is None:
            raise ValueRefusedError(
                f"{self._url} refuses a record for {append.topic}/{append.partition} for itself: {reason}; nothing of "
                "this call was kept; send less, or raise the topic's limit"
            )
        return letter

    def _required(self) -> Producer:
        if self._producer is None:
            raise failed_commit("", KafkaException(KafkaError(KafkaError._STATE, "the producer is closed")))
        return self._producer


def _await_leaders(producer: Producer) -> None:
    """Wait until all partitions have leaders: to those that have none, brokers write no end of a transaction (decision 0014).

    What asking for an id aborts is the transaction of an earlier producer, and a broker that comes back leads nothing at first.
    """
    until_s = SYSTEM_CLOCK.monotonic_s() + LEADERS_S
    # Where no broker answers, what asks for the id says so.
    with suppress(KafkaException):
        while SYSTEM_CLOCK.monotonic_s() < until_s:
            topics = producer.list_topics(timeout=LEADERS_S).topics.values()
            if all(place.leader >= 0 for topic in topics for place in topic.partitions.values()):
                return
            _PAUSE.wait(LEADERS_WAIT_S)


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
