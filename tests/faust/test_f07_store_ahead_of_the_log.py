"""F7: stock faust writes a table's row to RocksDB at once, before the transaction that it belongs to commits.

After `kill -9` (or an abort) nothing takes the row back, so the record is worked on again over its own,
never committed, effect.
"""

from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from headwater.table.store import open_store
from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place, killed_at

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


@pytest.mark.parametrize("point", ["epoch.collect", "epoch.before_log"])
def test_headwater_counts_a_record_once_after_a_kill_before_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """I2, I7: nothing of the killed epoch is on disk, so the record is worked on over nothing."""
    place = Place(tmp_path)
    place.append("orders", [10], keys=b"k")
    seen: list[int] = []

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def adder(stream: hw.Stream) -> None:
            async for key, amount in stream.items():
                spend[key] += amount
                seen.append(spend[key])

    with killed_at(monkeypatch, point):
        place.run(declare)
    assert seen == [10]
    store = open_store(str(tmp_path / "state" / "app" / "live" / "w0"), "spend", 0)
    assert (list(store.items()), store.changelog_offset) == ([], 0)
    store.close()

    place.run(declare)
    assert seen == [10, 10]
    assert place.table("spend") == {b"k": 10}


def test_headwater_counts_a_record_once_after_a_kill_between_log_and_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: the other way round, committed but not yet in the store: the changelog brings it up, and nothing is redone."""
    place = Place(tmp_path)
    place.append("orders", [10], keys=b"k")
    seen: list[int] = []

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def adder(stream: hw.Stream) -> None:
            async for key, amount in stream.items():
                spend[key] += amount
                seen.append(spend[key])

    with killed_at(monkeypatch, "epoch.between_log_and_store"):
        place.run(declare)
    place.append("orders", [5], keys=b"k")
    place.run(declare)
    assert seen == [10, 15]
    assert place.table("spend") == {b"k": 15}
