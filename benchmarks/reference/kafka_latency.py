"""Running totals over Kafka, exactly once, as a bare loop: confluent-kafka, msgspec, a dict, a transaction each `commit_s`.

A transaction holds the outputs, a changelog record for each change, and the group's positions. It is the least that
librdkafka takes for an output that only readers of committed records wait for. Nothing is rebalanced, retried or recovered.

    python -m benchmarks.reference.kafka_latency JOB.json
"""

from __future__ import annotations

import signal
from time import perf_counter
from types import FrameType

import msgspec
from confluent_kafka import TopicPartition

from benchmarks import kafka_topics
from benchmarks.peers.job import Job
from benchmarks.reference.kafka_settings import clients

POLL_S = 0.002


class Click(msgspec.Struct, gc=False):
    """What is read of a click."""

    user: str
    amount: float
    sent: int


def main() -> None:
    """Run until told to end."""
    job = Job.read()
    told: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        told.append(number)

    signal.signal(signal.SIGTERM, stop)
    changelog = f"{job.output}-changelog"
    kafka_topics.create(job.bootstrap, changelog)
    # At the default of 100 ms a transaction that comes upon the last one's markers waits as long.
    consumer, group, producer = clients(job, retry_backoff_ms=4)
    encode, decoder = msgspec.json.Encoder().encode, msgspec.json.Decoder(Click)
    table: dict[str, float] = {}
    results: list[tuple[int, bytes, bytes, bytes]] = []
    positions: dict[int, int] = {}
    due = perf_counter()
    while not told:
        message = consumer.poll(POLL_S)
        messages = [] if message is None else [message, *consumer.consume(5000, 0)]
        for message in messages:
            click = decoder.decode(message.value())
            total = table[click.user] = table.get(click.user, 0.0) + click.amount
            result = encode({"user": click.user, "total": total, "sent": click.sent})
            results.append((message.partition(), message.key(), result, encode(total)))
            positions[message.partition()] = message.offset() + 1
        if not positions or perf_counter() < due:
            continue
        due = perf_counter() + job.commit_s
        producer.begin_transaction()
        for partition, key, result, change in results:
            producer.produce(job.output, result, key, partition)
            producer.produce(changelog, change, key, partition)
        producer.send_offsets_to_transaction(
            [TopicPartition(job.topic, partition, offset) for partition, offset in positions.items()], group
        )
        producer.commit_transaction()
        results.clear()
        positions.clear()
    consumer.close()


if __name__ == "__main__":
    main()
