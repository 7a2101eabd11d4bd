"""F19: stock faust reads uncommitted unless it is itself exactly once: its agents see what upstream took back."""

from __future__ import annotations

import secrets
from pathlib import Path

import aiokafka
import pytest

from headwater.log.kafka import KafkaLog
from tests.faust.stock_kafka import send_in_transaction, stock_app

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


async def test_stock_fausts_consumer_gives_aborted_records(broker: str, tmp_path: Path) -> None:
    """I5: wrong value: 3 records of an upstream that committed 2."""
    log = KafkaLog(f"kafka://{broker}")
    topic = f"src{secrets.token_hex(3)}"
    log.create_topic(topic, 1)
    send_in_transaction(broker, topic, [b"a"])
    send_in_transaction(broker, topic, [b"taken back"], abort=True)
    send_in_transaction(broker, topic, [b"b"])
    app = stock_app(broker, tmp_path)
    consumer = app.consumer._thread._create_worker_consumer(app.transport)
    await consumer.stop()
    # Read without a group: which records come is all that is looked at.
    plain = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=broker,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level=consumer._isolation_level,
    )
    await plain.start()
    found: list[bytes | None] = []
    try:
        plain.assign([aiokafka.TopicPartition(topic, 0)])
        while len(found) < 3:
            batches = await plain.getmany(timeout_ms=5000)
            assert batches, found
            found += [record.value for records in batches.values() for record in records]
    finally:
        await plain.stop()
    assert found == [b"a", b"taken back", b"b"]
    # Headwater, whatever its guarantee is:
    tail = log.tail(topic, 0, 0)
    seen: list[bytes | None] = []
    while not tail.at_end:
        seen += tail.fetch().values
    assert seen == [b"a", b"b"]
    tail.close()
    log.close()
