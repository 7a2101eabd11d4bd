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

import headwater as hw
from headwater.core.batch import TopicPartition
from tests.faust.stock_broker import Broker, Stored, assign, settle, stock_app
from tests.unit.engine.runs import MARKER, MarkedSource, Place

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


def test_headwater_commits_only_up_to_the_record_that_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1, I3: one agent is done with 14, another holds 13 back: 13 is where that agent goes on, and nothing is lost."""
    monkeypatch.setattr("headwater.engine.assemble.HandoverSource", MarkedSource)
    place = Place(tmp_path)
    # 11 and 12 are a transaction's markers.
    place.append("orders", range(15), keys=[MARKER if at in (11, 12) else b"k" for at in range(15)])
    counted: list[int] = []
    taken: list[list[int]] = []

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", value_type=int)

        @app.agent(orders)
        async def counter(stream: hw.Stream) -> None:
            async for number in stream:
                counted.append(number)

        @app.agent(orders)
        async def taker(stream: hw.Stream) -> None:
            async for numbers in stream.take(11):
                taken.append(numbers)

    place.run(declare)
    state = place.states()[0]
    assert state.positions["counter"] == {"orders/0": 15}
    assert state.positions["taker"] == {"orders/0": 13}
    assert state.read == {"orders/0": 13}
    assert place.position(TopicPartition("orders", 0)) == 13

    place.append("orders", range(15, 24), keys=b"k")
    place.run(declare)
    assert counted == [*range(11), *range(13, 24)]
    assert taken == [list(range(11)), list(range(13, 24))]
