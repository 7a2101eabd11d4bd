"""Stream: what an agent iterates, and how one is declared. Reads from a feed; knows no topic's place or position.

A stream is one of three things. *Unbound*: a plan, made by `topic.stream()` and the operators on it, given to an agent.
*Recording*: handed to an agent's body once at start, to see what it declares there; the first iteration ends it.
*Bound*: what a running agent instance reads from.
"""

from __future__ import annotations

import inspect
from bisect import bisect_left
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from faust.streams import Stream as FaustStream
from mode import Service

from headwater.app import derive, joins
from headwater.app.event import Event, event_in_hand
from headwater.app.facts import Facts, facts_of_topic, has_field, type_of
from headwater.app.refused import refuse_members
from headwater.core.errors import AgentStoppedError, MisuseError, TopologyError
from headwater.core.keys import decode_key
from headwater.core.place import users_line
from headwater.stream.plan import RECORD_KEY, GroupBy, Step, StreamPlan, key_selector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from random import Random

    from headwater.app.derive import WindowedStream
    from headwater.app.owner import AppLike
    from headwater.stream.feed import Feed
    from headwater.stream.frame import Frame


class StreamRecorded(BaseException):
    """A recording stream was iterated: `plan` is what the agent's body declared up to there.

    A signal, not an error: it derives from BaseException so that an agent's own `except Exception` lets it through.
    """

    def __init__(self, plan: StreamPlan) -> None:
        super().__init__(plan)
        self.plan = plan


