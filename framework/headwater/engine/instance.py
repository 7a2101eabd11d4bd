"""What an agent instance runs: the user's function over a bound stream with its yields staged, or the sending half of a group_by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headwater.app.agent import Agent
from headwater.app.sends import stage
from headwater.app.sink import Sink
from headwater.app.stream import Stream
from headwater.app.topic import Topic
from headwater.core.errors import KeyRefusedError
from headwater.core.keys import encode_key
from headwater.stream.frame import Send
from headwater.stream.plan import RECORD_KEY, StreamPlan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from headwater.core.values import Codec
    from headwater.engine.topology import Reader
    from headwater.stream.feed import Feed
    from headwater.stream.frame import Frame


def start_agent(
    app: Any, agent: Agent, recorded: StreamPlan, topics: Mapping[str, Topic]
) -> Callable[[Feed, Frame], Coroutine[Any, Any, None]]:
    """Return how to run one instance of an agent."""

    async def run(feed: Feed, frame: Frame) -> None:
        stream = Stream.bound(app, recorded, feed, frame, topics, declared=agent.plan)
        if not agent.is_generator:
            await cast("Awaitable[None]", agent.fun(stream))
            return
        async for value in agent.fun(stream):  # type: ignore[union-attr]
            await _yielded(agent, frame, value)

    return run


async def _yielded(agent: Agent, frame: Frame, value: Any) -> None:
    """Stage what an agent yielded, under the key of the record in hand, for each sink."""
    for sink in agent.sinks:
        topic = sink.topic if isinstance(sink, Agent) else sink
        if isinstance(topic, Topic):
            data = topic.encode_value(value)
            key = frame.rows.keys[frame.row] if frame.is_open else None
            stage(topic.name, key, data, None, None, ())
        elif frame.promoted or (isinstance(sink, Sink) and sink.replay == "emit"):
            result = sink(value)
            if hasattr(result, "__await__"):
                await result


def start_sender(
    app: Any, reader: Reader, topics: Mapping[str, Topic], codec: Codec
) -> Callable[[Feed, Frame], Coroutine[Any, Any, None]]:
    """Return how to run the sending half of a group_by: each record goes to its new key's home, its value by `codec`."""
    group_by, target = reader.group_by, reader.sends_to
    assert group_by is not None
    assert target is not None

    changes_values = any(step.kind != "filter" for step in reader.steps)

    def restage(frame: Frame, key: bytes | None, value: Any) -> None:
        work, row = frame.work, frame.row
        assert work is not None
        at = row - work.rows[0] if isinstance(work.rows, range) else work.rows.index(row)
        if not changes_values:
            data = work.raw_values[at]
        else:
            data = None if value is None else codec.encode(value)
        frame.stage(
            Send(row, target, None, None, work.keys[at] if keeps_key else key, data, work.headers_at(at))
        )

    keeps_key = group_by.key is RECORD_KEY

    async def run(feed: Feed, frame: Frame) -> None:
        stream = Stream.bound(app, StreamPlan(reader.topics, reader.steps), feed, frame, topics)
        async for value in stream:
            if keeps_key:
                restage(frame, None, value)
                continue
            if value is None and not callable(group_by.key):
                raise KeyRefusedError(
                    f"group_by of {reader.agent!r} takes the key from the field {group_by.key!r}, and a tombstone has no "
                    "fields; filter tombstones out first, or give group_by a function that knows what to do with None"
                )
            try:
                key = encode_key(group_by.key_of(value))
            except (KeyError, AttributeError, TypeError) as error:
                raise KeyRefusedError(
                    f"group_by of {reader.agent!r} finds no key in the value ({error!r})"
                ) from error
            if key is None:
                raise KeyRefusedError(
                    f"group_by of {reader.agent!r} gave None; filter such records out first"
                )
            restage(frame, key, value)

    return run
