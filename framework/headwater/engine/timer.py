"""Runs event-time timers in one task: for each multiple that the task's watermark passes, between the records.

Protocol
1. A timer begins with the first record whose own watermark is known: multiples above that watermark are run.
2. When the task's watermark after a row has passed a multiple, the function is run with it, with that row as its cause.
   What fails is undone and run again; after the last retry the worker stops, since there is no record to put aside.
3. END-OF-TIME runs it once more, for the multiple that would have come next.
Invariant: which multiples are run, and where between the records, hangs on the records alone; the last one run is in the
task's state (I2, I11).
"""

from __future__ import annotations

import asyncio
import inspect
from random import Random
from typing import TYPE_CHECKING, Any

from headwater.app.touched import tables_touched
from headwater.core.errors import RecordFailedError, TopologyError
from headwater.engine.operator import IdleFeed, OperatorAgent
from headwater.engine.runner import Relearn
from headwater.merge.channel import END_OF_TIME, NEVER
from headwater.stream.frame import CURRENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.app.timer import EventTimer
    from headwater.engine.topology import Topology
    from headwater.stream.frame import Frame, Work


class TimerRunner:
    """One event-time timer of one task. `last` is the number of the last multiple that was run, or begun behind."""

    def __init__(self, timer: EventTimer, frame: Frame, *, retries: int, timeout_s: float | None) -> None:
        """Take the frame that its writes and sends go through."""
        self.timer = timer
        self.frame = frame
        frame.close()
        self.agent = OperatorAgent(timer.name, dead_letters=False)
        self.feed = IdleFeed()
        self.last: int | None = None
        self._retries = retries
        self._timeout_s = timeout_s

    @property
    def due(self) -> int:
        """The watermark at which the next multiple is run."""
        return END_OF_TIME if self.last is None else min(END_OF_TIME, (self.last + 1) * self.timer.every_ms)

    def begin(self, watermarks: Sequence[int]) -> None:
        """Look for the first record whose own watermark is known, where none was seen yet."""
        if self.last is None:
            first = next((own for own in watermarks if own not in (NEVER, END_OF_TIME)), None)
            if first is not None:
                self.last = first // self.timer.every_ms

    async def advance(self, row: int, watermark: int) -> None:
        """Run each multiple up to a watermark."""
        every_ms = self.timer.every_ms
        if self.last is None:
            time = self.frame.rows.task_times[row]
            if time == NEVER:
                return
            self.last = time // every_ms
        until = self.last + 1 if watermark == END_OF_TIME else watermark // every_ms
        while self.last < until:
            await self._run(row, (self.last + 1) * every_ms)
            self.last += 1
        if watermark == END_OF_TIME:
            # Nothing comes behind the end.
            self.last = END_OF_TIME // every_ms

    async def _run(self, row: int, time_ms: int) -> None:
        attempts = 0
        while True:
            attempts += 1
            floors = {number: part.count for number, part in self.frame.granted.items()}
            sent = len(self.frame.sends)
            error = await self._attempt(row, time_ms)
            if error is None:
                for send in self.frame.sends[sent:]:
                    if send.timestamp is None:
                        send.timestamp = time_ms
                return
            if isinstance(error, Relearn):
                raise error
            for number, part in self.frame.granted.items():
                part.rollback(row, floors.get(number, 0))
            del self.frame.sends[sent:]
            if attempts > self._retries:
                raise RecordFailedError(
                    f"timer {self.timer.name!r} fails at event time {time_ms} after {attempts} attempts "
                    f"({type(error).__name__}: {error}); there is no record to put aside: mend it and start the worker "
                    "again, nothing was lost"
                ) from error

    async def _attempt(self, row: int, time_ms: int) -> BaseException | None:
        frame = self.frame
        frame.open()
        frame.work, frame.row = None, row
        frame.seed(Random(f"{self.timer.name}:{time_ms}"))
        token = CURRENT.set(frame)
        try:
            result: Any = self.timer.fun(time_ms)
            if inspect.isawaitable(result):
                await asyncio.wait_for(result, self._timeout_s)
        except asyncio.CancelledError:
            raise
        except (Exception, Relearn) as error:
            return error
        finally:
            CURRENT.reset(token)
            frame.close()
        return None

    async def stop(self) -> None:
        """Do nothing: no code of a timer runs between its multiples."""


def next_due(timers: Sequence[TimerRunner], every: Work) -> int:
    """Return the least watermark at which one of the timers is to be run, given the records that come now."""
    for timer in timers:
        timer.begin(every.watermarks)
    return min((timer.due for timer in timers), default=END_OF_TIME)


def place_timers(app: Any, topology: Topology, learned: Mapping[str, frozenset[str]]) -> None:
    """Give each event-time timer to the sub-topology of the tables it touches, one that touches none to the first.

    Raises TopologyError where its tables belong to several.
    """
    tables = list(app.declared.tables.values())
    for timer in app.declared.timers.values():
        touched = tables_touched(timer.fun, tables) if timer.tables is None else timer.tables
        names = {table.name for table in touched} | learned.get(timer.name, frozenset())
        homes = [sub for sub in topology.subs if names & set(sub.tables)]
        if len(homes) > 1:
            raise TopologyError(
                f"timer {timer.name!r} touches tables of different tasks ({', '.join(sorted(names))}); "
                "declare a timer for each, or have one agent touch all of them"
            )
        home = homes[0] if homes else topology.subs[0]
        home.tables += [
            table.name for table in tables if table.name in names and table.name not in home.tables
        ]
        home.timers[timer.name] = tuple(table.name for table in tables if table.name in names)