class Stream(FaustStream):  # type: ignore[type-arg]
    """A stream of an app: unbound, recording or bound (see the module)."""

    def __init__(self, app: AppLike, plan: StreamPlan, facts: Facts | None = None) -> None:
        """Make an unbound stream; `facts` where more is known than its topics say. (Faust's own __init__ would make queues.)"""
        Service.__init__(self)
        self.app = app  # type: ignore[assignment]
        self.plan = plan
        self._facts = facts
        self._recording = False
        self._feed: Feed | None = None
        self._frame: Frame | None = None
        self._topics: Mapping[str, Any] = {}
        self._steps: list[Step] = []
        self._upstream = False

    @classmethod
    def recording(cls, app: AppLike, plan: StreamPlan) -> Stream:
        """Make the stream of the probe run: operators add to its plan, iteration raises StreamRecorded."""
        stream = cls(app, plan)
        stream._recording = True
        return stream

    @classmethod
    def bound(
        cls,
        app: AppLike,
        plan: StreamPlan,
        feed: Feed,
        frame: Frame,
        topics: Mapping[str, Any],
        codec: Any = None,
        *,
        declared: StreamPlan | None = None,
    ) -> Stream:
        """Make the stream of a running agent.

        `plan` is what the probe run recorded, `declared` what the agent was declared with (its `agent.plan`; by default
        as `plan`). Operators that the body calls are not taken from the plan: the body calls them again on this very
        stream, with its own functions.
        """
        stream = cls(app, plan)
        stream._feed, stream._frame, stream._topics = feed, frame, topics
        declared = plan if declared is None else declared
        if plan.group_by is None:
            stream._steps = list(declared.before)
        elif declared.group_by is not None:
            stream._steps = list(declared.after)
        else:
            # The body's own group_by: what it calls before that has run upstream, ahead of the repartition topic.
            stream._upstream = True
        return stream

    # -- operators

    def filter(self, fun: Callable[[Any], Any]) -> Stream:
        """Keep the values the function (plain or async) says yes to.

        On an unbound stream this returns a new stream and leaves the old as it is.
        """
        return self._with(Step("filter", _function(fun, "filter")))

    def map(self, fun: Callable[[Any], Any], *, value_type: Any = None) -> Stream:
        """Replace each value by what the function (plain or async) returns; `value_type` says what that is."""
        return self._with(Step("map", _function(fun, "map"), retypes=True), value_type)

    def flat_map(self, fun: Callable[[Any], Any], *, value_type: Any = None) -> Stream:
        """Replace each value by each of what the function (plain or async) returns, under the same key and event time."""
        return self._with(Step("flat_map", _function(fun, "flat_map"), retypes=True), value_type)

    def add_processor(self, processor: Callable[[Any], Any]) -> None:
        """Replace each value by what the function (plain or async) returns; changes this stream, as in faust."""
        step = Step("map", _function(processor, "add_processor"))
        if self._feed is None:
            self.plan = self.plan.then(step)
        elif not self._upstream:
            self._steps.append(step)

    def group_by(
        self,
        key: Any = RECORD_KEY,
        *,
        name: str | None = None,
        topic: Any = None,
        partitions: int | None = None,
        key_type: Any = None,
    ) -> Stream:
        """Send the records to their new key's home first: a field's name, a field, a function of the value, or a tuple.

        Without a key the record's own is taken. Nothing is sent where the record's key is that key already. `key_type`: how
        the key is shown in results.
        """
        if topic is not None:
            raise MisuseError(
                "group_by(topic=…) is not there: repartition topics are named by the engine; use name= to fix the name, "
                "or send to a topic of your own and read it with another agent"
            )
        if partitions is not None and (not isinstance(partitions, int) or partitions < 1):
            raise MisuseError(f"group_by(partitions=…) takes a whole number from 1; found {partitions!r}")
        selected = key if key is RECORD_KEY else key_selector(key)
        # In a body the stream is that of its topics, whatever the plan's group_by will make of it.
        there = self.facts if self._feed is None else facts_of_topic(self.channel)
        stays = partitions is None and (selected is RECORD_KEY or selected == there.key)
        if self._feed is not None:
            if not stays and not self._upstream:
                raise TopologyError(
                    "this group_by was not there when the agent's body was run at start; call it before the first "
                    "iteration, always, and once"
                )
            self._upstream = self._upstream and stays
            return self
        if inspect.iscoroutinefunction(selected):
            raise TopologyError(
                "group_by takes a plain function: the key of a record may hang on nothing but its value"
            )
        facts = self._grouped(selected, key_type)
        if stays:
            return self if self._recording else type(self)(self._app, self.plan, facts)
        group_by = GroupBy(selected, _step_name(name), partitions)
        if self._recording:
            self.plan = self.plan.grouped(group_by)
            return self
        stream = self if self.plan.group_by is None else derive.relayed(self)
        return type(self)(self._app, stream.plan.grouped(group_by), facts)

    def _grouped(self, selected: Any, key_type: Any) -> Facts:
        facts = self.facts
        if selected is RECORD_KEY:
            return facts if key_type is None else replace(facts, key_type=key_type)
        if not has_field(selected, facts.value_type):
            raise TopologyError(
                f"group_by at {users_line()} takes the key from {selected!r}, and {facts.value_type.__name__} has no such field"
            )
        # Behind a group_by values that were replaced are plain JSON.
        retyped = any(step.retypes for step in (*self.plan.before, *self.plan.after))
        value_type = None if retyped else facts.value_type
        return Facts(value_type, key_type or type_of(selected, facts.value_type), selected)

    @property
    def facts(self) -> Facts:
        """What is known of the stream's values and keys."""
        if self._facts is None:
            facts = facts_of_topic(self._app.topic_named(self.plan.topics[0]))
            if any(step.kind != "filter" for step in (*self.plan.before, *self.plan.after)):
                facts = Facts(None, facts.key_type)
            if self.plan.group_by is not None:
                key = self.plan.group_by.key
                facts = (
                    facts
                    if key is RECORD_KEY
                    else Facts(facts.value_type, type_of(key, facts.value_type), key)
                )
            self._facts = facts
        return self._facts

    def _with(self, step: Step, value_type: Any = None) -> Stream:
        if self._feed is not None:
            if not self._upstream:
                self._steps.append(step)
            return self
        if self._recording:
            self.plan = self.plan.then(step)
            return self
        facts = self._facts
        if step.retypes:
            facts = Facts(value_type, self.facts.key_type)
        return type(self)(self._app, self.plan.then(step), facts)

    # -- operators with a node of their own: declared outside agents, run between them

    def dedupe(
        self, key: Any = None, within: float | timedelta | None = None, *, name: str | None = None
    ) -> Stream:
        """Keep the first record of each key; with `within` also those that come longer after the last one kept."""
        found: Stream = derive.dedupe(self._declaring("dedupe"), key, within, name)
        return found

    def aggregate(self, *, name: str, **options: Any) -> Any:
        """Keep aggregates by key as a table named `name`: `total=hw.agg.sum("price")`. See docs/guide/windows.md."""
        return derive.aggregate(self._declaring("aggregate"), None, 0, name, options)

    def window(self, window: Any, *, grace: float | timedelta = 0) -> WindowedStream:
        """Aggregate in windows: `.window(hw.windows.Tumbling(60)).aggregate(…)`."""
        return derive.WindowedStream(self._declaring("window"), window, grace)

    def top(self, n: int, *, by: Any, **options: Any) -> Any:
        """Keep the n records of each key with the greatest `by` as a table. See docs/guide/windows.md."""
        return derive.top(self._declaring("top"), None, 0, n, by, options)

    def join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with a stream or a table: on=, within=, how=, select=, as_of=… See docs/guide/joins.md."""
        return joins.join(self._declaring("join"), other, options)

    def inner_join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with how="inner"."""
        return self.join(other, how="inner", **options)

    def left_join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with how="left"."""
        return self.join(other, how="left", **options)

    def outer_join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with how="outer"."""
        return self.join(other, how="outer", **options)

    def to(self, topic: Any, key: Any = None) -> Stream:
        """Send each value to a topic, under its key or the given one (field, function, tuple); return this stream."""
        derive.to(self._declaring("to"), topic, key)
        return self

    def table(self, name: str, **options: Any) -> Any:
        """Keep the latest value of each key as a table; a null value deletes. Options are those of app.Table."""
        return derive.table(self._declaring("table"), name, options)

    def _declaring(self, operator: str) -> Stream:
        if self._feed is not None or self._recording:
            raise TopologyError(
                f"{operator} at {users_line()} is called in an agent's body; declare it outside and hand its result to the agent: "
                f"@app.agent(topic.stream().{operator}(…))"
            )
        return self

    # -- iteration

    def __aiter__(self) -> AsyncIterator[Any]:
        feed = self._open()
        return feed.values() if not self._steps else self._stepped(feed.values())

    async def __anext__(self) -> Any:
        raise AgentStoppedError("a stream is iterated with `async for`; it has no next value of its own")

    def events(self) -> AsyncIterator[Event]:
        """Iterate over records with key, headers and place."""
        feed, frame = self._open(), self._bound_frame()
        return self._events(feed, frame)

    def items(self) -> AsyncIterator[tuple[Any, Any]]:
        """Iterate over (key, value)."""
        feed, frame = self._open(), self._bound_frame()
        return self._items(feed, frame)

    def enumerate(self, start: int = 0) -> AsyncIterator[tuple[int, Any]]:
        """Iterate over (number, value). The count is this instance's own and starts anew with it."""
        self._open()
        return self._enumerate(start)

    def take(  # type: ignore[override]
        self, max_: int, within: float | timedelta | None = None
    ) -> AsyncIterator[list[Any]]:
        """Iterate over lists of at most `max_` values; shorter where event time moved by more than `within` seconds.

        Records are counted as they arrive: `filter` thins the lists, and an empty one is not handed out.
        """
        if not isinstance(max_, int) or isinstance(max_, bool) or max_ < 1:
            raise MisuseError(f"take(n) needs a whole number from 1; found {max_!r}")
        within_ms = _milliseconds(within)
        lists = self._open().lists(max_, within_ms)
        return lists if not self._steps else self._stepped_lists(lists)

    def now(self) -> int:
        """Return the task's event time: ms since 1970 UTC, never the wall clock."""
        frame = self._bound_frame()
        if frame.row < 0:
            raise AgentStoppedError("stream.now() has no answer before the first record")
        return int(frame.rows.task_times[frame.row])

    @property
    def watermark(self) -> int:
        """The task's watermark with the record in hand, ms since 1970 UTC: no record that isn't late is older.

        Before it is known: the least 64-bit number.
        """
        frame = self._bound_frame()
        if frame.row < 0:
            raise AgentStoppedError("stream.watermark has no answer before the first record")
        if not len(frame.rows.task_watermarks):
            raise AgentStoppedError(
                "stream.watermark is kept only for agents whose code shows the name; read it in the agent's own function, "
                "or in a plain function that it calls"
            )
        return int(frame.rows.task_watermarks[frame.row])

    @property
    def random(self) -> Random:
        """Chance that a replay repeats: seeded by task and position."""
        return self._bound_frame().random

    @property
    def current_event(self) -> Event | None:  # type: ignore[override]
        """The record in hand, or None before the first."""
        return None if self._frame is None else event_in_hand(self._app, self._frame)

    async def _stepped(self, values: AsyncIterator[Any]) -> AsyncIterator[Any]:
        steps = [(step.kind, step.function) for step in self._steps]
        if len(steps) == 1 and steps[0][0] == "filter" and not inspect.iscoroutinefunction(steps[0][1]):
            keep = steps[0][1]
            async for value in values:
                kept = keep(value)
                if (await kept) if inspect.isawaitable(kept) else kept:
                    yield value
            return
        async for value in values:
            for found in await _apply(steps, value):
                yield found

    async def _stepped_lists(self, lists: AsyncIterator[list[Any]]) -> AsyncIterator[list[Any]]:
        steps = [(step.kind, step.function) for step in self._steps]
        async for values in lists:
            kept = [found for value in values for found in await _apply(steps, value)]
            if kept:
                yield kept

    async def _events(self, feed: Feed, frame: Frame) -> AsyncIterator[Event]:
        app = self._app
        stepped = bool(self._steps)
        async for value in aiter(self):
            work = frame.work
            at = bisect_left(work.rows, frame.row)  # type: ignore[union-attr]
            yield Event(app, work, at, value) if stepped else Event(app, work, at)  # type: ignore[arg-type]

    async def _items(self, feed: Feed, frame: Frame) -> AsyncIterator[tuple[Any, Any]]:
        async for value in aiter(self):
            work = frame.work
            at = bisect_left(work.rows, frame.row)  # type: ignore[union-attr]
            topic = self._topics.get(work.topics[work.input_at(at)][0])  # type: ignore[union-attr]
            data = work.keys[at]  # type: ignore[union-attr]
            yield (decode_key(data, None) if topic is None else topic.decode_key(data)), value

    async def _enumerate(self, start: int) -> AsyncIterator[tuple[int, Any]]:
        number = start
        async for value in aiter(self):
            yield number, value
            number += 1

    # -- state

    @property
    def channel(self) -> Any:  # type: ignore[override]
        """The topic the stream comes from; of several the first."""
        return self._app.topic_named(self.plan.topics[0])

    async def on_start(self) -> None:
        """Start nothing: the engine owns what an agent reads."""

    async def on_stop(self) -> None:
        """Stop nothing: the engine owns what an agent reads."""

    async def stop(self) -> None:
        """Stop nothing: the engine owns what an agent reads."""

    @property
    def _app(self) -> Any:
        return self.app

    def _open(self) -> Feed:
        """Return the feed, or raise: StreamRecorded at the probe run, an error outside agents."""
        if self._recording:
            raise StreamRecorded(self.plan)
        if self._feed is None:
            raise AgentStoppedError(
                f"the stream of {', '.join(self.plan.topics)} is a declaration and can't be iterated; hand it to an agent: "
                "@app.agent(stream)"
            )
        if self._upstream:
            raise TopologyError(
                "this agent's body called group_by when it was run at start, but not this time; a group_by may hang on "
                "nothing: call it always, before the first iteration"
            )
        return self._feed

    def _bound_frame(self) -> Frame:
        if self._recording:
            raise StreamRecorded(self.plan)
        if self._frame is None:
            raise AgentStoppedError(
                "only the stream that an agent is handed knows a record; this one is a declaration"
            )
        return self._frame

    def __repr__(self) -> str:
        state: Literal["recording", "unbound", "bound"]
        state = "recording" if self._recording else "unbound" if self._feed is None else "bound"
        return f"<Stream: {state} {', '.join(self.plan.topics)}>"

    @property
    def label(self) -> str:
        """What the stream reads, for people."""
        return f"Stream: {', '.join(self.plan.topics)}"

    @property
    def shortlabel(self) -> str:
        """What the stream reads, for people."""
        return self.label


