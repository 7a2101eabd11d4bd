"""Filter and map over Kafka as a bare loop: confluent-kafka's batches, orjson, a count. Nothing is committed.

python -m benchmarks.reference.kafka_map JOB.json
"""

from __future__ import annotations

import orjson
from confluent_kafka import Consumer, TopicPartition

from benchmarks.peers.job import Counter, Job
from benchmarks.reference.kafka_settings import PARTITIONS, READER


def main() -> None:
    """Read the topic once and report count and sum of the results."""
    job = Job.read()
    counter = Counter(job)
    consumer = Consumer({**READER, "bootstrap.servers": job.bootstrap, "group.id": "bare-map"})
    consumer.assign([TopicPartition(job.topic, partition, 0) for partition in range(PARTITIONS)])
    consume, loads = consumer.consume, orjson.loads
    left, count, total = job.records, 0, 0
    while left:
        messages = consume(5000, 0.02)
        if not messages:
            continue
        if not counter.began:
            counter.start()
        left -= len(messages)
        for message in messages:
            click = loads(message.value())
            if click["amount"] >= 500:
                result = {"user": click["user"], "cents": round(click["amount"] * 100)}
                count += 1
                total += result["cents"]
    counter.stop()
    counter.seen = job.records
    consumer.close()
    counter.report({"count": count, "cents": total})


if __name__ == "__main__":
    main()
