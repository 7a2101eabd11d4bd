"""F16: stock faust deletes a key from whichever database holds it, and sends the tombstone to the event's
partition.

Set under a record of partition 0 and deleted under one of partition 1, a key is gone from the table and not
gone from the changelog: the next restore brings it back.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from headwater.core.partitioner import partition_of
from headwater.table.store import open_store
from tests.faust.stock_broker import Broker, Stored, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place

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


def _rows_on_disk(root: Path) -> dict[bytes, bytes]:
    """Return the rows of both parts' stores: what the table says."""
    rows: dict[bytes, bytes] = {}
    for partition in range(2):
        store = open_store(str(root / "state" / "app" / "live" / "w0"), "spend", partition)
        rows |= dict(store.items())
        store.close()
    return rows


def _keeper(app: hw.App, *, grouped: bool) -> None:
    orders = app.topic("orders", key_type=str)
    spend = app.Table("spend", default=int)

    @app.agent(orders.group_by("key") if grouped else orders)
    async def keeper(stream: hw.Stream) -> None:
        async for order in stream:
            if order["amount"]:
                spend[order["key"]] = order["amount"]
            else:
                del spend[order["key"]]


@pytest.mark.parametrize("grouped", [True, False])
def test_headwater_says_of_a_deleted_key_what_a_restore_says(tmp_path: Path, grouped: bool) -> None:
    """I8: set in partition 0, deleted in partition 1.

    With group_by both reach the key's home, and the key is gone for good. Without, the delete finds no row where it
    is made: an error and a dead letter, and the row is there, before a restore and after it.
    """
    place = Place(tmp_path)
    place.append("orders", [{"key": "k", "amount": 5}], keys=b"k", partition=0, partitions=2, times=[1_000])
    place.append("orders", [{"key": "k", "amount": 0}], keys=b"k", partition=1, times=[2_000])

    place.run(lambda app: _keeper(app, grouped=grouped), partitions=2)
    before = _rows_on_disk(tmp_path)
    shutil.rmtree(tmp_path / "state")
    place.run(lambda app: _keeper(app, grouped=grouped), partitions=2)

    assert before == _rows_on_disk(tmp_path) == place.table_bytes("spend")
    dead = [(info["partition"], info["offset"], info["error"]) for _, _, info in place.dead()]
    if grouped:
        assert (before, dead) == ({}, [])
    else:
        assert (before, dead) == ({b"k": b"5"}, [(1, 0, "KeyError")])


def test_headwater_refuses_a_delete_away_from_the_keys_home(tmp_path: Path) -> None:
    """I8: a row and its tombstone can't part: a write under another record's key is refused away from home."""
    place = Place(tmp_path)
    home = partition_of(b"k", 2)
    place.append("orders", [1], keys=b"other", partition=1 - home, partitions=2)

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def keeper(stream: hw.Stream) -> None:
            async for amount in stream:
                spend["k"] = amount

    place.run(declare, partitions=2)
    [(_, _, info)] = place.dead()
    assert info["error"] == "HomePartitionError"
    assert "group_by" in info["message"]
    assert place.table("spend") == {}
