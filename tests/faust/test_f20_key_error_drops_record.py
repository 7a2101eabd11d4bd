"""F20: a record whose `group_by` key can't be computed is logged, skipped and committed: dropped."""

import json
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place

ORDERS = TP("orders", 0)


@pytest.mark.asyncio
async def test_stock_faust_drops_a_record_whose_key_raises(tmp_path: Path) -> None:
    """I20: three records in, two keyed, all three committed, and no topic that could hold the third."""
    broker = Broker()
    app = stock_app(broker, tmp_path)

    def carrier(order: dict[str, str]) -> bytes:
        return order["carrier"].encode()

    @agent(app, app.topic("orders"), name="grouper")
    async def grouper(stream: Any) -> None:
        async for _ in stream.group_by(carrier, name="carrier"):
            pass

    async with serving(app, "orders") as consumer:
        for value in (b'{"carrier": "UA"}', b'{"no": "carrier"}', b'{"carrier": "DL"}'):
            await deliver(app, broker.append(ORDERS, None, value))
        await settle(200)
        await consumer.commit()

    repartitions = [tp for tp in broker.log if tp != ORDERS]
    assert len(repartitions) == 1
    assert repartitions[0].topic.endswith("orders-carrier-repartition")
    assert [r.key for r in broker.log[repartitions[0]]] == [b"UA", b"DL"]  # wrong: the second is nowhere
    assert broker.committed == {ORDERS: 3}  # right: 1, or 3 with the second in a dead-letter topic


def test_headwater_keeps_a_record_whose_key_raises_as_a_dead_letter(tmp_path: Path) -> None:
    """I20: two records reach their carriers, the third is a dead letter with the error, in the same commit."""
    place = Place(tmp_path)
    place.append("orders", [{"carrier": "UA"}, {"no": "carrier"}, {"carrier": "DL"}])
    got: list[str] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders"))
        async def grouper(stream: hw.Stream) -> None:
            async for order in stream.group_by(lambda order: order["carrier"], name="carrier"):
                got.append(order["carrier"])

    place.run(declare)
    assert got == ["UA", "DL"]
    [(_, value, info)] = place.dead()
    assert json.loads(value or b"") == {"no": "carrier"}
    assert (info["topic"], info["offset"], info["agent"]) == ("orders", 1, "grouper.group_by")
    assert (info["error"], info["attempts"]) == ("KeyRefusedError", 3)
    sender = next(state for state in place.commits() if "grouper.group_by" in state.positions)
    assert sender.positions["grouper.group_by"] == {"orders/0": 3}


def test_headwater_tells_of_a_tombstone_that_a_field_can_give_no_key(tmp_path: Path) -> None:
    """I20: a tombstone has no fields: it is a dead letter; a key function that knows what to do with None is asked."""
    place = Place(tmp_path)
    place.append("orders", [{"item": "a"}, None, {"item": "b"}])

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", value_type=dict)
        fields, functions = app.Table("fields", default=int), app.Table("functions", default=int)

        @app.agent(orders.group_by("item"))
        async def by_field(stream: hw.Stream) -> None:
            async for order in stream:
                fields[order["item"]] += 1

        @app.agent(orders.group_by(lambda order: "gone" if order is None else order["item"]))
        async def by_function(stream: hw.Stream) -> None:
            async for order in stream:
                functions["gone" if order is None else order["item"]] += 1

    place.run(declare)
    assert place.table("fields") == {b"a": 1, b"b": 1}
    assert place.table("functions") == {b"a": 1, b"b": 1, b"gone": 1}
    assert [(value, info["offset"], info["error"]) for _, value, info in place.dead()] == [
        (None, 1, "KeyRefusedError")
    ]
