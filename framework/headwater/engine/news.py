"""News: tells who waits for records that the log has changed; by the log's watch where it has one, else by polling."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.log.interface import Log, Watch

POLL_S = 0.01
"""How often to look where the log has no watch."""

WATCHED_POLL_S = 0.5
"""How often to look beside a watch: a committer may be killed after its commit and before it tells."""

LOOK_GAP_S = 0.0005
"""The least time from look to look, so that a busy log doesn't take the worker's time."""


async def listen(log: Log, tell: Callable[[], None]) -> None:
    """Call `tell` once, and then after each change of the log, until cancelled."""
    watch = log.watch()
    if watch is None:
        await _look(log, tell, None, POLL_S)
        return
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(watch.fileno(), _hear, watch, heard)
    try:
        await _look(log, tell, heard, WATCHED_POLL_S)
    finally:
        loop.remove_reader(watch.fileno())
        watch.close()


def _hear(watch: Watch, heard: asyncio.Event) -> None:
    watch.drain()
    heard.set()


async def _look(log: Log, tell: Callable[[], None], heard: asyncio.Event | None, poll_s: float) -> None:
    seen: int | None = None
    while True:
        if heard is not None:
            # Before the look: a commit after it is heard again.
            heard.clear()
        version = log.version()
        if version != seen:
            seen = version
            tell()
        if heard is None:
            await asyncio.sleep(poll_s)
            continue
        await asyncio.sleep(LOOK_GAP_S)
        # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with what it waits for, and
        # a worker is told to end right after its last commit.
        timer = asyncio.get_running_loop().call_later(poll_s, heard.set)
        try:
            await heard.wait()
        finally:
            timer.cancel()
