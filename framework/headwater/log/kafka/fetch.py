"""Fetcher: reads partitions ahead in a thread of its own, for tails that never wait; not for reads that must be complete.

Protocol
1. A tail opens a lane at its position; the thread assigns it, and pushes what comes as columns built once a batch.
2. A lane holds about `LANE_BYTES` at most, and all lanes together about `LANES_BYTES`: while some lane is hungry, full ones are paused; while none is, nothing is
   fetched. So a slow agent slows the source, and a lane that others wait for is never behind a full one.
3. That a partition has nothing more, and what lies between its last record and its end (transaction markers, aborted
   records), is told by the end-of-partition event, whose offset is the position to read on from.
4. A tail that moves gets a new lane. What the thread has in hand by then is the old one's: only the thread says which lane
   is assigned, when it follows the order, and librdkafka gives nothing of an earlier assignment after that.
Invariant: a lane's batches tile the offsets from its position on.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from itertools import groupby
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import Batch, TopicPartition
from headwater.log.interface import READ_BYTES_MAX, Tail, Watch
from headwater.log.kafka.columns import as_batch, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LANE_BYTES = 4 << 20
LANE_BYTES_MIN = 128 << 10
LANES_BYTES = 16 << 20
"""Records take about four times their bytes as Python objects."""

CONSUME_MAX = 5000
POLL_S = 0.05
"""How long the thread may sleep in librdkafka: an assignment waits that long."""


class Lane:
    """One partition of a fetcher, from one tail's position on."""

    __slots__ = ("at_end", "is_open", "is_paused", "nbytes", "pieces", "read_to", "tp", "trouble")

    def __init__(self, tp: TopicPartition, position: int) -> None:
        """Stand at a position; nothing is there yet."""
        self.tp = tp
        self.read_to = position
        self.pieces: deque[Batch] = deque()
        self.nbytes = 0
        self.at_end = False
        self.is_open = True
        self.is_paused = False
        self.trouble: KafkaError | None = None


