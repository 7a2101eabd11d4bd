"""Operators in real workers, over several partitions and restarts, against plain loops over the same records."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import headwater as hw
from headwater.core.partitioner import partition_of
from headwater.engine.control import Control
from headwater.engine.history import dump_table
from headwater.engine.run import RunOptions
from tests.unit.engine.runs import Declare, Place

Record = tuple[str, dict[str, Any], int]


def records(count: int, *, seed: int, disorder_ms: int = 0) -> list[Record]:
    """Return (key, value, event time) of bids, in the order in which they are sent."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        value = {
            "id": number,
            "auction": chance.randrange(6),
            "bidder": chance.randrange(9),
            "price": chance.randrange(100),
        }
        found.append(
            (str(chance.randrange(20)), value, 1_000_000 + number * 50 - chance.randrange(disorder_ms + 1))
        )
    return found


def send(place: Place, topic: str, sent: Iterable[tuple[str, Any, int]], partitions: int = 2) -> None:
    by_partition: dict[int, list[tuple[str, Any, int]]] = defaultdict(list)
    for record in sent:
        by_partition[partition_of(record[0].encode(), partitions)].append(record)
    for partition, mine in sorted(by_partition.items()):
        place.append(
            topic, [value for _, value, _ in mine], keys=[key.encode() for key, _, _ in mine], partition=partition,
            times=[time for _, _, time in mine], partitions=partitions,
        )  # fmt: skip


def run(place: Place, declare: Declare, parts: list[list[tuple[str, list[Any]]]]) -> None:
    """Send some and run a worker until idle, again and again; after the last everything is closed."""
    for number, sends in enumerate(parts, 1):
        for topic, sent in sends:
            send(place, topic, sent)
        options = RunOptions(until_idle=True, drain=number == len(parts))
        place.run(declare, options=options, partitions=2)


def rows(place: Place, table: str) -> list[dict[str, Any]]:
    live = Control(place.log, place.archive, "app").generation("live")
    return [json.loads(line) for line in dump_table(place.log, place.archive, "app", live, table)]


def output(place: Place, topic: str) -> list[Any]:
    return [value for partition in range(2) for value in place.values(topic, partition)]


def no_dead(place: Place) -> bool:
    return place.log.topic("app.live.dead") is None or not place.dead()


