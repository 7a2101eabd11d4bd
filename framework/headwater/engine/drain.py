"""Drain: END-OF-TIME for the inputs of an idle group, one level of topics after the other.

Protocol
1. The group is idle: all that is there is processed and committed. What no agent of the app writes is ended first, then
   topics whose writers' own inputs have all ended; where none is left but topics that are written in a circle, one of these.
2. Each partition that the tasks haven't seen the end of gets a mark: a record without key and value, with the header
   `hw.m`, in its place in the log. It is archived and replayed like any record.
3. The marks close what is open; when the group is idle again the next topics follow, until all have ended.
Invariant: a mark written twice, after a crash or by two workers, ends nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.app.topic import Topic
from headwater.app.touched import topics_touched
from headwater.core.batch import Append, TopicPartition
from headwater.core.header import END_OF_TIME_MARK, MARK
from headwater.engine.loops import written_by
from headwater.merge.channel import END_OF_TIME, NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.engine.positions import TaskState
    from headwater.engine.topology import SubTopology, Topology


class Drain:
    """Which topics of an app end after which."""

    def __init__(self, app: Any, topology: Topology) -> None:
        """Look at what each sub-topology's agents write: by their sinks, and as their code shows."""
        self._topology = topology
        self._writes = {sub.number: written_by(app, sub) | _sent_by(app, sub) for sub in topology.subs}

    def ahead(self, states: Mapping[int, TaskState]) -> list[TopicPartition]:
        """Return the partitions to be ended next; none where all have ended."""
        left: dict[str, list[TopicPartition]] = {}
        for sub in self._topology.subs:
            for topic in sub.topics:
                if topic not in self._topology.source_topics:
                    continue
                for partition in range(sub.partitions):
                    tp = TopicPartition(topic, partition)
                    if not _has_ended(states.get(sub.first_task + partition), tp):
                        left.setdefault(topic, []).append(tp)
        if not left:
            return []
        ready = [topic for topic in sorted(left) if self._is_ready(topic, left)] or sorted(left)[:1]
        return sorted({tp for topic in ready for tp in left[topic]})

    def _is_ready(self, topic: str, left: Mapping[str, Any]) -> bool:
        writers = [sub for sub in self._topology.subs if topic in self._writes[sub.number]]
        return not any(name in left for sub in writers for name in self._sources(sub))

    def _sources(self, sub: SubTopology) -> set[str]:
        """Return the source topics that a sub-topology reads, also by way of those that send to it."""
        found: set[str] = set()
        seen: set[int] = set()
        waiting = [sub.number]
        by_number = {s.number: s for s in self._topology.subs}
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            found |= set(by_number[number].topics) & set(self._topology.source_topics)
            waiting += by_number[number].senders.values()
        return found


def end_marks(places: list[TopicPartition], states: Mapping[int, TaskState]) -> list[Append]:
    """Return the marks for partitions, each with the time its records have come to."""
    times = {name: time for state in states.values() for name, time in _times(state).items()}
    latest = max([0, *times.values()])
    header = ((MARK, END_OF_TIME_MARK),)
    return [
        Append(tp.topic, tp.partition, [max(0, times.get(str(tp), latest))], [None], [None], [header])
        for tp in places
    ]


def _times(state: TaskState) -> dict[str, int]:
    found = dict(state.clocks)
    for name, time in state.watermarks.items():
        # A record of year 9999 moves effective time for good; the mark belongs where the others are.
        if time.clock not in (NEVER, END_OF_TIME):
            found[name] = min(time.clock, found.get(name, time.clock))
    return found


def _has_ended(state: TaskState | None, tp: TopicPartition) -> bool:
    time = None if state is None else state.watermarks.get(str(tp))
    return time is not None and END_OF_TIME in (time.reached, time.clock)


def _sent_by(app: Any, sub: SubTopology) -> set[str]:
    """Return the topics that the code of a sub-topology's agents refers to: it has no use for one but to send."""
    topics = app.declared.topics.values()
    agents = app.declared.agents
    functions = [agents[r.agent].fun for r in sub.readers if r.sends_to is None and r.agent in agents]
    functions += [app.declared.timers[name].fun for name in sub.timers]
    return {
        name
        for fun in functions
        for topic in topics_touched(fun, topics)
        if isinstance(topic, Topic)
        for name in topic.topics
    }
