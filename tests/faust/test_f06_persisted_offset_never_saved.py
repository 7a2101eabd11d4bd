"""F6: with exactly-once, stock faust never saves how far a table's store has come.

The offset is kept under the changelog's partition until the commit, and the commit looks it up by the
*source's* partition. So every restart folds the whole changelog again, and the dict of pending offsets is
never drained.
"""

from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app

ORDERS, CHANGELOG = TP("orders", 0), TP("stock-spend-changelog", 0)


@pytest.mark.asyncio
async def test_stock_faust_never_saves_the_changelog_offset_of_a_committed_table(tmp_path: Path) -> None:
    """I7: three commits later the store's offset is None, and the pending one still waits."""
    broker = Broker()
    app = stock_app(broker, tmp_path, processing_guarantee="exactly_once", store="rocksdb://")
    spend = app.Table("spend", default=int, partitions=1)
    # What TableManager.on_start does before recovery: the changelog belongs to the conductor.
    app.topics.add(spend.changelog_topic)

    @agent(app, app.topic("orders", key_type=str, value_type=int), name="adder")
    async def adder(stream: Any) -> None:
        async for key, amount in stream.items():
            spend[key] += amount

    async with serving(app, "orders", CHANGELOG.topic) as consumer:
        for number in range(3):
            await deliver(app, broker.append(ORDERS, b"k", b"10"))
            await settle()
            assert await consumer.commit()
            assert broker.transactions[number].offsets == {ORDERS: number + 1}

        assert (
            spend.data.persisted_offset(CHANGELOG) is None
        )  # right: the offset the changelog was committed to
        pending = app.tables._pending_persisted_offsets
        assert {tp: offset for tp, (_, offset) in pending.items()} == {CHANGELOG: 4}  # never taken away
    assert [r.value for r in broker.read_committed(CHANGELOG)] == [b"10", b"20", b"30"]
    await spend.data.stop()
