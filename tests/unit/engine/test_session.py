"""A worker's life: long records and leases, hanging agents and stops, what runs outside epochs, memory."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.core.clock import SYSTEM_CLOCK
from headwater.engine.options import RunOptions
from headwater.engine.replay import prepare_replay
from tests.unit.engine.runs import Place, at_work, until


async def test_a_record_that_takes_longer_than_the_lease_does_not_cost_the_task(tmp_path: Path) -> None:
    """I4: the worker keeps its lease while an epoch waits for a slow agent, also beside another worker."""
    place = Place(tmp_path)
    place.append("orders", [1, 2])
    begun: list[int] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def slow(stream: hw.Stream) -> None:
            async for number in stream:
                begun.append(number)
                await asyncio.sleep(1.0)

    app, other = (place.app(declare, lease_s=0.3, epoch_s=0.01) for _ in range(2))
    async with at_work(place, app), at_work(place, other):
        await until(lambda: bool(place.states()))
    assert begun == [1, 2]


async def test_a_worker_with_a_hanging_agent_stops_and_commits_nothing_of_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I26: a stop ends the wait of an epoch that is already closing."""
    monkeypatch.setattr("headwater.engine.session.HANG_S", 0.1)
    place = Place(tmp_path)
    place.append("orders", [1, 2])
    hanging = asyncio.Event()

    def declare(app: hw.App) -> None:
        out = app.topic("out")

        @app.agent(app.topic("orders", value_type=int))
        async def hang(stream: hw.Stream) -> None:
            async for number in stream:
                await out.send(value=number)
                if number == 2:
                    hanging.set()
                    await asyncio.Event().wait()

    app = place.app(declare, epoch_s=0.01)
    async with at_work(place, app):
        await asyncio.wait_for(hanging.wait(), 10)
        await asyncio.sleep(0.05)
        began_s = SYSTEM_CLOCK.monotonic_s()
    assert SYSTEM_CLOCK.monotonic_s() - began_s < 2.5
    assert app.engine.error is None
    assert place.states() == {}
    assert place.log.topic("out") is None or len(place.batch("out")) == 0


async def test_a_stop_commits_what_is_done_so_that_nothing_is_done_again(tmp_path: Path) -> None:
    """I26: a graceful stop leaves nothing to reprocess."""
    place = Place(tmp_path)
    got: list[int] = []

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def keep(stream: hw.Stream) -> None:
            async for number in stream:
                got.append(number)

    for run in range(2):
        place.append("orders", [2 * run, 2 * run + 1])
        async with at_work(place, place.app(declare, epoch_s=3_600)):
            await until(lambda wanted=2 * run + 2: len(got) == wanted)  # type: ignore[misc]
    assert got == [0, 1, 2, 3]


