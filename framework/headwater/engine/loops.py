"""Loops: source topics that the app's own sinks write. A generation that isn't promoted reads its own records from a shadow.

A bounded replay ends the shadow when nothing more can come into it: every task that may write it has read its other
sources to their bounds, and the shadow itself to its end. Ends are read, then positions, then ends again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.batch import TopicPartition
from headwater.core.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from headwater.engine.plan import RunPlan
    from headwater.engine.positions import Positions, TaskState
    from headwater.engine.topology import SubTopology
    from headwater.log.interface import Log


class Loops:
    """The loops of one run; empty where the generation is promoted, and so reads and writes the real topics."""

    def __init__(self, app: Any, plan: RunPlan, written: Collection[str]) -> None:
        """Find them. Raises TopologyError for a bounded run whose loop goes through a group_by."""
        sources = set(plan.topology.source_topics)
        self.topics = frozenset() if plan.promoted else frozenset(written) & sources - plan.external
        broadcast = sorted(self.topics & {topic for sub in plan.topology.subs for topic in sub.broadcast})
        if broadcast:
            raise TopologyError(
                f"{', '.join(broadcast)} is written by this app and read whole by each task, which a generation that isn't "
                "promoted can't do yet; declare the topic external=True if it is no result of the app"
            )
        self._plan = plan
        self._readers = [sub for sub in plan.topology.subs if self.topics & set(sub.topics)]
        self._writers = [sub for sub in plan.topology.subs if self.topics & written_by(app, sub)]
        if plan.bounded:
            self._refuse_endless()

    def are_read(self, log: Log, positions: Positions) -> bool:
        """Tell whether nothing more can come into any shadow."""
        places = [
            TopicPartition(self._plan.shadow_of(topic), partition)
            for sub in self._readers
            for topic in sub.topics
            if topic in self.topics
            for partition in range(sub.partitions)
        ]
        ends = log.end_offsets(places, uncommitted=True)
        states = positions.load(range(self._plan.topology.tasks))
        for sub in self._writers:
            if sub not in self._readers and not all(
                state is not None and state.marks.get("end") for _, state in _states(sub, states)
            ):
                return False
        for sub in self._readers:
            for partition, state in _states(sub, states):
                if not self._has_read(sub, partition, {} if state is None else state.seen, ends):
                    return False
        return log.end_offsets(places, uncommitted=True) == ends

    def _has_read(
        self, sub: SubTopology, partition: int, seen: dict[str, int], ends: dict[TopicPartition, int]
    ) -> bool:
        for topic in sub.topics:
            start, end = self._plan.bounds.get(f"{topic}/{partition}", (0, None))
            if end is not None and seen.get(f"{topic}/{partition}", start) < end:
                return False
            if topic in self.topics:
                shadow = TopicPartition(self._plan.shadow_of(topic), partition)
                if seen.get(str(shadow), 0) < ends[shadow]:
                    return False
        return True

    def _refuse_endless(self) -> None:
        below = {sub.number for sub in self._readers}
        found = len(below)
        while True:
            below |= {sub.number for sub in self._plan.topology.subs if below & set(sub.senders.values())}
            if len(below) == found:
                break
            found = len(below)
        for sub in self._writers:
            if sub.number in below and sub not in self._readers:
                raise TopologyError(
                    f"agents {', '.join(reader.agent for reader in sub.readers)} write {', '.join(sorted(self.topics))}, which "
                    "is read ahead of a group_by before them: such a loop has no end that a bounded replay could find; "
                    "replay with --follow"
                )


def _states(sub: SubTopology, states: dict[int, TaskState]) -> Iterator[tuple[int, TaskState | None]]:
    for partition in range(sub.partitions):
        yield partition, states.get(sub.first_task + partition)


def topics_written(declared: Any, names: Iterable[str]) -> set[str]:
    """Return the topics that the sinks of agents and operators write."""
    found: set[str] = set()
    for name in names:
        operator = declared.operators.get(name)
        if operator is not None:
            found.update(sink.topic for sink in operator.sinks)
            continue
        sinks = [getattr(sink, "topic", sink) for sink in declared.agents[name].sinks]
        found.update(sink.name for sink in sinks if hasattr(sink, "topics") and len(sink.topics) == 1)
    return found


def written_by(app: Any, sub: SubTopology) -> set[str]:
    """Return what a sub-topology's agents write (not its sending halves: they yield nothing)."""
    return topics_written(app.declared, (reader.agent for reader in sub.readers if reader.sends_to is None))
