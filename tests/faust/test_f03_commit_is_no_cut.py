"""F3: stock faust's exactly-once commit is not a cut: it takes outputs of records whose offset it leaves out.

The timer commits the transaction with whatever was sent so far. The output of a record that is still being
worked on is made visible, its offset is not: after a crash the record is done again, and so is its output.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from headwater.core.batch import TopicPartition
from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place, at_work, until

ORDERS, BILLS = TP("orders", 0), TP("bills", 0)


async def _run(broker: Broker, folder: Path, *, crash_while_working: bool) -> None:
    """Run one worker from the committed offset to the end; commit once, while the last record is in flight."""
    app = stock_app(broker, folder, processing_guarantee="exactly_once")
    bills = app.topic("bills", value_serializer="raw")
    app.topics.add(bills)
    release = asyncio.Event()

    @agent(app, app.topic("orders", value_serializer="raw"), name="biller")
    async def biller(stream: Any) -> None:
        async for order in stream:
            await bills.send(key=None, value=b"bill of " + order)
            if crash_while_working and order == b"o1":
                await release.wait()  # the output is out; the record is not done

    async with serving(app, "orders", "bills") as consumer:
        start = broker.committed.get(ORDERS, 0)
        for record in broker.log[ORDERS][start:]:
            await deliver(app, record)
        await settle()
        await consumer.commit()  # the commit timer fires
        # Leaving the block is the crash: what is in flight is dropped, nothing is committed any more.


@pytest.mark.asyncio
async def test_stock_faust_commits_the_output_of_a_record_that_is_in_flight(tmp_path: Path) -> None:
    """I1, I2: two orders, one crash, and a read_committed reader of the bills sees three of them."""
    broker = Broker()
    for value in (b"o0", b"o1"):
        broker.append(ORDERS, None, value)

    await _run(broker, tmp_path, crash_while_working=True)

    first = broker.transactions[0]
    assert first.state == "committed"
    assert first.offsets == {ORDERS: 1}  # o1 is left out, and rightly so ...
    assert [r.value for r in broker.read_committed(BILLS)] == [
        b"bill of o0",
        b"bill of o1",
    ]  # ... its bill is not

    await _run(broker, tmp_path, crash_while_working=False)

    assert broker.committed == {ORDERS: 2}
    assert [r.value for r in broker.read_committed(BILLS)] == [
        b"bill of o0",
        b"bill of o1",
        b"bill of o1",  # wrong: doubled
    ]


async def test_headwater_shows_the_output_of_a_record_only_with_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1, I2: while o1 is in flight neither a bill nor a position is visible; after the crash there are two bills."""
    monkeypatch.setattr("headwater.engine.session.HANG_S", 0.05)
    place = Place(tmp_path)
    place.append("orders", [b"o0", b"o1"])
    place.topic("bills")
    working = asyncio.Event()

    def declare(app: hw.App, *, crash_while_working: bool) -> hw.App:
        bills = app.topic("bills", value_serializer="raw")

        @app.agent(app.topic("orders", value_serializer="raw"))
        async def biller(stream: hw.Stream) -> None:
            async for order in stream:
                await bills.send(key=None, value=b"bill of " + order)
                if crash_while_working and order == b"o1":
                    working.set()
                    await asyncio.Event().wait()

        return app

    app = place.app(lambda app: declare(app, crash_while_working=True))
    async with at_work(place, app, epoch_s=0.01):
        await asyncio.wait_for(working.wait(), 10)
        await asyncio.sleep(0.1)  # ten epochs are due in this time, and none can be a cut
        assert len(place.batch("bills")) == 0
        assert place.states() == {}
    # The agent hung, so its epoch was aborted: what a crash leaves.
    assert len(place.batch("bills")) == 0

    app = place.app(lambda app: declare(app, crash_while_working=False))
    async with at_work(place, app, epoch_s=0.01):
        await until(lambda: place.position(TopicPartition("orders", 0)) == 2)
    assert list(place.batch("bills").values) == [b"bill of o0", b"bill of o1"]
    assert [state.positions["biller"] for state in place.commits()] == [{"orders/0": 2}]
