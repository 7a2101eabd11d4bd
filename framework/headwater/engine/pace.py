"""Pace: in a replay in time order, no source runs far ahead of the one that is furthest behind.

What a fast task sends through a group_by waits, in memory, for the slow ones' records of the same time. So a task that
reads sources takes no group while it is more than `ahead` past the least task time of the generation; where no span is
set, while what it took past that time is more than its share of the buffers. Tasks of other workers are known by what
they have committed.
Invariant: the one furthest behind is never held, so there is always one that goes on; what is held changes no result.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from headwater.merge.channel import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headwater.engine.inputs import Input
    from headwater.engine.plan import RunPlan
    from headwater.engine.positions import TaskState

LOOK_S = 0.25
"""How often the committed times of other workers' tasks are looked at."""

WAIT_S = 0.005
"""How long a held task waits before it looks again."""


class Paced(Protocol):
    """What is asked of a task."""

    number: int

    @property
    def task_time(self) -> int:
        """The greatest effective time that it took."""
        ...

    @property
    def inputs(self) -> Sequence[Input]:
        """What it reads."""
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

    def watch(self, tasks: Mapping[int, Paced]) -> None:
        """Know this worker's own tasks."""
        self._tasks = tasks

    def others(self) -> list[int]:
        """Return the source tasks that other workers have, and that may not have come to their ends."""
        return [number for number in self._others if number not in self._tasks]

    def learn(self, states: Mapping[int, TaskState]) -> None:
        """Note how far tasks of other workers are."""
        for number, state in states.items():
            if state.marks.get("end"):
                self._others.pop(number, None)
            elif state.time is not None and number in self._others:
                self._others[number] = state.time

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
        if self.ahead_ms is not None:
            return task.task_time - least > self.ahead_ms
        taken = self._taken.get(task.number)
        if not taken:
            return False
        while taken and taken[0][0] <= least:
            taken.popleft()
        return sum(nbytes for _, nbytes in taken) > self.bytes_max

    def _times(self) -> Iterable[int]:
        for number, time in self._others.items():
            task = self._tasks.get(number)
            if task is None:
                yield time
            elif not all(an_input.ended for an_input in task.inputs):
                yield task.task_time
