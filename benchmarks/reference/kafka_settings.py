"""Settings of confluent-kafka that the bare loops need to be as fast as they can be, and the clients of those that commit."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.peers.job import Job

PARTITIONS = 4

READER: dict[str, Any] = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    # The default of 1 s stalls the fetcher whenever its queue is full: 150 k instead of 820 k records/s.
    "fetch.queue.backoff.ms": 2,
    "queued.min.messages": 200_000,
    "log_level": 0,
}


def clients(job: Job, **producer: Any) -> tuple[Consumer, Any, Producer]:
    """Return a consumer at the topic's begin, its group's metadata, and a transactional producer of these settings."""
    consumer = Consumer({**READER, "bootstrap.servers": job.bootstrap, "group.id": job.output})
    consumer.assign([TopicPartition(job.topic, partition, 0) for partition in range(PARTITIONS)])
    settings = {name.replace("_", "."): value for name, value in producer.items()}
    sender = Producer(
        {"bootstrap.servers": job.bootstrap, "transactional.id": job.output, "log_level": 0, **settings}
    )
    sender.init_transactions(30)
    return consumer, consumer.consumer_group_metadata(), sender
