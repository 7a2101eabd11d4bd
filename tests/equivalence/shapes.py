"""Small apps of any shape, and records of any kind for them: what the random equivalence tests draw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

import headwater as hw
from headwater.stream.operator import CHANGES, LATE, OUT, OperatorSpec, Outlet
from headwater.stream.plan import GroupBy, StreamPlan
from tests.equivalence.world import Given
from tests.unit.engine.small_operators import Buffer, Count, Dedupe, Windows, WindowTable, spec

FAILS = "fail"
"""A value that breaks the agents that look at it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Which parts an app has. `merged`: one agent reads both topics; `shared`: two agents work on one table."""

    partitions: int
    merged: bool
    regrouped: bool
    shared: bool
    takes: int
    repartitions: int | None
    lock_step_fails: bool
    derived: str = ""
    """Operators: "count" by key, "buffer" until the watermark (two inlets, late records), "chain" of three."""

    @property
    def free_tables(self) -> tuple[str, ...]:
        """Tables whose rows don't hang on the order of arrival across inputs."""
        return (
            "sums", *(("groups",) if self.regrouped else ()), *(("tally",) if self.shared else ()),
            *(("lates",) if self.derived == "buffer" else ()),
        )  # fmt: skip

    @property
    def tables(self) -> tuple[str, ...]:
        """All tables."""
        return (
            *self.free_tables, "chain", *(("group_chain",) if self.regrouped else ()),
            *(("firsts", "windows") if self.derived == "chain" else ()),
        )  # fmt: skip

    @property
    def outputs(self) -> tuple[str, ...]:
        """All topics that the app writes."""
        return (
            "echo", "side", *(("lists",) if self.takes else ()),
            *{"": (), "count": ("counted",), "buffer": ("sorted",), "chain": ("copies", "closed")}[self.derived],
        )  # fmt: skip


def make_app(shape: Shape) -> hw.App:
    """Return an app of this shape."""
    app = hw.App("shapes", retries=1, partitions=shape.partitions)
    left = app.topic("left", partitions=shape.partitions)
    right = app.topic("right", partitions=shape.partitions)
    both = app.topic("left", "right", partitions=shape.partitions)
    echo = app.topic("echo", partitions=2)
    side = app.topic("side", partitions=3)
    lists = app.topic("lists", partitions=1)
    sums = app.Table("sums", default=int)
    chain = app.Table("chain", default=int)

    @app.agent(both if shape.merged else left, sink=[echo])
    async def fold(stream: hw.Stream) -> AsyncIterator[Any]:
        async for event in stream.events():
            key, value = event.key, event.value
            number = value["n"] if isinstance(value, dict) else 1
            if key is not None:
                sums[key] += number
                # Tells any other order of the key's records.
                chain[key] = (chain[key] * 31 + number) % 1_000_003
                if value is None:
                    chain.pop(key, None)
            await side.send(key=key, value={"n": number})
            if isinstance(value, dict) and value["kind"] == FAILS:
                raise RuntimeError("told to fail")
            yield [number, chain[key] if key is not None else stream.random.random()]

    if shape.shared:
        tally = app.Table("tally", value_type=dict)

        @app.agent(both if shape.merged else left)
        async def first(stream: hw.Stream) -> None:
            async for key, value in stream.items():
                if key is not None:
                    row = tally.get(key) or {"first": 0, "second": 0}
                    tally[key] = {**row, "first": row["first"] + 1}
                if shape.lock_step_fails and isinstance(value, dict) and value["n"] % 3 == 0:
                    raise RuntimeError("told to fail in lock step")

        @app.agent(left)
        async def second(stream: hw.Stream) -> None:
            async for event in stream.events():
                key = event.key
                if key is not None:
                    row = tally.get(key) or {"first": 0, "second": 0}
                    tally[key] = {**row, "second": row["second"] + 1}

    if shape.regrouped:
        groups = app.Table("groups", value_type=dict)
        group_chain = app.Table("group_chain", default=int)

        @app.agent(right.group_by("group", partitions=shape.repartitions))
        async def regroup(stream: hw.Stream) -> None:
            async for value in stream:
                key = value["group"]
                row = groups.get(key) or {"n": 0, "sum": 0}
                groups[key] = {"n": row["n"] + 1, "sum": row["sum"] + value["n"]}
                group_chain[key] = (group_chain[key] * 31 + value["n"]) % 1_000_003
                if value["kind"] == FAILS:
                    raise RuntimeError("told to fail behind the group_by")

    if shape.takes:

        @app.agent(left, sink=[lists])
        async def bundle(stream: hw.Stream) -> AsyncIterator[Any]:
            async for several in stream.take(shape.takes):
                yield [value["n"] if isinstance(value, dict) else value for value in several]

    if shape.derived:
        derive(app, shape)
    return app