async def test_timers_tasks_and_crontabs_run_beside_epochs_and_may_send_but_not_write_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside agents a table is read-only, and the error has the line that wrote; a send is appended at once."""
    # A crontab sleeps to the next full minute; here minutes are short.
    monkeypatch.setattr("faust.app.base.cron.secs_for_next", lambda *_: 0.02)
    place = Place(tmp_path)
    place.append("orders", [7], keys=b"k")
    place.topic("notes")
    errors: dict[str, str] = {}
    lines: dict[str, int] = {}
    seen: dict[str, object] = {}

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", default=int)
        notes = app.topic("notes")

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def add(stream: hw.Stream) -> None:
            async for key, amount in stream.items():
                spend[key] += amount

        async def outside(name: str) -> None:
            if name in errors:
                return
            seen[name] = spend.get("k")
            if seen[name] is None and name != "task":
                return
            sent = await notes.send(value=name)
            metadata = await sent
            seen[f"{name} sent"] = metadata.offset
            try:
                lines[name] = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
                spend["k"] = 0
            except hw.ReadOnlyTableError as error:
                errors[name] = str(error)

        async def at_start() -> None:
            await outside("task")

        async def often() -> None:
            await outside("timer")

        async def by_the_clock() -> None:
            await outside("crontab")

        app.task(at_start)
        app.timer(0.02)(often)
        app.crontab("* * * * *")(by_the_clock)

    app = place.app(declare, epoch_s=0.01)
    async with at_work(place, app):
        await until(lambda: {"task", "timer", "crontab"} <= set(errors))
        await until(lambda: bool(place.states()))
    assert seen["timer"] == seen["crontab"] == 7
    assert sorted(place.values("notes")) == ["crontab", "task", "timer"]
    assert {seen["task sent"], seen["timer sent"], seen["crontab sent"]} == {0, 1, 2}
    for name, error in errors.items():
        assert f"test_session.py:{lines[name]}" in error
        assert "'spend'" in error
    assert set(errors) == {"task", "timer", "crontab"}
    assert place.table("spend") == {b"k": 7}


async def test_an_agent_slower_than_its_producer_holds_a_bounded_part_of_what_is_there(
    tmp_path: Path,
) -> None:
    """I25: 64 MiB are waiting; with a buffer of 4 MiB never more than that is in the worker's hands."""
    place = Place(tmp_path, f"file://{tmp_path / 'log'}")
    for _ in range(16):
        place.append("orders", [bytes(1 << 16)] * 64)
    most = 0
    done = 0

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_serializer="raw"))
        async def slow(stream: hw.Stream) -> None:
            nonlocal done
            async for _ in stream:
                done += 1
                await asyncio.sleep(0)

    app = place.app(declare, buffer_bytes=4 << 20, epoch_s=0.05)
    async with at_work(place, app) as engine:

        def look() -> bool:
            nonlocal most
            tasks = [] if engine.session is None else list(engine.session.tasks.values())
            for task in tasks:
                held = sum(
                    len(v or b"") for c in task.merge.channels for p in c.front(c.size) for v in p.values
                )
                works = [w for r in task.runners for w in (r.feed.current, *r.feed.pending) if w is not None]
                most = max(most, held + sum(len(v or b"") for w in works for v in w.raw_values))
            return done == 1024

        await until(look, within_s=20)
    assert 0 < most <= 4 << 20


@pytest.mark.parametrize("restarted", [False, True])
async def test_take_within_counts_the_same_event_time_after_a_restart(
    tmp_path: Path, restarted: bool
) -> None:
    """I11: what is held back over a restart is cut where it would have been cut without."""
    place = Place(tmp_path)
    got: list[tuple[list[int], int]] = []
    done: list[int] = []

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", value_type=int)

        @app.agent(orders)
        async def other(stream: hw.Stream) -> None:
            async for number in stream:
                done.append(number)

        @app.agent(orders)
        async def hold(stream: hw.Stream) -> None:
            async for numbers in stream.take(100, within=10):
                got.append((numbers, stream.now()))

    place.append("orders", [0, 1], times=[0, 5_000])
    if restarted:
        async with at_work(place, place.app(declare, epoch_s=0.01)):
            await until(lambda: len(done) == 2)
    place.append("orders", [2, 3], times=[11_000, 12_000])
    async with at_work(place, place.app(declare, epoch_s=0.01)):
        await until(lambda: len(done) == 4)
    assert got == [([0, 1], 5_000)]
    assert place.states()[0].positions["hold"] == {"orders/0": 2}


def test_an_agent_may_reach_a_table_that_its_code_does_not_name(tmp_path: Path) -> None:
    """The topology is made anew with what was learnt, the epoch is redone, and nothing of the first try is left."""
    place = Place(tmp_path)
    place.append("orders", [1, 2, 3], keys=b"k")
    steps: list[int] = []

    def declare(app: hw.App) -> None:
        orders = app.topic("orders", key_type=str, value_type=int)
        spend = app.Table("spend", default=int)
        tables = {"hidden": app.tables}

        @app.agent(orders)
        async def by_name(stream: hw.Stream) -> None:
            async for key, amount in stream.items():
                tables["hidden"]["sp" + "end"][key] += amount

        @app.agent(orders)
        async def by_code(stream: hw.Stream) -> None:
            async for _ in stream:
                steps.append(spend["k"])
                spend["k"] += 100

    place.run(declare)
    assert place.table("spend") == {b"k": 306}
    assert place.dead() == []
    assert steps[-3:] == [1, 103, 206]  # lock step: each record is finished by both before the next


