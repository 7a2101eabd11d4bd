"""Put one task together: its inputs at their positions, its table parts brought up to their changelogs, its agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.crash import point
from headwater.core.errors import RecoveryError
from headwater.core.event_time import EventTime
from headwater.core.keys import shown_key
from headwater.core.values import codec_for
from headwater.engine.history import read_topic
from headwater.engine.inputs import Input
from headwater.engine.instance import start_agent, start_sender
from headwater.engine.loops import Loops
from headwater.engine.operator import Exit, OperatorAgent, OperatorContext, OperatorRunner
from headwater.engine.runner import Runner
from headwater.engine.task import Task
from headwater.engine.timer import TimerRunner
from headwater.engine.topology import is_virtual, late_topic, state_table
from headwater.merge.watermark import MAX_JUMP_MS, WatermarkClock
from headwater.source.bounds import start_of
from headwater.source.handover import HandoverSource
from headwater.source.live import LiveSource
from headwater.stream.frame import Frame
from headwater.stream.operator import CHANGES, OUT
from headwater.table.behind import WriteBehind
from headwater.table.captured import CapturedPart
from headwater.table.part import TablePart
from headwater.table.recovery import recover
from headwater.table.state import StatePart
from headwater.table.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from headwater.app.app import App
    from headwater.app.topic import Topic
    from headwater.archive.archive import Archive
    from headwater.core.batch import Batch
    from headwater.engine.operator import Route
    from headwater.engine.plan import RunPlan
    from headwater.engine.positions import TaskState
    from headwater.engine.topology import Reader
    from headwater.log.interface import Log
    from headwater.source.interface import Source
    from headwater.stream.plan import StreamPlan

FETCH_BYTES_MIN = 64 << 10
FETCH_BYTES_MAX = 1 << 20

_PLAIN_KEYS = (None, bytes)


class RunnerAgent:
    """How an agent fails, with the app's defaults filled in."""

    __slots__ = ("dead_letters", "name", "retries", "split", "timeout_s")

    def __init__(self, name: str, agent: Any, options: Any) -> None:
        """Take the agent's own where it has one."""
        self.name = name
        self.retries: int = options.retries if agent.retries is None else agent.retries
        self.timeout_s: float | None = options.timeout_s if agent.timeout_s is None else agent.timeout_s
        self.split: bool = agent.split
        self.dead_letters: bool = options.dead_letters if agent.dead_letters is None else agent.dead_letters