def derive(app: hw.App, shape: Shape) -> None:
    """Declare the operators of a shape."""
    add = app.declared.add_operator
    if shape.derived == "count":
        app.topic("counted", partitions=2)
        add(spec("count", Count, "left", states=("counts",), sinks=("counted",)))
    if shape.derived == "buffer":
        app.topic("sorted", partitions=2)
        add(spec("buffer", lambda: Buffer(40), "left", "right", states=("rows",), sinks=("sorted",)))
        lates = app.Table("lates", default=int, local=True)

        @app.agent(hw.Stream(app, StreamPlan((LATE + "buffer",))))
        async def late(stream: hw.Stream) -> None:
            async for event in stream.events():
                lates[event.key or b"none"] += 1

    if shape.derived == "chain":
        copies = app.topic("copies", partitions=2)
        app.topic("closed", partitions=2)
        by = GroupBy(
            lambda value: value["group"] if isinstance(value, dict) else "none", "", shape.repartitions
        )
        firsts = app.Table("firsts", default=int)
        WindowTable(app, "windows")
        add(spec("dedupe", Dedupe, "left", states=("seen",)))
        add(spec("groups_of", Count, OUT + "dedupe", by=by, states=("counts",)))
        add(
            OperatorSpec(
                "windows", (StreamPlan((OUT + "groups_of",)),), lambda: Windows("windows"), tables=("windows",),
                sinks=(Outlet("closed"),),
            )
        )  # fmt: skip

        @app.agent(hw.Stream(app, StreamPlan((OUT + "groups_of",))))
        async def last(stream: hw.Stream) -> None:
            async for event in stream.events():
                firsts[event.key] = event.value["n"]
                if event.value["n"] % 5 == 4:
                    raise RuntimeError("told to fail behind an operator")

        @app.agent(hw.Stream(app, StreamPlan((CHANGES + "firsts",))), sink=[copies])
        async def copy(stream: hw.Stream) -> AsyncIterator[Any]:
            async for change in stream:
                yield change


shapes = st.builds(
    Shape,
    partitions=st.integers(1, 3),
    merged=st.booleans(),
    regrouped=st.booleans(),
    shared=st.booleans(),
    takes=st.sampled_from([0, 0, 2, 5]),
    repartitions=st.sampled_from([None, 1, 2]),
    lock_step_fails=st.booleans(),
    derived=st.sampled_from(["", "count", "buffer", "chain"]),
)

keys = st.sampled_from([None, b"", b"a", b"b", b"c", b"a\0b", "\N{AIRPLANE}".encode(), b"\xff\xfe"])
near = st.integers(0, 2_000)
times = st.one_of(near, near, near, st.sampled_from([0, -1, -5, -(2**40), 2**41, 253402300799000, 2**63 - 1]))


@st.composite
def values(draw: st.DrawFn) -> bytes | None:
    """A value that the agents take; now and then one that breaks them, is not JSON, or is a tombstone."""
    kind = draw(st.sampled_from(["plain"] * 9 + [FAILS, "tombstone", "broken", "null"]))
    if kind == "tombstone":
        return None
    if kind == "broken":
        return b"\xff no JSON"
    if kind == "null":
        return b"null"
    number, group = draw(st.integers(0, 99)), draw(st.sampled_from(["x", "y", "z", 7, None]))
    text = "null" if group is None else f'"{group}"' if isinstance(group, str) else str(group)
    return f'{{"n":{number},"kind":"{kind}","group":{text}}}'.encode()


records = st.lists(
    st.builds(Given, keys, values(), times, st.just(()) | st.just((("h", b"1"), ("h", None)))), max_size=30
)
