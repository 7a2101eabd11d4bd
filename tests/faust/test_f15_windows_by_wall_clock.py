"""F15: stock faust closes windows by the wall clock, and forgets over a restart which are open.

A table of one-minute windows over records of 2020 loses each window at the next cleaning, every 30 seconds, though its
records are still coming. What `on_window_close` is told of is the part since then. After a restore nothing closes at all.
"""

from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

import headwater as hw
from headwater.engine.run import RunOptions
from tests.faust.stock_broker import Broker, Stored, agent, deliver, serving, settle, stock_app
from tests.unit.engine.runs import Place

ORDERS = TP("orders", 0)
SPEND = "stock-spend-changelog"
MINUTE_MS = 60_000
BEGIN_MS = 1_600_000_020_000  # of the broker's records' minute


def _declare(app: Any, closed: list[tuple[Any, Any]]) -> Any:
    async def on_close(key: Any, value: Any) -> None:
        closed.append((key, value))

    spend = app.Table("spend", default=int, partitions=1, on_window_close=on_close).tumbling(60, expires=60)
    app.topics.add(spend.table.changelog_topic)

    @agent(app, app.topic("orders", key_type=str, value_type=int), name="adder")
    async def adder(stream: Any) -> None:
        async for key, amount in stream.items():
            spend[key] += amount

    return spend


@pytest.mark.asyncio
async def test_stock_faust_loses_an_open_window_of_the_past(tmp_path: Path) -> None:
    """I11: three orders of one minute make 6; with a cleaning before the last the table says 3, and close saw 3."""
    broker = Broker(orders=1, stock_spend_changelog=1)
    app = stock_app(broker, tmp_path, store="memory://")
    closed: list[tuple[Any, Any]] = []
    spend = _declare(app, closed)
    async with serving(app, "orders", SPEND):
        for amount in (b"1", b"2"):
            await deliver(app, broker.append(ORDERS, b"k", amount))
        await settle()
        await spend.table._del_old_keys()  # what its timer does every 30 seconds
        await deliver(app, broker.append(ORDERS, b"k", b"3"))
        await settle()

    assert list(spend.table.data.values()) == [3]  # wrong: right is 6
    assert [value for _, value in closed] == [3]  # wrong: its window was not over, and 6 is what closes


@pytest.mark.asyncio
async def test_stock_faust_never_closes_what_it_restored(tmp_path: Path) -> None:
    """I8: which windows are open stands in memory alone; after a restore the same cleaning closes nothing."""
    broker = Broker(orders=1, stock_spend_changelog=1)
    before = stock_app(broker, tmp_path / "before", store="memory://")
    _declare(before, [])
    async with serving(before, "orders", SPEND):
        await deliver(before, broker.append(ORDERS, b"k", b"5"))
        await settle()

    after = stock_app(broker, tmp_path / "after", store="memory://")
    closed: list[tuple[Any, Any]] = []
    restored = _declare(after, closed).table
    async with serving(after, SPEND):
        records: list[Stored] = broker.log[TP(SPEND, 0)]
        events = [
            await restored.changelog_topic.decode(after.consumer._to_message(TP(SPEND, 0), record))
            for record in records
        ]
        restored.apply_changelog_batch(events)
        assert list(restored.data.values()) == [5]
        await restored._del_old_keys()

    assert closed == []  # wrong: right is one call, with 5
    assert list(restored.data.values()) == [5]  # and it is never gone


def _spend(app: hw.App) -> None:
    spend = app.Table("spend", default=int).tumbling(60)
    closed = app.topic("closed")

    @app.agent(app.topic("orders", value_type=int))
    async def adder(stream: hw.Stream) -> None:
        async for key, amount in stream.items():
            spend[key] += amount

    @app.agent(spend.final())
    async def told(stream: hw.Stream) -> None:
        async for event in stream.events():
            # A final row's time is the last moment of its window.
            await closed.send(value=[event.timestamp_ms + 1 - MINUTE_MS, event.value["value"]])


def test_headwater_closes_by_event_time_and_over_restarts(tmp_path: Path) -> None:
    """I8, I11: whenever workers run, each window closes once, with all of it, when a later record says that it is over."""
    place = Place(tmp_path)
    for amount in (1, 2, 3):
        place.append("orders", [amount], keys=b"k", times=[BEGIN_MS + amount])
        place.run(_spend)  # each a worker of its own
        assert place.log.topic("closed") is None or place.values("closed") == []
    place.append("orders", [10, 20], keys=b"k", times=[BEGIN_MS + MINUTE_MS, BEGIN_MS + 2 * MINUTE_MS])
    place.run(_spend)
    assert _closed(place) == [(BEGIN_MS, 6), (BEGIN_MS + MINUTE_MS, 10)]
    place.run(_spend, options=RunOptions(until_idle=True, drain=True))
    assert _closed(place) == [(BEGIN_MS, 6), (BEGIN_MS + MINUTE_MS, 10), (BEGIN_MS + 2 * MINUTE_MS, 20)]


def _closed(place: Place) -> list[tuple[int, int]]:
    """Return the start and the value of each window as it closed, in order."""
    return [tuple(pair) for pair in place.values("closed")]
