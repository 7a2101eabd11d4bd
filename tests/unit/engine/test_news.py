"""Whoever waits for records is told of each change of the log, soon and not too often."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headwater.core.batch import Append
from headwater.core.errors import LogUnavailableError
from headwater.engine import news
from headwater.log import open_log
from headwater.log.interface import Watch
from headwater.log.memory import MemoryLog

VALUES = [Append("t", 0, [0], [None], [b"x"])]


class HandLog(MemoryLog):
    """A log in memory whose watch is one that the test writes to, and which counts the looks."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.create_topic("t", 1)
        self.looks = 0
        self.made: list[HandWatch] = []

    def version(self) -> int:
        self.looks += 1
        return super().version()

    def watch(self) -> Watch:
        self.made.append(HandWatch())
        return self.made[-1]


class HandWatch(Watch):
    def __init__(self) -> None:
        self.handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.closed = False

    def fileno(self) -> int:
        return self.handle

    def fire(self) -> None:
        os.eventfd_write(self.handle, 1)

    def drain(self) -> None:
        os.eventfd_read(self.handle)

    def close(self) -> None:
        os.close(self.handle)
        self.closed = True


@asynccontextmanager
async def listening(log: MemoryLog, tell: Callable[[], None]) -> AsyncIterator[asyncio.Task[None]]:
    listener = asyncio.create_task(news.listen(log, tell))
    try:
        yield listener
    finally:
        listener.cancel()
        await asyncio.wait([listener])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(0.001)


def heard_by(listener: asyncio.Task[None]) -> asyncio.Event:
    """Return the event that a listener waits for, from inside its coroutine."""
    coroutine = listener.get_coro()
    heard = coroutine.cr_frame.f_locals["heard"]  # type: ignore[union-attr]
    assert isinstance(heard, asyncio.Event)
    return heard


eventfd = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="the watch of this test is an eventfd")


@eventfd
async def test_a_change_is_told_when_the_watch_fires_and_a_watch_that_fires_in_vain_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(news, "WATCHED_POLL_S", 60.0)
    log = HandLog("fires")
    told: list[int] = []
    async with listening(log, lambda: told.append(1)):
        await until(lambda: len(told) == 1)
        log.append(VALUES)
        log.made[0].fire()
        await until(lambda: len(told) == 2)
        looks = log.looks
        log.made[0].fire()
        await until(lambda: log.looks > looks)
        assert len(told) == 2
    assert log.made[0].closed


@eventfd
async def test_what_fires_between_two_looks_is_not_slept_over_and_costs_one_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(news, "WATCHED_POLL_S", 60.0)
    monkeypatch.setattr(news, "LOOK_GAP_S", 0.1)
    log = HandLog("gap")
    told: list[int] = []
    async with listening(log, lambda: told.append(1)):
        await until(lambda: log.looks == 1)
        for _ in range(20):
            log.append(VALUES)
            log.made[0].fire()
            await asyncio.sleep(0.001)
        assert log.looks == 1, "the gap was not kept"
        await until(lambda: len(told) == 2)
        assert log.looks == 2


@eventfd
async def test_a_change_that_nobody_signalled_is_found_by_the_slow_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A committer may be killed between its commit and its sign."""
    monkeypatch.setattr(news, "WATCHED_POLL_S", 0.05)
    log = HandLog("unsignalled")
    told: list[int] = []
    async with listening(log, lambda: told.append(1)):
        await until(lambda: len(told) == 1)
        log.append(VALUES)
        await until(lambda: len(told) == 2)


@eventfd
async def test_a_change_in_the_moment_of_the_end_does_not_keep_the_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker ends right after its last commit: what it then hears must not make it miss that it was told to end."""
    monkeypatch.setattr(news, "LOOK_GAP_S", 0.0)
    log = HandLog("ends")
    listener = asyncio.create_task(news.listen(log, lambda: None))
    await until(lambda: log.looks == 1)
    await asyncio.sleep(0.05)
    log.made[0].fire()
    news._hear(log.made[0], heard_by(listener))
    # One round: the waiter has what it waits for, the listener has not run yet.
    await asyncio.sleep(0)
    listener.cancel()
    done, _ = await asyncio.wait([listener], timeout=5)
    assert done == {listener}
    assert log.made[0].closed


async def test_a_log_without_a_watch_is_polled() -> None:
    log = MemoryLog("polled")
    told: list[int] = []
    log.create_topic("t", 1)
    async with listening(log, lambda: told.append(1)):
        await until(lambda: len(told) == 1)
        log.append(VALUES)
        await until(lambda: len(told) == 2)


async def test_a_log_that_fails_ends_the_listening_with_its_error(tmp_path: Path) -> None:
    log = open_log(f"file://{tmp_path}/log")
    log.close()
    with pytest.raises(LogUnavailableError, match="closed"):
        await asyncio.wait_for(news.listen(log, lambda: None), 10)
