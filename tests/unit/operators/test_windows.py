"""Windowed aggregates against naive models: any order of arrival, any lateness, started anew anywhere.

Strategy: records of few keys at times close to each other, from up to three channels; the model judges each record by
its own watermark and the task's, as the bench noted them, and then aggregates those that are in time by sorting.
Invariant: results are a function of the records; a restart changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core import hot
from headwater.core.errors import ValueRefusedError
from headwater.stream.aggregate import Aggregate
from headwater.stream.counted import CountAggregate
from headwater.stream.fixed import FixedAggregate
from headwater.stream.fold import Fold
from headwater.stream.kept import Kept
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.results import Results
from headwater.stream.session import SessionAggregate
from headwater.stream.sliding import SlidingAggregate
from headwater.stream.window import Calendar, Count, Hopping, Session, Sliding, Tumbling
from tests.unit.operators.bench import Bench, Row, Seen

Window = tuple[str, int, int]

AGGREGATES = {
    "n": Aggregate("count"),
    "odd": Aggregate("count", where=lambda value: value["v"] % 2),
    "total": Aggregate("sum", "v"),
    "least": Aggregate("min", "v"),
    "most": Aggregate("max", "v"),
    "mean": Aggregate("mean", "v"),
    "different": Aggregate("distinct", "v"),
    "all": Aggregate("collect", "v"),
    "own": Aggregate(
        "own", zero=list, add=lambda acc, value: [*acc, value["v"]], merge=lambda a, b: a + b, result=sorted
    ),
}
GRACE = st.sampled_from([0, 3])
LATENESS = st.sampled_from([0, 4, 100])
RESTARTS = st.sets(st.integers(0, 30), max_size=3)
ROWS = st.lists(
    st.builds(
        Row,
        key=st.sampled_from(["a", "b", "a\x00"]),
        value=st.fixed_dictionaries({"v": st.integers(-3, 3)}),
        time=st.integers(-5, 60),
        channel=st.integers(0, 2),
    ),
    max_size=30,
)


def expected(values: list[int]) -> dict[str, Any]:
    return {
        "n": len(values),
        "odd": sum(1 for v in values if v % 2),
        "total": sum(values),
        "least": min(values),
        "most": max(values),
        "mean": sum(values) / len(values),
        "different": len(set(values)),
        "all": sorted(values),
        "own": sorted(values),
    }


def unordered(value: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose list is sorted: where sessions merge it has their order."""
    return {**value, "all": sorted(value["all"])}


def results(grace: int, *, expires: int | None = None) -> Results:
    return Results("t", "t", None, lambda: True, grace, expires)


def check(bench: Bench, model: dict[Window, list[int]]) -> None:
    """Compare the final results, each once, and the table, whose rows are all final."""
    found = {(v["key"], v["start"], v["end"]): unordered(v) for v in bench.values()}
    assert len(bench.emitted) == len(found)
    for window, value in found.items():
        assert value == {"key": window[0], "start": window[1], "end": window[2], **expected(model[window])}
    assert found.keys() == model.keys()
    table = {window: (unordered(value), final) for window, (value, final) in bench.windows().items()}
    assert table == {window: (expected(values), True) for window, values in model.items()}
    left = [key for state in bench.states.values() for key in state.rows if key]
    assert not left, "closed windows leave the state"


def fixed_model(
    seen: Iterable[Seen], spans: Callable[[int], Iterable[tuple[int, int]]], grace: int
) -> tuple[dict[Window, list[int]], list[Row]]:
    model: dict[Window, list[int]] = defaultdict(list)
    late = []
    for one in seen:
        in_time = [span for span in spans(one.row.time) if span[1] + grace > max(one.own, one.task)]
        for start, end in in_time:
            model[one.row.key, start, end].append(one.row.value["v"])
        if not in_time:
            late.append(one.row)
    return dict(model), late


