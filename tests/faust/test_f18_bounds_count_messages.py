"""F18: stock faust's queues are bounded by the number of messages, the way out by nothing at all.

A slow agent may be owed 4,096 records of any size, and `table[key] = value` puts a change into an unbounded
queue without ever letting the event loop turn.
"""

from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app

ORDERS = TP("orders", 0)
MEBIBYTE = 1 << 20


@pytest.mark.asyncio
async def test_stock_faust_queues_four_gibibytes_before_it_slows_the_source(tmp_path: Path) -> None:
    """I25: 4,096 records of 1 MiB are taken in for an agent that does not move, without a moment's wait."""
    broker = Broker()
    app = stock_app(broker, tmp_path)
    topic = app.topic("orders", value_serializer="raw")
    app.topics.add(topic)
    value = bytes(MEBIBYTE)  # one object for all records, so that the test itself stays small
    async with serving(app, "orders"):
        record = broker.append(ORDERS, None, value)
        for _ in range(4_096):
            await deliver(app, record)
        queue = topic.queue

        assert queue.maxsize == 4_096
        queued_bytes = sum(len(event.message.value) for event in queue._queue)
        assert queued_bytes == 4 * 1_024 * MEBIBYTE  # right: a bound in bytes, far below


@pytest.mark.asyncio
async def test_stock_faust_buffers_table_changes_without_bound(tmp_path: Path) -> None:
    """I25: one record that sets 20,000 keys leaves 20,000 changes waiting, 200 times what it calls full."""
    broker = Broker()
    app = stock_app(broker, tmp_path, store="memory://")
    spend = app.Table("spend", partitions=1)
    app.topics.add(spend.changelog_topic)
    waiting: list[int] = []

    @agent(app, app.topic("orders", value_type=int), name="setter")
    async def setter(stream: Any) -> None:
        async for count in stream:
            for number in range(count):
                spend[number] = number
            waiting.append(app.producer.buffer.size)

    async with serving(app, "orders", spend.changelog_topic_name):
        await deliver(app, broker.append(ORDERS, None, b"20000"))
        await settle()

        assert app.producer.buffer.max_messages == 100
        assert app.producer.buffer.pending.maxsize == 0  # unbounded
        assert waiting == [20_000]  # right: never more than a bound in bytes allows
