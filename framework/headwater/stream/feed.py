"""Hands work to one agent instance, record by record or in lists, and knows what it has not finished.

Protocol
1. The engine puts work; the agent's iteration takes it. Asking for the next record says that the one before is done.
2. When nothing is left the feed is *parked*: all that was handed out is finished, except what `take` holds back.
3. When the agent fails, `unfinished` says what was in hand (to be redone or given up) and what comes after it.
4. An agent may leave its loop and begin another: that one goes on with the record after the last one handed out.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any

from headwater.core.errors import AgentStoppedError
from headwater.core.hot import Entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headwater.stream.frame import Frame, Work


class Feed:
    """What one agent instance reads. Not shared between instances: a new instance gets a new feed."""

    def __init__(self, frame: Frame) -> None:
        """Begin parked, with nothing pending."""
        self.frame = frame
        self.pending: deque[Work] = deque()
        self.held: list[Work] = []
        self.handed: list[Work] = []
        self.current: Work | None = None
        self.progress = 0
        self.within_ms: int | None = None
        self._taking = False
        self._flushing = False
        self._lists_begun = 0
        self._stopped: tuple[list[Work], list[Work]] | None = None
        # Shared by all loops of the instance, so that a second one goes on where the first was left, at no cost a record.
        self._entries = Entries(frame, self._more)
        self._wake: asyncio.Future[None] | None = None
        self._turn: asyncio.Future[None] | None = None
        self._parked = False

    @property
    def parked(self) -> bool:
        """Whether the agent waits for work, having finished all it was handed."""
        return self._parked

    def put(self, work: Work) -> None:
        """Give work that follows all given before."""
        self.pending.append(work)
        self._stir()

    def flush(self) -> None:
        """Have `take` hand out what it holds once nothing is pending, though the list is not full."""
        self._flushing = True
        self._stir()

    async def turn(self, timeout_s: float | None = None) -> None:
        """Return when the agent has asked for more than there is, when `end_turn` is called, or after a time."""
        if self._parked:
            return
        loop = asyncio.get_running_loop()
        self._turn = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, self.end_turn)
        try:
            await self._turn
        finally:
            self._turn = None
            if timer is not None:
                timer.cancel()

    def end_turn(self, _instance: object = None) -> None:
        """Have whoever waits for the agent look at it: it has parked, ended, or taken its time."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def unfinished(self) -> tuple[list[Work], list[Work]]:
        """Return (what was in hand, what follows), each in order. Held-back records come first in what follows."""
        if self._stopped is not None:
            return self._stopped
        if self._taking:
            rest = list(self.held)
            if self.current is not None:
                rest.append(self.current)
            return list(self.handed), [*rest, *self.pending]
        if self.current is None:
            return [], list(self.pending)
        at = bisect_left(self.current.rows, self.frame.row)
        failed, after = self.current.slice(at, at + 1), self.current.slice(at + 1)
        return [failed], [*([after] if len(after) else []), *self.pending]

    def stop(self) -> None:
        """Hold to what is in hand now: code that outlives its cancellation can finish nothing more."""
        self._stopped = self.unfinished()

    def values(self) -> AsyncIterator[Any]:
        """Iterate over decoded values one by one, in order, for ever."""
        return aiter(self._entries)

    async def _more(self) -> Any:
        """Give the entries the next work, and return its first value."""
        if self._taking:
            self._leave_lists()
        self.progress += 1
        work = None
        while not work:
            while not self.pending:
                self._flushing = False
                await self._wait()
            work = self.pending.popleft()
        # The row is all that is noted with each value: the rest is found from it when asked for.
        self.current = self.frame.work = work
        self.frame.open()
        self._entries.load(work.rows, work.values)
        return self._entries.take()

    async def lists(self, size: int, within_ms: int | None) -> AsyncIterator[list[Any]]:
        """Yield lists of at most `size` values; shorter ones where event time moved on by more than `within_ms`."""
        self._leave_values()
        self._leave_lists()
        self._taking, self.within_ms = True, within_ms
        self._lists_begun = mine = self._lists_begun + 1
        count, first_time = 0, 0
        while True:
            if not self.pending:
                if not self._flushing:
                    await self._wait()
                    continue
                self._flushing = False
                if self.held:
                    yield self._hand_out()
                    self._check_lists(mine)
                    self.handed, count = [], 0
                continue
            work = self.pending.popleft()
            start = 0
            # Effective times, not the task's: records held back over a restart come again, and the task's clock is ahead.
            times = work.times
            for at in range(len(work)):
                now = times[at]
                if count and within_ms is not None and now - first_time > within_ms:
                    self._hold(work, start, at)
                    self.current = work.slice(at)
                    yield self._hand_out()
                    self._check_lists(mine)
                    self.handed, self.current, count, start = [], None, 0, at
                if not count:
                    first_time = now
                count += 1
                if count >= size:
                    self._hold(work, start, at + 1)
                    rest = work.slice(at + 1)
                    self.current = rest if len(rest) else None
                    yield self._hand_out()
                    self._check_lists(mine)
                    self.handed, self.current, count, start = [], None, 0, at + 1
            self._hold(work, start, len(work))

    def _check_lists(self, mine: int) -> None:
        if mine != self._lists_begun or not self._taking:
            raise AgentStoppedError(
                "a `take` loop was gone on with after another loop over the stream had begun; the records are that one's: "
                "leave one loop before the next begins"
            )

    def _leave_values(self) -> None:
        """Give back what a loop over values has not handed out: the loop that follows begins there."""
        if self.current is not None and not self._taking:
            _, rest = self.unfinished()
            self.pending, self.current = deque(rest), None
            self._entries.clear()

    def _leave_lists(self) -> None:
        """Give back what a loop over lists holds; the list it handed out is finished."""
        if self._taking:
            _, rest = self.unfinished()
            self.pending, self.current, self.held, self.handed = deque(rest), None, [], []
            self._taking, self.within_ms = False, None

    def _hold(self, work: Work, start: int, end: int) -> None:
        if end > start:
            self.held.append(work.slice(start, end))

    def _hand_out(self) -> list[Any]:
        self.handed, self.held = self.held, []
        last = self.handed[-1]
        self.frame.open()
        self.frame.work, self.frame.row = last, last.rows[-1]
        self.progress += 1
        return [value for work in self.handed for value in work.values]

    def _stir(self) -> None:
        self._parked = False
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _wait(self) -> None:
        """Park until there is work, or a list to hand out early."""
        self.current = None
        self.frame.close()
        while not self.pending and not self._flushing:
            self._wake = asyncio.get_running_loop().create_future()
            self._parked = True
            self.end_turn()
            await self._wake
            self._wake = None
        self._parked = False
