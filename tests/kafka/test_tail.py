"""Tails on a real broker: they never wait, tile the offsets, are bounded in bytes, and tell where the end is."""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Iterator
from threading import Event

import pytest
from confluent_kafka import Message

from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import OffsetTrimmedError, UnknownNameError
from headwater.log.interface import Tail
from headwater.log.kafka import KafkaLog
from headwater.log.kafka.fetch import CONSUME_MAX, LANE_BYTES, Fetcher, KafkaTail

pytestmark = pytest.mark.broker

RECORD_BYTES = 10_000


@pytest.fixture
def log(broker: str) -> Iterator[KafkaLog]:
    log = KafkaLog(f"kafka://{broker}")
    yield log
    log.close()


@pytest.fixture
def topic(log: KafkaLog) -> str:
    name = f"tail{secrets.token_hex(4)}"
    log.create_topic(name, 2)
    return name


def fill(log: KafkaLog, topic: str, partition: int, first: int, count: int, size: int = 10) -> None:
    values = [b"%d" % n + b"." * size for n in range(first, first + count)]
    log.append([Append(topic, partition, [5] * count, [None] * count, values)])


def numbers(values: list[bytes | None]) -> list[int]:
    return [int((value or b"").partition(b".")[0]) for value in values]


def drain(tail: Tail, count: int, within_s: float = 60, bytes_max: int = 1 << 20) -> list[int]:
    """Fetch until so many records have come, checking that batches tile."""
    found: list[int] = []
    end_s = time.monotonic() + within_s
    while len(found) < count:
        before = tail.position
        batch = tail.fetch(bytes_max=bytes_max)
        assert (batch.base, tail.position) == (before, batch.next)
        found += numbers(list(batch.values))
        if batch.next == batch.base:
            assert time.monotonic() < end_s, f"{len(found)} of {count} came"
            time.sleep(0.01)
    return found


def test_a_tail_gives_everything_in_order_and_then_says_that_it_is_at_the_end(
    log: KafkaLog, topic: str
) -> None:
    watch = log.watch()
    assert watch is not None
    tail = log.tail(topic, 0, 0)
    for first in range(0, 60, 20):
        fill(log, topic, 0, first, 20)
    assert drain(tail, 60) == list(range(60))
    end_s = time.monotonic() + 20
    while not tail.at_end:
        assert not len(tail.fetch())
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert tail.position == log.end_offset(topic, 0), "the last marker is passed"
    watch.drain()
    seen = log.version()
    fill(log, topic, 0, 60, 5)
    assert select.select([watch.fileno()], [], [], 10)[0]
    assert log.version() != seen
    assert drain(tail, 5) == list(range(60, 65))
    watch.close()
    watch.close()
    tail.close()


def test_two_tails_of_one_partition_stand_where_each_is_and_move_by_seek(log: KafkaLog, topic: str) -> None:
    fill(log, topic, 0, 0, 50)
    one, other = log.tail(topic, 0, 0), log.tail(topic, 0, 30)
    assert drain(one, 50) == list(range(50))
    assert drain(other, 20) == list(range(30, 50))
    one.seek(10)
    assert drain(one, 40, bytes_max=200) == list(range(10, 50))
    for tail in (one, other):
        tail.close()


class Held(Fetcher):
    """A fetcher whose thread stops with messages in its hand, until it is let go."""

    def __init__(self, log: KafkaLog) -> None:
        self.has_some, self.go = Event(), Event()
        super().__init__(log._readers, self.has_some.clear)

    def _push(self, messages: list[Message]) -> None:
        if messages:
            self.has_some.set()
            assert self.go.wait(30)
        super()._push(messages)


def test_what_was_fetched_for_an_earlier_position_is_not_taken_for_the_present_one(
    log: KafkaLog, topic: str
) -> None:
    """I1: a task that is given up and taken back reads from its position on, whatever is still on its way."""
    fill(log, topic, 0, 0, 50)
    tp = TopicPartition(topic, 0)
    fetcher = Held(log)
    before = fetcher.open(tp, 30)
    assert fetcher.has_some.wait(60)
    fetcher.drop(before)
    lane = fetcher.open(tp, 10)
    fetcher.go.set()
    found: list[int] = []
    end_s = time.monotonic() + 60
    while len(found) < 40 and time.monotonic() < end_s:
        batch, _ = fetcher.take(lane, 10 + len(found), 1 << 20)
        found += numbers(list(batch.values))
        time.sleep(0.002)
    assert found == list(range(10, 50))
    fetcher.close()


def test_a_lane_that_nobody_reads_is_bounded_and_holds_up_no_other(log: KafkaLog, topic: str) -> None:
    """I25: bounded in bytes, however much the broker has."""
    for partition in (0, 1):
        for first in range(0, 2000, 500):
            fill(log, topic, partition, first, 500, RECORD_BYTES)
    slow, quick = log.tail(topic, 0, 0), log.tail(topic, 1, 0)
    assert isinstance(slow, KafkaTail)
    got = drain(slow, 1)
    assert drain(quick, 2000) == list(range(2000))
    assert slow._open is not None
    assert slow._open[1].nbytes <= LANE_BYTES + CONSUME_MAX * RECORD_BYTES
    assert got + drain(slow, 2000 - len(got)) == list(range(2000))
    for tail in (slow, quick):
        tail.close()


def test_a_tail_below_the_start_or_without_its_topic_says_so(log: KafkaLog, topic: str) -> None:
    fill(log, topic, 0, 0, 10)
    log.trim(topic, 0, 5)
    tail = log.tail(topic, 0, 2)
    with pytest.raises(OffsetTrimmedError) as refused:
        drain(tail, 1)
    assert refused.value.start == 5
    tail.seek(5)
    assert drain(tail, 5) == list(range(5, 10))
    tail.close()
    with pytest.raises(UnknownNameError):
        log.tail(f"{topic}x", 0, 0)


def test_a_partition_that_was_full_when_it_was_given_up_is_read_when_it_comes_back(
    log: KafkaLog, topic: str
) -> None:
    """As when tasks move away from a worker and back: what was paused must not stay so."""
    count = 2 * LANE_BYTES // RECORD_BYTES
    fill(log, topic, 0, 0, count, RECORD_BYTES)
    tail = log.tail(topic, 0, 0)
    assert isinstance(tail, KafkaTail)
    found = drain(tail, 1)
    opened = tail._open
    assert opened is not None
    end_s = time.monotonic() + 60
    while not opened[1].is_paused:
        # A tail beside it keeps the thread at work: one that is full itself does not ask for more.
        log.tail(topic, 1, 0).fetch()
        assert time.monotonic() < end_s, "it was never full"
        time.sleep(0.01)
    tail.close()
    again = log.tail(topic, 0, 0)
    assert drain(again, count) == list(range(count))
    assert found[0] == 0