async def _apply(steps: Sequence[tuple[str, Callable[[Any], Any]]], value: Any) -> list[Any]:
    """Return what becomes of a value: nothing, one, or several."""
    values = [value]
    for kind, function in steps:
        found: list[Any] = []
        for one in values:
            result = function(one)
            if inspect.isawaitable(result):
                result = await result
            if kind == "map":
                found.append(result)
            elif kind == "flat_map":
                found += result
            elif result:
                found.append(one)
        values = found
    return values


def _function(fun: Any, where: str) -> Callable[[Any], Any]:
    if not callable(fun):
        raise MisuseError(f"{where} takes a function of the value; found {fun!r}")
    return fun  # type: ignore[no-any-return]


def _step_name(name: str | None) -> str:
    if name is None:
        return ""
    from headwater.core.names import check_part

    return check_part(name, "a group_by")


def _milliseconds(within: float | timedelta | None) -> int | None:
    if within is None:
        return None
    seconds = within.total_seconds() if isinstance(within, timedelta) else within
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e12:
        raise MisuseError(f"take(within=…) takes seconds or a timedelta, not negative; found {within!r}")
    return round(seconds * 1000)


_EPOCH = "nothing: positions, outputs and tables are committed together with the epoch"
_JOIN = "stream.join(other, on=…, within=…): the engine keeps what a join needs"
_TASKS = "nothing: tasks own partitions"
_LINK = "the plan: stream.plan says what is read and which operators follow"

