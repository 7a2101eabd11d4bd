"""Operators by key without windows against naive models: aggregates, rows taken away again, the best n, repeats, upserts."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import KeyRefusedError
from headwater.stream.aggregate import Aggregate
from headwater.stream.fold import Fold
from headwater.stream.plan import CompositeKey
from headwater.stream.relay import Dedupe, Relay, Upsert
from headwater.stream.results import Results
from headwater.stream.running import RunningAggregate
from headwater.stream.top import Ranking, Top, WindowedTop
from headwater.stream.window import Tumbling
from tests.unit.operators.bench import Bench, Row

RESTARTS = st.sets(st.integers(0, 30), max_size=3)
KEYS = st.sampled_from(["a", "b", "[1,2]"])
VALUES = st.one_of(st.integers(-3, 3), st.floats(-1e6, 1e6), st.just(1 << 70))
ROWS = st.lists(
    st.builds(Row, key=KEYS, value=st.fixed_dictionaries({"v": VALUES}), time=st.integers(-5, 60)),
    max_size=30,
)


def results(table: str = "t") -> Results:
    return Results("t", table, None, lambda: True)


@given(rows=ROWS, restarts=RESTARTS)
def test_a_table_has_the_aggregates_of_all_records_so_far(rows: list[Row], restarts: set[int]) -> None:
    aggregates = {
        "n": Aggregate("count"),
        "total": Aggregate("sum", "v", lambda value: value["v"] > 0),
        "first": Aggregate("first", "v"),
        "last": Aggregate("last", "v"),
        "least": Aggregate("first", None, by=CompositeKey(("v",))),
        "different": Aggregate("distinct", "v"),
        "all": Aggregate("collect", "v"),
    }
    bench = Bench(lambda: RunningAggregate(Fold(aggregates), results()))
    by_key: dict[str, list[Any]] = defaultdict(list)
    for number, row in enumerate(rows):
        if number in restarts:
            bench.restart()
        bench.feed(row)
        values = by_key[row.key]
        values.append(row.value["v"])
        total = None
        for v in values:
            if v > 0:
                total = v if total is None else total + v
        assert bench.table("t").get(row.key.encode()) == {
            "n": len(values),
            "total": total,
            "first": values[0],
            "last": values[-1],
            "least": {"v": min(values)},
            "different": len({(type(v), v) for v in values}),
            "all": values,
        }
    bench.advance((1 << 63) - 1)
    shown = {"[1,2]": [1, 2]}
    assert [value["key"] for value in bench.values()] == [
        shown.get(key, key) for key in sorted(by_key, key=str.encode)
    ]


def test_none_is_left_out_and_nothing_gives_none() -> None:
    aggregates = {
        kind: Aggregate(kind, "v")
        for kind in ("count", "sum", "mean", "min", "max", "distinct", "first", "collect")
    }
    bench = Bench(lambda: RunningAggregate(Fold(aggregates), results()))
    bench.feed(Row("a", {"v": None}, 0))
    nothing = dict.fromkeys(aggregates) | {"count": 0, "distinct": 0, "collect": []}
    assert bench.table("t").get(b"a") == nothing


ITEMS = st.lists(
    st.tuples(KEYS, st.sampled_from(["x", "y"]), st.one_of(st.integers(-3, 3), st.floats(-1e6, 1e6))),
    max_size=30,
)


@given(items=ITEMS, deletes=st.sets(st.integers(0, 29)), restarts=RESTARTS)
def test_rows_that_change_or_go_leave_nothing_behind(
    items: list[tuple[str, str, Any]], deletes: set[int], restarts: set[int]
) -> None:
    aggregates = {
        "n": Aggregate("count"),
        "total": Aggregate("sum", "v"),
        "mean": Aggregate("mean", "v"),
        "least": Aggregate("min", "v"),
        "most": Aggregate("max", "v"),
        "different": Aggregate("distinct", "v"),
    }
    bench = Bench(lambda: RunningAggregate(Fold(aggregates, retracts=True), results(), retracts=True))
    table: dict[str, Any] = {}
    for number, (key, group, v) in enumerate(items):
        if number in restarts:
            bench.restart()
        old = table.get(key)
        new = None if number in deletes else {"group": group, "v": v}
        if new is None:
            table.pop(key, None)
        else:
            table[key] = new
        if old is not None and new is not None and old["group"] == new["group"]:
            bench.feed(Row(group, [old, new], 0))
        else:
            if old is not None:
                bench.feed(Row(old["group"], [old, None], 0))
            if new is not None:
                bench.feed(Row(group, [None, new], 0))
    model = {}
    for group in {row["group"] for row in table.values()}:
        values = [row["v"] for row in table.values() if row["group"] == group]
        exact = sum(map(Fraction, values))
        whole = all(isinstance(v, int) for v in values)
        model[group.encode()] = {
            "n": len(values),
            "total": int(exact) if whole else float(exact),
            "mean": float(exact / len(values)),
            "least": min(values),
            "most": max(values),
            "different": len({(type(v), v) for v in values}),
        }
    assert bench.table("t").rows == model
    assert bench.state("groups").rows.keys() == {group + b"\0\0" for group in model}


TOPS = st.lists(
    st.builds(
        Row,
        key=st.sampled_from(["a", "b"]),
        value=st.fixed_dictionaries(
            {"v": st.integers(0, 4), "w": st.integers(0, 3), "n": st.uuids().map(str)}
        ),
        time=st.integers(0, 40),
    ),
    max_size=30,
)


def best(rows: list[Row], n: int, *, descending: bool, keep_ties: bool) -> list[dict[str, Any]]:
    """The best rows with their ranks, by sorting all."""
    sign = -1 if descending else 1
    ordered = sorted(rows, key=lambda row: (sign * row.value["v"], row.value["w"]))
    ranks = [
        1 + sum(sign * other.value["v"] < sign * row.value["v"] for other in rows) if keep_ties else place
        for place, row in enumerate(ordered, 1)
    ]
    return [{**row.value, "rank": rank} for row, rank in zip(ordered, ranks, strict=True) if rank <= n]


@given(rows=TOPS, n=st.integers(1, 4), descending=st.booleans(), keep_ties=st.booleans(), restarts=RESTARTS)
def test_the_best_are_the_first_of_all_sorted(
    rows: list[Row], n: int, descending: bool, keep_ties: bool, restarts: set[int]
) -> None:
    ranking = Ranking(n, "v", ties="w", descending=descending, keep_ties=keep_ties)
    bench = Bench(lambda: Top(ranking, results()))
    for number, row in enumerate(rows):
        if number in restarts:
            bench.restart()
        bench.feed(row)
        for key in ("a", "b"):
            wanted = best(
                [r for r in rows[: number + 1] if r.key == key], n, descending=descending, keep_ties=keep_ties
            )
            found = [v for k, v in bench.table("t").scan(f'["{key}",'.encode())]
            assert sorted(found, key=str) == sorted(wanted, key=str)
    bench.advance((1 << 63) - 1)
    assert [{k: v for k, v in value.items() if k != "key"} for value in bench.values()] == [
        row
        for key in ("a", "b")
        for row in best([r for r in rows if r.key == key], n, descending=descending, keep_ties=keep_ties)
    ]


@given(rows=TOPS, n=st.integers(1, 3), keep_ties=st.booleans(), restarts=RESTARTS)
def test_the_best_of_a_window_come_by_rank_when_it_closes(
    rows: list[Row], n: int, keep_ties: bool, restarts: set[int]
) -> None:
    ranking = Ranking(n, "v", ties="w", keep_ties=keep_ties)
    bench = Bench(lambda: WindowedTop(Tumbling(0.01), ranking, results()), lateness=100)
    bench.run(rows, restarts)
    model = [
        {"key": key, "start": start, "end": start + 10, **row}
        for start in range(0, 50, 10)
        for key in ("a", "b")
        for row in best(
            [r for r in rows if r.key == key and start <= r.time < start + 10],
            n,
            descending=True,
            keep_ties=keep_ties,
        )
    ]
    assert bench.values() == model
    assert len(bench.windows()) == len(model)
    assert all(final for _, final in bench.windows().values())
    assert not bench.state("groups").rows


@given(rows=ROWS, restarts=RESTARTS)
def test_the_first_of_each_key_is_kept_for_ever(rows: list[Row], restarts: set[int]) -> None:
    bench = Bench(lambda: Dedupe("d", None))
    bench.run(rows, restarts)
    first = {row.key: row for row in reversed(rows)}
    assert [key for key, _, _ in bench.emitted] == [row.key.encode() for row in rows if first[row.key] is row]


@given(rows=ROWS, lateness=st.sampled_from([0, 100]), restarts=RESTARTS)
def test_a_repeat_is_one_within_reach_of_the_last_one_kept(
    rows: list[Row], lateness: int, restarts: set[int]
) -> None:
    within = 10
    bench = Bench(lambda: Dedupe("d", within), lateness)
    seen = bench.run(rows, restarts)
    last: dict[str, int] = {}
    kept = []
    for one in seen:
        row, before = one.row, last.get(one.row.key)
        if before is not None and before + within < one.own:
            before = None
        if before is not None and abs(row.time - before) <= within:
            continue
        kept.append((row.key.encode(), row.time))
        last[row.key] = row.time if before is None else max(before, row.time)
    assert [(key, time) for key, _, time in bench.emitted] == kept


@given(rows=st.lists(st.builds(Row, key=KEYS, value=VALUES, time=st.integers(0, 1000)), max_size=50))
def test_what_can_not_be_repeated_in_time_leaves_the_state(rows: list[Row]) -> None:
    bench = Bench(lambda: Dedupe("d", 10))
    bench.run(rows, drain=False)
    assert all(time + 10 >= bench.watermark for _, time in bench.state("seen").scan())


@given(rows=st.lists(st.builds(Row, key=KEYS, value=st.none() | st.integers(), time=st.just(0)), max_size=20))
def test_an_upserted_table_has_the_latest_of_each_key(rows: list[Row]) -> None:
    bench = Bench(lambda: Upsert("t"))
    bench.run(rows)
    latest = {row.key.encode(): row.value for row in rows}
    assert bench.table("t").rows == {key: value for key, value in latest.items() if value is not None}


@pytest.mark.parametrize(
    "operator", [Upsert("t"), Dedupe("d", None), RunningAggregate(Fold({"n": Aggregate("count")}), results())]
)
def test_a_record_without_key_is_refused_where_a_key_is_needed(operator: Any) -> None:
    operator.open(Bench(lambda: operator))
    with pytest.raises(KeyRefusedError, match="has none"):
        operator.process(0, None, 1, 0, 0)


def test_a_relay_passes_on_what_comes_as_it_is() -> None:
    bench = Bench(Relay)
    bench.run([Row("a", 1, 5), Row("b", None, 3)])
    assert bench.emitted == [(b"a", 1, 5), (b"b", None, 3)]
