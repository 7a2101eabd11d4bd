"""F2: a hole right after offset 0 is never recorded, so the partition never commits again.

Stock faust tests `gap > 1 and r_offset`; offset 0 is falsy. (A hole of one offset slips through by another
off-by-one: the committed offset is compared as if it were the last one done.)
"""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

import headwater as hw
from headwater.core.batch import TopicPartition
from tests.faust.stock_broker import Broker, Stored, assign, settle, stock_app
from tests.unit.engine.runs import MARKER, MarkedSource, Place, at_work, until

ORDERS = TP("orders", 0)


@pytest.mark.asyncio
async def test_stock_faust_never_commits_again_after_a_hole_behind_offset_zero(tmp_path: Path) -> None:
    """I3, I27: every record is done, `_new_offset` is None for ever and `_acked` grows with each record."""
    broker = Broker()
    app = stock_app(broker, tmp_path)
    assign(app, "orders")
    app.topics._acking_topics.add("orders")
    consumer = app.consumer

    async def finish_at_once(message: ConsumerMessage) -> None:
        consumer.ack(message)

    consumer.callback = finish_at_once
    drain = asyncio.create_task(consumer._drain_messages(Service()))
    try:
        consumer.answers.put_nowait({ORDERS: [Stored("orders", 0, 0, b"k", b"v")]})
        await settle()
        await consumer.commit()
        assert broker.commits == [{ORDERS: 1}]

        # 1 and 2 are a transaction's markers; from 3 on everything is there and everything is done.
        for rounds, start in enumerate((3, 103, 203), start=1):
            records = [Stored("orders", 0, offset, b"k", b"v") for offset in range(start, start + 100)]
            consumer.answers.put_nowait({ORDERS: records})
            await settle(1_000)
            assert not consumer._gap[ORDERS]
            assert consumer._new_offset(ORDERS) is None  # right: the offset after the last record
            assert await consumer.commit() is False
            assert len(consumer._acked[ORDERS]) == 100 * rounds
    finally:
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)

    assert broker.commits == [{ORDERS: 1}]  # right: 303 at the end


def _is_at(place: Place, offset: int) -> bool:
    return place.position(TopicPartition("orders", 0)) == offset


async def test_headwater_commits_on_after_a_hole_behind_offset_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I3, I27: each round of records is committed, and nothing of it waits in memory."""
    monkeypatch.setattr("headwater.engine.assemble.HandoverSource", MarkedSource)
    place = Place(tmp_path)
    place.append("orders", [0])
    got: list[int] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def counter(stream: hw.Stream) -> None:
            async for number in stream:
                got.append(number)

    async with at_work(place, place.app(declare), epoch_s=0.01) as engine:
        await until(partial(_is_at, place, 1))
        place.append("orders", [1, 2], keys=MARKER)
        for start in (3, 103, 203):
            place.append("orders", range(start, start + 100))
            await until(partial(_is_at, place, start + 100))
            task = engine.session.tasks[0]
            # The log tells of a commit a moment before the worker has put it away.
            await until(lambda: not task.merge.waiting() and not task.groups)  # noqa: B023  (called within the round)
    assert got == [0, *range(3, 303)]
