"""What must be true after chaos, worked out from Kafka itself; imports nothing of Headwater's.

The input topic is read again, read committed, and every output that an undisturbed app would have sent is computed from
it: one for each record, in the order of its key. Compared are the sets, the order per key, and the table's rows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

READ_S = 120.0


@dataclass(slots=True)
class Found:
    """What was compared, and what was wrong."""

    records: int = 0
    lost: int = 0
    doubled: int = 0
    strange: int = 0
    out_of_order: int = 0
    wrong_rows: int = 0
    examples: list[str] = field(default_factory=list)

    def is_right(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.lost or self.doubled or self.strange or self.out_of_order or self.wrong_rows)


def read_all(
    servers: str, topic: str, *, committed: bool = True
) -> list[tuple[int, bytes | None, bytes | None]]:
    """Return partition, key and value of all records, each partition in offset order."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers, "group.id": "checker", "enable.auto.commit": False,
            "enable.partition.eof": True, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
        }
    )  # fmt: skip
    partitions = sorted(consumer.list_topics(topic, READ_S).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    waiting, found = set(partitions), []
    while waiting:
        for message in consumer.consume(10_000, 1.0):
            error = message.error()
            if error is None:
                found.append((message.partition(), message.key(), message.value()))
            elif error.code() == KafkaError._PARTITION_EOF:
                waiting.discard(message.partition())
            else:
                raise KafkaException(error)
    consumer.close()
    return found


def expected_outputs(inputs: list[tuple[int, bytes | None, bytes | None]]) -> dict[str, list[dict[str, Any]]]:
    """Return by key, in order, what adding up gives."""
    outputs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, key, value in inputs:
        name, number = (key or b"").decode(), int(value or b"0")
        last = outputs[name][-1] if outputs[name] else {"n": 0, "sum": 0}
        outputs[name].append({"key": name, "number": number, "n": last["n"] + 1, "sum": last["sum"] + number})
    return outputs


def check(servers: str, name: str, rows: dict[str, dict[str, int]]) -> Found:
    """Compare the outputs and the table's rows of the app `name` with its input."""
    expected = expected_outputs(read_all(servers, f"{name}-in"))
    sent: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, _, value in read_all(servers, f"{name}-out"):
        output = json.loads(value or b"")
        sent[output["key"]].append(output)
    found = Found(records=sum(map(len, expected.values())))
    for key in expected.keys() | sent.keys():
        wanted, given = expected.get(key, []), sent.get(key, [])
        if wanted == given:
            continue
        places: dict[str, int] = defaultdict(int)
        for output in given:
            places[json.dumps(output, sort_keys=True)] += 1
        known = {json.dumps(output, sort_keys=True) for output in wanted}
        found.lost += len(known - places.keys())
        found.doubled += sum(count - 1 for count in places.values())
        found.strange += len(places.keys() - known)
        if sorted(known) == sorted(places) and len(given) == len(wanted):
            found.out_of_order += 1
        found.examples.append(
            f"{key}: expected {wanted[:3]}…({len(wanted)}), found {given[:3]}…({len(given)})"
        )
    for key, outputs in expected.items():
        last = outputs[-1]
        if rows.get(key) != {"n": last["n"], "sum": last["sum"]}:
            found.wrong_rows += 1
            found.examples.append(f"row {key}: expected {last}, found {rows.get(key)}")
    found.wrong_rows += len(rows.keys() - expected.keys())
    found.examples = found.examples[:5]
    return found
