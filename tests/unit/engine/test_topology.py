"""Topology: what shares tasks, what goes in lock step, where a group_by splits, and how things are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headwater as hw
from headwater.core.errors import PartitionCountError, TopologyError
from headwater.engine.topology import AgentSpec, Node, Topology, build_topology, check_same
from headwater.stream.operator import CHANGES, LATE, OUT, OperatorSpec, Outlet
from headwater.stream.plan import RECORD_KEY, GroupBy, StreamPlan
from tests.unit.engine.runs import Place


def _counts(**partitions: int) -> Callable[[str], int]:
    return lambda topic: partitions.get(topic, 4)


def _build(*specs: Node, **partitions: int) -> Topology:
    return build_topology("app", "live", specs, _counts(**partitions))


def _spec(name: str, *topics: str, tables: tuple[str, ...] = (), by: GroupBy | None = None) -> AgentSpec:
    return AgentSpec(name, StreamPlan(topics, group_by=by), tables)


def test_agents_of_one_topic_share_tasks_and_others_do_not() -> None:
    topology = _build(_spec("a", "orders"), _spec("b", "clicks"), _spec("c", "orders"), orders=2, clicks=3)
    assert [([r.name for r in sub.readers], sub.topics, sub.partitions) for sub in topology.subs] == [
        (["a", "c"], ["orders"], 2),
        (["b"], ["clicks"], 3),
    ]
    assert topology.tasks == 5
    assert [(sub.number, partition) for sub, partition in map(topology.task, range(5))] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip
    with pytest.raises(TopologyError, match="no task 5"):
        topology.task(5)


def test_a_shared_table_joins_topics_into_one_task_and_agents_into_lock_step() -> None:
    topology = _build(
        _spec("a", "orders", tables=("t", "u")), _spec("b", "clicks"), _spec("c", "clicks", tables=("u", "v")),
        _spec("d", "orders", tables=("v",)), _spec("e", "orders", tables=("w",)),
    )  # fmt: skip
    [sub] = topology.subs
    assert sub.topics == ["clicks", "orders"]
    assert sub.tables == ["t", "u", "v", "w"]
    # a and d share no table, but both share one with c.
    assert [[r.name for r in together] for together in sub.lock_steps()] == [["a", "c", "d"], ["b"], ["e"]]


def test_topics_that_share_a_task_need_one_partition_count() -> None:
    with pytest.raises(PartitionCountError) as refused:
        _build(_spec("a", "orders", tables=("t",)), _spec("b", "clicks", tables=("t",)), orders=2, clicks=3)
    for part in ("agents a, b", "clicks has 3", "orders has 2", "group_by"):
        assert part in str(refused.value)


def test_group_by_ends_the_upstream_task_and_begins_another() -> None:
    by = GroupBy("user", name="by_user", partitions=6)
    topology = _build(_spec("a", "orders", tables=("t",), by=by), _spec("b", "orders"), orders=2)
    upstream, downstream = topology.subs
    assert [reader.name for reader in upstream.readers] == ["a.group_by", "b"]
    assert upstream.tables == []
    assert upstream.readers[0].sends_to == "app.live.repartition.a.by_user"
    assert [reader.name for reader in downstream.readers] == ["a"]
    assert (downstream.topics, downstream.tables) == (["app.live.repartition.a.by_user"], ["t"])
    assert (upstream.partitions, downstream.partitions) == (2, 6)
    assert downstream.senders == {"app.live.repartition.a.by_user": 0}
    assert topology.repartition_topics == {"app.live.repartition.a.by_user": 6}
    assert topology.source_topics == {"orders": 2}


def test_an_unnamed_group_by_is_numbered_and_has_its_upstreams_count() -> None:
    topology = _build(_spec("a", "orders", by=GroupBy("user")), orders=3)
    assert topology.repartition_topics == {"app.live.repartition.a.0": 3}


def test_a_grouped_stream_takes_the_count_of_the_topic_it_shares_a_table_with() -> None:
    specs = (_spec("a", "orders", tables=("t",), by=GroupBy("user")), _spec("b", "users", tables=("t",)))
    topology = _build(*specs, orders=2, users=2)
    assert [sub.topics for sub in topology.subs] == [["orders"], ["app.live.repartition.a.0", "users"]]
    topology = _build(*specs, orders=2, users=3)
    assert topology.repartition_topics == {"app.live.repartition.a.0": 3}
    by = GroupBy("user", partitions=2)
    with pytest.raises(PartitionCountError, match="users has 3"):
        _build(_spec("a", "orders", tables=("t",), by=by), specs[1], orders=2, users=3)


def test_a_generation_started_with_another_topology_is_refused_with_what_to_do() -> None:
    one, two = _build(_spec("a", "orders")), _build(_spec("a", "orders", tables=("t",)))
    check_same(one, one.describe(), "live")
    check_same(one, {}, "live")
    with pytest.raises(TopologyError, match=r"replay --from earliest --as NAME"):
        check_same(two, one.describe(), "live")
    assert one.fingerprint() != two.fingerprint()


names = st.sampled_from(["p", "q", "r"])


@given(
    st.lists(
        st.tuples(st.sets(names, min_size=1, max_size=2), st.sets(st.sampled_from("xyz"), max_size=2)),
        min_size=1,
        max_size=6,
    )
)
def test_components_are_those_of_a_naive_union(agents: list[tuple[set[str], set[str]]]) -> None:
    """Two agents share tasks exactly where a chain of topics and tables leads from one to the other."""
    specs = [
        _spec(f"a{at}", *sorted(topics), tables=tuple(sorted(tables)))
        for at, (topics, tables) in enumerate(agents)
    ]
    topology = _build(*specs)
    reach = [{at} for at in range(len(agents))]
    for _ in agents:
        for at, (topics, tables) in enumerate(agents):
            for other, (other_topics, other_tables) in enumerate(agents):
                if topics & other_topics or tables & other_tables:
                    reach[at] |= reach[other]
                    reach[other] |= reach[at]
    assert [[reader.name for reader in sub.readers] for sub in topology.subs] == [
        [f"a{at}" for at in sorted(component)] for component in sorted({frozenset(r) for r in reach}, key=min)
    ]
    firsts = [sub.first_task for sub in topology.subs]
    assert firsts == [4 * at for at in range(len(firsts))]


def test_an_app_whose_topology_changed_is_refused_before_any_record(tmp_path: Path) -> None:
    """The worker says so with the generation's name, and nothing is committed."""
    place = Place(tmp_path)
    place.append("orders", [1])

    def declare(app: hw.App, *, more: bool) -> None:
        orders = app.topic("orders", value_type=int)

        @app.agent(orders)
        async def one(stream: hw.Stream) -> None:
            async for _ in stream:
                pass

        if more:

            @app.agent(orders.group_by(lambda value: value))
            async def two(stream: hw.Stream) -> None:
                async for _ in stream:
                    pass

    place.run(lambda app: declare(app, more=False))
    before = place.states()
    with pytest.raises(TopologyError, match="'live'"):
        place.run(lambda app: declare(app, more=True))
    assert place.states() == before