def naive_hopping(size: int, step: int, offset: int) -> Callable[[int], list[tuple[int, int]]]:
    return lambda time: [
        (start, start + size) for start in range(time - size + 1, time + 1) if (start - offset) % step == 0
    ]


@pytest.mark.parametrize(
    ("window", "spans"),
    [
        (Tumbling(0.01), naive_hopping(10, 10, 0)),
        (Tumbling(0.007, offset=0.003), naive_hopping(7, 7, 3)),
        (Hopping(0.01, 0.002), naive_hopping(10, 2, 0)),
        (Hopping(0.01, 0.003, offset=0.001), naive_hopping(10, 3, 1)),
    ],
)
@given(rows=ROWS, grace=GRACE, lateness=LATENESS, restarts=RESTARTS)
def test_fixed_windows_hold_what_is_in_time(
    window: Any, spans: Any, rows: list[Row], grace: int, lateness: int, restarts: set[int]
) -> None:
    bench = Bench(lambda: FixedAggregate(window, Fold(AGGREGATES), results(grace)), lateness)
    seen = bench.run(rows, restarts)
    model, late = fixed_model(seen, spans, grace)
    check(bench, model)
    assert bench.lates == late


BARE = {name: AGGREGATES[name] for name in ("n", "odd", "total", "least", "most", "mean")}
PLAIN = {"n": AGGREGATES["n"], "total": AGGREGATES["total"]}


@pytest.mark.parametrize("aggregates", [BARE, PLAIN], ids=["asked for results", "accumulators are results"])
@pytest.mark.parametrize("window", [Tumbling(0.01), Tumbling(0.007, offset=0.003)])
@given(rows=ROWS, cuts=st.sets(st.integers(0, 30)), grace=GRACE, lateness=LATENESS, restarts=RESTARTS)
def test_records_taken_together_give_what_they_give_one_by_one(
    window: Any,
    aggregates: Any,
    rows: list[Row],
    cuts: set[int],
    grace: int,
    lateness: int,
    restarts: set[int],
) -> None:
    def make() -> Operator:
        return FixedAggregate(window, Fold(aggregates), Results("t", None, None, lambda: True, grace))

    single, many = Bench(make, lateness), Bench(make, lateness)
    seen = [single.feed(row) for row in rows]
    found: list[Seen] = []
    for start, end in pairwise(sorted({0, len(rows), *(cut for cut in cuts | restarts if cut < len(rows))})):
        if start in restarts:
            many.restart()
        found += many.feed_many(rows[start:end])
    assert found == seen
    assert (many.emitted, many.lates) == (single.emitted, single.lates)
    assert dict(many.state("groups").scan()) == dict(single.state("groups").scan())
    single.advance(END_OF_TIME)
    many.advance(END_OF_TIME)
    assert many.emitted == single.emitted


def test_a_record_that_is_not_a_usual_one_is_left_and_those_behind_it_taken() -> None:
    def make() -> Operator:
        return FixedAggregate(Tumbling(0.01), Fold(PLAIN), Results("t", None, None, lambda: True))

    bench = Bench(make)
    times = [1, 5, 25, 3, 26, 1 << 62, 27]
    bench.feed_many([Row("a", {"v": 1}, time) for time in times])
    assert [row.time for row in bench.lates] == [3, 27]
    assert [value["start"] for value in bench.values()] == [0, 20]
    assert bench.taken == (4 if hot.is_compiled else 0)
    with pytest.raises(KeyError, match="v"):
        bench.feed_many([Row("b", {"v": 1}, (1 << 62) + 1), Row("b", {}, (1 << 62) + 2)])


