"""Streams in an agent's hand, what it sends, events, and the tables its code refers to."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest

import headwater as hw
from headwater.app.sends import timestamp_ms
from headwater.app.stream import Stream, StreamRecorded
from headwater.app.touched import tables_touched
from headwater.core.errors import AgentStoppedError
from headwater.stream.feed import Feed
from headwater.stream.frame import Frame, Rows, Send
from headwater.stream.plan import GroupBy, StreamPlan
from tests.unit.app.frames import frame_over, hand, inside


@pytest.fixture
def app() -> hw.App:
    return hw.App("app")


def bound(
    app: hw.App, plan: StreamPlan, values: list[Any], declared: StreamPlan | None = None
) -> tuple[Stream, Feed]:
    frame = Frame("tester", Rows())
    feed = Feed(frame)
    work = hand(frame, [f"k{at}".encode() for at in range(len(values))], values)
    frame.work, frame.row = None, -1
    feed.put(work)
    return Stream.bound(app, plan, feed, frame, app.declared.topics, declared=declared), feed


async def drained(body: Any, feed: Feed) -> None:
    """Run a body until it has taken all there is."""
    task = asyncio.ensure_future(body)
    waiter = asyncio.ensure_future(feed.turn())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    waiter.cancel()
    if task.done():
        await task
    task.cancel()


async def collect(into: list[Any], iterator: Any) -> None:
    async for value in iterator:
        into.append(value)


async def test_a_stream_without_steps_is_the_feed_itself(app: hw.App) -> None:
    stream, feed = bound(app, StreamPlan(("source",)), [1, 2, 3])
    found: list[Any] = []
    iterator = aiter(stream)
    assert type(iterator) is type(feed.values())
    await drained(collect(found, iterator), feed)
    assert found == [1, 2, 3]


async def test_filters_and_maps_plain_and_async_run_in_order(app: hw.App) -> None:
    async def odd(value: int) -> bool:
        return value % 2 == 1

    async def doubled(value: int) -> int:
        return 2 * value

    stream, feed = bound(app, StreamPlan(("source",)), list(range(6)))
    assert stream.filter(odd) is stream
    stream.add_processor(doubled)
    stream.add_processor(str)
    stream.filter(lambda text: text != "6")
    found: list[Any] = []
    await drained(collect(found, stream), feed)
    assert found == ["2", "10"]


async def test_one_plain_filter_and_take_agree(app: hw.App) -> None:
    found: list[Any] = []
    stream, feed = bound(app, StreamPlan(("source",)), list(range(5)))
    await drained(collect(found, stream.filter(lambda value: value != 2)), feed)
    assert found == [0, 1, 3, 4]
    lists: list[Any] = []
    stream, feed = bound(app, StreamPlan(("source",)), list(range(6)))
    await drained(collect(lists, stream.filter(lambda value: value not in (2, 3)).take(2)), feed)
    assert lists == [[0, 1], [4, 5]]


async def test_items_events_and_enumerate_know_the_record(app: hw.App) -> None:
    app.topic("source", key_type=bytes)
    items: list[Any] = []
    stream, feed = bound(app, StreamPlan(("source",)), ["a", "b", "c"])
    await drained(collect(items, stream.filter(lambda value: value != "b").items()), feed)
    assert items == [(b"k0", "a"), (b"k2", "c")]
    numbered: list[Any] = []
    stream, feed = bound(app, StreamPlan(("source",)), ["a", "b"])
    await drained(collect(numbered, stream.enumerate(5)), feed)
    assert numbered == [(5, "a"), (6, "b")]
    seen: list[Any] = []
    stream, feed = bound(app, StreamPlan(("source",)), ["a", "b"])

    async def body() -> None:
        async for event in stream.events():
            assert stream.current_event is not None
            assert stream.current_event.offset == event.offset
            seen.append(
                (
                    event.topic,
                    event.partition,
                    event.offset,
                    event.key,
                    event.value,
                    event.timestamp_ms,
                    stream.now(),
                )
            )
            assert event.message.timestamp == event.timestamp_ms / 1000
            assert (event.message.key, event.message.value) == (event.raw_key, b"raw")

    await drained(body(), feed)
    assert seen == [("source", 3, 7, b"k0", "a", 1500, 1000), ("source", 3, 8, b"k1", "b", 1501, 1001)]


async def test_the_probe_run_records_what_the_body_declares(app: hw.App) -> None:
    plan = app.topic("source").stream().plan
    stream = Stream.recording(app, plan)

    def keep(value: Any) -> bool:
        return True

    async def body() -> None:
        grouped = stream.filter(keep).group_by("user", name="users")
        grouped.filter(keep)
        try:
            async for _ in grouped:
                pytest.fail("the probe run reads nothing")
        except Exception:  # an agent's own net must not catch the probe's end
            pytest.fail("the signal was taken for an error")

    with pytest.raises(StreamRecorded) as recorded:
        await body()
    found = recorded.value.plan
    assert [step.function for step in found.before] == [keep]
    assert [step.function for step in found.after] == [keep]
    assert found.group_by is not None
    assert (found.group_by.key, found.group_by.name) == ("user", "users")


async def test_what_the_body_calls_before_its_group_by_ran_upstream(app: hw.App) -> None:
    declared = StreamPlan(("source",))
    plan = Stream.recording(app, declared).filter(bool).group_by("user").filter(bool).plan
    found: list[Any] = []
    stream, feed = bound(app, plan, [0, 1, 2], declared)
    await drained(collect(found, stream.filter(bool).group_by("user").filter(lambda value: value < 2)), feed)
    assert found == [0, 1]
    stream, feed = bound(app, plan, [0], declared)
    with pytest.raises(hw.TopologyError, match="not this time"):
        aiter(stream)
    stream, feed = bound(app, declared, [0], declared)
    with pytest.raises(hw.TopologyError, match="was not there when"):
        stream.group_by("user")


async def test_declared_steps_run_in_the_agent_and_body_steps_once(app: hw.App) -> None:
    topic = app.topic("source")
    declared = topic.filter(lambda value: value > 0).plan
    recorded = Stream.recording(app, declared).filter(bool).plan
    calls: list[Any] = []

    def calls_noted(value: Any) -> bool:
        calls.append(value)
        return True

    stream, feed = bound(app, recorded, [0, 1, 2], declared)
    found: list[Any] = []
    await drained(collect(found, stream.filter(calls_noted)), feed)
    assert (found, calls) == ([1, 2], [1, 2])


def test_operators_leave_an_unbound_stream_as_it_was(app: hw.App) -> None:
    stream = app.topic("source").stream()
    assert stream.filter(bool) is not stream
    assert stream.group_by("user").plan.group_by is not None
    assert stream.plan == StreamPlan(("source",))
    again = stream.group_by("user").group_by("amount")
    assert [spec.inlets[0].group_by for spec in app.declared.operators.values()] == [GroupBy("user")]
    assert again.plan == StreamPlan(("@out:source-relay",), group_by=GroupBy("amount"))


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.take(0),
        lambda s: s.take(True),
        lambda s: s.take(3, within=-1),
        lambda s: s.take(3, within=float("nan")),
        lambda s: s.filter(5),
        lambda s: s.group_by("a", partitions=0),
        lambda s: s.group_by("a", name="a.b"),
        lambda s: s.group_by("a", topic=5),
        lambda s: s.group_by(5),
    ],
)
def test_what_an_operator_can_not_mean_is_refused(call: Any, app: hw.App) -> None:
    with pytest.raises(hw.MisuseError):
        call(app.topic("source").stream())


# -- sends


async def test_a_send_inside_an_agent_is_staged_with_its_row(app: hw.App) -> None:
    topic = app.topic("out", value_type=int)
    frame = frame_over(keys=[b"a", b"b"])
    with inside(frame):
        frame.row = 1
        staged = await topic.send(key="k", value=5, headers={"h": "v", "n": None}, timestamp=1.5, partition=2)
        topic.send_soon(key=None, value=None)
        await app.send("other", value={"n": 1}, timestamp=7)
        with pytest.raises(AgentStoppedError, match="known only when the epoch commits"):
            await staged
        with pytest.raises(hw.ValueRefusedError, match="message_bytes_max"):
            await topic.send(value=5, key="k" * (5 << 20))
    assert frame.sends == [
        Send(1, "out", 2, 1500, b"k", b"5", (("h", b"v"), ("n", None))),
        Send(1, "out", None, None, None, None, ()),
        Send(1, "other", None, 7, None, b'{"n":1}', ()),
    ]


async def test_cast_and_forward_are_sends(app: hw.App) -> None:
    async def nothing(stream: Any) -> None: ...

    agent = app.agent("in")(nothing)
    out = app.topic("out")
    frame = frame_over(keys=[b"a"])
    with inside(frame):
        await agent.cast({"n": 1}, key=5)
        assert frame.work is not None
        event = hw.Event(app, frame.work, 0)
        await event.forward(out)
        await event.forward("out", key="new", value=[1])
    assert [(send.topic, send.key, send.value, send.timestamp) for send in frame.sends] == [
        ("in", b"5", b'{"n":1}', None),
        ("out", b"a", b"raw", 1500),
        ("out", b"new", b"[1]", 1500),
    ]


class SendingEngine:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send_outside(self, *sent: Any) -> str:
        await asyncio.sleep(0)
        self.sent.append(sent)
        return f"place {len(self.sent)}"


async def test_a_send_outside_is_appended_and_may_be_awaited(
    app: hw.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hw.App, "engine_class", staticmethod(lambda app: SendingEngine()))
    topic = app.topic("out")
    assert await (await topic.send(key="k", value=1)) == "place 1"
    assert await topic.send_soon(value=2) == "place 2"
    assert app.engine.sent == [("out", b"k", b"1", None, None, ()), ("out", None, b"2", None, None, ())]


def test_send_soon_without_a_loop_says_so(app: hw.App) -> None:
    with pytest.raises(hw.MisuseError, match="needs a running event loop"):
        app.topic("out").send_soon(value=1)


@pytest.mark.parametrize(
    "options",
    [{"timestamp": "now"}, {"timestamp": float("nan")}, {"timestamp": 2**63}, {"partition": -1}, {"partition": 4},
     {"headers": {"h": 5}}, {"callback": print}, {"schema": object()}],
)  # fmt: skip
async def test_what_a_send_can_not_mean_is_refused(options: dict[str, Any], app: hw.App) -> None:
    topic = app.topic("out", partitions=4)
    frame = frame_over()
    with inside(frame), pytest.raises(hw.MisuseError):
        await topic.send(value=1, **options)
    assert frame.sends == []


def test_timestamps_are_ms_or_fausts_seconds() -> None:
    assert [timestamp_ms(value) for value in (None, 0, -1, 1700000000000, 1700000000.123, 2**63 - 1)] == [
        None, 0, -1, 1700000000000, 1700000000123, 2**63 - 1,
    ]  # fmt: skip


# -- the tables that code refers to

APP = hw.App("touched")
DIRECT = APP.Table("direct")
CALLED = APP.Table("called")
IN_MODULE = APP.Table("in_module")
CLOSED_OVER = APP.Table("closed_over")
UNUSED = APP.Table("unused")
IN_DICT = APP.Table("in_dict")
module = ModuleType("somewhere")
module.table = IN_MODULE  # type: ignore[attr-defined]
registry = {"a": IN_DICT}
ran: list[str] = []


class Holder:
    @property
    def direct(self) -> Any:
        ran.append("property")
        return DIRECT


holder = Holder()


def deeper(key: str) -> None:
    CALLED[key] = 1
    if key == "again":
        deeper(key)


def through(key: str) -> None:
    deeper(key)


def test_tables_are_found_in_names_calls_modules_closures_and_nested_code() -> None:
    closed = CLOSED_OVER

    async def agent(stream: Any) -> None:
        async for value in stream:
            [DIRECT[key] for key in value]
            through(value)
            module.table[value] = 1
            (lambda: closed[value])()
            registry["a"][value] = 1

    tables = list(APP.tables.values())
    assert tables_touched(agent, tables) == {DIRECT, CALLED, IN_MODULE, CLOSED_OVER, IN_DICT}
    assert tables_touched(agent, [UNUSED]) == set()


def test_reading_code_runs_none_of_it() -> None:
    async def agent(stream: Any) -> None:
        ran.append("agent")
        holder.direct["k"] = 1
        sys.exit(1)

    assert tables_touched(agent, APP.tables.values()) == set()
    assert ran == []
