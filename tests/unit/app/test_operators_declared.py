"""Operators on streams and tables as people declare them: what nodes they make, and what is refused with the user's line."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import headwater as hw
from headwater.stream.operator import OperatorSpec
from headwater.stream.plan import CompositeKey, GroupBy, StreamPlan


@pytest.fixture
def app() -> hw.App:
    return hw.App("shop")


class Bid(hw.Record):
    auction: int
    bidder: int
    price: int
    weight: float


class Auction(hw.Record):
    id: int
    price: int


def bids(app: hw.App, **options: Any) -> hw.Topic:
    return app.topic("bids", value_type=Bid, **options)


def spec(app: hw.App, name: str) -> OperatorSpec:
    return app.declared.operators[name]


def count() -> dict[str, Any]:
    return {"n": hw.agg.count()}


def test_a_stream_is_grouped_by_what_its_key_is_without_a_repartition(app: hw.App) -> None:
    topic = bids(app, keyed_by="auction")
    assert topic.group_by("auction").plan == topic.stream().group_by().plan == StreamPlan(("bids",))
    assert topic.group_by("bidder").plan.group_by == GroupBy("bidder")
    assert topic.group_by("auction", partitions=3).plan.group_by == GroupBy("auction", partitions=3)
    # A value that was replaced no longer holds the field that the key was.
    assert topic.stream().map(dict).group_by("auction").plan.group_by == GroupBy("auction")
    twice = topic.group_by("bidder").group_by("bidder")
    assert twice.plan == topic.group_by("bidder").plan


def test_what_is_known_of_values_follows_the_operators(app: hw.App) -> None:
    stream = bids(app).stream()
    assert stream.filter(bool).facts.value_type is Bid
    assert stream.group_by("auction").facts == stream.group_by("auction").filter(bool).facts
    assert stream.group_by("auction").facts.key_type is int
    assert stream.group_by(("auction", "weight")).facts.key_type == tuple[int, float]
    assert stream.group_by(lambda bid: bid.auction, key_type=int).facts.key_type is int
    assert stream.map(dict).facts.value_type is None
    typed = stream.map(lambda bid: Auction(bid.auction, 1), value_type=Auction)
    assert typed.facts.value_type is Auction
    # Behind a group_by values that were replaced are plain JSON; their fields are known all the same.
    assert typed.group_by("id").facts.value_type is None
    assert typed.group_by("id").facts.key_type is int


def test_composite_keys_are_tuples_of_fields_and_functions(app: hw.App) -> None:
    group_by = bids(app).group_by(("auction", Bid.bidder)).plan.group_by
    assert group_by == GroupBy(CompositeKey(("auction", "bidder")))
    assert group_by is not None
    assert group_by.key_of(Bid(1, 2, 3, 0.5)) == (1, 2)
    assert group_by.key_of({"auction": 1, "bidder": 2}) == (1, 2)


def test_an_aggregate_is_a_table_and_a_node_of_its_name(app: hw.App) -> None:
    window = hw.windows.Tumbling(timedelta(minutes=1))
    found = bids(app).group_by("auction").window(window).grace(5).aggregate(name="per", **count())
    assert app.tables["per"] is found
    assert found.windowed
    assert found.key_type is int
    assert spec(app, "per").tables == ("per",)
    assert spec(app, "per").hold_ms == 5_000
    streams = bids(app).stream().aggregate(name="only", keep=False, **count())
    assert "only" not in app.tables
    with pytest.raises(hw.TopologyError, match="keep=False"):
        streams.changes()


def test_results_go_to_topics_without_a_hop(app: hw.App) -> None:
    found = bids(app).stream().aggregate(name="all", **count())
    found.final().filter(bool).to("all-final")
    found.final().to(app.topic("copy"), key="n")
    assert [(sink.topic, len(sink.steps), sink.key) for sink in spec(app, "all").sinks] == [
        ("all-final", 1, None), ("copy", 0, GroupBy("n")),
    ]  # fmt: skip
    assert found.is_read
    bids(app).stream().map(dict).to("dicts").to("again")
    assert [name for name in app.declared.operators if name != "all"] == ["bids-to-dicts", "bids-to-again"]


def test_names_are_made_of_what_is_read_and_done(app: hw.App) -> None:
    topic = app.topic("my.orders")
    topic.stream().dedupe().dedupe("id")
    topic.stream().dedupe(name="mine")
    topic.stream().dedupe()
    assert list(app.declared.operators) == [
        "my-orders-dedupe", "my-orders-dedupe-dedupe", "mine", "my-orders-dedupe-2",
    ]  # fmt: skip


def test_a_global_table_is_joined_without_a_repartition(app: hw.App) -> None:
    airlines = app.GlobalTable("airlines", source=app.topic("airlines"))
    app.topic("flights").stream().join(airlines, on="carrier", name="joined")
    left, right = spec(app, "joined").inlets
    assert left == StreamPlan(("flights",))
    assert right.broadcast


def test_a_join_of_tables_by_foreign_key_is_three_nodes(app: hw.App) -> None:
    orders, customers = app.Table("orders"), app.Table("customers")
    found = orders.join(customers, on="customer", name="both", how="left")
    assert app.tables["both"] is found
    assert list(app.declared.operators) == ["both-split", "both-match", "both"]


def test_a_table_of_windows_takes_the_place_of_the_table(app: hw.App) -> None:
    found = app.Table("hits", default=int).tumbling(60, expires=timedelta(hours=1), grace=3)
    assert app.tables["hits"] is found
    assert found.windowed
    assert spec(app, "hits").inlets == ()
    assert spec(app, "hits").hold_ms == 3_000


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda app: hw.windows.Tumbling(0), "longer than nothing"),
        (lambda app: hw.windows.Hopping(10, 0), "longer than nothing"),
        (lambda app: hw.windows.Hopping(10, 20), "belong to none"),
        (lambda app: hw.windows.Session(-1), "longer than nothing"),
        (lambda app: hw.windows.Count(0), "whole number from 1"),
        (lambda app: hw.windows.Calendar("fortnight"), "is one of hour, day"),
        (lambda app: hw.windows.Calendar("day", "America/Gotham"), "IANA zone"),
        (lambda app: bids(app).stream().window(60), "takes one of headwater.windows"),
        (lambda app: bids(app).stream().window(hw.windows.Tumbling(1)).grace(-1), "not negative"),
        (lambda app: bids(app).stream().aggregate(name="t"), "needs an aggregate"),
        (lambda app: bids(app).stream().aggregate(name="t", n=1), "is one of headwater.agg"),
        (lambda app: bids(app).stream().aggregate(name="t", key=hw.agg.count()), "no aggregate may be named key"),
        (lambda app: bids(app).stream().aggregate(name="t", n=hw.agg.sum("prise")), "Bid has no such"),
        (lambda app: hw.agg.sum(None), "needs a field's name"),
        (lambda app: hw.agg.count(where="price"), "is a function of the value"),  # type: ignore[arg-type]
        (lambda app: hw.agg.aggregate(0, None), "is a function"),  # type: ignore[arg-type]
        (lambda app: bids(app).group_by("prise"), "Bid has no such field"),
        (
            lambda app: bids(app).stream().window(hw.windows.Session(1)).aggregate(
                name="t", n=hw.agg.aggregate(0, lambda acc, bid: acc + 1)),
            "merge= function",
        ),
        (lambda app: bids(app).stream().window(hw.windows.Tumbling(1)).lateness(5), "declares 0 ms"),
        (lambda app: bids(app).stream().aggregate(name="t", expires=5, **count()), "without windows of time"),
        (lambda app: bids(app).stream().top(0, by="price"), "n is a whole number"),
        (lambda app: bids(app).stream().top(3, by="prise"), "Bid has no field"),
        (lambda app: bids(app).stream().top(3, by="price", tie="x"), "did you mean 'ties'"),
        (lambda app: bids(app).stream().dedupe(within=0), "longer than nothing"),
        (lambda app: bids(app).stream().to(5), "takes one topic"),
        (lambda app: bids(app).stream().join(5), "takes a stream, a topic or a table"),
        (lambda app: bids(app).stream().join(app.topic("b"), how="right"), "how is 'inner'"),
        (lambda app: bids(app).stream().join(app.topic("b"), onn="a"), "did you mean 'on'"),
        (lambda app: bids(app).stream().join(app.topic("b"), on=("a", "b", "c")), "composite key is a list"),
        (lambda app: bids(app).stream().join(app.topic("b"), on="auction", reach=5), "goes with a function"),
        (lambda app: bids(app).stream().join(app.Table("t"), on="auction", how="outer"), "'inner' or 'left'"),
        (lambda app: bids(app).stream().join(app.Table("t"), on="auction", tolerance=5), "goes with as_of=True"),
        (
            lambda app: bids(app).stream().join(app.topic("auctions", value_type=Auction), on=("auction", "id")),
            "both sides have price; say what the result is: select=",
        ),
        (
            lambda app: bids(app).stream().join(
                app.topic("auctions", value_type=Auction), on=("weight", "id"), select=lambda b, a: b),
            "keys that are never equal: float on the left, int on the right",
        ),
        (
            lambda app: bids(app).stream().join(
                app.topic("auctions", value_type=Auction), on=(["auction", "bidder"], "id"), select=lambda b, a: b),
            "keys that are never equal",
        ),
        (
            lambda app: app.Table("t").group_by("a").aggregate(name="x", n=hw.agg.last("v")),
            "can't take a row away again",
        ),
        (lambda app: app.Table("t", default=int).tumbling(0), "longer than nothing"),
        (lambda app: app.SetTable("t").tumbling(60), "can't be made a table of windows"),
        (lambda app: app.GlobalTable("t"), "is made of a topic"),
        (
            lambda app: app.topic("x").stream().join(
                bids(app).stream().window(hw.windows.Tumbling(1)).aggregate(name="w", **count()), on="a"),
            "has a row for each window",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused_with_the_users_line(
    app: hw.App, declare: Any, message: str
) -> None:
    with pytest.raises(hw.HeadwaterError, match=message) as caught:
        declare(app)
    assert f"{__file__}:" in str(caught.value)
    assert caught.value.exit_code == 2


def test_operators_with_a_node_are_not_declared_in_an_agents_body(app: hw.App) -> None:
    stream = hw.Stream.recording(app, StreamPlan(("source",)))
    with pytest.raises(hw.TopologyError, match="declare it outside"):
        stream.dedupe()


def test_tables_that_operators_fill_are_not_written_by_anybody_else(app: hw.App) -> None:
    planes = app.topic("planes").stream().table("planes")
    with pytest.raises(hw.ReadOnlyTableError, match="derived from other records"):
        planes["x"] = 1
    with pytest.raises(hw.ReadOnlyTableError, match="test_operators_declared"):
        del planes["x"]


def test_a_name_is_given_once(app: hw.App) -> None:
    bids(app).stream().dedupe(name="once")
    with pytest.raises(hw.TopologyError, match="already"):
        bids(app).stream().dedupe(name="once")
