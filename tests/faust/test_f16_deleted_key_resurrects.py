"""F16: stock faust deletes a key from whichever database holds it, and sends the tombstone to the event's
partition.

Set under a record of partition 0 and deleted under one of partition 1, a key is gone from the table and not
gone from the changelog: the next restore brings it back.
"""

from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.faust.stock_broker import Broker, Stored, agent, deliver, serving, settle, stock_app

SPEND = "stock-spend-changelog"


def _table(app: Any) -> Any:
    spend = app.Table("spend", default=int, partitions=2)
    app.topics.add(spend.changelog_topic)
    return spend


@pytest.mark.asyncio
async def test_stock_faust_brings_a_deleted_key_back_after_a_restore(tmp_path: Path) -> None:
    """I8: the table says that `k` is gone; the table restored from its changelog says 5."""
    broker = Broker(orders=2, stock_spend_changelog=2)
    app = stock_app(broker, tmp_path / "before", store="rocksdb://")
    spend = _table(app)

    @agent(app, app.topic("orders", key_type=str, value_type=int), name="keeper")
    async def keeper(stream: Any) -> None:
        async for key, amount in stream.items():
            if amount:
                spend[key] = amount
            else:
                del spend[key]

    async with serving(app, "orders", SPEND):
        await deliver(app, broker.append(TP("orders", 0), b"k", b"5"))
        await settle()
        await deliver(app, broker.append(TP("orders", 1), b"k", b"0"))
        await settle()
    assert dict(spend.data) == {}
    await spend.data.stop()

    def changes(partition: int) -> list[tuple[bytes | None, bytes | None]]:
        return [(r.key, r.value) for r in broker.log[TP(SPEND, partition)]]

    assert changes(0) == [(b'"k"', b"5")]
    assert changes(1) == [(b'"k"', None)]  # wrong: right is partition 0, behind the 5

    restored = await _restore(broker, tmp_path / "after")
    assert restored == {"k": 5}  # right: {}


async def _restore(broker: Broker, folder: Path) -> dict[str, int]:
    """Fold both changelog partitions into an empty store with faust's own code."""
    app = stock_app(broker, folder, store="rocksdb://")
    spend = _table(app)
    async with serving(app, SPEND):
        records: list[Stored] = [*broker.log[TP(SPEND, 0)], *broker.log[TP(SPEND, 1)]]
        events = []
        for record in records:
            message = app.consumer._to_message(TP(SPEND, record.partition), record)
            events.append(await spend.changelog_topic.decode(message))
        spend.apply_changelog_batch(events)
        rows = dict(spend.data)
    await spend.data.stop()
    return rows
