"""Declared: the topics, tables and agents of an app, in order of declaration. Looks names up; opens nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headwater.core.errors import TopologyError, UnknownNameError, did_you_mean
from headwater.core.names import check_part

if TYPE_CHECKING:
    from headwater.app.agent import Agent
    from headwater.app.table import Table
    from headwater.app.timer import EventTimer
    from headwater.app.topic import Topic
    from headwater.stream.operator import OperatorSpec


class Declared:
    """What an app declares, by name. Agents and operators share one namespace."""

    def __init__(self, agents: dict[str, Agent]) -> None:
        """Begin empty; `agents` is faust's own dictionary, so that both see the same."""
        self.topics: dict[str, Topic] = {}
        self.tables: dict[str, Table] = {}
        self.agents = agents
        self.operators: dict[str, OperatorSpec] = {}
        self.timers: dict[str, EventTimer] = {}
        self._agents_before: dict[str, int] = {}

    def add_topic(self, topic: Topic) -> Topic:
        """Add a topic, or return the equal one that is there. Raises TopologyError where two differ."""
        there = self.topics.get(topic.name)
        if there is None:
            self.topics[topic.name] = topic
            return topic
        was, now = there.signature(), topic.signature()
        different = [f"{name} {was[name]!r} and {now[name]!r}" for name in was if was[name] != now[name]]
        if different:
            raise TopologyError(
                f"topic {topic.name!r} is declared twice, with {', '.join(different)}; declare it once, before agents name it"
            )
        return there

    def add_table(self, table: Table) -> None:
        """Add a table. Raises TopologyError for a name that is taken."""
        if table.name in self.tables:
            raise TopologyError(f"two tables are named {table.name!r}; choose another name for one of them")
        self.tables[table.name] = table

    def add_operator(self, spec: OperatorSpec) -> None:
        """Add an operator. Raises TopologyError for a name that is taken, NameRefusedError."""
        check_part(spec.name, "an operator")
        self.check_free(spec.name)
        for state in spec.states:
            check_part(f"{spec.name}-{state}", "an operator's state")
        self.operators[spec.name] = spec
        self._agents_before[spec.name] = len(self.agents)

    def add_timer(self, timer: EventTimer) -> None:
        """Add an event-time timer. Raises TopologyError for a name that is taken."""
        self.check_free(timer.name)
        self.timers[timer.name] = timer

    def check_free(self, name: str) -> None:
        """Raise TopologyError where an agent, operator or event-time timer has this name."""
        kinds: dict[str, Mapping[str, Any]] = {
            "an agent": self.agents,
            "an operator": self.operators,
            "a timer": self.timers,
        }
        kind = next((kind for kind, named in kinds.items() if name in named), None)
        if kind is not None:
            raise TopologyError(f"{kind} is named {name!r} already; give this one another name=")

    def in_order(self) -> Iterator[str]:
        """Yield the names of agents and operators in the order of declaration."""
        operators = iter(self.operators)
        operator = next(operators, None)
        for number, agent in enumerate([*self.agents, None]):
            while operator is not None and (agent is None or self._agents_before[operator] <= number):
                yield operator
                operator = next(operators, None)
            if agent is not None:
                yield agent


class Tables(Mapping[str, "Table"]):
    """`app.tables`: the app's tables by name. Faust's is also a manager; here the engine is."""

    def __init__(self, declared: Declared) -> None:
        """Show what is declared."""
        self._declared = declared

    def __getitem__(self, name: str) -> Table:
        return self._declared.tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared.tables)

    def __len__(self) -> int:
        return len(self._declared.tables)

    def __repr__(self) -> str:
        return f"<Tables: {', '.join(self)}>"

    def named(self, name: str) -> Table:
        """Return a table. Raises UnknownNameError with near names."""
        try:
            return self._declared.tables[name]
        except KeyError:
            raise UnknownNameError(f"no table {name!r}{did_you_mean(name, self)}") from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"app.tables lists tables and has no {name!r}: rows are the engine's business")
