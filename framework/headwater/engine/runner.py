"""Runs one agent in one task: its instance, its retries, and what happens to a record that can't be processed.

Protocol of a hand-out
1. Floors of the change and send lists are noted; the work is put; the agent runs until it asks for more.
2. If it fails, changes and sends of the record in hand are dropped (all before it stand), the instance is replaced, and
   the same record is handed out again, `retries` times.
3. After that the record goes to dead letters and the rest goes on; with dead letters off the worker stops.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

from headwater.core.errors import AgentStoppedError, RecordFailedError
from headwater.stream.feed import Feed
from headwater.stream.frame import CURRENT, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from headwater.stream.frame import Work
    from headwater.table.part import TablePart

ATTEMPTS_EMPTY_MAX = 3
"""An agent that fails before taking a record is begun this often, then the worker stops."""


class Relearn(BaseException):
    """An agent touched a table that its code didn't show: the topology is made anew with what was learnt.

    A signal, not an error: it derives from BaseException so that an agent's own `except Exception` lets it through.
    """


class AgentLike(Protocol):
    """What a runner needs of an agent."""

    name: str
    retries: int
    timeout_s: float | None
    split: bool
    dead_letters: bool


class DeadLetter:
    """One record that could not be processed, with the reason."""

    __slots__ = ("agent", "attempts", "error", "message", "row", "work")

    def __init__(self, work: Work, agent: str, error: BaseException, attempts: int) -> None:
        """Take a Work of one entry."""
        self.work = work
        self.row = work.rows[0]
        self.agent = agent
        self.error = type(error).__name__
        self.message = str(error)
        self.attempts = attempts

    def refuse(self) -> None:
        """Raise for a worker whose dead letters are off."""
        info = self.info()
        raise RecordFailedError(
            f"{self.agent} failed on {info['topic']}/{info['partition']}@{info['offset']} ({self.error}: {self.message}) "
            f"after {self.attempts} attempts, and dead letters are off; mend the agent or the record, or turn dead letters on"
        )

    def info(self) -> dict[str, Any]:
        """Return the content of the header `hw.dead`."""
        topic, partition = self.work.topics[self.work.input_at(0)]
        return {
            "topic": topic,
            "partition": partition,
            "offset": self.work.offsets[0],
            "agent": self.agent,
            "error": self.error,
            "message": self.message[:2000],
            "attempts": self.attempts,
        }


class Runner:
    """One agent of one task, over all its instances."""

    def __init__(
        self,
        agent: AgentLike,
        frame: Frame,
        start: Callable[[Feed, Frame], Coroutine[Any, Any, None]],
        dead: Callable[[DeadLetter], None],
        decoded_anew: Callable[[Work], Work],
    ) -> None:
        """Take how to start an instance, where dead letters go, and how values are decoded once more."""
        self.agent = agent
        self.frame = frame
        frame.close()
        self.start = start
        self.dead = dead
        self.decoded_anew = decoded_anew
        self.feed = Feed(frame)
        self._instance: asyncio.Task[None] | None = None

    @property
    def parts(self) -> dict[int, TablePart]:
        """The table parts this agent may touch."""
        return self.frame.granted

    async def run(self, work: Work | None) -> None:
        """Hand out work, or flush what `take` holds where there is none; return when the agent has finished it."""
        floors = {number: part.count for number, part in self.parts.items()}
        if work is None:
            self.feed.flush()
        else:
            self.feed.put(work)
        attempts = empty = 0
        failing: int | None = None
        while (error := await self._settle()) is not None:
            if isinstance(error, Relearn):
                raise error
            failed, rest = self.feed.unfinished()
            if not failed:
                empty += 1
                if empty >= ATTEMPTS_EMPTY_MAX:
                    raise RecordFailedError(
                        f"agent {self.agent.name!r} fails before it takes a record ({type(error).__name__}: {error}); "
                        "mend it and start the worker again, nothing was lost"
                    ) from error
                self._renew(rest)
                continue
            row = failed[-1].rows[-1]
            self._roll_back(row, floors)
            failed = [self.decoded_anew(part) for part in failed]
            attempts = attempts + 1 if failing == row else 1
            failing = row
            if attempts <= self.agent.retries:
                self._renew([*failed, *rest])
            else:
                if self.agent.split and sum(map(len, failed)) > 1:
                    await self._split(failed, floors)
                else:
                    self._give_up(failed, error, attempts)
                failing = None
                self._renew(rest)
            if work is None:
                self.feed.flush()

    async def stop(self) -> None:
        """End the instance: its code sees a cancellation."""
        if self._instance is not None:
            self.frame = self.frame.retire()
            self._instance.cancel()
            self._instance.add_done_callback(_look_at)
            await asyncio.wait([self._instance], timeout=2)
            self._instance = None

    def _renew(self, pending: list[Work]) -> None:
        """Replace the instance: a local variable of an agent is a cache and may vanish.

        The old one may go on for a while (`finally`, or code that catches its cancellation); its frame takes nothing more.
        """
        if self._instance is not None:
            self._instance.cancel()
            self._instance.add_done_callback(_look_at)
            self._instance = None
        self.frame = self.frame.retire()
        self.feed = Feed(self.frame)
        for work in pending:
            self.feed.put(work)

    async def _split(self, failed: list[Work], floors: dict[int, int]) -> None:
        """Redo a failed list record by record; those that fail again go to dead letters."""
        for work in failed:
            for at in range(len(work)):
                single = work.slice(at, at + 1)
                attempts = 0
                while True:
                    attempts += 1
                    self._renew([single])
                    self.feed.flush()
                    error = await self._settle()
                    if error is None:
                        break
                    self._roll_back(single.rows[0], floors)
                    single = self.decoded_anew(single)
                    if attempts > self.agent.retries:
                        self._give_up([single], error, attempts)
                        break

    def _give_up(self, failed: list[Work], error: BaseException, attempts: int) -> None:
        for work in failed:
            for at in range(len(work)):
                letter = DeadLetter(work.slice(at, at + 1), self.agent.name, error, attempts)
                if not self.agent.dead_letters:
                    letter.refuse()
                self.dead(letter)

    def _roll_back(self, row: int, floors: dict[int, int]) -> None:
        for number, part in self.parts.items():
            part.rollback(row, floors.get(number, 0))
        sends = self.frame.sends
        while sends and sends[-1].row >= row:
            sends.pop()

    async def _settle(self) -> BaseException | None:
        """Return None when the agent has finished all it was given, or what it raised.

        An agent whose function returns has finished the record in hand; a new instance goes on with the rest.
        """
        returned_at_once = 0
        while True:
            if self._instance is None:
                self._instance = self._begin()
            error, ended = await self._wait(self._instance)
            if not ended:
                return error
            taken, rest = self.feed.unfinished()
            returned_at_once = 0 if taken else returned_at_once + 1
            if returned_at_once >= ATTEMPTS_EMPTY_MAX:
                return AgentStoppedError(
                    "the agent returned without taking a record; iterate over the stream"
                )
            self._renew(rest)
            if not rest:
                return None

    async def _wait(self, instance: asyncio.Task[None]) -> tuple[BaseException | None, bool]:
        """Wait until the agent is parked, has failed, has returned, or takes too long; tell (error, has returned)."""
        while True:
            progress = (self.feed.progress, self.frame.row)
            if not instance.done():
                await self.feed.turn(self.agent.timeout_s)
            if instance.done():
                self._instance = None
                if instance.cancelled():
                    return asyncio.CancelledError("the agent was cancelled"), False
                error = instance.exception()
                return error, error is None
            if self.feed.parked:
                return None, False
            if progress == (self.feed.progress, self.frame.row):
                self.feed.stop()
                self.frame = self.frame.retire()
                instance.cancel()
                instance.add_done_callback(_look_at)
                await asyncio.wait({instance}, timeout=2)
                self._instance = None
                return TimeoutError(
                    f"agent {self.agent.name!r} took longer than {self.agent.timeout_s} s"
                ), False

    def _begin(self) -> asyncio.Task[None]:
        context = copy_context()
        context.run(CURRENT.set, self.frame)
        instance = context.run(asyncio.get_running_loop().create_task, self.start(self.feed, self.frame))
        instance.add_done_callback(self.feed.end_turn)
        return instance


def _look_at(instance: asyncio.Task[None]) -> None:
    """Take what an ended instance raised on its way out; asyncio reports errors that nobody has looked at."""
    if not instance.cancelled():
        instance.exception()
