"""F6: with exactly-once, stock faust never saves how far a table's store has come.

The offset is kept under the changelog's partition until the commit, and the commit looks it up by the
*source's* partition. So every restart folds the whole changelog again, and the dict of pending offsets is
never drained.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from headwater.core.batch import Batch
from headwater.engine.assemble import Assembly
from headwater.table.store import open_store
from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place

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


def test_headwater_saves_the_changelog_offset_with_each_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: after each of three commits the store is at its changelog's end, and a restart folds nothing."""
    folded: list[tuple[int, int]] = []
    real = Assembly._changelog

    def noted(self: Assembly, topic: str, partition: int, position: int, end: int) -> Iterator[Batch]:
        folded.append((position, end))
        return real(self, topic, partition, position, end)

    monkeypatch.setattr(Assembly, "_changelog", noted)
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def adder(stream: hw.Stream) -> None:
            async for key, amount in stream.items():
                spend[key] += amount

    for number in range(3):
        place.append("orders", [10], keys=b"k")
        place.run(declare)
        store = open_store(str(tmp_path / "state" / "app" / "live" / "w0"), "spend", 0)
        assert store.changelog_offset == place.log.end_offset("app.live.changelog.spend", 0) == number + 1
        assert list(store.items()) == [(b"k", str(10 * (number + 1)).encode())]
        store.close()
    assert folded == [(0, 0), (1, 1), (2, 2)]
