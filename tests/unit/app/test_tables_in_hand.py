"""Tables as agents use them, and outside: reads, writes, defaults, order, sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.app.table import Table
from headwater.core.errors import AgentStoppedError, ReadOnlyTableError, ValueRefusedError
from headwater.table.behind import WriteBehind
from headwater.table.part import TablePart
from headwater.table.store import MemoryStore
from tests.unit.app.frames import changes_of, frame_over, hand, inside


class EngineOfParts:
    """An engine that has committed what it was given."""

    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows

    def committed(self, table: Any) -> EngineOfParts:
        return self

    def as_of(self, table: Any, time: Any) -> Any:
        return (table.name, time)

    def get(self, key: Any, default: Any = None) -> Any:
        return self.rows.get(str(key), default)

    def items(self) -> Iterator[tuple[bytes, Any]]:
        for key, value in sorted(self.rows.items()):
            yield key.encode(), value


@pytest.fixture
def app() -> hw.App:
    return hw.App("app")


def part_of(table: Table, frame: Any) -> TablePart:
    part: TablePart = frame.parts[table.number]
    return part


def test_a_sum_is_one_change_a_record_with_its_row(app: hw.App) -> None:
    table = app.Table("t", default=float)
    frame = frame_over(table, keys=[b"a", b"b", b"a"])
    with inside(frame):
        for row, key in enumerate(["a", "b", "a"]):
            frame.row = row
            table[key] += 1.5
    part = part_of(table, frame)
    assert changes_of(part) == [("a", b"1.5", 0), ("b", b"1.5", 1), ("a", b"3.0", 2)]


def test_reading_a_default_stores_nothing(app: hw.App) -> None:
    table = app.Table("t", default=list)
    frame = frame_over(table)
    with inside(frame):
        assert table["k"] == []
        assert "k" not in table
        assert table.get("k") is None
        assert len(table) == 0
        with pytest.raises(KeyError):
            del table["k"]
    assert part_of(table, frame).count == 0


def test_without_a_default_a_missing_row_is_a_key_error(app: hw.App) -> None:
    table = app.Table("t")
    with inside(frame_over(table)), pytest.raises(KeyError):
        _ = table["k"]


@pytest.mark.parametrize("value", [0, 0.0, "", False, [], {}, None])
def test_falsy_values_nulls_and_deletes_are_kept_apart(value: Any, app: hw.App) -> None:
    table = app.Table("t", default=lambda: "default")
    frame = frame_over(table)
    with inside(frame):
        table["k"] = value
        assert table["k"] == value
        assert type(table["k"]) is type(value)
        assert "k" in table
        assert table.get("k", "otherwise") == value
        assert table.setdefault("k", "other") == value
        del table["k"]
        assert "k" not in table
        assert table["k"] == "default"
        assert table.get("k", "otherwise") == "otherwise"
    values = [value for _, value, _ in changes_of(part_of(table, frame))]
    assert values[-1] is None
    assert values[0] is not None


def test_a_table_does_what_a_mapping_does(app: hw.App) -> None:
    table = app.Table("t")
    frame = frame_over(table)
    with inside(frame):
        table.update({"b": 2, "a": 1}, c=3)
        table.update([("d", 4)])
        assert list(table) == list(table.keys()) == ["a", "b", "c", "d"]
        assert list(table.values()) == [1, 2, 3, 4]
        assert list(table.items()) == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
        assert table.copy() == {"a": 1, "b": 2, "c": 3, "d": 4}
        assert len(table) == len(table.items()) == 4
        assert table.pop("a") == 1
        assert table.pop("a", "none") == "none"
        with pytest.raises(KeyError):
            table.pop("a")
        assert table.popitem() == ("b", 2)
        assert table.setdefault("e", 5) == 5
        table.clear()
        assert list(table) == []
        with pytest.raises(KeyError):
            table.popitem()


@pytest.mark.parametrize(
    ("key_type", "keys", "shown"),
    [(None, [10, "x", b"\xff"], ["10", "x", b"\xff"]), (int, [10, 9], [10, 9]), (bytes, ["a"], [b"a"])],
)
def test_keys_come_back_as_the_key_type_says(
    key_type: Any, keys: list[Any], shown: list[Any], app: hw.App
) -> None:
    table = app.Table("t", key_type=key_type)
    with inside(frame_over(table)):
        for key in keys:
            table[key] = 1
            assert key in table
            assert table[key] == 1
        assert list(table) == shown


def test_a_key_that_is_no_dictionary_key_works_as_well(app: hw.App) -> None:
    table = app.Table("t", default=int)
    with inside(frame_over(table)):
        table[["a", 1]] += 1
        assert table[("a", 1)] == 1
        assert list(table) == ['["a",1]']


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object()])
def test_what_json_can_not_hold_is_refused_and_leaves_nothing(value: Any, app: hw.App) -> None:
    table = app.Table("t")
    frame = frame_over(table)
    with inside(frame), pytest.raises(ValueRefusedError):
        table["k"] = value
    assert part_of(table, frame).count == 0
    assert part_of(table, frame).hot == {}


@settings(max_examples=150)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", 1, b"a", b"\xff", ("a",)]),
            st.one_of(
                st.integers(),
                st.floats(allow_nan=False, allow_infinity=False),
                st.text(),
                st.booleans(),
                st.none(),
            ),
        ),
        max_size=15,
    ),
    value_type=st.sampled_from([None, float, int, str]),
)
def test_writing_through_the_table_is_writing_to_its_part(steps: list[Any], value_type: Any) -> None:
    """The written-out fast way of Table.__setitem__ and TablePart.put do the same."""
    app = hw.App("app")
    table = app.Table("t", value_type=value_type)
    frame, other = frame_over(table), frame_over(table)
    for row, (key, value) in enumerate(steps):
        frame.row = other.row = row
        with inside(frame):
            try:
                table[key] = value
                refused = False
            except ValueRefusedError:
                refused = True
        try:
            part_of(table, other).put(key, value, other)
            assert not refused
        except ValueRefusedError:
            assert refused
    part, model = part_of(table, frame), part_of(table, other)
    assert (part.keys, part.values, part.rows) == (model.keys, model.values, model.rows)
    assert list(map(type, part.values)) == list(map(type, model.values))
    assert (part.hot, part.raw) == (model.hot, model.raw)
    assert changes_of(part) == changes_of(model)


def test_a_table_outside_agents_reads_what_is_committed(app: hw.App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hw.App, "engine_class", staticmethod(lambda app: EngineOfParts({"a": 1, "b": None})))
    table = app.Table("t", default=int)
    assert table["a"] == 1
    assert table["b"] is None
    assert table["c"] == 0
    assert "b" in table
    assert "c" not in table
    assert table.get("c", 5) == 5
    assert list(table.items()) == [("a", 1), ("b", None)]
    assert len(table) == 2
    assert table.as_of("2013-01-01") == ("t", "2013-01-01")


def test_a_table_outside_agents_is_read_only_and_the_error_has_the_users_line(app: hw.App) -> None:
    table, sets = app.Table("t"), app.SetTable("s")
    uses: list[Any] = [
        lambda: table.__setitem__("k", 1),
        lambda: table.__delitem__("k"),
        lambda: table.pop("k"),
        lambda: table.update(k=1),
        table.clear,
        lambda: sets.__setitem__("k", {1}),
    ]
    for use in uses:
        with pytest.raises(
            ReadOnlyTableError,
            match=r"table '[ts]' was changed outside an agent, at .*test_tables_in_hand\.py:\d+",
        ):
            use()


def test_a_table_the_task_has_not_is_asked_of_the_engine(app: hw.App) -> None:
    table, other = app.Table("t"), app.Table("other")
    frame = frame_over(table)
    asked: list[Any] = []

    def touch(wanted: Any) -> TablePart:
        asked.append(wanted)
        return TablePart("other", 1, 0, 1, WriteBehind(MemoryStore()), wanted.codec)

    with inside(frame):
        with pytest.raises(AgentStoppedError, match="without table 'other'"):
            other["k"] = 1
        frame.touch = touch
        other["k"] = 1
        assert "k" not in other
    assert asked == [other, other]


# -- sets


def test_changes_of_a_set_are_written_through_sorted(app: hw.App) -> None:
    table = app.SetTable("s")
    frame = frame_over(table, keys=[b"k"] * 9)
    with inside(frame):
        row = table["k"]
        row.update(["b", "a"])
        row.add("c")
        row.add("c")
        row.discard("x")
        row.discard("a")
        row |= {"d"}
        row -= {"b"}
        assert sorted(table["k"]) == list(row) == ["c", "d"]
        assert "c" in row
        assert len(row) == 2
        assert row | {"z"} == {"c", "d", "z"}
        row.clear()
        assert "k" in table
        assert set(table["k"]) == set()
    values = [value for _, value, _ in changes_of(part_of(table, frame))]
    assert values == [b'["a","b"]', b'["a","b","c"]', b'["b","c"]', b'["b","c","d"]', b'["c","d"]', b"[]"]


def test_a_set_never_set_is_empty_and_reading_it_stores_nothing(app: hw.App) -> None:
    table = app.SetTable("s")
    frame = frame_over(table)
    with inside(frame):
        assert set(table["k"]) == set()
        assert "k" not in table
        assert table.get("k") is None
    assert part_of(table, frame).count == 0


def test_a_set_can_be_set_popped_and_listed(app: hw.App) -> None:
    table = app.SetTable("s")
    with inside(frame_over(table)):
        table["b"] = [("x", 1), ("x", 1)]
        table["a"] = {2, 10}
        assert list(table.items()) == [("a", {2, 10}), ("b", {("x", 1)})]
        assert list(table.values()) == [{2, 10}, {("x", 1)}]
        assert table.setdefault("c", [1]) == {1}
        assert table.pop("a") == {2, 10}
        assert table.pop("a", None) is None
        del table["b"]
        assert list(table) == ["c"]


def test_the_elements_type_is_held(app: hw.App) -> None:
    table = app.SetTable("s", value_type=int)
    with inside(frame_over(table)), pytest.raises(ValueRefusedError, match="holds int; found 'a'"):
        table["k"].add("a")
    with pytest.raises(hw.MisuseError, match="elements are str, int, float or bool"):
        app.SetTable("other", value_type=dict)


@settings(max_examples=60)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "discard", "update", "difference_update", "intersection_update"]),
            st.integers(0, 4),
        ),
        max_size=20,
    )
)
def test_a_row_of_a_set_table_is_a_set(steps: list[tuple[str, int]]) -> None:
    table = hw.App("app").SetTable("s")
    model: set[int] = set()
    with inside(frame_over(table)):
        for name, number in steps:
            argument: Any = number if name in ("add", "discard") else [number, number + 1]
            getattr(table["k"], name)(argument)
            getattr(model, name)(argument)
            assert table["k"].copy() == model


def test_many_rows_in_hand_are_told_apart_by_their_record_key(app: hw.App) -> None:
    table = app.Table("t", default=int)
    frame = frame_over(table, partitions=4)
    keys = [f"k{number}".encode() for number in range(50)]
    hand(frame, keys)
    with inside(frame):
        for frame.row, key in enumerate(keys):
            table[key.decode()] += 1
    assert part_of(table, frame).count == 50