def test_a_window_at_the_end_of_all_times_stays_open_beside_others() -> None:
    """Its end plus the grace is more than 64 bits of ms."""

    def make() -> Operator:
        return FixedAggregate(Tumbling(0.01), Fold(PLAIN), Results("t", None, None, lambda: True, 1_000))

    bench = Bench(make)
    end = END_OF_TIME - END_OF_TIME % 10
    bench.feed_many([Row("a", {"v": 2}, end - 10)])
    bench.clocks.clear()
    bench.watermark = 10
    bench.feed_many([Row("a", {"v": 3}, 6), Row("a", {"v": 4}, 2_000), Row("a", {"v": 5}, 4_000)])
    assert [value["start"] for value in bench.values()] == [0, 2_000]


@given(rows=ROWS, grace=GRACE, lateness=LATENESS, restarts=RESTARTS)
def test_windows_close_in_the_order_of_end_key_start(
    rows: list[Row], grace: int, lateness: int, restarts: set[int]
) -> None:
    bench = Bench(lambda: FixedAggregate(Hopping(0.01, 0.005), Fold(AGGREGATES), results(grace)), lateness)
    before = 0
    for number, row in enumerate(rows):
        if number in restarts:
            bench.restart()
        bench.feed(row)
        closed = [(v["end"], v["key"], v["start"]) for v in bench.values()[before:]]
        assert closed == sorted(closed)
        assert all(end + grace <= bench.watermark for end, _, _ in closed)
        # What is due is never left open.
        open_ends = [end for (_, _, end), (_, final) in bench.windows().items() if not final]
        assert all(end + grace > bench.watermark for end in open_ends)
        before = len(bench.emitted)
    assert all(time == value["end"] - 1 for _, value, time in bench.emitted)


@given(rows=ROWS, reach=st.booleans(), grace=GRACE, lateness=LATENESS, restarts=RESTARTS)
def test_sessions_are_those_of_the_records_in_time_in_any_order(
    rows: list[Row], reach: bool, grace: int, lateness: int, restarts: set[int]
) -> None:
    window = Session(0.005, merge_at_gap=reach)
    bench = Bench(lambda: SessionAggregate(window, Fold(AGGREGATES), results(grace)), lateness)
    seen = bench.run(rows, restarts)
    assert bench.lates == [one.row for one in seen if one.row.time + grace < max(one.own, one.task)]
    by_key: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in seen:
        if one.row.time + grace >= max(one.own, one.task):
            by_key[one.row.key].append((one.row.time, one.row.value["v"]))
    model: dict[Window, list[int]] = {}
    for key, records in by_key.items():
        session: list[tuple[int, int]] = []
        for record in sorted(records):
            gap = record[0] - session[-1][0] if session else 0
            if gap > 5 or (gap == 5 and not reach):
                model[key, session[0][0], session[-1][0] + 5] = [v for _, v in session]
                session = []
            session.append(record)
        model[key, session[0][0], session[-1][0] + 5] = [v for _, v in session]
    check(bench, model)


@given(rows=ROWS, grace=GRACE, lateness=LATENESS, restarts=RESTARTS)
def test_sliding_windows_hold_the_records_before_each_one(
    rows: list[Row], grace: int, lateness: int, restarts: set[int]
) -> None:
    bench = Bench(
        lambda: SlidingAggregate(Sliding(0.008), Fold(AGGREGATES), results(grace), Kept()), lateness
    )
    seen = bench.run(rows, restarts)
    kept = [one.row for one in seen if one.row.time + 1 + grace > max(one.own, one.task)]
    assert bench.lates == [one.row for one in seen if one.row.time + 1 + grace <= max(one.own, one.task)]
    model = {
        (end.key, end.time - 8, end.time + 1): [
            row.value["v"] for row in kept if row.key == end.key and end.time - 8 <= row.time <= end.time
        ]
        for end in kept
    }
    check(bench, model)


@given(rows=ROWS, size=st.integers(1, 4), restarts=RESTARTS)
def test_count_windows_hold_each_n_records_in_merged_order(
    rows: list[Row], size: int, restarts: set[int]
) -> None:
    bench = Bench(lambda: CountAggregate(Count(size), Fold(AGGREGATES), results(0)))
    bench.run(rows, restarts)
    by_key: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        by_key[row.key].append(row.value["v"])
    model = {
        (key, start, start + size): values[start : start + size]
        for key, values in by_key.items()
        for start in range(0, len(values), size)
    }
    bench.states.pop("groups", None)  # how many there were stays for ever
    check(bench, model)
    assert bench.lates == []