class Fetcher:
    """One consumer with manual assignment, and its thread. Any thread may call it."""

    def __init__(self, settings: Mapping[str, Any], heard: Callable[[], None]) -> None:
        """Start; `heard` is called from the thread when a lane has something new."""
        self._consumer = Consumer(dict(settings))
        self._heard = heard
        self._lanes: dict[TopicPartition, Lane] = {}
        # The thread's own: whose messages it gets.
        self._assigned: dict[TopicPartition, Lane] = {}
        self._orders: deque[tuple[str, Lane]] = deque()
        self._changed = Condition()
        self._closing = False
        self._full_bytes, self._hungry_bytes = LANE_BYTES, LANE_BYTES // 4
        self._thread = Thread(target=self._run, name="kafka-fetcher", daemon=True)
        self._thread.start()

    def has(self, tp: TopicPartition) -> bool:
        """Tell whether a lane of this partition is open."""
        with self._changed:
            return tp in self._lanes

    def open(self, tp: TopicPartition, position: int) -> Lane:
        """Begin to fetch a partition."""
        lane = Lane(tp, position)
        with self._changed:
            assert tp not in self._lanes
            self._lanes[tp] = lane
            self._share()
            self._orders.append(("assign", lane))
            self._changed.notify()
        return lane

    def drop(self, lane: Lane) -> None:
        """Stop fetching a partition."""
        with self._changed:
            if lane.is_open:
                lane.is_open = False
                del self._lanes[lane.tp]
                self._share()
                self._orders.append(("unassign", lane))
                self._changed.notify()

    def _share(self) -> None:
        self._full_bytes = min(LANE_BYTES, max(LANE_BYTES_MIN, LANES_BYTES // max(1, len(self._lanes))))
        self._hungry_bytes = self._full_bytes // 4

    def take(self, lane: Lane, position: int, bytes_max: int) -> tuple[Batch, bool]:
        """Return what is at hand of a lane, and whether it had come to its end. Raises KafkaException with its trouble."""
        with self._changed:
            if not lane.pieces:
                if lane.trouble is not None:
                    raise KafkaException(lane.trouble)
                return Batch.empty(*lane.tp, position), lane.at_end
            batch = self._taken(lane, bytes_max)
            if lane.nbytes < self._hungry_bytes:
                self._changed.notify()
            return batch, False

    def _taken(self, lane: Lane, bytes_max: int) -> Batch:
        pieces = [lane.pieces.popleft()]
        size = pieces[0].nbytes
        while lane.pieces and size + lane.pieces[0].nbytes <= bytes_max:
            pieces.append(lane.pieces.popleft())
            size += pieces[-1].nbytes
        batch = joined(pieces)
        if size > bytes_max and len(batch) > 1:
            rows = max(1, len(batch) * bytes_max // size)
            if rows < len(batch):
                cut = batch.offsets[rows]
                batch, rest = batch.slice(batch.base, cut), batch.slice(cut, batch.next)
                lane.pieces.appendleft(rest)
        lane.nbytes -= batch.nbytes
        return batch

    def close(self) -> None:
        """End the thread and the consumer. Idempotent."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()

    # The thread's own

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while not (self._closing or self._orders or self._is_hungry()):
                        self._changed.wait()
                    if self._closing:
                        return
                    orders, self._orders = list(self._orders), deque()
                for order, lane in orders:
                    self._follow(order, lane)
                self._fetch()
        finally:
            self._consumer.close()

    def _is_hungry(self) -> bool:
        return any(lane.nbytes < self._hungry_bytes for lane in self._lanes.values())

    def _follow(self, order: str, lane: Lane) -> None:
        place = KafkaPartition(*lane.tp, lane.read_to)
        if order == "unassign":
            self._assigned.pop(lane.tp, None)
            # One that was dropped before it was assigned, or whose topic is gone: there is nothing to take away.
            with suppress(KafkaException):
                self._consumer.incremental_unassign([place])
        elif lane.is_open:
            self._assigned[lane.tp] = lane
            try:
                self._consumer.incremental_assign([place])
                # A partition that was paused when it was given up is still paused when it comes back.
                self._consumer.resume([place])
            except KafkaException as error:
                lane.trouble = error.args[0]
                self._heard()

    def _fetch(self) -> None:
        self._throttle()
        first = self._consumer.poll(POLL_S)
        if first is None:
            return
        messages = [first, *self._consumer.consume(CONSUME_MAX, 0)]
        if any(map(Message.error, messages)):
            errors = list(map(Message.error, messages))
            run: list[Message] = []
            for message, error in zip(messages, errors, strict=True):
                if error is None:
                    run.append(message)
                    continue
                self._push(run)
                run = []
                self._note(message, error)
            self._push(run)
        else:
            self._push(messages)
        self._heard()

    def _throttle(self) -> None:
        with self._changed:
            full = [
                lane
                for lane in self._lanes.values()
                if not lane.is_paused and lane.nbytes >= self._full_bytes
            ]
            hungry = [
                lane for lane in self._lanes.values() if lane.is_paused and lane.nbytes < self._hungry_bytes
            ]
        for lanes, pause in ((full, True), (hungry, False)):
            for lane in lanes:
                # A lane that was just opened has its assignment among the orders still to come.
                with suppress(KafkaException):
                    (self._consumer.pause if pause else self._consumer.resume)([KafkaPartition(*lane.tp)])
                    lane.is_paused = pause

    def _push(self, messages: list[Message]) -> None:
        # `map` and `groupby` over the client's own methods: no frame of the interpreter a record.
        single = len(set(map(Message.topic, messages))) == 1
        for _, run in groupby(messages, Message.partition if single else _place):
            own = list(run)
            topic, partition = tp = TopicPartition(*_place(own[0]))
            lane = self._assigned.get(tp)
            if lane is None:
                continue
            if own[0].offset() < lane.read_to:
                own = [message for message in own if message.offset() >= lane.read_to]
            if own:
                self._add(lane, as_batch(topic, partition, lane.read_to, own[-1].offset() + 1, own))

    def _add(self, lane: Lane, batch: Batch) -> None:
        with self._changed:
            lane.read_to = batch.next
            lane.at_end = False
            lane.trouble = None
            lane.nbytes += batch.nbytes
            lane.pieces.append(batch)

    def _note(self, message: Message, error: KafkaError) -> None:
        if message.topic() is None or message.partition() is None:
            return  # of the whole client: it goes on trying by itself
        lane = self._assigned.get(TopicPartition(message.topic(), message.partition()))
        if lane is None:
            return
        if error.code() != KafkaError._PARTITION_EOF:
            lane.trouble = error
            return
        if message.offset() > lane.read_to:
            self._add(lane, Batch.empty(*lane.tp, lane.read_to, message.offset()))
        lane.trouble = None
        lane.at_end = True


def _place(message: Message) -> tuple[str, int]:
    return message.topic(), message.partition()


class KafkaTail(Tail):
    """A tail that reads what a fetcher has fetched."""

    def __init__(
        self,
        topic: str,
        partition: int,
        position: int,
        fetcher: Callable[[TopicPartition], Fetcher],
        explain: Callable[[TopicPartition, int, KafkaError], Exception | None],
    ) -> None:
        """Begin at `position`; `explain` makes of a lane's trouble what is raised, or None where it passes."""
        self.topic = topic
        self.partition = partition
        self.position = position
        self.at_end = False
        self._tp = TopicPartition(topic, partition)
        self._of = fetcher
        self._explain = explain
        self._open: tuple[Fetcher, Lane] | None = None

    def fetch(self, *, bytes_max: int = READ_BYTES_MAX) -> Batch:
        """Return what is at hand."""
        if self._open is None:
            fetcher = self._of(self._tp)
            self._open = (fetcher, fetcher.open(self._tp, self.position))
        fetcher, lane = self._open
        try:
            batch, self.at_end = fetcher.take(lane, self.position, bytes_max)
        except KafkaException as error:
            # The lane is opened anew by the next fetch, wherever it is then.
            self.close()
            why = self._explain(self._tp, self.position, error.args[0])
            if why is not None:
                raise why from error
            return Batch.empty(*self._tp, self.position)
        self.position = batch.next
        return batch

    def seek(self, offset: int) -> None:
        """Move the position; what was fetched ahead is dropped."""
        if offset != self.position:
            self.close()
            self.position = offset

    def close(self) -> None:
        """Stop fetching. Idempotent."""
        if self._open is not None:
            fetcher, lane = self._open
            self._open = None
            fetcher.drop(lane)


class Bell(Watch):
    """A pipe that is readable after something was fetched; one for each who waits."""

    def __init__(self, forget: Callable[[Bell], None]) -> None:
        """Open it."""
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        # A descriptor that was closed may be another file's a moment later: no ring while it is being closed.
        self._lock = Lock()
        self._forget = forget

    def ring(self) -> None:
        """Make it readable; any thread may."""
        with self._lock:
            if self._in >= 0:
                with suppress(BlockingIOError):  # full: it is readable
                    os.write(self._in, b"\0")

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._out

    def drain(self) -> None:
        """Take what was heard so far."""
        try:
            while len(os.read(self._out, 4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._forget(self)
        with self._lock:
            if self._in >= 0:
                os.close(self._in)
                os.close(self._out)
                self._out = self._in = -1
