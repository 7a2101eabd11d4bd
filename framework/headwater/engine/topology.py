"""Topology: which topics, tables and agents belong together, and so which tasks there are. Known before records flow.

Topics read by one agent or operator, and tables touched by it, belong to one *sub-topology*; it has a task for each
partition. A group_by ends the upstream sub-topology: its records go through a repartition topic of the generation. So
do an operator's results and a table's changes, where anybody reads them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from headwater.core.errors import PartitionCountError, TopologyError, did_you_mean
from headwater.core.names import internal_topic
from headwater.stream.operator import CHANGES, LATE, OUT, OperatorSpec
from headwater.stream.plan import RECORD_KEY, GroupBy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from headwater.stream.plan import Step, StreamPlan


GROUP_BY = ".group_by"
"""Ends the name of an agent's sending half; the halves of an operator's further inlets have a number behind it."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What the topology needs to know of a declared agent."""

    name: str
    plan: StreamPlan
    tables: tuple[str, ...]


Node: TypeAlias = "AgentSpec | OperatorSpec"


@dataclass(frozen=True, slots=True)
class Inlet:
    """One of an operator's inputs as its sub-topology reads it."""

    topics: tuple[str, ...]
    steps: tuple[Step, ...]
    broadcast: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """An agent, an operator, or the sending half of a group_by, as a sub-topology runs it.

    `topics` are what it reads there (one repartition topic behind a group_by). `sends_to` is the repartition topic of a
    sending half, whose key is `group_by`. An operator has inlets and states; one without inlets keeps a table that
    agents write (it closes its windows).
    """

    name: str
    agent: str
    topics: tuple[str, ...]
    steps: tuple[Step, ...]
    tables: tuple[str, ...]
    sends_to: str | None = None
    group_by: GroupBy | None = None
    inlets: tuple[Inlet, ...] = ()
    states: tuple[str, ...] = ()
    is_operator: bool = False

    @property
    def broadcast(self) -> tuple[str, ...]:
        """Topics of which each task reads all partitions."""
        return tuple(topic for inlet in self.inlets if inlet.broadcast for topic in inlet.topics)


