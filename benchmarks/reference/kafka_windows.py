"""One-minute windows over Kafka, exactly once, as a bare loop: confluent-kafka, msgspec, one transaction every 100 ms.

A transaction holds the windows that ended, as JSON, and the positions. Records of a partition come in order of time, so that one
minute is open at a time. Open windows are in memory alone: nothing is rebalanced, retried or kept over a restart.

    python -m benchmarks.reference.kafka_windows JOB.json
"""

from __future__ import annotations

from time import perf_counter

import msgspec
from confluent_kafka import TopicPartition

from benchmarks.peers.job import Counter, Job
from benchmarks.reference.kafka_settings import PARTITIONS, clients
from benchmarks.reference.sqlite_table import Click

MINUTE_MS = 60_000


def main() -> None:
    """Read the topic once; the checker reads the windows from the output."""
    job = Job.read()
    counter = Counter(job)
    consumer, group, producer = clients(
        job, queue_buffering_max_messages=1_000_000, compression_type="lz4", linger_ms=2
    )
    positions: dict[int, int] = {}
    minutes = [0] * PARTITIONS
    opened: list[dict[str, tuple[int, float]]] = [{} for _ in range(PARTITIONS)]
    consume, decode, encode = (
        consumer.consume,
        msgspec.json.Decoder(Click).decode,
        msgspec.json.Encoder().encode,
    )
    produce, output = producer.produce, job.output

    def close(partition: int) -> None:
        start = minutes[partition] * MINUTE_MS
        for user, (count, total) in opened[partition].items():
            produce(output, encode({"user": user, "start": start, "count": count, "sum": total}), user)
        opened[partition].clear()

    left, due = job.records, 0.0
    producer.begin_transaction()
    while left:
        messages = consume(5000, 0.02)
        if messages and not counter.began:
            counter.start()
            due = perf_counter() + job.commit_s
        left -= len(messages)
        for message in messages:
            partition = message.partition()
            minute = message.timestamp()[1] // MINUTE_MS
            if minute != minutes[partition]:
                close(partition)
                minutes[partition] = minute
            click = decode(message.value())
            windows = opened[partition]
            count, total = windows.get(click.user, (0, 0.0))
            windows[click.user] = count + 1, total + click.amount
            positions[partition] = message.offset() + 1
        if positions and (not left or perf_counter() >= due):
            places = [TopicPartition(job.topic, partition, end) for partition, end in positions.items()]
            producer.send_offsets_to_transaction(places, group, 30)
            producer.commit_transaction(30)
            due = perf_counter() + job.commit_s
            if left:
                producer.begin_transaction()
    counter.stop()
    counter.seen = job.records
    consumer.close()
    counter.report(None)


if __name__ == "__main__":
    main()
