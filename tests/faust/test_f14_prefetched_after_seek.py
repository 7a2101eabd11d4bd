"""F14: records fetched before a rebalance's seek are handed out after it, and what they jump over is lost.

`wait_for_stopped_flow` is there to wait for a fetch that is under way, but the event it waits for is set
where it should be cleared, so it never waits. The late answer moves the read offset ahead: the records
between are noted as a gap, count as done, and are dropped when they do arrive.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

import headwater as hw
from tests.faust.stock_broker import Broker, Stored, assign, settle, stock_app
from tests.unit.engine.runs import Place, at_work, until

ORDERS = TP("orders", 0)


def _records(start: int, end: int) -> dict[TP, list[Stored]]:
    return {ORDERS: [Stored("orders", 0, offset, b"k", b"v") for offset in range(start, end)]}


@pytest.mark.asyncio
async def test_stock_faust_loses_what_lies_between_the_seek_and_a_prefetched_answer(tmp_path: Path) -> None:
    """I1, I3: offsets 10 to 19 are worked on neither before nor after the rebalance, and 21 is committed."""
    broker = Broker()
    broker.committed[ORDERS] = 10
    app = stock_app(broker, tmp_path)
    assign(app, "orders")
    app.topics._acking_topics.add("orders")
    consumer = app.consumer
    worked_on: list[int] = []

    async def work(message: ConsumerMessage) -> None:
        worked_on.append(message.offset)
        consumer.ack(message)

    consumer.callback = work
    drain = asyncio.create_task(consumer._drain_messages(Service()))
    await settle()  # a fetch is under way; its answer, offsets 20 to 22, is on its way back from the thread

    # The rebalance, in the order of App._on_partitions_assigned and Recovery.on_recovery_completed.
    consumer.stop_flow()
    await asyncio.wait_for(consumer.wait_for_stopped_flow(), timeout=1.0)  # wrong: returns in mid-fetch
    app.consumer_generation_id = 2
    await consumer.perform_seek()
    assert consumer._read_offset[ORDERS] == 10
    consumer.resume_flow()

    consumer.answers.put_nowait(_records(20, 23))  # what was fetched before the seek
    await settle(200)
    consumer.answers.put_nowait(_records(10, 23))  # what the broker sends from the sought offset on
    await settle(400)
    await consumer.commit()
    drain.cancel()
    await asyncio.gather(drain, return_exceptions=True)

    assert worked_on == [20, 21, 22, 22]  # right: 10 to 22, each once
    assert broker.commits == [{ORDERS: 21}]  # right: 23, with 10 to 19 done


async def test_headwater_hands_out_nothing_that_was_fetched_before_a_task_moved(tmp_path: Path) -> None:
    """I1, I3, I4: a task with records read ahead moves to another worker and back; each record has one output, in order."""
    place = Place(tmp_path)
    count = 300
    for partition in (0, 1):
        place.append("orders", range(count), partition=partition, partitions=2)
    place.topic("done", 2)
    ahead: list[int] = []

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", value_type=int)

        @app.agent(orders, sink=[app.topic("done", value_type=int)])
        async def worker(stream: hw.Stream) -> AsyncIterator[int]:
            async for number in stream:
                await asyncio.sleep(0.002)
                yield number

    def app() -> hw.App:
        return place.app(declare, lease_s=0.6, epoch_s=0.01)

    def done() -> int:
        return sum(len(place.batch("done", partition)) for partition in (0, 1))

    async with at_work(place, app()) as first:
        await until(lambda: done() > 0)
        ahead += [task.merge.waiting() for task in first.session.tasks.values()]
        async with at_work(place, app()) as second:
            await until(lambda: second.session is not None and len(second.session.tasks) == 1)
            assert len(first.session.tasks) == 1
            before = done()
            await until(lambda: second.session.records > 10 or done() == 2 * count)
            assert done() >= before
            worked_by_second = second.session.records
        await until(lambda: len(first.session.tasks) == 2)
        await until(lambda: done() == 2 * count, within_s=20)
    assert max(ahead) > 0  # there was something fetched ahead that had to be dropped
    assert worked_by_second > 0
    for partition in (0, 1):
        assert place.values("done", partition) == list(range(count))
