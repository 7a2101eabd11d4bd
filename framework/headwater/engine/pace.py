"""Pace: in a replay in time order, no source runs far ahead of the one that is furthest behind.

What a fast task sends through a group_by waits, in memory, for the slow ones' records of the same time. So a task that
reads sources takes no group while it is more than `ahead` past the least time of the generation's sources; where no span
is set, while what it took past that time is more than its share of the buffers. A task's time, here, is that of the next
record of its sources: with the last one that it took, a task that waits for what others send it would hold them, for ever
where its own sources have come to their ends. Tasks of other workers are known by what they have committed.

Invariants
- The one furthest behind is never held by what this worker knows.
- Where that is old, and nothing has moved for a while, one group is let go: there is always one that goes on.
- What is held changes no result.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from headwater.core.clock import SYSTEM_CLOCK
from headwater.merge.channel import END_OF_TIME, NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwater.engine.plan import RunPlan
    from headwater.engine.positions import TaskState

LOOK_S = 0.25
"""How often the committed times of other workers' tasks are looked at."""

WAIT_S = 0.005
"""How long a held task waits before it looks again."""

STILL_S = 1.0
"""How long the least time may stand still before a held task takes a group all the same."""

NEXT = "next"
"""The mark of a committed epoch that has the time of the next source record."""


class Paced(Protocol):
    """What is asked of a task."""

    number: int

    @property
    def task_time(self) -> int:
        """The greatest effective time that it took."""
        ...

    @property
    def source_time(self) -> int:
        """The effective time of its sources' next record, as far as it is known; END_OF_TIME where none is left."""
        ...


class Pace:
    """How far the source tasks of one generation are, as one worker knows it."""

    def __init__(self, plan: RunPlan, *, ahead_ms: int | None, bytes_max: int) -> None:
        """`ahead_ms`: None holds a task by the bytes it took past the least time, `bytes_max` for all tasks together."""
        topology = plan.topology
        self.sources = [
            number
            for sub in topology.subs
            if any(topic not in sub.senders for topic in sub.topics)
            for number in range(sub.first_task, sub.first_task + sub.partitions)
        ]
        self.is_needed = plan.total_order and bool(topology.repartition_topics) and len(self.sources) > 1
        self.ahead_ms = ahead_ms
        self.bytes_max = bytes_max // max(1, len(self.sources))
        self._others: dict[int, int] = dict.fromkeys(self.sources, NEVER)
        self._taken: dict[int, deque[tuple[int, int]]] = {}
        self._tasks: Mapping[int, Paced] = {}
        self._least: int | None = None
        self._still_since_s = 0.0

    def watch(self, tasks: Mapping[int, Paced]) -> None:
        """Know this worker's own tasks."""
        self._tasks = tasks

    def others(self) -> list[int]:
        """Return the source tasks that other workers have, and that may not have come to their ends."""
        return [number for number in self._others if number not in self._tasks]

    def learn(self, states: Mapping[int, TaskState]) -> None:
        """Note how far tasks of other workers are."""
        for number, state in states.items():
            time = END_OF_TIME if state.marks.get("end") else state.marks.get(NEXT, state.time)
            if time == END_OF_TIME:
                self._others.pop(number, None)
            elif time is not None and number in self._others:
                self._others[number] = time

    def took(self, task: Paced, time: int, nbytes: int) -> None:
        """Note that a task took records up to an effective time."""
        if self.is_needed and self.ahead_ms is None:
            self._taken.setdefault(task.number, deque()).append((time, nbytes))

    def holds(self, task: Paced) -> bool:
        """Tell whether a task must wait for others before it takes its next group."""
        if not self.is_needed or task.number not in self._others:
            return False
        least = min(self._times(), default=None)
        if least is None or task.task_time <= least:
            # None: all have come to their ends, and what is left to take is this task's end itself.
            return False
        return self._is_far(task, least) and not self._stands_still(least)

    def _is_far(self, task: Paced, least: int) -> bool:
        if self.ahead_ms is not None:
            return task.task_time - least > self.ahead_ms
        taken = self._taken.get(task.number)
        if not taken:
            return False
        while taken and taken[0][0] <= least:
            taken.popleft()
        return sum(nbytes for _, nbytes in taken) > self.bytes_max

    def _stands_still(self, least: int) -> bool:
        """Tell, once each time, whether the least time has been the same for long."""
        now_s = SYSTEM_CLOCK.monotonic_s()
        if least != self._least:
            self._least, self._still_since_s = least, now_s
        if now_s - self._still_since_s < STILL_S:
            return False
        self._still_since_s = now_s
        return True

    def _times(self) -> Iterable[int]:
        for number, time in self._others.items():
            task = self._tasks.get(number)
            found = time if task is None else task.source_time
            if found < END_OF_TIME:
                yield found
