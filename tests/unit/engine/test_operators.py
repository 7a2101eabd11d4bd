"""Operator nodes in a worker: state, results, dead letters, late records, and what a restart finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import headwater as hw
from headwater.stream.operator import LATE, OUT
from headwater.stream.plan import GroupBy, StreamPlan
from tests.unit.engine.runs import Place
from tests.unit.engine.small_operators import Buffer, Count, Dedupe, Fill, spec


def test_an_operator_keeps_state_over_restarts_and_sends_its_results(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        app.topic("orders")
        app.topic("counted")
        app.declared.add_operator(spec("count", Count, "orders", states=("counts",), sinks=("counted",)))

    place.append("orders", ["a", "b"], keys=[b"x", b"y"])
    place.run(declare)
    place.append("orders", ["c", "d"], keys=[b"x", b"x"])
    place.run(declare)
    assert place.values("counted") == [
        {"n": 1, "value": "a"}, {"n": 1, "value": "b"}, {"n": 2, "value": "c"}, {"n": 3, "value": "d"},
    ]  # fmt: skip
    assert place.batch("counted").timestamps == place.batch("orders").timestamps


def test_a_failing_record_leaves_nothing_and_goes_to_dead_letters(tmp_path: Path) -> None:
    place = Place(tmp_path)
    made = []

    def make() -> Count:
        made.append(Count())
        return made[-1]

    def declare(app: hw.App) -> None:
        app.topic("orders")
        app.declared.add_operator(spec("count", make, "orders", states=("counts",), sinks=("counted",)))

    place.append("orders", [{"kind": "ok"}, {"kind": "fail"}, {"kind": "ok"}], keys=b"x")
    place.run(declare)
    assert [value["n"] for value in place.values("counted")] == [1, 2]
    [(key, value, info)] = place.dead()
    assert (key, json.loads(value or b"")) == (b"x", {"kind": "fail"})
    assert (info["agent"], info["error"], info["attempts"], info["offset"]) == ("count", "RuntimeError", 1, 1)
    assert len(made) == 2, "it had changed its state, so its memory can't be trusted"


def test_agents_and_operators_read_what_operators_give_on(tmp_path: Path) -> None:
    """A chain of three internal topics: dedupe, then count behind a group_by, then an agent."""
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        app.topic("orders", partitions=2)
        app.declared.add_operator(spec("dedupe", Dedupe, "orders", states=("seen",)))
        by = GroupBy(lambda value: value[0], partitions=3)
        app.declared.add_operator(spec("count", Count, OUT + "dedupe", by=by, states=("counts",)))
        totals = app.Table("totals", default=int)

        @app.agent(hw.Stream(app, StreamPlan((OUT + "count",))))
        async def total(stream: Any) -> None:
            async for event in stream.events():
                totals[event.key] += event.value["n"]

    for partition in (0, 1):
        place.append(
            "orders",
            ["ax", "ax", "bx", "ay"],
            keys=[b"1", b"1", b"2", b"3"],
            partition=partition,
            partitions=2,
        )
    place.run(declare)
    # Each partition has its own three firsts: keys a, b, a.
    assert place.table("totals") == {b"a": 1 + 2 + 3 + 4, b"b": 1 + 2}


def test_records_wait_for_the_watermark_and_late_ones_are_kept_aside(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        app.topic("orders")
        app.declared.add_operator(
            spec("buffer", lambda: Buffer(10), "orders", states=("rows",), sinks=("out",))
        )
        late = app.Table("late", value_type=str)

        @app.agent(hw.Stream(app, StreamPlan((LATE + "buffer",))))
        async def lost(stream: Any) -> None:
            async for event in stream.events():
                late[str(event.timestamp_ms)] = event.value

    place.append("orders", ["a", "b", "c", "d"], times=[100, 95, 120, 105])
    place.run(declare)
    assert place.values("out") == ["b", "a"]
    assert place.batch("out").timestamps == [95, 100]
    assert place.table("late") == {b"105": "d"}
    place.append("orders", ["e"], times=[1_000])
    place.run(declare)
    assert place.values("out") == ["b", "a", "c"]


def test_an_operator_fills_a_table_that_an_agent_reads_in_lock_step(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        orders = app.topic("orders")
        seen = app.topic("seen")
        rows = app.Table("rows", value_type=int)
        app.declared.add_operator(spec("fill", lambda: Fill("rows"), "orders", tables=("rows",)))

        @app.agent(orders, sink=[seen])
        async def look(stream: Any) -> Any:
            async for key, _ in stream.items():  # noqa: PERF102  (a stream has no keys())
                yield rows.get(key)

    place.append("orders", [1, 2, None, 3], keys=[b"x", b"x", b"x", b"y"])
    place.run(declare)
    assert place.values("seen") == [1, 2, None, 3]
    assert place.table("rows") == {b"y": 3}


def test_a_replay_goes_through_operators_into_shadows_and_ends(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        app.topic("orders")
        app.declared.add_operator(spec("dedupe", Dedupe, "orders", states=("seen",)))
        app.declared.add_operator(
            spec(
                "count",
                Count,
                OUT + "dedupe",
                by=GroupBy(lambda value: "all"),
                states=("counts",),
                sinks=("out",),
            )
        )

    place.append("orders", ["a", "b", "a"], keys=[b"x", b"y", b"x"])
    place.run(declare)
    from headwater.engine.options import RunOptions
    from headwater.engine.replay import prepare_replay

    prepare_replay(place.app(declare), place.log, place.archive, time_from=-(2**62), name="again")
    place.run(declare, options=RunOptions(generation="again"))
    assert (
        place.values("app.again.out.out")
        == place.values("out")
        == [{"n": 1, "value": "a"}, {"n": 2, "value": "b"}]
    )
