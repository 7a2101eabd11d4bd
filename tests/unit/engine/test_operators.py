"""Operator nodes in a worker: state, results, dead letters, late records, and what a restart finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import headwater as hw
from headwater.core.partitioner import partition_of
from headwater.core.times import EARLIEST
from headwater.engine.options import RunOptions
from headwater.engine.replay import prepare_replay
from headwater.stream.operator import LATE, OUT, OperatorSpec, Outlet
from headwater.stream.plan import GroupBy, StreamPlan
from tests.unit.engine.runs import Place
from tests.unit.engine.small_operators import Buffer, Count, Dedupe, Fill, Lookup, Windows, WindowTable, spec


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
    replayed(place, declare)
    assert (
        place.values("app.again.out.out")
        == place.values("out")
        == [{"n": 1, "value": "a"}, {"n": 2, "value": "b"}]
    )


def looking_up(app: hw.App) -> None:
    app.topic("orders", partitions=2)
    app.topic("planes", partitions=3)
    app.topic("found", partitions=1)
    inlets = (StreamPlan(("orders",)), StreamPlan(("planes",), broadcast=True))
    app.declared.add_operator(
        OperatorSpec("lookup", inlets, Lookup, states=("known",), sinks=(Outlet("found"),))
    )


def test_each_task_has_all_of_a_broadcast_topic_ahead_of_its_own_records(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for partition in range(3):
        place.append(
            "planes",
            [f"p{partition}"],
            keys=str(partition).encode(),
            partition=partition,
            partitions=3,
            times=[50],
        )
    for partition in range(2):
        place.append("orders", [0, 1, 2], keys=b"k", partition=partition, partitions=2, times=[50, 51, 52])
    place.run(looking_up)
    assert sorted(place.values("found")) == sorted([[0, "p0"], [1, "p1"], [2, "p2"]] * 2)
    # A restart goes on in all of it: what is new is read, what was read is known.
    place.append("planes", ["new"], keys=b"1", partition=1, partitions=3, times=[60])
    for partition in range(2):
        place.append("orders", [1, 2], keys=b"k", partition=partition, partitions=2, times=[70, 71])
    place.run(looking_up)
    assert sorted(place.values("found")[6:]) == sorted([[1, "new"], [2, "p2"]] * 2)
    # The group's offsets have one position a partition, so none of what every task reads.
    positions = place.log.positions("app.live")
    assert {tp.topic for tp in positions} == {"orders", "app.live.tasks"}
    replayed(place, looking_up)
    assert sorted(place.values("app.again.out.found")) == sorted(place.values("found"))


def replayed(place: Place, declare: Any) -> None:
    """Replay all there is as generation `again`."""
    prepare_replay(place.app(declare), place.log, place.archive, time_from=EARLIEST, name="again")
    place.run(declare, options=RunOptions(generation="again"))


def test_inlets_of_other_partition_counts_meet_by_key(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        app.topic("left", partitions=1)
        app.topic("right", partitions=3)
        app.topic("counted", partitions=1)
        app.declared.add_operator(
            spec("count", Count, "left", "right", states=("counts",), sinks=("counted",))
        )

    keys = [b"a", b"b", b"c", b"d", b"e"]
    place.append("left", list(range(5)), keys=keys, partitions=1)
    for key in keys:
        place.append("right", ["r"], keys=key, partition=partition_of(key, 3), partitions=3)
    place.run(declare)
    counts: dict[bytes | None, list[int]] = {}
    for name, value in zip(place.batch("counted").keys, place.values("counted"), strict=True):
        counts.setdefault(name, []).append(value["n"])
    assert counts == {key: [1, 2] for key in keys}
    replayed(place, declare)
    assert len(place.values("app.again.out.counted")) == 10


def test_an_agent_on_results_may_look_into_the_operators_table(tmp_path: Path) -> None:
    """One task sends to itself, through the log: a bounded replay of it comes to its end all the same."""
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        app.topic("orders")
        seen = app.topic("seen")
        WindowTable(app, "hits")
        app.declared.add_operator(spec("hits", lambda: Windows("hits"), "orders", tables=("hits",)))

        @app.agent(hw.Stream(app, StreamPlan((OUT + "hits",))), sink=[seen], tables=[app.tables["hits"]])
        async def look(stream: Any) -> Any:
            async for value in stream:
                yield value

    place.append("orders", ["v"] * 4, keys=b"x", times=[10, 20, 130, 250])
    place.run(declare)
    assert place.values("seen") == [{"end": 100, "n": 2}, {"end": 200, "n": 1}]
    replayed(place, declare)
    assert place.values("app.again.out.seen") == place.values("seen")


def test_a_record_of_the_last_millisecond_ends_no_time(tmp_path: Path) -> None:
    """A restart took a clock that had come to 2^63 - 1 for the END-OF-TIME, and all that followed for late."""
    place = Place(tmp_path)

    def declare(app: hw.App) -> None:
        app.topic("orders")
        app.topic("out")
        app.declared.add_operator(spec("buffer", Buffer, "orders", states=("rows",), sinks=("out",)))

    place.append("orders", ["last"], times=[2**63 - 1])
    place.run(declare)
    place.append("orders", ["first"], times=[1_000])
    place.run(declare)
    late = place.log.topic("app.live.late.buffer")
    once = Place(tmp_path / "once")
    once.append("orders", ["last", "first"], times=[2**63 - 1, 1_000])
    once.run(declare)
    assert (late is None) == (once.log.topic("app.live.late.buffer") is None)
