"""Joins against what SQL would give over the same records: any order of arrival, started anew anywhere."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import ValueRefusedError
from headwater.stream.as_of_join import AsOfJoin
from headwater.stream.interval_join import IntervalJoin, JoinRule, Range
from headwater.stream.kept import Kept, reviver
from headwater.stream.operator import END_OF_TIME
from headwater.stream.table_join import (
    ForeignCollect,
    ForeignMatch,
    ForeignSplit,
    GlobalLookup,
    Lookup,
    TableJoin,
    TableJoinRule,
)
from tests.unit.operators.bench import Bench, Row

RESTARTS = st.sets(st.integers(0, 30), max_size=3)
KEYS = st.sampled_from(["a", "b", "a\x00"])


def numbered(rows: list[Row]) -> list[Row]:
    """Give each record a value of its own."""
    return [Row(r.key, {"id": n, "for": r.value}, r.time, r.inlet, r.channel) for n, r in enumerate(rows)]


SIDES = st.lists(
    st.builds(Row, key=KEYS, value=st.integers(0, 9), time=st.integers(-5, 40), inlet=st.integers(0, 1)),
    max_size=30,
).map(numbered)


def pair(left: Any, right: Any) -> list[Any]:
    return [left and left["id"], right and right["id"]]


def plain(value: Any) -> Any:
    return value


RANGES = [
    (Range(True, 5, 5), lambda left: (left.time - 5, left.time + 5)),
    (Range(True, 0, 8), lambda left: (left.time, left.time + 8)),
    (Range(True, 8, 0), lambda left: (left.time - 8, left.time)),
    (
        Range(True, of=lambda value: (value["from"], value["from"] + value["for"]), reach_ms=2),
        lambda left: (left.time - 2, left.time - 2 + left.value["for"]),
    ),
    (Range(), lambda left: (-(1 << 62), 1 << 62)),
]


@given(
    ranges=st.sampled_from(RANGES),
    how=st.sampled_from(["inner", "left", "outer"]),
    rows=SIDES,
    grace=st.sampled_from([0, 3]),
    lateness=st.sampled_from([0, 5, 100]),
    restarts=RESTARTS,
)
def test_an_interval_join_gives_each_pair_once_and_what_is_alone(
    ranges: Any, how: str, rows: list[Row], grace: int, lateness: int, restarts: set[int]
) -> None:
    span, bounds = ranges
    rule = JoinRule(
        "j",
        span,
        how != "inner",
        how == "outer",
        pair,
        lambda left, right: (left["id"] + right["id"]) % 5,
        grace,
    )
    rows = [Row(r.key, {**r.value, "from": r.time - 2}, r.time, r.inlet) for r in rows]
    bench = Bench(lambda: IntervalJoin(rule, Kept(), Kept()), lateness)
    seen = bench.run(rows, restarts)
    late = [one.row for one in seen if span.bounded and one.row.time + grace < max(one.own, one.task)]
    assert bench.lates == late
    rest = [one.row for one in seen if one.row not in late]
    lefts, rights = [r for r in rest if not r.inlet], [r for r in rest if r.inlet]
    pairs = [
        (left, right)
        for left in lefts
        for right in rights
        if left.key == right.key
        and bounds(left)[0] <= right.time <= bounds(left)[1]
        and (left.value["id"] + right.value["id"]) % 5
    ]
    wanted = [([left.value["id"], right.value["id"]], max(left.time, right.time)) for left, right in pairs]
    if how != "inner":
        wanted += [
            ([left.value["id"], None], max(left.time, bounds(left)[1]) if span.of else left.time)
            for left in lefts
            if left not in [one for one, _ in pairs]
        ]
    if how == "outer":
        wanted += [
            ([None, right.value["id"]], right.time)
            for right in rights
            if right not in [one for _, one in pairs]
        ]
    assert sorted(map(str, [(value, time) for _, value, time in bench.emitted])) == sorted(map(str, wanted))
    if span.bounded:
        assert [key for key in bench.state("rows").rows if key[:1] in b"LR"] == []


def test_records_leave_once_no_partner_in_time_can_come() -> None:
    rule = JoinRule("j", Range(True, 5, 8), False, False, pair)
    bench = Bench(lambda: IntervalJoin(rule, Kept(), Kept()))
    for time in range(0, 1000, 2):
        bench.feed(Row("a", {"id": time}, time, 0))
        bench.feed(Row("a", {"id": time}, time + 1, 1))
        assert len(bench.state("rows").rows) < 20


@pytest.mark.parametrize(
    ("found", "message"),
    [((0, 5), "give the join reach="), (7, "gives the first and the last"), (("a", "b"), "gives")],
)
def test_a_range_that_begins_too_early_or_is_none_is_an_error(found: Any, message: str) -> None:
    rule = JoinRule("j", Range(True, of=lambda _: found), False, False, pair)
    bench = Bench(lambda: IntervalJoin(rule, Kept(), Kept()))
    with pytest.raises(ValueRefusedError, match=message):
        bench.feed(Row("a", {"id": 1}, 3))
    assert not bench.state("rows").rows


TABLE_ROWS = st.lists(
    st.builds(
        Row, key=KEYS, value=st.none() | st.integers(0, 9), time=st.integers(-5, 40), inlet=st.integers(0, 1)
    ),
    max_size=30,
)


@given(rows=TABLE_ROWS, tolerance=st.sampled_from([None, 0, 4]), alone=st.booleans(), restarts=RESTARTS)
def test_as_of_takes_the_latest_row_that_is_not_younger(
    rows: list[Row], tolerance: int | None, alone: bool, restarts: set[int]
) -> None:
    """With a lateness beyond all disorder it is SQL's ASOF JOIN; of rows of one time the last to come counts."""
    rows = [r if r.inlet or r.value is not None else Row(r.key, 0, r.time) for r in rows]
    bench = Bench(
        lambda: AsOfJoin(
            "j", lambda one, two: [one, two], (Kept(), Kept()), left_alone=alone, tolerance_ms=tolerance
        ),
        lateness=100,
    )
    bench.run(rows, restarts)
    wanted = []
    for row in rows:
        if row.inlet:
            continue
        versions = [
            (v.time, n, v.value)
            for n, v in enumerate(rows)
            if v.inlet and v.key == row.key and v.time <= row.time
        ]
        time, _, value = max(versions, default=(0, 0, None), key=lambda version: version[:2])
        if value is not None and tolerance is not None and row.time - time > tolerance:
            value = None
        if value is not None or alone:
            wanted.append((row.key.encode(), [row.value, value], row.time))
    assert sorted(bench.emitted, key=str) == sorted(wanted, key=str)
    assert [time for _, _, time in bench.emitted] == sorted(time for _, _, time in bench.emitted)
    assert bench.lates == []


