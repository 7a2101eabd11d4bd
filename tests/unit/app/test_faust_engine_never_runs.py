"""A whole worker run with faust's own engine taken away: every class of it raises when it is made or run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NoReturn

import faust
import faust.streams
import pytest
from faust.agents.agent import Agent as FaustAgent
from faust.app._attached import Attachments
from faust.stores import memory, rocksdb
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer, Fetcher, TransactionManager
from faust.transport.drivers import aiokafka
from faust.transport.producer import Producer

import headwater as hw
from tests.unit.engine.runs import Place, at_work, until

MADE = (
    Conductor, Consumer, Fetcher, TransactionManager, Producer, TableManager, Recovery, memory.Store, rocksdb.Store,
    aiokafka.Consumer, aiokafka.Producer, aiokafka.Transport,
)  # fmt: skip
"""Classes whose making is an error."""

RUN: tuple[tuple[type, str], ...] = (
    (faust.streams.Stream, "__init__"),
    (faust.streams.Stream, "__aiter__"),
    (faust.streams.Stream, "_c_aiter"),
    (faust.streams.Stream, "_py_aiter"),
    (faust.streams.Stream, "ack"),
    (FaustAgent, "__init__"),
    (FaustAgent, "_start_one"),
    (FaustAgent, "_execute_actor"),
    (FaustAgent, "actor_from_stream"),
    (Attachments, "put"),
    (Attachments, "commit"),
    (Collection, "__init__"),
    (Collection, "_send_changelog"),
    (faust.App, "_new_transport"),
    (faust.App, "_new_producer_transport"),
    (faust.App, "_new_conductor"),
    (faust.App, "_new_consumer"),
    (faust.App, "_new_producer"),
)
"""Methods that may not run, though their classes are ours' parents."""


def _refusal(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError(f"faust's {what} ran")

    return refuse


@pytest.fixture
def without_fausts_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in MADE:
        monkeypatch.setattr(cls, "__init__", _refusal(f"{cls.__module__}.{cls.__qualname__}"))
    for parent, method in RUN:
        assert hasattr(parent, method), (parent, method)
        monkeypatch.setattr(parent, method, _refusal(f"{parent.__qualname__}.{method}"))


@pytest.mark.usefixtures("without_fausts_engine")
async def test_a_worker_runs_agents_tables_group_by_timers_and_tasks_without_fausts_engine(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    amounts = [{"user": f"u{at % 3}", "amount": at} for at in range(30)]
    place.append("orders", amounts, keys=[f"o{at}".encode() for at in range(30)])
    ran: set[str] = set()

    def declare(app: hw.App) -> None:
        orders = app.topic("orders")
        spend = app.Table("spend", default=int)
        users = app.SetTable("users")
        receipts = app.topic("receipts")

        @app.agent(orders)
        async def add(stream: hw.Stream) -> None:
            async for order in stream.filter(lambda order: order["amount"] % 2 == 0).group_by("user"):
                spend[order["user"]] += order["amount"]
                users[order["user"]].add(order["amount"] % 10)

        @app.agent(orders, sink=[receipts])
        async def receipt(stream: hw.Stream) -> AsyncIterator[Any]:
            async for event in stream.events():
                yield [event.offset, event.value["amount"]]

        @app.agent(orders)
        async def pairs(stream: hw.Stream) -> None:
            async for pair in stream.take(7, within=3_600):
                await app.send("pairs", value=len(pair))

        @app.agent(receipts)
        async def read_back(stream: hw.Stream) -> None:
            async for offset, _ in stream:
                ran.add(f"receipt {offset}")

        async def often() -> None:
            if spend.get("u0"):
                ran.add("timer")

        async def at_start() -> None:
            await receipts.send(value=[99, 0])
            ran.add("task")

        app.timer(0.02)(often)
        app.task(at_start)

    wanted = {"timer", "task", "receipt 99"} | {f"receipt {at}" for at in range(30)}
    app = place.app(declare, epoch_s=0.02)
    async with at_work(place, app):
        await until(lambda: ran >= wanted)
        await until(lambda: place.log.topic("pairs") is not None and sum(place.values("pairs")) == 28)
    assert app.engine.error is None
    assert place.table("spend") == {
        f"u{user}".encode(): sum(a for a in range(30) if a % 3 == user and a % 2 == 0) for user in range(3)
    }
    assert sorted(place.values("receipts")) == [*([at, at] for at in range(30)), [99, 0]]
    assert sum(place.values("pairs")) == 28  # the last two wait for their list to fill
    assert place.dead() == []


@pytest.mark.usefixtures("without_fausts_engine")
@pytest.mark.parametrize("cls", MADE)
def test_the_test_sees_each_of_fausts_classes_being_made(cls: type) -> None:
    made = type(cls.__name__, (cls,), {})
    made.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match=r"faust's .* ran"):
        made()
