"""Cursors: reads that are complete, each by a consumer that goes on where the last read of its partition ended."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager, suppress
from threading import Condition
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import Batch, TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import LogInterruptedError
from headwater.log.extent import RECORD_BYTES, fitting, record_sizes
from headwater.log.kafka.columns import as_batch
from headwater.log.kafka.trouble import UNKNOWN_PLACE, unavailable
from headwater.log.refusal import trimmed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CURSORS_MAX = 8
WAIT_S = 60.0
"""How long a read waits for records that must be there: longer than a transaction may stay open by default in workers."""

CONSUME_MAX = 10_000
RENEWED_MAX = 3

SILENT_S = 0.01
SILENT_MAX = 5
_POLL_S = 0.1


class Measures(Protocol):
    """What a cursor asks of topics."""

    def end(self, topic: str, partition: int, *, committed: bool = True) -> int:
        """Return one past the last offset."""
        ...

    def start(self, topic: str, partition: int) -> int:
        """Return the first offset."""
        ...

    def refuse_missing(self, topic: str, partition: int) -> None:
        """Raise UnknownNameError where it isn't there any more."""
        ...


class Cursor:
    """One consumer on one partition at a time."""

    def __init__(self, url: str, settings: Mapping[str, Any], topics: Measures) -> None:
        """Connect; nothing is assigned."""
        self._url = url
        self._settings = dict(settings)
        self._consumer = Consumer(self._settings)
        self._topics = topics
        self.tp: TopicPartition | None = None
        self.position = 0
        """What the next read of `tp` may ask for without going back."""
        self._ahead: deque[Message] = deque()
        self._ahead_bytes = 0
        self._least = 0
        self._end_seen: int | None = None
        """The position at which the consumer said that there is nothing more; it says so once."""

    def read(
        self, tp: TopicPartition, offset: int, end: int | None, bytes_max: int, *, least: int = 0
    ) -> Batch:
        """Return records from `offset` on; see Log.read. What lies before `least` is there, seen by readers yet or not."""
        self._least = least
        if self.tp != tp or self.position != offset:
            self._go(tp, offset)
        if not self._ahead:
            found = self._wait(tp, offset, end)
            if found is not None:
                return self._empty(tp, offset, found, end)
            self._ahead_bytes = 0
            self._fill(end, bytes_max)
        if end is not None and self._ahead[0].offset() >= end:
            return self._empty(tp, offset, end, end)
        # One more than fits by the lightest records: sizes of all that waits would be weighed at each read.
        count = min(len(self._ahead), bytes_max // RECORD_BYTES + 1)
        messages = [self._ahead[at] for at in range(count)]
        if end is not None:
            messages = [message for message in messages if message.offset() < end]
        batch = as_batch(*tp, offset, messages[-1].offset() + 1, messages)
        fits, weight = fitting(record_sizes(batch.keys, batch.values, batch.headers), bytes_max)
        if fits < len(messages):
            batch = batch.slice(offset, batch.offsets[fits - 1] + 1)
            batch.nbytes = weight
        for _ in range(len(batch)):
            self._ahead.popleft()
        self.position = batch.next
        return batch

    def _empty(self, tp: TopicPartition, offset: int, next: int, end: int | None) -> Batch:
        self.position = max(offset, next if end is None else min(next, end))
        return Batch.empty(*tp, offset, self.position)

    def _go(self, tp: TopicPartition, offset: int) -> None:
        self.leave()
        try:
            self._consumer.assign([KafkaPartition(*tp, offset)])
        except KafkaException as error:
            raise unavailable(self._url, f"reading {tp}@{offset}", error) from error
        self.tp, self.position = tp, offset

    def leave(self) -> None:
        """Forget what was read ahead."""
        self.tp, self._end_seen = None, None
        self._ahead.clear()

    def _wait(self, tp: TopicPartition, offset: int, end: int | None) -> int | None:
        """Read ahead; return a position instead where there are no records before it."""
        if end is not None and offset >= end:
            return offset
        clock = SYSTEM_CLOCK
        deadline_s = clock.monotonic_s() + WAIT_S
        passed, stop, renewed = offset, None, 0
        if self._end_seen is not None:
            passed = self._end_seen
            if passed > offset:
                return passed
            stop = self._stop(tp, end)
            if offset >= stop:
                return offset
        while True:
            message = self._consumer.poll(_POLL_S)
            error = None if message is None else message.error()
            if message is not None and error is None:
                self._end_seen = None
                self._ahead.append(message)
                return None
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                passed = self._end_seen = int(message.offset())
                if passed > offset:
                    return passed
                stop = None
            elif error is not None and message.topic() is not None:
                if not self._explain(tp, offset, error):
                    return offset
                renewed += 1
                if renewed > RENEWED_MAX:
                    raise unavailable(self._url, f"reading {tp}@{offset}", KafkaException(error))
                self._renew(tp, offset)
            if self._end_seen is not None:
                if stop is None or end is None:
                    stop = self._stop(tp, end)
                if passed >= stop:
                    return passed
            if clock.monotonic_s() > deadline_s:
                self.leave()
                raise LogInterruptedError(
                    f"{self._url} gave nothing of {tp}@{offset} for {WAIT_S:.0f} s, though there is something: a transaction "
                    "is open there, or a broker is down; try again, and ask `headwater doctor` whether that transaction ever ends"
                )

    def _fill(self, end: int | None, bytes_max: int) -> None:
        """Read on until there is enough, or the end is seen, or nothing comes for a moment."""
        for message in self._ahead:
            self._ahead_bytes += _weight(message)
        silent = 0
        while (
            self._ahead_bytes < bytes_max
            and self._end_seen is None
            and silent < SILENT_MAX
            and (end is None or self._ahead[-1].offset() + 1 < end)
        ):
            first = self._consumer.poll(SILENT_S)
            if first is None:
                silent += 1
                continue
            silent = 0
            for message in (first, *self._consumer.consume(CONSUME_MAX, 0)):
                error = message.error()
                if error is None:
                    self._ahead.append(message)
                    self._ahead_bytes += _weight(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._end_seen = int(message.offset())

    def _stop(self, tp: TopicPartition, end: int | None) -> int:
        """Return where reading has come to the end of what is there: with an `end`, of what is written at all."""
        if end is None:
            return max(self._least, self._topics.end(*tp))
        return min(end, self._topics.end(*tp, committed=False))

    def _explain(self, tp: TopicPartition, offset: int, error: KafkaError) -> bool:
        """Raise what an error of the partition means; tell whether to try again, else nothing is there yet."""
        self.leave()
        self._topics.refuse_missing(*tp)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            start = self._topics.start(*tp)
            if offset < start:
                raise trimmed(*tp, offset, start)
            # Where it is no offset past the end, the consumer knows another topic of that name, which is gone.
            return offset <= self._topics.end(*tp, committed=False)
        if error.code() in UNKNOWN_PLACE:
            return True
        raise unavailable(self._url, f"reading {tp}@{offset}", KafkaException(error))

    def _renew(self, tp: TopicPartition, offset: int) -> None:
        """Go on with a consumer that knows nothing yet."""
        self._consumer.close()
        self._consumer = Consumer(self._settings)
        self._go(tp, offset)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


def _weight(message: Message) -> int:
    return RECORD_BYTES + len(message.key() or b"") + len(message.value() or b"")


class Cursors:
    """A few cursors, each lent to one thread at a time."""

    def __init__(self, url: str, settings: Mapping[str, Any], topics: Measures) -> None:
        """Make none yet."""
        self._url = url
        self._settings = settings
        self._topics = topics
        self._idle: list[Cursor] = []
        self._count = 0
        self._changed = Condition()
        self._closed = False

    @contextmanager
    def lend(self, tp: TopicPartition, offset: int) -> Iterator[Cursor]:
        """Lend the cursor that stands there, else the one that was idle longest."""
        cursor = self._borrow(tp, offset)
        try:
            yield cursor
        except BaseException:
            cursor.leave()
            raise
        finally:
            with self._changed:
                self._idle.append(cursor)
                self._changed.notify()

    def _borrow(self, tp: TopicPartition, offset: int) -> Cursor:
        with self._changed:
            while True:
                for at, cursor in enumerate(self._idle):
                    if cursor.tp == tp and cursor.position == offset:
                        return self._idle.pop(at)
                for at, cursor in enumerate(self._idle):
                    if cursor.tp is None or self._count >= CURSORS_MAX:
                        return self._idle.pop(at)
                if self._count < CURSORS_MAX:
                    self._count += 1
                    break
                self._changed.wait()
        try:
            return Cursor(self._url, self._settings, self._topics)
        except BaseException:
            with self._changed:
                self._count -= 1
            raise

    def forget(self, topic: str, *, deleted: bool = False) -> None:
        """Have no cursor go on in a topic: it was trimmed or deleted. Consumers remember the ids of deleted ones."""
        gone: list[Cursor] = []
        with self._changed:
            for cursor in self._idle:
                if cursor.tp is not None and cursor.tp.topic == topic:
                    cursor.leave()
            if deleted:
                gone, self._idle = self._idle, []
                self._count -= len(gone)
        for cursor in gone:
            cursor.close()

    def close(self) -> None:
        """Disconnect those that are idle. Idempotent."""
        with self._changed:
            idle, self._idle = self._idle, []
        for cursor in idle:
            with suppress(KafkaException):
                cursor.close()
