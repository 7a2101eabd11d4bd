"""What `take(n, within=…)` holds back is handed out in time, once, beside all else that a worker does."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.engine import session as session_module
from headwater.engine.replay import prepare_replay
from headwater.log import memory
from tests.unit.engine.runs import Declare, Place, at_work, until

EARLIEST = -(1 << 63)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.topic("orders")
    return place


async def test_what_take_holds_back_is_handed_out_in_time_though_another_task_is_never_idle(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.topic("quiet")
    log = type(place.log)
    commit = log.commit

    def slow(own: Any, transaction: Any) -> Any:
        if transaction.member is not None:
            time.sleep(0.1)
        return commit(own, transaction)

    monkeypatch.setattr(log, "commit", slow)
    lists: list[list[int]] = []
    seen: list[int] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("quiet", value_type=int))
        async def hold(stream: hw.Stream) -> None:
            async for numbers in stream.take(100, within=0.2):
                lists.append(list(numbers))

        @app.agent(app.topic("orders", value_type=int))
        async def busy(stream: hw.Stream) -> None:
            async for number in stream:
                seen.append(number)

    async with at_work(place, place.app(declare, epoch_s=0.02)):
        await until(lambda: len(place.states(2)) == 2)
        place.append("quiet", [1, 2, 3])
        for number in range(1_000):
            place.append("orders", [number])
            await asyncio.sleep(0.002)
            if lists:
                break
    assert lists == [[1, 2, 3]]
    assert len(seen) < 1_000


async def test_the_shortest_wait_of_a_task_counts_whichever_agent_has_it(place: Place) -> None:
    lists: list[list[int]] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def soon(stream: hw.Stream) -> None:
            async for numbers in stream.take(100, within=0.1):
                lists.append(list(numbers))

        @app.agent(app.topic("orders", value_type=int))
        async def late(stream: hw.Stream) -> None:
            async for _ in stream.take(100, within=3_600):
                pass

    async with at_work(place, place.app(declare, epoch_s=0.01)):
        place.append("orders", [1, 2, 3])
        await until(lambda: lists == [[1, 2, 3]])


async def test_an_epoch_waits_for_a_group_that_came_while_agents_were_handed_what_they_held_back(
    place: Place,
) -> None:
    """I2, I3: the pump waits behind the flush; when that ends, its own group is still in hand."""
    read_meanwhile: list[int] = []
    began = asyncio.Event()

    def declare(app: hw.App) -> None:
        sums = app.Table("sums", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def hold(stream: hw.Stream) -> None:
            async for numbers in stream.take(10, within=0.05):
                began.set()
                await asyncio.sleep(0.2)
                if len(numbers) == 10:
                    read_meanwhile.append(place.states()[0].read["orders/0"])
                sums["k"] += sum(numbers)

    async with at_work(place, place.app(declare, epoch_s=0.01)):
        place.append("orders", [1], keys=b"k")
        await asyncio.wait_for(began.wait(), 10)
        await asyncio.sleep(0.1)
        place.append("orders", [1] * 10, keys=b"k")
        await until(lambda: place.table("sums") == {b"k": 11})
    assert read_meanwhile == [1] or read_meanwhile == [0]


async def test_the_lease_is_kept_while_agents_work_at_what_they_are_handed_out(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """I27: however long they take; else the other worker would begin it anew, and lose its lease in turn."""
    lists: list[list[int]] = []

    def declare(app: hw.App) -> None:
        sums = app.Table("sums", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def hold(stream: hw.Stream) -> None:
            async for numbers in stream.take(10, within=0.05):
                lists.append(list(numbers))
                await asyncio.sleep(4)
                sums["k"] += sum(numbers)

    async with (
        at_work(place, place.app(declare, epoch_s=0.01, lease_s=1.5)),
        at_work(place, place.app(declare, epoch_s=0.01, lease_s=1.5)),
    ):
        place.append("orders", [1, 2], keys=b"k")
        await until(lambda: place.table("sums") == {b"k": 3})
    assert lists == [[1, 2]]
    assert "fenced" not in caplog.text


@pytest.mark.parametrize("fails", [False, True], ids=["cancelled", "failing"])
async def test_a_worker_ends_while_agents_are_handed_what_they_held_back(
    place: Place, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1: what they were at is done anew by the next worker."""
    monkeypatch.setattr(session_module, "HANG_S", 0.3)
    began = asyncio.Event()
    first = True

    def declare(app: hw.App) -> None:
        sums = app.Table("sums", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def hold(stream: hw.Stream) -> None:
            async for numbers in stream.take(10, within=0.05):
                began.set()
                if first and fails:
                    raise OSError("the disk is gone")
                if first:
                    await asyncio.sleep(60)
                sums["k"] += sum(numbers)

    async with at_work(place, place.app(declare, epoch_s=0.01, dead_letters=False)) as engine:
        place.append("orders", [1, 2], keys=b"k")
        await asyncio.wait_for(began.wait(), 10)
        if fails:
            await asyncio.wait_for(engine.finished.wait(), 10)
            assert "the disk is gone" in str(engine.error)
    assert place.table("sums") == {}
    first = False
    async with at_work(place, place.app(declare, epoch_s=0.01)):
        await until(lambda: place.table("sums") == {b"k": 3})


async def test_a_replay_in_live_order_hands_out_where_live_did(place: Place) -> None:
    """I12: also where the records that came after wait to be taken already."""

    async with at_work(place, place.app(listing(0.05), epoch_s=0.01)):
        for number, batch in enumerate(BATCHES):
            place.append("orders", batch)
            await until(lambda n=number: len(out(place)) == n + 1)  # type: ignore[misc]
    assert out(place) == BATCHES
    place.archive_all()
    await replayed(place, listing(0.05), "live")
    assert out(place, "app.again.out.out") == BATCHES


async def test_a_replay_has_not_come_to_its_end_while_something_is_held_back(place: Place) -> None:
    """I12: whoever else sees the end recorded takes the generation for finished."""

    place.append("orders", [1, 2, 3, 4, 5])
    await replayed(place, listing(60), "time")
    assert out(place, "app.again.out.out") == [[1, 2, 3], [4, 5]]
    ended = [bool(state.marks.get("end")) for state in place.commits(generation="again")]
    handed = [bool(state.marks.get("idle")) for state in place.commits(generation="again")]
    assert ended.index(True) >= handed.index(True)


BATCHES = [[1, 2], [3], [4, 5, 6], [7], [8, 9]]


def listing(within_s: float) -> Declare:
    """Declare an agent that sends on lists of three, and of fewer after a while."""

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int), sink=[app.topic("out")])
        async def hold(stream: hw.Stream) -> Any:
            async for numbers in stream.take(3, within=within_s):
                yield list(numbers)

    return declare


