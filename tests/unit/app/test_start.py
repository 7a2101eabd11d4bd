"""An app that starts and stops: its services in order, nothing of faust's engine, no folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest
from mode import Service

import headwater as hw


class QuietEngine(Service):
    """An engine that notes what happens to it."""

    def __init__(self, app: Any) -> None:
        super().__init__()
        self.app = app
        self.recovered = asyncio.Event()
        self.begun = asyncio.Event()
        self.steps: list[str] = []

    async def on_start(self) -> None:
        self.steps.append("start")
        self.begun.set()

    async def on_stop(self) -> None:
        self.steps.append("stop")

    async def wait_ready(self) -> None:
        await self.recovered.wait()

    def is_leader(self) -> bool:
        return False


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hw.App]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hw.App, "engine_class", QuietEngine)
    for name in (
        "_new_transport",
        "_new_producer_transport",
        "_new_conductor",
        "_new_consumer",
        "_new_producer",
    ):
        monkeypatch.setattr(faust.App, name, lambda *_, **__: pytest.fail("faust's engine was built"))
    yield hw.App("app")
    assert list(tmp_path.iterdir()) == []


async def test_tasks_begin_when_the_tables_are_there_and_leaders_tasks_only_on_the_leader(
    app: hw.App,
) -> None:
    ran: list[str] = []
    begun = asyncio.Event()

    async def leading() -> None:
        ran.append("leading")

    async def ordinary(app: Any) -> None:
        ran.append(f"ordinary of {app.id}")
        begun.set()

    app.task(on_leader=True)(leading)
    app.task(ordinary)
    starting = asyncio.ensure_future(app.start())
    await asyncio.wait_for(app.engine.begun.wait(), 10)
    assert ran == []
    app.engine.recovered.set()
    await asyncio.wait_for(starting, 10)
    await asyncio.wait_for(begun.wait(), 10)
    await asyncio.wait_for(app.stop(), 10)
    assert ran == ["ordinary of app"]
    assert app.engine.steps == ["start", "stop"]


async def test_an_app_can_be_stopped_while_its_tables_are_being_recovered(app: hw.App) -> None:
    ran: list[str] = []

    async def never() -> None:
        ran.append("never")

    app.task(never)
    starting = asyncio.ensure_future(app.start())
    await asyncio.wait_for(app.engine.begun.wait(), 10)
    await asyncio.wait_for(app.stop(), 10)
    await asyncio.wait_for(starting, 10)
    assert ran == []
    assert app.engine.steps == ["start", "stop"]


async def test_sends_under_way_are_finished_before_the_app_stops(app: hw.App) -> None:
    sent: list[str] = []
    app.engine.recovered.set()
    await app.start()

    async def slow() -> None:
        await asyncio.sleep(0)
        sent.append("sent")

    held = app.hold(slow())
    await asyncio.wait_for(app.stop(), 10)
    assert held.done()
    assert sent == ["sent"]
