"""Ends: whether a worker's tasks have nothing more to do, and whether their whole group has come to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headwater.core.batch import TopicPartition
from headwater.engine.inputs import BROADCAST
from headwater.source.bounds import start_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.engine.assemble import Assembly
    from headwater.engine.plan import RunPlan
    from headwater.engine.positions import Positions
    from headwater.engine.task import Task
    from headwater.log.interface import Log


class Ends:
    """Looks at this worker's tasks, and at what the group's have committed."""

    def __init__(
        self, log: Log, plan: RunPlan, positions: Positions, assembly: Assembly, tasks: Mapping[int, Task]
    ) -> None:
        """Take what a session has; `tasks` are those it owns, whenever it is asked."""
        self._log = log
        self._plan = plan
        self._positions = positions
        self._assembly = assembly
        self._tasks = tasks

    def have_caught_up(self) -> bool:
        """Tell whether the tasks have read all that was there when they last looked."""
        return all(i.caught_up or i.ended for task in self._tasks.values() for i in task.inputs)

    def are_quiet(self) -> bool:
        """Tell whether, besides, nothing that was read waits in them."""
        tasks = self._tasks.values()
        return self.have_caught_up() and not any(task.merge.waiting() or task.has_news() for task in tasks)

    async def are_committed(self) -> bool:
        """Tell whether every task of a bounded generation, whoever owns it, has committed its end."""
        if not all(task.finished() for task in self._tasks.values()):
            return False
        tasks = self._plan.topology.tasks
        states = await asyncio.to_thread(self._positions.load, range(tasks))
        return len(states) == tasks and all(state.marks.get("end") for state in states.values())

    async def end_shadows(self) -> bool:
        """End the inputs by which a replay reads its own records, once nothing more can come into them; tell whether it did."""
        shadows = [i for task in self._tasks.values() for i in task.inputs if i.is_shadow and not i.ended]
        if not shadows or not all(i.caught_up for i in shadows):
            return False
        if not await asyncio.to_thread(self._assembly.loops.are_read, self._log, self._positions):
            return False
        for task in self._tasks.values():
            task.finish_shadows()
        return True

    def group_is_idle(self) -> bool:
        """Tell whether the group has committed all that the log has; asks the log.

        Reads ends, then positions, then ends again: nothing may have come meanwhile.
        """
        topology = self._plan.topology
        places = [
            (sub.first_task + task, BROADCAST if partition is None else "", TopicPartition(topic, at))
            for sub in topology.subs
            for task in range(sub.partitions)
            for topic, partition in [*((t, task) for t in sub.topics), *((t, None) for t in sub.broadcast)]
            for at in (range(topology.source_topics[topic]) if partition is None else [partition])
        ]
        inputs = list(dict.fromkeys(tp for _, _, tp in places))
        ends = self._log.end_offsets(inputs, uncommitted=True)
        states = self._positions.load(range(topology.tasks))
        for task, mark, tp in places:
            state = states.get(task)
            seen = None if state is None else state.seen.get(f"{mark}{tp}")
            if seen is None:
                seen = start_of(self._assembly.archive, self._log, tp.topic, tp.partition)
            if seen < ends[tp]:
                return False
        return self._log.end_offsets(inputs, uncommitted=True) == ends