async def replayed(place: Place, declare: Declare, order: str) -> None:
    """Replay all there is as generation `again`, to its end."""
    app = place.app(declare)
    made = await asyncio.to_thread(
        prepare_replay, app, place.log, place.archive, time_from=EARLIEST, name="again", order=order
    )
    async with at_work(place, app, generation=made.name) as engine:
        await asyncio.wait_for(engine.finished.wait(), 10)


def out(place: Place, topic: str = "out") -> list[Any]:
    return [] if place.log.topic(topic) is None else place.values(topic)


async def test_a_failure_of_a_hand_out_is_told_also_where_all_else_is_done(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1: it comes while the coordinator waits for the log, which finds nobody at work after that."""
    beats = 0
    beat = memory.MemoryMembership.heartbeat

    def slow(own: Any) -> Any:
        nonlocal beats
        beats += 1
        time.sleep(0.1)
        return beat(own)

    monkeypatch.setattr(memory.MemoryMembership, "heartbeat", slow)

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def hold(stream: hw.Stream) -> None:
            async for _ in stream.take(10, within=0.05):
                # The records' epoch is committed by then, and the coordinator is within a heartbeat.
                for _ in range(2):
                    seen = beats
                    while beats == seen:  # noqa: ASYNC110  (what is waited for tells nobody)
                        await asyncio.sleep(0.005)
                raise OSError("the disk is gone")

    place.append("orders", [1, 2])
    app = place.app(declare, epoch_s=0.01, lease_s=0.3, dead_letters=False, retries=0)
    async with at_work(place, app, until_idle=True) as engine:
        await asyncio.wait_for(engine.finished.wait(), 10)
        assert "the disk is gone" in str(engine.error)
