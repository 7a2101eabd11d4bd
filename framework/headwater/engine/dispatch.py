"""Dispatch: hands a group's records to the readers of a task, in order of declaration.

Readers that share a table go in lock step, record by record; others take whole groups. Timers run behind the very record
that made them due.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from headwater.engine.operator import OperatorRunner
from headwater.engine.runner import Runner
from headwater.engine.timer import next_due

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.engine.plan import RunPlan
    from headwater.engine.timer import TimerRunner
    from headwater.merge.channel import Channel
    from headwater.stream.frame import Work


class Dispatch:
    """The readers of one task, and what each has finished before the task was taken up."""

    def __init__(self, plan: RunPlan) -> None:
        """Begin with no reader."""
        self.plan = plan
        self.lock_steps: list[list[Runner | OperatorRunner]] = []
        self.timers: list[TimerRunner] = []
        self.reads: dict[str, set[int]] = {}
        """By reader the numbers of the inputs that it reads."""
        self.resume: dict[str, dict[int, int]] = {}
        """By reader and channel up to where it is not handed records again."""
        self._inputs = 0
        self._channels: Sequence[Channel] = ()

    def begin(
        self, inputs: int, channels: Sequence[Channel], positions: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Take up `positions`, by reader and channel name; `inputs` is how many there are."""
        self._inputs, self._channels = inputs, channels
        for reader, places in positions.items():
            # A reader that had finished more than the least of them isn't handed those records again.
            ahead = {
                at: places[channel.name]
                for at, channel in enumerate(channels)
                if channel.name in places and places[channel.name] > channel.position
            }
            if ahead:
                self.resume[reader] = ahead

    @property
    def runners(self) -> list[Runner | OperatorRunner | TimerRunner]:
        """All runners, in order of declaration within each set; timers last."""
        return [*(runner for together in self.lock_steps for runner in together), *self.timers]

    async def hand_out(self, every: Work, work: Work) -> None:
        """Hand out a group: `every` has all its records, `work` those that could be decoded."""
        if not len(every):
            return
        if self.timers:
            await self._timed(every, work)
        else:
            await self._all(every, work)

    async def _timed(self, every: Work, work: Work) -> None:
        """Hand records out with the timers run between them, each behind the very record that made it due."""
        start = 0
        while (due := next_due(self.timers, every)) <= every.task_watermarks[-1]:
            at = bisect_left(every.task_watermarks, due, start)
            await self._part(every, work, start, at + 1)
            for timer in self.timers:
                if timer.due <= every.task_watermarks[at]:
                    await timer.advance(every.rows[at], every.task_watermarks[at])
            start = at + 1
        await self._part(every, work, start, len(every))

    async def _part(self, every: Work, work: Work, start: int, end: int) -> None:
        if start >= end:
            return
        part = every.slice(start, end)
        if work is every:
            await self._all(part, part)
            return
        first, last = every.rows[start], every.rows[end - 1] + 1
        await self._all(part, work.slice(bisect_left(work.rows, first), bisect_left(work.rows, last)))

    async def _all(self, every: Work, work: Work) -> None:
        for together in self.lock_steps:
            if len(together) == 1:
                runner = together[0]
                mine = self._share(runner.agent.name, work)
                if isinstance(runner, OperatorRunner):
                    runner.run(every, mine)
                elif len(mine):
                    await runner.run(mine)
                continue
            if await self._kept(together, every, work):
                continue
            shares = [(runner, self._share(runner.agent.name, work)) for runner in together]
            wanted = [
                ({row: at for at, row in enumerate(share.rows)}, runner, share) for runner, share in shares
            ]
            for number, row in enumerate(every.rows):
                for index, runner, share in wanted:
                    at = index.get(row)
                    if isinstance(runner, OperatorRunner):
                        runner.run_row(every, number, share, at)
                    elif at is not None:
                        await runner.run(share.slice(at, at + 1))

    async def _kept(self, together: Sequence[Runner | OperatorRunner], every: Work, work: Work) -> bool:
        """Hand out work to an agent that works on a table with its keepers alone: in pieces, cut where windows close."""
        agents = [runner for runner in together if isinstance(runner, Runner)]
        keepers = [runner for runner in together if isinstance(runner, OperatorRunner)]
        if len(agents) != 1 or not all(keeper.keeps for keeper in keepers):
            return False
        mine = self._share(agents[0].agent.name, work)
        start = 0
        for cut in sorted({at for keeper in keepers for at in keeper.cuts(every)}):
            end = bisect_right(mine.rows, every.rows[cut])
            if end > start:
                await agents[0].run(mine.slice(start, end))
            start = end
            for keeper in keepers:
                await keeper.advance(every.rows[cut], every.task_watermarks[cut])
        if start < len(mine):
            await agents[0].run(mine.slice(start))
        for keeper in keepers:
            # What was opened and is due already: of a window that no crossing foretold.
            if keeper.due <= every.task_watermarks[-1]:
                await keeper.advance(every.rows[-1], every.task_watermarks[-1])
            keeper.context.watermark = every.task_watermarks[-1]
        return True

    def _share(self, reader: str, work: Work) -> Work:
        """Return the part of the work that a reader reads and hasn't finished before."""
        wanted = self.reads[reader]
        resume = self.resume.get(reader)
        all_inputs = len(wanted) == self._inputs
        if all_inputs and resume is None and work.headers is None:
            return work
        keep = []
        for at in range(len(work)):
            if not all_inputs and work.input_at(at) not in wanted:
                continue
            if resume is not None and work.places[at] < resume.get(work.channel_at(at), 0):
                continue
            if not self.plan.is_addressed_to(work.headers_at(at), reader):
                continue
            keep.append(at)
        if resume is not None and all(self._channels[at].position >= place for at, place in resume.items()):
            del self.resume[reader]
        return work if len(keep) == len(work) else work.pick(keep)