@given(rows=TABLE_ROWS, lateness=st.sampled_from([0, 6]), restarts=RESTARTS)
def test_as_of_does_not_hang_on_which_side_is_ahead(
    rows: list[Row], lateness: int, restarts: set[int]
) -> None:
    """Both sides are judged by their own order alone: however they interleave, the answers are the same."""
    rows = [r if r.inlet or r.value is not None else Row(r.key, 0, r.time) for r in rows]

    def answers(order: list[Row]) -> Any:
        bench = Bench(
            lambda: AsOfJoin("j", lambda one, two: [one, two], (Kept(), Kept()), left_alone=True), lateness
        )
        # Both sides are there from the start, so that neither is waited for in vain.
        bench.clocks = {(0, 0): -1000, (1, 0): -1000}
        bench.run(order, restarts)
        return sorted(bench.emitted, key=str), sorted(map(str, bench.lates))

    left, right = [r for r in rows if not r.inlet], [r for r in rows if r.inlet]
    assert answers(rows) == answers(left + right) == answers(right + left)


def test_as_of_keeps_of_each_key_what_can_still_be_meant() -> None:
    bench = Bench(lambda: AsOfJoin("j", pair, (Kept(), Kept()), left_alone=True))
    for time in range(0, 1000, 2):
        bench.feed(Row("a", {"id": time}, time, 1))
        bench.feed(Row("b", {"id": time}, time + 1, 0))
        assert len(bench.state("rows").rows) < 10


@given(rows=TABLE_ROWS, alone=st.booleans(), restarts=RESTARTS)
def test_a_lookup_gives_the_row_as_it_stands(rows: list[Row], alone: bool, restarts: set[int]) -> None:
    rows = [r if r.inlet or r.value is not None else Row(r.key, 0, r.time) for r in rows]
    whole = Bench(lambda: GlobalLookup("t", lambda one, two: [one, two], Kept(), left_alone=alone))
    whole.run(rows, restarts)
    bench = Bench(lambda: Lookup("t", lambda one, two: [one, two], left_alone=alone))
    table: dict[str, Any] = {}
    wanted = []
    for row in rows:
        if row.inlet:
            table[row.key] = row.value
            if row.value is None:
                bench.table("t").delete(row.key.encode())
            else:
                bench.table("t").put(row.key.encode(), row.value)
        else:
            bench.feed(row)
            if table.get(row.key) is not None or alone:
                wanted.append((row.key.encode(), [row.value, table.get(row.key)], row.time))
    assert bench.emitted == wanted
    assert whole.emitted == wanted


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from("abc"),
        st.none() | st.tuples(st.integers(0, 9), st.sampled_from("xyz?")),
    ),
    max_size=30,
)


