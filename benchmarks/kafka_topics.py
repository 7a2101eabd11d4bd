"""Topics on a real Kafka for the benchmarks: filled beforehand with the same records, and read back to check answers."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks import data
from tests.kafka.cluster import Cluster, missing

READ_S = 120
WINDOW_MS = 60_000
STEP_MS = 1_000


@contextmanager
def broker() -> Iterator[str]:
    """Start one broker in a folder of its own, yield its address, and stop it whatever happens."""
    lacking = missing()
    if lacking is not None:
        raise SystemExit(lacking)
    # A benchmark that is stopped must not leave its broker behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="headwater-bench-kafka-") as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            yield cluster.bootstrap
        finally:
            cluster.close()


def create(bootstrap: str, topic: str, partitions: int = data.PARTITIONS, **settings: str) -> None:
    """Make a topic that keeps all: event times are years old, and retention would delete them."""
    chosen = {"retention.ms": "-1", "cleanup.policy": "delete"}
    chosen.update({name.replace("_", "."): value for name, value in settings.items()})
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, partitions, 1, config=chosen)])[topic].result(30)


def warm(bootstrap: str, seconds: float, partitions: int = 2 * data.PARTITIONS + 1) -> int:
    """Commit small transactions with a group's offsets, one behind the other; return how many.

    A broker's Java machine compiles what a transaction takes during its first thousands: they last five times as long.
    """
    topic = f"warm-{uuid4().hex[:8]}"
    create(bootstrap, topic, partitions)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "log_level": 0})
    consumer.subscribe([topic])
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(READ_S)
    until = time.monotonic() + READ_S
    while not consumer.assignment():
        consumer.poll(0.1)
        if time.monotonic() > until:
            raise SystemExit(f"{bootstrap} gave no partition of {topic} within {READ_S} s")
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        producer.begin_transaction()
        for partition in range(partitions):
            producer.produce(topic, b"." * 200, partition=partition)
        consumer.poll(0)
        producer.send_offsets_to_transaction(
            [TopicPartition(topic, partition, count) for partition in range(partitions)],
            consumer.consumer_group_metadata(),
        )
        producer.commit_transaction()
        count += 1
    consumer.close()
    return count


def fill(bootstrap: str, topic: str, batches: Iterable[data.Clicks]) -> int:
    """Make a topic and produce the batches, each partition in order; return how many records."""
    create(bootstrap, topic)
    lost: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 50,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 0,
        }
    )

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            lost.append(str(error))

    count = 0
    for clicks in batches:
        for timestamp, key, value in zip(clicks.timestamps, clicks.keys, clicks.values, strict=True):
            while True:
                try:
                    producer.produce(
                        topic,
                        value,
                        key,
                        clicks.partition,
                        timestamp=timestamp,
                        on_delivery=delivered,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        count += len(clicks)
        producer.poll(0)
    left = producer.flush(READ_S)
    if left or lost:
        raise SystemExit(f"{topic}: {left} records not sent, {len(lost)} refused ({lost[:1]})")
    return count


def minutes(records: int) -> Iterator[data.Clicks]:
    """Yield the clicks a second apart, their time in the value too: a minute and user has about one click.

    The last record of each partition comes an hour later and closes all windows before it.
    """
    end = data.TIME_MS + records * STEP_MS + 3_600_000
    for clicks in data.batches(records):
        times = [data.TIME_MS + (at - data.TIME_MS) * STEP_MS for at in clicks.timestamps]
        values = [b'%s,"time":%d}' % (value[:-1], at) for value, at in zip(clicks.values, times, strict=True)]
        yield data.Clicks(clicks.partition, clicks.base, times, clicks.keys, values)
    for partition, name in closing_names().items():
        value = b'{"user":"%s","amount":0.0,"page":"","session":"","item":0,"time":%d}' % (name, end)
        yield data.Clicks(partition, 0, [end], [name], [value])


def closing_names() -> dict[int, bytes]:
    """Return a key for each partition, whose only record closes the windows."""
    from headwater.core.partitioner import partition_of

    found: dict[int, bytes] = {}
    number = 0
    while len(found) < data.PARTITIONS:
        name = b"closing-%d" % number
        found.setdefault(partition_of(name, data.PARTITIONS), name)
        number += 1
    return dict(sorted(found.items()))


def windows(records: int) -> dict[tuple[str, int], tuple[int, int]]:
    """Return what the windows must hold: (user, start) to (clicks, sum in cents)."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for clicks in minutes(records):
        for value in clicks.values:
            click = json.loads(value)
            if click["user"].startswith("closing"):
                continue
            place = click["user"], click["time"] - click["time"] % WINDOW_MS
            count, cents = found.get(place, (0, 0))
            found[place] = count + 1, cents + round(click["amount"] * 100)
    return found


def ends(bootstrap: str, topic: str, partitions: int = data.PARTITIONS) -> dict[int, int]:
    """Return the end offset of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-ends", "log_level": 0})
    try:
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
            for partition in range(partitions)
        }
    finally:
        consumer.close()


def read(bootstrap: str, topic: str, partitions: int = data.PARTITIONS) -> Iterator[Any]:
    """Yield all committed messages of a topic, up to the ends it has now."""
    wanted = ends(bootstrap, topic, partitions)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-read",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 2,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition, end in wanted.items() if end])
        open_partitions = {partition for partition, end in wanted.items() if end}
        until = time.monotonic() + READ_S
        while open_partitions:
            if time.monotonic() > until:
                raise SystemExit(f"{topic}: not read to its end within {READ_S} s")
            for message in consumer.consume(5000, 0.1):
                error = message.error()
                if error is None:
                    yield message
                elif error.name() == "_PARTITION_EOF":
                    open_partitions.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
