"""Agent instances that outlive their record: code in the background, in `finally`, or behind a caught cancellation (I1, I2, I7)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import headwater as hw
from tests.unit.engine.runs import Place, at_work, until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_an_agent_that_catches_its_cancellation_can_do_nothing_more(place: Place) -> None:
    place.append("in", range(6))

    def declare(app: hw.App) -> None:
        seen = app.Table("seen", value_type=int, default=int)

        @app.agent(app.topic("in", value_type=int), timeout_s=0.1, retries=1)
        async def count(stream: hw.Stream) -> None:
            async for value in stream:
                try:
                    if value == 2:
                        await asyncio.sleep(30)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.02)
                seen[str(value)] += 1
                await asyncio.sleep(0.01)

    place.run(declare)
    assert place.table("seen") == {str(n).encode(): 1 for n in (0, 1, 3, 4, 5)}
    assert [value for _, value, _ in place.dead()] == [b"2"]


def test_what_an_ended_instance_writes_on_its_way_out_is_in_no_epoch(place: Place) -> None:
    place.append("in", range(6))

    def declare(app: hw.App) -> None:
        seen = app.Table("seen", value_type=int, default=int)

        @app.agent(app.topic("in", value_type=int), retries=0, split=True)
        async def count(stream: hw.Stream) -> None:
            try:
                async for values in stream.take(3):
                    if 2 in values:
                        raise ValueError("two")
                    for value in values:
                        seen[str(value)] += 1
            finally:
                seen["ended"] += 1

    place.run(declare)
    assert place.table("seen") == {str(n).encode(): 1 for n in (0, 1, 3, 4, 5)}
    assert [value for _, value, _ in place.dead()] == [b"2"]


async def test_background_tasks_of_an_agent_write_nothing_between_records(place: Place) -> None:
    place.append("in", [0])
    refused: list[BaseException] = []

    def declare(app: hw.App) -> None:
        seen = app.Table("seen", value_type=int)
        out = app.topic("out", value_type=int)

        async def later() -> None:
            for attempt in range(20):
                await asyncio.sleep(0.01)
                try:
                    if attempt % 2:
                        await out.send(value=attempt)
                    else:
                        seen["late"] = attempt
                except hw.HeadwaterError as error:
                    refused.append(error)

        @app.agent(app.topic("in", value_type=int))
        async def count(stream: hw.Stream) -> None:
            tasks = []
            async for value in stream:
                seen[str(value)] = value
                if value == 0:
                    tasks.append(asyncio.create_task(later()))

    app = place.app(declare)
    async with at_work(place, app, epoch_s=0.02) as engine:
        await until(lambda: len(refused) == 20)
        place.append("in", [1])
        await until(lambda: len(place.batch("app.live.changelog.seen")) == 2)
        store = engine.session.tasks[0].parts["seen"].store
        # The log has the epoch first, the store a moment later.
        await until(lambda: len(dict(store.items())) == 2)
        rows = {k: json.loads(v) for k, v in store.items()}
        assert engine.error is None
    assert {type(error).__name__ for error in refused} == {"AgentStoppedError", "ReadOnlyTableError"}
    assert rows == place.table("seen") == {b"0": 0, b"1": 1}
    assert place.log.topic("out") is None


@pytest.mark.parametrize("how", ["yield", "send", "table"])
def test_an_agent_that_acts_ahead_of_its_first_record_is_told_so(place: Place, how: str) -> None:
    place.append("in", [1])

    def declare(app: hw.App) -> None:
        seen = app.Table("seen", value_type=int)
        out = app.topic("out", value_type=int)

        @app.agent(app.topic("in", value_type=int), sink=[out])
        async def early(stream: hw.Stream):  # type: ignore[no-untyped-def]
            if how == "yield":
                yield 0
            elif how == "send":
                await out.send(value=0)
            else:
                seen["start"] = 0
            async for value in stream:
                yield value

    with pytest.raises(hw.HeadwaterError, match="holds no record: ahead of its first one"):
        place.run(declare)