class Assembly:
    """Makes the tasks of one run."""

    def __init__(
        self,
        app: App,
        log: Log,
        archive: Archive,
        plan: RunPlan,
        recorded: Mapping[str, StreamPlan],
        state: str,
        *,
        allow_gaps: bool = False,
        written: frozenset[str] = frozenset(),
        touch: Callable[[str, Any], TablePart] | None = None,
    ) -> None:
        """`recorded` are the agents' plans after the probe; `written` the topics that the app's sinks write."""
        self.app = app
        self.log = log
        self.archive = archive
        self.plan = plan
        self.recorded = recorded
        self.state = state
        self.allow_gaps = allow_gaps
        self.loops = Loops(app, plan, written)
        self.touch = touch
        inputs = sum((len(sub.topics) + len(sub.broadcast)) * sub.partitions for sub in plan.topology.subs)
        # Records take about four times their bytes as Python objects, and a batch read ahead waits beside the one in hand.
        share = app.options.buffer_bytes // max(1, 16 * inputs)
        self.fetch_bytes_max = max(FETCH_BYTES_MIN, min(FETCH_BYTES_MAX, share))

    def make(self, number: int, state: TaskState | None) -> Task:
        """Return a task ready to run from its last committed state."""
        sub, partition = self.plan.topology.task(number)
        task = Task(number, sub, partition, self.plan, self.fetch_bytes_max)
        try:
            for topic in sub.topics:
                self._add_inputs(task, topic, state)
            for topic in sub.broadcast:
                for at in range(self.plan.topology.source_topics[topic]):
                    self._add_source(task, topic, at, state, broadcast=True)
            for name in sub.tables:
                self._add_part(task, name)
            for name in sub.states:
                self._add_state(task, name)
            self._add_runners(task)
        except BaseException:
            self.close(task)
            raise
        task.begin(state)
        return task

    def close(self, task: Task) -> None:
        """Let go of a task's stores and files."""
        for part in task.parts.values():
            part.store.close()
        for an_input in task.inputs:
            an_input.source.close()

    def _add_inputs(self, task: Task, topic: str, state: TaskState | None) -> None:
        plan, partition = self.plan, task.partition
        upstream = task.sub.senders.get(topic)
        if upstream is not None:
            codec = self._codec(topic)
            source = LiveSource(self.log, topic, partition, 0)
            senders = plan.topology.subs[upstream].partitions
            an_input = Input(
                topic, partition, source, codec, senders=senders,
                watermarked=task.sub.number in plan.watermarked,
            )  # fmt: skip
            self._add(task, an_input, state, 0)
            return
        self._add_source(task, topic, partition, state)

    def _add_source(
        self, task: Task, topic: str, partition: int, state: TaskState | None, *, broadcast: bool = False
    ) -> None:
        plan = self.plan
        declared = self.app.topic_named(topic)
        check = None if declared.key_type in _PLAIN_KEYS else declared.decode_key
        start, end = plan.bounds.get(f"{topic}/{partition}", (None, None))
        event_time = None if declared.event_time is None else EventTime(declared.event_time)
        idle_ms = declared.idle_after_ms
        own: int | None = None
        if topic in self.loops.topics:
            # What this app wrote there belongs to another generation; this one's own comes from its shadow.
            own = plan.app_number
            shadow = plan.shadow_of(topic)
            plan.partitions_of(shadow, topic)
            self._add(
                task,
                Input(
                    shadow,
                    partition,
                    LiveSource(self.log, shadow, partition, 0),
                    declared.codec,
                    check_key=check,
                    is_shadow=True,
                    event_time=event_time,
                    clock=self._clock(task, declared),
                    drain=plan.drain,
                ),
                state,
                0,
            )
        first = start_of(self.archive, self.log, topic, partition) if start is None else start
        an_input = Input(
            topic, partition, self._source(topic, partition, first), declared.codec, end=end,
            time_from=plan.time_from, time_until=plan.time_until, check_key=check, skip_app=own,
            event_time=event_time, clock=self._clock(task, declared), drain=plan.drain and end is not None,
            idle_after_s=None if idle_ms is None else idle_ms / 1000, broadcast=broadcast,
        )  # fmt: skip
        self._add(task, an_input, state, first)

    def _clock(self, task: Task, declared: Topic) -> WatermarkClock | None:
        if task.sub.number not in self.plan.watermarked:
            return None
        jump = declared.max_jump_ms
        return WatermarkClock(declared.lateness_ms or 0, MAX_JUMP_MS if jump is None else jump)

    def _add(self, task: Task, an_input: Input, state: TaskState | None, start: int) -> None:
        an_input.assign_number(len(task.inputs))
        task.inputs.append(an_input)
        an_input.restore(state, start)
        if not self.plan.bounded:
            # A replay's last epoch noted the end of each channel; a run that goes on from there has none.
            an_input.reopen()

    def _source(self, topic: str, partition: int, position: int) -> Source:
        return HandoverSource(self.archive, self.log, topic, partition, position, allow_gaps=self.allow_gaps)

    def _codec(self, topic: str) -> Any:
        """Return how values of a topic, ours or people's, are written."""
        topology = self.plan.topology
        if topic not in topology.repartition_topics:
            return self.app.topic_named(topic).codec
        for sub in topology.subs:
            for reader in sub.readers:
                if reader.sends_to == topic:
                    if any(step.retypes for step in reader.steps):
                        return codec_for(None)
                    return self._codec(reader.topics[0])
        virtual = next(name for name, actual in topology.virtual.items() if actual == topic)
        kind, _, name = virtual.partition(":")
        operator = self.app.declared.operators.get(name)
        if operator is None or kind + ":" == CHANGES:
            return codec_for(None)
        if kind + ":" == OUT:
            return codec_for(operator.value_type)
        # Late records are as they came.
        for sub in topology.subs:
            for reader in sub.readers:
                if reader.name == name and reader.inlets:
                    return self._codec(reader.inlets[0].topics[0])
                if name in reader.tables and not reader.is_operator:
                    return self._codec(reader.topics[0])
        raise AssertionError(topic)

    def _add_part(self, task: Task, name: str) -> None:
        table = self.app.declared.tables[name]
        topic = self.plan.changelog_topic(name)
        store = open_store(self.state, name, task.partition)
        kind = TablePart if CHANGES + name not in self.plan.topology.virtual else CapturedPart
        part = kind(
            name, table.number, task.partition, task.sub.partitions, WriteBehind(store), table.codec, default=table.default,
            local=table.local, windowed=table.windowed, last_only=table.history is None,
        )  # fmt: skip
        task.parts[name] = part
        task.history[name] = table.history
        if isinstance(part, CapturedPart):
            task.changes_of[name] = self.plan.topology.virtual[CHANGES + name], shown_key(table.key_type)
        self._recover(store, topic, task.partition)

    def _add_state(self, task: Task, name: str) -> None:
        store = open_store(self.state, name, task.partition)
        try:
            self._recover(store, self.plan.changelog_topic(name), task.partition)
            task.parts[name] = StatePart(name, WriteBehind(store))
        except BaseException:
            store.close()
            raise
        task.history[name] = None

    def _recover(self, store: Any, topic: str, partition: int) -> None:
        """Bring a store up to its changelog's end."""
        # The state was loaded before this is asked: its last epoch lies before it, seen by readers or not yet.
        end = self.log.end_offset(topic, partition, uncommitted=True)
        if store.changelog_offset > end:
            # The folder belongs to a log that is gone; the changelog is the truth.
            store.clear()
        point("recovery.begun")
        try:
            recover(store, self._changelog(topic, partition, store.changelog_offset, end), end=end)
        except RecoveryError:
            if store.changelog_offset == 0:
                raise
            store.clear()
            recover(store, self._changelog(topic, partition, 0, end), end=end)
        point("recovery.ended")

    def _changelog(self, topic: str, partition: int, position: int, end: int) -> Iterator[Batch]:
        return read_topic(self.log, self.archive, topic, partition, position, end)

    def _add_runners(self, task: Task) -> None:
        app, plan = self.app, self.plan
        numbers = {str(i.tp.topic): i.number for i in task.inputs if not i.broadcast}
        for together in task.sub.lock_steps():
            runners: list[Runner | OperatorRunner] = []
            for reader in together:
                if reader.is_operator:
                    operator = self._operator(task, reader)
                    runners.append(operator)
                    task.watchers.append(operator)
                    continue
                agent = self._failing(reader.agent)
                frame = Frame(
                    reader.name, task.rows, promoted=plan.promoted, message_bytes_max=app.options.message_bytes_max,
                )  # fmt: skip
                if self.touch is not None:
                    frame.touch = _toucher(self.touch, reader.agent)
                frame.parts = {
                    app.declared.tables[name].number: task.parts[name]
                    for name in reader.tables
                    if name in task.parts
                }
                runners.append(
                    Runner(
                        RunnerAgent(reader.name, agent, app.options),
                        frame,
                        self._start(reader),
                        task.dead_letter,
                        task.intake.decoded_anew,
                    )
                )
                task.dispatch.reads[reader.name] = {
                    number
                    for topic, number in numbers.items()
                    if topic in reader.topics or topic in map(plan.shadow_of, reader.topics)
                }
            task.dispatch.lock_steps.append(runners)
        for name, tables in task.sub.timers.items():
            timer = self._timer(task, name, tables)
            task.dispatch.timers.append(timer)
            task.watchers.append(timer)

    def _timer(self, task: Task, name: str, tables: tuple[str, ...]) -> TimerRunner:
        app = self.app
        frame = Frame(
            name, task.rows, promoted=self.plan.promoted, message_bytes_max=app.options.message_bytes_max
        )
        if self.touch is not None:
            frame.touch = _toucher(self.touch, name)
        frame.parts = {app.declared.tables[table].number: task.parts[table] for table in tables}
        return TimerRunner(
            app.declared.timers[name], frame, retries=app.options.retries, timeout_s=app.options.timeout_s
        )

    def _failing(self, name: str) -> Any:
        """Return what says how a reader fails; a sending half does as whom it sends for."""
        agent = self.app.declared.agents.get(name)
        return OperatorAgent(name, dead_letters=self.app.options.dead_letters) if agent is None else agent

    def _operator(self, task: Task, reader: Reader) -> OperatorRunner:
        app, plan, topology = self.app, self.plan, self.plan.topology
        spec = app.declared.operators[reader.name]
        frame = Frame(
            reader.name, task.rows, promoted=plan.promoted, message_bytes_max=app.options.message_bytes_max
        )
        frame.close()
        exits = [
            Exit(sink.topic, app.topic_named(sink.topic).codec, sink.steps, sink.key) for sink in spec.sinks
        ]
        out = topology.virtual.get(OUT + spec.name)
        if out is not None:
            exits.append(Exit(out, codec_for(spec.value_type)))
        states: dict[str, StatePart] = {}
        for name in spec.states:
            state = task.parts[state_table(spec.name, name)]
            assert isinstance(state, StatePart)
            states[name] = state
        tables: dict[str, TablePart] = {}
        for name in spec.tables:
            part = task.parts[name]
            assert isinstance(part, TablePart)
            tables[name] = part
        context = OperatorContext(
            spec.name, frame, partition=task.partition, partitions=task.sub.partitions, states=states,
            tables=tables, exits=exits, late_topic=late_topic(plan.app, plan.generation, spec.name),
        )  # fmt: skip
        routes: dict[int, tuple[Route, ...]] = {}
        for an_input in task.inputs:
            here = tuple(
                (number, inlet.steps)
                for number, inlet in enumerate(reader.inlets)
                if inlet.broadcast == an_input.broadcast
                and (
                    an_input.tp.topic in inlet.topics
                    or an_input.tp.topic in map(plan.shadow_of, inlet.topics)
                )
            )
            if here:
                routes[an_input.number] = here
        task.dispatch.reads[reader.name] = set(routes)
        return OperatorRunner(
            OperatorAgent(spec.name, dead_letters=app.options.dead_letters), frame, context, spec.make, routes,
            states=list(states.values()), tables=list(tables.values()), dead=task.dead_letter,
            keeps=not spec.inlets,
        )  # fmt: skip

    def _start(self, reader: Reader) -> Any:
        app = self.app
        if reader.sends_to is not None:
            topics = {t: app.topic_named(t) for t in reader.topics if not self.plan.is_internal(t)}
            return start_sender(app, reader, topics, self._codec(reader.sends_to))
        recorded = self.recorded[reader.agent]
        topics = {topic: app.topic_named(topic) for topic in recorded.topics if not is_virtual(topic)}
        return start_agent(app, app.declared.agents[reader.agent], recorded, topics)


def _toucher(touch: Callable[[str, Any], TablePart], agent: str) -> Callable[[Any], TablePart]:
    return lambda table: touch(agent, table)
