"""Topology: what shares tasks, what goes in lock step, where a group_by splits, and how things are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headwater as hw
from headwater.core.errors import PartitionCountError, TopologyError
from headwater.engine.topology import AgentSpec, Topology, build_topology, check_same
from headwater.stream.plan import GroupBy, StreamPlan
from tests.unit.engine.runs import Place


def _counts(**partitions: int) -> Callable[[str], int]:
    return lambda topic: partitions.get(topic, 4)


def _build(*specs: AgentSpec, **partitions: int) -> Topology:
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


def test_a_grouped_stream_may_share_a_table_with_a_topic_of_that_count_only() -> None:
    specs = (_spec("a", "orders", tables=("t",), by=GroupBy("user")), _spec("b", "users", tables=("t",)))
    topology = _build(*specs, orders=2, users=2)
    assert [sub.topics for sub in topology.subs] == [["orders"], ["app.live.repartition.a.0", "users"]]
    with pytest.raises(PartitionCountError, match="users has 3"):
        _build(*specs, orders=2, users=3)


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