def test_small_epochs_and_large_ones_give_the_same(tmp_path: Path) -> None:
    """I11: where epochs and groups fall is not seen in tables, outputs, positions or lists."""
    found = []
    for number, (epoch_s, size) in enumerate(((0.001, 1), (3_600.0, 1_000))):
        place = Place(tmp_path / str(number))
        for at in range(0, 120, size):
            place.append("orders", range(at, min(at + size, 120)), keys=b"k")

        def declare(app: hw.App) -> None:
            orders = app.topic("orders", value_type=int)
            total = app.Table("total", default=int)

            @app.agent(orders, sink=[app.topic("out")])
            async def add(stream: hw.Stream) -> AsyncIterator[list[int]]:
                async for value in stream:
                    total["k"] = total["k"] * 31 % 1_000_003 + value
                    yield [value, total["k"], stream.now()]

            @app.agent(orders, sink=[app.topic("lists")])
            async def sevens(stream: hw.Stream) -> AsyncIterator[list[int]]:
                async for values in stream.take(7):
                    yield values

        place.run(declare, epoch_s=epoch_s)
        state = place.states()[0]
        found.append(
            (place.table("total"), place.values("out"), place.values("lists"), state.positions, state.time)
        )
    assert found[0] == found[1]


def test_what_was_held_back_over_a_restart_comes_in_the_order_it_came_in_first(tmp_path: Path) -> None:
    """I1, I12: an older record of another topic arrives meanwhile; live and a replay in live order give the same lists."""
    place = Place(tmp_path)
    place.topic("b")

    def declare(app: hw.App, done: list[str] | None = None) -> None:
        both = app.topic("a", "b", value_type=str)

        @app.agent(both)
        async def other(stream: hw.Stream) -> None:
            async for name in stream:
                if done is not None:
                    done.append(name)

        @app.agent(both, sink=[app.topic("lists")])
        async def pairs(stream: hw.Stream) -> AsyncIterator[list[str]]:
            async for names in stream.take(2):
                yield names

    async def live(count: int) -> None:
        done: list[str] = []
        async with at_work(place, place.app(lambda app: declare(app, done), epoch_s=0.01)):
            await until(lambda: len(done) == count)

    place.append("a", ["a0"], times=[100])
    asyncio.run(live(1))
    place.append("b", ["b0"], times=[50])
    place.append("a", ["a1"], times=[200])
    asyncio.run(live(2))
    assert place.values("lists") == [["a0", "b0"]]

    prepare_replay(place.app(declare), place.log, place.archive, time_from=0, name="again", order="live")
    place.run(declare, options=RunOptions(generation="again"))
    assert place.values("app.again.out.lists") == [["a0", "b0"]]


async def test_an_epoch_does_not_grow_while_the_coordinator_waits_for_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is held by others for long makes the next commit no longer, so that this one doesn't hold it for longer still."""
    monkeypatch.setattr("headwater.engine.session.OVERDUE_S", 0.1)
    place = Place(tmp_path)
    place.append("orders", range(1_500))

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", value_type=int))
        async def slow(stream: hw.Stream) -> None:
            async for _ in stream:
                time.sleep(0.001)  # noqa: ASYNC251  (as an agent that reckons)

    app = place.app(declare, lease_s=3.0, epoch_s=0.05)
    async with at_work(place, app):
        await until(lambda: bool(place.states()))
        membership = type(app.engine.session._member)
        heartbeat = membership.heartbeat

        def held(self: Any) -> Any:
            time.sleep(0.8)
            return heartbeat(self)

        monkeypatch.setattr(membership, "heartbeat", held)
        await until(lambda: place.states()[0].read.get("orders/0") == 1_500, 30)
    reads = [0, *(state.read["orders/0"] for state in place.commits())]
    assert max(after - before for before, after in pairwise(reads)) < 400