def test_a_worker_refuses_topics_of_different_counts_in_one_agent(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.topic("orders", 2)
    place.topic("clicks", 3)

    def declare(app: hw.App) -> None:
        @app.agent(app.topic("orders", "clicks"))
        async def both(stream: hw.Stream) -> None:
            async for _ in stream:
                pass

    with pytest.raises(PartitionCountError, match="clicks has 3, orders has 2"):
        place.run(declare)


def _operator(name: str, *inlets: str | StreamPlan, **more: Any) -> OperatorSpec:
    plans = tuple(inlet if isinstance(inlet, StreamPlan) else StreamPlan((inlet,)) for inlet in inlets)
    return OperatorSpec(name, plans, lambda: None, **{"sinks": (Outlet("end"),), **more})  # type: ignore[arg-type,return-value]


def test_an_operators_results_begin_another_sub_topology_of_the_count_that_is_needed_there() -> None:
    topology = _build(
        _operator("dedupe", "orders", states=("seen",)),
        _operator("join", OUT + "dedupe", "users"),
        _spec("a", OUT + "join"),
        orders=2, users=3,
    )  # fmt: skip
    out, last = "app.live.repartition.dedupe.out", "app.live.repartition.join.out"
    assert [(sub.topics, sub.states, sub.partitions) for sub in topology.subs] == [
        (["orders"], ["dedupe-seen"], 2), ([out, "users"], [], 3), ([last], [], 3),
    ]  # fmt: skip
    assert [sub.sends for sub in topology.subs] == [{out: ("orders",)}, {last: (out, "users")}, {}]
    assert [sub.senders for sub in topology.subs] == [{}, {out: 0}, {last: 1}]
    assert topology.derived == {out, last}


def test_inlets_of_other_counts_are_repartitioned_by_record_key() -> None:
    topology = _build(_operator("join", "orders", "users", "planes"), orders=2, users=6, planes=6)
    assert [(r.name, r.topics, r.sends_to) for sub in topology.subs for r in sub.readers] == [
        ("join.group_by", ("orders",), "app.live.repartition.join.0"),
        ("join", ("app.live.repartition.join.0", "users", "planes"), None),
    ]
    assert topology.subs[0].readers[0].group_by == GroupBy(RECORD_KEY)
    assert topology.repartition_topics == {"app.live.repartition.join.0": 6}


def test_operators_that_lead_nowhere_are_left_out_with_what_only_they_read() -> None:
    topology = _build(
        _operator("one", "orders", sinks=()), _operator("two", OUT + "one", sinks=()), _spec("a", "users")
    )
    assert topology.source_topics == {"users": 4}
    with_late = _build(
        _operator("one", "orders", sinks=()),
        _operator("two", LATE + "one", sinks=()),
        _spec("a", LATE + "two"),
    )
    assert sorted(with_late.repartition_topics) == ["app.live.late.one", "app.live.late.two"]
    assert with_late.late_topics == {}


def test_a_task_that_reads_what_it_sends_waits_for_its_other_inputs_only() -> None:
    """An agent on an operator's results that also looks into the operator's table: one task, and a loop through the log."""
    topology = _build(_operator("fill", "orders", tables=("t",)), _spec("a", OUT + "fill", tables=("t",)))
    out = "app.live.repartition.fill.out"
    [sub] = topology.subs
    assert (sub.topics, sub.partitions, sub.senders) == ([out, "orders"], 4, {out: 0})
    assert sub.sends == {out: ("orders",)}


def test_the_changes_of_a_table_need_somebody_who_makes_them() -> None:
    topology = _build(_spec("a", "orders", tables=("t",)), _operator("sum", CHANGES + "t"))
    assert topology.subs[0].sends == {"app.live.repartition.t.changes": ("orders",)}
    with pytest.raises(TopologyError, match="no agent and no operator fills"):
        _build(_spec("a", "orders"), _operator("sum", CHANGES + "t"))
    with pytest.raises(TopologyError, match=r"no operator 'sun'.*'sum'"):
        _build(_operator("sum", "orders"), _spec("a", OUT + "sun"))


def test_what_every_task_reads_joins_no_tasks() -> None:
    topology = _build(
        _operator("join", "orders", StreamPlan(("planes",), broadcast=True)),
        _operator("other", "users", StreamPlan(("planes",), broadcast=True)),
        orders=2, users=3, planes=5,
    )  # fmt: skip
    assert [(sub.topics, sub.broadcast, sub.partitions) for sub in topology.subs] == [
        (["orders"], ["planes"], 2), (["users"], ["planes"], 3),
    ]  # fmt: skip
    assert topology.source_topics == {"orders": 2, "users": 3, "planes": 5}
