"""Topology: which topics, tables and agents belong together, and so which tasks there are. Known before records flow.

Topics read by one agent, and tables touched by one agent, belong to one *sub-topology*; it has a task for each
partition. A group_by ends the upstream sub-topology: its records go through a repartition topic of the generation.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.core.errors import PartitionCountError, TopologyError
from headwater.core.names import internal_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headwater.stream.plan import GroupBy, Step, StreamPlan


GROUP_BY = ".group_by"
"""Ends the name of an agent's sending half."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What the topology needs to know of a declared agent."""

    name: str
    plan: StreamPlan
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """An agent, or the sending half of a group_by, as a sub-topology runs it.

    `topics` are what it reads there (one repartition topic behind a group_by). `sends_to` is the repartition topic of a
    sending half, whose key is `group_by`.
    """

    name: str
    agent: str
    topics: tuple[str, ...]
    steps: tuple[Step, ...]
    tables: tuple[str, ...]
    sends_to: str | None = None
    group_by: GroupBy | None = None


@dataclass(slots=True)
class SubTopology:
    """Topics, tables and readers that share tasks. `senders` has, for each repartition topic, its upstream's number."""

    number: int
    topics: list[str]
    tables: list[str]
    readers: list[Reader]
    partitions: int = 0
    first_task: int = 0
    senders: dict[str, int] = field(default_factory=dict)

    def lock_steps(self) -> list[list[Reader]]:
        """Return the readers in sets: those that share a table, directly or through others, go in lock step."""
        sets: list[tuple[set[str], list[Reader]]] = []
        for reader in self.readers:
            tables, together = set(reader.tables), [reader]
            rest = []
            for other_tables, others in sets:
                if tables & other_tables:
                    tables |= other_tables
                    together = [*others, *together]
                else:
                    rest.append((other_tables, others))
            sets = [*rest, (tables, together)]
        order = {reader.name: at for at, reader in enumerate(self.readers)}
        return sorted(
            (sorted(readers, key=lambda r: order[r.name]) for _, readers in sets),
            key=lambda rs: order[rs[0].name],
        )


@dataclass(slots=True)
class Topology:
    """All sub-topologies of an app in one generation, their tasks numbered through."""

    subs: list[SubTopology]
    repartition_topics: dict[str, int]
    source_topics: dict[str, int]

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return sum(sub.partitions for sub in self.subs)

    def task(self, number: int) -> tuple[SubTopology, int]:
        """Return a task's sub-topology and partition."""
        for sub in self.subs:
            if sub.first_task <= number < sub.first_task + sub.partitions:
                return sub, number - sub.first_task
        raise TopologyError(f"no task {number}: there are {self.tasks}")

    def describe(self) -> dict[str, Any]:
        """Return the topology as JSON, as generation metadata holds it."""
        return {
            "subs": [
                {
                    "topics": sub.topics,
                    "tables": sub.tables,
                    "agents": [reader.name for reader in sub.readers],
                    "partitions": sub.partitions,
                    "first_task": sub.first_task,
                }
                for sub in self.subs
            ]
        }

    def fingerprint(self) -> str:
        """Return a digest that differs when anything a running generation depends on differs."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:16]


def build_topology(
    app: str,
    generation: str,
    agents: Sequence[AgentSpec],
    partitions_of: Callable[[str], int],
) -> Topology:
    """Return the topology of agents in order of declaration. `partitions_of` gives the count of a topic people named.

    Raises TopologyError where topics that must share tasks can't.
    """
    readers: list[Reader] = []
    upstream: dict[str, tuple[str, ...]] = {}
    counts: dict[str, int | None] = {}
    for spec in agents:
        plan = spec.plan
        if plan.group_by is None:
            readers.append(Reader(spec.name, spec.name, plan.topics, plan.before, spec.tables))
            continue
        topic = internal_topic(app, generation, "repartition", f"{spec.name}.{plan.group_by.name or '0'}")
        sender = Reader(
            f"{spec.name}{GROUP_BY}", spec.name, plan.topics, plan.before, (), topic, plan.group_by
        )
        readers += [sender, Reader(spec.name, spec.name, (topic,), plan.after, spec.tables)]
        upstream[topic] = plan.topics
        counts[topic] = plan.group_by.partitions
    subs = _components(readers)
    home = {topic: sub for sub in subs for topic in sub.topics}
    sources: dict[str, int] = {}
    # A repartition topic has its upstream's count unless declared, so upstream ones are settled first.
    for sub in sorted(subs, key=lambda s: any(t in upstream for t in s.topics)):
        found: dict[str, int] = {}
        for topic in sub.topics:
            if topic in upstream:
                found[topic] = counts[topic] or max(
                    home[t].partitions or partitions_of(t) for t in upstream[topic]
                )
            else:
                found[topic] = sources[topic] = partitions_of(topic)
        if len(set(found.values())) > 1:
            shown = ", ".join(f"{topic} has {count}" for topic, count in sorted(found.items()))
            names = ", ".join(reader.name for reader in sub.readers)
            raise PartitionCountError(
                f"agents {names} share tables or streams, so their topics need one partition count, but {shown}; "
                "make the topics alike, or send one through group_by(…, partitions=N)"
            )
        sub.partitions = next(iter(found.values()))
    first = 0
    for sub in subs:
        sub.first_task = first
        first += sub.partitions
        sub.senders = {topic: home[upstream[topic][0]].number for topic in sub.topics if topic in upstream}
    repartition = {topic: home[topic].partitions for topic in upstream}
    return Topology(subs, repartition, sources)


def _components(readers: Sequence[Reader]) -> list[SubTopology]:
    """Group readers that share a topic or a table, in order of the first of each."""
    groups: list[tuple[set[str], list[Reader]]] = []
    for reader in readers:
        names = {f"topic {t}" for t in reader.topics} | {f"table {t}" for t in reader.tables}
        together, rest = [reader], []
        for other_names, others in groups:
            if names & other_names:
                names |= other_names
                together = [*others, *together]
            else:
                rest.append((other_names, others))
        groups = [*rest, (names, together)]
    order = {reader.name: at for at, reader in enumerate(readers)}
    components = sorted(
        (sorted(rs, key=lambda r: order[r.name]) for _, rs in groups), key=lambda rs: order[rs[0].name]
    )
    return [
        SubTopology(
            number,
            sorted({topic for reader in group for topic in reader.topics}),
            _unique(table for reader in group for table in reader.tables),
            group,
        )
        for number, group in enumerate(components)
    ]


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))


def check_same(topology: Topology, stored: Mapping[str, Any], generation: str) -> None:
    """Raise TopologyError where a generation was started with another topology."""
    if stored and stored != topology.describe():
        raise TopologyError(
            f"the agents, tables or partition counts of generation {generation!r} have changed since it was started; "
            "its positions and changelogs would not fit: run the new logic as a new generation with "
            "`headwater -A MODULE replay --from earliest --as NAME`, compare with `diff`, then `promote NAME`"
        )
