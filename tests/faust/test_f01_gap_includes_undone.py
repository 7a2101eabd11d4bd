"""F1: where an offset is missing (a transaction marker, compaction), the record after it counts as done.

Stock faust's `_add_gap(tp, r + 1, offset)` closes the interval one too late, so the newly delivered record
lies inside the gap. As soon as a later record is acknowledged, the undone one is committed past: lost after
a crash.
"""

import asyncio
from pathlib import Path

import pytest
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from tests.faust.stock_broker import Broker, Stored, assign, settle, stock_app

ORDERS = TP("orders", 0)


@pytest.mark.asyncio
async def test_stock_faust_commits_past_a_delivered_record_that_is_not_done(tmp_path: Path) -> None:
    """I1, I3: 13 delivered and un-acknowledged, 14 acknowledged: stock faust commits 15."""
    broker = Broker()
    broker.committed[ORDERS] = 10
    app = stock_app(broker, tmp_path)
    assign(app, "orders")
    app.topics._acking_topics.add("orders")
    consumer = app.consumer
    delivered: dict[int, ConsumerMessage] = {}

    async def hold(message: ConsumerMessage) -> None:
        delivered[message.offset] = message

    consumer.callback = hold
    await consumer.perform_seek()
    # 11 and 12 are a transaction's markers: no consumer ever gets them.
    consumer.answers.put_nowait(
        {ORDERS: [Stored("orders", 0, offset, b"k", b"v") for offset in (10, 13, 14)]}
    )
    drain = asyncio.create_task(consumer._drain_messages(Service()))
    await settle(100)
    drain.cancel()
    await asyncio.gather(drain, return_exceptions=True)
    assert sorted(delivered) == [10, 13, 14]

    consumer.ack(delivered[10])
    consumer.ack(delivered[14])
    await consumer.commit()

    assert not delivered[13].acked
    assert broker.commits == [{ORDERS: 15}]  # right: 13, the first offset that is not done