@dataclass(slots=True)
class SubTopology:
    """Topics, tables and readers that share tasks.

    `senders` has, for each internal topic read here, its upstream's number; `sends`, for each internal topic written here
    and read anywhere, those of this one's own topics that it hangs on (not those that hang on it). `broadcast` are topics
    of which each task reads all partitions, `timers` event-time timers with the tables they touch.
    """

    number: int
    topics: list[str]
    tables: list[str]
    readers: list[Reader]
    partitions: int = 0
    first_task: int = 0
    senders: dict[str, int] = field(default_factory=dict)
    sends: dict[str, tuple[str, ...]] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    broadcast: list[str] = field(default_factory=list)
    timers: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def looped(self) -> frozenset[str]:
        """Topics read here whose records may come from here: this task's watermark can't wait for them."""
        return frozenset(t for upstream in self.sends.values() for t in self.topics if t not in upstream)

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
    """All sub-topologies of an app in one generation, their tasks numbered through.

    `repartition_topics` are the internal topics that somebody reads, with their partition counts; `virtual` has their
    names by what plans call them (`@out:NAME`…). `late_topics` are those of operators whose late records nobody reads;
    they are made when the first one comes.
    """

    subs: list[SubTopology]
    repartition_topics: dict[str, int]
    source_topics: dict[str, int]
    virtual: dict[str, str] = field(default_factory=dict)
    late_topics: dict[str, int] = field(default_factory=dict)
    windowed: frozenset[str] = frozenset()
    """The tables whose rows are windows."""

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

    @property
    def derived(self) -> frozenset[str]:
        """Internal topics of results, late records and changes: what comes through them is never late (again)."""
        return frozenset(self.virtual.values())

    def describe(self) -> dict[str, Any]:
        """Return the topology as JSON, as generation metadata holds it."""
        subs = []
        for sub in self.subs:
            described: dict[str, Any] = {
                "topics": sub.topics,
                "tables": sub.tables,
                "agents": [reader.name for reader in sub.readers],
                "partitions": sub.partitions,
                "first_task": sub.first_task,
            }
            if sub.states:
                described["states"] = sub.states
            windowed = [table for table in sub.tables if table in self.windowed]
            if windowed:
                described["windowed"] = windowed
            if sub.broadcast:
                described["broadcast"] = sub.broadcast
            if sub.timers:
                described["timers"] = sorted(sub.timers)
            subs.append(described)
        return {"subs": subs}

    def fingerprint(self) -> str:
        """Return a digest that differs when anything a running generation depends on differs."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:16]


def build_topology(
    app: str,
    generation: str,
    nodes: Sequence[Node],
    partitions_of: Callable[[str], int],
    windowed: Collection[str] = (),
) -> Topology:
    """Return the topology of agents and operators in the order in which a record goes through them.

    `partitions_of` gives the count of a topic people named, `windowed` are the tables of windows. Operators whose results go nowhere are left out. Where an
    operator's inlets have different counts, the lesser ones go through a repartition topic, by their record keys. Raises
    TopologyError where topics that must share tasks can't.
    """
    nodes = used(nodes)
    regroup: set[tuple[str, int]] = set()
    while True:
        draft = _Draft(app, generation, nodes, regroup)
        more = draft.settle(partitions_of)
        if not more:
            return replace(draft.topology(), windowed=frozenset(windowed))
        regroup |= more


def used(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes without operators that fill no table and no topic, and that nobody reads.

    Nor those that keep a table which no other node works on.
    """
    kept = list(nodes)
    while True:
        read = {topic for node in kept for plan in plans_of(node) for topic in plan.topics}
        worked = {table for node in kept if plans_of(node) for table in node.tables}
        fewer = [
            node
            for node in kept
            if isinstance(node, AgentSpec)
            or (
                (node.tables or node.sinks or {OUT + node.name, LATE + node.name} & read)
                and (node.inlets or set(node.tables) & worked)
            )
        ]
        if len(fewer) == len(kept):
            return kept
        kept = fewer


def plans_of(node: Node) -> tuple[StreamPlan, ...]:
    """Return what a node reads."""
    return node.inlets if isinstance(node, OperatorSpec) else (node.plan,)


def is_virtual(topic: str) -> bool:
    """Tell whether a plan's topic stands for an operator's results, late records, or a table's changes."""
    return topic.startswith("@")


def source_topics_of(nodes: Iterable[Node]) -> list[str]:
    """Return the topics people named that nodes read, sorted."""
    return sorted(
        {topic for node in nodes for plan in plans_of(node) for topic in plan.topics if not is_virtual(topic)}
    )


