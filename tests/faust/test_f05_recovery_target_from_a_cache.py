"""F5: stock faust's exactly-once recovery ends where the consumer last saw a stable offset: nowhere, before its first fetch.

The high watermark of a changelog is then None, the table needs no recovery, and comes up empty (robinhood/faust#340).
"""

from __future__ import annotations

import secrets
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiokafka
import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from headwater.log.kafka import KafkaLog
from tests.faust.stock_kafka import send_in_transaction, stock_app

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

ROWS = [b"%d" % n for n in range(5)]


async def test_stock_faust_finds_nothing_to_recover_in_a_changelog_of_five_rows(
    broker: str, tmp_path: Path
) -> None:
    """I6, I8: wrong value: 0 of 5 rows are to be recovered."""
    log = KafkaLog(f"kafka://{broker}")
    topic = f"changelog{secrets.token_hex(3)}"
    log.create_topic(topic, 1)
    send_in_transaction(broker, topic, ROWS)
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=broker, group_id=None, isolation_level="read_committed", enable_auto_commit=False
    )
    await consumer.start()
    try:
        tp = TP(topic, 0)
        consumer.assign([aiokafka.TopicPartition(topic, 0)])
        thread: Any = SimpleNamespace(
            _ensure_consumer=lambda: consumer, consumer=SimpleNamespace(in_transaction=True)
        )
        highwaters = await driver.AIOKafkaConsumerThread._highwaters(thread, [tp])
        assert highwaters == {tp: None}
        app = stock_app(broker, tmp_path, processing_guarantee="exactly_once")
        recovery = app.tables.recovery
        asked = SimpleNamespace(highwaters=_answer(highwaters))
        await recovery._build_highwaters(cast(Any, asked), {tp}, recovery.active_highwaters, "active")
        recovery.active_offsets[tp] = -1
        assert recovery.active_remaining_total() == 0, "wrong: five rows wait, and none is to be read"
        assert not recovery.need_recovery()
        # The consumer knows better once it has fetched, which faust does after it has decided.
        await consumer.getmany(timeout_ms=10_000)
        assert consumer.last_stable_offset(aiokafka.TopicPartition(topic, 0)) > len(ROWS)
    finally:
        await consumer.stop()
    log.close()


def _answer(highwaters: Any) -> Any:
    async def answer(*partitions: TP) -> Any:
        return highwaters

    return answer


def test_headwater_asks_the_broker_for_the_end_each_time(broker: str) -> None:
    log = KafkaLog(f"kafka://{broker}")
    topic = f"changelog{secrets.token_hex(3)}"
    log.create_topic(topic, 1)
    send_in_transaction(broker, topic, ROWS)
    fresh = KafkaLog(f"kafka://{broker}")
    end = fresh.end_offset(topic, 0, uncommitted=True)
    assert end >= len(ROWS)
    found: list[bytes | None] = []
    position = 0
    while position < end:
        batch = fresh.read(topic, 0, position, end=end)
        found += batch.values
        position = batch.next
    assert found == ROWS
    for each in (fresh, log):
        each.close()
