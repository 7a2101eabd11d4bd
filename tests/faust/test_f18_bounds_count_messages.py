"""F18: stock faust's queues are bounded by the number of messages, the way out by nothing at all.

A slow agent may be owed 4,096 records of any size, and `table[key] = value` puts a change into an unbounded
queue without ever letting the event loop turn.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from headwater.engine.session import CHANGES_MAX
from headwater.engine.task import GROUP_RECORDS_FIRST, Task
from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place, at_work, until

ORDERS = TP("orders", 0)
MEBIBYTE = 1 << 20


@pytest.mark.asyncio
async def test_stock_faust_queues_four_gibibytes_before_it_slows_the_source(tmp_path: Path) -> None:
    """I25: 4,096 records of 1 MiB are taken in for an agent that does not move, without a moment's wait."""
    broker = Broker()
    app = stock_app(broker, tmp_path)
    topic = app.topic("orders", value_serializer="raw")
    app.topics.add(topic)
    value = bytes(MEBIBYTE)  # one object for all records, so that the test itself stays small
    async with serving(app, "orders"):
        record = broker.append(ORDERS, None, value)
        for _ in range(4_096):
            await deliver(app, record)
        queue = topic.queue

        assert queue.maxsize == 4_096
        queued_bytes = sum(len(event.message.value) for event in queue._queue)
        assert queued_bytes == 4 * 1_024 * MEBIBYTE  # right: a bound in bytes, far below


@pytest.mark.asyncio
async def test_stock_faust_buffers_table_changes_without_bound(tmp_path: Path) -> None:
    """I25: one record that sets 20,000 keys leaves 20,000 changes waiting, 200 times what it calls full."""
    broker = Broker()
    app = stock_app(broker, tmp_path, store="memory://")
    spend = app.Table("spend", partitions=1)
    app.topics.add(spend.changelog_topic)
    waiting: list[int] = []

    @agent(app, app.topic("orders", value_type=int), name="setter")
    async def setter(stream: Any) -> None:
        async for count in stream:
            for number in range(count):
                spend[number] = number
            waiting.append(app.producer.buffer.size)

    async with serving(app, "orders", spend.changelog_topic_name):
        await deliver(app, broker.append(ORDERS, None, b"20000"))
        await settle()

        assert app.producer.buffer.max_messages == 100
        assert app.producer.buffer.pending.maxsize == 0  # unbounded
        assert waiting == [20_000]  # right: never more than a bound in bytes allows


async def test_headwater_holds_no_more_than_its_buffer_for_an_agent_that_does_not_move(
    tmp_path: Path,
) -> None:
    """I25: of 4,096 records of 1 MiB the worker takes in what the buffer holds, and leaves the rest where it is."""
    place = Place(tmp_path)
    value = bytes(MEBIBYTE)  # one object for all records, so that the test itself stays small
    for _ in range(4):
        place.append("orders", [value] * 1_024)
    holding = asyncio.Event()
    release = asyncio.Event()

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_serializer="raw"))
        async def slow(stream: hw.Stream) -> None:
            async for _ in stream:
                holding.set()
                await release.wait()

    app = place.app(declare, buffer_bytes=8 * MEBIBYTE)
    async with at_work(place, app) as engine:
        await asyncio.wait_for(holding.wait(), 10)
        await asyncio.sleep(0.1)
        task = engine.session.tasks[0]
        waiting = sum(len(v or b"") for c in task.merge.channels for p in c.front(c.size) for v in p.values)
        [runner] = task.runners
        in_hand = sum(len(v or b"") for v in runner.feed.current.raw_values)
        assert 0 < waiting + in_hand <= 8 * MEBIBYTE
        assert task.inputs[0].source.position <= 8
        release.set()
        await until(lambda: engine.session.records > 16)


async def test_headwater_bounds_what_an_epoch_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I25: 50 records that set 20,000 keys each are many epochs; a task learns from its first few records what they make."""
    place = Place(tmp_path)
    place.append("orders", [20_000] * 50)
    staged: list[int] = []

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", history=None)

        @app.agent(app.topic("orders", value_type=int))
        async def setter(stream: hw.Stream) -> None:
            async for count in stream:
                for number in range(count):
                    spend[f"{number}"] = number

    real = Task.collect

    def noted(self: Task) -> Any:
        staged.append(self.changes())
        return real(self)

    monkeypatch.setattr(Task, "collect", noted)
    async with at_work(place, place.app(declare), epoch_s=3_600) as engine:
        await until(lambda: engine.session.records == 50, within_s=60)
    assert sum(staged) == 1_000_000
    assert staged[0] <= (GROUP_RECORDS_FIRST + 2) * 20_000
    assert max(staged[1:]) <= CHANGES_MAX + 3 * 20_000