class _Draft:
    """The topology while its partition counts are found."""

    def __init__(
        self, app: str, generation: str, nodes: Sequence[Node], regroup: set[tuple[str, int]]
    ) -> None:
        self._app = app
        self._generation = generation
        self._virtual: dict[str, str] = {}
        self._declared: dict[str, int | None] = {}
        self._writers: dict[str, str] = {}  # internal topic → the reader or (table …) that writes it
        self._sources: dict[str, int] = {}
        self._nodes = {node.name: node for node in nodes}
        readers: list[Reader] = []
        for node in nodes:
            readers += self._agent(node) if isinstance(node, AgentSpec) else self._operator(node, regroup)
        self.readers = readers
        self.subs = _components(readers)
        self._home = {topic: sub for sub in self.subs for topic in sub.topics}
        self._senders = {topic: self._sender(topic) for topic in self._writers}

    # Readers

    def _agent(self, spec: AgentSpec) -> list[Reader]:
        plan = spec.plan
        topics = self._topics(plan, spec.name)
        if plan.group_by is None:
            return [Reader(spec.name, spec.name, topics, plan.before, spec.tables)]
        topic = self._repartition(spec.name, plan.group_by.name or "0", plan.group_by.partitions)
        sender = Reader(f"{spec.name}{GROUP_BY}", spec.name, topics, plan.before, (), topic, plan.group_by)
        self._writers[topic] = sender.name
        return [sender, Reader(spec.name, spec.name, (topic,), plan.after, spec.tables)]

    def _operator(self, spec: OperatorSpec, regroup: set[tuple[str, int]]) -> list[Reader]:
        readers: list[Reader] = []
        inlets: list[Inlet] = []
        for number, declared in enumerate(spec.inlets):
            plan = declared
            if plan.group_by is None and (spec.name, number) in regroup:
                plan = replace(plan, group_by=GroupBy(RECORD_KEY))
            topics = self._topics(plan, spec.name)
            if plan.broadcast and any(map(is_virtual, plan.topics)):
                raise TopologyError(
                    f"operator {spec.name!r} reads all partitions of {', '.join(plan.topics)}, which is derived; send it "
                    "to a topic first, and read that"
                )
            if plan.group_by is None:
                inlets.append(Inlet(topics, plan.before, plan.broadcast))
                continue
            by = plan.group_by
            topic = self._repartition(spec.name, by.name or str(number), by.partitions)
            name = f"{spec.name}{GROUP_BY}{number or ''}"
            readers.append(Reader(name, spec.name, topics, plan.before, (), topic, by))
            self._writers[topic] = name
            inlets.append(Inlet((topic,), plan.after))
        read = _unique(topic for inlet in inlets if not inlet.broadcast for topic in inlet.topics)
        states = tuple(state_table(spec.name, state) for state in spec.states)
        readers.append(
            Reader(
                spec.name,
                spec.name,
                tuple(read),
                (),
                spec.tables,
                inlets=tuple(inlets),
                states=states,
                is_operator=True,
            )
        )
        return readers

    def _topics(self, plan: StreamPlan, reader: str) -> tuple[str, ...]:
        return tuple(self._actual(topic, reader) if is_virtual(topic) else topic for topic in plan.topics)

    def _actual(self, virtual: str, reader: str) -> str:
        """Return the internal topic that a virtual one stands for. Raises TopologyError where nothing writes it."""
        found = self._virtual.get(virtual)
        if found is not None:
            return found
        kind, _, name = virtual.partition(":")
        if kind + ":" == CHANGES:
            writers = [n.name for n in self._nodes.values() if name in n.tables]
            if not writers:
                raise TopologyError(
                    f"{reader!r} reads the changes of table {name!r}, which no agent and no operator fills"
                )
            actual, writer = self._repartition(name, "changes", None), f"table {name}"
        elif not isinstance(self._nodes.get(name), OperatorSpec):
            raise TopologyError(
                f"{reader!r} reads {virtual}, but there is no operator {name!r}{did_you_mean(name, self._nodes)}"
            )
        elif kind + ":" == OUT:
            actual, writer = self._repartition(name, "out", None), name
        else:
            actual, writer = late_topic(self._app, self._generation, name), name
            self._declared[actual] = None
        self._virtual[virtual] = actual
        self._writers[actual] = writer
        return actual

    def _repartition(self, node: str, ordinal: str, partitions: int | None) -> str:
        topic = internal_topic(self._app, self._generation, "repartition", f"{node}.{ordinal}")
        if topic in self._declared:
            raise TopologyError(
                f"{node!r} has two internal streams named {ordinal!r}; give its group_by another name="
            )
        self._declared[topic] = partitions
        return topic

    # Partition counts

    def settle(self, partitions_of: Callable[[str], int]) -> set[tuple[str, int]]:
        """Find the counts; return the inlets that must be repartitioned first, where there are any."""
        self._sources = {
            topic: partitions_of(topic)
            for sub in self.subs
            for topic in (*sub.topics, *sub.broadcast)
            if topic not in self._writers
        }
        for sub in self.subs:
            fixed = self._fixed(sub)
            if len(set(fixed.values())) > 1:
                most = max(fixed.values())
                more = {
                    (reader.name, number)
                    for reader in sub.readers
                    for number, inlet in enumerate(reader.inlets)
                    if not inlet.broadcast
                    and any(0 < fixed.get(topic, 0) < most for topic in inlet.topics)
                    # Behind a group_by(partitions=…) there is nothing left to choose.
                    and not any(topic in self._writers for topic in inlet.topics)
                }
                if more:
                    return more
                self._refuse_counts(sub, fixed)
        done: dict[int, int] = {}
        for sub in self.subs:
            self._settle(sub, done, frozenset())
        return set()

    def _fixed(self, sub: SubTopology) -> dict[str, int]:
        """Return the counts of topics that aren't ours to choose."""
        counts = {topic: self._sources.get(topic) or self._declared.get(topic) for topic in sub.topics}
        return {topic: count for topic, count in counts.items() if count}

    def _settle(self, sub: SubTopology, done: dict[int, int], above: frozenset[int]) -> int:
        """Return a sub-topology's count: that of its topics with a set one, else its upstream's greatest."""
        if sub.number in done:
            return done[sub.number]
        if sub.number in above:
            return 0
        fixed = self._fixed(sub)
        if fixed:
            count = next(iter(fixed.values()))
        else:
            below = above | {sub.number}
            count = max(
                (
                    self._settle(self._senders[topic], done, below)
                    for topic in sub.topics
                    if topic in self._senders
                ),
                default=0,
            )
            if not count:
                names = ", ".join(reader.name for reader in sub.readers)
                if above:
                    return 0
                raise TopologyError(f"{names} read nothing that comes from a topic")
        done[sub.number] = sub.partitions = count
        return count

    def _refuse_counts(self, sub: SubTopology, found: Mapping[str, int]) -> None:
        shown = ", ".join(f"{topic} has {count}" for topic, count in sorted(found.items()))
        names = ", ".join(reader.name for reader in sub.readers)
        raise PartitionCountError(
            f"agents {names} share tables or streams, so their topics need one partition count, but {shown}; "
            "make the topics alike, or send one through group_by(…, partitions=N)"
        )

    def _sender(self, topic: str) -> SubTopology:
        writer = self._writers[topic]
        for sub in self.subs:
            for reader in sub.readers:
                if writer == reader.name or writer in (f"table {table}" for table in reader.tables):
                    return sub
        raise AssertionError(topic)

    # What comes of it

    def topology(self) -> Topology:
        first = 0
        for sub in self.subs:
            sub.first_task = first
            first += sub.partitions
            sub.senders = {
                topic: self._senders[topic].number for topic in sub.topics if topic in self._writers
            }
            sub.sends = {
                topic: tuple(t for t in sub.topics if t not in below)
                for topic in self._writers
                if self._senders[topic] is sub
                for below in [self._downstream(topic)]
            }
        repartition = {topic: self._home[topic].partitions for topic in self._writers}
        late = {
            topic: sub.partitions
            for sub in self.subs
            for reader in sub.readers
            if reader.is_operator
            for topic in [late_topic(self._app, self._generation, reader.name)]
            if topic not in repartition
        }
        return Topology(self.subs, repartition, self._sources, self._virtual, late)

    def _downstream(self, topic: str) -> set[str]:
        """Return the internal topics whose records may come from those of a topic, and that topic."""
        found, waiting = {topic}, [topic]
        while waiting:
            at = waiting.pop()
            for reader in self.readers:
                if at in reader.topics:
                    for written in self._written(reader):
                        if written not in found:
                            found.add(written)
                            waiting.append(written)
        return found

    def _written(self, reader: Reader) -> list[str]:
        writers = {reader.name, *(f"table {table}" for table in reader.tables)}
        return [topic for topic, writer in self._writers.items() if writer in writers]


def state_table(operator: str, state: str) -> str:
    """Return the name of the internal table that holds one of an operator's states."""
    return f"{operator}-{state}"


def late_topic(app: str, generation: str, operator: str) -> str:
    """Return the topic of an operator's late records."""
    return internal_topic(app, generation, "late", operator)


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
            states=_unique(state for reader in group for state in reader.states),
            broadcast=sorted({topic for reader in group for topic in reader.broadcast}),
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
