"""A keyed table over Kafka, exactly once, as a bare loop: confluent-kafka, msgspec, one transaction every 100 ms.

A transaction holds the changelog as Arrow blobs (lz4) and the positions. Every change is kept, or, where the job's
history is `none`, the last per key and transaction. Nothing is rebalanced, retried, ordered over inputs, or kept on disk.

    python -m benchmarks.reference.kafka_table JOB.json
"""

from __future__ import annotations

from itertools import groupby
from time import perf_counter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import TopicPartition

from benchmarks.peers.job import Counter, Job
from benchmarks.reference.kafka_settings import PARTITIONS, clients
from benchmarks.reference.sqlite_table import Click, changelog

BLOB_ROWS = 16_384
"""Kafka refuses records above 1 MB: a change is about 50 bytes before compression."""


class Changes:
    """The changes of one transaction, as columns."""

    def __init__(self, *, every: bool) -> None:
        """Begin with none; `every` change is kept, or the last of each key."""
        self.every = every
        self.table: dict[str, float] = {}
        self._clocks = [0] * PARTITIONS
        self.clear()

    def clear(self) -> None:
        """Begin the next transaction."""
        self.keys: list[str] = []
        self.totals: list[float] = []
        self.last: dict[str, int] = {}
        self.pending = 0
        self._times: list[Any] = []
        self._partitions: list[Any] = []
        self._offsets: list[Any] = []

    def origins(self, partition: int, timestamps: list[int], offsets: list[int]) -> None:
        """Keep where a run of one partition's records came from, and its task times."""
        times = pc.cumulative_max(pa.array(timestamps, pa.int64()), start=self._clocks[partition])
        self._clocks[partition] = times[-1].as_py()
        self._times.append(times)
        self._partitions.append(pa.repeat(pa.scalar(partition, pa.int32()), len(offsets)))
        self._offsets.append(pa.array(offsets, pa.int64()))

    def blobs(self) -> list[bytes]:
        """Return the changes as blobs of at most 16,384 rows."""
        times, partitions = pa.concat_arrays(self._times), pa.concat_arrays(self._partitions)
        offsets = pa.concat_arrays(self._offsets)
        if self.every:
            keys, totals = self.keys, self.totals
        else:
            keys = list(self.last)
            totals = [self.table[user] for user in keys]
            rows = pa.array(list(self.last.values()), pa.int64())
            times, partitions, offsets = times.take(rows), partitions.take(rows), offsets.take(rows)
        return [
            changelog(
                keys[low : low + BLOB_ROWS],
                totals[low : low + BLOB_ROWS],
                [times.slice(low, BLOB_ROWS)],
                ([partitions.slice(low, BLOB_ROWS)], [offsets.slice(low, BLOB_ROWS)]),
            )
            for low in range(0, len(keys), BLOB_ROWS)
        ]


def main() -> None:
    """Read the topic once and report the table."""
    job = Job.read()
    changes = Changes(every=job.history == "exact")
    counter = Counter(job)
    consumer, group, producer = clients(job, linger_ms=0)
    positions: dict[int, int] = {}
    pa.array([b"warm"], pa.binary())

    def commit() -> None:
        producer.begin_transaction()
        for blob in changes.blobs():
            producer.produce(job.output, blob, partition=0)
        producer.send_offsets_to_transaction(
            [TopicPartition(job.topic, partition, end) for partition, end in positions.items()], group, 30
        )
        producer.commit_transaction(30)
        changes.clear()

    consume, decode = consumer.consume, msgspec.json.Decoder(Click).decode
    table, get = changes.table, changes.table.get
    left, due = job.records, 0.0
    while left:
        messages = consume(5000, 0.02)
        if messages:
            if not counter.began:
                counter.start()
                due = perf_counter() + job.commit_s
            left -= len(messages)
            for partition, run in groupby(messages, lambda message: message.partition()):
                part = list(run)
                offsets = [message.offset() for message in part]
                changes.origins(partition, [message.timestamp()[1] for message in part], offsets)
                positions[partition] = offsets[-1] + 1
                clicks = [decode(message.value()) for message in part]
                if changes.every:
                    keep_key, keep_total = changes.keys.append, changes.totals.append
                    for click in clicks:
                        user = click.user
                        table[user] = total = get(user, 0.0) + click.amount
                        keep_key(user)
                        keep_total(total)
                else:
                    last = changes.last
                    for at, click in enumerate(clicks, changes.pending):
                        user = click.user
                        table[user] = get(user, 0.0) + click.amount
                        last[user] = at
                changes.pending += len(part)
        if changes.pending and (not left or perf_counter() >= due):
            commit()
            due = perf_counter() + job.commit_s
    counter.stop()
    counter.seen = job.records
    consumer.close()
    counter.report(table)


if __name__ == "__main__":
    main()
