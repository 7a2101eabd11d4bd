"""F7: stock faust writes a table's row to RocksDB at once, before the transaction that it belongs to commits.

After `kill -9` (or an abort) nothing takes the row back, so the record is worked on again over its own,
never committed, effect.
"""

from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app

ORDERS, CHANGELOG = TP("orders", 0), TP("stock-spend-changelog", 0)


async def _work(broker: Broker, folder: Path, *, commit: bool) -> int:
    """Work on the log from its committed offset on; return what the table then says of `k`."""
    app = stock_app(broker, folder, processing_guarantee="exactly_once", store="rocksdb://")
    spend = app.Table("spend", default=int, partitions=1)
    app.topics.add(spend.changelog_topic)
    seen: list[int] = []

    @agent(app, app.topic("orders", key_type=str, value_type=int), name="adder")
    async def adder(stream: Any) -> None:
        async for key, amount in stream.items():
            spend[key] += amount
            seen.append(spend[key])

    async with serving(app, "orders", CHANGELOG.topic) as consumer:
        # Recovery as stock faust does it: fold what the changelog shows a read_committed reader.
        assert broker.read_committed(CHANGELOG) == []
        for record in broker.log[ORDERS][broker.committed.get(ORDERS, 0) :]:
            await deliver(app, record)
        await settle()
        if commit:
            await consumer.commit()
    await spend.data.stop()
    return seen[-1]


@pytest.mark.asyncio
async def test_stock_faust_counts_a_record_twice_after_a_kill_before_its_commit(tmp_path: Path) -> None:
    """I2, I7: one order of 10, one kill before the commit, and the table says 20."""
    broker = Broker()
    broker.append(ORDERS, b"k", b"10")

    assert await _work(broker, tmp_path, commit=False) == 10
    assert broker.committed == {}
    assert broker.transactions[0].state == "open"
    for transaction in list(broker.transactions):
        broker.finish(transaction, "aborted")  # what fencing by the next worker does

    assert await _work(broker, tmp_path, commit=True) == 20  # right: 10
    assert broker.committed == {ORDERS: 1}
    assert [r.value for r in broker.read_committed(CHANGELOG)] == [b"20"]