@given(rows=ROWS, restarts=RESTARTS)
def test_closed_windows_leave_the_table_when_they_expire(rows: list[Row], restarts: set[int]) -> None:
    expires = 20

    def make() -> Operator:
        return FixedAggregate(Tumbling(0.01), Fold({"n": Aggregate("count")}), results(0, expires=expires))

    bench = Bench(make)
    for number, row in enumerate(rows):
        if number in restarts:
            bench.restart()
        bench.feed(row)
        assert all(end + expires > bench.watermark for _, _, end in bench.windows())
    there = bench.windows().keys()
    bench.advance(END_OF_TIME)
    assert bench.windows().keys() == there, "the end of time closes windows and removes none"


@pytest.mark.parametrize("time", [-1, 0, -(1 << 62), 253402300799999, 1 << 62])
def test_odd_times_have_windows_as_any_others(time: int) -> None:
    bench = Bench(lambda: FixedAggregate(Tumbling(60), Fold(AGGREGATES), results(0)))
    bench.run([Row("a", {"v": 1}, time)])
    ((start, end),) = [(value["start"], value["end"]) for value in bench.values()]
    assert start <= time < end == start + 60_000
    assert start % 60_000 == 0


def test_a_window_beyond_64_bits_is_refused_and_changes_nothing() -> None:
    bench = Bench(lambda: FixedAggregate(Tumbling(60), Fold(AGGREGATES), results(0)))
    with pytest.raises(ValueRefusedError, match="outside 64 bits"):
        bench.feed(Row("a", {"v": 1}, END_OF_TIME))
    assert not any(state.rows for state in bench.states.values())


NEW_YORK = Calendar("day", "America/New_York")


@pytest.mark.parametrize(
    ("window", "time", "hours"),
    [
        (NEW_YORK, 1362891600000 + 1, 23),  # 2013-03-10, clocks go forward
        (NEW_YORK, 1383451200000 + 1, 25),  # 2013-11-03, clocks go back
        (NEW_YORK, 1383451200000 - 1, 24),
        (Calendar("week", "America/New_York"), 1362891600000, 7 * 24 - 1),
        (Calendar("month", "America/New_York"), 1383451200000, 30 * 24 + 1),
        (Calendar("year"), 1362891600000, 365 * 24),
        (Calendar("day", "America/Sao_Paulo"), 1382241600000, 23),  # 2013-10-20 begins at 01:00
        (Calendar("hour", "Asia/Kolkata"), 1362891600000, 1),
    ],
)
def test_calendar_windows_are_as_long_as_the_calendar_says(window: Calendar, time: int, hours: int) -> None:
    ((start, end),) = window.spans(time)
    assert start <= time < end
    assert end - start == hours * 3_600_000
    assert window.spans(start) == window.spans(end - 1) == ((start, end),)
    assert window.spans(start - 1)[0][1] == start
    assert window.spans(end)[0][0] == end


def test_a_change_of_half_an_hour_cuts_an_hour_in_two() -> None:
    window = Calendar("hour", "Australia/Lord_Howe")
    change = 1365260400000  # 2013-04-06T15:00Z: 02:00 +11 becomes 01:30 +10:30
    spans = [window.spans(change + offset * 600_000)[0] for offset in range(-12, 12)]
    joined = sorted(set(spans))
    assert all(before[1] == after[0] for before, after in pairwise(joined))
    assert {(end - start) // 60_000 for start, end in joined} == {30, 60}


def test_times_beyond_the_calendar_are_errors() -> None:
    with pytest.raises(ValueError, match="outside the years"):
        NEW_YORK.spans(1 << 60)
