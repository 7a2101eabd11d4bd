"""What a run of one generation is: its names, its topics, how records are ordered, and where outputs go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.core.header import TARGET, app_number
from headwater.core.names import internal_topic
from headwater.engine.topology import GROUP_BY
from headwater.stream.operator import END_OF_TIME, NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.core.batch import Headers
    from headwater.engine.topology import Topology

DECODE = "decode"
"""The name under which positions say how far records have been decoded, and bad ones gone to dead letters."""


@dataclass(slots=True)
class RunPlan:
    """Facts of a run that tasks ask for.

    `total_order`: every channel is waited for, so that records are taken in order of effective time (a replay in time
    order); else a group is what has arrived. `bounds` are (start, end) by "topic/partition" of source topics, end None
    for a run that goes on. `names` numbers agents and topics for headers. `watermarked` are the sub-topologies that keep
    watermarks; `drain`: the end of a bounded run counts as END-OF-TIME.
    """

    app: str
    generation: str
    promoted: bool
    topology: Topology
    names: list[str]
    external: frozenset[str] = frozenset()
    total_order: bool = False
    dead_letters: bool = True
    bounds: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    time_from: int | None = None
    time_until: int | None = None
    ensure: Callable[[str, str], int] | None = None
    align_s: float = 0.0
    watermarked: frozenset[int] = frozenset()
    holds: dict[str, int] = field(default_factory=dict)
    """By internal topic, how far its records' timestamps may lie behind their task's watermark, ms."""
    drain: bool = False
    app_number: int = field(init=False)
    """The app's number in the headers of its outputs."""
    _numbers: dict[str, int] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Number the names."""
        self._numbers = {name: at for at, name in enumerate(self.names)}
        self.app_number = app_number(self.app)

    @property
    def dead_topic(self) -> str:
        """The generation's dead-letter topic."""
        return internal_topic(self.app, self.generation, "dead")

    @property
    def bounded(self) -> bool:
        """Whether the run ends at a set place."""
        return bool(self.bounds) and all(end is not None for _, end in self.bounds.values())

    def is_internal(self, topic: str) -> bool:
        """Tell whether a send goes to an internal topic, by way of a channel."""
        return topic in self.topology.repartition_topics or topic in self.topology.late_topics

    def held_back(self, topic: str, watermark: int) -> int:
        """Return what a task's watermark says to those who read an internal topic that it writes."""
        hold_ms = self.holds.get(topic)
        return (
            watermark if not hold_ms or watermark in (NEVER, END_OF_TIME) else max(NEVER, watermark - hold_ms)
        )

    def number_of(self, name: str) -> int:
        """Return the number of an agent or topic in headers."""
        return self._numbers[name]

    def name_of(self, number: int) -> str:
        """Return the agent or topic of a number."""
        return self.names[number]

    def changelog_topic(self, table: str) -> str:
        """Return a table's changelog topic."""
        return internal_topic(self.app, self.generation, "changelog", table)

    def output_topic(self, topic: str) -> str:
        """Return where a send to a topic goes: the topic, or this generation's shadow of it."""
        return topic if self.promoted or topic in self.external else self.shadow_of(topic)

    def shadow_of(self, topic: str) -> str:
        """Return this generation's shadow of an output topic."""
        return internal_topic(self.app, self.generation, "out", topic)

    def partitions_of(self, topic: str, declared: str) -> int:
        """Return the partition count of a topic this run writes, made where it is missing; a shadow has that of the
        topic it stands for.
        """
        count = self._counts.get(topic)
        if count is None:
            assert self.ensure is not None
            count = self._counts[topic] = self.ensure(topic, declared)
        return count

    def is_addressed_to(self, headers: Headers, reader: str) -> bool:
        """Tell whether a reader takes a record: a redriven dead letter is for one agent of one generation only, with the
        group_by before it; one that could not be decoded is for all agents.
        """
        agent = self._addressee(headers)
        return agent in (None, DECODE) or agent == reader.partition(GROUP_BY)[0]

    def is_ours(self, headers: Headers) -> bool:
        """Tell whether this generation takes a record: what is redriven in another was never missing here."""
        return self._addressee(headers) != ""

    def _addressee(self, headers: Headers) -> str | None:
        """Return the agent that a redriven record is for, "" where that is another generation's, None for others."""
        for name, value in headers:
            if name == TARGET and value is not None:
                run, _, agent = value.decode().partition("/")
                return agent.partition(GROUP_BY)[0] if run == f"{self.app}.{self.generation}" else ""
        return None