refuse_members(
    Stream,
    methods={
        "through": "@app.agent(…, sink=[topic]) and a second agent on that topic",
        "echo": "@app.agent(…, sink=[topic, …]), or topic.send in the agent's body",
        "noack": _EPOCH,
        "ack": _EPOCH,
        "noack_take": "stream.take(n, within=…)",
        "take_events": "stream.events(), or stream.take(n, within=…) with what is needed in the value",
        "take_with_timestamp": "stream.take(n, within=…) and stream.now(), or stream.events()",
        "combine": "one agent on several topics: app.topic('a', 'b')",
        "__and__": "one agent on several topics: app.topic('a', 'b')",
        "contribute_to_stream": _JOIN,
        "remove_from_stream": _JOIN,
        "on_merge": _JOIN,
        "derive_topic": "stream.group_by(key, name=…, partitions=…)",
        "clone": "topic.stream() again; unbound streams are not changed by filter and group_by",
        "info": _LINK,
        "get_active_stream": _LINK,
        "get_root_stream": _LINK,
        "throw": "raise in the agent's body: the record is retried, then goes to dead letters",
        "__copy__": "topic.stream() again; unbound streams are not changed by filter and group_by",
        "__iter__": "`async for`",
        "__next__": "`async for`",
    },
    properties={
        "active_partitions": _TASKS,
        "concurrency_index": _TASKS,
        "task_owner": _TASKS,
        "combined": "one agent on several topics: app.topic('a', 'b')",
        "enable_acks": _EPOCH,
        "events_total": "app.monitor",
        "join_strategy": _JOIN,
        "outbox": _LINK,
        "prefix": _LINK,
    },
)
