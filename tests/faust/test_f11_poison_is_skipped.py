"""F11: a record that an agent fails on, or that can't be decoded, is acknowledged, committed and gone.

Stock faust says so itself (docs/userguide/agents.rst): the agent is restarted with the next record. There
is no retry and no dead-letter topic.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from tests.faust.stock_broker import Broker, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place

ORDERS = TP("orders", 0)


@pytest.mark.asyncio
async def test_stock_faust_commits_a_record_whose_agent_raised(tmp_path: Path) -> None:
    """I20: record 3 raises; 0, 1, 2, 4, 5 are worked on and offset 6 is committed."""
    broker = Broker()
    app = stock_app(broker, tmp_path)
    got: list[int] = []
    last_one_done = asyncio.Event()  # faust's supervisor restarts the agent in its own time

    @agent(app, app.topic("orders", value_type=int), name="counter")
    async def counter(stream: Any) -> None:
        async for number in stream:
            if number == 3:
                raise ValueError("three")
            got.append(number)
            if number == 5:
                last_one_done.set()

    async with serving(app, "orders") as consumer:
        for number in range(6):
            await deliver(app, broker.append(ORDERS, None, str(number).encode()))
        await asyncio.wait_for(last_one_done.wait(), timeout=5)
        await settle()
        await consumer.commit()

    assert got == [0, 1, 2, 4, 5]  # wrong: 3 is nowhere
    assert broker.committed == {ORDERS: 6}  # right: 3, or 6 with record 3 in a dead-letter topic
    assert set(broker.log) == {ORDERS}  # and no topic was written that could hold it


@pytest.mark.asyncio
async def test_stock_faust_commits_a_record_it_could_not_decode(tmp_path: Path) -> None:
    """I20: the undecodable record 1 is committed past with its neighbours."""
    broker = Broker()
    app = stock_app(broker, tmp_path)
    got: list[int] = []
    last_one_done = asyncio.Event()  # faust's supervisor restarts the agent in its own time

    @agent(app, app.topic("orders", value_type=int), name="counter")
    async def counter(stream: Any) -> None:
        async for number in stream:
            got.append(number)
            if number == 2:
                last_one_done.set()

    async with serving(app, "orders") as consumer:
        for value in (b"0", b"\xff{", b"2"):
            await deliver(app, broker.append(ORDERS, None, value))
        await asyncio.wait_for(last_one_done.wait(), timeout=5)
        await settle()
        await consumer.commit()

    assert got == [0, 2]
    assert broker.committed == {ORDERS: 3}  # right: 1, or 3 with record 1 in a dead-letter topic
    assert set(broker.log) == {ORDERS}


def test_headwater_keeps_a_record_whose_agent_raised_as_a_dead_letter(tmp_path: Path) -> None:
    """I20: 3 is tried three times, and is in the dead-letter topic in the very commit that goes past it."""
    place = Place(tmp_path)
    place.append("orders", range(6))
    got: list[int] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def counter(stream: hw.Stream) -> None:
            async for number in stream:
                got.append(number)
                if number == 3:
                    raise ValueError("three")

    place.run(declare)
    assert got == [0, 1, 2, 3, 3, 3, 4, 5]
    [(key, value, info)] = place.dead()
    assert (key, value) == (None, b"3")
    assert info == {
        "topic": "orders", "partition": 0, "offset": 3, "agent": "counter", "error": "ValueError",
        "message": "three", "attempts": 3,
    }  # fmt: skip
    assert [state.positions["counter"] for state in place.commits()] == [{"orders/0": 6}]


def test_headwater_keeps_a_record_it_could_not_decode_as_a_dead_letter(tmp_path: Path) -> None:
    """I20: the bytes that can't be decoded are kept as they came."""
    place = Place(tmp_path)
    place.append("orders", [b"0", b"\xff{", b"2"])
    got: list[int] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def counter(stream: hw.Stream) -> None:
            async for number in stream:
                got.append(number)

    place.run(declare)
    assert got == [0, 2]
    [(_, value, info)] = place.dead()
    assert value == b"\xff{"
    assert (info["agent"], info["offset"], info["error"]) == ("decode", 1, "ValueRefusedError")
    assert place.states()[0].positions["counter"] == {"orders/0": 3}


@pytest.mark.parametrize("value", [b"3", b"\xff{"])
def test_headwater_without_dead_letters_stops_and_names_the_record(tmp_path: Path, value: bytes) -> None:
    """I20: never skipped: the worker ends in an error and the position stays before the record's epoch."""
    place = Place(tmp_path)
    place.append("orders", [b"0", value])

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def counter(stream: hw.Stream) -> None:
            async for number in stream:
                if number == 3:
                    raise ValueError("three")

    with pytest.raises(hw.HeadwaterError, match="orders/0@1"):
        place.run(declare, dead_letters=False)
    assert place.states() == {}