def halves(sent: list[Any]) -> tuple[list[Any], list[Any]]:
    return sent[: len(sent) // 2], sent[len(sent) // 2 :]


def test_windows_behind_repeats_and_a_second_group_by_are_what_a_loop_gives(tmp_path: Path) -> None:
    sent = records(400, seed=1, disorder_ms=900)
    sent += [(key, value, time + 10) for key, value, time in sent[::7]]
    sent.sort(key=lambda record: record[2] // 1000)

    def declare(app: hw.App) -> None:
        bids = app.topic("bids", lateness=10)
        once = bids.stream().dedupe("id")
        per = once.group_by("auction").window(hw.windows.Tumbling(1)).aggregate(
            name="per", n=hw.agg.count(), total=hw.agg.sum("price"), bidders=hw.agg.distinct("bidder")
        )  # fmt: skip
        per.final().to("per-final")
        # Per window the auctions with most bids, ties kept: all of a window at one place.
        best = (
            per.final()
            .group_by("start")
            .window(hw.windows.Tumbling(1))
            .top(1, by="n", keep_ties=True, name="best")
        )
        best.final().map(lambda row: {"start": row["start"], "auction": row["key"], "n": row["n"]}).to("hot")

    place = Place(tmp_path)
    first, second = halves(sent)
    run(place, declare, [[("bids", first)], [("bids", second)]])
    windows: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    seen = set()
    for _, value, time in sent:
        if value["id"] not in seen:
            seen.add(value["id"])
            windows[value["auction"], time // 1000 * 1000].append(value)
    model = [
        {"key": str(auction), "start": start, "end": start + 1000, "n": len(of), "total": sum(b["price"] for b in of),
         "bidders": len({b["bidder"] for b in of})}
        for (auction, start), of in windows.items()
    ]  # fmt: skip
    assert sorted(output(place, "per-final"), key=str) == sorted(model, key=str)
    assert [(row["key"], row["start"], row["final"]) for row in rows(place, "per")] == sorted(
        (row["key"], row["start"], True) for row in model
    )
    most: dict[int, int] = defaultdict(int)
    for row in model:
        most[row["start"]] = max(most[row["start"]], row["n"])
    hot = [
        {"start": r["start"], "auction": r["key"], "n": r["n"]} for r in model if r["n"] == most[r["start"]]
    ]
    assert sorted(output(place, "hot"), key=str) == sorted(hot, key=str)
    assert no_dead(place)


def test_faust_tables_of_windows_are_as_aggregates_are(tmp_path: Path) -> None:
    sent = records(300, seed=2, disorder_ms=2000)
    failing = {value["id"] for _, value, _ in sent[10::50]}

    def declare(app: hw.App) -> None:
        bids = app.topic("bids", lateness=0.2)
        window = hw.windows.Hopping(1, 0.5)
        mine = app.Table("mine", default=int).hopping(1, 0.5, grace=0.1)
        kept = bids.stream().filter(lambda bid: bid["id"] not in failing)
        theirs = kept.group_by("auction").window(window).grace(0.1).aggregate(name="theirs", n=hw.agg.count())

        @app.agent(bids.group_by("auction"), retries=0)
        async def count(stream: Any) -> None:
            async for bid in stream:
                before = mine[bid["auction"]].current()
                mine[bid["auction"]] += 1
                if bid["id"] in failing:
                    raise ValueError("not this one")
                assert mine[bid["auction"]].current() in (before, before + 1)

        mine.final().to("mine-final")
        theirs.final().to("theirs-final")
        mine.late().filter(lambda bid: bid["id"] not in failing).to("mine-late")
        theirs.late().to("theirs-late")

    place = Place(tmp_path)
    first, second = halves(sent)
    run(place, declare, [[("bids", first)], [("bids", second)]])
    assert [{**row, "value": {"n": row["value"]}} for row in rows(place, "mine")] == rows(place, "theirs")
    assert len(rows(place, "mine")) > 50
    renamed = [
        {("n" if k == "value" else k): v for k, v in row.items()} for row in output(place, "mine-final")
    ]
    assert sorted(renamed, key=str) == sorted(output(place, "theirs-final"), key=str)
    assert sorted(output(place, "mine-late"), key=str) == sorted(output(place, "theirs-late"), key=str)
    assert output(place, "theirs-late")
    assert len(place.dead()) == len(failing)


def test_joins_of_streams_and_tables_are_what_a_loop_gives(tmp_path: Path) -> None:
    chance = random.Random(3)
    bids = records(300, seed=3)
    auctions = [
        (
            f"a{number}",
            {"id": number % 6, "round": number, "until": 1_000_000 + number * 700 + 1500},
            1_000_000 + number * 700,
        )
        for number in range(20)
    ]
    people = [
        (
            str(chance.randrange(9)),
            None if chance.random() < 0.2 else {"name": f"n{number}"},
            1_000_000 + number * 300,
        )
        for number in range(50)
    ]

    def declare(app: hw.App) -> None:
        bid, auction = app.topic("bids", lateness=1), app.topic("auctions", lateness=1)
        person = app.topic("people", lateness=1).stream().table("people")
        auction.stream().join(
            bid, on=("id", "auction"), within=lambda a: (a["until"] - 1500, a["until"]), how="left",
            select=lambda a, b: [a["round"], b and b["id"]],
        ).to("paired")  # fmt: skip
        bid.stream().join(
            person,
            on="bidder",
            as_of=True,
            how="left",
            tolerance=6,
            select=lambda b, p: [b["id"], p and p["name"]],
        ).to("named")

    place = Place(tmp_path)
    parts = [halves(sent) for sent in (bids, auctions, people)]
    # The other side is ahead in the first run and behind in the second.
    run(
        place,
        declare,
        [[("bids", parts[0][0]), ("auctions", auctions), ("people", people)], [("bids", parts[0][1])]],
    )
    paired = [
        [a["round"], b["id"]] for _, a, _ in auctions for _, b, time in bids
        if a["id"] == b["auction"] and a["until"] - 1500 <= time <= a["until"]
    ]  # fmt: skip
    there = {number for number, _ in paired}
    paired += [[a["round"], None] for _, a, _ in auctions if a["round"] not in there]
    assert sorted(output(place, "paired"), key=str) == sorted(paired, key=str)
    named = []
    for _, bid, time in bids:
        versions = [
            (at, n, row)
            for n, (key, row, at) in enumerate(people)
            if key == str(bid["bidder"]) and at <= time
        ]
        at, _, row = max(versions, default=(0, 0, None), key=lambda version: version[:2])
        named.append([bid["id"], row["name"] if row is not None and time - at <= 6000 else None])
    assert sorted(output(place, "named")) == sorted(named)
    assert no_dead(place)


def test_tables_joined_and_aggregated_follow_their_sources(tmp_path: Path) -> None:
    chance = random.Random(4)
    status: list[Any] = [
        (f"f{chance.randrange(15)}", None if chance.random() < 0.2 else {"carrier": f"c{chance.randrange(4)}", "delay": chance.random()},
         1_000_000 + number * 100)
        for number in range(200)
    ]  # fmt: skip
    carriers = [
        (f"c{chance.randrange(4)}", {"name": f"n{number}"}, 1_000_000 + number * 900) for number in range(20)
    ]

    def declare(app: hw.App) -> None:
        flights = app.topic("status").stream().table("flights")
        names = app.topic("carriers").stream().table("carriers")
        flights.group_by("carrier").aggregate(
            name="by_carrier", n=hw.agg.count(), delay=hw.agg.sum("delay"), most=hw.agg.max("delay")
        )
        flights.join(
            names, on="carrier", how="left", name="named", select=lambda f, c: [f["carrier"], c and c["name"]]
        )
        flights.join(names, how="outer", name="both", select=lambda f, c: [f is not None, c is not None])

        @app.agent(flights.changes(), name="watch", sink=[app.topic("changes")])
        async def watch(stream: Any) -> Any:
            async for change in stream:
                yield [change["key"], change["old"], change["new"]]

    place = Place(tmp_path)
    first, second = halves(status)
    run(place, declare, [[("status", first), ("carriers", carriers)], [("status", second)]])
    flights = {key: row for key, row, _ in status}
    left = {key: row for key, row in flights.items() if row is not None}
    names = {key: row["name"] for key, row, _ in carriers}
    assert {row["key"]: row["value"] for row in rows(place, "flights")} == left
    assert {row["key"]: row["value"] for row in rows(place, "named")} == {
        key: [row["carrier"], names.get(row["carrier"])] for key, row in left.items()
    }
    assert {row["key"]: row["value"] for row in rows(place, "both")} == {
        **{key: [True, False] for key in left}, **{key: [False, True] for key in names}
    }  # fmt: skip
    groups: dict[str, list[float]] = defaultdict(list)
    for row in left.values():
        groups[row["carrier"]].append(row["delay"])
    found = {row["key"]: row["value"] for row in rows(place, "by_carrier")}
    assert found.keys() == groups.keys()
    for carrier, delays in groups.items():
        assert found[carrier]["n"] == len(delays)
        assert found[carrier]["most"] == max(delays)
        assert abs(found[carrier]["delay"] - sum(delays)) < 1e-12
    changed: dict[str, Any] = {}
    for key, old, new in output(place, "changes"):
        assert changed.get(key) == old
        changed[key] = new
    assert {key: row for key, row in changed.items() if row is not None} == left
    assert no_dead(place)


def test_an_agents_body_maps_and_flattens_its_stream(tmp_path: Path) -> None:
    def declare(app: hw.App) -> None:
        declared = app.topic("bids").stream().flat_map(lambda bid: [bid["price"], -1])

        @app.agent(declared, sink=[app.topic("declared")])
        async def by_plan(stream: Any) -> Any:
            async for value in stream.map(lambda price: price + 1):
                yield value

        @app.agent(app.topic("bids"), sink=[app.topic("lists")])
        async def in_lists(stream: Any) -> Any:
            async for values in stream.flat_map(lambda bid: range(bid["price"] % 3)).take(2):
                yield values

    place = Place(tmp_path)
    place.append("bids", [{"price": price} for price in (4, 5, 3)])
    place.run(declare, options=RunOptions(until_idle=True))
    assert place.values("declared") == [5, 0, 6, 0, 4, 0]
    assert place.values("lists") == [[0, 0, 1]]


class Bid(hw.Record):
    id: int
    auction: int
    bidder: int
    price: int


def test_typed_values_stay_what_they_are_through_joins_and_tables(tmp_path: Path) -> None:
    sent = records(120, seed=6)
    names = [(str(bidder), {"name": f"n{bidder}"}, 1_000) for bidder in range(6)]
    rates = [(str(number % 2), {"rate": number}, 1_000_000 + number * 400) for number in range(15)]

    class Name(hw.Record):
        name: str

    def declare(app: hw.App) -> None:
        bids = app.topic("bids", value_type=Bid, lateness=1)
        everywhere = app.GlobalTable("names", source=app.topic("names", value_type=Name))
        bids.stream().filter(lambda bid: bid.price > 10).join(everywhere, on="bidder", how="left").to("named")
        once = bids.stream().dedupe("auction")
        once.join(everywhere, on="bidder", select=lambda bid, name: {"id": bid.id, "name": name.name}).to(
            "once"
        )
        # A table that an agent writes: its changes are what is looked back on.
        latest = app.Table("latest", value_type=int)

        @app.agent(app.topic("rates", lateness=1))
        async def keep(stream: Any) -> None:
            async for key, value in stream.items():
                latest[key] = value["rate"]

        bids.stream().join(
            latest, on=lambda bid: bid.id % 2, as_of=True, how="left", select=lambda bid, rate: [bid.id, rate]
        ).to("rated")

    place = Place(tmp_path)
    first, second = halves(sent)
    run(place, declare, [[("names", names), ("rates", rates), ("bids", first)], [("bids", second)]])
    named = [
        {**bid, **({"name": f"n{bid['bidder']}"} if bid["bidder"] < 6 else {})}
        for _, bid, _ in sent
        if bid["price"] > 10
    ]
    assert sorted(output(place, "named"), key=str) == sorted(named, key=str)
    rated = []
    for _, bid, time in sent:
        found = [row["rate"] for key, row, at in rates if key == str(bid["id"] % 2) and at <= time]
        rated.append([bid["id"], max(found, default=None)])
    assert sorted(output(place, "rated"), key=str) == sorted(rated, key=str)
    assert {row["id"] for row in output(place, "once")} <= {bid["id"] for _, bid, _ in sent}
    assert all(row["name"].startswith("n") for row in output(place, "once"))
    assert no_dead(place)


def test_an_agent_that_reads_a_global_table_of_several_partitions_is_told_to_join(tmp_path: Path) -> None:
    def declare(app: hw.App) -> None:
        names = app.GlobalTable("names", source=app.topic("names"))

        @app.agent(app.topic("bids"), sink=[app.topic("named")])
        async def name(stream: Any) -> Any:
            async for bid in stream:
                yield names.get(str(bid["bidder"]), "nobody")

    place = Place(tmp_path)
    names = [(str(bidder), {"name": f"n{bidder}"}, 1_000) for bidder in range(9)]
    run(place, declare, [[("names", names), ("bids", records(10, seed=2))]])
    letters = place.dead()
    assert len(letters) == 10
    assert "join the stream with it" in str(letters[0])