def as_row(value: Any) -> Any:
    return None if value is None else {"v": value[0], "fk": None if value[1] == "?" else value[1]}


@given(how=st.sampled_from(["inner", "left", "outer"]), changes=CHANGES, restarts=RESTARTS)
def test_tables_joined_by_key_follow_both(how: str, changes: list[Any], restarts: set[int]) -> None:
    rule = TableJoinRule("j", "t", how != "inner", how == "outer", lambda one, two: [one, two])
    bench = Bench(lambda: TableJoin(rule, (reviver(None), reviver(None))))
    sides: list[dict[str, Any]] = [{}, {}]
    for number, (side, key, value) in enumerate(changes):
        if number in restarts:
            bench.restart()
        new, old = as_row(value), sides[side].get(key)
        sides[side] = {k: v for k, v in {**sides[side], key: new}.items() if v is not None}
        bench.feed(Row(key, {"key": key, "old": old, "new": new}, 0, side))
        left, right = sides
        keys = {
            "inner": left.keys() & right.keys(),
            "left": left.keys(),
            "outer": left.keys() | right.keys(),
        }[how]
        assert bench.table("t").rows == {k.encode(): [left.get(k), right.get(k)] for k in keys}


@given(
    how=st.sampled_from(["inner", "left"]),
    changes=CHANGES,
    schedule=st.lists(st.integers(0, 5), max_size=200),
    restarts=RESTARTS,
)
def test_tables_joined_by_foreign_key_end_as_sql_says_however_tasks_interleave(
    how: str, changes: list[Any], schedule: list[int], restarts: set[int]
) -> None:
    """Each foreign key has a task of its own, and what is under way between tasks is delivered in any order of channels."""
    rule = TableJoinRule("j", "t", how != "inner", False, lambda one, two: [one, two])
    none = reviver(None)
    split = Bench(lambda: ForeignSplit(lambda row: row["fk"], none))
    matches: dict[bytes, Bench] = defaultdict(lambda: Bench(lambda: ForeignMatch(rule, (none, none))))
    collect = Bench(lambda: ForeignCollect("t"))
    channels: dict[tuple[str, bytes], list[Any]] = defaultdict(list)
    sides: list[dict[str, Any]] = [{}, {}]

    def give_on(bench: Bench, stage: str, source: bytes) -> None:
        for key, value, _ in bench.emitted:
            assert key is not None
            channels[stage, key if stage == "match" else source].append((key, value))
        bench.emitted = []

    def deliver(channel: tuple[str, bytes]) -> None:
        key, value = channels[channel].pop(0)
        bench = matches[key] if channel[0] == "match" else collect
        bench.feed(Row(key.decode(), value, 0, 0))
        give_on(bench, "collect", key)

    order = iter(schedule)
    for number, (side, key, value) in enumerate(changes):
        if number in restarts:
            for bench in (split, collect, *matches.values()):
                bench.restart()
        name = key if side == 0 else "xyz"["abc".index(key)]
        new, old = as_row(value), sides[side].get(name)
        sides[side] = {k: v for k, v in {**sides[side], name: new}.items() if v is not None}
        change = {"key": name, "old": old, "new": new}
        if side == 0:
            split.feed(Row(name, change, 0, 0))
            give_on(split, "match", b"")
        else:
            matches[name.encode()].feed(Row(name, change, 0, 1))
            give_on(matches[name.encode()], "collect", name.encode())
        for _ in range(next(order, 0)):
            waiting = sorted(channel for channel, values in channels.items() if values)
            if waiting:
                deliver(waiting[next(order, 0) % len(waiting)])
    while waiting := sorted(channel for channel, values in channels.items() if values):
        deliver(waiting[next(order, 0) % len(waiting)])
    left, right = sides
    wanted = {key.encode(): [row, right.get(row["fk"])] for key, row in left.items()}
    if how == "inner":
        wanted = {key: pair for key, pair in wanted.items() if pair[1] is not None}
    assert collect.table("t").rows == wanted


def test_the_end_is_not_given_twice() -> None:
    rule = JoinRule("j", Range(), True, True, pair)
    bench = Bench(lambda: IntervalJoin(rule, Kept(), Kept()))
    bench.run([Row("a", {"id": 1}, 3)])
    bench.restart()
    bench.advance(END_OF_TIME)
    assert bench.values() == [[1, None]]
